"""Chunk: records of a partition and the offsets they cover; and who owns partitions."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from faust.types import TP


@dataclass(slots=True)
class Chunk:
    """Records of one partition and the offsets [start, end) that they cover.

    What lies in the range and has no record, the broker left out: markers of transactions, and
    what retention or compaction removed.
    """

    tp: TP
    start: int
    end: int
    records: Sequence[Any]

    def past(self, position: int) -> Sequence[Any]:
        """Return the records at or past a position."""
        records = self.records
        if not records or records[0].offset >= position:
            return records
        return [record for record in records if record.offset >= position]


class Owner(Protocol):
    """Who owns the partitions that the consumer is given: the data plane."""

    async def fence(self, tps: Collection[TP]) -> None:
        """Take over source partitions; the former owner can commit nothing after this."""

    async def release(self, tps: Collection[TP]) -> None:
        """Finish the chunks under way, commit and let go of the partitions."""

    def position(self, tp: TP) -> int | None:
        """Return the offset that the state of an open partition has reached, in memory."""

    def committed(self, tp: TP) -> int | None:
        """Return the offset that the state has reached in the changelog."""

    def room(self, tp: TP) -> bool:
        """Tell whether a partition can take more chunks."""


class NoOwner:
    """Owns nothing; what a transport has before it is given its owner."""

    async def fence(self, tps: Collection[TP]) -> None:
        """Do nothing."""

    async def release(self, tps: Collection[TP]) -> None:
        """Do nothing."""

    def position(self, tp: TP) -> int | None:
        """Know nothing."""
        return None

    def committed(self, tp: TP) -> int | None:
        """Know nothing."""
        return None

    def room(self, tp: TP) -> bool:
        """Hold nothing back."""
        return True
