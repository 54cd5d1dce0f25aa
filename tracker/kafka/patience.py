"""Patience: how long the brokers may take, where the time in which none answers does not count."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """A time after which brokers that answer have failed. While none answers, a worker waits.

    Attributes:
        seconds: time from the begin, or from the first answer after a silence.
        answered_seconds: returns for how long the brokers have answered without a break; 0 if none
            does.
    """

    seconds: float = 120.0
    answered_seconds: Callable[[], float] = lambda: math.inf

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """End what is awaited within when the time is over.

        Raises:
            TimeoutError: the time is over.
        """
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        timer: asyncio.TimerHandle
        async with asyncio.timeout(None) as timeout:

            def look() -> None:
                nonlocal timer
                rest = self.seconds - min(self.answered_seconds(), loop.time() - began_at)
                if rest <= 0.0:
                    timeout.reschedule(loop.time())
                else:
                    timer = loop.call_later(rest, look)

            timer = loop.call_later(self.seconds, look)
            try:
                yield
            finally:
                timer.cancel()

    def was_silent(self, since: float) -> bool:
        """Return whether there was a time without an answer since a monotonic time."""
        return self.answered_seconds() < time.monotonic() - since


DEFAULT = Patience()
