"""Fixtures that tests of several rooms of the tracker share."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.plane_world import Make, WorkerState


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make states of workers, each in a folder of its own; they are closed at the end."""
    workers: list[WorkerState] = []

    def build(**arguments: Any) -> WorkerState:
        workers.append(WorkerState(tmp_path / str(len(workers)), **arguments))
        return workers[-1]

    yield build
    for worker in workers:
        worker.close()


@pytest.fixture
def worker(make: Make) -> WorkerState:
    """Make the state of one worker with default settings."""
    return make()


@pytest.fixture
def usual_priority(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let no process take the lowest priority: beside tests that keep all cores busy it starves."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text("import os\nos.nice = lambda more: 0\n")
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


@pytest.fixture
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close clients of a broker that is away at once: they have no request to finish."""
    monkeypatch.setattr("tracker.kafka.connect.SETTLE_SECONDS", 0.01)
