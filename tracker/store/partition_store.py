"""PartitionStore: an in-memory cache of one partition's states, committed with the position.

On the path of one commit: see docs/design/one-event-one-commit.md.
"""

import logging
from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from tracker.explained import Explained
from tracker.kafka.outbox import Record
from tracker.kafka.pseudonyms import check_names
from tracker.kafka.user_keys import check_encrypted
from tracker.kernels.row_bytes import (
    ASIDE_PREFIX,
    OWED_PREFIX,
    POSITION_KEY,
    SEEN_PREFIX,
    USER_PREFIX,
    Get,
    Slots,
    owner_of,
)
from tracker.store.arena import Arena
from tracker.store.committer import Committer
from tracker.store.database import read_rows, replace_rows
from tracker.store.row_cipher import RowCipher

log = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)

AnyKey = TypeVar("AnyKey", bound=Hashable, contravariant=True)

FORMAT = 1
"""Format of a position record without a hand-over."""

HAND_OVER_FORMAT = 2
"""Format of one with a hand-over: a version that knows only 1 would forget it."""

REPLAY_FORMAT = 3
"""Format of one of states that are built by a replay, or of those that one has replaced: a version
that knows only 2 would go on with them."""

PSEUDONYM_FORMAT = 4
"""Format of one of states that name users by pseudonyms: a version that knows only 3 would look for
their ids."""

USER_KEYS_FORMAT = 5
"""Format of one of states whose rows are encrypted by keys of their users: to a version that knows
only 4 all of them would be damaged."""

NEWEST_FORMAT = USER_KEYS_FORMAT

OF_USERS = (USER_PREFIX, SEEN_PREFIX, OWED_PREFIX)
"""Prefixes of the rows of users; each row may also be set aside."""

MOVE = (
    "stop all workers, and run `tracker move-states`, which moves states and what is owed to where"
    " their users belong now"
)

RESET = "`tracker reset-state --everything` deletes the states"


class PositionError(Explained):
    """The states belong to another topic than the one that the worker reads."""


class HandOverPosition(msgspec.Struct):
    """Up to where the states have the events that other partitions have handed on.

    Attributes:
        position: offset of the next record of the topic of handed-on events to apply.
        topic_id: id of that topic, empty if the broker gives none.
        clock: as that of `Position`, for these records.
        clock_end: the same.
        origins: last offset that was applied of each partition of the events topic.
        partitioner: rule by which the partition hands on; empty before it has begun to.
    """

    position: int
    topic_id: str = ""
    clock: float = 0.0
    clock_end: int = 0
    origins: dict[int, int] = msgspec.field(default_factory=dict)
    partitioner: str = ""


class Position(msgspec.Struct):
    """The record that says which offset of the source the states have reached.

    Attributes:
        format: format number of the record.
        position: offset of the next event to apply.
        topic: source topic.
        topic_id: id of the topic, empty if the broker gives none.
        partitions: number of partitions of the topic.
        stream_time: latest event time, in seconds.
        sources: last offset applied of each partition of the events topic, and after these of the
            topic of handed-on events (items only).
        clock: worker's clock, in seconds, by which events of the future are told up to `clock_end`.
        clock_end: records before this offset are judged by `clock`, however often they are read.
        version: version of the latest list (users only).
        hand_over: the same for events that other partitions have handed on; None if none can.
        transactions: whether the states were committed in transactions.
        forgotten: offset of the last request to forget a user that was applied (users only).
        replays: name of the tracker whose events `tracker replay` builds the states of; empty if
            it does not, or has changed over.
        successor: name of the tracker that has taken over from these states; empty for none.
        pseudonyms: fingerprint of the key of the users' pseudonyms; empty if they have none, and
            for items.
        user_keys: id of the topic of the keys by which the rows of users are encrypted, empty if
            the broker gives none; None if they are not encrypted, and for items.
    """

    format: int
    position: int
    topic: str
    topic_id: str
    partitions: int
    stream_time: float = 0.0
    sources: dict[int, int] = msgspec.field(default_factory=dict)
    clock: float = 0.0
    clock_end: int = 0
    version: int = 0
    hand_over: HandOverPosition | None = None
    transactions: bool = False
    forgotten: int = -1
    replays: str = ""
    successor: str = ""
    pseudonyms: str = ""
    user_keys: str | None = None


class StateRows(Protocol[AnyKey]):
    """The arrays behind a store, and how their rows become records of the database.

    The store calls these methods, one at a time: `grow` and `clear` before slots are given to new
    keys, then `load` for them; `dump` for each snapshot; `restore` when its commit has failed.
    """

    def grow(self, rows: int) -> None:
        """Enlarge the arrays to at least `rows` rows; those there keep their slots."""

    def clear(self, slots: Slots) -> None:
        """Make rows empty."""

    def load(self, keys: Sequence[AnyKey], slots: Slots, get: Get) -> None:
        """Fill slots with the records of keys; a key without a record gets an empty row."""

    def dump(self, keys: Sequence[AnyKey], slots: Slots) -> list[tuple[bytes, bytes | None]]:
        """Return the records of slots; a value of None deletes the record."""

    def restore(self, slots: Slots) -> None:
        """Mark rows as dirty again after a failed commit."""


@dataclass(slots=True)
class Snapshot:
    """A copy of everything that one commit writes, so that the next chunk can change the rows.

    Attributes:
        position: offset of the next event to apply.
        records: key and value, None to delete; the position record is the last.
        slots: slots of the rows among the records, pinned until `settle`.
        notes: the small records among them, for a failed commit.
        user_keys: records of the topic of users' keys, by user.
    """

    position: int
    records: list[tuple[bytes, bytes | None]]
    slots: Slots
    notes: dict[bytes, bytes | None] = field(default_factory=dict)
    user_keys: dict[bytes, bytes | None] = field(default_factory=dict)


class PartitionStore(Generic[Key]):
    """An in-memory cache of one partition's states, committed together with the source position.

    Not thread-safe, with one exception: `commit` may run while the next chunk is processed.
    `settle` then applies its outcome: rows are unpinned on success and dirty again on failure.

    Args:
        database: RocksDB of the table's partition.
        committer: commits the records of the partition.
        rows: arrays of the cached rows.
        capacity: maximum number of rows in memory.

    Attributes:
        arena: slots of the cached rows.
        committed: position of the last commit; None before the first one.
        commits: number of commits.
        cipher: encrypts and decrypts the rows of users; None if they are kept in the clear.
    """

    def __init__(
        self, database: Any, committer: Committer, rows: StateRows[Key], capacity: int
    ) -> None:
        self.cipher: RowCipher | None = None
        self._database = database
        self._committer = committer
        self._rows = rows
        self.arena: Arena[Key] = Arena(capacity, rows.grow, rows.clear)
        self._position: Position | None = None
        self.committed: int | None = None
        self.commits = 0
        self._notes: dict[bytes, bytes | None] = {}
        self._committing: dict[bytes, bytes | None] = {}  # the notes of the commit under way
        self._outcomes: deque[tuple[Snapshot, bool]] = deque()
        self._moved = False

    def open(
        self,
        topic: str,
        topic_id: str,
        partitions: int,
        begin: int,
        end: int,
        transactions: bool = False,
        replays: str = "",
        pseudonyms: str = "",
        user_keys: str | None = None,
    ) -> None:
        """Restore the position, or start from the earliest offset.

        Args:
            topic: source topic.
            topic_id: id of the topic, empty if the broker gives none.
            partitions: number of partitions of the topic.
            begin: earliest offset of the source partition.
            end: end offset of the source partition.
            transactions: whether commits are transactions.
            replays: name of the tracker whose events are replayed; empty for a worker that serves.
            pseudonyms: fingerprint of the key of pseudonyms; empty for none, and for items.
            user_keys: id of the topic of users' keys, empty if the broker gives none; None if users
                have none, and for items.

        Raises:
            PseudonymError: the states were made with another key, or without one.
            UserKeyError: users had keys and now have none, or the other way round.
            PositionError: the topic was deleted and created again, its number of partitions has
                changed, the states were committed in transactions and now cannot be, or a replay
                builds them or has replaced them.
        """
        (value,) = self._get([POSITION_KEY])
        if value is None:
            self._position = Position(
                FORMAT,
                begin,
                topic,
                topic_id,
                partitions,
                transactions=transactions,
                pseudonyms=pseudonyms,
                user_keys=user_keys,
            )
            self._moved = True  # committed before any event: a crash starts here again
            return
        position = decode_position(value)
        check_role(position, replays)
        check_names(f"the states of {topic}", position.pseudonyms, pseudonyms)
        check_keys(topic, position.user_keys, user_keys)
        if position.transactions and not transactions:
            raise PositionError(
                f"the states of {topic} were committed in transactions, and the brokers now say"
                " that they have none: unfenced, a worker could write over newer states; start it"
                f" again when the brokers are well. If these brokers are others, {RESET}"
            )
        check_place(position, topic, topic_id, partitions)
        if position.position > end:
            raise PositionError(
                f"the state is at offset {position.position} of {topic}, which ends at {end}:"
                f" the topic was created again or has lost records; {RESET}, and events are read"
                " again from the earliest offset"
            )
        position.topic_id = topic_id or position.topic_id
        position.user_keys = user_keys or position.user_keys
        position.transactions = transactions
        self._position = position
        self.committed = position.position

    def open_hand_over(self, topic: str, topic_id: str, begin: int, end: int) -> None:
        """Restore the position in the topic of handed-on events, or start from its beginning.

        Args:
            topic: its name.
            topic_id: its id, empty if the broker gives none.
            begin: earliest offset of the partition.
            end: end offset of the partition.
        """
        progress = self.progress
        part = progress.hand_over
        if part is not None:
            is_other = bool(topic_id and part.topic_id and topic_id != part.topic_id)
            if not is_other and part.position <= end:
                part.topic_id = topic_id or part.topic_id
                return
            log.error(
                "%s was created again or has lost records: the states are at offset %d, and it"
                " ends at %d; it is read from its beginning", topic, part.position, end,
            )  # fmt: skip
        progress.hand_over = HandOverPosition(begin, topic_id)
        if part is not None:
            progress.hand_over.partitioner = part.partitioner
            progress.hand_over.origins = part.origins
        self._moved = True

    def reached(self, handed: bool) -> "Position | HandOverPosition":
        """Return what the states have reached of the events, or of the handed-on ones."""
        if not handed:
            return self.progress
        assert self.progress.hand_over is not None
        return self.progress.hand_over

    @property
    def is_open(self) -> bool:
        """True if the position is known."""
        return self._position is not None

    @property
    def progress(self) -> Position:
        """The position record, which the processing of chunks updates.

        Raises:
            RuntimeError: the store was not opened.
        """
        if self._position is None:
            raise RuntimeError("the store is not open")
        return self._position

    @property
    def needs_commit(self) -> bool:
        """True if anything has changed since the last snapshot."""
        return self._moved or (self.is_open and bool(self._notes or self.arena.dirty.any()))

    @property
    def is_behind(self) -> bool:
        """True if the last commit does not hold all that is in memory."""
        return self.is_open and (self.committed != self.progress.position or self.needs_commit)

    @property
    def dirty_rows(self) -> int:
        """Number of rows changed since the last snapshot."""
        return int(self.arena.dirty.sum())

    def slots_of(self, keys: Sequence[Key]) -> Slots:
        """Return the slot of each key, loading missing rows from the database.

        Raises:
            ArenaFullError: no slot can be evicted; commit and try again. Nothing has changed.
            NewerArtifactError: a row was written with a newer artifact. Nothing has changed.
        """
        slots, new, new_slots = self.arena.slots_of(keys)
        if new:
            loaded = False
            try:
                self._rows.load(new, new_slots, self._get)
                loaded = True
            finally:
                if not loaded:
                    self.arena.evict(new_slots)
        return slots

    def mark_dirty(self, slots: Slots) -> None:
        """Mark rows as changed since the last snapshot."""
        self.arena.dirty[slots] = True

    def advance(self, position: int, handed: bool = False) -> None:
        """Set the offset of the next event, or of the next handed-on one, to apply."""
        self.reached(handed).position = position
        self._moved = True

    def keep_clock(self, clock: float, end: int, handed: bool = False) -> None:
        """Put into the next commit by which clock, in seconds, records before an offset are judged.

        The verdict on an event of the future may be another one by another clock. Committed before
        anything of the records is applied, it is the same whenever they are read again.
        """
        reached = self.reached(handed)
        reached.clock, reached.clock_end = clock, end
        self._moved = True

    def note(self, key: bytes, value: bytes | None) -> None:
        """Put a small record into the next commit; a value of None deletes it."""
        self._notes[key] = value

    def read(self, keys: list[bytes]) -> list[bytes | None]:
        """Return the values of records as of the last commit, None for those that do not exist."""
        return self._get(keys)

    def replace(self, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Put rows that the changelog has in place of those of the database."""
        if self.cipher is not None:
            rows = self.cipher.encrypt(list(rows))
        replace_rows(self._database, rows)

    def decrypted(self, key: bytes, value: bytes | None) -> bytes | None:
        """Return a row as `read` does, from a value of the changelog."""
        return value if self.cipher is None else self.cipher.decrypt(key, value)

    def scan(
        self, prefix: bytes, start: bytes = b"", most: int | None = None
    ) -> list[tuple[bytes, bytes]]:
        """Return the records with a prefix, in order of key, as of the last commit.

        The iterator ends with the call, because an open one locks the database.

        Args:
            prefix: first bytes of the keys.
            start: first key; by default the first one with the prefix.
            most: maximum number of records; by default all.
        """
        records: list[tuple[bytes, bytes]] = []
        for key, value in self._database.items(from_key=start or prefix):
            if not key.startswith(prefix) or len(records) == most:
                break
            if self.cipher is not None:
                value = self.cipher.decrypt(key, value)
                if value is None:
                    continue
            records.append((key, value))
        return records

    def snapshot(self) -> Snapshot:
        """Copy the dirty rows and the position; the rows stay pinned until `settle`."""
        notes, self._notes = self._notes, {}
        self._committing = notes
        records = list(notes.items())  # first: a state that was deleted and came back stays
        slots = self.arena.take_dirty()
        records += self._rows.dump(self.arena.keys(slots), slots)
        self._moved = False
        user_keys: dict[bytes, bytes | None] = {}
        if self.cipher is not None:
            self._delete_keys(self.cipher, records)
            records = self.cipher.encrypt(records)
            user_keys = self.cipher.keys.take_changes()
        records.append((POSITION_KEY, encode_position(self.progress)))
        return Snapshot(self.progress.position, records, slots, notes, user_keys)

    def _delete_keys(self, cipher: RowCipher, records: list[tuple[bytes, bytes | None]]) -> None:
        """Delete the keys of the users of whom a commit leaves no row, such as idle ones."""
        deleted = {key for key, row in records if row is None}
        present = {owner_of(key) for key, row in records if row is not None}
        for user in {owner_of(key) for key in deleted} - present:
            if user is None or cipher.keys.get(user) is None:
                continue
            rows = {aside + prefix + user for aside in (b"", ASIDE_PREFIX) for prefix in OF_USERS}
            others = read_rows(self._database, list(rows - deleted))
            if all(row is None for row in others):
                cipher.keys.delete(user)

    async def commit(self, snapshot: Snapshot, outgoing: Sequence[Record]) -> None:
        """Commit a snapshot.

        Args:
            snapshot: of this store; snapshots are committed in the order they were made.
            outgoing: records for other topics, in the same transaction.

        Raises:
            FencedError, CommitRefusedError, CommitUnknownError: the worker has to stop.
            CommitAbortedError: nothing was committed; after `settle` the rows are dirty again.
        """
        succeeded = False
        if self.cipher is not None:
            outgoing = [*self.cipher.keys.records(snapshot.user_keys), *outgoing]
        try:
            await self._committer.write(self._database, snapshot.records, outgoing)
            self.committed = snapshot.position
            self.commits += 1
            succeeded = True
        finally:
            self._outcomes.append((snapshot, succeeded))

    def settle(self) -> None:
        """Apply the outcomes of commits: unpin their rows on success, mark them dirty on failure.

        Call it between two chunks, never while one is processed.
        """
        while self._outcomes:
            snapshot, succeeded = self._outcomes.popleft()
            self._committing = {}
            if succeeded:
                self.arena.unpin(snapshot.slots)
            else:
                self.arena.restore(snapshot.slots)
                self._rows.restore(snapshot.slots)
                self._notes = snapshot.notes | self._notes
                self._moved = True
                if self.cipher is not None:
                    self.cipher.keys.restore_changes(snapshot.user_keys)

    def _get(self, keys: list[bytes]) -> list[bytes | None]:
        """Read records; one whose deletion goes with this commit or the next is gone already.

        Otherwise a state that comes back meanwhile would begin from a row whose other records are
        about to be deleted.
        """
        values = read_rows(self._database, keys)
        if self.cipher is not None:
            values = [self.cipher.decrypt(*row) for row in zip(keys, values, strict=True)]
        for notes in (self._committing, self._notes):
            if notes:
                for at, key in enumerate(keys):
                    if notes.get(key, b"") is None:
                        values[at] = None
        return values


def check_place(position: Position, topic: str, topic_id: str, partitions: int) -> None:
    """Check that states are of a topic, and of as many partitions as it has.

    Raises:
        PositionError: they are not; tells what to do.
    """
    if position.partitions < partitions and not topic.endswith("-items"):
        raise PositionError(
            f"topic {topic} has {partitions} partitions, and the states were made when it had"
            f" {position.partitions}: {MOVE}"
        )
    if position.partitions != partitions:
        raise PositionError(
            f"topic {topic} has {partitions} partitions, and the states were made when it had"
            f" {position.partitions}: they are stored under other partitions now;"
            f" {RESET}, and events are read again from the earliest offset"
        )
    if topic_id and position.topic_id and topic_id != position.topic_id:
        raise PositionError(
            f"topic {topic} has id {topic_id}, and the states belong to one with id"
            f" {position.topic_id}: it was deleted and created again;"
            f" {RESET} of the old one"
        )


def check_keys(topic: str, stored: str | None, mine: str | None) -> None:
    """Check that the keys of users are those by which the states of a topic are encrypted.

    Args:
        topic: the source topic.
        stored: id of the topic of the keys when they were; None if they are not encrypted.
        mine: its id now; None if users have no keys.

    Raises:
        UserKeyError: users had keys and now have none, or the other way round.
        PositionError: the topic of the keys was deleted and created again.
    """
    check_encrypted(f"the states of {topic}", stored is not None, mine is not None)
    if stored and mine and stored != mine:
        raise PositionError(
            f"the topic of users' keys has id {mine}, and the states of {topic} are encrypted by"
            f" keys of one with id {stored}: it was deleted and created again, and without the keys"
            f" no row of a user can be read; {RESET}, and events are read again from the earliest"
            " offset"
        )


def check_role(position: Position, replays: str) -> None:
    """Check that states may be opened by a worker that serves, or that replays a tracker.

    Raises:
        PositionError: they may not.
    """
    if position.successor:
        raise PositionError(
            f"another tracker has taken over from these states at offset {position.position} of"
            f" {position.topic}: start workers with TRACKER_NAME={position.successor}, and with"
            f" TRACKER_STREAM as `tracker replay` has said"
        )
    if position.replays != replays:
        raise PositionError(
            f"`tracker replay` still builds these states from the events of {position.replays}: run"
            " it to its end with --change-over, or start workers under another TRACKER_NAME"
            if position.replays
            else "these states are no replay's, or it has changed over: start `tracker worker`"
        )


def encode_position(position: Position) -> bytes:
    """Encode a position record; the lowest format that holds all of it is written."""
    position.format = FORMAT if position.hand_over is None else HAND_OVER_FORMAT
    if position.replays or position.successor:
        position.format = REPLAY_FORMAT
    if position.pseudonyms:
        position.format = PSEUDONYM_FORMAT
    if position.user_keys is not None:
        position.format = USER_KEYS_FORMAT
    return msgspec.json.encode(position)


def is_position(value: bytes) -> bool:
    """Return whether bytes are a position record, of whatever format."""
    try:
        msgspec.json.decode(value, type=Position)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def decode_position(value: bytes) -> Position:
    """Decode a position record.

    Raises:
        PositionError: it is damaged, or has a format that this version does not know.
    """
    try:
        position = msgspec.json.decode(value, type=Position)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PositionError(f"the position record cannot be read ({error}); {RESET}") from error
    if not FORMAT <= position.format <= NEWEST_FORMAT:
        raise PositionError(
            f"the position record has format {position.format}, and this version reads {FORMAT} to"
            f" {NEWEST_FORMAT};"
            f" run the version that wrote it; otherwise {RESET}"
        )
    return position
