"""The way of an item to a list names the step at which it stopped, and what would bring it in."""

from pathlib import Path
from typing import Any

import pytest

from tests.api_world import ApiWorld, user_in, with_api
from tests.plane_world import NOW, like

ADA = user_in(0)


async def shop(world: ApiWorld) -> None:
    events = [like(ADA, 2 * number, time=NOW + number) for number in range(4)]
    world.running.accept(0, world.worker.records(*events))
    await world.running.applied(4)


async def ask_why(world: ApiWorld, item: str, query: str = "?k=3") -> dict[str, Any]:
    status, found = await world.ask(f"/users/{ADA}/why/{item}{query}")
    assert status == 200, found
    return dict(found)


def test_item_of_the_list_is_told_with_its_place_and_the_parts_of_its_score(
    tmp_path: Path,
) -> None:
    async def work(world: ApiWorld) -> None:
        await shop(world)
        _, made = await world.ask(f"/users/{ADA}/recommendations?k=3")
        for place, item in enumerate(made["items"], 1):
            found = await ask_why(world, item["item_id"])
            assert (found["place"], found["remedy"]) == (place, "")
            parts = found["item"]["parts"]
            total = parts["base"] + sum(parts["groups"].values())
            assert total == pytest.approx(found["item"]["score"], abs=1e-4)

    with_api(tmp_path, work)


def test_item_that_is_not_in_the_list_is_told_with_the_step_that_stopped_it(
    tmp_path: Path,
) -> None:
    async def work(world: ApiWorld) -> None:
        await shop(world)
        _, made = await world.ask(f"/users/{ADA}/recommendations?k=3")
        first = made["items"][0]["item_id"]
        stops: dict[str, str] = {}
        for number in range(40):
            found = await ask_why(world, f"i{number}")
            if found["place"] is None:
                assert found["remedy"]
                failed = [one["step"] for one in found["steps"] if not one["passed"]]
                stops[f"i{number}"] = failed[-1]
        assert {"i0", "i2"} <= set(stops)
        assert {"list", "candidates", "cut"} & set(stops.values())
        excluded = await ask_why(world, first, f"?k=3&exclude={first}")
        assert excluded["steps"][-1]["step"] == "exclude"
        assert excluded["place"] is None

    with_api(tmp_path, work)


def test_item_outside_the_catalogue_is_not_found(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        await shop(world)
        status, problem = await world.ask(f"/users/{ADA}/why/nothing")
        assert status == 404
        assert "not in the catalogue of artifact v1" in problem["detail"]

    with_api(tmp_path, work)
