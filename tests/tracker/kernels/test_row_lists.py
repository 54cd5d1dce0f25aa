"""Lists of the best rows and sets of rows, in native code and in plain Python."""

import numpy as np
import pytest

from tracker.kernels.row_lists import find_place, keep_best, kth_largest, places_for


@pytest.mark.parametrize("mode", ["native", "python"])
def test_small_sets_and_lists_keep_their_promises(mode: str) -> None:
    place_of = find_place if mode == "native" else find_place.py_func  # type: ignore[attr-defined]
    best = keep_best if mode == "native" else keep_best.py_func  # type: ignore[attr-defined]
    marks = np.full(64, -1, np.int32)
    for row in (5, 69, 5, 133):
        marks[place_of(marks, row)] = row
    assert sorted(marks[marks >= 0].tolist()) == [5, 69, 133]
    scores, rows = np.zeros(3, np.float32), np.zeros(3, np.int32)
    n = 0
    for score, row in [(1.0, 9), (3.0, 4), (1.0, 2), (2.0, 8), (1.0, 1), (3.0, 5)]:
        n = best(scores, rows, n, score, row)
    assert rows[:n].tolist() == [4, 5, 8]


def test_a_set_has_a_power_of_two_of_places_and_is_at_most_a_quarter_full() -> None:
    for rows in (0, 1, 16, 17, 100, 1000):
        places = places_for(rows)
        assert places >= max(64, 4 * rows)
        assert places & (places - 1) == 0


@pytest.mark.parametrize("mode", ["native", "python"])
def test_the_kth_largest_is_that_of_the_sorted_values(mode: str) -> None:
    kth = kth_largest if mode == "native" else kth_largest.py_func  # type: ignore[attr-defined]
    rng = np.random.default_rng(3)
    for n in (1, 2, 3, 7, 40):
        for values in (rng.normal(size=n), rng.integers(0, 3, n), np.arange(n), -np.arange(n)):
            most = values.astype(np.float32)
            for k in range(1, n + 1):
                assert kth(most.copy(), n, k) == np.sort(most)[n - k]
    behind = np.array([1.0, 5.0, 9.0], np.float32)
    assert kth(behind, 2, 1) == 5.0
