"""Baselines that count the stream, on logs small enough to count by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.data.histories import EventLog, read_event_log, split
from indexer.evaluate.baselines import DecayedPopularity
from indexer.evaluate.ease import REGULARISATIONS
from indexer.evaluate.live_baselines import (
    HALF_LIVES,
    LivePairs,
    OwnRecent,
    RecentPopularity,
    TrendAndTransitions,
    choose_ease,
    live_baselines,
    pairs_of,
)
from indexer.evaluate.targets import TargetBatch, targets_of
from tracker.events.kinds import Kinds
from tracker.events.wire import hash_id

START = 1.7e9
HOUR = 3600.0


def log_of(folder: Path, *events: tuple[str, int, float]) -> tuple[EventLog, NDArray[np.int64]]:
    """Return a log of (user, item, hours), and the rows of its items, which are their numbers."""
    path = folder / "events.jsonl"
    path.write_text(
        "\n".join(
            json.dumps(
                {
                    "user_id": user,
                    "item_id": f"i{item}",
                    "kind": "view",
                    "timestamp": START + HOUR * hours,
                }
            )
            for user, item, hours in events
        )
    )
    log = read_event_log([path], Kinds.default(), 2e9)
    numbers = {hash_id(f"i{item}"): item for _, item, _ in events}
    return log, np.array([numbers[int(item)] for item in log.batch.items], np.int64)


def asked(event: int, *past: int) -> TargetBatch:
    """Return a target at a place of the log, of a user with this past, latest first."""
    return TargetBatch(
        np.array([event]), np.array([0]), np.array(past, np.int64), np.array([0, len(past)])
    )


def test_recent_popularity_counts_the_latest_events_of_the_stream_only() -> None:
    model = RecentPopularity(np.array([0, 0, 0, 1, -1, 2]), 3, 3)
    assert model.scores(asked(6))[0].tolist() == [0.0, 1.0, 1.0]
    assert model.scores(asked(3))[0].tolist() == [3.0, 0.0, 0.0]


def test_own_items_go_by_recency_alone() -> None:
    (found,) = OwnRecent(4).scores(asked(0, 2, 1, 1, 2, 0))
    assert found.argsort()[::-1][:3].tolist() == [2, 1, 0]
    assert found[3] == 0.0


def test_transitions_decay_and_follow_the_latest_items_most(tmp_path: Path) -> None:
    log, rows = log_of(
        tmp_path, ("a", 0, 0.0), ("a", 1, 1.0), ("b", 0, 2.0), ("b", 2, 3.0), ("c", 0, 9.0)
    )
    model = LivePairs("transitions", pairs_of(log, rows, 4), log.batch.times, 2 * HOUR)
    (found,) = model.scores(asked(4, 0))
    assert found[1] == pytest.approx(2.0**-4)
    assert found[2] == pytest.approx(2.0**-3)
    assert model.scores(asked(3, 0))[0].tolist() == pytest.approx([0.0, 0.5, 0.0, 0.0])
    assert model.scores(asked(4, 3, 0))[0][2] == pytest.approx(0.6 * 2.0**-3)


def test_neighbours_within_a_window_are_counted_over_the_numbers_of_pairs(tmp_path: Path) -> None:
    log, rows = log_of(tmp_path, ("a", 0, 0.0), ("a", 1, 0.0), ("a", 2, 0.0), ("b", 0, 0.0))
    pairs = pairs_of(log, rows, 3, 2, np.ones(4, np.bool_))
    model = LivePairs("live_neighbours", pairs, log.batch.times, HOUR)
    (found,) = model.scores(asked(3, 0))
    assert found.tolist() == pytest.approx([0.0, 1 / 6, 1 / 6])


def test_pairs_stand_by_first_item_in_the_order_of_time_and_take_8_bytes(tmp_path: Path) -> None:
    log, rows = log_of(
        tmp_path, ("a", 0, 0.0), ("b", 0, 1.0), ("a", 1, 2.0), ("b", 2, 3.0), ("a", 0, 4.0)
    )
    pairs = pairs_of(log, rows, 3, 2)
    assert pairs.starts.tolist() == [0, 3, 4, 4]
    assert pairs.seconds.tolist() == [1, 2, 0, 0]
    assert pairs.events.tolist() == [2, 3, 4, 4]
    assert pairs.seconds.itemsize + pairs.events.itemsize == 8


def test_trend_and_transitions_are_added_as_counts(tmp_path: Path) -> None:
    log, rows = log_of(tmp_path, ("a", 0, 0.0), ("a", 1, 1.0), ("b", 2, 1.0), ("c", 0, 2.0))
    times = log.batch.times
    trend = DecayedPopularity(rows, times, 3, HOUR)
    transitions = LivePairs("transitions", pairs_of(log, rows, 3), times, HOUR)
    model = TrendAndTransitions(trend, HOUR, transitions, 3.0, times)
    (found,) = model.scores(asked(3, 0))
    assert found.tolist() == pytest.approx([0.25, 0.5 + 3.0 * 0.5, 0.5])


def test_trend_and_transitions_of_targets_far_apart_are_those_of_each_alone(tmp_path: Path) -> None:
    log, rows = log_of(
        tmp_path, ("a", 0, 0.0), ("b", 0, 0.0), ("c", 1, 0.0), ("d", 0, 1.0), ("e", 1, 600.0),
        ("f", 0, 601.0),
    )  # fmt: skip
    times = log.batch.times

    def model() -> TrendAndTransitions:
        trend = DecayedPopularity(rows, times, 2, HOUR)
        transitions = LivePairs("transitions", pairs_of(log, rows, 2), times, HOUR)
        return TrendAndTransitions(trend, HOUR, transitions, 1.0, times)

    nothing = np.zeros(0, np.int64)
    both = TargetBatch(np.array([3, 5]), np.array([0, 0]), nothing, np.array([0, 0, 0]))
    together = model().scores(both)
    alone = [model().scores(asked(event))[0] for event in (3, 5)]
    assert together.tolist() == [one.tolist() for one in alone]
    assert together[0].tolist() == pytest.approx([1.0, 0.5])


def test_the_half_life_of_a_stream_of_minutes_is_chosen_on_validation(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    events = []
    for n in range(3000):
        hot = n // 60 * 3 % 60 + int(random.integers(0, 3))  # three items for a quarter of an hour
        item = hot if random.random() < 0.7 else int(random.integers(0, 60))
        events.append((f"u{random.integers(0, 150)}", item, n / 240))
    log, rows = log_of(tmp_path, *events)
    parts = split(log, "gts")
    targets = targets_of(log, parts, rows, 60, 60, repeats=True)
    models, (note,) = live_baselines(log, parts, rows, targets)
    assert [model.name for model in models] == [
        "best_trend", "recent_popularity", "transitions", "live_neighbours",
        "trend_and_transitions",
    ]  # fmt: skip
    assert "best_trend has a half-life of 10 min," in note
    assert HALF_LIVES[0] == 600.0
    assert "recent_popularity counts 100 events" in note


def test_ease_takes_the_settings_that_rank_validation_targets_best(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    events = []
    for user in range(150):
        groups = random.permutation(12)[:2].tolist()  # a user moves on from one group of five
        for n in range(10):
            item = 5 * groups[n // 5] + int(random.integers(0, 5))
            events.append((f"u{user}", item, 100.0 * n + float(random.random())))
    log, rows = log_of(tmp_path, *sorted(events, key=lambda event: event[2]))
    parts = split(log, "gts")
    targets = targets_of(log, parts, rows, 60, 60, repeats=True)
    regularisation, decay, note = choose_ease(log, parts, rows, targets, 1 << 30)
    assert regularisation in REGULARISATIONS
    assert decay == 0.6
    assert note.startswith(f"ease has a regularisation of {regularisation:g}, and an event counts")
    with pytest.raises(MemoryError, match="EASE over"):
        choose_ease(log, parts, rows, targets, 10)
