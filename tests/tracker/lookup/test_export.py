"""Vectors of users and items as Parquet: what is in them is what serves."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from indexer.items.export import ExportError, export_items, export_step
from tests.tracker.encoder.test_tower import fitted, tower_of, world_with
from tests.worlds import START, World, likes
from tracker.artifact.models import UNTRAINED
from tracker.events.wire import hash_id
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import producer
from tracker.kafka.partitioner import partition_of
from tracker.kafka.topics import ensure_topics
from tracker.lookup.export import export_users
from tracker.settings import Settings, load_settings
from tracker.users.rows import RequestBatch


def lived_in() -> World:
    world = world_with(fitted(scenes=True))
    world.send(*likes(0, [0, 2, 4], scene="home"), *likes(1, [1, 3]))
    return world


async def exported(address: str, name: str, world: World, path: Path, artifact: object) -> int:
    settings: Settings = load_settings({}, brokers=address, name=name, event_partitions=2)
    await ensure_topics(settings)
    topic = topics_of(settings).users_changelog
    rows = world.states.pack(np.arange(2))
    async with producer(settings) as client:
        await client.send_and_wait(topic, b"old", b"uu0", 0)
        await client.send_and_wait(topic, rows[0], b"uu0", 0)
        await client.send_and_wait(topic, b"{}", b"p", 0)
        await client.send_and_wait(topic, rows[1], b"ugone", 1)
        await client.send_and_wait(topic, None, b"ugone", 1)
        await client.send_and_wait(topic, rows[1], b"uu1", 1)
    return await export_users(settings, artifact, path)  # type: ignore[arg-type]


def test_users_are_written_with_the_vectors_that_serve(
    tansu: str, prefix: str, tmp_path: Path
) -> None:
    world, path = lived_in(), tmp_path / "users.parquet"
    assert asyncio.run(exported(tansu, prefix, world, path, world.artifact)) == 2
    table = pq.read_table(path).to_pydict()
    assert table["user_id"] == ["u0", "u1"]
    assert table["events"] == [3, 2]
    slots, last = np.arange(2), world.states.head["last_time"][:2]
    users = np.array([hash_id("u0"), hash_id("u1")], np.uint64)
    queries = tower_of(world).queries(
        RequestBatch(world.users, slots, last, np.zeros(2, np.uint32), users)
    )
    assert np.array(table["encoder"]) == pytest.approx(queries[:, :8], abs=1e-5)
    assert np.linalg.norm(np.array(table["interest_86400s"]), axis=1) == pytest.approx(1.0)
    assert table["mass_86400s"] == pytest.approx(world.states.masses[:2, 1], rel=1e-5)
    assert [[one["label"] for one in interests] for interests in table["slots"]] == [
        ["group 0"],
        ["group 1"],
    ]
    assert not list(tmp_path.glob(".*"))


def test_without_an_encoder_its_column_is_null(tansu: str, prefix: str, tmp_path: Path) -> None:
    world, path = lived_in(), tmp_path / "users.parquet"
    plain = replace(world.artifact, models=UNTRAINED)
    assert asyncio.run(exported(tansu, prefix, world, path, plain)) == 2
    assert pq.read_table(path)["encoder"].null_count == 2


def test_items_are_written_with_their_vectors_in_every_space(tmp_path: Path) -> None:
    world, path = lived_in(), tmp_path / "items.parquet"
    assert export_items(world.artifact, path) == 40
    table = pq.read_table(path).to_pydict()
    assert table["item_id"][:2] == ["i0", "i1"]
    assert table["label"][:2] == ["group 0", "group 1"]
    assert np.array(table["content"], np.float32) == pytest.approx(world.items.full)
    assert np.array(table["vector"], np.float32) == pytest.approx(world.items.vectors)
    encoder = np.column_stack([np.array(table["encoder"]), table["bias"]])
    assert encoder == pytest.approx(tower_of(world).vectors[:, :9])
    assert export_items(replace(world.artifact, models=UNTRAINED), path) == 40
    assert pq.read_table(path)["encoder"].null_count == 40


@pytest.mark.xdist_group("slow to load")  # in one process only
def test_the_step_is_written_for_any_number_of_users(tmp_path: Path) -> None:
    world, path = lived_in(), tmp_path / "step.pt2"
    assert export_step(world.artifact, path) == 16
    program = torch.export.load(path).module()
    model = tower_of(world).model
    for users in (1, 5):
        arguments = (
            torch.randn(users, 16), torch.randn(users, 8), torch.zeros(users, dtype=torch.int64),
            torch.zeros(users, dtype=torch.int64), torch.zeros(users, 2), torch.full((users,), 9.0),
        )  # fmt: skip
        with torch.no_grad():
            found = program(*arguments)
        assert found.shape == (users, model.state_dim)
    with pytest.raises(ExportError, match="has no user encoder; `indexer train` learns one"):
        export_step(replace(world.artifact, models=UNTRAINED), path)


def test_vectors_are_told_for_a_time_that_is_asked_for() -> None:
    world = lived_in()
    early, late = (
        tower_of(world).queries(world.asked([0], now=START + more)) for more in (10.0, 1e6)
    )
    assert not np.allclose(early, late)


def test_damaged_rows_are_left_out_and_named(
    tansu: str, prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world, path = lived_in(), tmp_path / "users.parquet"
    settings = load_settings({}, brokers=tansu, name=prefix, event_partitions=1)

    async def export() -> int:
        await ensure_topics(settings)
        rows = world.states.pack(np.arange(2))
        async with producer(settings) as client:
            topic = topics_of(settings).users_changelog
            await client.send_and_wait(topic, rows[0], b"uwhole", 0)
            await client.send_and_wait(topic, rows[1][:-8], b"ucut", 0)
            await client.send_and_wait(topic, b"garbage!", b"ubad", 0)
        return await export_users(settings, world.artifact, path)

    assert asyncio.run(export()) == 1
    assert pq.read_table(path).to_pydict()["user_id"] == ["whole"]
    assert "2 users are left out" in caplog.text
    assert "bad (damaged), cut (damaged)" in caplog.text


def test_user_in_two_partitions_is_written_once_with_the_row_of_its_own(
    tansu: str, prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world, path = lived_in(), tmp_path / "users.parquet"
    settings = load_settings({}, brokers=tansu, name=prefix, event_partitions=2)
    homes = {user: partition_of(user, 2, "murmur2") for user in map(str, range(20))}
    first = next(user for user, home in homes.items() if home == 0)
    second = next(user for user, home in homes.items() if home == 1)
    lost = next(user for user in homes if user not in (first, second))

    async def export() -> int:
        await ensure_topics(settings)
        right, wrong = world.states.pack(np.arange(2))
        async with producer(settings) as client:
            topic = topics_of(settings).users_changelog
            for user in (first, second):
                for partition in (0, 1):
                    row = right if homes[user] == partition else wrong
                    await client.send_and_wait(topic, row, b"u" + user.encode(), partition)
            elsewhere = 1 - (homes[lost] or 0)
            await client.send_and_wait(topic, wrong, b"u" + lost.encode(), elsewhere)
        return await export_users(settings, world.artifact, path)

    assert asyncio.run(export()) == 3
    table = pq.read_table(path).to_pydict()
    assert dict(zip(table["user_id"], table["events"], strict=True)) == {
        first: 3,
        second: 3,
        lost: 2,
    }
    assert "2 users have states in several partitions" in caplog.text
