"""IdleSweep: deletes the states that had no event for a given time."""

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tracker.store.partition_store import PartitionStore

Key = TypeVar("Key", bound=Hashable)

SWEEP_RECORDS = 500
"""Records checked with each commit; a million take half an hour at one commit per second."""


class IdleSweep(Generic[Key]):
    """Walks round and round through the records of a partition, a few with each commit.

    Args:
        store: states of the partition.
        prefix: first byte of their keys.
        idle_seconds: time without an event after which a state is deleted; None for never. It
            is counted from stream time, or from the clock if that is earlier.
        key_of: returns the store's key for a key of the database.
        last_times: returns the time of the latest event of each record, in seconds.
        last_time_at: returns the time of the latest event of a slot in memory, in seconds.
        more_keys: returns the keys of other records that belong to a state.
        at_once: records that are checked with each commit, by default SWEEP_RECORDS.
    """

    def __init__(
        self,
        store: PartitionStore[Any],
        prefix: bytes,
        idle_seconds: float | None,
        key_of: Callable[[bytes], Key],
        last_times: Callable[[list[bytes]], NDArray[np.float64]],
        last_time_at: Callable[[int], float],
        more_keys: Callable[[bytes], list[bytes]] = lambda key: [],
        at_once: int | None = None,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._idle_seconds = idle_seconds
        self._key_of = key_of
        self._last_times = last_times
        self._last_time_at = last_time_at
        self._more_keys = more_keys
        self._at_once = at_once
        self._cursor = b""

    def run(self, clock: float) -> int:
        """Delete the idle states among the next records with the coming commit; return how many.

        Args:
            clock: wall time, in seconds.
        """
        if self._idle_seconds is None:
            return 0
        limit = min(self._store.progress.stream_time, clock) - self._idle_seconds
        at_once = self._at_once or SWEEP_RECORDS
        records = self._store.scan(self._prefix, self._cursor, at_once)
        self._cursor = records[-1][0] + b"\0" if len(records) == at_once else b""
        if not records:
            return 0
        # NaN is the time of a row without any event: it is idle.
        idle = np.flatnonzero(~(self._last_times([value for _, value in records]) >= limit))
        deleted = 0
        arena = self._store.arena
        for index in idle.tolist():
            database_key = records[index][0]
            slot = arena.slot(self._key_of(database_key))
            if slot >= 0:
                if arena.dirty[slot] or arena.pinned[slot] or self._last_time_at(slot) >= limit:
                    continue  # an event came since the record was written
                arena.evict(np.array([slot]))
            for key in (database_key, *self._more_keys(database_key)):
                self._store.note(key, None)
            deleted += 1
        return deleted
