"""EmitPolicy: which users of a partition get a list now, and whose list is postponed.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from tracker.events.batch import EventBatch
from tracker.kernels.row_bytes import owed_key, user_of
from tracker.store.owed import PendingList

Indices = NDArray[np.int64]
"""Places of events in a batch."""


class Notes(Protocol):
    """A store of small records, which are committed together with the states."""

    def note(self, key: bytes, value: bytes | None) -> None:
        """Put a small record into the next commit; a value of None deletes it."""


@dataclass(frozen=True, slots=True)
class DueList:
    """A pending list whose time has come, and its user."""

    user: str
    pending: PendingList


class EmitPolicy:
    """Decides which users get a list now, and remembers those whose list is postponed.

    A list is postponed if its user got one less than the interval ago, or if its event is older
    than the limit: then it waits until the backlog of old events is over. One list per user is
    pending, that of the latest event.

    Args:
        notes: stores the pending lists with the states.
        min_interval_seconds: minimum time between two lists of a user; 0 for no limit.
        max_event_age_seconds: age from which an event counts as backlog; None for no limit.
    """

    def __init__(
        self, notes: Notes, min_interval_seconds: float, max_event_age_seconds: float | None
    ) -> None:
        self._notes = notes
        self._interval = min_interval_seconds
        self._max_age = max_event_age_seconds
        self._scheduled: dict[str, tuple[float, PendingList]] = {}
        self._queue: list[tuple[float, str]] = []  # a heap; entries of lists sent since are stale
        self._backlog: dict[str, PendingList] = {}

    @property
    def pending(self) -> int:
        """Number of users whose list is postponed."""
        return len(self._scheduled) + len(self._backlog)

    def restore(
        self, records: Iterable[tuple[bytes, bytes]], now: float
    ) -> list[tuple[bytes, bytes]]:
        """Take over the pending lists of the partition's former owner; they are due at once.

        Returns:
            the records that cannot be read.
        """
        unreadable = []
        for key, value in records:
            user = user_of(key)
            try:
                pending = msgspec.json.decode(value, type=PendingList)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                unreadable.append((key, value))
                continue
            numbers = (pending.offset, pending.partition, pending.version)
            if owed_key(user) != key or not all(-1 <= number < 2**63 for number in numbers):
                unreadable.append((key, value))
                continue
            if pending.backlog:
                self._backlog[user] = pending
            else:
                self._schedule(user, now, pending)
        return unreadable

    def choose(
        self,
        batch: EventBatch,
        latest: Indices,
        emitted_at: NDArray[np.float64],
        scenes: Sequence[str | None],
        now: float,
        versions: NDArray[np.int64],
    ) -> Indices:
        """Return the events whose users get a list now; postpone the lists of the others.

        Args:
            batch: the events.
            latest: (B,) int64, the latest event of each user in the batch.
            emitted_at: (B,) float64, wall time of each user's last list, 0 for none; a time past
                now, by another worker's clock, counts as now.
            scenes: B names of the events' scenes.
            now: wall time, in seconds.
            versions: (N,) int64, versions of lists that answer the events.

        Returns:
            those of `latest` whose users get a list.
        """
        if self._max_age is None and not self._interval:
            return latest
        postponed = np.zeros(len(latest), np.bool_)
        old = postponed
        if self._max_age is not None:
            old = batch.times[latest] < now - self._max_age
            postponed = old
        if self._interval:
            emitted_at = np.minimum(emitted_at, now)
            postponed = postponed | (emitted_at + self._interval > now)
        for index in np.flatnonzero(postponed).tolist():
            event = int(latest[index])
            partition, offset = batch.origin(event)
            pending = PendingList(
                offset,
                float(batch.appended[event]),
                scenes[index],
                bool(old[index]),
                partition if batch.is_handed else -1,
                int(versions[event]),
            )
            self._postpone(batch.users[event], pending, float(emitted_at[index]) + self._interval)
        return latest[~postponed]

    def owe(
        self,
        batch: EventBatch,
        latest: Indices,
        scenes: Sequence[str | None],
        versions: NDArray[np.int64],
        now: float,
    ) -> None:
        """Postpone the lists of events; the arguments are those of `choose`."""
        for index, event in enumerate(latest.tolist()):
            partition, offset = batch.origin(event)
            pending = PendingList(
                offset,
                float(batch.appended[event]),
                scenes[index],
                False,
                partition if batch.is_handed else -1,
                int(versions[event]),
            )
            self._postpone(batch.users[event], pending, now)

    def mark_sent(self, users: Iterable[str]) -> None:
        """Clear the pending lists of users whose list was sent."""
        if not self._scheduled and not self._backlog:
            return
        for user in users:
            was_scheduled = self._scheduled.pop(user, None) is not None
            was_backlog = self._backlog.pop(user, None) is not None
            if was_scheduled or was_backlog:
                self._notes.note(owed_key(user), None)

    def forget(self, user: str) -> None:
        """Drop the pending list of a user."""
        self._scheduled.pop(user, None)
        self._backlog.pop(user, None)
        self._queue = [entry for entry in self._queue if entry[1] != user]
        heapq.heapify(self._queue)

    def end_backlog(self, now: float) -> None:
        """End the backlog of old events: the lists that waited for it are due."""
        backlog, self._backlog = self._backlog, {}
        for user, pending in backlog.items():
            self._schedule(user, now, pending)

    def is_old(self, time: float, now: float) -> bool:
        """Return whether an event of a time belongs to a backlog."""
        return self._max_age is not None and time < now - self._max_age

    @property
    def has_backlog(self) -> bool:
        """True if lists wait for the end of a backlog."""
        return bool(self._backlog)

    def due_at(self) -> float | None:
        """Return the wall time at which the next list is due; None if none is pending."""
        while self._queue:
            due_at, user = self._queue[0]
            if self._is_scheduled(user, due_at):
                return due_at
            heapq.heappop(self._queue)
        return None

    def due(self, now: float, most: int) -> list[DueList]:
        """Return up to `most` lists that are due; they stay pending until `mark_sent`."""
        lists: list[DueList] = []
        popped: list[tuple[float, str]] = []
        while self._queue and self._queue[0][0] <= now and len(lists) < most:
            due_at, user = entry = heapq.heappop(self._queue)
            if self._is_scheduled(user, due_at):
                popped.append(entry)
                lists.append(DueList(user, self._scheduled[user][1]))
        for entry in popped:
            heapq.heappush(self._queue, entry)
        return lists

    def _postpone(self, user: str, pending: PendingList, due_at: float) -> None:
        before = self._scheduled.get(user)
        if before is not None:
            self._scheduled[user] = (before[0], pending)
        elif pending.backlog or user in self._backlog:
            self._backlog[user] = pending
        else:
            self._schedule(user, due_at, pending)
        self._notes.note(owed_key(user), msgspec.json.encode(pending))

    def _schedule(self, user: str, due_at: float, pending: PendingList) -> None:
        self._scheduled[user] = (due_at, pending)
        heapq.heappush(self._queue, (due_at, user))

    def _is_scheduled(self, user: str, due_at: float) -> bool:
        entry = self._scheduled.get(user)
        return entry is not None and entry[0] == due_at


_FEW = 64
"""Entries up to which a dictionary is faster than sorting."""


def last_of_each(slots: NDArray[np.int64]) -> Indices:
    """Return the index of the last entry of each slot, in ascending order.

    >>> last_of_each(np.array([5, 6, 5]))
    array([1, 2])
    """
    if len(slots) <= _FEW:
        places = {slot: place for place, slot in enumerate(slots.tolist())}
        return np.array(sorted(places.values()), np.int64)
    _, first_from_end = np.unique(slots[::-1], return_index=True)
    return np.sort(len(slots) - 1 - first_from_end)
