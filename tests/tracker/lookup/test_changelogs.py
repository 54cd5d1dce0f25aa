"""Rows of users are read as a worker would read them, and a newer artifact's are named."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.tracker.encoder.test_tower import fitted, tower_of, world_with
from tests.worlds import World, likes
from tracker.artifact.artifact import Artifact
from tracker.artifact.models import UNTRAINED
from tracker.artifact.versions import LATEST, ArtifactError
from tracker.items.states import ItemStates
from tracker.kernels.row_bytes import item_key
from tracker.lookup import changelogs
from tracker.lookup.changelogs import StateReader
from tracker.settings import Settings, load_settings
from tracker.users.states import NewerArtifactError


@pytest.fixture
def world() -> World:
    world = world_with(fitted())
    world.send(*likes(0, [0, 2, 4]))
    return world


def reader(world: World, folder: Path, latest: str) -> StateReader:
    """Read with an artifact older than the rows, which is no longer what LATEST names."""
    (folder / LATEST).write_text(latest)
    settings: Settings = load_settings({}, artifacts=str(folder))
    return StateReader(settings, older(world))


def older(world: World) -> Artifact:
    """Return artifact 1, without an encoder; rows are of the encoder's artifact 2."""
    world.states.head["artifact"][:] = 2
    return replace(world.artifact, models=UNTRAINED)


def test_rows_of_the_artifact_are_read_with_all_they_hold(world: World, tmp_path: Path) -> None:
    rows = world.states.pack(np.arange(2))
    states = StateReader(load_settings({}), world.artifact).read([*rows, None])
    assert states.hidden.shape == (3, tower_of(world).width)
    assert np.array_equal(states.hidden[:2], world.states.hidden[:2])
    assert states.head["events"].tolist() == [3, 0, 0]


def test_a_newer_artifacts_row_is_refused_where_latest_has_changed(
    world: World, tmp_path: Path
) -> None:
    found = reader(world, tmp_path, "000002-5f3a0000")
    with pytest.raises(NewerArtifactError, match=r"artifact 2; at most 1.*ask again once"):
        found.read(world.states.pack(np.arange(1)))
    (tmp_path / LATEST).unlink()
    with pytest.raises(ArtifactError):
        found.read(world.states.pack(np.arange(1)))


def test_a_row_of_an_artifact_that_latest_went_back_from_is_read_and_said(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = reader(world, tmp_path, world.artifact.manifest.version)
    rows = world.states.pack(np.arange(1))
    for _ in range(2):
        assert found.read(rows).head["events"].tolist() == [3]
    assert caplog.text.count("written with artifact 2, and LATEST of") == 1
    assert f"names {world.artifact.manifest.version}, artifact 1" in caplog.text


def test_item_rows_that_cannot_be_read_are_passed_over_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (row,) = ItemStates(1).pack(np.zeros(1, np.int64))
    keys_and_values = [
        (item_key(1), row),
        (item_key(1), b"garbage!"),
        (item_key(2), None),
        (b"i123456789", row),
        (None, row),
        (b"p", b"{}"),
    ]

    async def read_topic(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        for offset, (key, value) in enumerate(keys_and_values):
            yield SimpleNamespace(partition=0, offset=offset, key=key, value=value)

    async def read() -> list[tuple[int, bytes | None]]:
        return [pair async for pair in changelogs.item_rows(load_settings({}))]

    monkeypatch.setattr(changelogs, "read_topic", read_topic)
    assert asyncio.run(read()) == [(1, row), (2, None)]
    (line,) = caplog.messages
    assert "passed over the row at offset 1 with key i0000000000000001: damaged" in line
