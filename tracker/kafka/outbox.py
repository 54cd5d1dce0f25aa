"""Outbox: sends the recommendations and rejections of one partition in order.

On the paths of one event and one commit: see docs/design/one-event-one-commit.md.
"""

import asyncio
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, NamedTuple

import numpy as np
from aiokafka.errors import (
    InvalidMessageError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)
from numpy.typing import NDArray

from tracker.events.wire import Rejection
from tracker.explained import Explained, first_line
from tracker.kafka.patience import DEFAULT, Patience
from tracker.kafka.record_batch import RecordBatch, record_bytes
from tracker.kafka.record_format import HEADER

log = logging.getLogger(__name__)

MAX_BATCH_BYTES = 512 * 1024
"""Maximum size of one batch of a producer; brokers accept 1 MiB by default."""

MAX_RECORD_BYTES = MAX_BATCH_BYTES - 4096
"""Maximum size of key and value of a record; a larger one is dropped."""

MAX_REJECTED_BYTES = 64 * 1024
"""Maximum size of a rejected value; a larger one is cut, and a header has the hash of the whole."""

MAX_WAITING_BYTES = 32 * 1024 * 1024
"""Size of unsent records from which the partition accepts no more chunks."""

REFUSED = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    InvalidMessageError,
)
"""Errors of a broker that will never accept the batch."""


class SendError(Explained):
    """Recommendations or rejections could not be sent; after a restart they are made again."""


class Record(NamedTuple):
    """A record to be sent to one partition of a topic."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def size(self) -> int:
        """Size of key and value, in bytes."""
        return len(self.key or b"") + len(self.value or b"")


def rejected_record(
    topic: str,
    partition: int,
    key: bytes | None,
    value: bytes | None,
    rejection: Rejection,
    several: bool = False,
) -> Record:
    """Return the record that keeps a rejected one: its bytes, with reason and source as headers.

    A value above 64 KiB is cut; then its size and SHA-256 are headers too. A tombstone without a
    key becomes an empty value. With `several`, the record has several events, and the value holds
    only the rejected ones.
    """
    headers = [
        ("reason", rejection.reason.encode()),
        ("message", rejection.message.encode("utf-8", "replace")[:1024]),
        ("topic", rejection.topic.encode()),
        ("partition", str(rejection.partition).encode()),
        ("offset", str(rejection.offset).encode()),
    ]
    if several:
        headers.append(("events", str(rejection.events).encode()))
    if value is not None and len(value) > MAX_REJECTED_BYTES:
        headers += [
            ("size", str(len(value)).encode()),
            ("sha256", hashlib.sha256(value).hexdigest().encode()),
        ]
        value = value[:MAX_REJECTED_BYTES]
    if key is not None and len(key) > MAX_REJECTED_BYTES:
        key = key[:MAX_REJECTED_BYTES]
    if value is None and key is None:
        value = b""
    return Record(topic, partition, key, value, tuple(headers))


def fill_batches(
    records: Sequence[Record], transactional: bool
) -> list[tuple[RecordBatch, Sequence[Record]]]:
    """Pack records of one topic partition into as few batches as possible, each in their order.

    Args:
        records: at least one.
        transactional: whether the producer is.
    """
    keys = [record.key for record in records]
    values = [record.value for record in records]
    has_headers = any(record.headers for record in records)
    batches = []
    sizes = record_bytes(keys, values)
    if has_headers:
        sizes += [sum(len(name) + len(value) + 16 for name, value in r.headers) for r in records]
    for part in parts_of(sizes):
        headers = [record.headers for record in records[part]] if has_headers else None
        batch = RecordBatch(keys[part], values[part], headers, transactional=transactional)
        batches.append((batch, records[part]))
    return batches


def parts_of(sizes: NDArray[np.int64]) -> list[slice]:
    """Cut records of some sizes, in bytes, into batches; one that is too large is alone."""
    parts = []
    ends = np.cumsum(sizes)
    start = 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        end = int(np.searchsorted(ends, before + MAX_BATCH_BYTES - HEADER.size, side="right"))
        parts.append(slice(start, max(end, start + 1)))
        start = parts[-1].stop
    return parts


class Outbox:
    """Sends the records of one source partition in order, in the background.

    `put` never waits. A commit waits with `mark` and `wait` for everything put before it. A record
    that the broker will never accept is counted and dropped; after any other failure `wait` raises
    it, and so does every later `wait`.

    The producer tries without end (idempotent ones never let a batch expire), so a deadline is
    ours to keep: a topic that cannot be written would hold all commits.

    Args:
        producer: producer of all outboxes, started.
        on_dropped: called with the topic of a dropped record, and the reason.
        patience: in which the brokers have to accept records.
        trace: encloses the sending of what goes out together, in the trace of the first of it.

    Attributes:
        waiting_bytes: size of the records that the broker has not accepted yet.
    """

    def __init__(
        self,
        producer: Any,
        on_dropped: Callable[[str, str], None],
        patience: Patience = DEFAULT,
        trace: Callable[..., AbstractContextManager[object]] = lambda name: nullcontext(),
    ) -> None:
        self._producer = producer
        self._trace = trace
        self._on_dropped = on_dropped
        self._patience = patience
        self._tail: asyncio.Task[None] | None = None
        self._waiting: list[Record] | None = None  # of the last task, until it takes them
        self.waiting_bytes = 0

    @property
    def full(self) -> bool:
        """True if so much is unsent that the partition should accept no more chunks."""
        return self.waiting_bytes > MAX_WAITING_BYTES

    def put(self, records: Sequence[Record]) -> None:
        """Send records in the background, after those put before.

        What is put while others are on their way waits for these, and goes out together: with a
        slow broker, batches become large instead of many.
        """
        if not records:
            return
        self.waiting_bytes += sum(record.size for record in records)
        if self._waiting is not None:
            self._waiting += records
            return
        self._waiting = list(records)
        self._tail = asyncio.create_task(self._send(self._tail))
        self._tail.add_done_callback(_retrieve)

    def mark(self) -> "asyncio.Task[None] | None":
        """Return a mark for `wait`: everything put so far."""
        return self._tail

    async def wait(self, mark: "asyncio.Task[None] | None") -> None:
        """Wait until everything put before the mark is in Kafka.

        Raises:
            SendError: the broker did not accept it in time.
        """
        if mark is not None:
            try:
                await asyncio.shield(mark)
            except (KafkaError, OSError) as error:
                raise SendError(
                    f"recommendations or rejections cannot be sent ({first_line(error)}): the"
                    " worker stops, and after a restart their events are processed again"
                ) from error

    async def _send(self, before: "asyncio.Task[None] | None") -> None:
        with self._trace("send"):
            await self._send_after(before)

    async def _send_after(self, before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await asyncio.shield(before)
        assert self._waiting is not None  # it is until this task takes it
        records, self._waiting = self._waiting, None
        sent: list[tuple[asyncio.Future[Any], Sequence[Record]]] = []
        started_at = time.monotonic()
        try:
            async with self._patience.limit():
                await self._deliver(records, sent)
        except (TimeoutError, KafkaTimeoutError) as error:
            raise SendError(
                f"{', '.join(_unwritten(records, sent))} cannot be written for"
                f" {time.monotonic() - started_at:.0f} s (TRACKER_SEND_SECONDS is"
                f" {self._patience.seconds:g}), and no commit goes on without it: look whether the"
                " brokers answer, and whether the topic has enough replicas in sync"
                " (min.insync.replicas); the worker stops, and after a restart the events are"
                " processed again"
            ) from error
        self.waiting_bytes -= sum(record.size for record in records)

    async def _deliver(
        self, records: Sequence[Record], sent: list[tuple["asyncio.Future[Any]", Sequence[Record]]]
    ) -> None:
        by_target: dict[tuple[str, int], list[Record]] = {}
        for record in records:
            if record.size > MAX_RECORD_BYTES:
                self._drop(
                    record, f"it has {record.size} bytes, and up to {MAX_RECORD_BYTES} can be sent"
                )
            else:
                by_target.setdefault((record.topic, record.partition), []).append(record)
        for (topic, partition), group in by_target.items():
            for batch, packed in fill_batches(group, False):
                future = await self._queue(batch, topic, partition)
                sent.append((future, packed))
        answers = await asyncio.gather(*(future for future, _ in sent), return_exceptions=True)
        for answer, (_, packed) in zip(answers, sent, strict=True):
            if isinstance(answer, REFUSED):
                await self._send_singly(packed)
            elif isinstance(answer, BaseException):
                raise answer

    async def _queue(self, batch: RecordBatch, topic: str, partition: int) -> "asyncio.Future[Any]":
        """Hand a batch to the producer as soon as it has room; return the future of its answer."""
        while True:
            with suppress(KafkaTimeoutError):  # the producer's own, shorter patience
                answer: asyncio.Future[Any] = await self._producer.send_batch(
                    batch, topic, partition=partition
                )
                return answer
            await asyncio.sleep(0)

    async def _send_singly(self, records: Sequence[Record]) -> None:
        for record in records:
            ((batch, _),) = fill_batches([record], False)
            try:
                await (await self._queue(batch, record.topic, record.partition))
            except REFUSED as error:
                self._drop(
                    record, f"the broker refuses its {record.size} bytes: {type(error).__name__}"
                )

    def _drop(self, record: Record, reason: str) -> None:
        log.warning("%s-%d: dropped a record: %s", record.topic, record.partition, reason)
        self._on_dropped(record.topic, reason)


def _unwritten(
    records: Sequence[Record], sent: Sequence[tuple["asyncio.Future[Any]", Sequence[Record]]]
) -> list[str]:
    """Return the topics of which not all records were acknowledged."""
    counts = Counter(record.topic for record in records)
    for future, packed in sent:
        if future.done() and not future.cancelled() and future.exception() is None:
            counts[packed[0].topic] -= len(packed)
    return [topic for topic, count in counts.items() if count > 0]


def _retrieve(task: "asyncio.Task[None]") -> None:
    """Retrieve a failure, so that asyncio does not log it: the next commit raises it."""
    if not task.cancelled():
        task.exception()
