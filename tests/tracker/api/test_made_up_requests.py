"""Requests made up from the description of the API find no bug: a short `tests.fuzz_api`."""

import asyncio
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings

from tests.api_world import ApiWorld, user_in, with_api
from tests.fuzz_api import CHECKS
from tests.plane_world import NOW, like
from tests.shop import build_shop, shop_items
from tracker.api.routes import PREFIX

ADA = user_in(0)

LEFT_OUT = ("stream", "export", "forget")
"""A stream does not end, and the others wait for a broker."""

SETTINGS = settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def send_made_up(url: str) -> dict[int, int]:
    """Send requests of every operation; return how many answers there were of each status."""
    import schemathesis  # for half a second, which only processes pay that need it
    import schemathesis.specs.openapi.checks  # they are known by name once they are imported
    from schemathesis.checks import CHECKS as KNOWN

    schema: Any = schemathesis.openapi.from_url(f"{url}{PREFIX}/openapi.json")
    checks = KNOWN.get_by_names([name for name in CHECKS if name != "not_a_server_error"])
    statuses: dict[int, int] = {}
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.definition.raw["operationId"] in LEFT_OUT:
            continue

        @given(case=operation.as_strategy())
        @SETTINGS
        def send(case: Any) -> None:
            if "user_id" in (case.path_parameters or {}):
                case.path_parameters["user_id"] = ADA
            response = case.call(base_url=url)
            status = response.status_code
            statuses[status] = statuses.get(status, 0) + 1
            assert status not in (500, 502, 504), response.text
            if status in (429, 503):
                assert int(response.headers["retry-after"][0]) > 0
            case.validate_response(response, checks=checks)

        send()
    return statuses


def test_no_made_up_request_finds_a_bug_or_an_answer_that_is_not_described(tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    build_shop(root, shop_items(30))
    build_shop(root, shop_items(31))

    async def work(world: ApiWorld) -> None:
        world.running.accept(0, world.worker.records(*(like(ADA, n, time=NOW) for n in range(5))))
        await world.running.applied(5)
        url = str(world.client.make_url("")).rstrip("/")
        statuses = await asyncio.to_thread(send_made_up, url)
        assert statuses[200] > 10

    with_api(tmp_path / "worker", work, artifacts=str(root), web_rate=1e5)
