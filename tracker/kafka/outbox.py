"""Outbox: sends recommendations and rejections of one partition at once, in order."""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from aiokafka.errors import (
    InvalidMessageError,
    KafkaError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)

from tracker.events.wire import Rejection
from tracker.explained import Explained, first_line

log = logging.getLogger(__name__)

MAX_BATCH_BYTES = 512 * 1024
"""What a producer puts into one request to a partition; brokers take 1 MiB by default."""

MAX_RECORD_BYTES = MAX_BATCH_BYTES - 4096
"""A record above this is not sent at all."""

MAX_REJECTED_BYTES = 64 * 1024
"""A rejected value above this is cut, and a header holds the hash of the whole."""

MAX_WAITING_BYTES = 32 * 1024 * 1024
"""With more than this unsent, a partition waits before it takes another chunk."""

REFUSED = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    InvalidMessageError,
)
"""What a broker answers that will never take a batch."""


class SendError(Explained):
    """Recommendations or rejections could not be sent; their events are processed again."""


class Record(NamedTuple):
    """What is to be sent to one partition of a topic."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()

    @property
    def size(self) -> int:
        """Bytes of key and value."""
        return len(self.key or b"") + len(self.value or b"")


def rejected_record(
    topic: str, partition: int, key: bytes | None, value: bytes | None, rejection: Rejection
) -> Record:
    """Make the record that keeps a rejected one: its bytes, and why and whence as headers.

    A value above 64 KiB is cut; its size and SHA-256 are headers then. A tombstone without a key
    becomes an empty value.
    """
    headers = [
        ("reason", rejection.reason.encode()),
        ("message", rejection.message.encode("utf-8", "replace")[:1024]),
        ("topic", rejection.topic.encode()),
        ("partition", str(rejection.partition).encode()),
        ("offset", str(rejection.offset).encode()),
    ]
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


def fill_batches(producer: Any, records: Sequence[Record]) -> list[tuple[Any, list[Record]]]:
    """Put records of one topic and partition into as few batches as they need."""
    batches: list[tuple[Any, list[Record]]] = []
    batch = None
    for record in records:
        if batch is None or not _append(batch, record):
            if batch is not None:
                batch.close()
            batch = producer.create_batch()
            batches.append((batch, []))
            _append(batch, record)  # empty, it takes any size
        batches[-1][1].append(record)
    if batch is not None:
        batch.close()
    return batches


def _append(batch: Any, record: Record) -> bool:
    _, _, key, value, headers = record
    taken = batch.append(timestamp=None, key=key, value=value, headers=list(headers))
    return taken is not None


class Outbox:
    """Sends what one partition of the source has to say, in order, without being waited for.

    Only a commit waits: for everything put in before it. What the broker will never take is
    counted and dropped; any other failure is raised by `wait`, and again by every later one.

    Args:
        producer: started; shared with other outboxes.
        on_dropped: called with the topic of a record that was dropped, and the reason.
    """

    def __init__(self, producer: Any, on_dropped: Callable[[str, str], None]) -> None:
        self._producer = producer
        self._on_dropped = on_dropped
        self._tail: asyncio.Task[None] | None = None
        self._waiting_bytes = 0

    @property
    def full(self) -> bool:
        """Whether so much is unsent that the source should wait."""
        return self._waiting_bytes > MAX_WAITING_BYTES

    def put(self, records: Sequence[Record]) -> None:
        """Send records; returns at once."""
        if not records:
            return
        size = sum(record.size for record in records)
        self._waiting_bytes += size
        before = self._tail
        self._tail = asyncio.create_task(self._send(before, records, size))
        self._tail.add_done_callback(_retrieve)

    def mark(self) -> "asyncio.Task[None] | None":
        """Return what stands for everything put in so far; `wait` takes it."""
        return self._tail

    async def wait(self, mark: "asyncio.Task[None] | None") -> None:
        """Wait until everything put in before the mark is in the log.

        Raises:
            SendError: the broker did not take it in time.
        """
        if mark is not None:
            try:
                await asyncio.shield(mark)
            except (KafkaError, OSError) as error:
                raise SendError(f"recommendations cannot be sent ({first_line(error)})") from error

    async def _send(
        self, before: "asyncio.Task[None] | None", records: Sequence[Record], size: int
    ) -> None:
        if before is not None:
            await asyncio.shield(before)
        by_target: dict[tuple[str, int], list[Record]] = {}
        for record in records:
            if record.size > MAX_RECORD_BYTES:
                self._drop(record, f"{record.size} bytes, more than {MAX_RECORD_BYTES}")
            else:
                by_target.setdefault((record.topic, record.partition), []).append(record)
        sent = [
            (await self._producer.send_batch(batch, topic, partition=partition), inside)
            for (topic, partition), group in by_target.items()
            for batch, inside in fill_batches(self._producer, group)
        ]
        answers = await asyncio.gather(*(future for future, _ in sent), return_exceptions=True)
        for answer, (_, inside) in zip(answers, sent, strict=True):
            if isinstance(answer, REFUSED):
                await self._send_singly(inside)
            elif isinstance(answer, BaseException):
                raise answer
        self._waiting_bytes -= size

    async def _send_singly(self, records: Sequence[Record]) -> None:
        for record in records:
            ((batch, _),) = fill_batches(self._producer, [record])
            try:
                await (
                    await self._producer.send_batch(batch, record.topic, partition=record.partition)
                )
            except REFUSED as error:
                self._drop(record, f"{record.size} bytes: {type(error).__name__}")

    def _drop(self, record: Record, reason: str) -> None:
        log.warning("a record for %s was dropped: %s", record.topic, reason)
        self._on_dropped(record.topic, reason)


def _retrieve(task: "asyncio.Task[None]") -> None:
    """Mark a failure as seen: the next commit raises it."""
    if not task.cancelled():
        task.exception()
