"""What is known of users is told in names."""

import json
from typing import Any

import pytest

from tests.worlds import DAY, START, World, likes
from tracker.events.wire import hash_id
from tracker.lookup.show import describe_user


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
