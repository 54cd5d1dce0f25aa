"""The HTTP API: health, readiness, metrics, and what is known of users and items."""

import asyncio
import json
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.plane_world import Make, WorkerState
from tests.shop import START, build_shop, shop_events, shop_items, shop_settings
from tracker.demo.local import own_topics, until_ready, worker_process
from tracker.events import lines as event_lines
from tracker.events.wire import Event, encode_event
from tracker.kafka.client import send_events
from tracker.settings import Settings, SettingsError, load_settings
from tracker.worker.web import Health, own_address


def health(worker: WorkerState, *, rebalancing: bool = False) -> Health:
    plane: Any = SimpleNamespace(partitions={}, waiting=[], answered_seconds=math.inf)
    return Health(worker.context, plane, lambda: rebalancing)


@pytest.fixture
def worker(make: Make) -> WorkerState:
    return make(health_stall_seconds=5.0)


class Probes:
    """Asks whether a worker with two partitions lives, by a clock of its own."""

    def __init__(self, worker: WorkerState) -> None:
        self.now, self.rebalancing, self.recovered = 0.0, False, 0
        self.one, self.other = (
            SimpleNamespace(
                name=name,
                lag=0,
                waits_for=None,
                store=SimpleNamespace(commits=0, is_behind=False),
            )
            for name in ("t-events-0", "t-events-1")
        )
        plane: Any = SimpleNamespace(
            partitions={0: self.one, 1: self.other}, answered_seconds=math.inf
        )
        self.plane = plane
        self.health = Health(
            worker.context,
            plane,
            lambda: self.rebalancing,
            lambda: self.recovered,
            lambda: self.now,
        )

    def after(self, seconds: float) -> list[str]:
        self.now += seconds
        return self.health.live()


def test_worker_without_work_lives_however_long_nothing_was_committed(worker: WorkerState) -> None:
    probes = Probes(worker)
    assert probes.after(0.0) == probes.after(1000.0) == []
    probes.one.lag = 1  # just now
    assert probes.after(1000.0) == []


def test_worker_with_work_lives_while_it_commits(worker: WorkerState) -> None:
    probes = Probes(worker)
    probes.one.lag = 5
    for _ in range(5):
        probes.one.store.commits += 1
        assert probes.after(4.0) == []


def test_a_stuck_partition_is_not_hidden_by_others_that_commit(worker: WorkerState) -> None:
    probes = Probes(worker)
    probes.one.lag = 5
    probes.other.lag = 5
    reasons = []
    for _ in range(4):
        probes.other.store.commits += 1
        reasons = probes.after(4.0)
    assert reasons == ["t-events-0: 5 records wait, and nothing was committed for 12 s"]
    probes.one.waits_for = "a newer version"  # a restart does not help
    assert probes.after(4.0) == []


def test_what_is_applied_and_not_committed_is_not_done(worker: WorkerState) -> None:
    probes = Probes(worker)
    probes.one.store.is_behind = True
    assert probes.after(0.0) == []
    assert len(probes.after(6.0)) == 1


def test_a_worker_that_waits_for_silent_brokers_lives(worker: WorkerState) -> None:
    probes = Probes(worker)
    probes.one.lag = 5
    assert probes.after(0.0) == []
    probes.plane.answered_seconds = 0.0  # a restart does not help
    assert probes.after(100.0) == []
    probes.plane.answered_seconds = 4.0
    assert probes.after(4.0) == []
    probes.plane.answered_seconds = 6.0
    assert probes.after(2.0) == ["t-events-0: 5 records wait, and nothing was committed for 6 s"]


def test_a_recovery_has_to_move(worker: WorkerState) -> None:
    probes = Probes(worker)
    probes.rebalancing = True
    for _ in range(3):
        probes.recovered += 1
        assert probes.after(60.0) == []
    (reason,) = probes.after(70.0)
    assert reason == "partitions are handed out or recovered since 70 s"


def test_a_task_that_does_not_go_on_is_a_reason_to_restart(worker: WorkerState) -> None:
    worker.keeper.stuck_tasks = ["the feed of items has not gone on for 90 s"]
    assert Probes(worker).after(0.0) == worker.keeper.stuck_tasks


def test_worker_is_ready_with_artifact_items_and_partitions(worker: WorkerState) -> None:
    assert health(worker).ready() == []
    assert len(health(worker, rebalancing=True).ready()) == 1
    worker.keeper.caught_up = False
    assert health(worker).ready() == ["the items' changelog is still being read"]
    worker.keeper.loaded = False
    assert health(worker).ready() == ["no artifact is loaded"]


def test_worker_is_not_ready_while_a_partition_waits_or_the_item_feed_fails(
    worker: WorkerState,
) -> None:
    plane: Any = SimpleNamespace(lag=0, waiting=["t-items-0 waits: a newer row"])
    assert Health(worker.context, plane, lambda: False).ready() == plane.waiting
    worker.keeper.feed_failing_seconds = 4.0  # an answer is late
    assert health(worker).ready() == []
    worker.keeper.feed_failing_seconds = 90.0
    assert health(worker).ready() == ["the items' changelog cannot be read since 90 s"]


def get(settings: Settings, path: str) -> tuple[int, bytes]:
    try:
        with urlopen(f"http://127.0.0.1:{settings.web_port}{path}", timeout=60) as answer:
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


def test_pages_of_a_worker_tell_what_it_did(tansu: str, prefix: str, tmp_path: Path) -> None:
    build_shop(tmp_path / "artifacts", shop_items(60))
    settings = shop_settings(tansu, prefix, tmp_path, session_timeout_seconds=6.0)

    async def go() -> None:
        async with own_topics(settings, delete=False):
            with worker_process(settings, tmp_path / "worker.log") as worker:
                await until_ready(worker, settings)
                event = Event("somebody", "i7", "like", START + 500.0, "home")
                lines = [
                    *shop_events(200, 20, seed=1),
                    event_lines.Line("the last", encode_event(event)),
                ]
                sent = await send_events(settings, iter(lines))
                assert sent.confirmed == 201
                await asyncio.to_thread(wait_for_events, settings, 201)
                await asyncio.to_thread(check_pages, settings)
                assert worker.stop(30) == 0

    asyncio.run(go())


def wait_for_events(settings: Settings, count: int) -> None:
    """Wait until users have all events, and an item has what a commit brings it."""
    deadline = time.monotonic() + 60.0
    counted = f"tracker_events_total {count}.0"
    while counted not in get(settings, "/metrics")[1].decode() or not chosen(settings, "i7"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def chosen(settings: Settings, item: str) -> bool:
    """Tell whether the worker's view of the items has an event of one in a scene."""
    status, body = get(settings, f"/v1/items/{item}")
    return status == 200 and bool(json.loads(body)["scenes"])


def check_pages(settings: Settings) -> None:
    assert get(settings, "/healthz") == (200, b'{"live":true,"reasons":[]}')
    status, body = get(settings, "/readyz")
    assert (status, json.loads(body)) == (200, {"ready": True, "reasons": []})
    status, body = get(settings, "/v1/users/somebody")
    found = json.loads(body)
    assert (status, found["user_id"], found["events"]) == (200, "somebody", 1)
    assert found["recent"][0]["item_id"] == "i7"
    status, body = get(settings, "/v1/users/somebody/recommendations?scene=home")
    assert (status, len(json.loads(body)["items"])) == (200, 10)
    status, body = get(settings, "/v1/users/nobody")
    assert (status, json.loads(body)["status"]) == (404, 404)
    status, body = get(settings, "/v1/items/i7")
    assert (status, json.loads(body)["item_id"]) == (200, "i7")
    assert "home" in [one["scene"] for one in json.loads(body)["scenes"]]
    status, body = get(settings, "/v1/workers")
    found = json.loads(body)
    address = f"http://127.0.0.1:{settings.web_port}"
    assert found["workers"] == [{"address": address, "partitions": [0, 1]}]
    assert (found["address"], found["ready"]) == (address, True)
    event = {"user_id": "somebody", "item_id": "i9", "kind": "like"}
    request = Request(
        f"{address}/v1/events",
        json.dumps({"events": [event]}).encode(),
        {"Content-Type": "application/json"},
        method="POST",
    )
    with urlopen(request, timeout=60) as answer:
        assert (answer.status, json.load(answer)["sent"]) == (202, 1)
        assert answer.headers["Server"] == "tracker"  # the limits of web_limits.py are in force


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        ({}, "http://127.0.0.1:6066"),
        ({"web_host": "::1", "web_port": 1}, "http://[::1]:1"),
        ({"web_advertise": "https://worker-0:2/"}, None),
        ({"web_advertise": "https://worker-0:2"}, "https://worker-0:2"),
    ],
)
def test_a_worker_tells_the_address_that_others_reach(
    settings: dict[str, Any], address: str | None
) -> None:
    if address is None:
        with pytest.raises(SettingsError, match="TRACKER_WEB_ADVERTISE"):
            load_settings({}, **settings)
    else:
        assert own_address(load_settings({}, **settings)) == address
