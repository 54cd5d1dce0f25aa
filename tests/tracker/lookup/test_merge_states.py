"""States in the wrong partition are moved to the user's own, and joined there once."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from tests.brokers import KafkaBroker
from tests.plane_world import FakeRecord, Make, WorkerState, like
from tests.tracker.stream.test_hand_over import AWAY, HERE, receive, rejections
from tracker.explained import Explained
from tracker.kafka.client import read_topic
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import producer
from tracker.kafka.topics import ensure_topics
from tracker.kernels.row_bytes import user_key
from tracker.lookup.merge_states import Merged, merge_states
from tracker.settings import Settings, load_settings

SPLIT, MOVED, STAYS = AWAY[0], AWAY[1], HERE[0]
HOME = 2


@pytest.fixture
def halves(make: Make) -> tuple[WorkerState, WorkerState]:
    """Partitions 0 and 2, in both of which a user had events while nothing was handed on."""
    away = make(hand_over="off")
    home = make(partition=HOME, hands_over=True)
    away.send(like(SPLIT, 0), like(SPLIT, 1), like(MOVED, 2), like(STAYS, 3))
    home.send(like(SPLIT, 4), like(SPLIT, 5), like(SPLIT, 6))
    return away, home


def settings_of(address: str, name: str, **more: Any) -> Settings:
    return load_settings(
        {}, brokers=address, name=name, event_partitions=4, item_partitions=1, **more
    )


async def write(settings: Settings, *worlds: WorkerState) -> None:
    await ensure_topics(settings)
    async with producer(settings) as client:
        for world in worlds:
            database: Any = world.databases["users"]
            for key, value in database.items():
                if bytes(key[:1]) in (b"u", b"s"):
                    changelog = topics_of(settings).users_changelog
                    await client.send_and_wait(changelog, bytes(value), bytes(key), world.partition)
        changelog = topics_of(settings).users_changelog
        await client.send_and_wait(changelog, b"garbage!", user_key(AWAY[2]), 0)


async def handed_on(settings: Settings) -> list[Any]:
    async with aclosing(read_topic(settings, topics_of(settings).hand_over)) as records:
        return [record async for record in records]


async def users_in(settings: Settings, partition: int) -> set[str]:
    rows: dict[bytes, bytes | None] = {}
    changelog = topics_of(settings).users_changelog
    async with aclosing(read_topic(settings, changelog, choose=lambda _: partition)) as records:
        async for record in records:
            rows[record.key or b""] = record.value
    return {key[1:].decode() for key, value in rows.items() if value and key[:1] == b"u"}


def check(settings: Settings, halves: tuple[WorkerState, WorkerState]) -> None:
    away, home = halves
    away.commit()
    home.commit()

    async def work() -> tuple[Merged, Merged, list[Any], set[str]]:
        await write(settings, *halves)
        first = await merge_states(settings, away.keeper.current.artifact)
        again = await merge_states(settings, away.keeper.current.artifact)
        return first, again, await handed_on(settings), await users_in(settings, 0)

    first, again, records, left = asyncio.run(work())
    assert first == Merged(moved=2, halves=1, unreadable=1)
    assert again == Merged(unreadable=1)
    assert "2 states are moved to their users' partitions; 1 of these users" in str(first)
    assert left == {STAYS, AWAY[2]}
    assert {record.partition for record in records} == {HOME}
    as_read = [
        FakeRecord(at, record.value, record.key, headers=record.headers)
        for at, record in enumerate(records)
    ]
    assert not rejections(receive(home, as_read))
    assert (home.head(SPLIT, "events"), home.head(MOVED, "events")) == (5, 1)
    home.commit()
    home.restart()
    later = [FakeRecord(9, record.value, record.key, headers=record.headers) for record in as_read]
    receive(home, later[:1])
    assert home.head(SPLIT, "events") == 5
    assert home.count("replayed") == 1


def test_states_in_two_partitions_are_one_after_the_command_also_if_it_is_run_twice(
    tansu: str, prefix: str, halves: tuple[WorkerState, WorkerState]
) -> None:
    check(settings_of(tansu, prefix), halves)


@pytest.mark.kafka
def test_states_are_moved_in_a_transaction(
    kafka: KafkaBroker, prefix: str, halves: tuple[WorkerState, WorkerState]
) -> None:
    check(settings_of(kafka.address, prefix), halves)


def test_a_user_whose_row_was_written_again_does_not_hide_those_written_before(
    tansu: str, prefix: str, halves: tuple[WorkerState, WorkerState]
) -> None:
    """The offsets of handed-on states must grow, or the owner takes one for a repeat."""
    away, home = halves
    away.commit()
    settings = settings_of(tansu, prefix)
    database: Any = away.databases["users"]
    rows = {user: bytes(database[user_key(user)]) for user in (SPLIT, MOVED)}

    async def work() -> list[Any]:
        await ensure_topics(settings)
        changelog = topics_of(settings).users_changelog
        async with producer(settings) as client:
            for user in (SPLIT, MOVED, SPLIT):
                await client.send_and_wait(changelog, rows[user], user_key(user), 0)
        await merge_states(settings, away.keeper.current.artifact)
        return await handed_on(settings)

    records = [
        FakeRecord(at, record.value, record.key, headers=record.headers)
        for at, record in enumerate(asyncio.run(work()))
    ]
    assert not rejections(receive(home, records))
    assert home.count("replayed") == 0
    assert home.head(MOVED, "events") == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"partitioner": "given"}, "TRACKER_PARTITIONER=given: no partition is a user's"),
        ({"hand_over": "off"}, "TRACKER_HAND_OVER=off: workers would not take the states"),
        ({}, "run 'tracker topics'"),
    ],
)
def test_states_that_nobody_would_take_are_not_moved(
    tansu: str, prefix: str, more: Any, message: str
) -> None:
    artifact: Any = None
    with pytest.raises(Explained, match=message):
        asyncio.run(merge_states(settings_of(tansu, prefix, **more), artifact))
