"""ChunkConsumer: a Faust consumer that hands chunks to the owner of their partitions.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Any, Literal, cast

import faust
from aiokafka.errors import IllegalStateError, KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from tracker.explained import first_line
from tracker.kafka.fetch_pace import FetchPace, fetch_only
from tracker.kafka.records import read_every_record
from tracker.stream.partition import SMALL_RECORDS, Chunk
from tracker.worker.changelog_databases import ChangelogDatabases
from tracker.worker.member_file import MemberFile
from tracker.worker.owner import NoOwner, Owner
from tracker.worker.rebalance_log import RebalanceLog

log = logging.getLogger(__name__)


FETCH_WAIT_MILLISECONDS = 100
"""fetch.max.wait.ms of the consumer. It sends one request per broker at a time, so a busy partition
would wait that long behind idle ones; Faust's 1500 is too much."""

REBALANCE_WAIT_MILLISECONDS = 10
"""The same during a rebalance: partitions that are resumed wait for the request before."""

MARKER_SECONDS, MARKER_LOOK_SECONDS = 5.0, 0.01
"""Maximum time in which the marker of the last commit is waited for, and time between looks."""

TOMBSTONE_SECONDS = 86400.0
"""Kafka's default of delete.retention.ms."""

MARKERS = 2
"""Offsets without a record between two transactions; nothing else is asked about such a gap."""

HELD_SECONDS = 0.02
"""Maximum time of a fetch while a partition is paused."""

FETCH_SECONDS = 0.1
"""Maximum time for which a fetch waits for records: only the next one has partitions that were
resumed meanwhile, as after a rebalance. Faust waits a second."""


RECOVERY_FETCH_SECONDS = 0.01
"""The same during a recovery. Its last fetch often brings the marker of a transaction alone, which
is no record."""


class RecoveryEnd(asyncio.Event):
    """Faust's signal that tables are recovered, which nobody believes as long as rows are missing.

    Faust clears it every five seconds only. A rebalance soon after another one would find it set,
    and partitions would be opened with what a former owner left on this disk, or with nothing.

    Args:
        needs_more: returns whether a table still lacks rows of its changelog.
    """

    def __init__(self, needs_more: Callable[[], bool]) -> None:
        super().__init__()
        self._needs_more = needs_more

    async def wait(self) -> Literal[True]:
        """Wait until it is set, and true."""
        await super().wait()
        while self._needs_more():
            self.clear()
            await super().wait()
        return True


class ChunkThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, which reads committed records only."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        read_every_record(transport.chunk_records)
        consumer = super()._create_worker_consumer(transport)
        consumer._isolation_level = "read_committed"
        return consumer

    async def on_start(self) -> None:
        """Start the consumer; its fetches keep the pace that the transport sets."""
        await super().on_start()
        fetcher, consumer = cast(Any, self._consumer)._fetcher, cast(Any, self.consumer)
        consumer.transport.pace.apply_to(fetcher)
        fetch_only(fetcher, consumer.fetches, consumer.fetch_wait)

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Join the group, once the process before is out of it."""
        file = cast(ChunkTransport, self.transport).member_file
        if file is not None:
            coordinator = cast(Any, self._ensure_consumer())._coordinator
            await self.call_thread(file.dismiss, coordinator)
        await super().subscribe(topics)

    def plan_again(self) -> None:
        """Wake the consumer, which plans its requests anew: other partitions are fetched now."""
        consumer: Any = self._consumer
        if consumer is not None:
            fetcher = consumer._fetcher
            self.thread_loop.call_soon_threadsafe(
                lambda: fetcher._notify(fetcher._wait_consume_future)
            )

    async def on_thread_stop(self) -> None:
        """Stop the consumer; aiokafka fails at that if no broker answers, with nothing to save."""
        try:
            await super().on_thread_stop()
        except asyncio.CancelledError:
            log.warning("the consumer did not close: no broker answers")
        except KafkaError as error:
            log.warning("the consumer did not close: %s", first_line(error))


class ChunkConsumer(driver.Consumer):
    """Yields one message per chunk of a source topic, and applies changelogs in bulk.

    Whatever Faust drops, repeats or rewinds around a rebalance: each chunk says which offsets it
    covers, and the chunks of a partition follow each other without a gap unless the log has one.
    """

    app: Any
    transport: "ChunkTransport"
    _thread: ChunkThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._next: dict[TP, int] = {}  # offset that the next fetched record should have
        self._probed: dict[TP, int] = {}  # sought to once, to tell a lost fetch from a real gap
        self._rewind: dict[TP, int] = {}  # offset to seek to before the next fetch
        self._gaps: dict[TP, tuple[int, int]] = {}  # offsets [start, end) that the log lacks
        self._room = asyncio.Event()
        self.rebalance_log = RebalanceLog()
        super().__init__(*args, **kwargs)
        self._databases = ChangelogDatabases(lambda: self.app.tables, self.transport)

    def _new_consumer_thread(self) -> ChunkThread:
        return ChunkThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def _owner(self) -> Owner:
        return self.transport.owner

    def _is_source(self, tp: TP) -> bool:
        return tp.topic in self.transport.chunk_records

    def rewind(self, tp: TP, offset: int) -> None:
        """Fetch a partition again from an offset."""
        self._rewind[tp] = offset

    def fetches(self, tp: TP) -> bool:
        """Return whether a partition is fetched now: the flow is on, and it is not paused."""
        return self.flow_active and tp in self._active_partitions

    def fetch_wait(self) -> int:
        """Return fetch.max.wait.ms of the next fetch."""
        return REBALANCE_WAIT_MILLISECONDS if self.app.rebalancing else FETCH_WAIT_MILLISECONDS

    def resume_flow(self) -> None:
        """Fetch again."""
        super().resume_flow()
        self._thread.plan_again()

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Fetch partitions again."""
        super().resume_partitions(tps)
        self._thread.plan_again()

    def unread(self, tp: TP) -> int | None:
        """Return the number of offsets not yet fetched that can be read; None if unknown.

        Records from the first unfinished transaction on cannot: see `held_back`.
        """
        state = self._fetch_state(tp)
        if state is None or state.highwater is None or not state.has_valid_position:
            return None
        return max(0, int(_stable_end(state) - state.position))

    def held_back(self, tp: TP) -> tuple[int, int]:
        """Return the first offset that an unfinished transaction holds back, and how many it does.

        They are (0, 0) if all records can be read, or if it is not known.
        """
        state = self._fetch_state(tp)
        if state is None or state.highwater is None:
            return 0, 0
        first = _stable_end(state)
        return (first, int(state.highwater) - first) if first < state.highwater else (0, 0)

    def fetched_end(self, tp: TP) -> int | None:
        """Return the end offset that the latest fetch showed of a partition; None if unknown."""
        state = self._fetch_state(tp)
        return None if state is None or state.highwater is None else int(state.highwater)

    def _fetch_state(self, tp: TP) -> Any:
        """Return what the client knows of an assigned partition; None if it is not assigned."""
        consumer = self._thread._consumer
        subscription = None if consumer is None else consumer._subscription.subscription
        assignment = None if subscription is None else subscription.assignment
        if assignment is None or tp not in assignment.tps:
            return None
        return assignment.state_value(tp)

    def ack(self, message: Any) -> bool:
        """Acknowledge a chunk, freeing its place in the queue."""
        acknowledged: bool = super().ack(message)
        self.wake()
        return acknowledged

    def wake(self) -> None:
        """Check again which partitions have room."""
        self._room.set()

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Fetch records, and yield one message per chunk, taking turns between partitions."""
        while self._rewind:
            tp, offset = self._rewind.popitem()
            if tp in self.assignment():
                self._next[tp] = offset
                await self._seek_all({tp: offset})
        records, active = await self._wait_next_records(timeout)
        generation = self.app.consumer_generation_id
        if records is None or self.should_stop:
            return
        if not self.flow_active:
            return  # everything is sought again before flow resumes
        others = {tp: part for tp, part in records.items() if not self._is_source(tp)}
        queues = [self._chunks(tp, records[tp]) for tp in records if self._is_source(tp)]
        if self._gaps:
            await self._report_gaps()
        if not self.flow_active or self.app.consumer_generation_id != generation:
            return
        queues = self._without_small(queues)
        for turn in range(max(map(len, queues), default=0)):
            for queue in queues:
                if turn >= len(queue):
                    continue
                if not self.flow_active or self.app.consumer_generation_id != generation:
                    return
                chunk = queue[turn]
                self._read_offset[chunk.tp] = chunk.records[-1].offset
                yield chunk.tp, self._message(chunk, generation)
        for tp, record in self.scheduler.iterate(others) if others else ():
            if not self.flow_active or self.app.consumer_generation_id != generation:
                return
            if active is None or tp in active:
                yield tp, self._to_message(tp, record)

    def _without_small(self, queues: list[list[Chunk]]) -> list[list[Chunk]]:
        """Have small chunks applied at once; return the queues of the others.

        These go the way through Faust, with tasks of their own.
        """
        small = [q[0] for q in queues if len(q) == 1 and len(q[0].records) <= SMALL_RECORDS]
        applied = self._owner.take(small) if small else []
        for chunk in applied:
            self._read_offset[chunk.tp] = chunk.records[-1].offset
            self._acked.setdefault(chunk.tp, [])  # Faust commits the offsets of these partitions
        tps = {chunk.tp for chunk in applied}
        return [queue for queue in queues if queue and queue[0].tp not in tps]

    def _chunks(self, tp: TP, records: Sequence[Any]) -> list[Chunk]:
        """Cut records into chunks that start at the end of the last one.

        If the first offset is past the expected one, that one is sought once, to tell a lost fetch
        from a gap of the log.
        """
        want = self._next.get(tp)
        if not records or (want is not None and records[-1].offset < want):
            return []
        if want is not None:
            if records[0].offset < want:
                records = [record for record in records if record.offset >= want]
            if records[0].offset > want and self._probed.get(tp) != want:
                self._probed[tp] = want
                self._rewind[tp] = want
                return []
            if records[0].offset > want + MARKERS:
                self._gaps[tp] = want, records[0].offset
        start = records[0].offset if want is None else want
        size = self.transport.chunk_records[tp.topic]
        chunks = []
        for first in range(0, len(records), size):
            part = records[first : first + size]
            end = part[-1].offset + 1
            chunks.append(Chunk(tp, start, end, part))
            start = end
        self._next[tp] = start
        return chunks

    async def _report_gaps(self) -> None:
        """Report what retention has deleted: markers and aborted records leave gaps too."""
        gaps, self._gaps = self._gaps, {}
        try:
            begins = await self.earliest_offsets(*gaps)
        except KafkaError as error:
            log.warning("the begin of a log cannot be read: %s", first_line(error))
            return
        for tp, (start, end) in gaps.items():
            deleted = min(begins.get(tp) or 0, end) - start
            if deleted > 0:
                self.transport.report_deleted(tp, start, deleted)

    def _message(self, chunk: Chunk, generation: int) -> Any:
        last = chunk.records[-1]
        return ConsumerMessage(
            chunk.tp.topic,
            chunk.tp.partition,
            last.offset,
            (last.timestamp or 0) / 1000.0,  # None in the first message formats
            last.timestamp_type,
            None,
            None,
            cast(Any, chunk),
            None,
            0,
            0,
            chunk.tp,
            generation_id=generation,
        )

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:
        """Fetch partitions that have room, and apply the records of changelogs."""
        if not self.flow_active:
            await self.wait(cast(Any, self.can_resume_flow))
        if not self._get_active_partitions():  # Faust would sleep for a second
            await asyncio.sleep(HELD_SECONDS)
            return {}, set()
        most = RECOVERY_FETCH_SECONDS if self.app.in_recovery else FETCH_SECONDS
        records, active = await super()._wait_next_records(min(timeout, most))
        self._set_pace(records or {})
        if records is not None and self.flow_active:
            await self._apply_changelogs(records, active or ())
        return records, active

    def _set_pace(self, records: Mapping[TP, Sequence[Any]]) -> None:
        """Set the time to the next fetch: more if this one brought few events, and these alone."""
        pace = self.transport.pace
        work = pace.work()
        if not records:
            return
        counts = [len(some) for tp, some in records.items() if self._is_source(tp)]
        sources = [tp for tp in self.assignment() if self._is_source(tp)]
        waiting = sum(self.unread(tp) or 0 for tp in sources)  # of those without room too
        events = sum(counts) + waiting if len(counts) == len(records) else None
        pace.fetched(work, events, self.transport.linger_seconds)

    async def _getmany(self, active_partitions: Any, timeout: float) -> Any:
        """Fetch, except for source partitions that have no room.

        Only source partitions are ever paused, never recovery or a standby.
        """
        if active_partitions is not None:
            paused = {
                tp for tp in active_partitions if self._is_source(tp) and not self._owner.room(tp)
            }
            if paused:
                timeout = min(timeout, HELD_SECONDS)
                active_partitions = active_partitions - paused
                if not active_partitions:
                    self._room.clear()
                    try:
                        async with asyncio.timeout(timeout):
                            await self._room.wait()
                    except TimeoutError:
                        pass
                    return {}
        return await super()._getmany(active_partitions, timeout)

    async def _apply_changelogs(self, records: Any, active: Collection[TP]) -> None:
        """Write the fetched records of changelogs to their tables in bulk, and end recovery.

        Faust writes them one by one, an order of magnitude slower. The last offset of a partition
        may be the marker of a transaction, which is never delivered: the consumer's position
        counts, not the last record.
        """
        recovery = self.app.tables.recovery
        for tp in filter(self._databases.has, active):
            changes = records.pop(tp, None)
            if tp in recovery.active_tps:
                offsets = recovery.active_offsets
            elif tp in recovery.standby_tps:
                offsets = recovery.standby_offsets
            else:
                continue
            if changes:
                # On the event loop, not in a thread: a rebalance may close the database.
                self._databases.write(tp, changes)
                self._read_offset[tp] = changes[-1].offset
                offsets[tp] = max(_known(offsets[tp]), changes[-1].offset)
            position = self._position(tp)
            if position is not None and position - 1 > _known(offsets[tp]):
                offsets[tp] = position - 1
            end = self.fetched_end(tp)
            if position is not None and end is not None and position >= end:
                self._databases.note_whole(tp)
        if recovery.in_recovery and not recovery.need_recovery():
            recovery.flush_buffers()
            recovery._set_recovery_ended()
            recovery.signal_recovery_end.set()

    def _position(self, tp: TP) -> int | None:
        """Return the offset of the next record; None if it is not known, or not assigned."""
        state = self._fetch_state(tp)
        return None if state is None or not state.has_valid_position else int(state.position)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        """Return the end offsets of partitions, those of changelogs not before their database's.

        A transaction is over before its marker is written, and until then nothing of it counts. So
        a database that this worker has just written may be past the end, and Faust would take that
        for a changelog that has lost records.
        """
        deadline = time.monotonic() + MARKER_SECONDS
        while True:
            ends = await self._ends_of(partitions)
            waits = any(self._databases.is_past(tp, end) for tp, end in ends.items())
            if not waits or time.monotonic() > deadline:
                return ends
            await asyncio.sleep(MARKER_LOOK_SECONDS)

    async def _ends_of(self, partitions: Collection[TP]) -> Mapping[TP, int]:
        """Return end offsets, by fetches if the broker's own answer is wrong."""
        ends = self.transport.ends
        if ends is None:
            return await super().highwaters(*partitions)
        return await ends(partitions)

    async def perform_seek(self) -> None:
        """Seek open source partitions to their state's position.

        Faust would first ask for the group's offset of each partition, one after the other.
        """
        sources = [tp for tp in self.assignment() if self._is_source(tp)]
        positions = {tp: self._owner.position(tp) for tp in sources}
        starts = {tp: position for tp, position in positions.items() if position is not None}
        for tp in starts:
            self._rewind.pop(tp, None)
        self._next |= starts
        await self._seek_all(starts)

    async def _seek_all(self, offsets: Mapping[TP, int]) -> None:
        consumer = self._thread._ensure_consumer()

        def seek() -> None:
            for tp, offset in offsets.items():
                with contextlib.suppress(IllegalStateError):  # taken away: sought when it is back
                    consumer.seek(tp, offset)

        for tp in offsets:
            self._read_offset[tp] = None  # or Faust drops records that it believes to have read
        await self._thread.call_thread(cast(Any, seek))

    def _new_offset(self, tp: TP) -> int | None:
        """Return the offset to commit for the group: the position of the state's last commit."""
        if not self._is_source(tp):
            offset: int | None = super()._new_offset(tp)
            return offset
        self._acked[tp].clear()
        self._acked_index[tp].clear()
        position = self._owner.committed(tp)
        before = self._committed_offset[tp]
        return position if position is not None and (before is None or position > before) else None

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Release source partitions before Faust forgets which offsets were acknowledged."""
        self.rebalance_log.begin()
        sources = [tp for tp in revoked if self._is_source(tp)]
        if sources and not self.app.should_stop:
            self.stop_flow()
            self.app.flow_control.suspend()
            self.app.flow_control.clear()
            await self._owner.release(sources)
            await self.commit()
        for tp in revoked:
            self._next.pop(tp, None)
            self._probed.pop(tp, None)
            self._rewind.pop(tp, None)
        await super().on_partitions_revoked(revoked)
        self.rebalance_log.phase("release")

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Fence the former owners of source partitions before their tables are recovered."""
        self.rebalance_log.phase("join")
        sources = [tp for tp in assigned if self._is_source(tp)]
        await self._owner.fence(sources, generation_id)
        self.rebalance_log.phase("fence")
        self._databases.empty_old(assigned)
        await super().on_partitions_assigned(assigned, generation_id)
        self.rebalance_log.phase("databases")
        if self.transport.member_file is not None:
            consumer: Any = self._thread._ensure_consumer()
            self.transport.member_file.note(consumer._coordinator.member_id)

    async def leave(self) -> None:
        """Leave the group: the others take the partitions over while the rest here still stops."""
        consumer = self._thread._consumer
        if consumer is not None:
            await self._thread.call_thread(consumer._coordinator.close)

    async def verify_all_partitions_active(self) -> None:
        """Disabled: /healthz detects a stalled worker."""


class FetchedPartition:
    """A source partition as a `Partition` sees its consumer.

    Args:
        consumer: fetches the partition.
        tp: topic and partition number.
    """

    def __init__(self, consumer: ChunkConsumer, tp: TP) -> None:
        self.topic, self.number = tp.topic, tp.partition
        self._consumer = consumer
        self._tp = tp

    def rewind(self, offset: int) -> None:
        """Fetch the partition again from an offset."""
        self._consumer.rewind(self._tp, offset)

    def unread(self) -> int | None:
        """Return the number of offsets not yet fetched; None if unknown."""
        return self._consumer.unread(self._tp)


def _stable_end(state: Any) -> int:
    """Return the offset after the records that can be read: Kafka's last stable offset."""
    stable = state.lso
    return (
        int(state.highwater) if stable is None or stable < 0 else int(min(stable, state.highwater))
    )


def _known(offset: int | None) -> int:
    return -1 if offset is None else offset


class ChunkTransport(driver.Transport):
    """Faust's transport with a consumer that yields chunks.

    Attributes:
        chunk_records: maximum number of records of a chunk, by source topic.
        owner: owner of the partitions.
        ends: returns end offsets if the broker's own answer is wrong.
        count_unreadable: called with table and problem of a row that cannot be one.
        pace: minimum time between two fetches; set by the consumer.
        linger_seconds: the same after a fetch that brought few records; None for one that leaves
            the event loop idle for half of the time.
        member_file: keeps the id of the member that the worker is; None for nowhere.
        tombstone_seconds: time for which a changelog keeps the mark of a deletion.
        report_deleted: called with a partition, an offset, and the number of records from there on
            that retention deleted before they were read.
    """

    Consumer = ChunkConsumer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.chunk_records: Mapping[str, int] = {}
        self.owner: Owner = NoOwner()
        self.ends: Callable[[Collection[TP]], Awaitable[Mapping[TP, int]]] | None = None
        self.count_unreadable: Callable[[str, str], object] = lambda table, problem: None
        self.pace = FetchPace()
        self.linger_seconds: float | None = None
        self.member_file: MemberFile | None = None
        self.tombstone_seconds = TOMBSTONE_SECONDS
        self.report_deleted: Callable[[TP, int, int], object] = lambda tp, offset, count: None


class ChunkSchema(faust.Schema[None, Any]):
    """Passes chunks to the agent unchanged."""

    def loads_key(self, app: Any, message: Any, **kwargs: Any) -> None:
        """Chunks have no key."""

    def loads_value(self, app: Any, message: Any, **kwargs: Any) -> Any:
        """Return the chunk."""
        return message.value
