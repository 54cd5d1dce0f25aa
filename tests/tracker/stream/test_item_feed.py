"""ItemFeed: the items' changelog into a view, tombstones and all, and knowing when it is done."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from numpy.typing import NDArray

from tracker.kafka.cluster import client_arguments
from tracker.kafka.topics import ensure_topics
from tracker.kernels.row_bytes import item_key
from tracker.settings import Settings, load_settings
from tracker.stream.item_feed import ItemFeed


class View:
    """Keeps rows by item."""

    def __init__(self) -> None:
        self.rows: dict[int, bytes | None] = {}

    def update(self, rows: Sequence[bytes | None], items: NDArray[np.uint64], latest: float) -> int:
        self.rows.update(zip(items.tolist(), rows, strict=True))
        return len(rows)


async def send(settings: Settings, *rows: tuple[bytes, bytes | None]) -> None:
    producer = AIOKafkaProducer(**client_arguments(settings))
    await producer.start()
    try:
        for number, (key, value) in enumerate(rows):
            await producer.send_and_wait(
                f"{settings.name}-items-changelog", value, key=key, partition=number % 2
            )
    finally:
        await producer.stop()


def test_feed_reads_what_is_there_and_what_comes(tansu: str, prefix: str) -> None:
    settings = load_settings({}, brokers=tansu, name=prefix, item_partitions=2)
    lags: list[float] = []

    async def work() -> None:
        await ensure_topics(settings)
        await send(settings, (item_key(1), b"a"), (item_key(2**63 + 5), b"b"), (b"p", b"position"))
        view = View()
        feed = ItemFeed(settings, f"{prefix}-items-changelog", 2, view, lags.append)
        assert not feed.caught_up
        feed.start()
        try:
            async with asyncio.timeout(10.0):
                await feed.wait_caught_up()
                assert view.rows == {1: b"a", 2**63 + 5: b"b"}
                await send(settings, (item_key(1), None), (item_key(3), b"c"))
                while view.rows.get(3) is None:
                    await asyncio.sleep(0.01)
        finally:
            await feed.stop()
        assert view.rows[1] is None

    asyncio.run(work())
    assert lags[-1] == 0


def test_empty_changelog_is_read_at_once(tansu: str, prefix: str) -> None:
    settings = load_settings({}, brokers=tansu, name=prefix, item_partitions=2)

    async def work() -> None:
        await ensure_topics(settings)
        feed = ItemFeed(settings, f"{prefix}-items-changelog", 2, View())
        feed.start()
        async with asyncio.timeout(10.0):
            await feed.wait_caught_up()
        await feed.stop()

    asyncio.run(work())


def test_feed_keeps_trying_while_the_broker_is_away(
    prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings({}, brokers="127.0.0.1:1", name=prefix)

    async def work() -> None:
        feed = ItemFeed(settings, f"{prefix}-items-changelog", 2, View())
        await feed.stop()  # never started
        feed.start()
        async with asyncio.timeout(10.0):
            while "retrying in" not in caplog.text:
                await asyncio.sleep(0.01)
        await feed.stop()
        assert not feed.caught_up

    asyncio.run(work())
