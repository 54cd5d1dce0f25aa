"""What is exported of a person is every field of every row, and the records that name it."""

import asyncio
import json
from typing import Any

import numpy as np

from tests.worlds import START, World, likes
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import producer
from tracker.kafka.topics import ensure_topics
from tracker.lookup.person import describe_row, export_user
from tracker.settings import load_settings
from tracker.users.states import row_dtype

PARTS = {"slots": "interests", "slot_means": "interests"}
"""Fields of a row by the name that they have in an export, if it is another."""


def lived_in() -> World:
    """A user with a ring that has overflowed, a retraction that waits, and something disliked."""
    world = World(users=2, ring=8, ring_evict=2)
    world.send(*likes(0, list(range(0, 20, 2)), scene="home"))
    world.send({"user": 0, "item": "i3", "time": START + 50, "weight": -1.0, "id": "e1"})
    world.send({"user": 0, "retracts": "e9"})
    return world


def test_an_export_has_every_field_of_the_row_with_its_value() -> None:
    world = lived_in()
    told: dict[str, Any] = json.loads(json.dumps(describe_row(world.states, 0, world.items)))
    layout = row_dtype(world.config)
    assert layout.names is not None
    assert {PARTS.get(name, name) for name in layout.names} - {"header"} == set(told)
    head = world.states.head[0]
    assert told["head"] == {name: head[name].item() for name in head.dtype.names}
    for name in ("masses", "sums", "negative"):
        assert np.array_equal(np.float32(told[name]), getattr(world.states, name)[0])
    assert told["pending"] == world.states.pending[0, :1].tolist()
    assert len(told["ring"]) == head["n_ring"] > 0
    for entry, one in zip(told["ring"], world.states.ring[0], strict=False):
        fields = {name: one[name].item() for name in one.dtype.names}
        fields["value"] = None  # none was given: NaN
        assert {name: entry[name] for name in fields} == fields
        assert entry["item_id"] in world.items.ids
    assert len(told["interests"]) == head["n_slots"] > 0
    for number, interest in enumerate(told["interests"]):
        one = world.states.interest_heads[0, number]
        assert {name: interest[name] for name in one.dtype.names} == {
            name: one[name].item() for name in one.dtype.names
        }
        assert interest["mean"] == world.states.interest_means[0, number].tolist()


def test_rows_of_all_partitions_and_records_of_all_topics_are_exported(
    tansu: str, prefix: str
) -> None:
    world = lived_in()
    settings = load_settings({}, brokers=tansu, name=prefix, event_partitions=2)
    names = topics_of(settings)
    row = world.states.pack(np.array([0]))[0]
    seen = world.users.seen.pack(world.users.seen_slots[:1])[0]

    async def go() -> Any:
        await ensure_topics(settings)
        async with producer(settings) as client:
            for key, value, partition in (
                (b"uann", row, 0), (b"sann", seen, 0), (b"oann", b"[5,1.5,null,false]", 0),
                (b"uann", row, 1), (b"uann", None, 1), (b"xuann", b"old", 1), (b"uanna", row, 1),
            ):  # fmt: skip
                await client.send_and_wait(names.users_changelog, value, key, partition)
            event = b'{"user_id":"ann","item_id":"i1","kind":"like","timestamp":1}'
            await client.send_and_wait(names.events, event, None, 1)
            await client.send_and_wait(names.rejected, b"not an event", b"ann", 0)
            await client.send_and_wait(names.rejected, b"\xffanother", b"anna", 0)
        return await export_user(settings, world.artifact, "ann")

    person = json.loads(json.dumps(asyncio.run(go())))
    first, second = person["states"]
    assert first["row"]["head"]["events"] == world.states.head[0]["events"]
    assert first["owed"] == [5, 1.5, None, False]
    assert {"i0", "i2"} <= set(first["seen"]["items"])
    assert bytes.fromhex(first["seen"]["bits"][0]) == world.users.seen.bits[0, 0].tobytes()
    assert second == {"partition": 1, "set_aside": [{"key": b"xuann".hex(), "base64": "b2xk"}]}
    records = person["records"]
    assert [one["value"]["item_id"] for one in records[names.events]] == ["i1"]
    assert [one["value"] for one in records[names.rejected]] == [{"base64": "bm90IGFuIGV2ZW50"}]
    assert records[names.recommendations] == []
