"""TopicFeed: reads a topic of all partitions in the background, beside the consumer group."""

import asyncio
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from tracker.explained import Explained
from tracker.feeds.background import OnDeath, log_death
from tracker.feeds.topic_reader import ANSWER_SECONDS, TopicReader
from tracker.settings import Settings

READ_RECORDS = 2000
"""Maximum number of records of one fetch."""

SLOW_RECORDS, SLOW_SECONDS = 500, 0.02
"""The same of a feed that is read while lists are made, and its pause after a fetch: what a fetch
brings keeps the event loop for some milliseconds, and most of the time is left to who serves."""

FETCH_SECONDS = 0.25
"""Maximum time of a fetch until the feed has caught up: an empty one tells where the topic ends."""

QUIET_FETCH_SECONDS = 1.0
"""The same from then on: what comes is sent at once, and each empty fetch takes a millisecond."""

QUIET_SECONDS = 60.0
"""Time without a record after which a feed that has not caught up counts as stalled."""


class FeedStalledError(Explained):
    """The topic is not read on, and its end is not reached."""


class TopicFeed(TopicReader):
    """Follows all partitions of a topic from their beginning.

    After an error of the brokers it reads from the beginning again: rows are whole.

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
        super().__init__(settings, topic, f"the feed of {what}", FETCH_SECONDS, on_death)
        self._parts = [TopicPartition(topic, number) for number in range(partitions)]
        self._on_lag = on_lag
        self._caught_up = asyncio.Event()
        self._read_at = time.monotonic()
        self._slowly = False

    @abstractmethod
    def _place(self, records: Sequence[Any]) -> None:
        """Take over records, in a thread; those of one partition are in their order."""

    def _begin(self) -> None:
        """Note that the topic is read from its beginning now."""

    @property
    def caught_up(self) -> bool:
        """True if the topic is read up to its end at the start of the feed."""
        return self._caught_up.is_set()

    def stuck(self, seconds: float) -> list[str]:
        """Return a line if the feed neither reads nor retries for longer than that."""
        return self._task.stuck(seconds + ANSWER_SECONDS)

    async def wait_caught_up(self) -> None:
        """Wait until the topic is read up to its end at the start of the feed.

        Raises:
            FeedStalledError: nothing was read for QUIET_SECONDS.
        """
        while True:
            quiet = time.monotonic() - self._read_at
            if quiet >= QUIET_SECONDS:
                raise FeedStalledError(
                    f"{self._topic} was not read on for {quiet:.0f} s, and its end is not reached"
                )
            try:
                async with asyncio.timeout(QUIET_SECONDS - quiet):
                    await self._caught_up.wait()
                return
            except TimeoutError:
                continue

    def start(self, slowly: bool = False) -> None:
        """Start reading in the background.

        Args:
            slowly: whether lists are made meanwhile; then the end is reached later.
        """
        self._read_at = time.monotonic()
        self._slowly = slowly
        super().start()

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        consumer.assign(self._parts)
        async with asyncio.timeout(ANSWER_SECONDS):
            await consumer.seek_to_beginning(*self._parts)
        self._begin()
        ends: dict[TopicPartition, int] = {}
        behind = set(self._parts)
        fetch_ms = self._fetch_ms
        while True:
            self._task.beat()
            slowly = self._slowly and bool(behind)
            most = SLOW_RECORDS if slowly else READ_RECORDS
            fetched = await consumer.getmany(timeout_ms=fetch_ms, max_records=most)
            records = [record for part in fetched.values() for record in part]
            if records:
                await asyncio.to_thread(self._place, records)
                self._read_at = time.monotonic()
                if slowly:
                    await asyncio.sleep(SLOW_SECONDS)
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
            self._note_answer()
            self._on_lag(lag)
            if not behind:
                self._caught_up.set()
                fetch_ms = int(QUIET_FETCH_SECONDS * 1000)
                consumer._fetcher._fetch_max_wait_ms = fetch_ms
