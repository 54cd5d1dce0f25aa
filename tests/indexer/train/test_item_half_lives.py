"""Half-lives of items' counts are those that the stream lives by."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from indexer.data.histories import EventLog, read_event_log
from indexer.train.item_half_lives import MIN_TARGETS, ItemHalfLives, choose_item_counts
from tracker.events.kinds import Kinds
from tracker.events.wire import hash_id
from tracker.items.config import DAY, HOUR, ItemCounts

pytestmark = pytest.mark.training  # weights are fitted for each choice

START = 1.7e9
ITEMS = 80


def stream(
    folder: Path, seconds_between: float, lasting_events: int, events: int = 2400
) -> tuple[EventLog, NDArray[np.int64]]:
    """Return a log in which four items at a time are hot, and the rows of its items."""
    random = np.random.default_rng(0)
    path = folder / "events.jsonl"
    lines = []
    for n in range(events):
        hot = n // lasting_events * 4 % ITEMS + int(random.integers(0, 4))
        item = hot if random.random() < 0.8 else int(random.integers(0, ITEMS))
        lines.append(
            json.dumps(
                {
                    "user_id": f"u{random.integers(0, 300)}",
                    "item_id": f"i{item}",
                    "kind": "view",
                    "timestamp": START + seconds_between * n,
                }
            )
        )
    path.write_text("\n".join(lines))
    log = read_event_log([path], Kinds.default(), 4e9)
    numbers = {hash_id(f"i{item}"): item for item in range(ITEMS)}
    return log, np.array([numbers[int(item)] for item in log.batch.items], np.int64)


def choice(
    log: EventLog, rows: NDArray[np.int64], in_force: ItemCounts | None = None
) -> ItemHalfLives:
    found = choose_item_counts(
        log, rows, ITEMS, np.arange(600, len(log)), in_force or ItemCounts(), repeats=True
    )
    assert found is not None
    return found


def test_a_stream_that_lives_in_minutes_is_counted_by_minutes(tmp_path: Path) -> None:
    log, rows = stream(tmp_path, 10.0, 120)  # twenty minutes
    found = choice(log, rows)
    assert found.counts.short_seconds <= HOUR
    assert found.counts.trend_seconds[0] <= HOUR
    assert found.loss < found.loss_in_force
    assert found.hit_rates["600"] > found.hit_rates["86400"] + 0.1


def test_a_stream_that_lives_in_weeks_is_not_counted_by_minutes(tmp_path: Path) -> None:
    log, rows = stream(tmp_path, 3 * HOUR, 120)  # two weeks
    found = choice(log, rows)
    assert found.counts.short_seconds >= DAY
    assert found.counts.trend_seconds[0] >= DAY


def test_half_lives_in_force_stay_where_others_are_not_clearly_better(tmp_path: Path) -> None:
    log, rows = stream(tmp_path, 10.0, 120)
    first = choice(log, rows)
    again = choice(log, rows, first.counts)
    assert again.counts.read_seconds == first.counts.read_seconds


def test_held_out_events_between_the_targets_do_not_count(tmp_path: Path) -> None:
    log, rows = stream(tmp_path, 10.0, 120)
    held_out = np.arange(len(log)) % 3 == 1
    events = np.flatnonzero(~held_out)[400:]
    found = [
        choose_item_counts(log, some, ITEMS, events, ItemCounts(), True, held_out)
        for some in (rows, np.where(held_out, 7, rows))
    ]
    assert found[0] is not None
    assert found[0] == found[1]


def test_with_few_targets_nothing_is_chosen(tmp_path: Path) -> None:
    log, rows = stream(tmp_path, 10.0, 120, events=MIN_TARGETS)
    few = np.arange(1, MIN_TARGETS)
    assert choose_item_counts(log, rows, ITEMS, few, ItemCounts(), repeats=True) is None


def test_a_choice_can_always_be_counted_by(tmp_path: Path) -> None:
    log, rows = stream(tmp_path, 60.0, 200)
    counts = choice(log, rows, ItemCounts(short_seconds=1800.0)).counts
    assert counts.short_seconds < counts.long_seconds
    assert counts.trend_places[0] < len(counts.read_seconds)
    assert counts.also_seconds == ()
