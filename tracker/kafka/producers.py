"""Kafka producers: one for recommendations and rejections, and a fenced one per partition."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    IllegalOperation,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
)

from tracker.explained import first_line
from tracker.kafka.cluster import BrokerError, client_arguments, unreachable
from tracker.kafka.outbox import MAX_BATCH_BYTES, Record
from tracker.settings import Settings

log = logging.getLogger(__name__)

REQUEST_SECONDS = 60.0

UNREACHABLE_SECONDS = 60.0
"""Time that the brokers may be unreachable while partitions are taken over."""

RETRY_SECONDS = 1.0
"""Time between two attempts to start a producer."""


async def plain_producer(settings: Settings, idempotent: bool) -> AIOKafkaProducer:
    """Start the producer of recommendations and rejections.

    Raises:
        BrokerError: the brokers do not answer or refuse.
    """
    arguments = client_arguments(settings)

    def make() -> AIOKafkaProducer:
        return _producer(acks="all", enable_idempotence=idempotent, **arguments)

    return await _start(make, "the producer of recommendations")


async def fenced_producer(
    settings: Settings, table: str, partition: int, transactions: bool
) -> AIOKafkaProducer:
    """Start the producer of one partition's commits; its former owner can commit nothing more.

    Args:
        settings: where the brokers are.
        table: `users` or `items`.
        partition: partition of the table.
        transactions: False if the brokers do not support them; then nobody is fenced.

    Raises:
        BrokerError: the brokers do not answer or refuse.
    """
    name = f"{settings.name}-{table}-{partition}"
    arguments = client_arguments(settings) | (
        {
            "transactional_id": name,
            "transaction_timeout_ms": int(settings.transaction_timeout_seconds * 1000),
        }
        if transactions
        else {"acks": "all"}
    )

    def make() -> AIOKafkaProducer:
        return _producer(**arguments)

    return await _start(make, f"the producer {name}")


async def send_fenced(
    settings: Settings,
    table: str,
    partition: int,
    transactions: bool,
    batches: Iterable[Sequence[Record]],
) -> None:
    """Send records in one transaction, as the owner of a partition; its former owner is fenced.

    Args:
        settings: where the brokers are.
        table: `users` or `items`.
        partition: partition of the table.
        transactions: False if the brokers do not support them.
        batches: records; each batch is acknowledged before the next is sent, which matters where
            there are no transactions.

    Raises:
        BrokerError: the brokers do not answer or refuse.
    """
    producer = await fenced_producer(settings, table, partition, transactions)
    answers: list[asyncio.Future[Any]] = []
    try:
        if transactions:
            await producer.begin_transaction()
        for batch in batches:
            answers.clear()
            for record in batch:
                answers.append(
                    await producer.send(
                        record.topic,
                        record.value,
                        record.key,
                        record.partition,
                        headers=list(record.headers),
                    )
                )
            for answer in answers:
                await answer
        if transactions:
            await producer.commit_transaction()
    except (KafkaError, IllegalOperation, OSError) as error:
        raise unreachable(settings, reason_of(answers, error)) from error
    finally:
        await producer.stop()


def reason_of(answers: Sequence["asyncio.Future[Any]"], error: BaseException) -> BaseException:
    """Return why a transaction failed, from the answers to its records so far and its error.

    After a record that is refused aiokafka takes no other one, so the first one says why.
    """
    for answer in answers:
        if answer.done() and not answer.cancelled() and (reason := answer.exception()) is not None:
            return reason
    return error


def _producer(**arguments: Any) -> AIOKafkaProducer:
    """Return a producer that looks for its coordinator again if the connection is closed meanwhile.

    aiokafka (0.14) tries again after each other error of a broker that is away. This one ends all
    sending, and so the worker, with an error that does not say whether a commit has happened.
    """
    producer = AIOKafkaProducer(
        linger_ms=0,
        max_batch_size=MAX_BATCH_BYTES,
        request_timeout_ms=int(REQUEST_SECONDS * 1000),
        **arguments,
    )
    lookup = producer.client.coordinator_lookup

    async def look_again(kind: int, key: str) -> int:
        try:
            coordinator: int = await lookup(kind, key)
        except KafkaConnectionError as error:
            raise NodeNotReadyError(str(error)) from error
        return coordinator

    producer.client.coordinator_lookup = look_again
    return producer


async def _start(make: Callable[[], AIOKafkaProducer], name: str) -> AIOKafkaProducer:
    """Start a producer; while no broker can be reached, retry for a minute."""
    deadline = asyncio.get_running_loop().time() + UNREACHABLE_SECONDS
    while True:
        producer = make()
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                await producer.start()
        except (KafkaError, TimeoutError, OSError) as error:
            await producer.stop()
            away = isinstance(error, (KafkaConnectionError, TimeoutError, OSError))
            if not away or asyncio.get_running_loop().time() > deadline:
                raise BrokerError(f"{name} cannot start: {first_line(error)}") from error
            log.warning(
                "%s cannot start yet, retrying in %g s: %s", name, RETRY_SECONDS, first_line(error)
            )
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return producer
