"""IdleSweep: deletes states that had no event for a stated time."""

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from tracker.store.partition_store import PartitionStore

Key = TypeVar("Key", bound=Hashable)

SWEEP_ROWS = 500
"""Rows looked at with each commit; a million rows take half an hour at one commit a second."""


class IdleSweep(Generic[Key]):
    """Walks through the rows of a partition, a few with each commit, round and round.

    Args:
        store: of the states.
        prefix: of their keys.
        idle_seconds: of stream time, after which a state is deleted; None for never.
        key_of: the store's key of a database key.
        last_times: reads rows, and gives the time of each one's latest event.
        last_time_at: gives the time of the latest event of a slot in memory.
        more_keys: database keys that go with a state's.
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
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._idle = idle_seconds
        self._key_of = key_of
        self._last_times = last_times
        self._last_time_at = last_time_at
        self._more_keys = more_keys
        self._cursor = b""

    def run(self) -> int:
        """Delete idle states among the next rows with the coming commit; return how many."""
        if self._idle is None:
            return 0
        before = self._store.row.stream_time - self._idle
        found = self._store.scan(self._prefix, self._cursor, SWEEP_ROWS)
        self._cursor = found[-1][0] + b"\0" if len(found) == SWEEP_ROWS else b""
        if not found:
            return 0
        idle = np.flatnonzero(self._last_times([row for _, row in found]) < before)
        deleted = 0
        arena = self._store.arena
        for at in idle.tolist():
            database_key = found[at][0]
            slot = arena.slot(self._key_of(database_key))
            if slot >= 0:
                if arena.dirty[slot] or arena.pinned[slot] or self._last_time_at(slot) >= before:
                    continue
                arena.forget(np.array([slot]))
            for key in (database_key, *self._more_keys(database_key)):
                self._store.note(key, None)
            deleted += 1
        return deleted
