"""Partition: processes the chunks of one source partition in order, with commits in parallel.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from aiokafka.errors import KafkaError

from tracker.explained import first_line
from tracker.feeds.background import TaskEndedError
from tracker.feeds.source_ends import UnknownOffsetError
from tracker.kafka.changelog_rows import Stored, stored_rows
from tracker.kafka.cluster import BrokerError, TopicError
from tracker.kafka.outbox import MAX_WAITING_BYTES, Outbox, Record
from tracker.kernels.row_bytes import NewerRowError
from tracker.store.arena import ArenaFullError
from tracker.store.partition_store import PartitionStore
from tracker.stream.commit_schedule import CommitScheduler
from tracker.stream.serving import Context
from tracker.stream.side import DamagedRowsError, OpenVerdictError, Side
from tracker.users.states import NewerArtifactError

if TYPE_CHECKING:
    from faust.types import TP  # this room knows Kafka's names and not Faust

log = logging.getLogger(__name__)

Result = TypeVar("Result")

WAITING_CHUNKS = 4
"""Chunks that a partition queues before its fetches pause; under load each chunk gets larger."""

JOINED_RECORDS = 1000
"""Most records of chunks that have waited and are processed as one."""

SMALL_RECORDS, SMALL_BYTES = 32, 5000
"""Limits of a chunk that is processed on the event loop: 32 events of the usual size. Handing such
a chunk to a thread and back takes longer than processing it, and answers over HTTP wait for a chunk
that is in a thread."""

RETRY_SECONDS = 0.2
"""Wait before a state's artifact is looked for again."""

READ_AGAIN_SECONDS = 120.0
"""Maximum time in which damaged rows are looked for in the changelog."""

REST_SECONDS = 1.0
"""Maximum time that a partition rests before it looks for what is due."""

WAKE_SECONDS = 0.002
"""A partition at rest is not woken for less."""

LIMIT_SECONDS = 0.1
"""Wait before it is asked again whether a chunk may be applied."""

NEWER_ROW_SECONDS = 1.0
"""Wait before a row of a newer version is read again."""


MOST_QUERIES = 64
"""Queries of a partition that wait at most; further ones are refused."""


class BusyError(Exception):
    """Too many queries wait for the partition."""


class RevokedError(Exception):
    """The partition is no longer this worker's."""


@dataclass(slots=True)
class Chunk:
    """Records of one partition, and the offsets [start, end) that they cover.

    Offsets of the range without a record are markers of transactions, or records that retention
    or compaction has removed.
    """

    tp: "TP"
    start: int
    end: int
    records: Sequence[Any]

    def past(self, position: int) -> Sequence[Any]:
        """Return the records at or past a position."""
        records = self.records
        if not records or records[0].offset >= position:
            return records
        return [record for record in records if record.offset >= position]


@dataclass(slots=True)
class _QueuedChunk:
    """A chunk in the queue; `on_done` is called when it is applied or dropped."""

    chunk: Chunk
    on_done: Callable[[], object]


@dataclass(slots=True)
class _Query:
    """A read-only query that waits, and the future of its answer."""

    run: Callable[[], Any]
    answer: "asyncio.Future[Any]"


WAITS = (
    ArenaFullError,
    DamagedRowsError,
    NewerArtifactError,
    NewerRowError,
    UnknownOffsetError,
)
"""What a chunk is held up by, with nothing changed; see `Partition._run_with_room`."""


def _is_small(records: Sequence[Any]) -> bool:
    """Return whether records are few enough for the event loop."""
    return len(records) <= SMALL_RECORDS and (
        sum(len(record.value or b"") for record in records) <= SMALL_BYTES
    )


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    """Return chunks that follow each other as one."""
    first, last = chunks[0], chunks[-1]
    if first is last:
        return first
    records = [record for chunk in chunks for record in chunk.records]
    return Chunk(first.tp, first.start, last.end, records)


class Source(Protocol):
    """A partition of a source topic, as its consumer sees it."""

    topic: str
    number: int

    def rewind(self, offset: int) -> None:
        """Fetch the partition again from an offset."""

    def unread(self) -> int | None:
        """Return the number of offsets not yet fetched; None if unknown."""


class Partition:
    """Processes the chunks of one source partition in order, and commits in the background.

    Small chunks are processed on the event loop, larger ones in a thread pool.

    Args:
        context: what the partitions of a worker share.
        source: the partition of the source topic.
        side: applies records to states, of users or of items.
        outbox: sends recommendations and rejections.
        threads: pool for large chunks and snapshots.
        on_fatal: called with an error that must end the worker.
        handed: the partition of the topic of handed-on events; None if there is none.
        limit: returns the offset of the source before which records may be applied; None for no
            such offset.

    Attributes:
        waits_for: what the partition cannot go on without; None if it goes on.
    """

    def __init__(
        self,
        context: Context,
        source: Source,
        side: Side[Any],
        outbox: Outbox,
        threads: Executor,
        on_fatal: Callable[[BaseException], None],
        handed: Source | None = None,
        limit: Callable[[], int] | None = None,
    ) -> None:
        self.name = f"{source.topic}-{source.number}"
        self.side = side
        self.topic = source.topic
        self.number = source.number
        self._context = context
        self._source = source
        self._outbox = outbox
        self._threads = threads
        self._on_fatal = on_fatal
        self._limit = limit
        self._sources = {part.topic: part for part in (source, handed) if part is not None}
        self._accepted = dict.fromkeys(self._sources, 0)  # offsets after the last chunk queued
        self._waiting = dict.fromkeys(self._sources, 0)  # chunks in the queue
        self._queue: deque[_QueuedChunk] = deque()
        self._queries: deque[_Query] = deque()
        self._wake = asyncio.Event()
        self._rests = False  # nothing is done with the states, and nothing is half done
        self._rests_until = 0.0  # monotonic time
        self._commits_first = False  # the clock by which the next chunk is judged
        self._closing = False
        self._failed = False
        self.waits_for: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._commits = CommitScheduler(
            context, self.name, source.number, side, outbox, threads, self._on_commit
        )

    @property
    def store(self) -> PartitionStore[Any]:
        """States and position of the partition."""
        return self.side.store

    def room(self, topic: str) -> bool:
        """Return whether the partition accepts more chunks of a topic."""
        return (
            self._waiting[topic] < WAITING_CHUNKS
            and not self._outbox.full
            and self.side.outgoing_bytes <= MAX_WAITING_BYTES
        )

    @property
    def waiting_bytes(self) -> int:
        """Size of what the partition has made and the brokers have not accepted, in bytes."""
        return self._outbox.waiting_bytes + self.side.outgoing_bytes

    @property
    def lag(self) -> int:
        """Number of records that are not in the state."""
        return sum(self.lags().values())

    def lags(self) -> dict[str, int]:
        """Return by topic how many offsets are not in the state: not fetched, or in the queue.

        The end offset of the log does not tell it: markers of transactions have an offset, and
        never arrive.
        """
        if not self.store.is_open:
            return dict.fromkeys(self._sources, 0)
        return {
            topic: (source.unread() or 0)
            + max(0, self._accepted[topic] - self.store.reached(self._is_handed(topic)).position)
            for topic, source in self._sources.items()
        }

    async def start(self) -> None:
        """Start processing. The store is open; a position that was never committed is committed."""
        await self._in_thread(self.side.opened)
        if self.store.committed is None:
            await self._commits.commit_all()
        self._task = asyncio.create_task(self._run(), name=self.name)
        self._task.add_done_callback(self._check_end)

    def accept(self, chunk: Chunk, on_done: Callable[[], object]) -> None:
        """Queue a chunk; `on_done` is called when it is applied, or dropped because of the end."""
        if self._closing or self._task is None:
            on_done()
            return
        self._accepted[chunk.tp.topic] = chunk.end
        self._waiting[chunk.tp.topic] += 1
        self._queue.append(_QueuedChunk(chunk, on_done))
        self._wake.set()

    def is_free_for(self, chunk: Chunk) -> bool:
        """Return whether a chunk of the source is small, is the next one, and nothing waits."""
        reached = self.store.reached(False)
        return (
            self._rests
            and not self._closing
            and not self._queue
            and self._limit is None
            and chunk.start == reached.position
            and not reached.position < reached.clock_end < chunk.end
            and _is_small(chunk.records)
        )

    def apply_now(self, chunk: Chunk) -> bool:
        """Apply a chunk for which the partition is free; its lists are left for `take_lists`.

        Returns:
            False if it has to come by `accept`, where what it needs is waited for.
        """
        try:
            with self._chunk_trace(chunk):
                self.store.settle()
                self._outbox.put(self.side.process(chunk.records, chunk.end, together=True))
        except OpenVerdictError:
            self._commits_first = True
            return False
        except WAITS:
            return False
        except BaseException as error:  # a bug, or another worker owns the partition
            self.fail(error)
            return False
        self._accepted[chunk.tp.topic] = chunk.end
        if time.monotonic() + self._idle_seconds() < self._rests_until - WAKE_SECONDS:
            self._wake.set()
        return True

    def send(self, records: Sequence[Record]) -> None:
        """Send records of what was applied, in the background."""
        self._outbox.put(records)

    def fail(self, error: BaseException) -> None:
        """End the worker; nothing of the partition is committed any more."""
        self._failed = self._closing = True
        self._on_fatal(error)

    async def query(self, run: Callable[[], Result]) -> Result:
        """Run a query between two chunks, and return its answer.

        It runs on the event loop, at once unless a chunk is under way in a thread, and chunks wait
        for it: it may copy what is kept of a user, and nothing else. It takes no room in the queue
        of chunks, so no fetch is held back for it.

        Raises:
            BusyError: MOST_QUERIES wait.
            RevokedError: the partition is closed, or not started.
        """
        if self._closing or self._task is None:
            raise RevokedError(f"{self.name} is not open")
        if self._rests:
            return run()
        if len(self._queries) >= MOST_QUERIES:
            raise BusyError(f"{MOST_QUERIES} questions wait for {self.name}")
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queries.append(_Query(run, answer))
        self._wake.set()
        return await answer

    async def close(self) -> None:
        """Finish the current chunk, commit and close; queued chunks are dropped."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        while self._queue:
            self._drop(self._queue.popleft())
        while self._queries:
            self._refuse(self._queries.popleft())
        if self.store.is_open and not self._failed:
            await self._commits.commit_all()

    async def _run(self) -> None:
        try:
            while True:
                self.store.settle()
                await self._wait()
                if self._closing:
                    return
                self._answer_queries()
                entry = self._take()
                if entry is not None:
                    entries = [entry, *self._take_joined(entry.chunk)]
                    self._waiting[entry.chunk.tp.topic] -= len(entries)
                    await self._apply(_joined([one.chunk for one in entries]))
                    for one in entries:
                        one.on_done()
                await self._apply_requests()
                await self._emit_due()
                await self._commits.commit_if_due()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a bug, or another worker owns the partition
            self.fail(error)

    def _take(self) -> _QueuedChunk | None:
        """Take the next chunk that may be applied out of the queue; None if none may be."""
        if self._limit is None:
            return self._queue.popleft() if self._queue else None
        at = self._next_within_limit()
        if at is None:
            return None
        entry, limit = self._queue[at], self._limit()
        chunk = entry.chunk
        del self._queue[at]
        if self._is_handed(chunk.tp.topic) or chunk.end <= limit:
            return entry
        rest = Chunk(chunk.tp, limit, chunk.end, chunk.past(limit))
        self._queue.insert(at, _QueuedChunk(rest, entry.on_done))
        self._waiting[chunk.tp.topic] += 1
        before = [record for record in chunk.records if record.offset < limit]
        return _QueuedChunk(Chunk(chunk.tp, chunk.start, limit, before), lambda: None)

    def _take_joined(self, chunk: Chunk) -> list[_QueuedChunk]:
        """Take the chunks out of the queue that follow one and are processed with it.

        A chunk costs much whatever is in it. The longer chunks wait, the more of them are one.
        """
        entries: list[_QueuedChunk] = []
        if self._limit is not None:
            return entries
        end, records = chunk.end, len(chunk.records)
        while self._queue:
            following = self._queue[0].chunk
            records += len(following.records)
            if following.tp != chunk.tp or following.start != end or records > JOINED_RECORDS:
                break
            entries.append(self._queue.popleft())
            end = following.end
        return entries

    def _next_within_limit(self) -> int | None:
        """Return the place in the queue of the next chunk that may be applied."""
        assert self._limit is not None
        limit = self._limit()
        for at, entry in enumerate(self._queue):
            if self._is_handed(entry.chunk.tp.topic) or entry.chunk.start < limit:
                return at
        return None

    async def _wait(self) -> None:
        """Wait for a chunk, a query, or the time of the next commit or list."""
        if self._queries or self._closing:
            return
        seconds = self._idle_seconds()
        if seconds <= 0:
            return
        self._rests = True
        self._rests_until = time.monotonic() + seconds
        try:
            await self._woken(seconds)
        finally:
            self._rests = False

    async def _woken(self, seconds: float) -> None:
        """Wait until something has come, but no longer than that."""
        self._wake.clear()
        timer = asyncio.get_running_loop().call_later(seconds, self._wake.set)
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _idle_seconds(self) -> float:
        """Return the time to the next commit or list, REST_SECONDS at most; 0 if a chunk waits."""
        seconds = REST_SECONDS
        if self._queue:
            if self._limit is None or self._next_within_limit() is not None:
                return 0.0
            seconds = LIMIT_SECONDS
        commit_at = self._commits.due_at
        if commit_at is not None:  # the end of a running commit wakes us
            seconds = min(seconds, commit_at - time.monotonic())
        list_at = self._list_at()
        if list_at is not None:
            seconds = min(seconds, list_at - self._context.clock())
        return seconds

    async def _apply(self, chunk: Chunk) -> None:
        """Apply a chunk that follows the position; otherwise drop it, cut it or fetch it again.

        It is cut too where the records end whose verdicts were kept: the others have another clock.
        """
        topic = chunk.tp.topic
        handed = self._is_handed(topic)
        reached = self.store.reached(handed)
        position = reached.position
        if chunk.end <= position:
            return
        records = chunk.past(position)
        if chunk.start > position:
            self._accepted[topic] = position
            self._sources[topic].rewind(position)
            return
        clock_end = reached.clock_end
        if position < clock_end < chunk.end:
            before = [record for record in records if record.offset < clock_end]
            await self._apply(Chunk(chunk.tp, chunk.start, clock_end, before))
            if reached.position == clock_end:
                await self._apply(chunk)
            return
        fits = True
        with self._chunk_trace(chunk):
            try:
                out = await self._run_with_room(
                    lambda: self.side.process(records, chunk.end, handed), _is_small(records)
                )
            except ArenaFullError:
                if len(records) < 2:
                    raise
                fits = False
            else:
                self._outbox.put(out)
        if not fits:  # records of many events each: the users of half of them may fit
            half = len(records) // 2
            middle = records[half].offset
            await self._apply(Chunk(chunk.tp, position, middle, records[:half]))
            if reached.position == middle:
                await self._apply(chunk)

    def _chunk_trace(self, chunk: Chunk) -> AbstractContextManager[object]:
        return self._context.trace(
            "chunk", partition=self.name, records=len(chunk.records), end=chunk.end
        )

    def _is_handed(self, topic: str) -> bool:
        return topic != self._source.topic

    async def _apply_requests(self) -> None:
        """Forget the users whose requests have come, one after the other."""
        while self.side.has_requests() and not self._closing:
            self._outbox.put(await self._run_with_room(self.side.apply_request))

    async def _emit_due(self) -> None:
        list_at = self._list_at()
        if list_at is not None and list_at <= self._context.clock():
            self._outbox.put(await self._run_with_room(self.side.emit_due))

    def _list_at(self) -> float | None:
        """Return the wall time at which the next postponed list is due; None if none is."""
        return self.side.due_at(self.lag == 0) if self.side.pending() else None

    async def _run_with_room(
        self, work: Callable[[], list[Record]], small: bool = False
    ) -> list[Record]:
        """Run work of the side; commit first if it needs that, load an artifact that it needs.

        Small work runs on the event loop, other work in a thread. Returns [] if the partition is
        revoked while the work waits for an artifact.
        """
        waiting = False
        if self._commits_first:
            self._commits_first = False
            await self._commits.commit_all()
        while True:
            try:
                self.store.settle()
                out = work() if small else await self._in_thread(work)
                self.waits_for = None
                return out
            except ArenaFullError as full:
                if not self._commits.has_work:
                    raise  # all rows are clean, and still there are too few slots
                log.info("%s: committing early to free memory: %s", self.name, full)
                await self._commits.commit_all()
            except OpenVerdictError:
                await self._commits.commit_all()
            except NewerArtifactError as newer:
                if not await self._context.keeper.catch_up(newer.sequence):
                    if self._closing:
                        return []
                    if not waiting:
                        log.error("%s: waiting for an artifact: %s", self.name, newer)
                    waiting = True
                    await self._pause(RETRY_SECONDS)
            except NewerRowError as newer_row:
                if self._closing:
                    return []
                if self.waits_for is None:
                    log.error("%s: waiting, not to write over it: %s", self.name, newer_row)
                self.waits_for = str(newer_row)
                await self._pause(NEWER_ROW_SECONDS)
            except DamagedRowsError as damaged:
                if self._closing:
                    return []
                await self._read_again(damaged.keys)
            except UnknownOffsetError as unknown:
                if self._closing:
                    return []
                try:
                    await unknown.ends.refresh()
                except (BrokerError, KafkaError, TimeoutError) as error:
                    log.warning(
                        "%s: the ends of the events topic cannot be read, trying again: %s",
                        self.name, first_line(error),
                    )  # fmt: skip
                    await self._pause(RETRY_SECONDS)

    async def _read_again(self, keys: list[bytes]) -> None:
        """Read damaged rows from the changelog, within a deadline; what is good there counts."""
        context = self._context
        topics = context.cluster.topics
        changelog = topics.users_changelog if self.side.table == "users" else topics.items_changelog
        rows: dict[bytes, Stored] = {}
        try:
            async with asyncio.timeout(READ_AGAIN_SECONDS):
                rows = await stored_rows(
                    context.settings,
                    changelog,
                    self.number,
                    keys,
                    self.side.is_readable,
                    self.store.decrypted,
                )
        except (BrokerError, TopicError, KafkaError, TimeoutError) as error:
            log.warning("%s: damaged rows cannot be read again: %s", self.name, first_line(error))
        await self._in_thread(lambda: self.side.restore(keys, rows))

    async def _pause(self, seconds: float) -> None:
        """Wait before work is tried again; queries are answered and commits made meanwhile."""
        self._answer_queries()
        await self._commits.commit_if_due()
        if not self._closing:
            await self._woken(seconds)

    def _check_end(self, task: "asyncio.Task[None]") -> None:
        """End the worker if the task was cancelled, and with it nothing would be applied."""
        if task.cancelled() and not self._closing:
            self._failed = True
            self._on_fatal(TaskEndedError(f"the task of {self.name} was cancelled"))

    def _on_commit(self, error: BaseException | None) -> None:
        self._wake.set()
        if error is not None:
            self._on_fatal(error)

    def _answer_queries(self) -> None:
        """Answer the queries that wait; one that fails is its caller's error, not the worker's."""
        while self._queries:
            query = self._queries.popleft()
            if query.answer.done():  # whoever asked has gone
                continue
            try:
                answer = query.run()
            except Exception as error:  # told to whoever asked
                query.answer.set_exception(error)
            else:
                query.answer.set_result(answer)

    def _drop(self, entry: _QueuedChunk) -> None:
        self._waiting[entry.chunk.tp.topic] -= 1
        entry.on_done()

    def _refuse(self, query: _Query) -> None:
        if not query.answer.done():
            query.answer.set_exception(RevokedError(f"{self.name} is no longer this worker's"))

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        run = copy_context().run  # spans of the thread belong to the chunk's trace
        return await asyncio.get_running_loop().run_in_executor(self._threads, run, work)
