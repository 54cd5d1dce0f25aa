"""User rows: to and from bytes, sizes, damage."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.paths import GOLDEN
from tests.small_world import SMALL, START, Action, lived_in
from tracker.kernels.row_bytes import split_rows
from tracker.users import layout as state_bytes
from tracker.users import states as state_module
from tracker.users.config import InterestConfig
from tracker.users.layout import HEAD, RING
from tracker.users.states import (
    NewerArtifactError,
    StateFormatError,
    UserStates,
    row_bytes_max,
    row_dtype,
)

deterministic = settings(deadline=None, derandomize=True)  # the first call compiles


def test_rows_survive_bytes_bit_for_bit_in_any_slot() -> None:
    users = lived_in()
    slots = np.arange(3)
    rows = users.states.pack(slots)
    other = UserStates(SMALL, 6)
    other.sums[:] = 9.0  # what was there before leaves no trace
    other.unpack(np.array([4, 0, 2]), rows)
    assert other.pack(np.array([4, 0, 2])) == rows
    n_ring = int(users.head()["n_ring"])
    assert other.head[4].tobytes() == users.head().tobytes()
    assert other.ring[4, :n_ring].tobytes() == users.states.ring[0, :n_ring].tobytes()
    assert np.array_equal(other.sums[4], users.states.sums[0])


def test_what_is_not_in_use_is_not_stored() -> None:
    sizes = [len(row) for row in lived_in().states.pack(np.arange(3))]
    assert sizes[0] > sizes[1] > sizes[2]
    assert all(size % 8 == 0 for size in sizes)
    assert sizes[0] <= row_bytes_max(SMALL)


@pytest.mark.parametrize(("hidden", "bytes_most"), [(0, 4096), (128, 4200)])
def test_a_row_of_the_default_configuration_is_about_4_kib(hidden: int, bytes_most: int) -> None:
    config = InterestConfig()
    assert row_bytes_max(config, hidden) <= bytes_most
    states = UserStates(config, 1, hidden)
    states.head["n_ring"] = config.ring
    states.head["n_slots"] = config.slots
    states.head["n_pending"] = config.pending
    assert len(states.pack(np.array([0]))[0]) == row_bytes_max(config, hidden)
    size = row_dtype(config, hidden).itemsize
    assert size <= row_bytes_max(config, hidden) < size + 8


def test_a_full_row_is_laid_out_as_its_dtype_says() -> None:
    config = InterestConfig(dim=6, ring=5, slots=2, pending=2, ring_evict=1)
    states = UserStates(config, 1, 4)
    random = np.random.default_rng(0)
    for name in ("masses", "sums", "negative", "interest_means", "hidden"):
        column = getattr(states, name)
        column[:] = random.integers(-90, 90, column.shape)
    states.ring["item"] = random.integers(1, 2**60, states.ring.shape)
    states.pending[:] = 5
    states.interest_heads["mass"] = [3.0, 4.0]
    states.head["n_ring"], states.head["n_slots"], states.head["n_pending"] = 5, 2, 2
    row = np.frombuffer(states.pack(np.array([0]))[0], row_dtype(config, 4), 1)[0]
    assert (row["header"]["format"], row["header"]["dim"]) == (1, 6)
    assert row["head"] == states.head[0]
    for field, name in {
        "masses": "masses",
        "sums": "sums",
        "negative": "negative",
        "hidden": "hidden",
        "pending": "pending",
        "slots": "interest_heads",
        "slot_means": "interest_means",
        "ring": "ring",
    }.items():
        assert np.array_equal(row[field], getattr(states, name)[0]), field


def test_none_clears_a_row() -> None:
    users = lived_in()
    users.states.unpack(np.array([0, 1]), [None, None])
    fresh = UserStates(SMALL, 1).pack(np.array([0]))
    assert users.states.pack(np.array([0])) == fresh
    assert users.states.pack(np.array([1])) == fresh
    assert users.head()["last_offset"] == users.head()["emitted_offset"] == -1


def test_growing_keeps_rows_and_copies_do_not_follow_later_events() -> None:
    users = lived_in()
    before = users.states.pack(np.arange(3))
    users.states.grow(10)
    users.seen_slots = np.append(users.seen_slots, np.full(7, -1))
    assert users.states.capacity == 10
    assert users.states.pack(np.arange(3)) == before
    users.states.grow(4)
    assert users.states.capacity == 10
    copy = users.states.copy_rows(np.array([1, 0]))
    buffer = users.states.pack_buffer(np.array([1, 0]))
    users.apply(Action(item=4), Action(user=1, item=4))
    assert copy.pack(np.array([0, 1])) == [before[1], before[0]]
    assert split_rows(*buffer) == [before[1], before[0]]
    assert users.states.pack(np.arange(2)) != before[:2]


def test_growing_within_the_room_copies_nothing_and_new_rows_are_those_of_nobody() -> None:
    states = UserStates(SMALL, 0, most=8)
    states.grow(2)
    states.unpack(np.array([1]), lived_in().states.pack(np.array([0])))
    ring, row = states.ring, states.pack(np.array([1]))
    states.grow(7)
    assert np.shares_memory(states.ring, ring)
    assert states.pack(np.array([1])) == row
    nobody = UserStates(SMALL, 1).pack(np.array([0]))
    assert states.pack(np.array([0, 5, 6])) == nobody * 3
    assert states.capacity == 7


def test_another_format_number_is_refused_by_name() -> None:
    row = bytearray(lived_in().states.pack(np.array([0]))[0])
    row[0] = 9
    with pytest.raises(StateFormatError, match="user row 1 of 2 has format 9; format 1 is exp"):
        UserStates(SMALL, 2).unpack(np.array([0, 1]), [None, bytes(row)])


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (InterestConfig(), "dim 8, 4 half-lives.* dim 64"),
        (InterestConfig(dim=8, half_lives_seconds=(60.0,)), "4 half-lives.* 1 half-lives"),
        (InterestConfig(dim=8, ring=4, ring_evict=1), "ring entries"),
    ],
)
def test_a_row_of_another_layout_is_refused_with_both(config: InterestConfig, named: str) -> None:
    rows = lived_in().states.pack(np.array([0]))
    with pytest.raises(StateFormatError, match=named):
        UserStates(config, 1).unpack(np.array([0]), rows)


def test_a_row_of_another_encoders_width_is_read_without_its_state() -> None:
    users = lived_in()
    rows = users.states.pack(np.arange(3))
    wide = UserStates(SMALL, 3, 6)
    wide.unpack(np.arange(3), rows)
    assert not wide.hidden.any()
    wide.hidden[:] = 1.5
    wide.head["encoder"] = 77
    again, other = UserStates(SMALL, 3, 6), UserStates(SMALL, 3, 2)
    again.unpack(np.arange(3), wide.pack(np.arange(3)))
    assert (again.hidden == 1.5).all()
    assert (again.head["encoder"] == 77).all()
    other.hidden[:] = 3.0
    other.unpack(np.arange(3), wide.pack(np.arange(3)))
    assert not other.hidden.any()
    assert not other.head["encoder"].any()
    assert UserStates(SMALL, 3).pack(np.arange(3)) != rows
    narrow = UserStates(SMALL, 3)
    narrow.unpack(np.arange(3), other.pack(np.arange(3)))
    assert narrow.pack(np.arange(3)) == rows


def test_room_for_another_encoder_is_empty_and_of_none() -> None:
    states = UserStates(SMALL, 2, 4)
    states.hidden[:] = 1.0
    states.head["encoder"] = 5
    states.set_hidden(4)
    assert (states.hidden == 1.0).all()
    states.set_hidden(6)
    assert states.hidden.shape == (2, 6)
    assert not states.hidden.any()
    assert not states.head["encoder"].any()


def test_a_row_of_a_newer_artifact_is_refused_with_both_and_nothing_is_written() -> None:
    users = lived_in()
    users.states.head["artifact"][:2] = 3, 2**32 - 1
    rows = users.states.pack(np.arange(2))
    other = UserStates(SMALL, 2, hidden=4)
    other.hidden[:] = 1.0
    for row, (newest, found) in enumerate(((2, 3), (3, 2**32 - 1))):
        named = f"user row {row} of 2 was written with artifact {found}; at most {newest}"
        with pytest.raises(NewerArtifactError, match=named):
            other.unpack(np.arange(2), rows, newest)
    assert (other.hidden == 1.0).all()
    assert not other.head["events"].any()
    other.unpack(np.arange(2), rows)
    assert other.head["artifact"].tolist() == [3, 2**32 - 1]


def test_an_arena_without_rows_tells_good_rows_from_damaged_ones() -> None:
    (row,) = lived_in().states.pack(np.zeros(1, int))
    empty = UserStates(SMALL, 0)
    assert empty.problem_of(row) is None
    assert empty.problem_of(row[:-8]) == "damaged"


def test_rows_are_copied_to_the_bit_between_arenas_whose_arrays_have_changed() -> None:
    states, other = lived_in().states, UserStates(SMALL, 2)
    slots = np.array([2, 0])

    def copied_to(start: int) -> bool:
        states.sums[slots] += 1.0
        states.hidden[slots] += 0.5
        other.put_rows(start, states, slots)
        assert (other.hidden[start : start + 2] == states.hidden[slots]).all()
        return other.pack(np.arange(start, start + 2)) == states.pack(slots)

    assert copied_to(0)
    for arena in (states, other):
        arena.grow(10)
    assert copied_to(5)
    for arena in (states, other):
        arena.set_hidden(6)
    assert copied_to(8)
    assert not other.hidden[:8].any()


def test_a_refused_row_leaves_the_arena_as_it_was() -> None:
    users = lived_in()
    rows = users.states.pack(np.arange(3))
    damaged = rows[1][:40] + bytes([rows[1][40] ^ 1]) + rows[1][41:]
    with pytest.raises(StateFormatError, match=r"user row 1 of 2.* is damaged"):
        users.states.unpack(np.array([2, 0]), [rows[0], damaged])
    assert users.states.pack(np.arange(3)) == rows


@cache
def lived_in_rows() -> list[bytes]:
    return lived_in().states.pack(np.arange(3))


@deterministic
@given(st.data())
def test_damaged_bytes_are_refused_and_never_read(data: st.DataObject) -> None:
    row = lived_in_rows()[data.draw(st.integers(0, 2))]
    states = UserStates(SMALL, 1)
    choice = data.draw(st.sampled_from(["cut", "flip", "grow", "noise"]))
    if choice == "cut":
        damaged = row[: data.draw(st.integers(0, len(row) - 1))]
    elif choice == "flip":
        at = data.draw(st.integers(0, len(row) - 1))
        damaged = row[:at] + bytes([row[at] ^ data.draw(st.integers(1, 255))]) + row[at + 1 :]
    elif choice == "grow":
        damaged = row + data.draw(st.binary(min_size=1, max_size=64))
    else:
        damaged = data.draw(st.binary(max_size=200))
    with pytest.raises(StateFormatError, match=r"damaged|format"):
        states.unpack(np.array([0]), [damaged])
    assert not states.head["n_ring"].any()


def test_the_golden_row_of_format_1_is_read_and_written_the_same() -> None:
    row = (GOLDEN / "user_row_1.bin").read_bytes()
    states = UserStates(SMALL, 1)
    states.unpack(np.array([0]), [row])
    assert states.pack(np.array([0])) == [row]
    head = states.head[0]
    assert (head["basis"], head["artifact"], head["events"], head["retracted"]) == (11, 4, 29, 1)
    assert (head["n_ring"], head["n_slots"], head["n_pending"]) == (8, 3, 1)
    assert head["last_time"] == START + 20000.0
    assert states.ring["item"][0, :8].tolist() == [1000 + i for i in range(23, 31)]
    assert states.pending[0, 0] == 77


def test_dtypes_have_no_hidden_padding() -> None:
    assert HEAD.itemsize == 120
    assert RING.itemsize == 40
    assert not HEAD.isalignedstruct


def test_the_kernels_do_in_python_what_they_do_in_native_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slots = np.arange(3)
    rows = lived_in().states.pack(slots)
    for module in (state_module, state_bytes):
        for name, kernel in list(vars(module).items()):
            if hasattr(kernel, "py_func"):
                monkeypatch.setattr(module, name, kernel.py_func)
    other = UserStates(SMALL, 3)
    other.unpack(slots, rows)
    assert other.pack(slots) == rows
