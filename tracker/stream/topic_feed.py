"""TopicFeed: reads a topic of all partitions in the background, beside the consumer group."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from tracker.explained import Explained, first_line
from tracker.kafka.cluster import client_arguments
from tracker.settings import Settings
from tracker.stream.background import BackgroundTask, OnDeath, log_death

log = logging.getLogger(__name__)

READ_RECORDS = 2000
"""Maximum number of records of one fetch."""

RETRY_SECONDS = 1.0
"""Wait before the changelog is read again after an error."""

ANSWER_SECONDS = 30.0
"""Maximum time of one answer of the brokers."""

QUIET_SECONDS = 60.0
"""Time without a record after which a feed that has not caught up counts as stalled."""


class FeedStalledError(Explained):
    """The changelog is not read on, and its end is not reached."""


class TopicFeed(ABC):
    """Follows all partitions of a topic, with a consumer outside the group.

    After an error of the brokers the feed begins again; after any other error it tells `on_death`.

    Args:
        settings: where the brokers are.
        topic: name of the topic.
        partitions: number of its partitions.
        what: name of what it reads, for log lines.
        on_lag: called with the number of records not yet read.
        on_death: called if the feed ends by itself.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        partitions: int,
        what: str,
        on_lag: Callable[[int], None] = lambda lag: None,
        on_death: OnDeath = log_death,
    ) -> None:
        self._settings = settings
        self._parts = [TopicPartition(topic, number) for number in range(partitions)]
        self._what = what
        self._on_lag = on_lag
        self._caught_up = asyncio.Event()
        self._read_at = time.monotonic()
        self._failing_since: float | None = None
        self._task = BackgroundTask(f"the feed of {what}", on_death)

    @abstractmethod
    def _place(self, records: Sequence[Any]) -> None:
        """Take over records, in a thread; those of one partition are in their order."""

    def _begin(self) -> None:  # noqa: B027 - only some feeds have to do something then
        """Note that the topic is read from its beginning now."""

    @property
    def caught_up(self) -> bool:
        """True if the changelog is read up to its end at the start of the feed."""
        return self._caught_up.is_set()

    @property
    def failing_seconds(self) -> float:
        """Seconds since the brokers last answered; 0 if they do."""
        since = self._failing_since
        return 0.0 if since is None else time.monotonic() - since

    def stuck(self, seconds: float) -> list[str]:
        """Return a line if the feed neither reads nor retries for longer than that."""
        return self._task.stuck(seconds + ANSWER_SECONDS)

    async def wait_caught_up(self) -> None:
        """Wait until the changelog is read up to its end at the start of the feed.

        Raises:
            FeedStalledError: nothing was read for QUIET_SECONDS.
        """
        while True:
            quiet = time.monotonic() - self._read_at
            if quiet >= QUIET_SECONDS:
                raise FeedStalledError(
                    f"{self._parts[0].topic} was not read on for {quiet:.0f} s, and its end is not"
                    " reached"
                )
            try:
                async with asyncio.timeout(QUIET_SECONDS - quiet):
                    await self._caught_up.wait()
                return
            except TimeoutError:
                continue

    def start(self) -> None:
        """Start reading in the background."""
        self._read_at = time.monotonic()
        self._task.start(self._run())

    async def stop(self) -> None:
        """Stop reading and close the consumer, within a deadline."""
        await self._task.stop()

    async def _run(self) -> None:
        """Read until stopped. After an error read again from the beginning: rows are whole."""
        while True:
            self._task.beat()
            consumer = AIOKafkaConsumer(
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                fetch_max_wait_ms=250,
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
                    self._parts[0].topic, RETRY_SECONDS, first_line(error),
                )  # fmt: skip
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                await self._close(consumer)

    async def _close(self, consumer: AIOKafkaConsumer) -> None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await consumer.stop()
        except (KafkaError, OSError) as error:
            log.warning("the consumer of %s did not close: %s", self._what, first_line(error))

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        consumer.assign(self._parts)
        async with asyncio.timeout(ANSWER_SECONDS):
            await consumer.seek_to_beginning(*self._parts)
        self._begin()
        ends: dict[TopicPartition, int] = {}
        behind = set(self._parts)
        while True:
            self._task.beat()
            fetched = await consumer.getmany(timeout_ms=250, max_records=READ_RECORDS)
            records = [record for part in fetched.values() for record in part]
            if records:
                await asyncio.to_thread(self._place, records)
                self._read_at = time.monotonic()
            lag = 0
            for part in self._parts:
                end = consumer.highwater(part)
                if end is None:
                    continue
                # Not end_offsets(): the embedded broker's answer to that is too low.
                ends.setdefault(part, end)
                async with asyncio.timeout(ANSWER_SECONDS):
                    position = await consumer.position(part)
                lag += max(0, end - position)
                if position >= ends[part]:
                    behind.discard(part)
            self._failing_since = None
            self._on_lag(lag)
            if not behind:
                self._caught_up.set()
