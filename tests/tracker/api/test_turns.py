"""Requests take turns while the stream is behind, and only then."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from tests.api_world import ApiWorld, with_api
from tracker.api import turns
from tracker.api.problems import ProblemError
from tracker.api.turns import MOST_RECORDS, SPACING_SECONDS, Turns

LONG_SECONDS = 0.5
"""Time between turns in tests of who does not wait for them; 200 of them take 100 s."""


def turns_of(*lags: int) -> tuple[Turns, dict[int, Any]]:
    """Return turns, and the partitions that they look at."""
    partitions: Any = {at: SimpleNamespace(lag=lag, waits_for=None) for at, lag in enumerate(lags)}
    return Turns(lambda: partitions), partitions


@pytest.fixture
def _far_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let turns be so long that who waits for many of them is told from who waits for few."""
    monkeypatch.setattr(turns, "SPACING_SECONDS", LONG_SECONDS)


def seconds_of(number: int, *lags: int) -> float:
    """Return how long so many requests at once take that cost nothing."""
    some, _ = turns_of(*lags)

    async def ask() -> float:
        began_at = time.monotonic()
        await asyncio.gather(*(some.wait(lambda: True) for _ in range(number)))
        return time.monotonic() - began_at

    return asyncio.run(ask())


def test_requests_take_turns_while_one_partition_is_behind() -> None:
    assert seconds_of(11, 0, MOST_RECORDS + 1) >= 10 * SPACING_SECONDS


def test_requests_do_not_wait_while_no_partition_is_behind() -> None:
    assert seconds_of(1000, 0, MOST_RECORDS) < 999 * SPACING_SECONDS / 2


@pytest.mark.usefixtures("_far_apart")
def test_requests_that_wait_are_let_through_once_the_stream_has_caught_up() -> None:
    some, partitions = turns_of(MOST_RECORDS + 1)

    async def ask() -> float:
        began_at = time.monotonic()
        waiting = asyncio.gather(*(some.wait(lambda: True) for _ in range(200)))
        await asyncio.sleep(LONG_SECONDS / 2)
        assert not waiting.done()
        partitions[0].lag = 0
        await waiting
        return time.monotonic() - began_at

    assert asyncio.run(ask()) < 199 * LONG_SECONDS / 2


@pytest.mark.usefixtures("_far_apart")
def test_a_client_that_has_left_takes_no_turn_and_is_not_answered() -> None:
    some, _ = turns_of(MOST_RECORDS + 1)

    async def ask() -> float:
        began_at = time.monotonic()
        left = [some.wait(lambda: False) for _ in range(200)]
        *gone, there = await asyncio.gather(*left, some.wait(lambda: True), return_exceptions=True)
        assert there is None
        assert all(isinstance(one, ProblemError) for one in gone)
        return time.monotonic() - began_at

    assert asyncio.run(ask()) < 199 * LONG_SECONDS / 2


@pytest.mark.usefixtures("_far_apart")
def test_a_partition_that_waits_for_another_version_lets_nobody_wait() -> None:
    some, partitions = turns_of(MOST_RECORDS + 1)
    partitions[0].waits_for = "a newer version"

    async def ask() -> None:
        await asyncio.gather(*(some.wait(lambda: True) for _ in range(200)))

    began_at = time.monotonic()
    asyncio.run(ask())
    assert time.monotonic() - began_at < 199 * LONG_SECONDS / 2


def test_an_answer_waits_for_its_turn_also_one_that_refuses(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "MOST_RECORDS", -1)
    monkeypatch.setattr(turns, "SPACING_SECONDS", 0.1)

    async def ask(world: ApiWorld) -> None:
        began_at = time.monotonic()
        answers = await asyncio.gather(*(world.ask("/users/nobody?token=x") for _ in range(4)))
        assert {status for status, _ in answers} == {400}
        assert time.monotonic() - began_at >= 0.3

    with_api(tmp_path, ask)
