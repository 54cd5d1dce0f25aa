"""The change-over to states that a replay has built: who had the old ones commits nothing more."""

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import KafkaError

from tests.brokers import KafkaBroker
from tracker.kafka.client import read_topic
from tracker.kafka.cluster import describe_topics, topics_of
from tracker.kafka.connect import producer
from tracker.kafka.producers import fenced_producer
from tracker.kafka.topics import ensure_topics
from tracker.kernels.row_bytes import POSITION_KEY
from tracker.lookup.changes import positions_of
from tracker.lookup.replay import ReplayError, begin_replay, retire
from tracker.settings import Settings, load_settings
from tracker.store.partition_store import FORMAT, Position, encode_position


@pytest.fixture
def live(kafka: KafkaBroker, prefix: str, tmp_path: Path) -> Settings:
    return load_settings(
        {},
        name=prefix,
        brokers=kafka.address,
        data_dir=tmp_path,
        event_partitions=2,
        item_partitions=1,
    )


async def live_at(live: Settings, offset: int) -> None:
    """Write positions as live workers do."""
    await ensure_topics(live)
    names, topics = topics_of(live), await describe_topics(live)
    async with producer(live) as client:
        for source, changelog, count in (
            (names.events, names.users_changelog, 2),
            (names.items, names.items_changelog, 1),
        ):
            for partition in range(count):
                position = Position(
                    FORMAT, offset, source, topics[source].topic_id, count, transactions=True
                )
                value = encode_position(position)
                await client.send_and_wait(changelog, value, POSITION_KEY, partition)


async def commit(former: Any, changelog: str) -> None:
    await (await former.send(changelog, b"late", b"late", 1))
    await former.commit_transaction()


@pytest.mark.kafka
def test_change_over_fences_those_who_had_the_states_and_names_their_successor(
    live: Settings,
) -> None:
    async def go() -> None:
        await live_at(live, 0)
        names = topics_of(live)
        former = await fenced_producer(live, "users", 1, True)
        try:
            await former.begin_transaction()
            assert await retire(live, live.name, "new") == {0: 0, 1: 0}
            with pytest.raises(KafkaError):
                await commit(former, names.users_changelog)
        finally:
            await former.stop()
        async with aclosing(read_topic(live, names.users_changelog)) as records:
            assert [record async for record in records if record.key == b"late"] == []
        positions = await positions_of(live, names.users_changelog, await describe_topics(live))
        assert {one.successor for one in positions.values()} == {"new"}
        with pytest.raises(ReplayError, match="new has taken over"):
            await retire(live, live.name, "another")
        await retire(live, live.name, "")
        positions = await positions_of(live, names.users_changelog, await describe_topics(live))
        assert {one.successor for one in positions.values()} == {""}

    asyncio.run(go())


@pytest.mark.kafka
@pytest.mark.parametrize("start", ["beginning", 2, 100, 1e9, 4e9])
def test_replay_leaves_out_no_event_that_live_workers_have_not_applied(
    live: Settings, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def committed(settings: Settings, of: str) -> dict[int, int]:
        return {0: 3, 1: 0}

    monkeypatch.setattr("tracker.lookup.replay.committed", committed)
    new = live.model_copy(update={"name": f"{live.name}-new", "stream": live.name})

    async def go() -> None:
        await live_at(live, 3)
        async with producer(live) as client:
            for number in range(10):
                await client.send_and_wait(
                    topics_of(live).events, b"{}", b"u", number % 2, timestamp_ms=1
                )
        begun = await begin_replay(new, live.name, start)
        expected = {"beginning": 0, 2: 2, 100: 3, 1e9: 0, 4e9: 3}[start]
        assert begun.starts == {0: expected, 1: 0}
        assert begun.missing == expected

    asyncio.run(go())
