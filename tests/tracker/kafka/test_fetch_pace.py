"""A request that comes too soon after the last one waits; partitions are left out of requests."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import Fetcher

from tracker.kafka.fetch_pace import FetchPace, fetch_only

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


def test_partition_that_is_left_out_is_neither_looked_up_nor_fetched() -> None:
    part = TopicPartition("events", 0)
    client: Any = SimpleNamespace(
        cluster=SimpleNamespace(leader_for_partition=lambda tp: 1), _metadata_max_age_ms=1000
    )
    fetcher: Any = object.__new__(Fetcher)
    fetcher._client, fetcher._records, fetcher._in_flight = client, {}, set()
    fetcher._preferred_read_replica, fetcher._client_rack = {}, None
    fetcher._max_partition_fetch_bytes, fetcher._fetch_min_bytes = 1000, 1
    fetcher._fetch_max_bytes, fetcher._isolation_level, fetcher._fetcher_timeout = 1000, 1, NEVER
    position: list[int | None] = [None]
    state = SimpleNamespace(paused=False)
    assignment = SimpleNamespace(tps={part}, state_value=lambda tp: state)
    fetched: set[TopicPartition] = set()
    FetchPace().apply_to(fetcher)
    fetch_only(fetcher, fetched.__contains__, lambda: 25)

    def plan() -> tuple[list[Any], list[Any]]:
        state.position, state.has_valid_position = position[0], position[0] is not None
        requests, lookups, *_ = fetcher._get_actions_per_node(assignment)
        return [request for _, request in requests], list(lookups)

    assert plan() == ([], [])
    fetched.add(part)
    assert plan() == ([], [1])
    position[0] = 7
    (request,), lookups = plan()
    assert lookups == []
    assert request._topics == [("events", [(0, 7, 1000)])]
    assert request._max_wait_ms == 25
