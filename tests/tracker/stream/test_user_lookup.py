"""UserLookup: copies of users' rows from memory and the database, which change nothing."""

import numpy as np

from tests.plane_world import NOW, Make, like


def test_a_user_is_found_in_memory_and_in_the_database(make: Make) -> None:
    worker = make()
    worker.send(like("a"))
    assert worker.users.lookup.find("nobody") is None
    assert worker.users.lookup.find("a") is not None
    worker.commit()
    worker.restart()
    user = worker.users.lookup.find("a")
    assert user is not None
    assert user.rows.states.head["events"][user.slot] == 1
    assert user.now == NOW
    assert worker.users.lookup.new().slot == -1


def test_a_copy_stays_as_it_was_and_a_read_takes_no_room_in_memory(make: Make) -> None:
    worker = make()
    worker.send(like("a", 0))
    before = worker.users.lookup.find("a")
    worker.send(like("a", 1))
    after = worker.users.lookup.find("a")
    assert before is not None
    assert after is not None
    assert [int(one.rows.states.head["events"][one.slot]) for one in (before, after)] == [1, 2]
    worker.commit()
    worker.restart()
    assert worker.users.lookup.find("a") is not None
    assert "a" not in worker.users.store.arena
    assert worker.users.lookup.last_offset("a") == -1
    assert not worker.users.store.needs_commit


def test_the_latest_users_come_latest_first_and_once(make: Make) -> None:
    worker = make()
    worker.send(like("a", time=NOW), like("b", time=NOW + 1))
    worker.send(like("a", time=NOW + 2))
    assert worker.users.lookup.latest() == [("a", NOW + 2), ("b", NOW + 1)]
    assert [worker.users.lookup.last_offset(user) for user in ("a", "b")] == [2, 1]


def test_a_moment_goes_on_with_the_clock_and_not_past_it(make: Make) -> None:
    worker = make()
    worker.send(like("a"))
    moment = worker.users.lookup.moment()
    assert (moment.offset, moment.now) == (1, NOW)
    worker.now += 60.0
    later = worker.users.lookup.moment()
    assert np.isclose(later.now, NOW + 60.0)
    assert later.serving is worker.keeper.current
