"""Replays that begin later, follow other rules, are given back, or whose events are deleted.

Takes minutes: make test ARGS='-m long -k replay_variants'.
"""

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from indexer.data.catalog import Catalog
from indexer.items.assemble import build_artifact
from indexer.items.options import BuildOptions
from tests.brokers import KafkaBroker
from tests.end_to_end.steps import all_applied, differences, refusal, session_ends
from tests.end_to_end.test_replay import (
    AWAY,
    killed_at,
    list_ids,
    send,
    to_its_end,
    tracker_of,
)
from tests.shop import LetterEncoder, build_shop, shop_events, shop_items
from tests.states import (
    EMISSION,
    PLACE,
    read_rows,
    without_list,
)
from tracker.demo.audit import read_events
from tracker.demo.local import own_topics, until_ready, worker_process
from tracker.events.lines import Line
from tracker.kafka.client import read_topic
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import producer
from tracker.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.long, pytest.mark.timeout(900)]

LINES = 6000
UNLIKE = (*EMISSION, *PLACE)
PART = LINES // 3 + 3 * len(AWAY)
"""Records of one of the three parts that `send` sends."""


@dataclass
class World:
    """The settings of one test: the live tracker and its replay."""

    kafka: KafkaBroker
    name: str
    folder: Path
    lines: list[Line]
    live: Settings
    new: Settings

    def one(self, name: str, **more: Any) -> Settings:
        """Return settings of another tracker."""
        return tracker_of(self.kafka.address, f"{self.name}-{name}", self.folder, **more)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


@pytest.fixture
def world(kafka: KafkaBroker, prefix: str, tmp_path: Path) -> World:
    build_shop(tmp_path / "artifacts")
    live = tracker_of(kafka.address, f"{prefix}-live", tmp_path)
    new = tracker_of(kafka.address, f"{prefix}-new", tmp_path, stream=live.name)
    return World(kafka, prefix, tmp_path, shop_events(LINES, 700, seed=23), live, new)


async def lives(world: World, settings: Settings, count: int) -> None:
    """Let a worker run until it has applied some events."""
    with worker_process(settings, world.log(settings.name)) as worker:
        await until_ready(worker, settings)
        await all_applied(settings, count, 240)
        await asyncio.sleep(4.0)  # what was handed on, and item events
        assert worker.stop(30) == 0
    await session_ends()


async def copied(source: Settings, target: Settings, starts: dict[int, int]) -> int:
    """Send the events from some offsets on to another tracker's partitions of the same number."""
    count = 0
    async with (
        producer(target, linger_ms=5) as client,
        aclosing(read_topic(source, topics_of(source).events)) as records,
    ):
        async for record in records:
            if record.offset < starts.get(record.partition, 0):
                continue
            count += 1
            await client.send(topics_of(target).events, record.value, record.key, record.partition)
        await client.flush()
    return count


def test_replay_from_an_offset_and_from_a_time_has_the_states_of_the_events_from_there_on(
    world: World,
) -> None:
    async def go() -> None:
        live, offset = world.live, 300
        async with own_topics(live, delete=False):
            await send(live, world.lines, 0)
            await asyncio.sleep(1.5)
            moment = time.time()
            await asyncio.sleep(1.5)
            first = dict.fromkeys(range(4), 0)
            async with aclosing(read_topic(live, topics_of(live).events)) as records:
                async for record in records:
                    first[record.partition] = record.offset + 1
            await send(live, world.lines, 1)
            await lives(world, live, 2 * PART)
        starts = {"offset": dict.fromkeys(range(4), offset), "time": first}
        given = {"offset": str(offset), "time": datetime.fromtimestamp(moment, UTC).isoformat()}
        for name, begin in given.items():
            calm = world.one(f"calm-{name}")
            async with own_topics(calm, delete=False):
                count = await copied(live, calm, starts[name])
                assert 100 < count < 2 * PART
                await lives(world, calm, count)
            new = world.one(f"new-{name}", stream=live.name)
            await to_its_end(new, live.name, world.log("replays"), "--from", begin)
            # What was handed on is taken at the latest by the change-over.
            await to_its_end(new, live.name, world.log("replays"), "--change-over")
            await to_its_end(new, live.name, world.log("replays"), "--give-back")
            found = await read_rows(new)
            assert (
                differences(await read_rows(calm), found, world.folder / "artifacts", unlike=UNLIKE)
                == []
            )
            assert len(found.users) > 200
            said = f"{sum(starts[name].values())} records before the start are not in the states"
            assert said in world.log("replays").read_text()
        # A start after what the live workers have applied leaves none of their events out.
        late = world.one("late", stream=live.name)
        await send(live, world.lines, 2)
        await to_its_end(late, live.name, world.log("late"), "--from", "1000000")
        done = (await read_rows(live)).positions
        positions = (await read_rows(late)).positions
        changelogs = topics_of(late).users_changelog, topics_of(live).users_changelog
        for partition in range(4):
            assert positions[changelogs[0], partition] == done[changelogs[1], partition]

    asyncio.run(go())


def test_replay_by_other_weights_and_half_lives_has_the_states_of_having_lived_by_them(
    world: World,
) -> None:
    root, kinds = world.folder / "other", world.folder / "kinds.toml"
    options = BuildOptions(dim=32, half_lives_seconds=(600.0, 43200.0, 1209600.0))
    build_artifact(Catalog(items=shop_items()), LetterEncoder(), root, options)
    kinds.write_text("[kinds]\nview = 1.0\nlike = 3.0\ndislike = -3.0\n")
    rules: dict[str, Any] = {"artifacts": str(root), "kinds_file": kinds}

    async def go() -> None:
        live, calm = world.live, world.one("calm", **rules)
        new = world.one("ruled", stream=live.name, **rules)
        async with own_topics(live, delete=False), own_topics(calm, delete=False):
            for settings in (live, calm):
                for part in range(2):
                    await send(settings, world.lines, part)
                await lives(world, settings, 2 * PART)
        await to_its_end(new, live.name, world.log("replays"))
        await to_its_end(new, live.name, world.log("replays"), "--change-over")
        expected, found = await read_rows(calm), await read_rows(new)
        assert differences(expected, found, root, unlike=UNLIKE) == []
        before = await read_rows(live)
        assert all(len(before.users[name]) != len(row) for name, row in found.users.items())
        assert len(found.users) > 200

    asyncio.run(go())


def test_states_that_are_given_back_go_on_from_where_they_were(world: World) -> None:
    async def go() -> None:
        live, new, calm = world.live, world.new, world.one("calm")
        async with own_topics(live, delete=False), own_topics(calm, delete=False):
            for part in range(3):
                await send(calm, world.lines, part)
            await lives(world, calm, 3 * PART)
            await send(live, world.lines, 0)
            await lives(world, live, PART)
            await to_its_end(new, live.name, world.log("replays"))
            await to_its_end(new, live.name, world.log("replays"), "--change-over")
            await send(live, world.lines, 1)
            await lives(world, new, 2 * PART)
            between = await list_ids(live)
            assert f"TRACKER_NAME={new.name}" in await refusal(live, world.log("refused"))
            await to_its_end(new, live.name, world.log("replays"), "--give-back")
            await send(live, world.lines, 2)
            await lives(world, live, 3 * PART)
        expected, found = await read_rows(calm), await read_rows(live)
        assert differences(expected, found, world.folder / "artifacts", unlike=UNLIKE) == []
        assert not found.owed
        assert await without_list(live, await read_events(live)) == []
        after = await list_ids(live)
        assert max(after.values()) <= 2
        repeats = [name for name, count in after.items() if count == 2]
        assert len(repeats) > 50  # what came meanwhile got its list twice, with the same id
        assert all(between[name] == 1 for name in repeats)

    asyncio.run(go())


def test_replay_ends_though_its_events_are_deleted_before_it_has_read_them(world: World) -> None:
    async def go() -> None:
        live, new, log = world.live, world.new, world.log("replays")
        topic = topics_of(live).events
        async with own_topics(live, delete=False):
            for part in range(3):
                await send(live, world.lines, part)
            await lives(world, live, 3 * PART)
            await killed_at(new, live.name, log, 300)
            admin = AdminClient({"bootstrap.servers": world.kafka.address})
            every = [TopicPartition(topic, number, -1) for number in range(4)]
            for deleted in admin.delete_records(every).values():
                deleted.result(30)
            await to_its_end(new, live.name, log)
            await to_its_end(new, live.name, log, "--change-over")
            await lives(world, new, 3 * PART)
        found = await read_rows(new)
        assert len(found.users) > 0

    asyncio.run(go())
