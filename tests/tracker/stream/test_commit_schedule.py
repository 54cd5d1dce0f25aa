"""When a partition commits: first, by the timer, beside its chunks, and again."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plane_world import Bench, like
from tests.tracker.stream.test_partition import Line, run
from tracker.store.committer import CommitUnknownError


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def test_position_is_committed_before_the_first_chunk(bench: Bench) -> None:
    async def work(line: Line) -> None:
        assert bench.users.store.committed == 0

    run(bench, work, commit_seconds=60.0)


def test_idle_partition_commits_by_timer(bench: Bench) -> None:
    async def work(line: Line) -> None:
        line.accept(0, bench.records(like("a", 0)))
        await line.until(lambda: bench.users.store.committed == 1)

    run(bench, work)


def test_next_chunk_goes_on_beside_a_slow_commit(bench: Bench) -> None:
    async def work(line: Line) -> None:
        bench.committer.gate = asyncio.Event()
        line.accept(0, bench.records(like("a", 0)))
        await line.until(lambda: bool(bench.users.store.arena.pinned.any()))
        line.accept(1, bench.records(like("a", 1)))
        await line.applied(1, 2)
        assert bench.users.store.committed == 0
        await asyncio.sleep(0.15)  # the next commit is due meanwhile, and waits without spinning
        bench.committer.gate.set()
        await line.until(lambda: bench.users.store.committed == 2)

    line = run(bench, work)
    assert line.fatal == []


def test_aborted_commit_is_tried_again_with_all_it_had(bench: Bench) -> None:
    async def work(line: Line) -> None:
        bench.committer.aborts = 2
        line.accept(0, bench.records(like("a", 0)))
        await line.until(lambda: bench.users.store.committed == 1)

    run(bench, work)
    assert bench.count("aborted_commits", table="users") == 2
    assert [record.topic for record in bench.committer.sent] == ["t-items"]


def test_commit_of_unknown_outcome_ends_the_worker(bench: Bench) -> None:
    async def work(line: Line) -> None:
        bench.committer.error = CommitUnknownError("the connection was lost")
        line.accept(0, bench.records(like("a", 0)))
        await line.until(lambda: bool(line.fatal))

    line = run(bench, work)
    assert isinstance(line.fatal[0], CommitUnknownError)


def test_recommendation_that_cannot_be_sent_keeps_its_events_uncommitted(bench: Bench) -> None:
    async def work(line: Line) -> None:
        line.box.error = RuntimeError("no broker")
        line.accept(0, bench.records(like("a", 0)))
        await line.until(lambda: bool(line.fatal))

    run(bench, work)
    assert bench.users.store.committed == 0
