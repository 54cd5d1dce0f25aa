"""Side: what is done with the records of a partition, users' events or item events."""

from collections.abc import Sequence
from typing import Any, Protocol

from tracker.kafka.outbox import Record
from tracker.store.partition_store import PartitionStore


class Side(Protocol):
    """What a partition in work asks of it."""

    table: str
    store: PartitionStore[Any]

    def opened(self) -> None:
        """The store is open."""

    def process(self, records: Sequence[Any], end: int) -> list[Record]:
        """Apply records; return what to send at once."""

    def due_at(self, at_end: bool) -> float | None:
        """Return the wall time at which something else is due."""

    def emit_due(self) -> list[Record]:
        """Do what is due; return what to send at once."""

    def owed(self) -> int:
        """Return the number of lists still to come."""

    def take_outgoing(self) -> list[Record]:
        """Return what goes out inside the next commit."""

    def sweep(self) -> None:
        """Delete what is idle, with the commit that comes next."""
