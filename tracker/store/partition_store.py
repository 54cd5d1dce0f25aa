"""PartitionStore: the states of one partition; state and position in one commit."""

from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from tracker.explained import Explained
from tracker.kafka.outbox import Record
from tracker.kernels.row_bytes import POSITION_KEY, Get, Slots
from tracker.store.arena import Arena
from tracker.store.committer import Committer

Key = TypeVar("Key", bound=Hashable)

AnyKey = TypeVar("AnyKey", bound=Hashable, contravariant=True)

FORMAT = 1

RESET = "`tracker reset-state --everything` deletes the states"


class PositionError(Explained):
    """A position does not belong to the topic it is found beside."""


class Position(msgspec.Struct):
    """The row that says up to where the source is in the state.

    `position` is the offset of the next event to apply, `stream_time` the latest event time,
    `sources` the last offset applied of each partition of the users' topic (items only).
    """

    format: int
    position: int
    topic: str
    topic_id: str
    partitions: int
    stream_time: float = 0.0
    sources: dict[int, int] = msgspec.field(default_factory=dict)


class StateRows(Protocol[AnyKey]):
    """The arrays behind a store, and how their rows are kept."""

    def grow(self, rows: int) -> None:
        """Have at least so many rows."""

    def clear(self, slots: Slots) -> None:
        """Forget rows."""

    def load(self, keys: Sequence[AnyKey], slots: Slots, get: Get) -> None:
        """Fill slots from the database; what is not there is an empty row."""

    def dump(self, keys: Sequence[AnyKey], slots: Slots) -> list[tuple[bytes, bytes | None]]:
        """Give the rows to keep, None to delete."""

    def restore(self, slots: Slots) -> None:
        """Give them again at the next `dump`: their commit failed."""


@dataclass(slots=True)
class Snapshot:
    """What one commit writes: a copy, so that the next chunk can go on."""

    position: int
    rows: list[tuple[bytes, bytes | None]]
    slots: Slots
    notes: dict[bytes, bytes | None] = field(default_factory=dict)


class PartitionStore(Generic[Key]):
    """Keeps the states of one partition in memory, and commits them with the position.

    All methods but `commit` are for the one who processes the partition, one call at a time.
    `commit` may run beside the next chunk; `settle` tells the arena what became of it.

    Args:
        database: RocksDB of the table's partition.
        committer: of the partition.
        rows: the arrays.
        capacity: rows in memory at most.
    """

    def __init__(
        self, database: Any, committer: Committer, rows: StateRows[Key], capacity: int
    ) -> None:
        self._database = database
        self._committer = committer
        self._rows = rows
        self.arena: Arena[Key] = Arena(capacity, rows.grow, rows.clear)
        self._position: Position | None = None
        self.committed: int | None = None
        self._notes: dict[bytes, bytes | None] = {}
        self._ended: deque[tuple[Snapshot, bool]] = deque()
        self._new = False

    def open(self, topic: str, topic_id: str, partitions: int, begin: int, end: int) -> None:
        """Read the position back, or start at the begin of the log.

        Args:
            topic: the source.
            topic_id: its id, empty where the broker gives none.
            partitions: of the source.
            begin: the first offset of the source's partition.
            end: the offset after its last.

        Raises:
            PositionError: the position is not of this topic: it was deleted and created again, or
                its number of partitions has changed.
        """
        value = self._database.get(POSITION_KEY)
        if value is None:
            self._position = Position(FORMAT, begin, topic, topic_id, partitions)
            self._new = True  # written even before the first event: a crash starts here again
            return
        position = decode_position(value)
        if position.partitions != partitions:
            raise PositionError(
                f"the states were made with {position.partitions} partitions of {topic}, and it has"
                f" {partitions} now, so that users would be looked for in the wrong place;"
                f" {RESET}, and events are read from the begin"
            )
        if topic_id and position.topic_id and topic_id != position.topic_id:
            raise PositionError(
                f"topic {topic} has id {topic_id}, and the states belong to one with id"
                f" {position.topic_id}: it was deleted and created again;"
                f" {RESET} of the old one"
            )
        if position.position > end:
            raise PositionError(
                f"the state stands at offset {position.position} of {topic}, which ends at {end}:"
                f" the topic was created again or has lost records; {RESET}, and events are read"
                " from the begin"
            )
        position.topic_id = topic_id or position.topic_id
        self._position = position
        self.committed = position.position

    @property
    def is_open(self) -> bool:
        """Whether the position is known."""
        return self._position is not None

    @property
    def row(self) -> Position:
        """The position row, which the processing of chunks moves on.

        Raises:
            RuntimeError: the store was not opened.
        """
        if self._position is None:
            raise RuntimeError("the store is not open")
        return self._position

    @property
    def needs_commit(self) -> bool:
        """Whether there is anything that no commit has taken."""
        return self._new or (self.is_open and bool(self._notes or self.arena.dirty.any()))

    @property
    def dirty_rows(self) -> int:
        """Rows that no commit has taken."""
        return int(self.arena.dirty.sum())

    def find(self, keys: Sequence[Key]) -> Slots:
        """Give the keys' slots, their rows loaded.

        Raises:
            ArenaFullError: a commit has to make room first; nothing has changed.
            NewerArtifactError: as the rows' `load`; none of the new keys has a slot.
        """
        slots, new, new_slots = self.arena.find(keys)
        if new:
            loaded = False
            try:
                self._rows.load(new, new_slots, self._get)
                loaded = True
            finally:
                if not loaded:
                    self.arena.forget(new_slots)
        return slots

    def touch(self, slots: Slots) -> None:
        """Say that rows have changed."""
        self.arena.dirty[slots] = True

    def move_to(self, position: int) -> None:
        """Say that all events before an offset are in the state."""
        self.row.position = position
        self._new = True

    def note(self, key: bytes, value: bytes | None) -> None:
        """Keep a small row beside the states, None to delete it."""
        self._notes[key] = value

    def read(self, keys: list[bytes]) -> list[bytes | None]:
        """Read rows from the database, as of the last commit."""
        return self._get(keys)

    def scan(
        self, prefix: bytes, start: bytes = b"", most: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Read rows with a prefix, in order of key; no iterator outlives the call: it locks.

        Args:
            prefix: of the keys.
            start: the first key, by default the first with the prefix.
            most: how many at most, by default all.
        """
        found: list[tuple[bytes, bytes]] = []
        for key, value in self._database.items(from_key=start or prefix):
            if not key.startswith(prefix) or len(found) == most:
                break
            found.append((key, value))
        return found

    def snapshot(self) -> Snapshot:
        """Copy what is dirty, and the position; the rows stay pinned until `settle`."""
        notes, self._notes = self._notes, {}
        rows = list(notes.items())  # first: a state that was deleted and came back stays
        slots = self.arena.take_dirty()
        rows += self._rows.dump(self.arena.keys(slots), slots)
        self._new = False
        rows.append((POSITION_KEY, msgspec.json.encode(self.row)))
        return Snapshot(self.row.position, rows, slots, notes)

    async def commit(self, snapshot: Snapshot, first: Sequence[Record]) -> None:
        """Commit a snapshot.

        Args:
            snapshot: of this store; snapshots are committed in the order they were made.
            first: what goes to other topics in the same transaction.

        Raises:
            FencedError, CommitUnknownError: the worker has to stop.
            CommitAbortedError: nothing happened, and the rows will be in the next snapshot.
        """
        clean = False
        try:
            await self._committer.write(self._database, snapshot.rows, first)
            self.committed = snapshot.position
            clean = True
        finally:
            self._ended.append((snapshot, clean))

    def settle(self) -> None:
        """Unpin the rows of commits that have ended; make those dirty again that failed."""
        while self._ended:
            snapshot, clean = self._ended.popleft()
            if clean:
                self.arena.unpin(snapshot.slots)
            else:
                self.arena.restore(snapshot.slots)
                self._rows.restore(snapshot.slots)
                self._notes = snapshot.notes | self._notes
                self._new = True

    def _get(self, keys: list[bytes]) -> list[bytes | None]:
        found: list[bytes | None] = self._database.get(keys)
        return found


def decode_position(value: bytes) -> Position:
    """Read a position row.

    Raises:
        PositionError: it is damaged, or of a format this version does not know.
    """
    try:
        position = msgspec.json.decode(value, type=Position)
    except msgspec.DecodeError as error:
        raise PositionError(f"the position row cannot be read ({error}); {RESET}") from error
    if position.format != FORMAT:
        raise PositionError(
            f"the position row has format {position.format}, and this version reads {FORMAT};"
            f" run the version that wrote it; otherwise {RESET}"
        )
    return position
