"""UserLookup: copies of users' rows and of a partition's state, for those who only read."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tracker.kernels.row_bytes import ASIDE_PREFIX, user_key
from tracker.recommend.options import LearnedModels
from tracker.store.partition_store import PartitionStore
from tracker.stream.partition_learning import PartitionLearning
from tracker.stream.serving import Context, Serving
from tracker.users.rows import UserRows

LATEST_USERS = 200
"""Users of the latest events that are remembered, for people who look."""


@dataclass(frozen=True, slots=True)
class FoundUser:
    """A copy of a user's row, which later events do not change; see `UserLookup.find`.

    Attributes:
        rows: arrays of this user alone.
        slot: slot of the user in them, 0; -1 for a user of whom nothing is kept.
        now: latest event time that the partition or the user has seen, in seconds; not much past
            the worker's clock.
        set_aside: whether this copy shows that a row of the user cannot be read;
            `UserLookup.is_set_aside` knows of those that were set aside before, too.
    """

    rows: UserRows
    slot: int
    now: float
    set_aside: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """The state of a partition between two chunks, without its rows.

    Attributes:
        serving: artifact in use.
        learned: copies of the models learned online.
        offset: offset of the next event to apply.
        now: stream time, and the wall time since the last chunk: seconds.
        newest: number of the newest artifact that states may name.
        scene_names: names by code of the scenes that came since the partition was opened.
    """

    serving: Serving
    learned: LearnedModels
    offset: int
    now: float
    newest: int
    scene_names: Mapping[int, str]


class UserLookup:
    """Copies what a partition keeps of its users, and changes nothing of it.

    Nothing is loaded or written, so that reads neither crowd users out of memory nor cost a commit.
    Where it is not said otherwise, a call is made between two chunks.

    Args:
        context: what the partitions of a worker share.
        rows: the users' arrays.
        store: caches and commits those rows.
        learning: the models that the partition learns.
        scene_names: names by code of the scenes that came; it changes.
        emptied: forgotten users whose empty rows are still in memory; it changes.
        aside: keys of rows that were set aside and are not committed yet; it changes.

    Attributes:
        scene_names: names by code of the scenes that came since the partition was opened.
    """

    def __init__(
        self,
        context: Context,
        rows: UserRows,
        store: PartitionStore[str],
        learning: PartitionLearning,
        scene_names: Mapping[int, str],
        emptied: set[str],
        aside: set[bytes],
    ) -> None:
        self._context = context
        self._rows = rows
        self._store = store
        self._learning = learning
        self.scene_names = scene_names
        self._emptied = emptied
        self._aside = aside
        self._latest: deque[str] = deque(maxlen=LATEST_USERS)
        self._moved_at = context.clock()  # wall time of the last chunk

    def moved(self, users: Sequence[str], now: float) -> None:
        """Note the users of a chunk that was applied, and the wall time of it in seconds."""
        self._moved_at = now
        self._latest.extend(users[-LATEST_USERS:])

    def forget(self, user: str) -> None:
        """Leave a user out of the latest ones."""
        self._latest = deque((name for name in self._latest if name != user), LATEST_USERS)

    def find(self, user: str) -> FoundUser | None:
        """Copy a user's row from memory, or else as of the last commit; None if nothing is kept.

        A row that is only in the database has not changed since.

        Raises:
            NewerArtifactError: the row was written with a newer artifact.
            NewerRowError: a newer version wrote the row.
        """
        copy = self.cached(user)
        return self.stored(user) if copy is None else copy

    def cached(self, user: str) -> FoundUser | None:
        """Copy the row of a user who is in memory; None for another."""
        slot = self._store.arena.slot(user)
        if slot < 0 or (user in self._emptied and self._rows.is_empty(np.array([slot]))[0]):
            return None
        return self._found(self._rows.copy_row(slot), user_key(user) in self._aside)

    def stored(self, user: str) -> FoundUser | None:
        """Read the row of a user as of the last commit; None if there is none.

        Any thread may call it, while chunks are processed.

        Raises:
            NewerArtifactError, NewerRowError: as `find`.
        """
        if user in self._emptied:  # forgotten, and perhaps not yet committed
            return None
        key = user_key(user)
        row, aside = self._store.read([key, ASIDE_PREFIX + key])
        if row is None and aside is None:
            return None
        unreadable: list[str] = []
        rows = self._empty_rows()
        rows.on_unreadable = lambda key, row, problem: unreadable.append(problem)
        rows.load([user], np.zeros(1, np.int64), self._store.read)
        return self._found(rows, aside is not None or bool(unreadable))

    def new(self) -> FoundUser:
        """Return what stands for a user of whom nothing is kept."""
        return FoundUser(self._empty_rows(), -1, self._store.progress.stream_time)

    def is_set_aside(self, user: str) -> bool:
        """Return whether a row of a user was set aside; any thread may ask."""
        key = user_key(user)
        return key in self._aside or self._store.read([ASIDE_PREFIX + key]) != [None]

    def last_offset(self, user: str) -> int:
        """Return the offset of the latest record of a user in memory; -1 for none."""
        slot = self._store.arena.slot(user)
        return int(self._rows.states.head["last_offset"][slot]) if slot >= 0 else -1

    def latest(self) -> list[tuple[str, float]]:
        """Return the users of the latest events, and the times of these; the latest first."""
        times: dict[str, float] = {}
        for user in reversed(self._latest):
            slot = self._store.arena.slot(user)
            if slot >= 0:
                times.setdefault(user, float(self._rows.states.head["last_time"][slot]))
        return list(times.items())

    def moment(self) -> Moment:
        """Copy what lists are made of besides rows."""
        serving = self._context.serving_for(self._rows)
        learned = self._learning.learned(serving).copy()
        progress = self._store.progress
        now = progress.stream_time + max(self._context.clock() - self._moved_at, 0.0)
        return Moment(
            serving,
            learned,
            progress.position,
            min(now, self._context.latest_time),
            self._context.keeper.newest,
            self.scene_names,
        )

    def _found(self, rows: UserRows, set_aside: bool) -> FoundUser:
        now = max(self._store.progress.stream_time, float(rows.states.head["last_time"][0]))
        return FoundUser(rows, 0, min(now, self._context.latest_time), set_aside)

    def _empty_rows(self) -> UserRows:
        """Return arrays with room for one user, for the artifact in use."""
        rows = UserRows(self._context.keeper.current.config)
        self._context.serving_for(rows)
        rows.grow(1)
        return rows
