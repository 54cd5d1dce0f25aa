"""Baselines that the tracker is compared with: simple recommenders at the same targets.

Each scores all N rows of the catalogue for some targets at once, from the rows of each user's past
events. None needs the states of the tracker: one counts the stream, the others are fitted once on
the training part and then frozen. Items without a score share the lowest one: ties count half. They
do not see retractions and unknown items.
"""

import math
from copy import copy
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from indexer.evaluate.ease import DECAYS, MIDDLE, co_counts, ease_weights
from indexer.evaluate.targets import TargetBatch
from tracker.kernels.native import native

Array = NDArray[Any]
Scores = NDArray[np.float32]
Rows = NDArray[np.int64]

RECENT_EVENTS = 30
"""Past events that the baselines use; .6 ** 30 is 2e-7."""

EVENT_DECAY = 0.6
"""Weight of an event against the next one, for item-kNN."""

CONTENT_DECAY = 0.8
"""Weight of an event against the next one, for the content channel."""

SHRINKAGE = 5.0
"""Added to an item's count in the cosine of item-kNN, so that a few events prove little."""

MAX_USERS = 1000
"""Item-kNN uses only the latest users of an item, up to this number."""

_RENORMALISE_HALF_LIVES = 500.0


class Baseline(Protocol):
    """A recommender that can be asked at any event."""

    name: str

    def scores(self, batch: TargetBatch) -> Scores:
        """Return (B, N) float32 scores, finite, higher is better, of B targets.

        Targets come in time order, within a call and from call to call.
        """
        ...


class Popularity:
    """The number of training events of each item, frozen."""

    name = "popularity"

    def __init__(self, rows: Rows, items: int) -> None:
        self._counts = np.bincount(rows, minlength=items).astype(np.float32)

    def scores(self, batch: TargetBatch) -> Scores:
        """Return the counts."""
        return np.tile(self._counts, (len(batch), 1))


class DecayedPopularity:
    """The decayed number of events of each item, from the stream before a target.

    Counts are kept forward-decayed, relative to a landmark in time, so that an event costs one
    addition; the landmark moves on before the numbers grow too large.

    Args:
        rows: (E,) of the events in time order, -1 for an event that does not count.
        times: (E,) float seconds.
        items: N.
        half_life_seconds: time after which an event counts half.
        name: of the baseline.
    """

    def __init__(
        self,
        rows: Rows,
        times: NDArray[np.float64],
        items: int,
        half_life_seconds: float = 86400.0,
        name: str = "decayed_popularity",
    ) -> None:
        self.name = name
        self._rows = rows
        self._half_lives = times / half_life_seconds
        self._counts = np.zeros(items, np.float64)
        self._logarithms = np.full(items, -1e6, np.float32)
        self._counted = np.array([0], np.int64)
        self._landmark = np.zeros(1)
        self.landmarks = np.zeros(0)
        """(B,) the time that the logarithms of each of the latest targets are relative to, in
        half-lives."""

    def scores(self, batch: TargetBatch) -> Scores:
        """Return log2 of the counts; the decay to the present is the same for all and left out."""
        out = np.empty((len(batch), len(self._counts)), np.float32)
        self.landmarks = np.empty(len(batch))
        _count_decayed(
            batch.events, self._rows, self._half_lives, self._counts, self._logarithms,
            self._counted, self._landmark, out, self.landmarks,
        )  # fmt: skip
        return out


class ItemKnn:
    """Items chosen by the same users, in the training part: cosine with shrinkage, frozen.

    The score of an item is the sum over the past events, .6 an event, of the users who chose both,
    over sqrt((n_i + 5)(n_j + 5)). It is summed on the fly from the training events: no matrix.
    """

    name = "item_knn"

    def __init__(self, users: NDArray[np.int64], rows: Rows, items: int) -> None:
        latest = np.arange(len(rows))[::-1]
        pairs = np.stack([users[latest], rows[latest]], axis=1)
        _, first = np.unique(pairs, axis=0, return_index=True)
        firsts = latest[np.sort(first)]
        self._users_of = _Lists(rows[firsts], users[firsts], items, MAX_USERS)
        count = int(users.max()) + 1 if len(users) else 0
        self._rows_of = _Lists(users[firsts], rows[firsts], count, len(rows))
        counts = np.bincount(rows[firsts], minlength=items)
        self._norms = 1.0 / np.sqrt(counts + SHRINKAGE)

    def scores(self, batch: TargetBatch) -> Scores:
        """Return the sums."""
        out = np.zeros((len(batch), len(self._norms)), np.float32)
        _sum_neighbours(
            batch.past, batch.starts, RECENT_EVENTS, EVENT_DECAY, self._norms,
            self._users_of.starts, self._users_of.values,
            self._rows_of.starts, self._rows_of.values, out,
        )  # fmt: skip
        return out


class Ease:
    """EASE on the training part, frozen: a linear item-to-item model in closed form.

    Source: Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data". Only items with
    training events are in the matrix; the others share the score 0.

    It is fitted at the first call of `scores`, in the thread of the caller, for this takes long.

    Args:
        users: (E,) of the events.
        rows: (E,) theirs, in the catalogue.
        items: N.
        memory_bytes: what is free for it.
        regularisation: weight of L2.
        decay: weight of an event of the past against the next one.

    Raises:
        MemoryError: the matrices do not fit; see `bytes_needed`.
    """

    name = "ease"

    def __init__(
        self,
        users: NDArray[np.int64],
        rows: Rows,
        items: int,
        memory_bytes: int,
        regularisation: float = MIDDLE,
        decay: float = DECAYS[0],
    ) -> None:
        unique, codes = np.unique(rows, return_inverse=True)
        needed = self.bytes_needed(len(unique))
        if needed > memory_bytes:
            raise MemoryError(
                f"EASE over {len(unique):,} items takes {needed >> 20:,} MiB;"
                f" {memory_bytes >> 20:,} MiB are free for it"
            )
        self._rows = unique
        self._codes = np.full(items, -1, np.int64)
        self._codes[unique] = np.arange(len(unique))
        self._training = codes, users, regularisation
        self._decay = decay

    def with_decay(self, decay: float) -> "Ease":
        """Return the same fit with another decay."""
        other = copy(self)
        other._decay = decay
        return other

    @cached_property
    def _weights(self) -> NDArray[np.float32]:
        codes, users, regularisation = self._training
        return ease_weights(co_counts(codes, users), regularisation)

    @staticmethod
    def bytes_needed(items: int) -> int:
        """Return the bytes that fitting takes at most: four matrices of single precision."""
        return 4 * 4 * items * items

    def scores(self, batch: TargetBatch) -> Scores:
        """Return the weighed sum of the past items' rows of the matrix."""
        sums = np.zeros((len(batch), len(self._rows)), np.float32)
        _sum_rows(
            batch.past, batch.starts, RECENT_EVENTS, self._decay, self._codes, self._weights, sums
        )
        if len(self._rows) == len(self._codes):
            return sums
        out = np.zeros((len(batch), len(self._codes)), np.float32)
        out[:, self._rows] = sums
        return out


class Content:
    """The content channel alone: cosine with the decayed sum of the past items' vectors.

    With `events` 1 it is the similarity with the last item.

    Args:
        vectors: (N, F) float32, unit.
        events: latest events that are summed, .8 an event.
    """

    def __init__(self, vectors: NDArray[np.float32], events: int = RECENT_EVENTS) -> None:
        self.name = "last_item" if events == 1 else "content"
        self._vectors = vectors
        self._events = events

    def scores(self, batch: TargetBatch) -> Scores:
        """Return inner products with the sum, whose length is the same for all."""
        sums = np.zeros((len(batch), self._vectors.shape[1]), np.float32)
        codes = np.arange(len(self._vectors))
        _sum_rows(batch.past, batch.starts, self._events, CONTENT_DECAY, codes, self._vectors, sums)
        return np.asarray(sums @ self._vectors.T, np.float32)


class OwnFrequent:
    """The user's own items by their number of events; of equal ones the later first."""

    name = "own_frequent"

    def __init__(self, items: int) -> None:
        self._items = items

    def scores(self, batch: TargetBatch) -> Scores:
        """Return counts plus up to a half for recency."""
        out = np.zeros((len(batch), self._items), np.float32)
        _count_own(batch.past, batch.starts, out)
        return out


class _Lists:
    """Values grouped by key, in the given order, up to `limit` per key."""

    def __init__(self, keys: Rows, values: Rows, count: int, limit: int) -> None:
        order = np.argsort(keys, kind="stable")
        sizes = np.bincount(keys, minlength=count)
        offsets = np.cumsum(sizes) - sizes
        place = np.arange(len(keys)) - offsets[keys[order]]
        order = order[place < limit]
        self.values = values[order].astype(np.int32)
        self.starts = np.r_[0, np.cumsum(np.minimum(sizes, limit))]


@native
def _count_decayed(
    events: Rows, rows: Rows, half_lives: Array,
    counts: Array, logarithms: Array, counted: Array, landmark: Array, out: Array, landmarks: Array,
) -> None:  # fmt: skip
    """Count the events before each target, and write down the logarithms as they are then.

    The landmark may move between two targets of a call, so that each has its own in `landmarks`.
    """
    for b in range(len(events)):
        for event in range(counted[0], min(events[b], len(rows))):
            row = rows[event]
            if row < 0:
                continue
            age = half_lives[event] - landmark[0]
            if age > _RENORMALISE_HALF_LIVES:
                for other in range(len(counts)):
                    counts[other] *= math.pow(2.0, -min(age, 2000.0))
                    if counts[other] > 0.0:
                        logarithms[other] = max(math.log2(counts[other]), -1e6)
                    else:
                        logarithms[other] = -1e6
                landmark[0] = half_lives[event]
                age = 0.0
            counts[row] += math.pow(2.0, max(age, -2000.0))
            logarithms[row] = max(math.log2(counts[row]), -1e6) if counts[row] > 0.0 else -1e6
        counted[0] = max(counted[0], events[b])
        out[b] = logarithms
        landmarks[b] = landmark[0]


@native
def _sum_rows(
    past: Rows, starts: Rows, most: int, decay: float, codes: Rows, matrix: Array, out: Array
) -> None:
    """Add to each row of `out` the rows of a matrix at the codes of the past, by recency."""
    for b in range(len(starts) - 1):
        weight = np.float32(1.0)
        for i in range(starts[b], min(starts[b + 1], starts[b] + most)):
            code = codes[past[i]]
            if code >= 0:
                line = matrix[code]
                for column in range(len(line)):
                    out[b, column] += weight * line[column]
            weight *= np.float32(decay)


@native
def _count_own(past: Rows, starts: Rows, out: Array) -> None:
    for b in range(len(starts) - 1):
        for i in range(starts[b], starts[b + 1]):
            if out[b, past[i]] == 0.0:
                out[b, past[i]] = 0.5 / (1.0 + i - starts[b])
            out[b, past[i]] += 1.0


@native
def _sum_neighbours(
    past: Rows, starts: Rows, most: int, decay: float, norms: Array,
    user_starts: Array, users: Array, row_starts: Array, rows: Array, out: Array,
) -> None:  # fmt: skip
    """Write the sums over the users of each past row of their other rows, weighted by recency."""
    sums = np.zeros(len(norms))
    for b in range(len(starts) - 1):
        sums[:] = 0.0
        weight = 1.0
        for i in range(starts[b], min(starts[b + 1], starts[b] + most)):
            row = past[i]
            gain = weight * norms[row]
            for u in range(user_starts[row], user_starts[row + 1]):
                user = users[u]
                for r in range(row_starts[user], row_starts[user + 1]):
                    if rows[r] != row:
                        sums[rows[r]] += gain
            weight *= decay
        for row in range(len(norms)):
            out[b, row] = sums[row] * norms[row]
