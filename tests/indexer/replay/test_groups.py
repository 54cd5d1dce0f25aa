"""Groups of events that are answered from one state."""

from pathlib import Path

import numpy as np

from indexer.replay.groups import MAX_EVENTS, MAX_SECONDS, groups_of
from tests.logs import read_events


def groups(folder: Path, users: str, seconds: list[float]) -> list[tuple[int, int]]:
    events = [
        {"user_id": user, "item_id": "i1", "kind": "like", "timestamp": 1.7e9 + at}
        for user, at in zip(users, seconds, strict=True)
    ]
    log = read_events(folder, events)
    return list(groups_of(log, np.arange(len(log))))


def test_a_group_ends_before_a_user_comes_a_second_time(tmp_path: Path) -> None:
    assert groups(tmp_path, "abcab", [0.0, 1.0, 2.0, 3.0, 4.0]) == [(0, 3), (3, 5)]


def test_a_group_spans_a_few_minutes_at_most(tmp_path: Path) -> None:
    assert groups(tmp_path, "abc", [0.0, MAX_SECONDS, MAX_SECONDS + 1.0]) == [(0, 2), (2, 3)]


def test_a_group_spans_a_few_events_at_most(tmp_path: Path) -> None:
    users = "".join(chr(ord("a") + n) for n in range(MAX_EVENTS + 1))
    assert groups(tmp_path, users, [0.0] * len(users)) == [
        (0, MAX_EVENTS),
        (MAX_EVENTS, len(users)),
    ]


def test_no_events_are_no_group(tmp_path: Path) -> None:
    log = read_events(
        tmp_path, [{"user_id": "a", "item_id": "i", "kind": "like", "timestamp": 1.0}]
    )
    assert list(groups_of(log, np.zeros(0, np.int64))) == []
