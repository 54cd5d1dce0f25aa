"""Side: what a partition does with its records; one for users' events, one for item events."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from tracker.events.arrivals import MAX_FUTURE_SECONDS
from tracker.kafka.changelog_rows import Stored
from tracker.kafka.outbox import Record
from tracker.store.idle import IdleSweep
from tracker.store.partition_store import PartitionStore
from tracker.stream.list_maker import ListJob
from tracker.stream.serving import Context

MOST_READ_AGAIN = 100_000
"""Damaged rows of which it is remembered that the changelog was asked."""

log = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)


class OpenVerdictError(Exception):
    """A verdict on an event of the future depends on the clock, which has to be committed first."""


class DamagedRowsError(Exception):
    """Rows of the database are damaged; the changelog may have them whole."""

    def __init__(self, keys: list[bytes]) -> None:
        super().__init__(f"{len(keys)} rows are damaged")
        self.keys = keys


class Side(ABC, Generic[Key]):
    """Applies the records of one partition to the rows of its store.

    Think of it as the stateful operator that a `Partition` drives. The partition calls `opened`
    once, then `process` for each chunk, and `emit_due` when the time of `due_at` has come;
    `sweep` and `take_outgoing` come right before each snapshot. All calls come one at a time, from
    the event loop or from a thread. A side never commits: what it has changed is in the store, and
    what it has to send comes back as records.

    The defaults are those of a side that has no recommendations to send.

    Args:
        context: what the partitions of a worker share.
        partition: partition number of the source topic.
        store: rows and position of the partition.
        idle: finds the rows that had no event for too long.

    Attributes:
        table: name of the table, `users` or `items`.
        store: rows and position of the partition.
        reads_again: whether damaged rows are read from the changelog before they are set aside.
    """

    table: ClassVar[str]

    def __init__(
        self, context: Context, partition: int, store: PartitionStore[Key], idle: IdleSweep[Key]
    ) -> None:
        self._context = context
        self._metrics = context.metrics
        self._partition = partition
        self.store = store
        self._idle = idle
        self.reads_again = False
        self._read_again: set[bytes] = set()  # keys of damaged rows that the changelog was asked of

    @abstractmethod
    def process(
        self, records: Sequence[Any], end: int, handed: bool = False, together: bool = False
    ) -> list[Record]:
        """Apply the records of a chunk, and advance the position.

        Args:
            records: of the source, in order.
            end: the position after them.
            handed: whether they come from the topic of handed-on events.
            together: whether lists may be left for `take_lists`.

        Returns:
            the records to send at once.

        Raises:
            ArenaFullError: commit, and call again with the same records; nothing has changed.
            OpenVerdictError: the same; the commit keeps the clock by which they are judged.
            NewerArtifactError: a row was written with a newer artifact; nothing has changed.
        """

    def take_lists(self) -> ListJob | None:
        """Return the lists that `process` has left; they are made before anything else happens."""
        return None

    def opened(self) -> None:
        """Restore the small records of the store. The store is open now."""
        progress, now = self.store.progress, self._context.clock()
        ahead = progress.stream_time - now
        if ahead > MAX_FUTURE_SECONDS:
            progress.stream_time = now
            self.store.advance(progress.position)
            log.warning(
                "%s of partition %d: stream time was %.0f s past the worker's clock, moved by an"
                " event of the future; it goes on from the clock (`tracker mend-times` mends rows)",
                self.table, self._partition, ahead,
            )  # fmt: skip

    @abstractmethod
    def is_readable(self, key: bytes, row: bytes) -> bool:
        """Return whether the row of a key can be read."""

    def on_damaged(self, keys: list[bytes]) -> None:
        """Ask for another reading of rows that are damaged, once a key.

        Raises:
            DamagedRowsError: call `restore` with what the changelog has, and try again.
        """
        new = [key for key in keys if key not in self._read_again]
        if new and self.reads_again:
            raise DamagedRowsError(new)

    def restore(self, keys: list[bytes], rows: Mapping[bytes, Stored]) -> None:
        """Put good rows of the changelog in place of damaged ones of the database.

        Rows that are not good in the changelog either are set aside when they are loaded next; one
        that has a good row from before is set aside here, and the earlier one counts.
        """
        self._read_again |= set(keys)
        if len(self._read_again) > MOST_READ_AGAIN:
            self._read_again = set(keys)
        whole = [(key, rows[key].good) for key in keys if key in rows and rows[key].is_last]
        earlier = [
            (key, good)
            for key in keys
            if key in rows and not rows[key].is_last and (good := rows[key].good) is not None
        ]
        for key, _ in earlier:
            (row,) = self.store.read([key])
            self.keep_aside(key, row or b"", "damaged")
        self.store.replace([*whole, *earlier])
        for key, good in earlier:  # the changelog's last row is the damaged one
            self.store.note(key, good)
        log.warning(
            "%s of partition %d: of %d damaged rows %d were read again from the changelog, and of"
            " %d an earlier row counts",
            self.table, self._partition, len(keys), len(whole), len(earlier),
        )  # fmt: skip

    def latest_offset(self) -> int | None:
        """Return the offset of the latest event in the rows of the database; None if unknown."""
        return None

    @abstractmethod
    def keep_aside(self, key: bytes, row: bytes, problem: str) -> None:
        """Keep a row that cannot be read under a key of its own.

        Raises:
            DamagedRowError: the settings say to stop.
        """

    def due_at(self, at_end: bool) -> float | None:
        """Return the wall time in seconds at which `emit_due` has work; None for no such time.

        Args:
            at_end: whether all events of the log are in the state: a backlog ends there.
        """
        return None

    def emit_due(self) -> list[Record]:
        """Return the postponed recommendations that are due, to be sent at once.

        Raises:
            ArenaFullError, NewerArtifactError: as `process`.
        """
        return []

    def has_requests(self) -> bool:
        """Return whether `apply_request` has work; it is asked between two chunks."""
        return False

    def apply_request(self) -> list[Record]:
        """Apply the next request to forget a user; return records to be sent at once.

        Raises:
            ArenaFullError, NewerArtifactError, NewerRowError: as `process`.
        """
        return []

    def pending(self) -> int:
        """Return the number of users whose list is postponed."""
        return 0

    @property
    def outgoing_bytes(self) -> int:
        """Size of what waits for the next commit, in bytes."""
        return 0

    def take_outgoing(self) -> list[Record]:
        """Return the records that belong into the next commit; they are handed over once."""
        return []

    def sweep(self) -> None:
        """Delete some of the rows that are idle for too long, with the coming commit."""
        deleted = self._idle.run(self._context.clock())
        if deleted:
            self._metrics.deleted.labels(self.table).inc(deleted)
