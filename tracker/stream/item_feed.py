"""ItemFeed: reads the items' changelog of all partitions into an ItemView."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from numpy.typing import NDArray

from tracker.events.arrivals import MAX_FUTURE_SECONDS
from tracker.explained import Explained, first_line
from tracker.items.states import ItemStateFormatError, problem_of
from tracker.kafka.cluster import client_arguments
from tracker.kafka.unreadable import UnreadableRows
from tracker.kernels.row_bytes import ASIDE_PREFIX, POSITION_KEY, is_item_key, item_of
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


class View(Protocol):
    """The view that receives item states."""

    def update(self, rows: Sequence[bytes | None], items: NDArray[np.uint64], latest: float) -> int:
        """Replace the rows of items; None removes one. Times past `latest` are taken for it.

        Raises:
            ItemStateFormatError: a row cannot be read; rows before it may be replaced.
        """


class ItemFeed:
    """Follows all partitions of the items' changelog, with a consumer outside the group.

    A row that cannot be read is passed over: the view keeps what it has of the item. After an error
    of the brokers the feed begins anew; after any other error it tells `on_death`.

    Args:
        settings: where the brokers are.
        topic: the items' changelog.
        partitions: number of its partitions.
        view: receives the rows.
        on_lag: called with the number of records not yet read.
        unreadable: counts and logs the rows that cannot be read.
        on_death: called if the feed ends by itself.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        partitions: int,
        view: View,
        on_lag: Callable[[int], None] = lambda lag: None,
        unreadable: UnreadableRows | None = None,
        on_death: OnDeath = log_death,
    ) -> None:
        self._settings = settings
        self._parts = [TopicPartition(topic, number) for number in range(partitions)]
        self._view = view
        self._on_lag = on_lag
        self._unreadable = unreadable or UnreadableRows("items")
        self._caught_up = asyncio.Event()
        self._read_at = time.monotonic()
        self._failing_since: float | None = None
        self._task = BackgroundTask("the feed of items", on_death)

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
            log.warning("the consumer of items did not close: %s", first_line(error))

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        consumer.assign(self._parts)
        async with asyncio.timeout(ANSWER_SECONDS):
            await consumer.seek_to_beginning(*self._parts)
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

    def _place(self, records: Sequence[Any]) -> None:
        """Place the rows of items in the view, but for those that cannot be read."""
        rows = [record for record in records if self._is_item(record)]
        if not rows:
            return
        try:
            self._update(rows)
        except ItemStateFormatError:
            self._update([row for row in rows if self._is_readable(row)])

    def _update(self, rows: Sequence[Any]) -> None:
        items = np.array([item_of(row.key) for row in rows], np.uint64)
        latest = time.time() + MAX_FUTURE_SECONDS
        self._view.update([row.value for row in rows], items, latest)

    def _is_item(self, record: Any) -> bool:
        key = record.key
        if is_item_key(key):
            return True
        if key != POSITION_KEY and (key is None or key[:1] != ASIDE_PREFIX):
            self._report(record, "key")
        return False

    def _is_readable(self, record: Any) -> bool:
        problem = None if record.value is None else problem_of(record.value)
        if problem is not None:
            self._report(record, problem)
        return problem is None

    def _report(self, record: Any, problem: str) -> None:
        self._unreadable.report(record.topic, record.partition, record.offset, record.key, problem)
