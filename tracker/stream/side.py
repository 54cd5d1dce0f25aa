"""Side: what a partition does with its records; one for users' events, one for item events."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from tracker.events.arrivals import MAX_FUTURE_SECONDS
from tracker.kafka.outbox import Record
from tracker.store.idle import IdleSweep
from tracker.store.partition_store import PartitionStore
from tracker.stream.serving import Context

log = logging.getLogger(__name__)

Key = TypeVar("Key", bound=Hashable)


class OpenVerdictError(Exception):
    """A verdict on an event of the future depends on the clock, which has to be committed first."""


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

    @abstractmethod
    def process(self, records: Sequence[Any], end: int, handed: bool = False) -> list[Record]:
        """Apply the records of a chunk, and advance the position.

        Args:
            records: of the source, in order.
            end: the position after them.
            handed: whether they come from the topic of handed-on events.

        Returns:
            the records to send at once.

        Raises:
            ArenaFullError: commit, and call again with the same records; nothing has changed.
            OpenVerdictError: the same; the commit keeps the clock by which they are judged.
            NewerArtifactError: a row was written with a newer artifact; nothing has changed.
        """

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

    def latest_time(self) -> float:
        """Return the latest time, in seconds, that stream time may have now."""
        return self._context.clock() + MAX_FUTURE_SECONDS

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
