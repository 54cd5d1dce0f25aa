"""Other weights of a ring give the sums that events of those weights would have given."""

import numpy as np
import pytest

from tests.worlds import START, World, likes
from tracker.users.what_if import reweigh


def test_sums_are_those_of_events_that_had_the_other_weights() -> None:
    world, other = World(users=1), World(users=1)
    world.send(*likes(0, [0, 2, 5, 7]))
    other.send(*likes(0, [0]), *likes(0, [7], time=START + 3.0))
    weights = np.where(np.arange(world.states.ring.shape[1]) % 4 % 3 == 0, 1.0, 0.0)
    weights *= world.states.ring[0]["weight"]
    last = world.states.head[0]["ref_time"]
    reweigh(world.states, 0, world.items, weights)
    assert world.states.head[0]["ref_time"] == last
    assert world.states.masses[0] == pytest.approx(other.states.masses[0], rel=1e-4)
    assert world.states.sums[0] == pytest.approx(other.states.sums[0], abs=1e-4)
    assert world.states.negative[0] == pytest.approx(other.states.negative[0], abs=1e-6)


def test_without_all_of_its_events_a_state_is_that_of_somebody_who_never_had_them() -> None:
    world = World(users=1)
    world.send(*likes(0, [0, 2, 4]), *likes(0, [1, 3, 5], weight=-2.0))
    reweigh(world.states, 0, world.items, np.zeros(world.states.ring.shape[1]))
    assert not world.states.masses[0].any()
    assert not world.states.sums[0].any()
    assert not world.states.negative[0].any()
    lists = world.recommend([0, -1], now=START + 9.0)
    assert not lists.strengths.any()
    assert np.array_equal(lists.rows[0], lists.rows[1])
