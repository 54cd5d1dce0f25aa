"""Rows of single keys are found in a changelog, the last one and the last good one."""

import asyncio

from tracker.kafka.changelog_rows import Stored, stored_rows
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import producer
from tracker.kafka.topics import ensure_topics
from tracker.settings import load_settings


def test_last_row_counts_or_the_last_good_one_before_it(tansu: str, prefix: str) -> None:
    settings = load_settings({}, brokers=tansu, name=prefix, event_partitions=2)
    topic = topics_of(settings).users_changelog
    written = [
        (b"a", b"good 1"),
        (b"a", b"good 2"),
        (b"b", b"good 3"),
        (b"b", b"bad"),
        (b"c", b"bad"),
        (b"d", b"good 4"),
        (b"d", None),
        (b"e", b"good 5"),
    ]

    async def read() -> dict[bytes, Stored]:
        await ensure_topics(settings)
        async with producer(settings) as client:
            for key, value in written:
                await client.send_and_wait(topic, value, key=key, partition=1)
            await client.send_and_wait(topic, b"good 6", key=b"a", partition=0)
        return await stored_rows(
            settings, topic, 1, [b"a", b"b", b"c", b"d", b"f"], lambda key, row: row != b"bad"
        )

    assert asyncio.run(read()) == {
        b"a": Stored(b"good 2", True),
        b"b": Stored(b"good 3", False),
        b"c": Stored(None, False),
        b"d": Stored(None, True),
    }
