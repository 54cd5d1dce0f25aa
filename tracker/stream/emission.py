"""Emission: which of a partition's users get a list now, and which are owed one."""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from tracker.events.batch import EventBatch
from tracker.kernels.row_bytes import owed_key, user_of

Positions = NDArray[np.int64]


class Owed(msgspec.Struct, array_like=True, gc=False):
    """The event that a list is still to come for; kept beside the states until it went out."""

    offset: int
    appended: float
    scene: str | None
    backlog: bool


class Notes(Protocol):
    """Where what is owed is kept, so that a crash does not lose it: a store."""

    def note(self, key: bytes, value: bytes | None) -> None:
        """Keep a small row, None to delete it."""


@dataclass(frozen=True, slots=True)
class Due:
    """A list that is due: the user, and the event it answers."""

    user: str
    owed: Owed


class Emission:
    """Decides by policy; keeps what is owed in memory and beside the states.

    Args:
        notes: keeps what is owed.
        min_interval_seconds: between two lists of a user; 0 for none.
        max_event_age_seconds: users of older events wait for the end of the backlog; None for no
            such wait.
    """

    def __init__(
        self, notes: Notes, min_interval_seconds: float, max_event_age_seconds: float | None
    ) -> None:
        self._notes = notes
        self._interval = min_interval_seconds
        self._max_age = max_event_age_seconds
        self._trailing: dict[str, tuple[float, Owed]] = {}
        self._queue: list[tuple[float, str]] = []  # a heap; entries of lists sent since are stale
        self._backlog: dict[str, Owed] = {}

    def __len__(self) -> int:
        """Return the number of users who are owed a list."""
        return len(self._trailing) + len(self._backlog)

    def restore(self, rows: Iterable[tuple[bytes, bytes]], now: float) -> None:
        """Take back what a former run owed."""
        for key, value in rows:
            user = user_of(key)
            owed = msgspec.json.decode(value, type=Owed)
            if owed.backlog:
                self._backlog[user] = owed
            else:
                self._schedule(user, now, owed)

    def choose(
        self,
        batch: EventBatch,
        positions: Positions,
        emitted_at: NDArray[np.float64],
        scenes: Sequence[str | None],
        now: float,
    ) -> Positions:
        """Tell which users get their list now; the others are owed one.

        Args:
            batch: of events.
            positions: (B,) one event a user in the batch, the latest.
            emitted_at: (B,) when each user got the last list, 0 for never.
            scenes: (B,) names.
            now: wall time, seconds.

        Returns:
            those of the positions whose users get a list.
        """
        waits = np.zeros(len(positions), np.bool_)
        old = waits
        if self._max_age is not None:
            old = batch.times[positions] < now - self._max_age
            waits = old
        if self._interval:
            waits = waits | (emitted_at + self._interval > now)
        if waits.any():
            for at in np.flatnonzero(waits).tolist():
                position = int(positions[at])
                owed = Owed(
                    int(batch.offsets[position]),
                    float(batch.appended[position]),
                    scenes[at],
                    bool(old[at]),
                )
                self._owe(batch.users[position], owed, float(emitted_at[at]) + self._interval)
        return positions[~waits]

    def sent(self, users: Iterable[str]) -> None:
        """Say that users have the list they were owed, if they were."""
        if not self._trailing and not self._backlog:
            return
        for user in users:
            was_trailing = self._trailing.pop(user, None) is not None
            was_backlog = self._backlog.pop(user, None) is not None
            if was_trailing or was_backlog:
                self._notes.note(owed_key(user), None)

    def end_backlog(self, now: float) -> None:
        """Say that the old events are over: those who waited for that are due."""
        waiting, self._backlog = self._backlog, {}
        for user, owed in waiting.items():
            self._schedule(user, now, owed)

    def is_old(self, time: float, now: float) -> bool:
        """Tell whether an event of a time belongs to a backlog."""
        return self._max_age is not None and time < now - self._max_age

    @property
    def has_backlog(self) -> bool:
        """Whether users wait for the end of a backlog."""
        return bool(self._backlog)

    def due_at(self) -> float | None:
        """Return when the next list is due; None where none is."""
        while self._queue:
            due_at, user = self._queue[0]
            if self._is_scheduled(user, due_at):
                return due_at
            heapq.heappop(self._queue)
        return None

    def due(self, now: float, most: int) -> list[Due]:
        """Return lists that are due, at most so many; `sent` takes them off."""
        found: list[Due] = []
        kept: list[tuple[float, str]] = []
        while self._queue and self._queue[0][0] <= now and len(found) < most:
            due_at, user = entry = heapq.heappop(self._queue)
            if self._is_scheduled(user, due_at):
                kept.append(entry)
                found.append(Due(user, self._trailing[user][1]))
        for entry in kept:
            heapq.heappush(self._queue, entry)
        return found

    def _owe(self, user: str, owed: Owed, due_at: float) -> None:
        before = self._trailing.get(user)
        if before is not None:
            self._trailing[user] = (before[0], owed)
        elif owed.backlog or user in self._backlog:
            self._backlog[user] = owed
        else:
            self._schedule(user, due_at, owed)
        self._notes.note(owed_key(user), msgspec.json.encode(owed))

    def _schedule(self, user: str, due_at: float, owed: Owed) -> None:
        self._trailing[user] = (due_at, owed)
        heapq.heappush(self._queue, (due_at, user))

    def _is_scheduled(self, user: str, due_at: float) -> bool:
        entry = self._trailing.get(user)
        return entry is not None and entry[0] == due_at


def last_of_each(slots: NDArray[np.int64]) -> Positions:
    """Return the position of the last entry of each slot, in order of position.

    >>> last_of_each(np.array([5, 6, 5]))
    array([1, 2])
    """
    _, first_from_end = np.unique(slots[::-1], return_index=True)
    return np.sort(len(slots) - 1 - first_from_end)
