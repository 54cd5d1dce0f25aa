"""Versions over HTTP: published, rolled back, and refused if they are damaged or not there."""

from pathlib import Path

from tests.api_world import ApiWorld, with_api
from tests.shop import build_shop, shop_items
from tracker.artifact.versions import latest_version


def test_versions_are_published_and_rolled_back_and_damaged_ones_refused(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    first = build_shop(root, shop_items(30)).version
    second = build_shop(root, shop_items(31)).version
    third = build_shop(root, shop_items(32)).version

    async def work(world: ApiWorld) -> None:
        _, answer = await world.ask("/artifacts")
        assert (answer["in_use"], answer["problem"]) == ("v1", None)
        world.worker.keeper.problem = f"{third} is refused"
        assert (await world.ask("/artifacts"))[1]["problem"] == f"{third} is refused"
        assert [one["version"] for one in answer["versions"]] == [third, second, first]
        assert answer["latest"] == third
        status, answer = await world.ask("/artifacts/rollback", "POST")
        assert (status, answer["version"], answer["before"]) == (200, second, third)
        assert latest_version(root) == second
        assert (await world.ask("/artifacts/rollback", "POST"))[0] == 200
        assert latest_version(root) == first
        status, problem = await world.ask("/artifacts/rollback", "POST")
        assert status == 409
        assert f"no version before {first}" in problem["detail"]
        status, answer = await world.ask(f"/artifacts/{third}/publish", "POST")
        assert (status, answer["version"], latest_version(root)) == (200, third, third)
        path = root / second / "vectors.safetensors"
        path.write_bytes(path.read_bytes()[:-8])
        status, problem = await world.ask(f"/artifacts/{second}/publish", "POST")
        assert status == 409
        assert second in problem["detail"]
        status, problem = await world.ask("/artifacts/000009-00000000/publish", "POST")
        assert status == 404
        assert latest_version(root) == third

    with_api(tmp_path / "worker", work, artifacts=str(root))


def test_a_worker_tells_the_weights_and_the_diversity_that_a_what_if_starts_from(
    tmp_path: Path,
) -> None:
    async def work(world: ApiWorld) -> None:
        status, answer = await world.ask("/workers")
        assert (status, answer["address"], answer["ready"]) == (200, "http://me:1", True)
        assert (answer["weights"]["like"], answer["weights"]["click"]) == (2.0, 0.5)
        assert answer["diversity"] == 0.25

    with_api(tmp_path, work, diversity=0.25)


def test_who_may_only_read_may_not_publish(tmp_path: Path) -> None:
    async def work(world: ApiWorld) -> None:
        reader = {"Authorization": "Bearer reader-reader-reader"}
        assert (await world.ask("/artifacts/rollback", "POST", headers=reader))[0] == 403
        assert (await world.ask("/artifacts/x/publish", "POST", headers=reader))[0] == 403

    with_api(
        tmp_path, work, web_token="writer-writer-writer", web_read_token="reader-reader-reader"
    )
