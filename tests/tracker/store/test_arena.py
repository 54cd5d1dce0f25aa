"""Arena: keys to slots; dirty and pinned rows stay, the least recently used goes."""

import numpy as np
import pytest

from tracker.store.arena import Arena, ArenaFullError


def make(capacity: int) -> tuple[Arena[str], list[int], list[int]]:
    grown: list[int] = []
    evicted: list[int] = []
    return (
        Arena(capacity, grown.append, lambda slots: evicted.extend(slots.tolist())),
        grown,
        evicted,
    )


def test_new_keys_get_a_slot_each_and_are_named_once() -> None:
    arena, grown, _ = make(100)
    slots, new, new_slots = arena.slots_of(["a", "b", "a"])
    assert slots[0] == slots[2] != slots[1]
    assert new == ["a", "b"]
    assert new_slots.tolist() == slots[:2].tolist()
    assert grown == [100]
    again, new, _ = arena.slots_of(["b", "a"])
    assert again.tolist() == [slots[1], slots[0]]
    assert new == []
    assert arena.keys(again) == ["b", "a"]
    assert arena.slot("nobody") == -1


def test_a_new_key_that_repeats_beside_others_has_one_slot() -> None:
    arena, _, _ = make(100)
    (known,), _, _ = arena.slots_of(["a"])
    slots, new, new_slots = arena.slots_of(["b", "a", "c", "b", "d"])
    assert new == ["b", "c", "d"]
    assert slots.tolist() == [new_slots[0], known, new_slots[1], new_slots[0], new_slots[2]]
    assert len(set(slots.tolist())) == 4
    assert arena.keys(new_slots) == new


def test_least_recently_used_rows_are_evicted_first() -> None:
    arena, _, evicted = make(4)
    first, _, _ = arena.slots_of(["a", "b"])
    arena.slots_of(["c", "d"])
    arena.slots_of(["a"])
    arena.slots_of(["e"])
    assert "b" not in arena
    assert evicted == [first[1]]
    assert all(key in arena for key in "acde")


def test_dirty_and_pinned_rows_are_never_evicted() -> None:
    arena, _, _ = make(3)
    slots, _, _ = arena.slots_of(["a", "b", "c"])
    arena.dirty[slots[:2]] = True
    assert arena.take_dirty().tolist() == sorted(slots[:2].tolist())
    arena.dirty[slots[2]] = True
    with pytest.raises(
        ArenaFullError, match="1 new rows need a slot; 0 of 3 slots are free and 0 can be evicted"
    ):
        arena.slots_of(["d"])
    assert "d" not in arena
    arena.unpin(slots[:1])
    arena.slots_of(["d"])
    assert "a" not in arena
    assert "b" in arena


def test_rows_of_a_failed_commit_are_dirty_again() -> None:
    arena, _, _ = make(2)
    slots, _, _ = arena.slots_of(["a"])
    arena.dirty[slots] = True
    taken = arena.take_dirty()
    arena.restore(taken)
    assert arena.dirty[slots].all()
    assert not arena.pinned.any()


def test_keys_of_the_same_call_never_evict_each_other() -> None:
    arena, _, _ = make(2)
    arena.slots_of(["a"])
    with pytest.raises(ArenaFullError):
        arena.slots_of(["a", "b", "c"])
    assert "a" in arena


def test_random_use_never_gives_one_slot_to_two_keys() -> None:
    arena, _, _ = make(50)
    rng = np.random.default_rng(7)
    for _ in range(300):
        keys = [str(n) for n in rng.integers(0, 200, size=10)]
        slots, _, _ = arena.slots_of(keys)
        assert arena.keys(slots) == keys
        arena.dirty[slots[:3]] = True
        if arena.dirty.sum() > 20:
            arena.unpin(arena.take_dirty())
    assert len(arena) <= 50


def test_empty_arena_is_refused() -> None:
    with pytest.raises(ValueError, match="capacity is 0"):
        make(0)
