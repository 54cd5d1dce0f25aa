"""Changelogs with times of the future are mended while no worker runs, and what is lost is said."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.brokers import KafkaBroker
from tests.worlds import DAY, START, World
from tracker.events.item_events import encode_block
from tracker.events.wire import hash_id
from tracker.items.counts import COUNT
from tracker.items.states import ItemStates
from tracker.kafka.client import read_topic
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import producer
from tracker.kafka.topics import ensure_topics
from tracker.kernels.row_bytes import POSITION_KEY, item_key, user_key
from tracker.lookup.mend_times import Mended, mend_times
from tracker.settings import Settings, load_settings
from tracker.store.partition_store import Position, decode_position
from tracker.users.states import UserStates

FAR = 4_102_444_800.0
NOW = START + 10 * DAY


async def fill(settings: Settings, world: World) -> None:
    """Write what a worker would have left after an event of the future of u0 on item i1."""
    await ensure_topics(settings)
    names = topics_of(settings)
    sent = world.send(
        {"user": 0, "item": "i2", "time": START},
        {"user": 1, "item": "i2", "time": START},
        {"user": 0, "item": "i1", "time": FAR},
        {"user": 0, "item": "i1", "time": START + DAY},
    )
    block = encode_block(sent.item_events)
    users = world.states.pack(np.arange(2))
    items = [hash_id("i1"), hash_id("i2")]
    slots = np.array([world.item_slots[item] for item in items])
    rows: list[tuple[str, bytes, bytes]] = [
        (names.users_changelog, user_key("u0"), b"old"),
        (names.users_changelog, user_key("u0"), users[0]),
        (names.users_changelog, user_key("u1"), users[1]),
        (names.users_changelog, user_key("broken"), b"garbage!"),
        (names.users_changelog, POSITION_KEY, position(names.events, 4)),
        *(
            (names.items_changelog, item_key(item), row)
            for item, row in zip(items, world.item_states.pack(slots), strict=True)
        ),
        (names.items_changelog, POSITION_KEY, position(names.items, 2)),
        (names.items, b"", block),
        (names.items, b"", block),  # sent twice: applied once
        (names.items, b"", b"no block"),
    ]
    async with producer(settings) as client:
        for topic, key, value in rows:
            await client.send_and_wait(topic, value, key or None, 0)


def position(topic: str, offset: int) -> bytes:
    return msgspec.json.encode(Position(1, offset, topic, "", 1, FAR))


async def rows_of(settings: Settings, topic: str) -> dict[bytes | None, bytes | None]:
    return {record.key: record.value async for record in read_topic(settings, topic)}


def check(settings: Settings) -> None:
    world = World()

    async def work() -> tuple[list[Mended], list[Mended], dict[Any, Any], dict[Any, Any]]:
        await fill(settings, world)
        names = topics_of(settings)
        first = await mend_times(settings, world.artifact, lambda: NOW)
        again = await mend_times(settings, world.artifact, lambda: NOW)
        users = await rows_of(settings, names.users_changelog)
        return first, again, users, await rows_of(settings, names.items_changelog)

    first, again, users, items = asyncio.run(work())
    assert first == [Mended("users", 1, 1, 0, 1), Mended("items", 1, 1, 0, 0)]
    assert again == [Mended("users", 0, 0, 0, 1), Mended("items")]
    assert str(first[0]) == (
        "users: 1 rows and 1 positions mended; 1 rows cannot be read and stay as they are"
    )
    assert users[user_key("broken")] == b"garbage!"
    for rows in (users, items):
        assert decode_position(rows[POSITION_KEY]).stream_time == NOW
    assert decode_position(users[POSITION_KEY]).position == 4
    states = UserStates(world.config, 1)
    states.unpack(np.arange(1), [users[user_key("u0")]])
    assert states.head["last_time"][0] == START + DAY
    item_states = ItemStates(1)
    item_states.unpack(np.arange(1), [items[item_key(hash_id("i1"))]])
    assert item_states.columns.counts[0, COUNT.never] == 2.0
    assert item_states.head["ref_time"][0] == NOW
    # One event as of now, one of nine days before, with a half-life of a day.
    assert item_states.columns.counts[0, COUNT.short] == pytest.approx(1.0 + 2.0**-9)


def settings_of(address: str, name: str, folder: Path) -> Settings:
    return load_settings(
        {},
        brokers=address,
        name=name,
        event_partitions=1,
        item_partitions=1,
        artifacts=str(folder),
    )


def test_rows_of_the_future_are_mended_and_others_stay(
    tansu: str, prefix: str, tmp_path: Path
) -> None:
    check(settings_of(tansu, prefix, tmp_path))


@pytest.mark.kafka
def test_rows_are_mended_in_a_transaction(kafka: KafkaBroker, prefix: str, tmp_path: Path) -> None:
    check(settings_of(kafka.address, prefix, tmp_path))


def test_what_was_lost_is_said() -> None:
    assert "of 2 of them only the events in the ring are left" in str(Mended("users", 0, 3, 2))
    assert "of 1 of them no item event is kept" in str(Mended("items", 1, 1, 1))
