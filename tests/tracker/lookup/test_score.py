"""The probability of any items is told."""

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.tracker.scoring.test_prediction import info_of, weights_of
from tests.worlds import START, World, likes
from tracker.artifact.models import Models
from tracker.lookup.score import score_items
from tracker.recommend.recommender import Recommender
from tracker.scoring.calibration import Calibration
from tracker.scoring.prediction import Prediction


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
