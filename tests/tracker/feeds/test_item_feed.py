"""ItemFeed: the items' changelog into a view, tombstones and all, and knowing when it is done."""

import asyncio
import gc
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from aiokafka import AIOKafkaProducer
from numpy.typing import NDArray

from tests.paths import GOLDEN
from tracker.feeds import topic_feed
from tracker.feeds.item_feed import ItemFeed
from tracker.feeds.topic_feed import FeedStalledError
from tracker.items.layout import FORMAT
from tracker.items.states import ItemStates
from tracker.kafka.cluster import client_arguments
from tracker.kafka.topics import ensure_topics
from tracker.kafka.unreadable import UnreadableRows
from tracker.kernels.row_bytes import ASIDE_PREFIX, item_key, seal
from tracker.settings import Settings, load_settings
from tracker.stream.metrics import Metrics


@dataclass
class ChangelogRecord:
    """A record of partition 1 of the changelog."""

    offset: int
    key: bytes | None
    value: bytes | None
    topic: str = "t-items-changelog"
    partition: int = 1


class View:
    """Keeps rows by item."""

    def __init__(self) -> None:
        self.rows: dict[int, bytes | None] = {}
        self.most = 0

    def update(self, rows: Sequence[bytes | None], items: NDArray[np.uint64], latest: float) -> int:
        self.most = max(self.most, len(rows))
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
            async with asyncio.timeout(60.0):
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
        async with asyncio.timeout(60.0):
            await feed.wait_caught_up()
        await feed.stop()

    asyncio.run(work())


@pytest.mark.parametrize("slowly", [False, True])
def test_a_feed_beside_others_reads_a_few_records_at_a_time(
    tansu: str, prefix: str, monkeypatch: pytest.MonkeyPatch, slowly: bool
) -> None:
    monkeypatch.setattr(topic_feed, "SLOW_RECORDS", 7)
    settings = load_settings({}, brokers=tansu, name=prefix, item_partitions=2)

    async def work() -> None:
        await ensure_topics(settings)
        await send(settings, *((item_key(n), b"a") for n in range(1, 61)))
        view = View()
        feed = ItemFeed(settings, f"{prefix}-items-changelog", 2, view)
        feed.start(slowly)
        async with asyncio.timeout(60.0):
            await feed.wait_caught_up()
        await feed.stop()
        assert len(view.rows) == 60
        assert (view.most <= 7) == slowly

    asyncio.run(work())


def test_a_feed_that_has_stopped_keeps_no_view(tansu: str, prefix: str) -> None:
    settings = load_settings({}, brokers=tansu, name=prefix, item_partitions=2)

    async def work() -> None:
        await ensure_topics(settings)
        await send(settings, (item_key(1), b"a"))
        view = View()
        feed = ItemFeed(settings, f"{prefix}-items-changelog", 2, view)
        feed.start()
        async with asyncio.timeout(60.0):
            await feed.wait_caught_up()
        await feed.stop()
        known = weakref.ref(view)
        del view, feed
        assert known() is None

    gc.disable()  # garbage is collected too seldom for a view of gigabytes
    try:
        asyncio.run(work())
    finally:
        gc.enable()


def test_feed_keeps_trying_while_the_broker_is_away(
    prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings({}, brokers="127.0.0.1:1", name=prefix)

    async def work() -> None:
        feed = ItemFeed(settings, f"{prefix}-items-changelog", 2, View())
        await feed.stop()  # never started
        feed.start()
        async with asyncio.timeout(60.0):
            while "retrying in" not in caplog.text:
                await asyncio.sleep(0.01)
        await feed.stop()
        assert not feed.caught_up

    asyncio.run(work())


ITEM, OTHER = item_key(1), item_key(2)


def row(item: int, count: float) -> bytes:
    """A row of an item with one count."""
    states = ItemStates(1)
    states.head["item"][0] = item
    states.counted["count"][0] = count
    return states.pack(np.zeros(1, np.int64))[0]


def newer(row: bytes) -> bytes:
    """The row as a newer version would seal it."""
    words = np.frombuffer(row, np.uint64).copy()
    words[0] = (words[0] & np.uint64(0xFFFF0000)) | np.uint64(FORMAT + 1)
    seal(words, 0, len(words))
    return words.tobytes()


def altered(row: bytes) -> bytes:
    return row[:-8] + bytes([row[-8] ^ 1]) + row[-7:]


class SeenView:
    """A view that checks rows as the one of serving does."""

    def __init__(self) -> None:
        self.counts: dict[int, float | None] = {}

    def update(self, rows: Sequence[bytes | None], items: NDArray[np.uint64], latest: float) -> int:
        states = ItemStates(len(rows))
        states.unpack(np.arange(len(rows)), rows)
        for place, (value, item) in enumerate(zip(rows, items.tolist(), strict=True)):
            count = None if value is None else float(states.columns.counts[place, 0])
            self.counts[item] = count
        return len(rows)


BAD = [
    (ITEM, b"garbage!", "damaged"),
    (ITEM, b"short", "damaged"),
    (ITEM, b"", "damaged"),
    (ITEM, altered(row(1, 9.0)), "damaged"),
    (ITEM, newer(row(1, 9.0)), "newer"),
    (ITEM, (GOLDEN / "item_row_1.bin").read_bytes(), "older"),
    (ITEM + b"9", row(1, 9.0), "key"),
    (b"i", row(1, 9.0), "key"),
    (b"", row(1, 9.0), "key"),
    (None, row(1, 9.0), "key"),
    (None, None, "key"),
    (b"\xff\x00", b"z", "key"),
]


@pytest.mark.parametrize(("key", "value", "problem"), BAD)
def test_row_that_cannot_be_read_is_passed_over_counted_and_said_once(
    key: bytes | None, value: bytes | None, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    view, metrics = SeenView(), Metrics()
    unreadable = UnreadableRows("items", metrics.count_unreadable)
    feed = ItemFeed(load_settings({}), "t-items-changelog", 2, view, unreadable=unreadable)
    records = [
        ChangelogRecord(5, ITEM, row(1, 3.0)),
        ChangelogRecord(6, key, value),
        ChangelogRecord(7, OTHER, row(2, 4.0)),
        ChangelogRecord(8, b"p", b"position"),
        ChangelogRecord(9, ASIDE_PREFIX + ITEM, b"garbage!"),
    ]
    for _ in range(2):  # the second time for another artifact
        feed._place(records)
    assert view.counts == {1: 3.0, 2: 4.0}
    labels = {"table": "items", "problem": problem}
    assert metrics.registry.get_sample_value("tracker_unreadable_rows_total", labels) == 2
    (line,) = [one.getMessage() for one in caplog.records if one.name.startswith("tracker")]
    assert line.startswith("t-items-changelog-1: passed over the row at offset 6 with key ")
    assert f": {problem}: " in line


def test_many_rows_of_a_newer_version_are_said_in_a_few_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unreadable = UnreadableRows("items")
    for offset in range(100):
        unreadable.report("t-items-changelog", 0, offset, item_key(offset), "newer")
    assert len(caplog.records) == 20
    assert "tracker_unreadable_rows_total" in caplog.records[-1].getMessage()


def test_feed_that_dies_says_so_and_its_stop_raises_nothing(tansu: str, prefix: str) -> None:
    settings = load_settings({}, brokers=tansu, name=prefix, item_partitions=2)
    deaths: list[tuple[str, BaseException]] = []

    class Broken(View):
        def update(
            self, rows: Sequence[bytes | None], items: NDArray[np.uint64], latest: float
        ) -> int:
            raise ZeroDivisionError("a bug")

    async def work() -> None:
        await ensure_topics(settings)
        await send(settings, (item_key(1), b"a"))
        feed = ItemFeed(
            settings, f"{prefix}-items-changelog", 2, Broken(),
            on_death=lambda name, error: deaths.append((name, error)),
        )  # fmt: skip
        feed.start()
        async with asyncio.timeout(60.0):
            while not deaths:
                await asyncio.sleep(0.01)
        await feed.stop()

    asyncio.run(work())
    ((name, error),) = deaths
    assert name == "the feed of items"
    assert isinstance(error, ZeroDivisionError)


def test_wait_for_a_feed_that_reads_nothing_has_a_deadline(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topic_feed, "QUIET_SECONDS", 0.2)
    settings = load_settings({}, brokers="127.0.0.1:1", name=prefix)

    async def work() -> None:
        feed = ItemFeed(settings, f"{prefix}-items-changelog", 2, View())
        feed.start()
        try:
            async with asyncio.timeout(60.0):
                with pytest.raises(FeedStalledError, match="was not read on for 0 s"):
                    await feed.wait_caught_up()
                while feed.failing_seconds == 0.0:
                    await asyncio.sleep(0.01)
        finally:
            await feed.stop()

    asyncio.run(work())
