"""Rows of users with times of the future: found, and mended from the ring."""

import numpy as np

from tests.worlds import DAY, START, World
from tracker.events.wire import hash_id
from tracker.users.mend_times import mend_users, users_of_the_future

FAR = 4_102_444_800.0
NOW = START + 10 * DAY
LATEST = NOW + 300.0
BASIS = hash_id("test")


def event(user: int, item: int, time: float) -> dict[str, object]:
    return {"user": user, "item": f"i{item}", "time": time}


def mend(world: World, *slots: int) -> None:
    mend_users(world.states, np.array(slots), NOW, LATEST, world.items, BASIS, 1)


def test_only_rows_with_a_time_past_the_clock_are_found() -> None:
    world = World()
    world.send(event(0, 1, START), event(1, 2, FAR), event(2, 3, LATEST), event(3, 4, START))
    world.states.head["emitted_at"][3] = FAR
    world.states.ring["time"][0, 1:] = FAR  # not in use
    assert users_of_the_future(world.states, LATEST).tolist() == [1, 3]


def test_a_mended_row_is_that_of_a_user_whose_event_had_the_time_of_the_next() -> None:
    harmed, right = World(), World()
    harmed.send(event(0, 1, START), event(0, 2, FAR), event(0, 3, START + DAY))
    right.send(event(0, 1, START), event(0, 2, START + DAY), event(0, 3, START + DAY))
    assert harmed.states.masses[0, -1] < right.states.masses[0, -1] - 1.0
    mend(harmed, 0)
    assert len(users_of_the_future(harmed.states, LATEST)) == 0
    for name in ("masses", "sums", "negative", "interest_heads", "interest_means"):
        np.testing.assert_array_equal(
            getattr(harmed.states, name)[0], getattr(right.states, name)[0]
        )
    for field in ("ref_time", "first_time", "last_time", "events", "n_slots"):
        assert harmed.states.head[field][0] == right.states.head[field][0]


def test_a_late_event_before_the_mended_one_is_of_the_order_of_arrival() -> None:
    harmed, right = World(), World()
    harmed.send(event(0, 1, START + DAY), event(0, 2, START), event(0, 4, FAR))
    harmed.send(event(0, 3, START + 2 * DAY))
    right.send(event(0, 1, START + DAY), event(0, 2, START), event(0, 4, START + 2 * DAY))
    right.send(event(0, 3, START + 2 * DAY))
    mend(harmed, 0)
    assert harmed.states.ring[0].tobytes() == right.states.ring[0].tobytes()
    for name in ("masses", "sums", "interest_means"):
        np.testing.assert_allclose(
            getattr(harmed.states, name)[0], getattr(right.states, name)[0], atol=1e-6
        )


def test_the_last_event_of_the_future_gets_the_time_of_now() -> None:
    world = World()
    world.send(event(0, 1, START), event(0, 2, FAR))
    world.states.head["emitted_at"][0] = FAR
    world.states.head["encoder"][0] = 7
    mend(world, 0)
    head = world.states.head[0]
    assert (head["first_time"], head["last_time"], head["ref_time"]) == (START, NOW, NOW)
    assert head["emitted_at"] == NOW
    assert head["encoder"] == 0  # made anew when it is needed


def test_a_row_without_events_in_its_ring_is_cut_back_to_now() -> None:
    world = World()
    world.states.head["emitted_at"][0] = FAR
    world.states.head["last_time"][0] = FAR
    mend(world, 0)
    assert len(users_of_the_future(world.states, LATEST)) == 0
