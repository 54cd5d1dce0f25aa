"""Rows of users: the arrays of one partition, and a batch of requests that selects from them.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.row_bytes import (
    SEEN_PREFIX,
    USER_PREFIX,
    Get,
    Slots,
    readable_rows,
    seen_key,
    user_key,
)
from tracker.users.columns import RequestColumns
from tracker.users.config import InterestConfig
from tracker.users.layout import FORMAT
from tracker.users.seen import FORMAT as SEEN_FORMAT
from tracker.users.seen import SeenFormatError, SeenSets
from tracker.users.states import ANY_ARTIFACT, StateFormatError, UserStates

OnUnreadable = Callable[[bytes, bytes, str], object]
"""Receives the key of a row that cannot be read, its bytes, and why."""


class UserRows:
    """The users' arrays of one partition, and their rows: the state, and what was seen long ago.

    `newest` is the number of the newest artifact that rows to be loaded may name. `on_unreadable`
    is called with each row that was loaded as an empty one, and `on_damaged` before with the keys
    of those that are damaged: it may raise, and nothing is loaded.

    Args:
        config: of the artifact.
        most: rows up to which growth copies nothing.
        states: those there are already; by default none.
    """

    def __init__(
        self, config: InterestConfig, most: int = 0, states: UserStates | None = None
    ) -> None:
        self.on_unreadable: OnUnreadable = lambda key, row, problem: None
        self.on_damaged: Callable[[list[bytes]], object] = lambda keys: None
        self.newest = ANY_ARTIFACT
        self.states = UserStates(config, 0, most=most) if states is None else states
        self.seen = SeenSets(config, 0)
        self.seen_slots = np.full(self.states.capacity, -1, np.int64)
        self._seen_kept = np.zeros(
            self.states.capacity, np.int64
        )  # `evicted` of each user as the seen row was kept
        self._emptied: set[int] = set()  # slots of users who joined others since the last `dump`

    @classmethod
    def of(cls, states: UserStates) -> "UserRows":
        """Return rows with these states and empty seen sets."""
        return cls(states.config, states=states)

    def copy_row(self, slot: int) -> "UserRows":
        """Return one row as the only one, at slot 0, which later events do not change."""
        rows = UserRows.of(self.states.copy_rows(slice(slot, slot + 1)))
        rows.newest = self.newest
        seen = int(self.seen_slots[slot])
        if seen >= 0:
            rows.seen = self.seen.copy_row(seen)
            rows.seen_slots[0] = 0
        return rows

    def put_rows(self, start: int, rows: "UserRows", slots: Slots) -> None:
        """Copy B rows of the same layout into those from `start` on, to be read."""
        places = slice(start, start + len(slots))
        self.states.put_rows(start, rows.states, slots)
        self.seen_slots[places] = -1
        seen = rows.seen_slots[slots]
        (long,) = (seen >= 0).nonzero()
        if len(long):
            self.seen_slots[start + long] = start + long
            self.seen.grow(self.states.capacity)
            for name in ("bits", "counts", "active"):
                getattr(self.seen, name)[start + long] = getattr(rows.seen, name)[seen[long]]

    def follow(self, config: InterestConfig, hidden: int, newest: int) -> None:
        """Follow another artifact, before rows are loaded for it.

        Args:
            config: of the artifact; rows have the same layout under the one before.
            hidden: width of the user encoder's state.
            newest: number of the newest artifact that rows to be loaded may name.
        """
        self.states.config = config
        self.seen.config = config
        self.states.set_hidden(hidden)
        self.newest = newest

    def grow(self, rows: int) -> None:
        """Grow to at least this number of rows."""
        more = rows - len(self.seen_slots)
        self.states.grow(rows)
        self.seen_slots = np.r_[self.seen_slots, np.full(more, -1, np.int64)]
        self._seen_kept = np.r_[self._seen_kept, np.zeros(more, np.int64)]

    def clear(self, slots: Slots) -> None:
        """Release the users' seen sets; `load` fills the states again."""
        self.seen.release(self.seen_slots[slots])
        self.seen_slots[slots] = -1

    def forget(self, slot: int) -> None:
        """Empty the row of a user whose state has joined another's; the slot stays the user's.

        It is written after all others: without transactions a commit may be cut off, and what has
        joined must not be gone before the row that it has joined is there.
        """
        self.clear(np.array([slot]))
        self.states.clear(np.array([slot]))
        self._seen_kept[slot] = 0
        self._emptied.add(slot)

    def load(self, keys: Sequence[str], slots: Slots, get: Get) -> None:
        """Read states, and seen rows of users who have one; a row that is damaged is empty.

        Raises:
            NewerArtifactError: a state names an artifact after `newest`; nothing has changed.
            NewerRowError: a newer version wrote a row; nothing has changed.
        """
        names = [key.encode() for key in keys]
        row_keys = [USER_PREFIX + name for name in names]
        rows = get(row_keys)
        try:
            self.states.unpack(slots, rows, self.newest)
        except StateFormatError:
            rows = readable_rows(
                row_keys, rows, self.states.problem_of, FORMAT, self.on_damaged, self.on_unreadable
            )
            self.states.unpack(slots, rows, self.newest)
        evicted = self.states.head["evicted"][slots]
        self._seen_kept[slots] = evicted
        long = np.flatnonzero(evicted)
        if len(long):
            row_keys = [SEEN_PREFIX + names[at] for at in long.tolist()]
            rows = get(row_keys)
            seen_slots = self.seen.allocate(len(long))
            self.seen_slots[slots[long]] = seen_slots  # before a row is refused: `clear` frees them
            try:
                self.seen.unpack(seen_slots, rows)
            except SeenFormatError:
                rows = readable_rows(
                    row_keys, rows, self.seen.problem_of, SEEN_FORMAT,
                    self.on_damaged, self.on_unreadable,
                )  # fmt: skip
                self.seen.unpack(seen_slots, rows)
                self._seen_kept[slots[long]] = -1  # the empty ones are written with their users

    def dump(self, keys: Sequence[str], slots: Slots) -> list[tuple[bytes, bytes | None]]:
        """Pack states, and seen rows that have changed; those that `forget` emptied are last.

        Rows that `erase` emptied are deleted.
        """
        empty = self.is_empty(slots)
        rows: list[tuple[bytes, bytes | None]] = [
            (user_key(key), None if is_empty else row)
            for key, row, is_empty in zip(
                keys, self.states.pack(slots), empty.tolist(), strict=True
            )
        ]
        evicted = self.states.head["evicted"][slots]
        has_seen = self.seen_slots[slots] >= 0
        changed = np.flatnonzero((evicted != self._seen_kept[slots]) & has_seen)
        if len(changed):
            packed = self.seen.pack(self.seen_slots[slots[changed]])
            self._seen_kept[slots[changed]] = evicted[changed]
            rows.extend(
                (seen_key(keys[at]), row) for at, row in zip(changed.tolist(), packed, strict=True)
            )
        if self._emptied:
            places = np.flatnonzero(np.isin(slots, list(self._emptied))).tolist()
            self._emptied.clear()
            last = [rows[place] for place in places] + [(seen_key(keys[at]), None) for at in places]
            rows = [row for place, row in enumerate(rows) if place not in set(places)] + last
        return rows

    def erase(self, slots: Slots) -> None:
        """Empty rows, their seen sets too: the next snapshot deletes them unless events come."""
        self.clear(slots)
        self.states.clear(slots)
        self._seen_kept[slots] = 0
        self._emptied.difference_update(slots.tolist())

    def is_empty(self, slots: Slots) -> NDArray[np.bool_]:
        """Return which rows hold nothing at all, not even the offset of a record."""
        head = self.states.head[slots]
        is_empty: NDArray[np.bool_] = (head["last_offset"] < 0) & (head["n_ring"] == 0)
        is_empty &= (head["n_pending"] == 0) & (head["evicted"] == 0)
        return is_empty

    def last_times(self, rows: list[bytes]) -> NDArray[np.float64]:
        """Return the time of the latest event of rows; infinity for those that cannot be read."""
        states = UserStates(self.states.config, len(rows))
        unreadable = np.zeros(len(rows), np.bool_)
        slots = np.arange(len(rows))
        try:
            states.unpack(slots, rows)
        except StateFormatError:
            unreadable[:] = [states.problem_of(row) is not None for row in rows]
            readable = [
                None if bad else row for row, bad in zip(rows, unreadable.tolist(), strict=True)
            ]
            states.unpack(slots, readable)
        return np.where(unreadable, np.inf, states.head["last_time"])

    def restore(self, slots: Slots) -> None:
        """Mark seen sets as changed again after a failed commit."""
        self._seen_kept[slots] = -1


@dataclass(frozen=True, slots=True)
class RequestBatch:
    """A batch of recommendation requests: B users, each at a time and in a scene.

    Answering reads the users' rows. It writes only rows of another artifact, which are carried
    over first.

    Args:
        users: rows of the partition.
        slots: (B,) int64 slots in `users`, may repeat; -1 for a user without a state.
        now: (B,) float64, seconds.
        scenes: (B,) uint32 scene codes, 0 for none.
        hashes: (B,) uint64 hashes of the users' ids, for their attributes; None for none.

    Raises:
        ValueError: lengths differ.
    """

    users: UserRows
    slots: NDArray[np.int64]
    now: NDArray[np.float64]
    scenes: NDArray[np.uint32]
    hashes: NDArray[np.uint64] | None = None

    def __post_init__(self) -> None:
        """Check the lengths."""
        if not len(self.slots) == len(self.now) == len(self.scenes):
            raise ValueError(
                f"{len(self.slots)} slots, {len(self.now)} times and {len(self.scenes)} scenes;"
                " one of each per user is expected"
            )

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self.slots)

    @property
    def states(self) -> UserStates:
        """The arena of the `slots`."""
        return self.users.states

    @property
    def latest(self) -> float:
        """The latest time, in seconds; 0 without users."""
        return max(self.now.tolist(), default=0.0)

    @property
    def columns(self) -> RequestColumns:
        """The users as kernels take them."""
        return RequestColumns(self.now, self.slots, self.scenes)

    def part(self, which: slice) -> "RequestBatch":
        """Return some of the users."""
        return replace(
            self,
            slots=self.slots[which],
            now=self.now[which],
            scenes=self.scenes[which],
            hashes=None if self.hashes is None else self.hashes[which],
        )
