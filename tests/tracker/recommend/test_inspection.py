"""An inspection is the list that is recommended, and what speaks for its items adds up."""

import numpy as np
import pytest

from tests.worlds import START, World, likes
from tracker.recommend.inspection import older_share
from tracker.users.rows import RequestBatch


def requests(world: World, slot: int = 0, now: float = START + 100.0) -> RequestBatch:
    return RequestBatch(world.users, np.array([slot]), np.array([now]), np.zeros(1, np.uint32))


def test_the_list_of_an_inspection_is_the_one_that_is_recommended() -> None:
    world = World(users=2)
    world.send(*likes(0, [0, 2, 4]), *likes(1, [1, 2, 6]))
    for slot in (0, 1, -1):
        asked = requests(world, slot)
        expected = world.recommender.recommend(asked, 5)
        made = world.recommender.inspect(asked, 5).batch
        assert made.rows.tolist() == expected.rows.tolist()
        assert made.scores.tolist() == expected.scores.tolist()


def test_what_is_excluded_is_in_no_list_and_others_take_its_places() -> None:
    world = World(users=1)
    world.send(*likes(0, [0, 2, 4]))
    first = world.recommender.inspect(requests(world), 4).batch.rows[0]
    rest = world.recommender.inspect(requests(world), 4, excluded=first[:2]).batch.rows[0]
    assert not set(first[:2].tolist()) & set(rest.tolist())
    assert (rest >= 0).all()


def test_the_share_of_older_events_is_that_of_what_left_the_ring() -> None:
    world = World(users=1)
    options = world.recommender.options
    ring = world.states.ring.shape[1]
    world.send(*likes(0, [number % 20 for number in range(5)]))
    assert older_share(requests(world), world.items, options) == pytest.approx(0.0, abs=1e-4)
    more = [number % 20 for number in range(ring + 6)]
    world.send(*likes(0, more, time=START + 10.0))
    assert 0.0 < older_share(requests(world), world.items, options) < 1.0
    assert older_share(requests(world, -1), world.items, options) == 0.0


def test_an_inspection_is_of_one_user() -> None:
    world = World(users=2)
    both = RequestBatch(world.users, np.arange(2), np.full(2, START), np.zeros(2, np.uint32))
    with pytest.raises(ValueError, match="2 users; one is expected"):
        world.recommender.inspect(both, 3)
