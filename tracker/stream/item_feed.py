"""ItemFeed: reads the items' changelog of all partitions into an ItemView."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from numpy.typing import NDArray

from tracker.events.arrivals import MAX_FUTURE_SECONDS
from tracker.explained import first_line
from tracker.kafka.cluster import client_arguments
from tracker.kernels.row_bytes import ITEM_PREFIX, item_of
from tracker.settings import Settings

log = logging.getLogger(__name__)

READ_RECORDS = 2000
"""Maximum number of records of one fetch."""

RETRY_SECONDS = 1.0
"""Wait before the changelog is read again after an error."""


class View(Protocol):
    """The view that receives item states."""

    def update(self, rows: Sequence[bytes | None], items: NDArray[np.uint64], latest: float) -> int:
        """Replace the rows of items; None removes one. Times past `latest` are taken for it."""


class ItemFeed:
    """Follows all partitions of the items' changelog, with a consumer outside the group.

    Args:
        settings: where the brokers are.
        topic: the items' changelog.
        partitions: number of its partitions.
        view: receives the rows.
        on_lag: called with the number of records not yet read.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        partitions: int,
        view: View,
        on_lag: Callable[[int], None] = lambda lag: None,
    ) -> None:
        self._settings = settings
        self._parts = [TopicPartition(topic, number) for number in range(partitions)]
        self._view = view
        self._on_lag = on_lag
        self._caught_up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def caught_up(self) -> bool:
        """True if the changelog is read up to its end at the start of the feed."""
        return self._caught_up.is_set()

    async def wait_caught_up(self) -> None:
        """Wait until the changelog is read up to its end at the start of the feed."""
        await self._caught_up.wait()

    def start(self) -> None:
        """Start reading in the background."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop reading and close the consumer."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        """Read until stopped. After an error read again from the beginning: rows are whole."""
        while True:
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
            except (KafkaError, OSError) as error:
                log.warning(
                    "%s cannot be read, retrying in %g s: %s",
                    self._parts[0].topic, RETRY_SECONDS, first_line(error),
                )  # fmt: skip
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                await consumer.stop()

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        consumer.assign(self._parts)
        await consumer.seek_to_beginning(*self._parts)
        ends: dict[TopicPartition, int] = {}
        behind = set(self._parts)
        while True:
            fetched = await consumer.getmany(timeout_ms=250, max_records=READ_RECORDS)
            records = [record for part in fetched.values() for record in part]
            if records:
                await asyncio.to_thread(self._place, records)
            lag = 0
            for part in self._parts:
                end = consumer.highwater(part)
                if end is None:
                    continue
                # Not end_offsets(): the embedded broker's answer to that is too low.
                ends.setdefault(part, end)
                position = await consumer.position(part)
                lag += max(0, end - position)
                if position >= ends[part]:
                    behind.discard(part)
            self._on_lag(lag)
            if not behind:
                self._caught_up.set()

    def _place(self, records: Sequence[Any]) -> None:
        rows = [record for record in records if record.key[:1] == ITEM_PREFIX]
        if rows:
            items = np.array([item_of(row.key) for row in rows], np.uint64)
            latest = time.time() + MAX_FUTURE_SECONDS
            self._view.update([row.value for row in rows], items, latest)
