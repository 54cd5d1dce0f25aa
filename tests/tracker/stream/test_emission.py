"""EmitPolicy: who gets a list now, whose list is postponed, and that a crash forgets neither."""

import numpy as np

from tests.small_world import Action, batch, catalogue
from tracker.stream.emission import EmitPolicy, last_of_each

NOW = 1_000_000.0


class FakeNotes:
    """Small records as a store keeps them."""

    def __init__(self) -> None:
        self.records: dict[bytes, bytes] = {}

    def note(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.records.pop(key, None)
        else:
            self.records[key] = value


def choose(
    policy: EmitPolicy, users: list[int], emitted_at: list[float], *, time: float = NOW, now: float
) -> list[int]:
    events = batch([Action(user=user, time=time) for user in users], catalogue())
    latest = np.arange(len(users))
    versions = np.arange(len(users)) + 1
    chosen = policy.choose(events, latest, np.array(emitted_at), [None] * len(users), now, versions)
    return [int(index) for index in chosen]


def name(user: int) -> str:
    return batch([Action(user=user)], catalogue()).users[0]


def test_without_limits_everybody_gets_a_list_and_no_list_is_pending() -> None:
    policy = EmitPolicy(FakeNotes(), 0.0, None)
    assert choose(policy, [1, 2], [NOW, 0.0], now=NOW) == [0, 1]
    assert policy.pending == 0
    assert policy.due_at() is None


def test_list_within_the_interval_is_postponed_and_due_at_its_end() -> None:
    notes = FakeNotes()
    policy = EmitPolicy(notes, 10.0, None)
    assert choose(policy, [1, 2], [NOW - 3.0, 0.0], now=NOW) == [1]
    assert policy.due_at() == NOW + 7.0
    assert policy.due(NOW + 6.9, 9) == []
    (due,) = policy.due(NOW + 7.0, 9)
    assert due.user == name(1)
    assert len(policy.due(NOW + 7.0, 9)) == 1  # until it was sent
    policy.mark_sent([name(1)])
    assert policy.due(NOW + 7.0, 9) == []
    assert notes.records == {}
    assert policy.due_at() is None


def test_a_last_list_of_the_future_counts_as_one_of_now() -> None:
    policy = EmitPolicy(FakeNotes(), 10.0, None)
    assert choose(policy, [1], [NOW + 86400.0], now=NOW) == []
    assert policy.due_at() == NOW + 10.0  # and not a day later


def test_later_events_replace_a_pending_list_and_leave_its_time() -> None:
    policy = EmitPolicy(FakeNotes(), 10.0, None)
    choose(policy, [1], [NOW], now=NOW)
    choose(policy, [1], [NOW], now=NOW + 5.0)
    assert policy.pending == 1
    assert policy.due_at() == NOW + 10.0


def test_lists_fall_due_in_the_order_of_their_times_and_in_parts() -> None:
    policy = EmitPolicy(FakeNotes(), 10.0, None)
    choose(policy, [1, 2, 3], [NOW - 1.0, NOW - 5.0, NOW - 3.0], now=NOW)
    assert [due.user for due in policy.due(NOW + 9.0, 2)] == [name(2), name(3)]


def test_old_events_wait_for_the_end_of_the_backlog() -> None:
    notes = FakeNotes()
    policy = EmitPolicy(notes, 0.0, 60.0)
    assert choose(policy, [1, 2], [0.0, 0.0], time=NOW - 100.0, now=NOW) == []
    assert policy.due_at() is None
    assert policy.has_backlog
    assert policy.is_old(NOW - 100.0, NOW)
    assert not policy.is_old(NOW - 10.0, NOW)
    policy.end_backlog(NOW)
    assert {due.user for due in policy.due(NOW, 9)} == {name(1), name(2)}


def test_fresh_event_of_a_backlog_user_answers_for_the_old_ones() -> None:
    notes = FakeNotes()
    policy = EmitPolicy(notes, 0.0, 60.0)
    choose(policy, [1], [0.0], time=NOW - 100.0, now=NOW)
    assert choose(policy, [1], [0.0], time=NOW, now=NOW) == [0]
    policy.mark_sent([name(1)])
    policy.end_backlog(NOW)
    assert policy.due(NOW, 9) == []
    assert notes.records == {}


def test_old_event_of_a_user_with_a_pending_list_leaves_its_time() -> None:
    policy = EmitPolicy(FakeNotes(), 10.0, 60.0)
    choose(policy, [1], [NOW - 5.0], now=NOW)
    choose(policy, [1], [NOW - 5.0], time=NOW - 100.0, now=NOW)
    assert policy.due_at() == NOW + 5.0
    assert not policy.has_backlog


def test_pending_lists_survive_a_crash() -> None:
    notes = FakeNotes()
    policy = EmitPolicy(notes, 10.0, 60.0)
    choose(policy, [1], [NOW], now=NOW)
    choose(policy, [2], [0.0], time=NOW - 100.0, now=NOW)
    again = EmitPolicy(notes, 10.0, 60.0)
    again.restore(notes.records.items(), NOW + 1.0)
    assert again.pending == 2
    assert [due.user for due in again.due(NOW + 1.0, 9)] == [name(1)]
    assert again.has_backlog


def test_last_entry_of_each_slot_is_found() -> None:
    assert last_of_each(np.array([3, 1, 3, 2, 1])).tolist() == [2, 3, 4]
    assert last_of_each(np.zeros(0, np.int64)).tolist() == []


def test_the_last_of_each_slot_is_the_same_for_few_and_for_many() -> None:
    slots = np.random.default_rng(5).integers(0, 40, 300)
    for count in (1, 64, 65, 300):
        last = {slot: place for place, slot in enumerate(slots[:count].tolist())}
        assert last_of_each(slots[:count]).tolist() == sorted(last.values())
