"""A second process compiles beside a starting worker, only where that is of use."""

import asyncio
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from indexer.data.catalog import Catalog
from indexer.items.assemble import build_artifact
from indexer.items.options import BuildOptions
from tests.shop import LetterEncoder, shop_items
from tracker.artifact.artifact import Artifact
from tracker.artifact.manifest import LAYOUT
from tracker.artifact.versions import ArtifactError
from tracker.events.kinds import Kinds
from tracker.settings import Settings, load_settings
from tracker.stream.serving import load_artifact
from tracker.worker import compilation as module
from tracker.worker.compilation import check_aside, second_compiler

World = tuple[Settings, Artifact]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    root = tmp_path / "artifacts"
    build_artifact(Catalog(items=shop_items(40)), LetterEncoder(), root, BuildOptions(dim=16))
    monkeypatch.setattr(module, "is_cached", lambda kernel: False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})
    return load_settings({}, artifacts=str(root)), Artifact.load(root)


def children() -> list[Any]:
    return multiprocessing.active_children()


def test_it_runs_beside_the_block_and_ends_with_it(world: World) -> None:
    with second_compiler(*world, Kinds.default()):
        assert len(children()) == 1
    assert children() == []


def test_it_does_not_run_where_kernels_are_compiled_or_there_is_one_core_or_much_memory_is_needed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where, name, value in (
        (module, "is_cached", lambda kernel: True),
        (os, "sched_getaffinity", lambda process: {0}),
        (module, "MOST_ITEMS", 39),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(where, name, value)
            with second_compiler(*world, Kinds.default()):
                assert children() == []


def test_what_it_does_compiles_everything_and_a_failure_is_the_workers_to_tell(
    world: World, tmp_path: Path
) -> None:
    settings, artifact = world
    module._compile(settings, artifact.manifest.version, Kinds.default())
    module._compile(settings, "000009-00000000", Kinds.default())


@pytest.mark.usefixtures("usual_priority")
def test_a_large_version_is_loaded_by_another_process_first_and_a_small_one_is_not(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = world[0].model_copy(update={"data_dir": tmp_path / "data"})
    version = world[1].manifest.version

    def check() -> bool:
        return asyncio.run(check_aside(settings, version, Kinds.default()))

    assert not check()
    assert not settings.data_dir.exists()
    monkeypatch.setattr(module, "LARGE_ITEMS", 39)
    assert check()
    (copy,) = settings.data_dir.glob(f"artifacts/*/{version}")
    assert load_artifact(settings, version, checked=True).path == copy
    (copy / LAYOUT.texts).write_bytes(b"[]")
    with pytest.raises(ArtifactError, match="altered or cut short"):
        check()
    assert not copy.exists()
