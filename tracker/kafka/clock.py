"""The brokers' clock beside this machine's: from a record that a broker stamps and nobody reads."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from tracker.events.arrivals import LOG_APPEND_TIME
from tracker.kafka.cluster import REQUEST_SECONDS, client_arguments, topics_of, unreachable
from tracker.settings import Settings

PROBE_HEADERS = [("reason", b"probe of the broker's clock; its transaction is aborted")]


@dataclass(frozen=True)
class ClockDifference:
    """Seconds by which the broker's clock is ahead of this machine's, known to `exact` seconds."""

    ahead: float
    exact: float


async def broker_clock(
    settings: Settings, clock: Callable[[], float] = time.time
) -> ClockDifference | None:
    """Return how far the clock of a broker is ahead; None if the topic has no append time.

    A record goes to the topic of rejected events in a transaction that is aborted, so readers of
    committed records never see it. The broker answers with the time that it gave the record.

    Args:
        settings: where the brokers are; they support transactions, and the topics exist.
        clock: time of this machine, in seconds.

    Raises:
        BrokerError: the brokers do not answer, or refuse.
    """
    producer = AIOKafkaProducer(
        transactional_id=f"{settings.name}-probe",
        transaction_timeout_ms=int(settings.transaction_timeout_seconds * 1000),
        request_timeout_ms=int(REQUEST_SECONDS * 1000),
        linger_ms=0,
        **client_arguments(settings),
    )
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            await producer.start()
            await producer.begin_transaction()
            before = clock()
            stored = await producer.send_and_wait(
                topics_of(settings).rejected, b"", headers=PROBE_HEADERS, partition=0
            )
            after = clock()
            await producer.abort_transaction()
    except (KafkaError, OSError, TimeoutError) as error:
        raise unreachable(settings, error) from error
    finally:
        with contextlib.suppress(KafkaError, OSError):
            await producer.stop()
    if stored.timestamp_type != LOG_APPEND_TIME:
        return None
    return ClockDifference(stored.timestamp / 1000.0 - (before + after) / 2, (after - before) / 2)
