"""What the tracker is compared with: simple recommenders, asked at the same events in one replay.

Each scores all N rows of the catalogue for one user, from the rows of the user's past events
(latest first) and the time. Those that learn from the stream do it by `add`, event by event; those
which are fitted once are made from the training part and then left alone. Items of no score share
the lowest one: ties count half. Retractions and unknown items are not passed on to them.
"""

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tracker.native import native

Array = NDArray[Any]
Scores = NDArray[np.float32]
Rows = NDArray[np.int64]

RECENT_EVENTS = 30
"""Past events that the baselines look at; .6 ** 30 is 2e-7."""

EVENT_DECAY = 0.6
"""Weight of an event against the next one, for item-kNN and EASE."""

CONTENT_DECAY = 0.8
"""Weight of an event against the next one, for the content channel."""

SHRINKAGE = 5.0
"""Added to an item's count in the cosine of item-kNN, so that a few events prove little."""

MAX_USERS = 1000
"""Item-kNN looks at the latest so many users of an item."""

REGULARISATION = 300.0
"""L2 weight of EASE."""

_RENORMALISE_HALF_LIVES = 500.0


class Baseline(Protocol):
    """A recommender that can be asked at any event."""

    name: str

    def add(self, row: int, time: float) -> None:
        """Learn from one event, after it was asked for."""
        ...

    def scores(self, past: Rows, time: float) -> Scores:
        """Return (N,) float32 scores, finite, higher is better.

        Args:
            past: rows of the user's past events, latest first.
            time: float seconds, now.
        """
        ...


class Popularity:
    """The number of training events of each item, frozen."""

    name = "popularity"

    def __init__(self, rows: Rows, items: int) -> None:
        self._counts = np.bincount(rows, minlength=items).astype(np.float32)

    def add(self, row: int, time: float) -> None:
        """Learn nothing."""

    def scores(self, past: Rows, time: float) -> Scores:
        """Return the counts."""
        return self._counts


class DecayedPopularity:
    """The decayed number of events of each item, from the stream alone.

    Counts are kept forward-decayed, relative to a landmark in time, so that an event costs one
    addition; the landmark moves on before the numbers grow too large.
    """

    name = "decayed_popularity"

    def __init__(self, items: int, half_life_seconds: float = 86400.0) -> None:
        self._counts = np.zeros(items, np.float64)
        self._half_life_seconds = half_life_seconds
        self._landmark = math.nan

    def add(self, row: int, time: float) -> None:
        """Count one event; a late one counts what decay leaves of it."""
        if math.isnan(self._landmark):
            self._landmark = time
        half_lives = (time - self._landmark) / self._half_life_seconds
        if half_lives > _RENORMALISE_HALF_LIVES:
            self._counts *= 2.0 ** -min(half_lives, 2000.0)
            self._landmark, half_lives = time, 0.0
        self._counts[row] += 2.0 ** max(half_lives, -2000.0)

    def scores(self, past: Rows, time: float) -> Scores:
        """Return log2 of the counts; the moment changes all alike and is left out."""
        with np.errstate(divide="ignore"):
            logarithms = np.maximum(np.log2(self._counts), -1e6)
        return np.asarray(logarithms, np.float32)


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
        kept = latest[np.sort(first)]
        self._users_of = _Lists(rows[kept], users[kept], items, MAX_USERS)
        count = int(users.max()) + 1 if len(users) else 0
        self._rows_of = _Lists(users[kept], rows[kept], count, len(rows))
        counts = np.bincount(rows[kept], minlength=items)
        self._norms = 1.0 / np.sqrt(counts + SHRINKAGE)

    def add(self, row: int, time: float) -> None:
        """Learn nothing."""

    def scores(self, past: Rows, time: float) -> Scores:
        """Return the sums."""
        out = np.zeros(len(self._norms), np.float64)
        _sum_neighbours(
            past[:RECENT_EVENTS], EVENT_DECAY, self._norms,
            self._users_of.starts, self._users_of.values,
            self._rows_of.starts, self._rows_of.values, out,
        )  # fmt: skip
        return np.asarray(out * self._norms, np.float32)


class Ease:
    """EASE on the training part, frozen: a linear item-to-item model in closed form.

    Source: Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data". The past is weighed
    .6 an event. Only items with training events are in the matrix; the others share the score 0.

    Raises:
        MemoryError: the matrices do not fit; `bytes_needed` says what they take.
    """

    name = "ease"

    def __init__(
        self,
        users: NDArray[np.int64],
        rows: Rows,
        items: int,
        memory_bytes: int,
        regularisation: float = REGULARISATION,
    ) -> None:
        known, codes = np.unique(rows, return_inverse=True)
        needed = self.bytes_needed(len(known))
        if needed > memory_bytes:
            raise MemoryError(
                f"EASE over {len(known):,} items takes {needed >> 20:,} MiB;"
                f" {memory_bytes >> 20:,} MiB are free for it"
            )
        self._rows = known
        self._codes = np.full(items, -1, np.int64)
        self._codes[known] = np.arange(len(known))
        gram = np.zeros((len(known), len(known)), np.float64)
        order = np.argsort(users, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(users[order]) != 0]) if len(order) else order
        for part in np.split(order, starts[1:]):
            chosen = np.unique(codes[part])
            gram[np.ix_(chosen, chosen)] += 1.0
        gram[np.diag_indices(len(known))] += regularisation
        inverse = np.linalg.inv(gram)
        weights = inverse / -np.diag(inverse)
        np.fill_diagonal(weights, 0.0)
        self._weights = weights.astype(np.float32)

    @staticmethod
    def bytes_needed(items: int) -> int:
        """Return the most memory that fitting takes: four matrices of doubles at once."""
        return 4 * 8 * items * items

    def add(self, row: int, time: float) -> None:
        """Learn nothing."""

    def scores(self, past: Rows, time: float) -> Scores:
        """Return the weighed sum of the past items' rows of the matrix."""
        out = np.zeros(len(self._codes), np.float32)
        codes = self._codes[past[:RECENT_EVENTS]]
        weights = EVENT_DECAY ** np.arange(len(codes), dtype=np.float32)
        there = codes >= 0
        if there.any():
            out[self._rows] = weights[there] @ self._weights[codes[there]]
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

    def add(self, row: int, time: float) -> None:
        """Learn nothing."""

    def scores(self, past: Rows, time: float) -> Scores:
        """Return inner products with the sum; its length changes all alike."""
        recent = past[: self._events]
        weights = CONTENT_DECAY ** np.arange(len(recent), dtype=np.float32)
        return np.asarray(self._vectors @ (weights @ self._vectors[recent]), np.float32)


class OwnFrequent:
    """The user's own items, by how often they chose them; the later one first where that ties."""

    name = "own_frequent"

    def __init__(self, items: int) -> None:
        self._items = items

    def add(self, row: int, time: float) -> None:
        """Learn nothing: the past says it all."""

    def scores(self, past: Rows, time: float) -> Scores:
        """Return counts plus up to a half for recency."""
        out = np.bincount(past, minlength=self._items).astype(np.float64)
        rows, first = np.unique(past, return_index=True)
        out[rows] += 0.5 / (1.0 + first)
        return np.asarray(out, np.float32)


class _Lists:
    """Values grouped by key, in the order given, at most `limit` a key: starts and values."""

    def __init__(self, keys: Rows, values: Rows, count: int, limit: int) -> None:
        order = np.argsort(keys, kind="stable")
        sizes = np.bincount(keys, minlength=count)
        offsets = np.cumsum(sizes) - sizes
        place = np.arange(len(keys)) - offsets[keys[order]]
        order = order[place < limit]
        self.values = values[order].astype(np.int32)
        self.starts = np.r_[0, np.cumsum(np.minimum(sizes, limit))]


@native
def _sum_neighbours(
    past: Array, decay: float, norms: Array, user_starts: Array, users: Array,
    row_starts: Array, rows: Array, out: Array,
) -> None:  # fmt: skip
    """Add to `out` what the users of each past row chose, weighed by recency; not that row."""
    weight = 1.0
    for row in past:
        gain = weight * norms[row]
        for u in range(user_starts[row], user_starts[row + 1]):
            user = users[u]
            for r in range(row_starts[user], row_starts[user + 1]):
                if rows[r] != row:
                    out[rows[r]] += gain
        weight *= decay
