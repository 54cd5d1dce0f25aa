"""A what-if compares two lists of one copy, and changes nothing."""

from pathlib import Path

import numpy as np

from tests.api_world import ApiWorld, user_in, with_api
from tests.plane_world import NOW, like

ADA = user_in(0)


async def shop(world: ApiWorld, count: int = 4) -> None:
    events = [like(ADA, 2 * number, time=NOW + number) for number in range(count)]
    world.running.accept(0, world.worker.records(*events))
    await world.running.applied(count)


def test_without_a_change_both_lists_are_the_present_one(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        await shop(world)
        before = world.worker.rows.states.head.copy()
        status, found = await world.ask(f"/users/{ADA}/what-if", "POST", {"at": NOW + 9})
        _, now = await world.ask(f"/users/{ADA}/recommendations?at={NOW + 9}")
        assert (status, found["moves"], found["older"]) == (200, [], 0.0)
        assert found["before"] == found["after"] == now["items"]
        assert np.array_equal(before, world.worker.rows.states.head)

    with_api(tmp_path, work)


def test_events_of_the_other_group_bring_its_items_and_say_why(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        await shop(world)
        add = [{"item_id": f"i{number}", "kind": "purchase"} for number in (1, 3, 5)]
        _, found = await world.ask(f"/users/{ADA}/what-if", "POST", {"add": add, "k": 5})
        assert "group 1" in {one["label"] for one in found["after"]}
        moved = {one["item_id"]: one for one in found["moves"]}
        came = [one for one in found["after"] if one["item_id"] in moved]
        assert came
        assert all(one["why"] for one in moved.values())

    with_api(tmp_path, work)


def test_a_list_without_its_events_is_that_of_somebody_who_never_had_them(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        await shop(world)
        body = {"drop": [0, 1, 2, 3], "at": NOW + 9}
        _, found = await world.ask(f"/users/{ADA}/what-if", "POST", body)
        assert not any(one.get("because") for one in found["after"])
        body = {"weights": {"like": 0.0}, "at": NOW + 9}
        _, other = await world.ask(f"/users/{ADA}/what-if", "POST", body)
        assert other["after"] == found["after"]

    with_api(tmp_path, work)


def test_what_has_left_the_ring_is_told_as_a_share(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        await shop(world, 16)
        _, found = await world.ask(f"/users/{ADA}/what-if", "POST", {})
        assert 0.1 < found["older"] < 0.9
        for body in ({"drop": [200]}, {"weights": {"unknown": 1.0}}):
            status, _ = await world.ask(f"/users/{ADA}/what-if", "POST", body)
            assert status == 400

    with_api(tmp_path, work)


def test_an_event_that_weighs_nothing_can_be_dropped(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        world.running.accept(0, world.worker.records(like(ADA, 0, kind="impression")))
        await world.running.applied(1)
        _, found = await world.ask(f"/users/{ADA}/what-if", "POST", {"drop": [0], "k": 500})
        before, after = (
            {one["item_id"]: one.get("demoted", False) for one in found[name]}
            for name in ("before", "after")
        )
        assert (before["i0"], after["i0"]) == (True, False)

    with_api(tmp_path, work)
