"""FetchPace: a request that comes too soon after the last one waits; others go at once."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import Fetcher

from tracker.kafka.fetch_pace import FetchPace

NEVER = 0.2  # timeout of the client's own plan


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock, which the test moves."""
    clock = [100.0]
    monkeypatch.setattr("tracker.kafka.fetch_pace.time.monotonic", lambda: clock[0])
    return clock


def paced(pace: FetchPace, *nodes: int) -> tuple[list[int], float]:
    """Return the nodes that get a request now, and the timeout of the wait for more."""
    requests: list[Any] = [(node, f"request to {node}") for node in nodes]
    fetcher: Any = SimpleNamespace(
        _get_actions_per_node=lambda assignment: (requests, {}, NEVER, False, [])
    )
    pace.apply_to(fetcher)
    ready, _, timeout, _, _ = fetcher._get_actions_per_node(None)
    return [node for node, _ in ready], timeout


def test_request_waits_for_the_rest_of_the_time(now: list[float]) -> None:
    pace = FetchPace()
    pace.seconds = 0.01
    assert paced(pace, 1) == ([1], NEVER)
    now[0] += 0.004
    ready, timeout = paced(pace, 1, 2)
    assert ready == [2]
    assert timeout == pytest.approx(0.006)
    now[0] += 0.006
    assert paced(pace, 1) == ([1], NEVER)


def test_request_after_a_long_wait_for_a_record_goes_at_once(now: list[float]) -> None:
    pace = FetchPace()
    pace.seconds = 0.01
    assert paced(pace, 1) == ([1], NEVER)
    now[0] += 0.1  # the broker answers when there is a record
    assert paced(pace, 1) == ([1], NEVER)


def test_without_a_pace_nothing_waits(now: list[float]) -> None:
    pace = FetchPace()
    assert [paced(pace, 1) for _ in range(3)] == [([1], NEVER)] * 3


def test_client_still_plans_its_requests_in_this_method() -> None:
    assert callable(Fetcher._get_actions_per_node)
