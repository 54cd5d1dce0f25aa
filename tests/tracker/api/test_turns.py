"""Requests take turns while the stream is behind, and only then."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from tests.api_world import ApiWorld, with_api
from tracker.api import turns
from tracker.api.turns import MOST_RECORDS, SPACING_SECONDS, Turns


def seconds_of(number: int, *lags: int) -> float:
    """Return how long so many requests at once take that cost nothing."""
    partitions: Any = {at: SimpleNamespace(lag=lag) for at, lag in enumerate(lags)}
    some = Turns(lambda: partitions)

    async def ask() -> float:
        began_at = time.monotonic()
        await asyncio.gather(*(some.wait() for _ in range(number)))
        return time.monotonic() - began_at

    return asyncio.run(ask())


def test_requests_take_turns_while_one_partition_is_behind() -> None:
    assert seconds_of(11, 0, MOST_RECORDS + 1) >= 10 * SPACING_SECONDS


def test_requests_do_not_wait_while_no_partition_is_behind() -> None:
    assert seconds_of(1000, 0, MOST_RECORDS) < 999 * SPACING_SECONDS / 2


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
