"""Commits: when a partition commits; one at a time, beside its chunks, and again if aborted."""

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

from tracker.kafka.outbox import Outbox, Record
from tracker.store.committer import CommitAbortedError
from tracker.store.partition_store import Snapshot
from tracker.stream.serving import Context
from tracker.stream.side import Side

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.2
"""After a commit was aborted."""


class Commits:
    """Copies what is to be committed, and commits it beside what comes next.

    Args:
        context: what the partitions of a worker share; its settings have the interval.
        number: partition number; spreads the commits of a worker's partitions over the interval.
        side: states and position, and what goes out with them.
        outbox: what has to be sent before.
        threads: where copies are made.
        on_commit: called after each commit with its exception, or None.
    """

    def __init__(
        self,
        context: Context,
        number: int,
        side: Side[Any],
        outbox: Outbox,
        threads: Executor,
        on_commit: Callable[[BaseException | None], None],
    ) -> None:
        self._metrics = context.metrics
        self._seconds = context.settings.commit_interval_seconds
        self._name = f"{side.table}-{number}"
        self._side = side
        self._outbox = outbox
        self._threads = threads
        self._on_commit = on_commit
        self._task: asyncio.Task[None] | None = None
        self._returned: list[Record] = []  # of a commit that was aborted
        self._next_at = time.monotonic() + self._seconds * (0.5 + (number % 8) / 16)

    @property
    def due_at(self) -> float | None:
        """Monotonic time of the next; None with nothing to commit, and while one is under way."""
        if not self._side.store.needs_commit or (self._task is not None and not self._task.done()):
            return None
        return self._next_at

    @property
    def waiting(self) -> bool:
        """Whether `all` would do something."""
        return self._side.store.needs_commit or self._task is not None

    async def if_due(self) -> None:
        """Begin a commit if it is time."""
        if time.monotonic() >= self._next_at and self.due_at is not None:  # the cheap one first
            await self._begin()

    async def all(self) -> None:
        """Commit until nothing is left that is not committed."""
        while True:
            if self._task is not None:
                await self._task
            self._side.store.settle()
            if not self._side.store.needs_commit:
                self._task = None
                return
            await self._begin()

    async def _begin(self) -> None:
        """Copy what is to be committed, and commit it beside what comes next."""
        if self._task is not None:
            await self._task  # done; raises what it raised
        self._side.store.settle()
        loop = asyncio.get_running_loop()
        snapshot, outgoing = await loop.run_in_executor(self._threads, self._copy)
        self._next_at = time.monotonic() + self._seconds
        self._task = asyncio.create_task(self._commit(snapshot, outgoing, self._outbox.mark()))
        self._task.add_done_callback(self._tell)

    def _copy(self) -> tuple[Snapshot, list[Record]]:
        self._side.sweep()
        outgoing = self._returned + self._side.take_outgoing()
        self._returned = []
        return self._side.store.snapshot(), outgoing

    async def _commit(
        self, snapshot: Snapshot, outgoing: list[Record], mark: "asyncio.Task[None] | None"
    ) -> None:
        """Commit.

        1. Wait for all recommendations and rejections at or below the copied position.
        2. Commit states, position and item events.
        """
        begun = time.monotonic()
        await self._outbox.wait(mark)  # 1
        try:
            await self._side.store.commit(snapshot, outgoing)  # 2
        except CommitAbortedError as aborted:
            self._returned = outgoing
            self._metrics.aborted.labels(self._side.table).inc()
            log.warning(
                "a commit of %s was aborted and will be tried again: %s", self._name, aborted
            )
            await asyncio.sleep(RETRY_SECONDS)
        else:
            self._metrics.committed(self._side.table, time.monotonic() - begun)

    def _tell(self, task: "asyncio.Task[None]") -> None:
        self._on_commit(None if task.cancelled() else task.exception())
