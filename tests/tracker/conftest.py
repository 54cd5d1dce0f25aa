"""Fixtures that tests of several rooms of the tracker share."""

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
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Close clients of a broker that is away at once: they have no request to finish."""
    monkeypatch.setattr("tracker.kafka.connect.SETTLE_SECONDS", 0.01)
