"""One event out of a user's row again, before it came, while the ring holds it, and later."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.small_world import SMALL, START, Action, Users, catalogue, retraction
from tests.tracker.users.test_apply import actions, assert_same_sums, deterministic
from tracker.users.columns import (
    ALREADY_RETRACTED,
    APPLIED,
    DUPLICATE,
    RETRACTED,
    RETRACTED_ON_ARRIVAL,
    RETRACTION_WAITS,
    TOO_OLD,
)


@deterministic
@given(st.lists(actions, min_size=1, max_size=7), st.integers(0, 6), st.integers(0, 7))
def test_while_the_ring_holds_all_a_retraction_is_as_if_the_event_had_never_come(
    stream: list[Action], which: int, when: int
) -> None:
    stream = [replace(action, user=0, event_id=i + 1) for i, action in enumerate(stream)]
    which %= len(stream)
    retracted, never = Users(), Users()
    # The retraction comes at any time: before its event, or at last.
    with_retraction = list(stream)
    with_retraction.insert(min(when, len(stream)), retraction(of=which + 1))
    retracted.apply(*with_retraction)
    never.apply(*(action for i, action in enumerate(stream) if i != which))
    # Bring both to one time, with an event without content.
    for users in (retracted, never):
        users.apply(Action(time=START + 2e6, weight=0.0))
    assert_same_sums(retracted, never)
    for name in ("n_slots", "last_scene"):
        if name == "n_slots" or which != len(stream) - 1:
            assert retracted.head()[name] == never.head()[name]
    n = int(never.head()["n_slots"])
    assert (
        retracted.states.interest_heads[0, :n].tobytes()
        == never.states.interest_heads[0, :n].tobytes()
    )
    assert (
        retracted.states.interest_means[0, :n].tobytes()
        == never.states.interest_means[0, :n].tobytes()
    )
    assert retracted.ring() == never.ring()
    assert retracted.head()["retracted"] == 1


def test_after_the_ring_overflowed_a_retraction_subtracts_its_terms() -> None:
    stream = [Action(item=i % 20 + 1, time=START + 1000.0 * i, event_id=i + 1) for i in range(30)]
    retracted, never = Users(), Users()
    retracted.apply(*stream, retraction(of=28))
    never.apply(*(action for action in stream if action.event_id != 28))
    assert retracted.head()["evicted"] > 0
    assert_same_sums(retracted, never, relative=1e-5)


def test_a_retracted_last_positive_leaves_exactly_nothing() -> None:
    users = Users()
    users.apply(Action(item=1, event_id=5, weight=3.0), Action(item=2, event_id=6, weight=-2.0))
    users.apply(*(Action(weight=0.0, time=START + i) for i in range(20)))
    users.apply(Action(item=3, event_id=7, weight=0.3, time=START + 50.0))
    users.apply(Action(item=3, event_id=8, weight=-0.3, time=START + 50.0))
    assert [users.one(retraction(of=event_id)) for event_id in (5, 6, 7, 8)] == [
        TOO_OLD,
        TOO_OLD,
        RETRACTED,
        RETRACTED,
    ]
    users = Users()
    users.apply(Action(item=1, event_id=5), Action(item=2, event_id=6, weight=-2.0))
    users.apply(retraction(of=5), retraction(of=6))
    assert not users.states.masses[0].any()
    assert not users.states.sums[0].any()
    assert not users.states.negative[0].any()
    assert users.head()["negative_mass"] == 0
    assert users.head()["n_slots"] == 0
    assert users.head()["events"] == 0


def test_a_retraction_is_idempotent() -> None:
    users = Users()
    users.apply(Action(item=1, event_id=5), Action(item=2, event_id=6))
    assert users.one(retraction(of=5)) == RETRACTED
    once = users.states.pack_buffer(np.array([0]))[0].copy()
    assert users.one(retraction(of=5)) == ALREADY_RETRACTED
    users.head()["last_offset"] -= 1
    again = users.states.pack_buffer(np.array([0]))[0]
    assert once.tobytes() == again.tobytes()


def test_a_retraction_before_its_event_waits_for_it() -> None:
    users = Users()
    assert users.one(retraction(of=5)) == RETRACTION_WAITS
    assert users.one(retraction(of=5)) == RETRACTION_WAITS
    assert users.head()["n_pending"] == 1
    assert users.one(Action(item=1, event_id=5)) == RETRACTED_ON_ARRIVAL
    head = users.head()
    assert (head["n_pending"], head["events"], head["retracted"]) == (0, 0, 1)
    assert not users.states.masses[0].any()
    assert users.one(Action(item=1, event_id=5)) == DUPLICATE
    assert users.one(retraction(of=5)) == ALREADY_RETRACTED


def test_of_more_retractions_than_can_wait_the_oldest_is_given_up_and_counted() -> None:
    users = Users()
    for event_id in range(1, SMALL.pending + 2):
        assert users.one(retraction(of=event_id)) == RETRACTION_WAITS
    assert users.head()["too_old"] == 1
    assert users.one(Action(event_id=1)) == APPLIED
    assert users.one(Action(event_id=2)) == RETRACTED_ON_ARRIVAL


def test_a_retraction_of_an_event_that_left_the_ring_is_too_old() -> None:
    users = Users()
    users.apply(*(Action(item=i, event_id=i, time=START + i) for i in range(1, 12)))
    assert users.one(retraction(of=1)) == TOO_OLD
    assert users.head()["too_old"] == 1
    assert users.head()["n_pending"] == 0


def test_a_retraction_of_an_item_that_left_the_catalogue_takes_its_masses_out() -> None:
    users = Users()
    users.apply(Action(item=40, event_id=1), Action(item=2, event_id=2, weight=-1.0))
    users.items = catalogue(items=39)
    assert users.one(retraction(of=1)) == RETRACTED
    assert users.head()["positives"] == 0
    assert not users.states.sums[0].any()
