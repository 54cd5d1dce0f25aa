"""The probability of any items is told, from a worker or from the changelogs, the same."""

import asyncio
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.tracker.scoring.test_prediction import info_of, weights_of
from tests.worlds import START, World, likes
from tracker.artifact.models import Models
from tracker.cli.main import cli
from tracker.demo.processes import free_port
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import producer
from tracker.kafka.topics import ensure_topics
from tracker.lookup.score import ask_scores, score_items, scores_from_changelogs
from tracker.recommend.recommender import Recommender
from tracker.scoring.calibration import Calibration
from tracker.scoring.prediction import Prediction
from tracker.settings import Settings, load_settings


@pytest.fixture
def world() -> World:
    world = World(users=2)
    prediction = Prediction(info_of(), weights_of())
    world.artifact = replace(world.artifact, models=Models(prediction=prediction))
    world.recommender = Recommender(world.artifact, world.view)
    world.send(*likes(1, [2, 4, 6]), *likes(0, [0, 2, 4], scene="home"))
    return world


def score(world: World, slot: int, items: list[str], **more: Any) -> dict[str, Any]:
    found = score_items(world.recommender, world.users, slot, "u0", items, START + 60.0, **more)
    return dict(json.loads(json.dumps(found)))


def test_each_item_has_its_probability_and_an_unknown_one_none(world: World) -> None:
    found = score(world, 0, ["i2", "elsewhere", "i9"], scene="home")
    assert (found["user_id"], found["known"], found["scene"]) == ("u0", True, "home")
    assert [one["item_id"] for one in found["items"]] == ["i2", "elsewhere", "i9"]
    assert [one["in_catalogue"] for one in found["items"]] == [True, False, True]
    assert found["items"][1]["probability"] is None
    assert all(0.0 < found["items"][n]["probability"] < 1.0 for n in (0, 2))
    other = score(world, 0, ["i2"], calibration=Calibration.published(1.0, 3.0))
    assert other["items"][0]["probability"] > score(world, 0, ["i2"])["items"][0]["probability"]


def test_a_new_user_is_scored_too_and_without_training_nobody(world: World) -> None:
    found = score(world, -1, ["i2"])
    assert not found["known"]
    assert 0.0 < found["items"][0]["probability"] < 1.0
    untrained = score(World(users=1), -1, ["i2"])
    assert not untrained["trained"]
    assert untrained["note"].endswith("has no trained prediction; `indexer train` learns one")
    assert untrained["items"][0]["probability"] is None


async def changelogs(address: str, name: str, world: World) -> Settings:
    settings = load_settings({}, brokers=address, name=name, event_partitions=2, item_partitions=2)
    await ensure_topics(settings)
    names = topics_of(settings)
    (row,) = world.states.pack(np.array([0]))
    async with producer(settings) as client:
        await client.send_and_wait(names.users_changelog, row, b"uu0", 1)
        for item, slot in world.item_slots.items():
            (row,) = world.item_states.pack(np.array([slot]))
            key = b"i" + item.to_bytes(8, "big")
            await client.send_and_wait(names.items_changelog, row, key, slot % 2)
    return settings


def test_the_changelogs_give_what_a_worker_would_say(
    tansu: str, prefix: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.lookup.score.BATCH", 2)

    async def go() -> tuple[Any, Any]:
        settings = await changelogs(tansu, prefix, world)
        ask = ["i2", "i9"]
        return (
            await scores_from_changelogs(settings, world.artifact, "u0", ask, "home", START + 60.0),
            await scores_from_changelogs(settings, world.artifact, "nobody", ask),
        )

    known, new = asyncio.run(go())
    assert known == score(world, 0, ["i2", "i9"], scene="home")
    assert (new["known"], new["time"]) == (False, START + 2.0)  # the latest event of all
    monkeypatch.setattr("tracker.artifact.artifact.Artifact.load", lambda *_, **__: world.artifact)
    place = ["--brokers", tansu, "--name", prefix, "--at", str(START + 60.0), "--scene", "home"]
    place += ["--url", f"http://127.0.0.1:{free_port()}"]
    told = CliRunner().invoke(cli, ["score", "u0", "i2", "i9", "--json", *place])
    assert json.loads(told.stdout) == known
    printed = CliRunner().invoke(cli, ["score", "u0", "i2", "gone", *place])
    assert printed.exit_code == 0
    assert f"{known['items'][0]['probability']:.1%}" in printed.stdout
    assert "not in the catalogue" in printed.stdout
    blank = replace(world.artifact, models=Models())
    monkeypatch.setattr("tracker.artifact.artifact.Artifact.load", lambda *_, **__: blank)
    refused = CliRunner().invoke(cli, ["score", "u0", "i2", *place])
    assert refused.exit_code == 1
    assert "has no trained prediction; `indexer train` learns one" in refused.stderr


class Answers(http.server.BaseHTTPRequestHandler):
    """Gives back what it was asked."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"path": self.path}).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_worker_is_asked_with_everything_quoted(url: str) -> None:
    assert ask_scores(url, "a b", ["x&y", "z"], "home", 1.5) == {
        "path": "/score?user=a+b&item=x%26y&item=z&scene=home&at=1.5"
    }
    assert ask_scores(url, "u", ["i"], None, None) == {"path": "/score?user=u&item=i"}
    assert ask_scores(f"http://127.0.0.1:{free_port()}", "u", ["i"], None, None) is None
