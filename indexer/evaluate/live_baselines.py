"""Baselines that count the stream: their half-lives and sizes are chosen on validation events.

They need no states of the tracker. As of the other baselines, items without a score share the
lowest one, and retractions and unknown items are not seen.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import TRAIN, EventLog, Split
from indexer.data.holdout import evenly_spread, periods
from indexer.evaluate.baselines import Baseline, DecayedPopularity, Ease, Scores
from indexer.evaluate.ease import DECAYS, MIDDLE, MOST_CHOICE_ITEMS, REGULARISATIONS
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


class Pairs(NamedTuple):
    """Pairs (P,) of items that users chose one after the other, grouped by the first one.

    Attributes:
        starts: (N + 1,) first place of each first item's pairs.
        seconds: (P,) int32 rows of the second items.
        events: (P,) int32 positions of their events, ascending within a first item.
        norms: (N,) factors of an item's score, once as first and once as second item.
    """

    starts: Integers
    seconds: NDArray[np.int32]
    events: NDArray[np.int32]
    norms: NDArray[np.float64]


def pairs_of(
    log: EventLog, rows: Rows, items: int, window: int = 1, fitted: Flags | None = None
) -> Pairs:
    """Return the pairs of a log; they take 8 bytes each, and their making little more.

    Args:
        log: the events.
        rows: (E,) of the events, -1 for an event that does not count.
        items: N.
        window: events after an item that make pairs with it; 1 is the very next one.
        fitted: (E,) bool; if given, pairs are taken over the square roots of both items' numbers
            of pairs among these events.
    """
    order, first = by_user(log, rows)
    norms = np.ones(items)
    if fitted is not None:
        norms = 1.0 / np.sqrt(_fitted_pairs(rows, order, first, window, fitted, items) / 2.0 + 5.0)
    after = np.minimum(np.repeat(first[1:], np.diff(first)) - np.arange(1, len(order) + 1), window)
    counts = np.bincount(rows[order], after, items).astype(np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    before = np.full(len(rows), -1, np.int32)
    same = log.users[order[1:]] == log.users[order[:-1]]
    before[order[1:][same]] = order[:-1][same]
    seconds, events = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int32)
    _fill_pairs(rows, before, window, starts[:-1].copy(), seconds, events)
    return Pairs(starts, seconds, events, norms)


def _fitted_pairs(
    rows: Rows, order: Integers, first: Integers, window: int, fitted: Flags, items: int
) -> Integers:
    """Return how many pairs each item is in, as first and as second one, by fitted events (N,).

    Args:
        rows: (E,) of the events, -1 for an event that does not count.
        order: (M,) positions of the events that count, a user's side by side: see `by_user`.
        first: each user's first place in it, and its length.
        window: events after an item that make pairs with it.
        fitted: (E,) bool, the events whose pairs with earlier ones count.
        items: N.
    """
    sizes = np.diff(first)
    places = np.arange(len(order))
    is_fitted = fitted[order]
    as_second = np.minimum(places - np.repeat(first[:-1], sizes), window) * is_fitted
    so_far = np.concatenate([np.zeros(1, np.int64), np.cumsum(is_fitted)])
    ends = np.minimum(places + 1 + window, np.repeat(first[1:], sizes))
    as_first = so_far[ends] - so_far[places + 1]
    return np.bincount(rows[order], as_first + as_second, items).astype(np.int64)


class LivePairs:
    """Pairs of items that users chose one after the other, counted from the stream and decayed.

    The score of an item is the sum over the latest events of the past, .6 an event, of the decayed
    number of times that a user chose it within the pairs' window.

    Args:
        name: of the baseline.
        pairs: those of the log.
        times: (E,) float seconds of the events.
        half_life_seconds: time after which a pair counts half.
    """

    def __init__(
        self, name: str, pairs: Pairs, times: NDArray[np.float64], half_life_seconds: float
    ) -> None:
        self.name = name
        self._pairs, self._times, self._half_life = pairs, times, half_life_seconds

    def scores(self, batch: TargetBatch) -> Scores:
        """Return the decayed sums, as they are at each target."""
        pairs = self._pairs
        out = np.zeros((len(batch), len(pairs.norms)), np.float32)
        _follow(
            batch.events, batch.past, batch.starts, self._times, pairs.starts, pairs.seconds,
            pairs.events, pairs.norms, self._half_life, out,
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
        counts = np.exp2(
            np.clip(logarithms + (self._trend.landmarks - now)[:, None], -100.0, 100.0)
        )
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

    next_ones = pairs_of(log, rows, items)
    near_ones = pairs_of(log, rows, items, NEIGHBOUR_EVENTS, targets.fitted)

    def transitions(half_life: float) -> LivePairs:
        return LivePairs("transitions", next_ones, times, half_life)

    def neighbours(half_life: float) -> LivePairs:
        return LivePairs("live_neighbours", near_ones, times, half_life)

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


def choose_ease(
    log: EventLog, split: Split, rows: Rows, targets: Targets, memory_bytes: int
) -> tuple[float, float, str]:
    """Return the regularisation and the decay of EASE, and a note on them.

    They are those of the best NDCG@10 on validation targets of a fit on the training part alone:
    first the decay, with a regularisation from the middle, then the regularisation.

    Args:
        log: the events.
        split: its validation targets choose.
        rows: (E,) catalogue rows of the events, -1 for none.
        targets: what is ranked.
        memory_bytes: what is free for it.

    Raises:
        MemoryError: as of `Ease`.
    """
    items = len(targets.ranked)
    choice = _Choice(log, split, rows, targets)
    early = np.flatnonzero((split.parts == TRAIN) & (rows >= 0))
    counts = np.bincount(rows[early], minlength=items)
    often = np.argsort(-counts, kind="stable")[:MOST_CHOICE_ITEMS]
    early = early[np.isin(rows[early], often)]
    if not len(choice) or not len(early):
        return MIDDLE, DECAYS[0], ""
    users = log.users[early]

    def fitted(regularisation: float) -> Ease:
        return Ease(users, rows[early], items, memory_bytes, regularisation)

    middle = fitted(MIDDLE)
    decay = choice.best(middle.with_decay, DECAYS)
    regularisation = choice.best(lambda value: fitted(value).with_decay(decay), REGULARISATIONS)
    return (
        regularisation,
        decay,
        (
            f"ease has a regularisation of {regularisation:g}, and an event counts {decay:g} of the"
            f" next one: the best NDCG@10 on {len(choice)} validation targets"
        ),
    )


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


@native
def _fill_pairs(
    rows: Rows, before: Array, window: int, places: Integers, seconds: Array, events: Array
) -> None:
    """Write the pairs, each at the next place of its first item."""
    for event in range(len(rows)):
        if rows[event] < 0:
            continue
        other = before[event]
        for _ in range(window):
            if other < 0:
                break
            place = places[rows[other]]
            seconds[place] = rows[event]
            events[place] = event
            places[rows[other]] = place + 1
            other = before[other]


@native
def _follow(
    targets: Integers, past: Rows, past_starts: Integers, times: Array, starts: Integers,
    seconds: Array, events: Array, norms: Array, half_life: float, out: Array,
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
