"""The ring in event time: any order of arrival, what left, retractions, rows of older releases."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.small_world import SMALL, START, Action, Users, batch, retraction
from tests.tracker.users.test_apply import assert_same_sums, deterministic
from tests.worlds import World
from tracker.events.item_events import RECENTS
from tracker.events.wire import hash_id
from tracker.users.apply import rebuild_from_ring
from tracker.users.config import InterestConfig
from tracker.users.forget import item_events_back
from tracker.users.ring import (
    ITEM_SECONDS,
    MOST_FOR_AN_ITEM,
    arrivals,
    late_if_applied,
    recent_items,
)
from tracker.users.states import RING_BEFORE_MOST, RING_RETRACTED

DAY = 86400.0

distinct = st.lists(
    st.builds(
        Action,
        item=st.integers(1, 44),  # 41-44 are not in the catalogue
        # Few times, so that many events are of one.
        time=st.integers(0, 5).map(lambda day: START + DAY * day),
        weight=st.sampled_from([0.1, 1.0, 5.0, -1.0, 0.0]),
        scene=st.integers(0, 2),
        kind=st.integers(1, 3),
    ),
    min_size=1,
    max_size=SMALL.ring,
).map(lambda events: [replace(event, event_id=i + 1) for i, event in enumerate(events)])


def by_time(events: list[Action]) -> list[Action]:
    return sorted(events, key=lambda event: (event.time, event.event_id))


def entries(users: Users) -> list[tuple[Any, ...]]:
    """Return the ring of user 0, but for how its entries came there."""
    ring = users.states.ring[0, : int(users.head()["n_ring"])]
    names = ["item", "event_id", "time", "weight", "scene", "kind"]
    flags = (ring["flags"] & RING_RETRACTED).tolist()
    return [(*entry, flag) for entry, flag in zip(ring[names].tolist(), flags, strict=True)]


def recent(users: Users) -> list[int]:
    out = np.zeros(RECENTS, np.uint64)
    n = recent_items(users.states.ring[0], int(users.head()["n_ring"]), out)
    return list(out[:n].tolist())


def assert_same_interests(found: Users, expected: Users) -> None:
    n = int(expected.head()["n_slots"])
    assert found.head()["n_slots"] == n
    for name in ("interest_heads", "interest_means"):
        mine, other = getattr(found.states, name)[0, :n], getattr(expected.states, name)[0, :n]
        assert mine.tobytes() == other.tobytes(), name


@deterministic
@given(
    distinct,
    st.lists(st.integers(1, SMALL.ring), max_size=SMALL.pending, unique=True),
    st.lists(st.integers(0, SMALL.ring - 1), max_size=3),
    st.randoms(use_true_random=False),
)
def test_events_that_fit_the_ring_give_one_state_in_any_order_of_arrival(
    events: list[Action], retracted: list[int], repeated: list[int], random: Any
) -> None:
    in_order, shuffled = Users(), Users()
    again = [events[which % len(events)] for which in repeated]
    stream = [
        *by_time(events),
        *again,
        *(retraction(of=which) for which in retracted if which <= len(events)),
    ]
    in_order.apply(*stream)
    random.shuffle(stream)
    shuffled.apply(*stream)
    assert_same_sums(shuffled, in_order)
    for name in ("first_time", "last_time", "ref_time", "retracted", "duplicates", "n_pending"):
        assert shuffled.head()[name] == in_order.head()[name], name
    assert entries(shuffled) == entries(in_order)
    assert recent(shuffled) == recent(in_order)
    assert_same_interests(shuffled, in_order)


@deterministic
@given(distinct, st.randoms(use_true_random=False))
def test_a_retraction_takes_out_the_recent_items_that_its_event_had(
    events: list[Action], random: Any
) -> None:
    stream = list(events)
    random.shuffle(stream)
    for event in list(stream):
        after = random.randrange(stream.index(event) + 1, len(stream) + 1)
        stream.insert(after, retraction(of=event.event_id))
    users = Users()
    applied = users.apply(*stream)
    had: dict[int, list[int]] = {}
    for item_event in applied.item_events:
        action = stream[int(item_event["source_offset"])]
        recents = item_event["recent"][: item_event["n_recent"]].tolist()
        if item_event["sign"] > 0:
            had[action.event_id] = recents
        else:
            assert recents == had.pop(action.retracts)
    assert not had


def test_events_of_one_time_without_ids_stay_as_they_came() -> None:
    users = Users()
    applied = users.apply(Action(item=3), Action(item=1), Action(item=2))
    assert [item for item, _, _ in users.ring()] == [1002, 1001, 1003]
    assert not applied.late.any()


def test_the_oldest_by_time_leave_the_ring_not_those_that_came_first() -> None:
    users = Users()
    today = [Action(item=i, time=START + i, event_id=i) for i in range(1, 9)]
    users.apply(*today)
    old = [Action(item=20 + i, time=START - 9 * DAY + i, event_id=20 + i) for i in range(8)]
    applied = users.apply(*old)
    assert applied.late.all()
    assert recent(users)[:6] == [1008, 1007, 1006, 1005, 1004, 1003]
    assert users.seen.contains(int(users.seen_slots[0]), 1001)


def test_a_late_event_joins_the_interests_when_older_ones_have_left_the_ring() -> None:
    users, without = Users(), Users()
    stream = [Action(item=i % 3 + 1, time=START + i, weight=2.0) for i in range(12)]
    for some in (users, without):
        some.apply(*stream)
    assert users.head()["evicted"] > 0
    users.apply(Action(item=2, time=START - 1.0, weight=2.0))
    n = int(users.head()["n_slots"])
    assert n == without.head()["n_slots"]
    mass = users.states.interest_heads["mass"][0, :n].sum()
    before = without.states.interest_heads["mass"][0, :n].sum()
    assert mass == pytest.approx(before + 2.0, rel=1e-4)


def test_a_late_event_keeps_interests_whose_items_left_the_catalogue() -> None:
    users = Users()
    users.apply(Action(item=1, weight=5.0, time=START + DAY))
    users.items.table_row[users.items.table_hash == 1001] = -1
    users.apply(Action(item=2, time=START))
    assert users.states.interest_heads["mass"][0, : int(users.head()["n_slots"])].sum() > 5.0


def test_an_event_that_was_retracted_before_it_came_moves_the_times_as_any_other() -> None:
    users = Users()
    users.apply(retraction(of=1), Action(event_id=1, time=START))
    assert users.head()["first_time"] == users.head()["last_time"] == START
    users.apply(Action(event_id=2, time=START + 5.0))
    assert users.head()["first_time"] == START


def in_order_of_arrival() -> Users:
    """Return a user with a ring as releases before kept it: in the order of arrival."""
    users = Users()
    users.apply(*(Action(item=i, time=START + i, event_id=i) for i in (1, 2, 3, 4)))
    ring = users.states.ring[0]
    ring[:4] = ring[[2, 0, 3, 1]].copy()
    return users


def test_a_ring_in_order_of_arrival_is_sorted_by_the_next_late_event() -> None:
    users = in_order_of_arrival()
    applied = users.apply(Action(item=9, time=START + 2.5, event_id=9))
    assert [item for item, _, _ in users.ring()] == [1004, 1003, 1009, 1002, 1001]
    (event,) = applied.item_events
    assert event["recent"][: event["n_recent"]].tolist() == [1002, 1001]
    ranks = np.zeros(5, np.int64)
    arrivals(users.states.ring[0], 5, ranks)
    assert ranks.tolist() == [1, 3, 4, 0, 2]


def test_a_rebuild_sorts_a_ring_in_order_of_arrival() -> None:
    users = in_order_of_arrival()
    rebuild_from_ring(users.states, np.array([0]), users.items, basis=11)
    assert [item for item, _, _ in users.ring()] == [1004, 1003, 1002, 1001]


def test_a_number_of_newer_events_beyond_its_bits_is_the_largest() -> None:
    users = Users(config=replace_ring(60))
    users.apply(*(Action(item=i % 40 + 1, time=START + i) for i in range(50)))
    users.apply(Action(item=1, time=START - 1.0))
    ring = users.states.ring[0]
    assert ring["time"][0] == START - 1.0
    assert ring["flags"][0] >> 3 == RING_BEFORE_MOST
    assert users.one(Action(item=2, time=START + 99.0)) == 0


def replace_ring(ring: int) -> InterestConfig:
    return msgspec.structs.replace(SMALL, ring=ring)


@deterministic
@given(st.lists(distinct, min_size=2, max_size=3), st.randoms(use_true_random=False))
def test_what_will_be_late_is_known_before(parts: list[list[Action]], random: Any) -> None:
    users = Users()
    for number, part in enumerate(parts):
        fresh = [
            replace(event, event_id=event.event_id + 100 * number, user=random.randrange(2))
            for event in part
        ]
        expected = late_if_applied(users.states, batch(fresh, users.items, users.offset))
        assert users.apply(*fresh).late.tolist() == expected.tolist()


def flood(
    count: int, user: int = 0, item: str = "i3", begin: float = START
) -> list[dict[str, Any]]:
    """Events of one user on one item, all within a second."""
    return [
        {"user": user, "item": item, "time": begin + n / count, "id": f"{item}-{user}-{begin}-{n}"}
        for n in range(count)
    ]


def test_a_user_moves_the_counts_of_an_item_at_most_five_times_an_hour() -> None:
    world = World(users=2)
    applied = world.send(*flood(3000))
    assert len(applied.item_events) == MOST_FOR_AN_ITEM == 5
    assert applied.not_of_items == 2995
    assert world.states.head["events"][0] == 3000  # the user's own state has them all
    assert len(world.send(*flood(3, item="i4", begin=START + 2.0)).item_events) == 3
    assert len(world.send(*flood(9, user=1)).item_events) == 5
    later = world.send(*flood(9, begin=START + ITEM_SECONDS + 2.0))
    assert len(later.item_events) == 5


def test_events_that_have_left_the_ring_are_not_known_to_the_cap() -> None:
    world = World(users=2)
    others = [
        {"user": user, "item": f"i{4 + n}", "time": START + 60.0 + n, "id": f"{user}-{n}"}
        for user in range(2)
        for n in range(24)
    ]
    assert len(world.send(*flood(5)).item_events) == 5
    world.send(*others)
    hidden = [{**event, "id": event["id"] + "b"} for event in flood(5, begin=START + 90.0)]
    assert len(world.send(*hidden).item_events) == 5


def test_late_events_that_leave_a_full_ring_at_once_are_not_told_to_their_items() -> None:
    for newer in range(1, 29):  # of the events that the ring holds, so many are newer
        world = World()
        times = [START + (60.0 if n >= 28 - newer else -60.0) + n / 100 for n in range(32)]
        world.send(
            *({"user": 0, "item": f"i{4 + n}", "time": time} for n, time in enumerate(times))
        )
        late = world.send(*flood(280))
        assert len(late.item_events) <= 5 * 280 // 28


def test_impressions_leave_room_for_the_choice_that_follows() -> None:
    world = World()
    shown = [{**event, "weight": 0.0} for event in flood(9)]
    assert len(world.send(*shown).item_events) == 5
    assert len(world.send({"user": 0, "item": "i3", "time": START + 2.0}).item_events) == 1


def test_one_user_does_not_lead_a_trend_that_forty_others_made() -> None:
    world = World(users=42)
    world.send(*(event for user in range(1, 41) for event in flood(1, user, "i7")))
    world.send(*flood(3000))
    counts = world.item_states.counted["count"][:, 0]
    pushed, chosen = (counts[world.item_slots[hash_id(item)]] for item in ("i3", "i7"))
    assert 4.9 < pushed <= 5.0
    assert chosen > 39.9


def test_many_users_move_an_item_by_five_events_each_at_most() -> None:
    world = World(users=30)
    world.send(*(event for user in range(30) for event in flood(20, user)))
    assert world.item_states.head["positives"][world.item_slots[hash_id("i3")]] == 30 * 5


def test_retractions_and_forgetting_take_out_of_an_item_exactly_what_was_told() -> None:
    for forgets in (False, True):
        world = World()
        events = flood(20)
        world.send(*events)
        slot = world.item_slots[hash_id("i3")]
        if forgets:
            world.apply_items(item_events_back(world.states, 0, 0, 100))
        else:
            told = [
                len(world.send({"user": 0, "retracts": event["id"]}).item_events)
                for event in events
            ]
            assert told == [1] * 5 + [0] * 15
        assert world.item_states.head["positives"][slot] == 0
        assert abs(world.item_states.counted["count"][slot]).max() < 1e-9
        assert world.item_states.head["n_neighbours"][slot] == 0


def test_what_items_are_told_does_not_depend_on_batches() -> None:
    whole, single = World(), World()
    events = [event for n in range(4) for event in flood(4, item="i3", begin=START + n * 1500.0)]
    at_once = whole.send(*events).item_events
    one_by_one = np.concatenate([single.send(event).item_events for event in events])
    assert at_once.tobytes() == one_by_one.tobytes()
    assert len(at_once) < len(events)
