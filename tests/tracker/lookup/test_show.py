"""What is known of users and items is told in names, from a worker or from the changelog."""

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.worlds import DAY, START, World, likes
from tracker.demo.processes import free_port
from tracker.events.wire import hash_id, scene_code
from tracker.kafka.cluster import TopicError, topics_of
from tracker.kafka.connect import producer
from tracker.kafka.partitioner import partition_of
from tracker.kafka.topics import ensure_topics
from tracker.lookup.show import (
    ask_worker,
    describe_item,
    describe_user,
    item_from_changelog,
    user_from_changelog,
)
from tracker.settings import Settings, load_settings


@pytest.fixture
def world() -> World:
    """User 0 likes three items of one group and then, two days later, one of the other."""
    world = World(users=2)
    world.send(*likes(0, [0, 2, 4], scene="home"))
    world.send({"user": 0, "item": "i1", "time": START + 2 * DAY, "id": "e1"})
    world.send({"user": 0, "item": "elsewhere", "time": START + 2 * DAY + 1})
    return world


def told(world: World, now: float = START + 3 * DAY) -> dict[str, Any]:
    found = describe_user("u0", world.states, 0, world.artifact, now)
    return dict(json.loads(json.dumps(found)))  # what it says is JSON


def test_user_is_told_with_counts_ages_and_recent_items_latest_first(world: World) -> None:
    found = told(world)
    assert (found["user_id"], found["events"], found["unknown"]) == ("u0", 5, 1)
    assert found["last_event"] == START + 2 * DAY + 1
    assert found["last_event_age_seconds"] == pytest.approx(DAY - 1)
    names = [entry["item_id"] for entry in found["recent"]]
    assert names == [f"#{hash_id('elsewhere'):016x}", "i1", "i4", "i2", "i0"]


def test_a_row_of_another_basis_is_told_in_terms_of_the_one_in_use(world: World) -> None:
    expected = told(world)
    artifact = World(basis="another").artifact
    world.states.interest_means[0] = 7.0  # vectors of the other basis mean nothing here
    found = json.loads(json.dumps(describe_user("u0", world.states, 0, artifact, START + 3 * DAY)))
    assert found["interests"] == expected["interests"]
    assert found["recent"] == expected["recent"]


def test_interests_name_their_items_and_share_the_whole(world: World) -> None:
    interests = told(world)["interests"]
    by_label = {one["label"]: one for one in interests}
    assert set(by_label) == {"group 0", "group 1"}
    assert by_label["group 0"]["items"] == ["i4", "i2", "i0"]
    assert by_label["group 1"]["items"] == ["i1"]
    assert sum(one["strength"] for one in interests) == pytest.approx(1.0, abs=1e-5)
    assert interests[0]["strength"] >= interests[1]["strength"]
    assert by_label["group 0"]["age_seconds"] == pytest.approx(3 * DAY)
    assert by_label["group 0"]["events"] == 3


def test_change_is_that_of_a_recommendation_and_adds_up_to_nothing(world: World) -> None:
    now = START + 2 * DAY + 60
    by_label = {one["label"]: one for one in told(world, now)["interests"]}
    made = world.recommend([0], now=now)
    shown = [by_label[world.items.labels[label]] for label in made.labels[0, :2]]
    assert [one["strength"] for one in shown] == pytest.approx(made.strengths[0, :2], abs=1e-5)
    assert [one["change"] for one in shown] == pytest.approx(made.changes[0, :2], abs=1e-5)
    assert by_label["group 1"]["change"] == pytest.approx(by_label["group 1"]["strength"], abs=0.01)
    assert sum(one["change"] for one in shown) == pytest.approx(0.0, abs=1e-5)


def test_retracted_event_is_told_as_such_and_behind_no_interest(world: World) -> None:
    world.send({"user": 0, "retracts": "e1", "time": START + 2 * DAY + 2})
    found = told(world)
    assert found["retracted"] == 1
    assert {one["item_id"] for one in found["recent"] if one["retracted"]} == {"i1"}
    assert all("i1" not in one["items"] for one in found["interests"])


def test_user_without_events_has_no_interests(world: World) -> None:
    found = describe_user("u1", world.states, 1, world.artifact, START)
    assert found["interests"] == []
    assert found["recent"] == []
    assert found["events"] == 0


def test_ages_are_never_negative_for_a_clock_behind_the_events(world: World) -> None:
    found = told(world, now=0.0)
    assert found["last_event_age_seconds"] == 0.0
    assert all(one["age_seconds"] >= 0 for one in found["interests"] + found["recent"])


def test_item_is_told_with_counts_that_decay_and_what_is_chosen_with_it(world: World) -> None:
    slot = world.item_slots[hash_id("i2")]
    found = describe_item("i2", world.item_states, slot, world.artifact, START + 1 + DAY)
    json.dumps(found)
    assert (found["positives"], found["in_catalogue"], found["label"]) == (1, True, "group 0")
    counts = found["counts"]
    assert isinstance(counts, dict)
    assert counts["all"] == pytest.approx(1.0)
    assert counts["1d"] == pytest.approx(0.5, abs=1e-5)
    scenes = found["scenes"]
    assert isinstance(scenes, list)
    (scene,) = scenes
    assert scene["scene"] == f"#{scene_code('home'):08x}"
    near = found["chosen_together"]
    assert isinstance(near, list)
    assert "i0" in {one["item_id"] for one in near}


def test_scene_of_an_item_is_told_by_its_name_where_that_is_known(world: World) -> None:
    slot, names = world.item_slots[hash_id("i2")], {scene_code("home"): "home"}
    found = describe_item("i2", world.item_states, slot, world.artifact, START, names)
    assert [one["scene"] for one in found["scenes"]] == ["home"]  # type: ignore[attr-defined]


def test_item_outside_the_catalogue_is_told_too(world: World) -> None:
    slot = world.item_slots[hash_id("elsewhere")]
    found = describe_item("elsewhere", world.item_states, slot, world.artifact, START)
    assert (found["in_catalogue"], found["label"], found["positives"]) == (False, "", 1)


async def changelogs(address: str, name: str, world: World) -> Settings:
    """Write rows as a worker does: the user's in a partition no client would choose."""
    settings = load_settings({}, brokers=address, name=name, event_partitions=4, item_partitions=2)
    await ensure_topics(settings)
    names = topics_of(settings)
    (row,) = world.states.pack(np.array([0]))
    item = hash_id("i2")
    (item_row,) = world.item_states.pack(np.array([world.item_slots[item]]))
    async with producer(settings) as client:
        for partition in range(4):
            if partition == 3:
                await client.send_and_wait(names.users_changelog, b"old", b"uu0", partition)
                await client.send_and_wait(names.users_changelog, row, b"uu0", partition)
            await client.send_and_wait(names.users_changelog, b"{}", b"p", partition)
        key = b"i" + item.to_bytes(8, "big")
        await client.send_and_wait(names.items_changelog, item_row, key, 1)
    return settings


def test_user_is_found_in_whatever_partition_of_the_changelog(
    tansu: str, prefix: str, world: World
) -> None:
    async def go() -> tuple[object, object, object, object]:
        settings = await changelogs(tansu, prefix, world)
        now = START + 3 * DAY
        artifact = world.artifact
        return (
            await user_from_changelog(settings, "u0", artifact, now),
            await user_from_changelog(settings, "nobody", artifact, now),
            await item_from_changelog(settings, "i2", artifact, now),
            await item_from_changelog(settings, "nothing", artifact, now),
        )

    user, nobody, item, nothing = asyncio.run(go())
    assert user == describe_user("u0", world.states, 0, world.artifact, START + 3 * DAY)
    assert isinstance(item, dict)
    assert item["positives"] == 1
    assert nobody is None
    assert nothing is None


def test_changelog_that_is_missing_is_named(tansu: str, prefix: str, world: World) -> None:
    settings = load_settings({}, brokers=tansu, name=prefix)
    with pytest.raises(TopicError, match=f"{prefix}-users-changelog does not exist"):
        asyncio.run(user_from_changelog(settings, "u0", world.artifact, START))


class Answers(http.server.BaseHTTPRequestHandler):
    """Knows one user, with an id that has to be quoted; other paths are odd answers."""

    def do_GET(self) -> None:
        bodies = {"/users/a%2Fb%20c": b'{"user_id":"a/b c"}', "/users/odd": b"[1]"}
        body = bodies.get(self.path, b"oops")
        self.send_response(404 if self.path == "/users/none" else 200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    """A web server as a worker's."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("users/a/b c", {"user_id": "a/b c"}),
        ("users/none", None),
        ("users/odd", None),
        ("users/strange", None),
    ],
)
def test_worker_is_asked_with_the_id_quoted_and_odd_answers_are_none(
    url: str, path: str, expected: object
) -> None:
    assert ask_worker(url, path) == expected


def test_worker_that_is_not_there_knows_nothing() -> None:
    assert ask_worker(f"http://127.0.0.1:{free_port()}", "users/u0") is None


def test_user_with_two_rows_is_shown_from_where_the_partitioner_puts_it(
    tansu: str, prefix: str, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    (old,) = world.states.pack(np.array([1]))

    async def go(partitioner: str) -> object:
        settings = load_settings({}, brokers=tansu, name=prefix, partitioner=partitioner)
        return await user_from_changelog(settings, "u0", world.artifact, START + 3 * DAY)

    async def write() -> None:
        settings = await changelogs(tansu, prefix, world)  # the user's row is in partition 3
        right = partition_of("u0", 4, "murmur2")
        assert right not in (None, 3)
        async with producer(settings) as client:
            topic = topics_of(settings).users_changelog
            await client.send_and_wait(topic, old, b"uu0", right)

    asyncio.run(write())
    found = asyncio.run(go("murmur2"))
    assert found == describe_user("u0", world.states, 1, world.artifact, START + 3 * DAY)
    assert "states in partitions" not in caplog.text
    assert asyncio.run(go("given")) == found  # the later one
    assert "user u0 has states in partitions" in caplog.text
