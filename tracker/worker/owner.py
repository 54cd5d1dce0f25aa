"""Owner: what a consumer asks of whoever processes its partitions."""

from collections.abc import Collection, Sequence
from typing import Protocol

from faust.types import TP

from tracker.stream.partition import Chunk


class Owner(Protocol):
    """The owner of the partitions assigned to the consumer: the data plane.

    The consumer calls `fence` at each assignment, before Faust recovers the tables, and `release`
    at each revocation, before Faust forgets the partitions. `position`, `committed`, `room`
    and `take` are called between two fetches, and must not block.
    """

    async def fence(self, tps: Collection[TP], generation: int) -> None:
        """Take over source partitions; after this their former owner can commit nothing.

        Args:
            tps: all that are assigned.
            generation: of the group: each assignment has the next number.
        """

    async def release(self, tps: Collection[TP]) -> None:
        """Finish the current chunks, commit and close the partitions."""

    def position(self, tp: TP) -> int | None:
        """Return the position of an open partition in memory; None if it is not open."""

    def committed(self, tp: TP) -> int | None:
        """Return the position of the last commit; None if it is not known."""

    def room(self, tp: TP) -> bool:
        """Return whether a partition accepts more chunks."""

    def take(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Apply small chunks at once, where nothing comes before them; return those applied."""


class NoOwner:
    """The owner of a transport before the data plane is set: owns nothing."""

    async def fence(self, tps: Collection[TP], generation: int) -> None:
        """No-op."""

    async def release(self, tps: Collection[TP]) -> None:
        """No-op."""

    def position(self, tp: TP) -> int | None:
        """Return None."""
        return None

    def committed(self, tp: TP) -> int | None:
        """Return None."""
        return None

    def room(self, tp: TP) -> bool:
        """Always ready."""
        return True

    def take(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Apply none."""
        return []
