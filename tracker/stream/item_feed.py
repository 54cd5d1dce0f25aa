"""ItemFeed: reads the items' changelog into an ItemView, for every worker."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from numpy.typing import NDArray

from tracker.kafka.cluster import client_arguments
from tracker.kernels.row_bytes import ITEM_PREFIX, item_of
from tracker.settings import Settings

log = logging.getLogger(__name__)

READ_RECORDS = 2000

RETRY_SECONDS = 1.0


class View(Protocol):
    """What item states are read into."""

    def update(self, rows: Sequence[bytes | None], items: NDArray[np.uint64]) -> int:
        """Place rows; None forgets an item."""


class ItemFeed:
    """Follows all partitions of the items' changelog with a consumer that belongs to no group.

    Args:
        settings: where the brokers are.
        topic: the items' changelog.
        partitions: of it.
        view: what is read into.
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
        """Whether everything was read that was there when the feed began."""
        return self._caught_up.is_set()

    async def wait_caught_up(self) -> None:
        """Wait until everything is read that was there when the feed began."""
        await self._caught_up.wait()

    def start(self) -> None:
        """Begin to read, beside everything else."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        """Read for ever. When the broker is away, begin anew once it is back: rows are whole."""
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
                log.warning("the items' changelog cannot be read: %s; trying again", error)
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                await consumer.stop()

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        consumer.assign(self._parts)
        await consumer.seek_to_beginning(*self._parts)
        ends: dict[TopicPartition, int] = {}
        behind = set(self._parts)
        while True:
            found = await consumer.getmany(timeout_ms=250, max_records=READ_RECORDS)
            records = [record for part in found.values() for record in part]
            if records:
                await asyncio.to_thread(self._place, records)
            lag = 0
            for part in self._parts:
                end = consumer.highwater(part)
                if end is None:
                    continue
                # Not what end_offsets() says: the embedded broker's answer to that is too low.
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
            self._view.update([row.value for row in rows], items)
