"""Turns: while the stream is behind, requests are answered at a low rate, so that it catches up."""

import asyncio
import time
from collections.abc import Callable, Mapping

from aiohttp import web

from tracker.api.problems import ProblemError
from tracker.stream.partition import Partition

WAITS = web.RequestKey("waits", bool)
"""Whether a request waits for its turn."""

MOST_RECORDS = 256
"""A partition with more records that wait is behind."""

SPACING_SECONDS = 0.02
"""Time from a request to the next one meanwhile. Each costs up to some milliseconds, which the
stream does not get; the number of open connections bounds how many wait, and so for how long."""


class Turns:
    """Lets requests through: at once, or in turn while a partition is behind.

    Whoever asks again as soon as an answer comes, on many connections, would else get as much of
    the worker as it takes, and the stream what is left.

    Args:
        partitions: returns the open partitions of the events topic by number.
        clock: monotonic time in seconds.
    """

    def __init__(
        self,
        partitions: Callable[[], Mapping[int, Partition]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._partitions = partitions
        self._clock = clock
        self._queue = asyncio.Lock()  # whoever came first has it first
        self._next = 0.0  # when the next one is let through

    async def wait(self, is_there: Callable[[], bool]) -> None:
        """Wait until it is the turn of a request, or the stream has caught up.

        Args:
            is_there: returns whether the client still waits.

        Raises:
            ProblemError: the client has left; its turn is the next one's.
        """
        if not self._is_behind():
            return
        async with self._queue:
            if not is_there():
                raise ProblemError(503, "the client left before its turn")
            if self._is_behind():
                at = max(self._next, self._clock())
                self._next = at + SPACING_SECONDS
                await asyncio.sleep(at - self._clock())

    def _is_behind(self) -> bool:
        """Return whether a partition is behind that does not wait for another version."""
        return any(
            one.lag > MOST_RECORDS and one.waits_for is None for one in self._partitions().values()
        )
