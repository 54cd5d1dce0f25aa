"""Baselines that count the stream: their half-lives and sizes are chosen on validation events.

They need no states of the tracker. As of the other baselines, items without a score share the
lowest one, and retractions and unknown items are not seen.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import EventLog, Split
from indexer.data.holdout import evenly_spread, periods
from indexer.evaluate.baselines import Baseline, DecayedPopularity, Scores
from indexer.evaluate.metrics import gains_at_k, rank_and_list
from indexer.evaluate.targets import (
    Flags,
    Integers,
    TargetBatch,
    Targets,
    by_user,
    target_batches,
)
from tracker.items.config import DAY, HOUR, MINUTE, YEAR
from tracker.kernels.arithmetic import decay
from tracker.kernels.native import native

Array = NDArray[Any]
Rows = NDArray[np.int64]

HALF_LIVES = (
    10 * MINUTE, 30 * MINUTE, HOUR, 4 * HOUR, 12 * HOUR, DAY, 4 * DAY, 15 * DAY, 60 * DAY,
    YEAR,
)  # fmt: skip
"""Half-lives of decayed popularity, in seconds; the best one on validation is used."""

PAIR_HALF_LIVES = (HOUR, DAY, 10 * DAY, YEAR)
"""Half-lives of transitions and of live neighbours."""

LAST_EVENTS = (100, 300, 1000, 3000, 10_000, 30_000)
"""Numbers of events that recent popularity counts."""

SHARES = (0.1, 0.3, 1.0, 3.0)
"""Weights of transitions beside decayed popularity."""

CHOICE_TARGETS = 1000
"""Validation targets that a choice is made on, at most, evenly spread."""

PAST_EVENTS = 5
"""Latest events of a user from which transitions are followed."""

PAST_DECAY = 0.6
"""Weight of an event against the next one."""

MAX_PAIRS = 2000
"""Latest pairs of an item that are looked at."""

NEIGHBOUR_EVENTS = 10
"""Events of a user before an item that count as its neighbours."""


class RecentPopularity:
    """The number of events of each item among the latest of the stream.

    Args:
        rows: (E,) of the events in time order, -1 for an event that does not count.
        items: N.
        last: number of events that are counted.
    """

    name = "recent_popularity"

    def __init__(self, rows: Rows, items: int, last: int) -> None:
        self._rows, self._items, self._last = rows, items, last

    def scores(self, batch: TargetBatch) -> Scores:
        """Return the counts."""
        out = np.zeros((len(batch), self._items), np.float32)
        for b, event in enumerate(batch.events.tolist()):
            latest = self._rows[max(0, event - self._last) : event]
            out[b] = np.bincount(latest[latest >= 0], minlength=self._items)
        return out


class OwnRecent:
    """The user's own items, the latest first."""

    name = "own_recent"

    def __init__(self, items: int) -> None:
        self._items = items

    def scores(self, batch: TargetBatch) -> Scores:
        """Return 1 over the place of an item's latest event in the user's past."""
        out = np.zeros((len(batch), self._items), np.float32)
        for b in range(len(batch)):
            past = batch.past[batch.starts[b] : batch.starts[b + 1]]
            out[b, past[::-1]] = 1.0 / np.arange(len(past), 0, -1)
        return out


class LivePairs:
    """Pairs of items that users chose one after the other, counted from the stream and decayed.

    The score of an item is the sum over the latest events of the past, .6 an event, of the decayed
    number of times that a user chose it within `window` events after.

    Args:
        name: of the baseline.
        log: the events.
        rows: (E,) of the events, -1 for an event that does not count.
        items: N.
        half_life_seconds: time after which a pair counts half.
        window: events after an item that make pairs with it; 1 is the very next one.
        fitted: (E,) bool; if given, pairs are taken over the square roots of both items' numbers
            of pairs among these events.
    """

    def __init__(
        self,
        name: str,
        log: EventLog,
        rows: Rows,
        items: int,
        half_life_seconds: float,
        window: int = 1,
        fitted: Flags | None = None,
    ) -> None:
        self.name = name
        self._items, self._half_life = items, half_life_seconds
        self._times = log.batch.times
        starts, seconds, order = _pairs_of(log, rows, items, window)
        self._starts, self._seconds, self._events = starts, seconds, order
        self._norms = np.ones(items)
        if fitted is not None:
            firsts, counted = np.repeat(np.arange(items), np.diff(starts)), fitted[order]
            sizes = np.bincount(firsts[counted], minlength=items)
            sizes += np.bincount(seconds[counted], minlength=items)
            self._norms = 1.0 / np.sqrt(sizes / 2.0 + 5.0)

    def scores(self, batch: TargetBatch) -> Scores:
        """Return the decayed sums, as they are at each target."""
        out = np.zeros((len(batch), self._items), np.float32)
        _follow(
            batch.events, batch.past, batch.starts, self._times, self._starts, self._seconds,
            self._events, self._norms, self._half_life, out,
        )  # fmt: skip
        return out


class TrendAndTransitions:
    """Decayed popularity and decayed transitions, added up with a weight.

    Args:
        trend: decayed popularity.
        half_life_seconds: of it.
        transitions: of the user's latest items.
        share: weight of the transitions.
        times: (E,) float seconds of the events.
    """

    name = "trend_and_transitions"

    def __init__(
        self,
        trend: DecayedPopularity,
        half_life_seconds: float,
        transitions: LivePairs,
        share: float,
        times: NDArray[np.float64],
    ) -> None:
        self._trend, self._half_life = trend, half_life_seconds
        self._transitions, self._share, self._times = transitions, share, times

    def scores(self, batch: TargetBatch) -> Scores:
        """Return the sums of counts."""
        now = self._times[batch.events] / self._half_life
        logarithms = self._trend.scores(batch).astype(np.float64)
        counts = np.exp2(np.clip(logarithms + (self._trend.landmark - now)[:, None], -100.0, 100.0))
        return np.asarray(counts + self._share * self._transitions.scores(batch), np.float32)


def live_baselines(
    log: EventLog, split: Split, rows: Rows, targets: Targets
) -> tuple[list[Baseline], list[str]]:
    """Return the baselines that count the stream, and notes on what was chosen for each.

    Half-lives and sizes are those of the best NDCG@10 on validation targets, evenly spread.

    Args:
        log: the events.
        split: its validation targets choose.
        rows: (E,) catalogue rows of the events, -1 for none.
        targets: what is ranked.
    """
    items, times = len(targets.ranked), log.batch.times
    choice = _Choice(log, split, rows, targets)

    def trend(half_life: float) -> DecayedPopularity:
        return DecayedPopularity(rows, times, items, half_life, "best_trend")

    def transitions(half_life: float) -> LivePairs:
        return LivePairs("transitions", log, rows, items, half_life)

    def neighbours(half_life: float) -> LivePairs:
        return LivePairs(
            "live_neighbours", log, rows, items, half_life, NEIGHBOUR_EVENTS, targets.fitted
        )

    fading = choice.best(trend, HALF_LIVES)
    last = choice.best(lambda last: RecentPopularity(rows, items, int(last)), LAST_EVENTS)
    following = choice.best(transitions, PAIR_HALF_LIVES)
    near = choice.best(neighbours, PAIR_HALF_LIVES)

    def both(share: float) -> TrendAndTransitions:
        return TrendAndTransitions(trend(fading), fading, transitions(following), share, times)

    share = choice.best(both, SHARES)
    baselines: list[Baseline] = [
        trend(fading),
        RecentPopularity(rows, items, int(last)),
        transitions(following),
        neighbours(near),
        both(share),
    ]
    how = (
        f"the best NDCG@10 on {len(choice)} validation targets"
        if len(choice)
        else "there are no validation targets"
    )
    notes = [
        f"best_trend has a half-life of {periods((fading,))}, transitions of"
        f" {periods((following,))}, live_neighbours of {periods((near,))}; recent_popularity counts"
        f" {int(last):,} events; trend_and_transitions weighs transitions {share:g}: {how}"
    ]
    return baselines, notes


class _Choice:
    """Validation targets, and the choice of the best of several baselines on them."""

    def __init__(self, log: EventLog, split: Split, rows: Rows, targets: Targets) -> None:
        events = evenly_spread(split.validation, CHOICE_TARGETS)
        self._targets = Targets(events, targets.ranked, targets.fitted, targets.repeats)
        self._batches = list(target_batches(log, rows, self._targets, 4 * len(targets.ranked)))

    def __len__(self) -> int:
        """Return the number of targets."""
        return len(self._targets.events)

    def best(self, make: Callable[[float], Baseline], values: Iterable[float]) -> float:
        """Return the value of the best NDCG@10; the first one without targets."""
        return max(values, key=lambda value: self._quality(make(value)))

    def _quality(self, model: Baseline) -> float:
        gains = 0.0
        for batch in self._batches:
            ranks = np.full(len(batch), math.inf)
            lists = np.full((len(batch), 10), -1)
            starts = np.zeros_like(batch.starts) if self._targets.repeats else batch.starts
            rank_and_list(
                model.scores(batch), batch.rows, self._targets.ranked, batch.past, starts,
                ranks, lists,
            )  # fmt: skip
            gains += float(gains_at_k(ranks, 10).sum())
        return gains


def _pairs_of(
    log: EventLog, rows: Rows, items: int, window: int
) -> tuple[Integers, Rows, Integers]:
    """Return the pairs (P,) of items that users chose one after the other, by the first one.

    Returns:
        starts (N + 1,) of each first item's pairs; their second rows; and the positions of their
        later events, ascending within an item.
    """
    order, _ = by_user(log, rows)
    firsts, seconds, events = [], [], []
    for gap in range(1, window + 1):
        before, after = order[:-gap], order[gap:]
        same = log.users[before] == log.users[after]
        firsts.append(rows[before[same]])
        seconds.append(rows[after[same]])
        events.append(after[same])
    first, second, event = (np.concatenate(parts) for parts in (firsts, seconds, events))
    by_item = np.lexsort((event, first))
    starts = np.r_[0, np.cumsum(np.bincount(first, minlength=items))]
    return starts, second[by_item], event[by_item]


@native
def _follow(
    targets: Integers, past: Rows, past_starts: Integers, times: Array, starts: Integers,
    seconds: Rows, events: Integers, norms: Array, half_life: float, out: Array,
) -> None:  # fmt: skip
    """Add to each row of `out` the decayed pairs of the latest items of the past."""
    for b in range(len(targets)):
        now = times[targets[b]]
        weight = 1.0
        for i in range(past_starts[b], min(past_starts[b + 1], past_starts[b] + PAST_EVENTS)):
            item = past[i]
            begin = starts[item]
            end = begin + np.searchsorted(events[begin : starts[item + 1]], targets[b])
            for pair in range(end - 1, max(begin, end - MAX_PAIRS) - 1, -1):
                age = (now - times[events[pair]]) / half_life
                if age > 60.0:
                    break
                other = seconds[pair]
                gain = weight * decay(age, 1.0) * norms[item] * norms[other]
                out[b, other] += np.float32(gain)
            weight *= PAST_DECAY
