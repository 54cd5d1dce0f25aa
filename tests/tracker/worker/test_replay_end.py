"""When a replay has reached the live workers."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from tracker.settings import load_settings
from tracker.stream.replay import Replay
from tracker.worker import replay_end
from tracker.worker.replay_end import STALLED_LOOKS, ReplayEnd


def partition(position: int, number: int = 0) -> Any:
    store = SimpleNamespace(
        is_open=True, is_behind=False, progress=SimpleNamespace(position=position)
    )
    return SimpleNamespace(
        store=store, side=SimpleNamespace(table="users"), number=number, topic="t-events",
        lags=lambda: {"t-events": 7},
    )  # fmt: skip


def ends(
    parts: list[Any], limits: dict[int, int], begins: dict[int, int],
    monkeypatch: pytest.MonkeyPatch, looks: int = 3 * STALLED_LOOKS,
) -> tuple[bool, int]:  # fmt: skip
    """Return whether the replay ends within some looks, and how often the begins were read."""
    asked: list[int] = []

    async def begins_of(settings: Any) -> dict[int, int]:
        asked.append(1)
        return begins

    async def no_wait(seconds: float) -> None:
        if len(waits) == looks:
            raise asyncio.CancelledError
        waits.append(seconds)

    waits: list[float] = []
    monkeypatch.setattr(replay_end, "begins_of", begins_of)
    monkeypatch.setattr("tracker.worker.replay_end.asyncio.sleep", no_wait)
    monkeypatch.setattr("tracker.worker.replay_end.os.kill", lambda *_: None)
    replay = Replay("live", limits, is_final=True)
    table = {TP("t-events", part.number): part for part in parts}
    watch = ReplayEnd(load_settings({}), replay, table, lambda *_: None)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(watch._run())
    return replay.has_ended, len(asked)


def test_replay_ends_at_its_limits_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ends([partition(9), partition(5, 1)], {0: 9, 1: 5}, {}, monkeypatch) == (True, 0)
    assert ends([partition(9), partition(4, 1)], {0: 9, 1: 5}, {1: 4}, monkeypatch)[0] is False


def test_replay_ends_if_what_it_has_not_read_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    has_ended, asked = ends([partition(4)], {0: 9}, {0: 9}, monkeypatch)
    assert has_ended
    assert asked == 1  # only when nothing went on for a while
