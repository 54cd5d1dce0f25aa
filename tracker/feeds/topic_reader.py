"""TopicReader: reads a topic in the background, outside the group; begins again after errors."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from tracker.explained import first_line
from tracker.feeds.background import BackgroundTask, OnDeath
from tracker.kafka.cluster import client_arguments
from tracker.settings import Settings

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
"""Wait before the topic is read again after an error."""

ANSWER_SECONDS = 30.0
"""Maximum time of one answer of the brokers."""


class TopicReader(ABC):
    """Reads a topic with a consumer outside the group, which starts at no committed offset.

    After an error of the brokers it begins again with a new consumer; after any other error it
    tells `on_death`.

    Args:
        settings: where the brokers are.
        topic: name of the topic.
        name: name of the reader, for log lines.
        fetch_seconds: maximum time that the brokers wait for records.
        on_death: called if the reader ends by itself.
    """

    def __init__(
        self, settings: Settings, topic: str, name: str, fetch_seconds: float, on_death: OnDeath
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._name = name
        self._fetch_ms = int(fetch_seconds * 1000)
        self._failing_since: float | None = None
        self._task = BackgroundTask(name, on_death)

    @abstractmethod
    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        """Assign partitions to a started consumer, and read them until cancelled."""

    @property
    def failing_seconds(self) -> float:
        """Seconds since the brokers last answered; 0 if they do."""
        since = self._failing_since
        return 0.0 if since is None else time.monotonic() - since

    def start(self) -> None:
        """Start reading in the background."""
        self._task.start(self._run())

    async def stop(self) -> None:
        """Stop reading and close the consumer, within a deadline."""
        await self._task.stop()

    def _note_answer(self) -> None:
        """Note that the brokers answer."""
        self._failing_since = None

    async def _run(self) -> None:
        while True:
            self._task.beat()
            consumer = AIOKafkaConsumer(
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                fetch_max_wait_ms=self._fetch_ms,
                **client_arguments(self._settings),
            )
            try:
                await consumer.start()
                await self._read(consumer)
            except (KafkaError, OSError) as error:  # a TimeoutError is an OSError
                if self._failing_since is None:
                    self._failing_since = time.monotonic()
                log.warning(
                    "%s cannot be read, retrying in %g s: %s",
                    self._topic, RETRY_SECONDS, first_line(error),
                )  # fmt: skip
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                await self._close(consumer)

    async def _close(self, consumer: AIOKafkaConsumer) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await consumer.stop()
        except (KafkaError, OSError) as error:
            log.warning("%s: its consumer did not close: %s", self._name, first_line(error))
