"""SourceEnds: the end offsets of the events topic, by which made-up source offsets are told."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

READ_SECONDS = 0.25
"""Minimum time between two reads of all ends."""

ANSWER_SECONDS = 10.0
"""Maximum time of one read."""


class UnknownOffsetError(Exception):
    """A block names an offset past the known end of its source: read the ends, and try again."""

    def __init__(self, ends: "SourceEnds") -> None:
        super().__init__("the ends of the events topic are not known so far")
        self.ends = ends


class SourceEnds:
    """Knows up to which offset each partition of the events topic reaches.

    An item partition takes all offsets of a source up to the last one for applied. An offset that
    the source does not have yet would hide the true events up to it.

    Args:
        fetched: returns the end offset that the worker's own fetches have shown of a partition,
            None if it does not fetch that one.
        fetch: reads the end offsets of all partitions from the brokers.

    Attributes:
        reads_begun: number of reads that have begun.
        last_read: the last of them that has succeeded; 0 for none.
    """

    def __init__(
        self,
        fetched: Callable[[int], int | None],
        fetch: Callable[[], Awaitable[Mapping[int, int]]],
    ) -> None:
        self._fetched = fetched
        self._fetch_ends = fetch
        self._ends: dict[int, int] = {}
        self._read_at = -READ_SECONDS
        self._lock = asyncio.Lock()
        self.reads_begun = 0
        self.last_read = 0

    def end(self, partition: int) -> int:
        """Return the known end offset of a partition; 0 if none is known."""
        return max(self._fetched(partition) or 0, self._ends.get(partition, 0))

    def reaches(self, partition: int, offset: int) -> bool:
        """Return whether a partition is known to have an offset."""
        return offset < self._ends.get(partition, 0) or offset < self.end(partition)

    async def refresh(self) -> None:
        """Read all ends; one read at a time, and not too often.

        Raises:
            BrokerError, KafkaError, TimeoutError: the brokers do not answer; the ends known before
                stay.
        """
        needed = self.reads_begun + 1
        async with self._lock:
            if self.last_read >= needed:
                return
            wait = self._read_at + READ_SECONDS - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            self.reads_begun += 1
            number = self.reads_begun
            async with asyncio.timeout(ANSWER_SECONDS):
                ends = await self._fetch_ends()
            for partition, end in ends.items():
                self._ends[partition] = max(end, self._ends.get(partition, 0))
            self._read_at = time.monotonic()
            self.last_read = number
