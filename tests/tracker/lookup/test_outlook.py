"""Where interest will be after a time: it moves on, sums to one, and writes nothing that counts."""

from dataclasses import replace

import numpy as np
import pytest

from tests.tracker.encoder.test_tower import fitted, world_with
from tests.worlds import START, World, likes
from tracker.artifact.models import UNTRAINED
from tracker.lookup.outlook import HORIZONS_SECONDS, outlook
from tracker.lookup.show import describe_user


@pytest.fixture
def world() -> World:
    world = world_with(fitted())
    world.send(*likes(0, [0, 2, 4]))
    return world


def test_each_time_has_labels_that_share_the_whole_and_its_best_items(world: World) -> None:
    found = outlook("u0", world.states, 0, world.artifact, START + 100.0)
    assert [line["seconds"] for line in found] == list(HORIZONS_SECONDS)
    for line in found:
        labels, items = line["labels"], line["items"]
        assert isinstance(labels, list)
        assert isinstance(items, list)
        assert {one["label"] for one in labels} == {"group 0", "group 1"}
        assert sum(one["share"] for one in labels) == pytest.approx(1.0, abs=1e-4)
        assert labels[0]["share"] >= labels[1]["share"]
        assert len(items) == 5
    shares = [line["labels"][0]["share"] for line in found]  # type: ignore[index]
    assert len(set(shares)) > 1


def test_asking_ahead_leaves_the_row_as_it_is(world: World) -> None:
    before = world.states.pack(np.array([0]))
    outlook("u0", world.states, 0, world.artifact, START + 100.0)
    assert world.states.pack(np.array([0])) == before


def test_a_described_user_has_an_outlook_where_an_encoder_was_trained(world: World) -> None:
    found = describe_user("u0", world.states, 0, world.artifact, START + 100.0)
    assert found["outlook"] == outlook("u0", world.states, 0, world.artifact, START + 100.0)
    plain = replace(world.artifact, models=UNTRAINED)
    assert "outlook" not in describe_user("u0", world.states, 0, plain, START + 100.0)
    assert outlook("u0", world.states, 0, plain, START) == []


def test_who_has_no_events_looks_for_what_the_encoder_starts_with(world: World) -> None:
    found = outlook("nobody", world.states, 5, world.artifact, START)
    assert len(found) == len(HORIZONS_SECONDS)
    assert found[0]["items"] == found[3]["items"]
