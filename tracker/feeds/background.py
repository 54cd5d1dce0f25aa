"""Background tasks: they may not end unnoticed, and stop within a deadline; some repeat."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0
"""Maximum time that a task may take to stop."""

OnDeath = Callable[[str, BaseException], object]
"""Receives the name of a task that has ended by itself, and the reason."""


class TaskEndedError(RuntimeError):
    """A task that should run until it is stopped has ended by itself."""


class BackgroundTask:
    """Runs work until it is stopped; if the work ends by itself, `on_death` is told why.

    Args:
        name: name of the task, for log lines.
        on_death: called once with the name and the reason.
    """

    def __init__(self, name: str, on_death: OnDeath) -> None:
        self._name = name
        self._on_death = on_death
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._beat_at = time.monotonic()

    def beat(self) -> None:
        """Note that the work goes on."""
        self._beat_at = time.monotonic()

    def stuck(self, seconds: float) -> list[str]:
        """Return a line if the work was started, and has not gone on for longer than that."""
        quiet = time.monotonic() - self._beat_at
        if self._task is None or self._stopping or quiet <= seconds:
            return []
        return [f"{self._name} has not gone on for {quiet:.0f} s"]

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Start the work."""
        self.beat()
        self._task = asyncio.create_task(work, name=self._name)
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Cancel the work, and wait for its end within a deadline; what it raises is logged."""
        self._stopping = True
        if self._task is None:
            return
        self._task.cancel()
        finished, _ = await asyncio.wait({self._task}, timeout=STOP_SECONDS)
        if not finished:
            log.warning("%s does not stop; the worker stops without it", self._name)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        error: BaseException | None
        if task.cancelled():
            error = TaskEndedError("it was cancelled")
        else:
            error = task.exception() or TaskEndedError("it has ended without a reason")
        if not self._stopping:
            self._on_death(self._name, error)
        elif not task.cancelled() and task.exception() is not None:
            log.warning("%s failed while it stopped", self._name, exc_info=task.exception())


class PeriodicTask(ABC):
    """Looks after something at an interval, in the background; the first time after one interval.

    Args:
        name: name of the task, for log lines.
        seconds: interval between the end of a look and the next one.
        on_death: called if the task ends by itself.
    """

    def __init__(self, name: str, seconds: float, on_death: OnDeath) -> None:
        self._seconds = seconds
        self._task = BackgroundTask(name, on_death)

    @abstractmethod
    async def look(self) -> None:
        """Look once."""

    def start(self) -> None:
        """Start in the background."""
        self._task.start(self._run())

    async def stop(self) -> None:
        """Stop within a deadline."""
        await self._task.stop()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            await self.look()


def log_death(name: str, error: BaseException) -> None:
    """Log the end of a task; what happens if nobody else is told."""
    log.error("%s has ended", name, exc_info=error)
