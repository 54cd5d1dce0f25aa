"""Kafka clients of commands: opened and closed, with one line for a broker that does not answer."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    KafkaError,
    UnknownError,
    UnsupportedVersionError,
)

from tracker.kafka.cluster import client_arguments, connecting, unreachable
from tracker.settings import Settings

CONNECT_SECONDS = 10.0
"""Time that a command waits for a broker."""

SETTLE_SECONDS = 1.0
"""Time that a closing client may take to finish its requests."""

NOT_IDEMPOTENT = (UnknownError, UnsupportedVersionError, ClusterAuthorizationFailedError)
"""Errors of brokers that do not support idempotent producers, or do not allow us one."""


@contextlib.asynccontextmanager
async def admin_client(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Yield a started admin client.

    Raises:
        BrokerError: the broker cannot be used.
    """
    client = AIOKafkaAdminClient(**client_arguments(settings))
    with _one_line(settings):
        try:
            await _start(client, settings)
            yield client
        finally:
            await close(client._client, client.close)


@contextlib.asynccontextmanager
async def producer(settings: Settings, **arguments: Any) -> AsyncIterator[AIOKafkaProducer]:
    """Yield a started producer with `acks=all`, idempotent if the broker supports it.

    Raises:
        BrokerError: the broker cannot be used.
    """
    arguments = {**client_arguments(settings), "acks": "all", **arguments}
    with _one_line(settings):
        client = AIOKafkaProducer(**arguments, enable_idempotence=True)
        try:
            try:
                with _quiet("aiokafka.producer.sender"):
                    await _start(client, settings)
            except NOT_IDEMPOTENT:
                await close(client.client, client.stop)
                client = AIOKafkaProducer(**arguments)
                await _start(client, settings)
            yield client
        finally:
            await close(client.client, client.stop)


@contextlib.asynccontextmanager
async def consumer(settings: Settings, **arguments: Any) -> AsyncIterator[AIOKafkaConsumer]:
    """Yield a started consumer without a group, which reads committed records only.

    Raises:
        BrokerError: the broker cannot be used.
    """
    arguments = {
        **client_arguments(settings),
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "isolation_level": "read_committed",
        **arguments,
    }
    with _one_line(settings):
        client = AIOKafkaConsumer(**arguments)
        try:
            await _start(client, settings)
            yield client
        finally:
            await close(client._client, client.stop)


async def _start(client: Any, settings: Settings) -> None:
    try:
        with connecting(settings):
            async with asyncio.timeout(CONNECT_SECONDS):
                await client.start()
    except TimeoutError as error:
        raise unreachable(settings, f"nothing within {CONNECT_SECONDS:g} s") from error


async def close(inner: AIOKafkaClient, stop: Callable[[], Awaitable[None]]) -> None:
    """Close a client; give up if the broker does not answer.

    A client that is closed while it opens a connection to ask for metadata leaves the connection
    open (aiokafka 0.14), so this waits for one more answer.
    """
    with contextlib.suppress(TimeoutError, KafkaError):
        async with asyncio.timeout(SETTLE_SECONDS):
            await inner.force_metadata_update()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CONNECT_SECONDS / 2):
            await stop()


@contextlib.contextmanager
def _one_line(settings: Settings) -> Iterator[None]:
    try:
        yield
    except KafkaError as error:
        raise unreachable(settings, error) from error


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Drop the lines of a logger: the answer "no" is expected here, and not an error."""
    logger = logging.getLogger(name)

    def drop(record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(drop)
    try:
        yield
    finally:
        logger.removeFilter(drop)
