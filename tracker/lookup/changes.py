"""Changes of states by commands while no worker runs: in one transaction, which fences workers."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

from aiokafka.errors import IllegalOperation, KafkaError

from tracker.explained import Explained
from tracker.kafka.client import Received, read_topic
from tracker.kafka.cluster import TopicInfo, unreachable
from tracker.kafka.connect import close
from tracker.kafka.forget import PendingForget, ended_offset, pending_of
from tracker.kafka.outbox import Record
from tracker.kafka.producers import fenced_producer, reason_of
from tracker.kernels.row_bytes import POSITION_KEY
from tracker.settings import Settings
from tracker.store.committer import FENCED
from tracker.store.partition_store import Position, decode_position

Send = Callable[[Record], Awaitable[None]]


class StartedError(Explained):
    """A worker has started while a command changed its states."""


@asynccontextmanager
async def in_transaction(
    settings: Settings, partition: int, seconds: float = 0.0
) -> AsyncIterator[Send]:
    """Yield what sends a record in a transaction, which fences whoever had the partition.

    Raises:
        BrokerError: the transaction failed; nothing of it is there.
        StartedError: a worker has started.
    """
    least = max(settings.transaction_timeout_seconds, seconds)
    settings = settings.model_copy(update={"transaction_timeout_seconds": least})
    producer = await fenced_producer(settings, "users", partition, True)
    answers = []

    async def send(record: Record) -> None:
        headers = list(record.headers)
        answers.append(
            await producer.send(
                record.topic, record.value, record.key, record.partition, headers=headers
            )
        )

    try:
        async with producer.transaction():
            yield send
            await asyncio.gather(*answers)
    except (KafkaError, IllegalOperation, OSError) as error:
        reason = reason_of(answers, error)
        if isinstance(reason, FENCED):
            raise StartedError(
                "a worker has started, and fenced this command: stop all workers, and run it again"
            ) from error
        raise unreachable(settings, reason) from error
    finally:
        await close(producer.client, producer.stop)


async def positions_of(
    settings: Settings, changelog: str, topics: dict[str, TopicInfo]
) -> dict[int, Position]:
    """Return the last position of each partition that has one."""
    positions: dict[int, Position] = {}
    for partition in range(topics[changelog].partitions):
        value = None
        async with aclosing(records_of(settings, changelog, partition)) as records:
            async for record in records:
                if record.key == POSITION_KEY:
                    value = record.value
        if value is not None:
            positions[partition] = decode_position(value)
    return positions


def records_of(settings: Settings, topic: str, partition: int) -> AsyncGenerator[Received, None]:
    """Yield the records of one partition; see `read_topic`."""
    return read_topic(settings, topic, choose=lambda _: partition)


async def open_requests(
    settings: Settings, topic: str, partition: int, applied: int
) -> list[PendingForget]:
    """Return the requests of a partition that are not complete."""
    requests: dict[bytes, PendingForget] = {}
    async with aclosing(records_of(settings, topic, partition)) as records:
        async for record in records:
            pending = pending_of(_Stamped(record))
            if pending is not None:
                requests[pending.key] = pending
            elif record.key in requests and requests[record.key].offset <= ended_offset(record):
                del requests[record.key]
    return [one for one in requests.values() if one.offset > applied]


class _Stamped:
    """A record with its time in milliseconds, as a consumer has it."""

    def __init__(self, record: Received) -> None:
        self.key, self.value, self.offset = record.key, record.value, record.offset
        self.timestamp = record.appended * 1000.0
