"""Plane: the source partitions that this worker owns, from the first fence to the last commit.

On the paths of one event and one commit: see docs/design/one-event-one-commit.md.
"""

import asyncio
import logging
import os
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any

from faust.types import TP

from tracker.events.foreign import MAX_EVENTS
from tracker.explained import ONCE, Explained, first_line
from tracker.feeds.source_ends import SourceEnds
from tracker.items.rows import ItemRows
from tracker.kafka.changelog_rows import stored_rows
from tracker.kafka.client import is_at_end
from tracker.kafka.cluster import BrokerError, TopicInfo, describe_topics, unreachable
from tracker.kafka.denials import denial_of
from tracker.kafka.outbox import Outbox
from tracker.kafka.patience import Patience
from tracker.kafka.producers import fenced_producer, plain_producer
from tracker.kafka.rights import check_rights, denied_now
from tracker.kernels.row_bytes import POSITION_KEY, DamagedRowError
from tracker.store.committer import Committer, FencedError
from tracker.store.partition_store import (
    FORMAT,
    PartitionStore,
    Position,
    decode_position,
    encode_position,
    is_position,
)
from tracker.store.row_cipher import RowCipher, row_cipher
from tracker.stream.item_side import ItemSide
from tracker.stream.partition import Chunk, Partition
from tracker.stream.serving import Context
from tracker.stream.side import Side
from tracker.stream.small_chunks import SmallChunks
from tracker.stream.user_side import UserSide
from tracker.users.rows import UserRows
from tracker.worker.hand_over_reader import HandedPartition, HandOverReader
from tracker.worker.rights_watch import RightsWatch
from tracker.worker.source_watch import SourceWatch
from tracker.worker.transport import ChunkConsumer, FetchedPartition

log = logging.getLogger(__name__)

EXPECTED = (Explained, OSError)
"""Errors that end a worker and are not bugs: logged as one line."""


def exit_now(status: int) -> None:
    """End the process at once, without a commit: nothing can hang."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


STOP_SECONDS = 3.0
"""Maximum time of one step of stopping that comes after the commits."""


async def finish(name: str, step: Awaitable[object]) -> None:
    """Take one step of stopping within a deadline; log its failure, so that the next is taken."""
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await step
    except Exception as error:  # one step must not keep the others from being taken
        log.warning("%s did not close: %s", name, first_line(error))


class Plane:
    """Owns source partitions: fences, opens, feeds and releases them.

    Think of it as the group member behind Faust's consumer. At an assignment the consumer calls
    `fence`, then Faust recovers the tables, then `open_fenced` starts the partitions; chunks come
    by `accept`; at a revocation or the end the consumer calls `release`.

    Args:
        context: what the partitions of a worker share.
        on_exit: ends the process with a status; replaced in tests.
    """

    def __init__(self, context: Context, on_exit: Callable[[int], None] = exit_now) -> None:
        self._context = context
        self._on_exit = on_exit
        self._threads = ThreadPoolExecutor(
            max(2, min(8, os.cpu_count() or 2)), thread_name_prefix="chunks"
        )
        topics = context.cluster.topics
        self._tables = {topics.events: "users", topics.items: "items"}
        self._changelogs = {"users": topics.users_changelog, "items": topics.items_changelog}
        self._small_chunks = SmallChunks(context)
        self._fenced: dict[TP, Committer] = {}
        self._spare: dict[TP, Committer] = {}  # of partitions released for a rebalance
        self._generation = 0  # of the group, at the latest assignment
        self._open: dict[TP, Partition] = {}
        self._committed: dict[TP, int] = {}
        self._producer: Any = None
        self._reader: HandOverReader | None = None
        if context.cluster.hands_over:
            self._reader = HandOverReader(
                context.settings, topics.hand_over, self.accept, self.room, self.task_died
            )
        self._ends = SourceEnds(self._fetched_end, self._read_ends)
        self._watch = SourceWatch(
            lambda: describe_topics(context.settings),
            lambda tp: None if self.consumer is None else self.consumer.fetched_end(tp),
            self._open,
            self.fatal,
            self.task_died,
        )
        self._patience = Patience(
            context.settings.send_seconds, lambda: self._watch.answered_seconds
        )
        self._rights = RightsWatch(lambda: check_rights(context.settings, "worker"), self.task_died)
        self._dying = False
        self.assigned = False  # whether an assignment was ever completed
        self.consumer: ChunkConsumer | None = None
        self.database: Callable[[str, int], Any] | None = None

    @property
    def partitions(self) -> Mapping[TP, Partition]:
        """The open partitions."""
        return self._open

    @property
    def answered_seconds(self) -> float:
        """The time for which the brokers have answered without a break; 0 if they do not."""
        return self._watch.answered_seconds

    @property
    def threads(self) -> Executor:
        """The pool in which large chunks are processed."""
        return self._threads

    async def send(self, topic: str, partition: int, key: bytes, value: bytes) -> int:
        """Send a record, and return its offset once all replicas have it.

        Raises:
            KafkaError: the brokers do not store it.
        """
        sent = await self._producer.send(topic, value, key, partition)
        return int((await sent).offset)

    @property
    def lag(self) -> int:
        """Number of records in the log that are in no state: events, blocks of item events.

        Those of a partition that waits for another version are left out: a restart does not help.
        """
        return sum(part.lag for part in self._open.values() if part.waits_for is None)

    @property
    def waiting(self) -> list[str]:
        """Partitions that wait, and for what."""
        return [
            f"{part.name} waits: {part.waits_for}" for part in self._open.values() if part.waits_for
        ]

    @property
    def held_back(self) -> list[str]:
        """Partitions of the events topic with an unfinished transaction of a producer."""
        lines = []
        for tp in self._open:
            if self.consumer is None or tp.topic != self._context.cluster.topics.events:
                continue
            first, count = self.consumer.held_back(tp)
            if count:
                lines.append(
                    f"{tp.topic}-{tp.partition}: {count} records from offset {first} on wait for a"
                    " transaction that a producer has not finished; it must commit or abort"
                )
        return lines

    async def start(self) -> None:
        """Start the producer of recommendations, and the reader of handed-on events."""
        self._producer = await plain_producer(
            self._context.settings, self._context.cluster.transactions
        )
        self._watch.start()
        self._rights.start()
        if self._reader is not None:
            self._reader.start()

    async def stop(self) -> None:
        """Release everything and close the producers; what fails is logged."""
        await finish("the watch over source topics", self._watch.stop())
        await finish("the watch over rights", self._rights.stop())
        await self.release_all()
        await self._stop_all(self._spare.values())
        if self._reader is not None:
            await finish("the reader of handed-on events", self._reader.stop())
        if self._producer is not None:
            await finish("the producer of recommendations", self._producer.stop())
        self._threads.shutdown(wait=False)

    async def release_all(self) -> None:
        """Release every partition that this worker has."""
        await self.release(list(self._fenced))

    async def fence(self, tps: Collection[TP], generation: int) -> None:
        """Take over partitions; after this their former owners can commit nothing.

        A partition that this worker had in the generation before has had no other owner: its
        producer goes on. Should that be wrong, the other one has fenced it, and it commits nothing.
        With keys of users none goes on: only a new one waits until the last commit can be read in
        all of its topics.

        Args:
            tps: all that are assigned.
            generation: of the group.
        """
        spare, self._spare = self._spare, {}
        follows = generation == self._generation + 1 and not self._context.settings.user_keys
        self._generation = generation
        stay = {tp: spare.pop(tp) for tp in tps if follows and tp in spare}
        new = [tp for tp in tps if tp not in stay]
        try:
            committers, _ = await asyncio.gather(
                asyncio.gather(*(self._committer(tp) for tp in new)),
                self._stop_all(list(spare.values())),
            )
        except BrokerError as error:
            self.fatal(error)
            return
        self._fenced |= stay | dict(zip(new, committers, strict=True))

    async def open_fenced(self) -> None:
        """Open the partitions whose tables are recovered: restore positions, start processing."""
        self.assigned = True
        fenced = [tp for tp in self._fenced if tp not in self._open]
        if not fenced:
            return
        generation = self._generation
        assert self.consumer is not None
        try:
            both = fenced + [handed for tp in fenced if (handed := self._handed(tp)) is not None]
            info, begins, ends, ciphers = await asyncio.gather(
                describe_topics(self._context.settings),
                self.consumer.earliest_offsets(*both),
                self.consumer.highwaters(*both),
                self._ciphers(fenced),
            )
            if self._generation != generation:
                return  # another assignment came meanwhile, and is opened by itself
            topics = self._context.cluster.topics
            for tp in fenced:
                committer = self._fenced.get(tp)
                if committer is None:
                    continue  # revoked meanwhile
                together = sum(other.topic == tp.topic for other in fenced)
                partition = self._partition(tp, committer, together)
                topic = info[tp.topic]
                partition.store.cipher = ciphers.get(tp)
                key_topic = info[topics.user_keys].topic_id if tp in ciphers else None
                await self._mend_position(tp, partition, topic, key_topic)
                if self._generation != generation or tp not in self._fenced:
                    return  # the same
                partition.store.open(
                    tp.topic,
                    topic.topic_id,
                    topic.partitions,
                    begins[tp] or 0,
                    ends[tp] or 0,
                    self._context.cluster.transactions,
                    self._replays(tp),
                    self._key_of(tp),
                    key_topic,
                )
                if tp in ciphers:
                    self._report_unreadable(tp, ciphers[tp].keys.unreadable)
                self._report_loss(
                    partition, tp.topic, partition.store.progress.position, begins[tp] or 0
                )
                handed = self._handed(tp)
                if handed is not None:
                    begin = begins[handed] or 0
                    topic_id = info[handed.topic].topic_id if handed.topic in info else ""
                    partition.store.open_hand_over(handed.topic, topic_id, begin, ends[handed] or 0)
                    position = partition.store.reached(True).position
                    self._report_loss(partition, handed.topic, position, begin)
                self._open[tp] = partition
            await asyncio.gather(*(self._open[tp].start() for tp in fenced if tp in self._open))
            for tp in fenced:
                handed = self._handed(tp)
                if self._reader is not None and handed is not None and tp in self._open:
                    self._reader.follow(handed, self._open[tp].store.reached(True).position)
        except (*EXPECTED, RuntimeError, LookupError) as error:
            self.fatal(error)

    async def _ciphers(self, fenced: Collection[TP]) -> dict[TP, RowCipher]:
        """Return what decrypts the rows of users, by partition; empty if they are plain."""
        settings, pseudonyms = self._context.settings, self._context.pseudonyms
        tps = [tp for tp in fenced if self._tables[tp.topic] == "users"]
        ciphers = await asyncio.gather(
            *(row_cipher(settings, pseudonyms, tp.partition) for tp in tps)
        )
        return {tp: cipher for tp, cipher in zip(tps, ciphers, strict=True) if cipher is not None}

    def _report_unreadable(self, tp: TP, count: int) -> None:
        """Log the number of users whose keys are damaged, and with them all of their rows.

        Raises:
            DamagedRowError: the settings say to stop.
        """
        if not count:
            return
        place = f"{self._context.cluster.topics.user_keys}-{tp.partition}"
        if self._context.settings.damaged_rows == "stop":
            raise DamagedRowError(f"{place}: the key of a user", "damaged")
        log.error(
            "%s: the keys of users that are damaged are %d: the rows of these users cannot be read,"
            " and are set aside", place, count,
        )  # fmt: skip

    async def _mend_position(
        self, tp: TP, partition: Partition, topic: TopicInfo, key_topic: str | None
    ) -> None:
        """Replace a damaged position record by that of the changelog, or by an earlier one.

        Raises:
            PositionError: there is none, and no row says up to where events are applied.
        """
        store = partition.store
        (value,) = store.read([POSITION_KEY])
        if value is None or is_position(value):
            return
        changelog = self._changelogs[partition.side.table]
        rows = await stored_rows(
            self._context.settings,
            changelog,
            tp.partition,
            [POSITION_KEY],
            lambda key, row: is_position(row),
        )
        stored = rows.get(POSITION_KEY)
        good = None if stored is None else stored.good
        if stored is not None and stored.is_last:
            log.warning(
                "%s: the position record was damaged, and is read again from %s",
                partition.name, changelog, extra=ONCE,
            )  # fmt: skip
        else:
            latest = partition.side.latest_offset()
            if good is None and latest is None:
                decode_position(value)  # raises with the remedy
            position = (
                Position(
                    FORMAT,
                    0,
                    tp.topic,
                    topic.topic_id,
                    topic.partitions,
                    pseudonyms=self._key_of(tp),
                    user_keys=key_topic,
                )
                if good is None
                else decode_position(good)
            )
            if latest is not None:
                position.position = max(position.position, latest + 1)
            good = encode_position(position)
            log.error(
                "%s: the position record is damaged in %s too; the partition goes on from offset"
                " %d, by %s. %s of the last commits may count twice",
                partition.name, changelog, position.position,
                "an earlier record" if latest is None else "the rows of its users",
                "Item events" if latest is None else "Events that were handed on", extra=ONCE,
            )  # fmt: skip
        store.replace([(POSITION_KEY, good)])

    async def release(self, tps: Collection[TP]) -> None:
        """Finish the current chunks, commit and close the partitions.

        Each is closed whatever happens to another; the first failure then ends the worker. Their
        producers are kept for the next assignment.
        """
        for tp in tps:
            handed = self._handed(tp)
            if self._reader is not None and handed is not None:
                self._reader.leave(handed)
        closing = [(tp, self._open.pop(tp)) for tp in tps if tp in self._open]
        ends = await asyncio.gather(
            *(partition.close() for _, partition in closing), return_exceptions=True
        )
        failures = [end for end in ends if isinstance(end, BaseException)]
        if failures:
            self.fatal(failures[0])
        for tp, partition in closing:
            if partition.store.committed is not None:
                self._committed[tp] = partition.store.committed
            self._context.metrics.forget_partition(
                partition.side.table, list(partition.lags()), tp.partition
            )
        self._spare |= {tp: self._fenced.pop(tp) for tp in tps if tp in self._fenced}

    async def _stop_all(self, committers: Collection[Committer]) -> None:
        await asyncio.gather(
            *(finish("the producer of a partition", committer.stop()) for committer in committers)
        )

    def accept(self, chunk: Chunk, on_done: Callable[[], object]) -> None:
        """Queue a chunk; `on_done` is called when it is applied or dropped."""
        partition = self._open.get(self._owned(chunk.tp))
        if partition is None:
            on_done()
        else:
            partition.accept(chunk, on_done)

    def position(self, tp: TP) -> int | None:
        """Return the position of an open partition in memory; None if it is not open."""
        partition = self._open.get(tp)
        return partition.store.progress.position if partition is not None else None

    def committed(self, tp: TP) -> int | None:
        """Return the position of the last commit; None if it is not known."""
        partition = self._open.get(tp)
        return partition.store.committed if partition is not None else self._committed.get(tp)

    def room(self, tp: TP) -> bool:
        """Return whether a partition accepts more chunks; one that is not open does not."""
        partition = self._open.get(self._owned(tp))
        return partition is not None and partition.room(tp.topic)

    def take(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """Apply small chunks of source partitions at once, where nothing comes before them.

        Returns:
            those that were applied; the others have to come by `accept`.
        """
        return self._small_chunks.apply(
            (partition, chunk) for chunk in chunks if (partition := self._open.get(chunk.tp))
        )

    def fatal(self, error: BaseException) -> None:
        """Log the error and end the process; the next owner repeats what is not committed."""
        if self._dying:
            return
        self._dying = True
        denial = denial_of(error)
        denied = ""
        if denial is not None or isinstance(error, FencedError):
            denied = denied_now(self._context.settings, "worker")
        if denied:
            log.critical("the worker stops: %s", denied)
        elif denial is not None:
            log.critical("the worker stops: %s", unreachable(self._context.settings, denial))
        elif isinstance(error, EXPECTED):
            log.critical("the worker stops: %s", error)
        else:
            log.critical("the worker stops because of a bug; please report it", exc_info=error)
        self._on_exit(1)

    def end(self) -> None:
        """End the process in order, without closing what may hang: there is nothing to save."""
        self._on_exit(0)

    def task_died(self, name: str, error: BaseException) -> None:
        """End the process, because a background task has ended by itself."""
        log.critical("%s has ended: %s", name, first_line(error))
        self.fatal(error)

    def observe(self) -> None:
        """Update the gauges."""
        metrics = self._context.metrics
        metrics.broker_silence.set(self._watch.silence_seconds)
        metrics.waiting_bytes.set(sum(one.waiting_bytes for one in self._open.values()))
        for tp, partition in list(self._open.items()):
            number, table = str(tp.partition), partition.side.table
            for topic, lag in partition.lags().items():
                metrics.lag.labels(topic, number).set(lag)
            metrics.rows.labels(table, number).set(len(partition.store.arena))
            metrics.dirty_rows.labels(table, number).set(partition.store.dirty_rows)
            if table == "users":
                metrics.pending_lists.labels(number).set(partition.side.pending())

    async def _committer(self, tp: TP) -> Committer:
        table = self._tables[tp.topic]
        transactions = self._context.cluster.transactions
        settings, changelog = self._context.settings, self._changelogs[table]

        async def renew(offset: int) -> Any:
            producer = await fenced_producer(settings, table, tp.partition, transactions)
            if await is_at_end(settings, changelog, tp.partition, offset):
                return producer
            await producer.stop()
            return None

        producer = await fenced_producer(settings, table, tp.partition, transactions)
        return Committer(producer, transactions, changelog, tp.partition, renew, self._patience)

    def _partition(self, tp: TP, committer: Committer, together: int) -> Partition:
        assert self.consumer is not None
        assert self.database is not None
        side = self._side(
            tp, committer, self.database(self._tables[tp.topic], tp.partition), together
        )
        side.reads_again = True
        source = FetchedPartition(self.consumer, tp)
        outbox = Outbox(
            self._producer,
            self._dropped,
            self._patience,
            self._context.trace,
        )
        handed, other = None, self._handed(tp)
        if self._reader is not None and other is not None:
            handed = HandedPartition(self._reader, other.topic, other.partition)
        replay, limit = self._context.replay, None
        if replay is not None and side.table == "users":
            limit = partial(replay.limit, tp.partition)
        return Partition(
            self._context, source, side, outbox, self._threads, self.fatal, handed, limit,
        )  # fmt: skip

    def _replays(self, tp: TP) -> str:
        """Return the name of the tracker that is replayed; positions of items have none."""
        replay = self._context.replay
        return replay.of if replay is not None and self._tables[tp.topic] == "users" else ""

    def _key_of(self, tp: TP) -> str:
        """Return the fingerprint of the key of pseudonyms; rows of items have none."""
        return self._context.pseudonyms.fingerprint if self._tables[tp.topic] == "users" else ""

    def _handed(self, tp: TP) -> TP | None:
        """Return the partition of handed-on events beside one of the events topic."""
        topics = self._context.cluster.topics
        if self._reader is None or tp.topic != topics.events:
            return None
        return TP(topics.hand_over, tp.partition)

    def _owned(self, tp: TP) -> TP:
        """Return the source partition beside which a partition is read."""
        topics = self._context.cluster.topics
        return TP(topics.events, tp.partition) if tp.topic == topics.hand_over else tp

    def _side(self, tp: TP, committer: Committer, database: Any, together: int) -> Side[Any]:
        settings = self._context.settings
        if self._tables[tp.topic] == "users":
            least = 2 * max(settings.chunk_events, MAX_EVENTS)
            most = max(least, settings.state_rows // together)
            rows = UserRows(self._context.keeper.current.config, most)
            users: PartitionStore[str] = PartitionStore(database, committer, rows, most)
            return UserSide(self._context, tp.partition, rows, users, self._ends)
        most = max(10_000, settings.item_state_rows // together)
        item_rows = ItemRows(self._context.keeper.current.artifact.manifest.item_counts, most)
        items: PartitionStore[int] = PartitionStore(database, committer, item_rows, most)
        return ItemSide(self._context, tp.partition, item_rows, items, self._ends)

    def _event_partitions(self) -> int:
        return self._context.cluster.partitions(self._context.cluster.topics.events)

    def _source(self, number: int) -> TP:
        """Return a source of item events: the events, handed-on events, requests to forget."""
        topics, count = self._context.cluster.topics, self._event_partitions()
        names = (topics.events, topics.hand_over, topics.forget)
        return TP(names[number // count], number % count)

    def _fetched_end(self, number: int) -> int | None:
        """Return the end of a source of item events that the worker's fetches showed."""
        tp = self._source(number)
        if number >= 2 * self._event_partitions():
            return None  # the forget topic is not fetched with the group
        if number >= self._event_partitions():
            return None if self._reader is None else self._reader.fetched_end(tp)
        assert self.consumer is not None
        return self.consumer.fetched_end(tp)

    async def _read_ends(self) -> dict[int, int]:
        """Read the end offsets of all sources of item events."""
        assert self.consumer is not None
        count, cluster = self._event_partitions(), self._context.cluster
        numbers = list(range(count * (1 if self._reader is None else 2)))
        if cluster.forgets:
            numbers += range(2 * count, 3 * count)
        sources = {self._source(number): number for number in numbers}
        ends = await self.consumer.highwaters(*sources)
        return {sources[tp]: end or 0 for tp, end in ends.items()}

    def _dropped(self, topic: str, reason: str) -> None:
        self._context.metrics.dropped.labels(topic).inc()

    def report_deleted(self, tp: TP, offset: int, count: int) -> None:
        """Count and log records that retention deleted before they were applied."""
        self._context.metrics.skipped.inc(count)
        log.error(
            "%s: the state is at offset %d, and retention deleted %d records from there on before"
            " they were applied; raise retention.ms of the topic",
            f"{tp.topic}-{tp.partition}", offset, count,
        )  # fmt: skip

    def _report_loss(self, partition: Partition, topic: str, position: int, begin: int) -> None:
        if position < begin:
            self.report_deleted(TP(topic, partition.number), position, begin - position)
