"""Rows of users who are gone are used again in a replay, which changes no answer."""

from pathlib import Path

import numpy as np
import pytest

from indexer.data.histories import EventLog
from indexer.replay.ranker_examples import Examples, collect_examples
from indexer.replay.replay import Replay
from tests.logs import group_artifact, group_events, read_events

ITEMS, USERS, EACH = 96, 12, 40


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    """A log of users who come and go, each with more events than a ring holds."""
    events = group_events(users=USERS, items=ITEMS, each=EACH)
    for event in events:
        event["timestamp"] += 20_000.0 * int(event["user_id"][1:])
    return read_events(tmp_path, events)


@pytest.fixture(autouse=True)
def _few_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("indexer.replay.user_slots.AT_LEAST", 2)


def examples(log: EventLog, forgets: bool) -> tuple[Replay, Examples]:
    replay = Replay(group_artifact(ITEMS), log, forgets=forgets)
    targets = np.arange(len(log) // 3, len(log))
    return replay, collect_examples(replay, targets, repeats=False, seed=0)


def test_rows_of_users_who_are_gone_are_used_again_and_answers_stay(log: EventLog) -> None:
    whole, expected = examples(log, forgets=False)
    few, found = examples(log, forgets=True)
    assert whole.slots.used == USERS
    assert 2 <= few.slots.used < USERS
    for name in ("features", "offsets", "rows", "events"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(few.view.columns.counts, whole.view.columns.counts)


def test_user_with_further_events_keeps_the_row(log: EventLog) -> None:
    replay = Replay(group_artifact(ITEMS), log, forgets=True)
    for stop in range(40, len(log), 40):
        replay.advance(stop)
        coming = np.unique(log.users[stop:])
        met = np.intersect1d(coming, log.users[:stop])
        assert np.isin(met, replay.slots.present()).all()
        slots = replay.slots.of(met, stop)
        events = replay.users.states.head["events"][slots]
        assert events.tolist() == np.bincount(log.users[:stop])[met].tolist()
