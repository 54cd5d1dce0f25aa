"""Plane: the partitions that this worker owns, from the first fence to the last commit."""

import asyncio
import logging
import os
import sys
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from faust.types import TP

from tracker.explained import Explained
from tracker.items.rows import ItemRows
from tracker.kafka.cluster import BrokerError, describe_topics
from tracker.kafka.outbox import Outbox
from tracker.kafka.producers import fenced_producer, plain_producer
from tracker.store.committer import Committer
from tracker.store.partition_store import PartitionStore
from tracker.stream.item_side import ItemSide
from tracker.stream.partition import Chunk, Partition
from tracker.stream.serving import Context
from tracker.stream.side import Side
from tracker.stream.user_side import UserSide
from tracker.users.rows import UserRows
from tracker.worker.transport import ChunkConsumer, FetchedPartition

log = logging.getLogger(__name__)

EXPECTED = (Explained, OSError)
"""Errors that end a worker and are no bug: one line says it all."""


def leave(status: int) -> None:
    """End the process at once: nothing is committed, nothing can hang."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class Plane:
    """Owns source partitions: fences, opens, feeds and releases them.

    Args:
        context: what the partitions share.
        exit_now: ends the process; replaced in tests.
    """

    def __init__(self, context: Context, exit_now: Callable[[int], None] = leave) -> None:
        self._context = context
        self._exit_now = exit_now
        self._threads = ThreadPoolExecutor(
            max(2, min(8, os.cpu_count() or 2)), thread_name_prefix="chunks"
        )
        topics = context.cluster.topics
        self._tables = {topics.events: "users", topics.items: "items"}
        self._changelogs = {"users": topics.users_changelog, "items": topics.items_changelog}
        self._fenced: dict[TP, Committer] = {}
        self._open: dict[TP, Partition] = {}
        self._committed: dict[TP, int] = {}
        self._producer: Any = None
        self._dying = False
        self.settled = False  # whether an assignment was ever completed
        self.consumer: ChunkConsumer | None = None
        self.database: Callable[[str, int], Any] | None = None

    @property
    def partitions(self) -> Mapping[TP, Partition]:
        """The partitions in work."""
        return self._open

    @property
    def lag(self) -> int:
        """Events and blocks of item events that are in the log and in no state."""
        return sum(partition.lag for partition in self._open.values())

    async def start(self) -> None:
        """Start the producer of recommendations."""
        self._producer = await plain_producer(
            self._context.settings, self._context.cluster.transactions
        )

    async def stop(self) -> None:
        """Release everything and close the producers."""
        await self.release(list(self._fenced))
        if self._producer is not None:
            await self._producer.stop()
        self._threads.shutdown(wait=False)

    async def fence(self, tps: Collection[TP]) -> None:
        """Take over partitions, all at once; their former owners can commit nothing after this."""
        try:
            committers = await asyncio.gather(*(self._committer(tp) for tp in tps))
        except BrokerError as error:
            self.fatal(error)
            return
        self._fenced.update(zip(tps, committers, strict=True))

    async def open_fenced(self) -> None:
        """Open the partitions whose state is recovered: read positions back, begin to work."""
        self.settled = True
        waiting = [tp for tp in self._fenced if tp not in self._open]
        if not waiting:
            return
        assert self.consumer is not None
        try:
            info = await describe_topics(self._context.settings)
            begins = await self.consumer.earliest_offsets(*waiting)
            ends = await self.consumer.highwaters(*waiting)
            for tp in waiting:
                committer = self._fenced.get(tp)
                if committer is None:
                    continue  # lost again meanwhile
                together = sum(other.topic == tp.topic for other in waiting)
                partition = self._partition(tp, committer, together)
                topic = info[tp.topic]
                partition.store.open(
                    tp.topic, topic.topic_id, topic.partitions, begins[tp] or 0, ends[tp] or 0
                )
                self._say_what_is_lost(tp, partition, begins[tp] or 0)
                self._open[tp] = partition
            await asyncio.gather(*(self._open[tp].start() for tp in waiting if tp in self._open))
        except (*EXPECTED, RuntimeError, LookupError) as error:
            self.fatal(error)

    async def release(self, tps: Collection[TP]) -> None:
        """Finish the chunks under way, commit, and let go of the partitions."""
        leaving = [(tp, self._open.pop(tp)) for tp in tps if tp in self._open]
        try:
            await asyncio.gather(*(partition.close() for _, partition in leaving))
        except (*EXPECTED, RuntimeError) as error:
            self.fatal(error)
        for tp, partition in leaving:
            if partition.store.committed is not None:
                self._committed[tp] = partition.store.committed
            self._context.metrics.forget_partition(partition.side.table, tp.topic, tp.partition)
        committers = [self._fenced.pop(tp) for tp in tps if tp in self._fenced]
        await asyncio.gather(*(committer.stop() for committer in committers))

    def accept(self, chunk: Chunk, done: Callable[[], object]) -> None:
        """Take a chunk; `done` is called when it is applied, or when it is nobody's here."""
        partition = self._open.get(chunk.tp)
        if partition is None:
            done()
        else:
            partition.accept(chunk, done)

    def position(self, tp: TP) -> int | None:
        """Return the offset that the state of an open partition has reached, in memory."""
        partition = self._open.get(tp)
        return partition.store.row.position if partition is not None else None

    def committed(self, tp: TP) -> int | None:
        """Return the offset that the state has reached in the changelog."""
        partition = self._open.get(tp)
        return partition.store.committed if partition is not None else self._committed.get(tp)

    def room(self, tp: TP) -> bool:
        """Tell whether a partition takes more chunks; one that is not open waits."""
        partition = self._open.get(tp)
        return partition is not None and partition.room

    def fatal(self, error: BaseException) -> None:
        """End the process: what is not committed is done again by the next owner."""
        if self._dying:
            return
        self._dying = True
        if isinstance(error, EXPECTED):
            log.critical("this worker stops: %s", error)
        else:
            log.critical("this worker stops because of a bug", exc_info=error)
        self._exit_now(1)

    def observe(self) -> None:
        """Bring the gauges up to date."""
        metrics = self._context.metrics
        for tp, partition in list(self._open.items()):
            number, table = str(tp.partition), partition.side.table
            metrics.lag.labels(tp.topic, number).set(partition.lag)
            metrics.rows.labels(table, number).set(len(partition.store.arena))
            metrics.dirty_rows.labels(table, number).set(partition.store.dirty_rows)
            if table == "users":
                metrics.owed.labels(number).set(partition.side.pending())

    async def _committer(self, tp: TP) -> Committer:
        table = self._tables[tp.topic]
        transactions = self._context.cluster.transactions
        producer = await fenced_producer(self._context.settings, table, tp.partition, transactions)
        return Committer(producer, transactions, self._changelogs[table], tp.partition)

    def _partition(self, tp: TP, committer: Committer, together: int) -> Partition:
        assert self.consumer is not None
        assert self.database is not None
        side = self._side(
            tp, committer, self.database(self._tables[tp.topic], tp.partition), together
        )
        source = FetchedPartition(self.consumer, tp)
        outbox = Outbox(self._producer, self._dropped)
        return Partition(self._context, source, side, outbox, self._threads, self.fatal)

    def _side(self, tp: TP, committer: Committer, database: Any, together: int) -> Side[Any]:
        settings = self._context.settings
        if self._tables[tp.topic] == "users":
            least = 2 * settings.chunk_events
            rows = UserRows(self._context.keeper.current.config)
            users: PartitionStore[str] = PartitionStore(
                database, committer, rows, max(least, settings.state_rows // together)
            )
            return UserSide(self._context, tp.partition, rows, users)
        item_rows = ItemRows()
        items: PartitionStore[int] = PartitionStore(
            database, committer, item_rows, max(10_000, settings.item_state_rows // together)
        )
        return ItemSide(self._context, tp.partition, item_rows, items)

    def _dropped(self, topic: str, reason: str) -> None:
        self._context.metrics.dropped.labels(topic).inc()

    def _say_what_is_lost(self, tp: TP, partition: Partition, begin: int) -> None:
        position = partition.store.row.position
        if position < begin:
            self._context.metrics.skipped.inc(begin - position)
            log.error(
                "%s: the log begins at offset %d, and the state stands at %d: %d records were"
                " deleted by retention before they were applied; lengthen retention.ms",
                partition.name, begin, position, begin - position,
            )  # fmt: skip
