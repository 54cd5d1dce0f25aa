"""SearchMemory: the rows that an index found for the latest queries, by the queries' bytes."""

from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.items.vectors import Rows, Vectors
from tracker.kernels.arithmetic import copy_row
from tracker.kernels.native import native

Array = NDArray[Any]

MAX_BYTES = 32 << 20
"""Maximum size of a memory: 190,000 queries of 40 rows each."""

_WAYS = 4
"""Places of a set: their keys are one line of the processor's cache."""


class _Table(NamedTuple):
    """Sets of places: a query's key says in which set it is.

    `keys` (S, 4, 2) uint64, 0 for a free place; `rows` (S, 4, K) int32 of each place; `oldest` (S,)
    uint8, the place of each set that is taken next.
    """

    keys: Array
    rows: Array
    oldest: Array


class SearchMemory:
    """The rows found for the latest queries, exactly as they were found.

    An index never changes, so what it found for a query stays true. A query is known by 127 bits
    of hash over its bytes. Where a set is full, its oldest query is dropped. All rows have one
    length: that of the first search.

    Many threads may use it at once. They take turns, but not while they search.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._turn = Lock()
        self._table: _Table | None = None  # that of the first search's k

    def find(self, queries: Vectors, k: int) -> tuple[Array, Rows, NDArray[np.int64]]:
        """Find the rows of queries.

        Args:
            queries: (B, D) float32.
            k: rows wanted.

        Returns:
            keys (B, 2) uint64, for `keep`; rows (B, K) int64, still to be filled where the query is
            not known; the queries that are not, (M,) int64 places in the batch.
        """
        keys = np.empty((len(queries), 2), np.uint64)
        rows = np.empty((len(queries), k), np.int64)
        unknown = np.arange(len(queries))
        _hash_queries(np.ascontiguousarray(queries, np.float32).view(np.uint32), keys)
        with self._turn:
            if self._table is None:
                self._table = _empty_table(k, self._max_bytes)
            if self._table.rows.shape[2] == k:
                unknown = unknown[: _find_rows(self._table, keys, rows, unknown)]
        return keys, rows, unknown

    def keep(self, keys: Array, rows: Rows, unknown: NDArray[np.int64]) -> None:
        """Keep the rows of queries that `find` did not know, and that are filled by now.

        Args:
            keys: as `find` gave them.
            rows: (B, K) int64 below 2^31; not kept if K is not that of the memory.
            unknown: as `find` gave them.
        """
        with self._turn:
            if self._table is not None and self._table.rows.shape[2] == rows.shape[1]:
                _keep_rows(self._table, keys, rows, unknown)


def _empty_table(k: int, max_bytes: int) -> _Table:
    """Return a table without queries; the system gives its memory as it fills."""
    sets = max(1, max_bytes // (_WAYS * (16 + 4 * k) + 1))
    return _Table(
        np.zeros((sets, _WAYS, 2), np.uint64),
        np.empty((sets, _WAYS, k), np.int32),
        np.zeros(sets, np.uint8),
    )


@native
def _hash_queries(words: Array, keys: Array) -> None:
    """Fill the keys (B, 2) of queries (B, D), as uint32: two lanes of multiplications; never 0."""
    half = np.uint64(32)
    first_prime, second_prime = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC4CEB9FE1A85EC53)
    for b in range(words.shape[0]):
        first, second = second_prime, first_prime
        for d in range(words.shape[1]):
            word = np.uint64(words[b, d])
            first = (first ^ word) * first_prime
            second = (second ^ word) * second_prime
            first ^= first >> half
            second ^= second >> half
        keys[b, 0] = first
        keys[b, 1] = second | np.uint64(1)


@native
def _set_of(keys: Array, query: int, sets: int) -> np.int64:
    """Return the set of a query: the upper half of its key, scaled to the number of sets."""
    half = np.uint64(32)
    return np.int64(((keys[query, 0] >> half) * np.uint64(sets)) >> half)


@native
def _way_of(table: _Table, place: np.int64, keys: Array, query: int) -> int:
    """Return the place of a query in its set, -1 if it is not there."""
    for way in range(_WAYS):
        if (
            table.keys[place, way, 0] == keys[query, 0]
            and table.keys[place, way, 1] == keys[query, 1]
        ):
            return way
    return -1


@native
def _find_rows(table: _Table, keys: Array, rows: Array, unknown: Array) -> int:
    """Fill the rows of queries that are known; return how many are not, and which in `unknown`."""
    count = 0
    for query in range(keys.shape[0]):
        place = _set_of(keys, query, table.oldest.shape[0])
        way = _way_of(table, place, keys, query)
        if way < 0:
            unknown[count] = query
            count += 1
        else:
            copy_row(rows[query], table.rows[place, way])
    return count


@native
def _keep_rows(table: _Table, keys: Array, rows: Array, unknown: Array) -> None:
    """Put queries in the oldest places of their sets, unless they are there by now."""
    for i in range(unknown.shape[0]):
        query = unknown[i]
        place = _set_of(keys, query, table.oldest.shape[0])
        if _way_of(table, place, keys, query) >= 0:
            continue  # twice in a batch, or searched for by another thread as well
        way = np.int64(table.oldest[place])
        table.oldest[place] = (way + 1) % _WAYS
        table.keys[place, way, 0] = keys[query, 0]
        table.keys[place, way, 1] = keys[query, 1]
        copy_row(table.rows[place, way], rows[query])
