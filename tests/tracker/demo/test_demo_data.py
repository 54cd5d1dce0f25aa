"""The catalogue, users and events that the demonstration runs on."""

import json
from collections import Counter
from importlib.resources import files
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from tracker.events.kinds import Kinds
from tracker.events.times import seconds
from tracker.events.wire import Event, User, decode_event

DATA = files("tracker") / "demo_data"
SCRIPTED = ("ada", "ben", "chloe", "dmitri", "emi", "farid")


def lines(name: str) -> list[bytes]:
    return DATA.joinpath(name).read_bytes().splitlines()


@pytest.fixture(scope="module")
def items() -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines("items.jsonl")]


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return [decode_event(line) for line in lines("events.jsonl")]


def departments(items: list[dict[str, Any]]) -> dict[str, str]:
    return {item["item_id"]: item["categories"][0] for item in items}


def test_catalogue_has_three_hundred_different_items_in_a_dozen_departments(
    items: list[dict[str, Any]],
) -> None:
    assert len({item["item_id"] for item in items}) == len(items) == 300
    assert len({item["title"] for item in items}) == 300
    assert set(Counter(departments(items).values()).values()) == {25}
    assert len(set(departments(items).values())) == 12
    assert all(item["attributes"]["price"] > 0 for item in items)


def test_events_are_accepted_and_in_order_of_time(events: list[Event]) -> None:
    kinds = Kinds.default()
    for event in events:
        if event.retracts is None:
            assert event.kind is not None
            kinds.weight(event.kind, event.value)
    times = [seconds(event.timestamp) for event in events if event.timestamp is not None]
    assert len(times) == len(events)
    assert all(before <= after for before, after in pairwise(times))


def test_events_name_only_items_and_users_that_exist(
    items: list[dict[str, Any]], events: list[Event]
) -> None:
    users = {msgspec.json.decode(line, type=User).user_id for line in lines("users.jsonl")}
    assert {event.user_id for event in events} == users
    assert {event.item_id for event in events if event.item_id} <= set(departments(items))
    assert set(SCRIPTED) < users


def test_event_ids_are_unique_and_a_retraction_names_an_earlier_event_of_its_user(
    events: list[Event],
) -> None:
    seen: dict[str, str] = {}
    retractions = 0
    for event in events:
        if event.retracts is not None:
            assert seen[event.retracts] == event.user_id
            retractions += 1
        if event.event_id is not None:
            assert event.event_id not in seen
            seen[event.event_id] = event.user_id
    assert retractions == 1


@pytest.mark.parametrize("user_id", SCRIPTED)
def test_scripted_user_begins_in_one_department_and_ends_in_another(
    user_id: str, items: list[dict[str, Any]], events: list[Event]
) -> None:
    department = departments(items)
    own = [department[e.item_id] for e in events if e.user_id == user_id and e.item_id]
    assert own[0] != own[-1]
    turn = own.index(own[-1])
    assert set(own[:turn]) == {own[0]}
    assert set(own[turn:]) == {own[-1]}
    assert min(turn, len(own) - turn) >= 2


def test_last_events_are_the_change_of_one_user_so_that_a_before_and_after_can_be_shown(
    items: list[dict[str, Any]], events: list[Event]
) -> None:
    department = departments(items)
    change = [department[e.item_id or ""] for e in events[-5:] if e.user_id == "ada"]
    before = {department[e.item_id or ""] for e in events[:-5] if e.user_id == "ada"}
    assert change == ["Baby"] * 5
    assert before == {"Running"}
