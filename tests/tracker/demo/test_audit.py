"""What came out is held against what went in, by user, partition and offset."""

import asyncio

import pytest

from tracker.demo.audit import AuditError, Follower, count_records, latency_ms, read_events
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import producer
from tracker.kafka.topics import ensure_topics
from tracker.settings import Settings, load_settings


async def prepared(address: str, name: str) -> Settings:
    settings = load_settings({}, brokers=address, name=name, event_partitions=2, item_partitions=1)
    await ensure_topics(settings)
    return settings


def made(user: str, partition: int, offset: int) -> bytes:
    record = f"a-topic-with-dashes-{partition}-{offset}"
    return (
        f'{{"id":"{record}","user_id":"{user}","timestamp":1.0,"scene":null,"items":[],'
        '"artifact":"1","latency_ms":1.0,"interests":[]}'
    ).encode()


def test_last_offsets_are_read_by_user_and_partition(tansu: str, prefix: str) -> None:
    async def go() -> tuple[int, int, dict[tuple[bytes, int], int]]:
        settings = await prepared(tansu, prefix)
        topic = topics_of(settings).events
        async with producer(settings) as client:
            for user, partition in (("a", 0), ("b", 0), ("a", 0), ("a", 1)):
                await client.send_and_wait(topic, b"{}", user.encode(), partition)
        truth = await read_events(settings)
        assert await count_records(settings, topic) == 4
        return truth.events, truth.users, truth.last

    events, users, last = asyncio.run(go())
    assert (events, users) == (4, 2)
    assert last == {(b"a", 0): 2, (b"b", 0): 1, (b"a", 1): 0}


async def followed(
    settings: Settings, records: list[tuple[str, int, int]]
) -> tuple[Follower, "asyncio.Task[None]"]:
    follower = Follower(settings)
    task = asyncio.create_task(follower.run())
    await asyncio.wait_for(follower.ready.wait(), 20)
    async with producer(settings) as client:
        for user, partition, offset in records:
            value = made(user, partition, offset)
            topic = topics_of(settings).recommendations
            await client.send_and_wait(topic, value, user.encode(), 0)
    return follower, task


def test_event_is_answered_by_the_first_list_at_or_past_it_and_repeats_change_nothing(
    tansu: str, prefix: str
) -> None:
    async def go() -> Follower:
        settings = await prepared(tansu, prefix)
        follower, task = await followed(settings, [("a", 1, 3), ("a", 1, 7), ("a", 1, 3)])
        await follower.wait_for([(b"a", 1, 7)], 20)
        while follower.count < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return follower

    follower = asyncio.run(go())
    assert follower.lists[b"a", 1].offsets == [3, 7]
    first, second = follower.lists[b"a", 1].appended
    assert follower.answered(b"a", 1, 2) == first
    assert follower.answered(b"a", 1, 4) == second
    assert follower.answered(b"a", 1, 8) is None
    assert follower.answered(b"a", 0, 1) is None
    assert follower.answered(b"b", 1, 1) is None
    latest = follower.latest("a")
    assert latest is not None
    assert latest.id.endswith("-1-7")
    assert follower.latest("b") is None


def test_user_without_a_list_is_named_when_nothing_comes_any_more(tansu: str, prefix: str) -> None:
    async def go() -> None:
        settings = await prepared(tansu, prefix)
        follower, task = await followed(settings, [("a", 0, 3)])
        try:
            await follower.wait_for([(b"a", 0, 3)], 20)
            await follower.wait_for([(b"a", 0, 3), (b"b", 1, 9)], 0.5)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    with pytest.raises(AuditError, match=r"1 users have no .* b \(partition 1, offset 9\)"):
        asyncio.run(go())


def test_percentiles_are_in_milliseconds_and_nan_of_nothing() -> None:
    found = latency_ms([0.01] * 98 + [0.5, 1.0])
    assert found["p50"] == 10.0
    assert found["p99"] > 490.0
    assert all(value != value for value in latency_ms([]).values())
