"""Joins of two users' states: as if all events had come from one, while the ring holds them."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.small_world import START, Action, Users, retraction
from tests.tracker.users.test_apply import actions, assert_same_sums, deterministic
from tracker.users.columns import RETRACTED, TOO_OLD
from tracker.users.join_users import join_users
from tracker.users.rows import UserRows
from tracker.users.states import RING_RETRACTED


def join(users: Users, user: int = 0, other: int = 1) -> list[int] | None:
    rows = UserRows(users.states.config)
    rows.states, rows.seen, rows.seen_slots = users.states, users.seen, users.seen_slots
    rows._seen_kept = np.zeros(len(users.seen_slots), np.int64)
    waiting = join_users(rows, user, other, users.items, 11, 4)
    return None if waiting is None else waiting.tolist()


@deterministic
@given(st.lists(actions, max_size=4), st.lists(actions, min_size=1, max_size=4))
def test_while_the_ring_holds_all_a_join_is_as_if_all_events_were_of_one_user(
    mine: list[Action], theirs: list[Action]
) -> None:
    mine = [replace(one, user=0, event_id=i + 1) for i, one in enumerate(mine)]
    theirs = [replace(one, user=1, event_id=i + 11) for i, one in enumerate(theirs)]
    two, one = Users(), Users()
    two.apply(*mine, *theirs)
    assert join(two) == []
    one.apply(*mine, *(replace(action, user=0) for action in theirs))
    assert_same_sums(two, one)
    assert two.ring() == one.ring()
    n = int(one.head()["n_slots"])
    assert two.states.interest_heads[0, :n].tobytes() == one.states.interest_heads[0, :n].tobytes()
    for name in ("events", "positives", "negatives", "unknown", "first_time", "last_time"):
        assert two.head()[name] == one.head()[name]
    empty = Users()
    assert two.rows()[1][16:] == empty.rows()[1][16:]
    assert join(two) is None


def test_a_long_history_keeps_its_sums_and_counts() -> None:
    users, one = Users(), Users()
    mine = [Action(item=i % 20 + 1, time=START + 10.0 * i, event_id=i + 1) for i in range(30)]
    theirs = [
        Action(user=1, item=i % 7 + 21, time=START + 10.0 * i + 5.0, event_id=i + 101)
        for i in range(20)
    ]
    users.apply(*mine, *theirs)
    before = int(users.head()["n_slots"])
    one.apply(*mine, *(replace(action, user=0) for action in theirs))
    join(users)
    assert_same_sums(users, one, relative=1e-5)
    assert users.head()["n_ring"] == users.states.config.ring
    assert users.head()["n_slots"] >= before
    left = int(users.head()["events"]) - int(users.head()["n_ring"])
    assert users.head()["evicted"] == left == 50 - users.states.config.ring
    times = users.states.ring["time"][0]
    assert (np.diff(times) >= 0).all()
    known = users.seen.contains_many(
        np.repeat(users.seen_slots[:1], 20), np.arange(1001, 1021).astype(np.uint64)
    )
    assert known.all()
    assert [users.one(retraction(of=event_id)) for event_id in (1, 101, 30)] == [
        TOO_OLD,
        TOO_OLD,
        RETRACTED,
    ]


def test_an_event_that_both_have_counts_once() -> None:
    users, one = Users(), Users()
    users.apply(
        Action(item=1, event_id=5),
        Action(user=1, item=1, event_id=5),
        Action(user=1, item=2, event_id=6),
    )
    one.apply(Action(item=1, event_id=5), Action(item=2, event_id=6))
    join(users)
    assert_same_sums(users, one)
    assert users.ring() == one.ring()
    assert users.head()["events"] == 2


def test_retractions_that_waited_are_given_back_to_be_applied() -> None:
    users = Users()
    users.apply(Action(item=1, event_id=5), replace(retraction(of=5), user=1), retraction(of=9))
    assert join(users) == [9, 5]
    assert users.head()["n_pending"] == 0
    assert users.one(retraction(of=5)) == RETRACTED


def test_a_retracted_event_of_the_one_stays_retracted() -> None:
    users = Users()
    users.apply(Action(user=1, item=1, event_id=5), replace(retraction(of=5), user=1))
    join(users)
    assert users.states.ring["flags"][0, 0] & RING_RETRACTED
    assert (users.head()["events"], users.head()["retracted"]) == (0, 1)
