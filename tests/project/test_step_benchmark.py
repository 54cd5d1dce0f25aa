"""The benchmark of a chunk beside another checkout: medians over pairs in turn."""

from benchmarks.step import in_turn


def test_two_checkouts_are_measured_in_turn_and_compared_pair_by_pair() -> None:
    asked: list[str] = []

    def alone(folder: str) -> dict[str, float]:
        asked.append(folder)
        return {"1": 30.0 * len(asked) if folder == "before" else 10.0 * len(asked)}

    found = in_turn("before", 3, alone)
    assert [folder == "before" for folder in asked] == [True, False, False, True, True, False]
    assert found["microseconds_before"] == {"1": 120.0}
    assert found["microseconds"] == {"1": 30.0}
    assert found["times_faster"] == {"1": 2.5}  # of 1.5, 4 and 2.5
