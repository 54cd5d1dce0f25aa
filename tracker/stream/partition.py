"""Partition: one source partition in work: chunks in order, commits beside them."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tracker.kafka.outbox import Outbox, Record
from tracker.store.arena import ArenaFullError
from tracker.store.partition_store import PartitionStore
from tracker.stream.commit_loop import Commits
from tracker.stream.serving import Context
from tracker.stream.side import Side
from tracker.users.states import NewerArtifactError

if TYPE_CHECKING:
    from faust.types import TP  # this room knows Kafka's names and not Faust

log = logging.getLogger(__name__)

Result = TypeVar("Result")

WAITING_CHUNKS = 4
"""Chunks that a partition takes before it is held back; they grow with the load by themselves."""

SMALL_RECORDS, SMALL_BYTES = 32, 2048
"""Records of up to so many bytes in all are processed on the event loop. At a moderate rate a chunk
holds an event or two, and to hand it to a thread and back takes longer than its work."""

RETRY_SECONDS = 0.2
"""After a state's artifact could not be read."""


@dataclass(slots=True)
class Chunk:
    """Records of one partition and the offsets [start, end) that they cover.

    What lies in the range and has no record, the broker left out: markers of transactions, and
    what retention or compaction removed.
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
class _Work:
    """A chunk, and whom to tell when it is applied."""

    chunk: Chunk
    done: Callable[[], object]


@dataclass(slots=True)
class _Question:
    """Something to be asked between two chunks, and who waits for the answer."""

    ask: Callable[[], Any]
    answer: "asyncio.Future[Any]"


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
        threads: pool for large chunks, questions and snapshots.
        on_fatal: called with an error that must end the worker.
    """

    def __init__(
        self,
        context: Context,
        source: Source,
        side: Side[Any],
        outbox: Outbox,
        threads: Executor,
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.name = f"{source.topic}-{source.number}"
        self.side = side
        self.number = source.number
        self._context = context
        self._source = source
        self._outbox = outbox
        self._threads = threads
        self._on_fatal = on_fatal
        self._accepted = 0  # the offset after the last chunk taken
        self._queue: deque[_Work | _Question] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._failed = False
        self._task: asyncio.Task[None] | None = None
        self._commits = Commits(context, source.number, side, outbox, threads, self._commit_ended)

    @property
    def store(self) -> PartitionStore[Any]:
        """The states and the position."""
        return self.side.store

    @property
    def room(self) -> bool:
        """Whether more chunks are taken."""
        return len(self._queue) < WAITING_CHUNKS and not self._outbox.full

    @property
    def lag(self) -> int:
        """Offsets of the log that are not in the state.

        Markers of transactions have an offset and never arrive, so the end of the log says
        nothing: what was not fetched counts, and what was and waits.
        """
        if not self.store.is_open:
            return 0
        return (self._source.unread() or 0) + max(0, self._accepted - self.store.row.position)

    async def start(self) -> None:
        """Begin to work; the store is open. A position never committed before is committed now."""
        await self._in_thread(self.side.opened)
        if self.store.committed is None:
            await self._commits.all()
        self._task = asyncio.create_task(self._run(), name=self.name)

    def accept(self, chunk: Chunk, done: Callable[[], object]) -> None:
        """Take a chunk; `done` is called when it is applied, or will not be."""
        if self._closing or self._task is None:
            done()
            return
        self._accepted = chunk.end
        self._queue.append(_Work(chunk, done))
        self._wake.set()

    async def ask(self, question: Callable[[], Result]) -> Result:
        """Ask between two chunks, when nothing of the state moves."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append(_Question(question, answer))
        self._wake.set()
        return await answer

    async def close(self) -> None:
        """Finish the chunk under way, commit, and give up; chunks that wait are not applied."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        while self._queue:
            self._drop(self._queue.popleft())
        if self.store.is_open and not self._failed:
            await self._commits.all()

    async def _run(self) -> None:
        try:
            while True:
                self.store.settle()
                await self._wait()
                if self._closing:
                    return
                if self._queue:
                    work = self._queue.popleft()
                    if isinstance(work, _Question):
                        await self._answer(work)
                    else:
                        await self._apply(work.chunk)
                        work.done()
                await self._emit()
                await self._commits.if_due()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # a bug, or somebody else owns the partition: all ends
            self._failed = True
            self._on_fatal(error)

    async def _wait(self) -> None:
        """Wait for work, or for the time at which something is due."""
        if self._queue or self._closing:
            return
        due = 1.0
        commit_at = self._commits.due_at
        if commit_at is not None:  # the end of one under way wakes us
            due = commit_at - time.monotonic()
        list_at = self.side.due_at(self.lag == 0)
        if list_at is not None:
            due = min(due, list_at - self._context.clock())
        if due <= 0:
            return
        self._wake.clear()
        try:
            async with asyncio.timeout(due):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _apply(self, chunk: Chunk) -> None:
        """Apply a chunk if it follows the position; drop, cut or ask again if it does not."""
        position = self.store.row.position
        if chunk.end <= position:
            return
        records = chunk.past(position)
        if chunk.start > position:
            self._accepted = position
            self._source.rewind(position)
            return
        small = len(records) <= SMALL_RECORDS and (
            sum(len(record.value or b"") for record in records) <= SMALL_BYTES
        )
        self._send(await self._with_room(lambda: self.side.process(records, chunk.end), small))

    async def _emit(self) -> None:
        list_at = self.side.due_at(self.lag == 0)
        if list_at is not None and list_at <= self._context.clock():
            self._send(await self._with_room(self.side.emit_due))

    def _send(self, records: list[Record]) -> None:
        self._outbox.put(records)

    async def _with_room(
        self, work: Callable[[], list[Record]], small: bool = False
    ) -> list[Record]:
        """Do work; commit early where it needs room, load what it misses.

        Work that is small is done on the event loop, other work in a thread. Nothing comes of it
        where the partition is given up while it still waits for an artifact.
        """
        waits = False
        while True:
            try:
                self.store.settle()
                return work() if small else await self._in_thread(work)
            except ArenaFullError as full:
                if not self._commits.waiting:
                    raise  # everything is clean, and still there is no room
                log.info("%s commits early: %s", self.name, full)
                await self._commits.all()
            except NewerArtifactError as newer:
                if not await self._context.keeper.catch_up(newer.sequence):
                    if self._closing:
                        return []
                    if not waits:
                        log.error("%s waits for an artifact: %s", self.name, newer)
                    waits = True
                    await asyncio.sleep(RETRY_SECONDS)

    def _commit_ended(self, error: BaseException | None) -> None:
        self._wake.set()
        if error is not None:
            self._on_fatal(error)

    async def _answer(self, question: _Question) -> None:
        if question.answer.cancelled():
            return
        self.store.settle()
        try:
            answer = await self._in_thread(question.ask)
        except (ArenaFullError, NewerArtifactError, ValueError, LookupError) as error:
            if not question.answer.cancelled():
                question.answer.set_exception(error)
        else:
            if not question.answer.cancelled():
                question.answer.set_result(answer)

    def _drop(self, work: _Work | _Question) -> None:
        if isinstance(work, _Work):
            work.done()
        else:
            work.answer.cancel()

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)
