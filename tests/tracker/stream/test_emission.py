"""Emission: who gets a list now, who is owed one, and that a crash forgets neither."""

import numpy as np

from tests.small_world import Action, batch, catalogue
from tracker.stream.emission import Emission, last_of_each

NOW = 1_000_000.0


class Notes:
    """Rows as a store keeps them."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def note(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self.rows.pop(key, None)
        else:
            self.rows[key] = value


def choose(
    emission: Emission, users: list[int], emitted_at: list[float], *, time: float = NOW, now: float
) -> list[int]:
    events = batch([Action(user=user, time=time) for user in users], catalogue())
    positions = np.arange(len(users))
    chosen = emission.choose(events, positions, np.array(emitted_at), [None] * len(users), now)
    found: list[int] = chosen.tolist()
    return found


def name(user: int) -> str:
    return batch([Action(user=user)], catalogue()).users[0]


def test_without_limits_everybody_gets_a_list_and_nothing_is_owed() -> None:
    emission = Emission(Notes(), 0.0, None)
    assert choose(emission, [1, 2], [NOW, 0.0], now=NOW) == [0, 1]
    assert len(emission) == 0
    assert emission.due_at() is None


def test_list_within_the_interval_is_owed_and_due_at_its_end() -> None:
    notes = Notes()
    emission = Emission(notes, 10.0, None)
    assert choose(emission, [1, 2], [NOW - 3.0, 0.0], now=NOW) == [1]
    assert emission.due_at() == NOW + 7.0
    assert emission.due(NOW + 6.9, 9) == []
    (due,) = emission.due(NOW + 7.0, 9)
    assert due.user == name(1)
    assert len(emission.due(NOW + 7.0, 9)) == 1  # until it was sent
    emission.sent([name(1)])
    assert emission.due(NOW + 7.0, 9) == []
    assert notes.rows == {}
    assert emission.due_at() is None


def test_later_events_move_what_is_owed_on_but_not_when_it_is_due() -> None:
    emission = Emission(Notes(), 10.0, None)
    choose(emission, [1], [NOW], now=NOW)
    choose(emission, [1], [NOW], now=NOW + 5.0)
    assert len(emission) == 1
    assert emission.due_at() == NOW + 10.0


def test_lists_fall_due_in_the_order_of_their_times_and_in_parts() -> None:
    emission = Emission(Notes(), 10.0, None)
    choose(emission, [1, 2, 3], [NOW - 1.0, NOW - 5.0, NOW - 3.0], now=NOW)
    assert [due.user for due in emission.due(NOW + 9.0, 2)] == [name(2), name(3)]


def test_old_events_wait_for_the_end_of_the_backlog() -> None:
    notes = Notes()
    emission = Emission(notes, 0.0, 60.0)
    assert choose(emission, [1, 2], [0.0, 0.0], time=NOW - 100.0, now=NOW) == []
    assert emission.due_at() is None
    assert emission.has_backlog
    assert emission.is_old(NOW - 100.0, NOW)
    assert not emission.is_old(NOW - 10.0, NOW)
    emission.end_backlog(NOW)
    assert {due.user for due in emission.due(NOW, 9)} == {name(1), name(2)}


def test_fresh_event_of_a_backlog_user_answers_for_the_old_ones() -> None:
    notes = Notes()
    emission = Emission(notes, 0.0, 60.0)
    choose(emission, [1], [0.0], time=NOW - 100.0, now=NOW)
    assert choose(emission, [1], [0.0], time=NOW, now=NOW) == [0]
    emission.sent([name(1)])
    emission.end_backlog(NOW)
    assert emission.due(NOW, 9) == []
    assert notes.rows == {}


def test_old_event_of_a_user_who_is_owed_a_list_leaves_it_due() -> None:
    emission = Emission(Notes(), 10.0, 60.0)
    choose(emission, [1], [NOW - 5.0], now=NOW)
    choose(emission, [1], [NOW - 5.0], time=NOW - 100.0, now=NOW)
    assert emission.due_at() == NOW + 5.0
    assert not emission.has_backlog


def test_what_is_owed_survives_a_crash() -> None:
    notes = Notes()
    emission = Emission(notes, 10.0, 60.0)
    choose(emission, [1], [NOW], now=NOW)
    choose(emission, [2], [0.0], time=NOW - 100.0, now=NOW)
    again = Emission(notes, 10.0, 60.0)
    again.restore(notes.rows.items(), NOW + 1.0)
    assert len(again) == 2
    assert [due.user for due in again.due(NOW + 1.0, 9)] == [name(1)]
    assert again.has_backlog


def test_last_entry_of_each_slot_is_found() -> None:
    assert last_of_each(np.array([3, 1, 3, 2, 1])).tolist() == [2, 3, 4]
    assert last_of_each(np.zeros(0, np.int64)).tolist() == []
