"""SeenSets: nothing that is kept is missed, the bound of false answers, bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.paths import GOLDEN
from tests.small_world import SMALL
from tracker.users import seen as seen_module
from tracker.users.config import InterestConfig
from tracker.users.seen import SeenFormatError, SeenSets, event_key


def filled(config: InterestConfig, keys: int, seed: int = 0) -> tuple[SeenSets, list[int]]:
    seen = SeenSets(config, 3)
    ids = np.random.default_rng(seed).integers(1, 2**63, keys).tolist()
    for key in ids:
        seen.add(1, key)
    return seen, ids


def answers(seen: SeenSets, keys: list[int]) -> float:
    slots = np.full(len(keys), 1)
    return float(seen.contains_many(slots, np.array(keys, np.uint64)).mean())


@pytest.mark.parametrize(("keys", "bound"), [(100, 0.0001), (1500, 0.0065), (3000, 0.0120)])
def test_false_answers_keep_to_the_stated_bound(keys: int, bound: float) -> None:
    seen, ids = filled(InterestConfig(), keys)
    assert answers(seen, ids) == 1.0
    others = np.random.default_rng(9).integers(1, 2**63, 100_000).tolist()
    assert answers(seen, others) <= bound


def test_a_user_with_a_thousand_events_is_remembered_whole() -> None:
    seen, ids = filled(InterestConfig(), 2 * 1000)  # items and event ids
    assert answers(seen, ids) == 1.0


def test_the_last_full_generation_is_always_kept() -> None:
    capacity = InterestConfig().seen_capacity
    seen, ids = filled(InterestConfig(), 5 * capacity + 7)
    assert answers(seen, ids[-capacity:]) == 1.0
    assert answers(seen, ids[: 2 * capacity]) < 0.02
    assert seen.counts[1].max() <= capacity


def test_a_repeated_key_takes_no_room() -> None:
    seen = SeenSets(SMALL, 1)
    for _ in range(1000):
        seen.add(0, 42)
    assert seen.counts.tolist() == [[1, 0]]


def test_an_event_id_is_not_the_item_of_the_same_text() -> None:
    seen = SeenSets(SMALL, 1)
    seen.add(0, 42)
    assert seen.contains(0, 42)
    assert not seen.contains(0, int(event_key(np.uint64(42))))
    assert not seen.contains(-1, 42)
    assert seen.contains_many(np.array([-1, 0]), np.array([42, 42], np.uint64)).tolist() == [
        False,
        True,
    ]


def test_rows_are_allocated_cleared_and_given_back() -> None:
    seen = SeenSets(SMALL, 2)
    first = seen.allocate(2)
    seen.add(int(first[0]), 7)
    more = seen.allocate(3)
    assert seen.capacity >= 5
    assert len({*first.tolist(), *more.tolist()}) == 5
    assert seen.contains(int(first[0]), 7)
    seen.release(np.array([first[0], -1]))
    again = seen.allocate(seen.capacity - 4)
    assert first[0] in again
    assert not seen.contains(int(first[0]), 7)


@pytest.mark.parametrize("keys", [0, 3, 50, 100, 5000])
def test_rows_survive_bytes_bit_for_bit(keys: int) -> None:
    seen, ids = filled(SMALL, keys)
    row = seen.pack(np.array([1]))
    other = SeenSets(SMALL, 4)
    other.bits[:] = 255
    other.unpack(np.array([2, 3]), [*row, None])
    assert other.pack(np.array([2])) == row
    assert np.array_equal(other.bits[2], seen.bits[1])
    assert not other.bits[3].any()
    assert other.contains_many(np.full(len(ids[-60:]), 2), np.array(ids[-60:], np.uint64)).all()


def test_a_row_with_few_ids_is_small_and_a_full_one_bounded() -> None:
    seen, _ = filled(InterestConfig(), 8)
    assert len(seen.pack(np.array([1]))[0]) <= 24 + 2 * 7 * 8 + 8
    seen, _ = filled(InterestConfig(), 3000)
    assert len(seen.pack(np.array([1]))[0]) == 24 + 4096


def test_another_format_or_size_is_refused_by_name() -> None:
    row = filled(SMALL, 9)[0].pack(np.array([1]))[0]
    with pytest.raises(SeenFormatError, match="format 2; format 1 is expected"):
        SeenSets(SMALL, 1).unpack(np.array([0]), [b"\x02" + row[1:]])
    with pytest.raises(SeenFormatError, match="1024 bits; 16384 are expected"):
        SeenSets(InterestConfig(), 1).unpack(np.array([0]), [row])


@settings(deadline=None, derandomize=True)
@given(st.data())
def test_damaged_bytes_are_refused(data: st.DataObject) -> None:
    row = ROW
    if data.draw(st.booleans()):
        damaged = row[: data.draw(st.integers(0, len(row) - 1))]
    else:
        at = data.draw(st.integers(0, len(row) - 1))
        damaged = row[:at] + bytes([row[at] ^ data.draw(st.integers(1, 255))]) + row[at + 1 :]
    seen = SeenSets(SMALL, 1)
    with pytest.raises(SeenFormatError):
        seen.unpack(np.array([0]), [damaged])
    assert not seen.bits.any()


ROW = filled(SMALL, 70)[0].pack(np.array([1]))[0]


def test_the_golden_row_of_format_1_is_read_and_written_the_same() -> None:
    row = (GOLDEN / "seen_row_1.bin").read_bytes()
    seen = SeenSets(SMALL, 2)
    seen.unpack(np.array([1]), [row])
    assert seen.pack(np.array([1])) == [row]
    assert seen.counts[1].tolist() == [60, 10]
    assert all(seen.contains(1, key) for key in range(1, 71))


def test_the_kernels_do_in_python_what_they_do_in_native_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, kernel in list(vars(seen_module).items()):
        if hasattr(kernel, "py_func") and name not in ("is_sealed", "seal"):
            monkeypatch.setattr(seen_module, name, kernel.py_func)
    monkeypatch.setitem(globals(), "event_key", seen_module.event_key)
    with np.errstate(over="ignore"):  # mixing wraps around on purpose
        seen, ids = filled(SMALL, 70)
        assert seen.pack(np.array([1])) == [ROW]
        assert answers(seen, ids) == 1.0
        seen.unpack(np.array([0]), [ROW])
        assert seen.pack(np.array([0])) == [ROW]
        assert event_key(np.uint64(5)) != 5
