"""Taking a user out of items undoes what each event of the ring had added."""

from typing import Any

import numpy as np

from tests.worlds import START, World, likes
from tracker.users.forget import _take_out, item_events_back


def lived_in() -> World:
    """Users 0 and 1 choose items in turn, late, twice, retracted and disliked."""
    world = World(users=2)
    world.send(*likes(0, [0, 2, 4], scene="home"), *likes(1, [2, 0, 6], scene="cart"))
    world.send({"user": 0, "item": "i8", "time": START - 500.0, "id": "late"})
    world.send({"user": 0, "item": "i2", "time": START + 60.0, "id": "again"})
    world.send({"user": 0, "item": "i5", "time": START + 70.0, "weight": -1.0})
    world.send({"user": 0, "retracts": "again"})
    return world


def test_item_events_back_are_those_that_were_sent_with_the_other_sign() -> None:
    world = lived_in()
    back = item_events_back(world.states, 0, 5, 77)
    assert set(back["sign"].tolist()) == {-1}
    assert set(back["source_partition"].tolist()) == {5}
    assert set(back["source_offset"].tolist()) == {77}
    ring = world.states.ring[0, : world.states.head["n_ring"][0]]
    assert len(back) == len(ring) - 1  # one was retracted, and is out of items already
    by_time = {float(event["time"]): event for event in back}
    late = by_time[START - 500.0]
    assert late["n_recent"] == 0  # nothing had come before its time


def test_kernel_as_python_gives_the_same() -> None:
    world = lived_in()
    native = item_events_back(world.states, 0, 5, 77)
    out, recents = np.zeros(28, native.dtype), np.zeros((28, 20), np.uint64)
    kernel: Any = _take_out
    n = kernel.py_func(world.states.ring[0], int(world.states.head["n_ring"][0]), out, recents)
    assert n == len(native)
    assert np.array_equal(recents[:n], native["recent"])
    assert np.array_equal(out["item"][:n], native["item"])
