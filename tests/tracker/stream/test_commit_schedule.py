"""When a partition commits: first, by the timer, beside its chunks, and again."""

import asyncio

import numpy as np
import pytest

from tests.plane_world import RunningPartition, WorkerState, like, run_partition
from tracker.store.committer import CommitUnknownError
from tracker.stream.commit_schedule import place_of


def test_position_is_committed_before_the_first_chunk(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        assert worker.users.store.committed == 0

    run_partition(worker, work, commit_seconds=60.0)


def test_idle_partition_commits_by_timer(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        running.accept(0, worker.records(like("a", 0)))
        await running.until(lambda: worker.users.store.committed == 1)

    run_partition(worker, work)


def test_next_chunk_goes_on_beside_a_slow_commit(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        worker.committer.gate = asyncio.Event()
        running.accept(0, worker.records(like("a", 0)))
        await running.until(lambda: bool(worker.users.store.arena.pinned.any()))
        running.accept(1, worker.records(like("a", 1)))
        await running.applied(1, 2)
        assert worker.users.store.committed == 0
        await asyncio.sleep(0.15)  # the next commit is due meanwhile, and waits without spinning
        worker.committer.gate.set()
        await running.until(lambda: worker.users.store.committed == 2)

    running = run_partition(worker, work)
    assert running.fatal == []


def test_aborted_commit_is_tried_again_with_all_it_had(
    worker: WorkerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.stream.commit_schedule.RETRY_SECONDS", 0.01)

    async def work(running: RunningPartition) -> None:
        worker.committer.aborts = 2
        running.accept(0, worker.records(like("a", 0)))
        await running.until(lambda: worker.users.store.committed == 1)

    run_partition(worker, work)
    assert worker.count("aborted_commits", table="users") == 2
    assert [record.topic for record in worker.committer.sent] == ["t-items"]


def test_commit_of_unknown_outcome_ends_the_worker(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        worker.committer.error = CommitUnknownError("the connection was lost")
        running.accept(0, worker.records(like("a", 0)))
        await running.until(lambda: bool(running.fatal))

    running = run_partition(worker, work)
    assert isinstance(running.fatal[0], CommitUnknownError)


def test_recommendation_that_cannot_be_sent_keeps_its_events_uncommitted(
    worker: WorkerState,
) -> None:
    async def work(running: RunningPartition) -> None:
        running.outbox.error = RuntimeError("no broker")
        running.accept(0, worker.records(like("a", 0)))
        await running.until(lambda: bool(running.fatal))

    run_partition(worker, work)
    assert worker.users.store.committed == 0


@pytest.mark.parametrize("partitions", [1, 2, 4, 12, 50])
def test_commits_of_partitions_lie_evenly_in_the_interval(partitions: int) -> None:
    places = np.sort(
        [place_of(number, table) for number in range(partitions) for table in ("users", "items")]
    )
    gaps = np.diff([*places, places[0] + 1.0])
    assert places[0] >= 0.0
    assert places[-1] < 1.0
    assert gaps.max() < 2.0 / len(places)


def test_commit_that_comes_late_keeps_the_times_of_the_later_ones(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        commits = running.partition._commits
        due = commits._next_at
        worker.committer.gate = asyncio.Event()
        running.accept(0, worker.records(like("a", 0)))
        await running.until(lambda: commits._next_at != due)
        turns = (commits._next_at - due) / commits._interval
        assert round(turns) >= 1
        assert abs(turns - round(turns)) < 1e-6
        worker.committer.gate.set()

    run_partition(worker, work)
