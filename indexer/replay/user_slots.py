"""UserSlots: the arena slots of a log's users; those of users who are gone go to new ones."""

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import EventLog
from tracker.users.rows import UserRows

Slots = NDArray[np.int64]

AT_LEAST = 16_384
"""Slots in use before the first is used again: releasing few is not worth its time."""


class UserSlots:
    """The slot of each user of a log.

    A row takes about 4 KiB, so that the rows of all users of a long log take more memory than all
    else. Most users of a long log are gone at any time, or have not come yet: with `reused` only
    those in between have a row. Memory is taken from the system when a row is first written.

    Args:
        log: the events.
        rows: the arena, which has a row for each user.
        reused: users without further events give up their slots; else a user's slot is the
            position in `log.user_ids`.
    """

    def __init__(self, log: EventLog, rows: UserRows, reused: bool) -> None:
        self._rows = rows
        count = max(1, len(log.user_ids))
        rows.grow(count)
        self._slots = np.full(count, -1) if reused else np.arange(count)
        self.used = 0 if reused else count
        self._free: list[int] = []
        last = np.full(count, -1)
        last[log.users] = np.arange(len(log))  # of equal places the last value stays
        self._by_end = np.argsort(last, kind="stable")
        self._ends, self._released = last[self._by_end], 0

    def of(self, users: NDArray[np.int64], position: int) -> Slots:
        """Return the slots of users (B,), empty ones for those who have none yet.

        Args:
            users: positions in `log.user_ids`.
            position: in the log; the events before it are applied.
        """
        slots = self._slots[users]
        if (slots >= 0).all():
            return slots
        for user in np.unique(users[slots < 0]).tolist():
            if not self._free and self.used >= AT_LEAST:
                self._release(position)
            if self._free:
                self._slots[user] = self._free.pop()
            else:
                self._slots[user] = self.used
                self.used += 1
        return self._slots[users]

    def present(self) -> NDArray[np.int64]:
        """Return the users who have a slot, positions in `log.user_ids`, ascending."""
        return np.flatnonzero(self._slots >= 0)

    def _release(self, position: int) -> None:
        """Empty the rows of users whose last event is before a position."""
        until = int(np.searchsorted(self._ends, position))
        users = self._by_end[self._released : until]
        users = users[self._slots[users] >= 0]
        self._released = until
        self._rows.erase(self._slots[users])
        self._free = self._slots[users].tolist()
        self._slots[users] = -1
