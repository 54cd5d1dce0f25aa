"""CommitScheduler: commits a partition at an interval, in the background.

On the path of one commit: see docs/design/one-event-one-commit.md.
"""

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
"""Wait after an aborted commit."""

GOLDEN = 0.6180339887
"""Multiples of it, without their whole part, lie evenly between 0 and 1 however many there are."""


def place_of(number: int, table: str) -> float:
    """Return where in the interval a partition commits, from 0 to 1: far from all others.

    Commits at the same time keep the brokers busy, and lists wait for them.
    """
    return GOLDEN * (2 * number + (table == "items")) % 1.0


class CommitScheduler:
    """Commits a partition at an interval, in the background, one commit at a time.

    A commit begins with a snapshot, which `commit_if_due` and `commit_all` take between two chunks.
    It is then written while the next chunks are processed. An aborted commit is repeated with
    the next snapshot; any other failure is passed to `on_commit` and ends the worker. Each
    partition keeps its place in the interval.

    Args:
        context: what the partitions of a worker share; its settings have the interval.
        name: partition name, for log lines.
        number: partition number.
        side: states and position, and the records that go out with them.
        outbox: sends the recommendations that a commit waits for.
        threads: pool that takes the snapshots.
        on_commit: called after each commit with its exception, or None.
    """

    def __init__(
        self,
        context: Context,
        name: str,
        number: int,
        side: Side[Any],
        outbox: Outbox,
        threads: Executor,
        on_commit: Callable[[BaseException | None], None],
    ) -> None:
        self._metrics = context.metrics
        self._interval = context.settings.commit_interval_seconds
        self._name = name
        self._side = side
        self._outbox = outbox
        self._threads = threads
        self._on_commit = on_commit
        self._task: asyncio.Task[None] | None = None
        self._aborted: list[Record] = []  # outgoing records of an aborted commit
        self._next_at = time.monotonic() + self._interval * (0.5 + place_of(number, side.table))

    @property
    def due_at(self) -> float | None:
        """Monotonic time of the next commit; None if there is nothing to commit, or one runs."""
        running = self._task is not None and not self._task.done()
        return None if running or not self._side.store.needs_commit else self._next_at

    @property
    def has_work(self) -> bool:
        """True if `commit_all` would commit or wait."""
        return self._side.store.needs_commit or self._task is not None

    async def commit_if_due(self) -> None:
        """Begin a commit if it is due."""
        if time.monotonic() >= self._next_at and self.due_at is not None:  # the cheap check first
            await self._begin()

    async def commit_all(self) -> None:
        """Commit until nothing is left to commit, and wait for it.

        Raises:
            SendError, FencedError, CommitRefusedError, CommitUnknownError: the worker has to stop.
        """
        while True:
            if self._task is not None:
                await self._task
            self._side.store.settle()
            if not self._side.store.needs_commit:
                self._task = None
                return
            await self._begin()

    async def _begin(self) -> None:
        """Take a snapshot, and commit it in the background."""
        if self._task is not None:
            await self._task  # done; raises what it raised
        self._side.store.settle()
        loop = asyncio.get_running_loop()
        snapshot, outgoing = await loop.run_in_executor(self._threads, self._take_snapshot)
        late = time.monotonic() - self._next_at
        if late >= 0.0:  # not so if `commit_all` began it
            self._next_at += self._interval * (1.0 + late // self._interval)
        self._task = asyncio.create_task(self._commit(snapshot, outgoing, self._outbox.mark()))
        self._task.add_done_callback(self._report)

    def _take_snapshot(self) -> tuple[Snapshot, list[Record]]:
        """Sweep some idle rows, then copy all that the commit writes."""
        self._side.sweep()
        outgoing = self._aborted + self._side.take_outgoing()
        self._aborted = []
        return self._side.store.snapshot(), outgoing

    async def _commit(
        self, snapshot: Snapshot, outgoing: list[Record], mark: "asyncio.Task[None] | None"
    ) -> None:
        started_at = time.monotonic()
        # 1. Wait until the recommendations and rejections of the snapshot's events are in Kafka.
        await self._outbox.wait(mark)
        # 2. Write states, position and item events in one transaction.
        try:
            await self._side.store.commit(snapshot, outgoing)
        except CommitAbortedError as aborted:
            self._aborted = outgoing
            self._metrics.aborted.labels(self._side.table).inc()
            log.warning(
                "%s: the commit of offset %d was aborted and will be retried: %s",
                self._name, snapshot.position, aborted,
            )  # fmt: skip
            await asyncio.sleep(RETRY_SECONDS)
        else:
            self._metrics.committed(self._side.table, time.monotonic() - started_at)

    def _report(self, task: "asyncio.Task[None]") -> None:
        self._on_commit(None if task.cancelled() else task.exception())
