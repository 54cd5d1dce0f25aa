"""Partition: chunks strictly in order, and an end that loses nothing."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from tests.plane_world import (
    NOW,
    Make,
    RunningPartition,
    WorkerState,
    like,
    lists,
    run_partition,
    written_by,
)
from tracker.events.wire import encode_event
from tracker.feeds.source_ends import SourceEnds, UnknownOffsetError
from tracker.kafka.cluster import BrokerError
from tracker.kafka.outbox import Record
from tracker.kernels.row_bytes import NewerRowError
from tracker.store.arena import ArenaFullError
from tracker.stream.partition import (
    MOST_QUERIES,
    SMALL_BYTES,
    SMALL_RECORDS,
    WAITING_CHUNKS,
    BusyError,
    RevokedError,
)


@pytest.fixture
def worker(make: Make) -> WorkerState:
    return make(capacity=20)


def test_chunks_are_applied_in_order_and_committed_at_the_end(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        running.accept(0, worker.records(like("a", 0), like("b", 1)))
        await running.applied(2)
        running.accept(2, worker.records(like("a", 2)))
        await running.applied(2, 3)

    running = run_partition(worker, work, commit_seconds=60.0)
    assert running.fatal == []
    assert [one.id for one in lists(running.outbox.records)] == [
        "t-events-0-0", "t-events-0-1", "t-events-0-2",
    ]  # fmt: skip
    assert worker.users.store.committed == 3
    worker.restart()
    assert worker.users.store.progress.position == 3


def test_chunks_that_have_waited_are_processed_as_one_up_to_a_bound(
    worker: WorkerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.stream.partition.JOINED_RECORDS", 4)
    process = worker.users.process
    sizes: list[int] = []

    def counted(records: Sequence[Any], *rest: Any) -> list[Record]:
        sizes.append(len(records))
        return process(records, *rest)

    monkeypatch.setattr(worker.users, "process", counted)

    async def work(running: RunningPartition) -> None:
        for at in (0, 2, 4):
            running.accept(at, worker.records(like("a", at), like("b", at + 1)))
        worker.offset = 9
        running.accept(9, worker.records(like("a", 9)))  # 6 to 8 are missing: fetched again
        await running.until(lambda: len(running.done) == 4)

    running = run_partition(worker, work)
    assert sizes == [4, 2]
    assert running.done == [2, 4, 6, 10]
    assert worker.users.store.committed == 6
    assert [one.id for one in lists(running.outbox.records)] == [
        f"t-events-0-{n}" for n in (2, 3, 4, 5)
    ]


def test_small_chunk_is_processed_on_the_loop_and_a_large_one_in_a_thread(
    worker: WorkerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = worker.users.process
    on_the_loop: list[bool] = []

    def watched(
        records: Sequence[Any], end: int, handed: bool, together: bool = False
    ) -> list[Record]:
        on_the_loop.append(threading.current_thread() is threading.main_thread())
        return process(records, end)

    monkeypatch.setattr(worker.users, "process", watched)

    async def work(running: RunningPartition) -> None:
        small = worker.records(like("a", 0))
        running.accept(0, small)
        await running.applied(1)
        room = SMALL_BYTES // len(small[0].value or b"") + 1
        running.accept(1, worker.records(*(like("b", at % 40) for at in range(room))))
        await running.applied(1, 1 + room)

    running = run_partition(worker, work)
    assert running.fatal == []
    assert on_the_loop == [True, False]


def test_chunk_that_starts_past_the_position_is_dropped_and_asked_for_again(
    worker: WorkerState,
) -> None:
    async def work(running: RunningPartition) -> None:
        records = worker.records(like("a", 0), like("a", 1), like("a", 2))
        running.accept(2, records[2:])
        await running.applied(3)
        assert running.rewound == [0]
        assert running.partition.lag == 0
        running.accept(0, records)
        await running.applied(3, 3)

    run_partition(worker, work)
    assert worker.head("a", "events") == 3


def test_chunk_that_ends_before_the_position_is_dropped(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        records = worker.records(like("a", 0), like("a", 1))
        running.accept(0, records)
        running.accept(0, records)
        await running.applied(2, 2)

    running = run_partition(worker, work)
    assert worker.head("a", "events") == 2
    assert running.rewound == []


def test_chunk_that_overlaps_is_cut(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        records = worker.records(like("a", 0), like("a", 1), like("a", 2))
        running.accept(0, records[:2])
        running.accept(1, records[1:])
        await running.applied(2, 3)

    run_partition(worker, work)
    assert worker.head("a", "events") == 3


def test_gap_that_the_log_has_is_passed(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        first = worker.records(like("a", 0))
        worker.offset += 5
        running.accept(0, first)
        running.accept(1, worker.records(like("a", 1)))
        await running.applied(1, 7)

    run_partition(worker, work)
    assert worker.users.store.progress.position == 7


def test_full_arena_commits_early_and_goes_on(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        for at in range(4):
            running.accept(at * 10, worker.records(*(like(f"u{at}-{n}", n) for n in range(10))))
        await running.applied(10, 20, 30, 40)

    running = run_partition(worker, work, commit_seconds=60.0)
    assert running.fatal == []
    assert worker.committer.writes >= 3
    assert worker.users.store.progress.position == 40


def test_record_with_more_users_than_rows_ends_the_worker(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        whole = b",".join(encode_event(like(f"u{n}", 0)) for n in range(21))
        running.accept(0, worker.records(b"[" + whole + b"]"))
        await running.until(lambda: bool(running.fatal))

    running = run_partition(worker, work)
    assert isinstance(running.fatal[0], ArenaFullError)
    assert running.done == []


def test_bug_in_processing_ends_the_worker_and_nothing_is_acknowledged(
    worker: WorkerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(
        records: Sequence[Any], end: int, handed: bool, together: bool = False
    ) -> list[Record]:
        raise ZeroDivisionError

    monkeypatch.setattr(worker.users, "process", fail)

    async def work(running: RunningPartition) -> None:
        running.accept(0, worker.records(like("a", 0)))
        await running.until(lambda: bool(running.fatal))

    running = run_partition(worker, work)
    assert isinstance(running.fatal[0], ZeroDivisionError)
    assert running.done == []
    assert worker.users.store.committed == 0


def test_newer_artifact_is_loaded_before_its_states_are_touched(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        running.accept(1, worker.records(like("a", 1)))
        await running.applied(2)

    written_by(worker, 5)
    run_partition(worker, work)
    assert worker.keeper.requested == [5]
    assert worker.head("a", "events") == 2


def test_a_chunk_waits_while_it_cannot_be_told_what_latest_names(
    worker: WorkerState, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tracker.stream.partition.RETRY_SECONDS", 0.01)

    async def work(running: RunningPartition) -> None:
        running.accept(1, worker.records(like("a", 1)))
        await running.until(lambda: len(worker.keeper.requested) > 3)
        assert running.done == []
        worker.keeper.readable = True
        await running.applied(2)

    written_by(worker, 5)
    worker.keeper.readable = False
    run_partition(worker, work)
    assert worker.head("a", "events") == 2
    assert caplog.text.count("waiting for an artifact: user row 0 of 1 was written with") == 1


def test_a_chunk_that_waits_for_an_artifact_is_given_back_at_the_end(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        running.accept(1, worker.records(like("a", 1)))
        await running.until(lambda: bool(worker.keeper.requested))

    written_by(worker, 5)
    worker.keeper.readable = False
    running = run_partition(worker, work)
    assert running.fatal == []
    assert running.done == [2]
    assert worker.users.store.committed == worker.users.store.progress.position == 1


def test_chunks_that_wait_at_the_end_are_given_back(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        for at in range(WAITING_CHUNKS):
            running.accept(at, worker.records(like("a", at)))
        assert not running.partition.room("t-events")
        await running.partition.close()
        running.accept(9, worker.records(like("a", 9)))

    running = run_partition(worker, work)
    assert len(running.done) == WAITING_CHUNKS + 1
    assert worker.users.store.committed == worker.users.store.progress.position
    assert worker.head("a", "events") == worker.users.store.progress.position


def test_partition_waits_while_too_much_is_unsent(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        running.outbox.full = True
        assert not running.partition.room("t-events")

    run_partition(worker, work)


def test_partition_waits_while_too_many_item_events_wait_for_a_commit(
    worker: WorkerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.stream.partition.MAX_WAITING_BYTES", 1000)

    async def work(running: RunningPartition) -> None:
        running.partition._commits._next_at += 1e9  # an earlier commit does not end
        running.accept(0, worker.records(*(like("a", at % 40) for at in range(50))))
        await running.applied(50)
        assert worker.users.outgoing_bytes > 1000
        assert not running.partition.room("t-events")
        await running.partition._commits.commit_all()
        assert worker.users.outgoing_bytes == 0
        assert running.partition.room("t-events")

    run_partition(worker, work)


def test_owed_list_goes_out_when_it_is_due(make: Make) -> None:
    worker = make(emit_min_interval_seconds=10.0)

    async def work(running: RunningPartition) -> None:
        running.accept(0, worker.records(like("a", 0)))
        await running.applied(1)
        running.accept(1, worker.records(like("a", 2)))
        await running.applied(1, 2)
        worker.now = NOW + 11.0
        running.accept(2, worker.records(like("b", 1)))
        await running.until(lambda: len(lists(running.outbox.records)) == 3)

    running = run_partition(worker, work)
    assert {one.id for one in lists(running.outbox.records)} == {
        f"t-events-0-{n}" for n in range(3)
    }


def test_question_is_answered_between_chunks(worker: WorkerState) -> None:
    answers: list[Any] = []

    async def work(running: RunningPartition) -> None:
        running.accept(0, worker.records(like("a", 0)))
        await running.applied(1)
        answers.append(await running.partition.query(lambda: worker.head("a", "events")))
        with pytest.raises(LookupError):
            await running.partition.query(lambda: [][0])

    run_partition(worker, work)
    assert answers == [1]


def test_questions_during_a_chunk_take_no_room_of_chunks_and_too_many_are_refused(
    worker: WorkerState,
) -> None:
    process, begun, go_on = worker.users.process, threading.Event(), threading.Event()

    def slow(records: Any, end: int, handed: bool = False, together: bool = False) -> Any:
        begun.set()
        assert go_on.wait(60.0)
        return process(records, end)

    worker.users.process = slow  # type: ignore[method-assign]

    async def work(running: RunningPartition) -> None:
        partition = running.partition
        running.accept(0, worker.records(*[like("a", 0)] * (SMALL_RECORDS + 1)))
        await running.until(begun.is_set)
        asked = [
            asyncio.ensure_future(partition.query(lambda: worker.head("a", "events")))
            for _ in range(MOST_QUERIES)
        ]
        await asyncio.sleep(0)
        assert partition.room("t-events")
        with pytest.raises(BusyError, match="64 questions wait"):
            await partition.query(lambda: 7)
        asked[0].cancel()
        assert not any(one.done() for one in asked[1:])
        go_on.set()
        assert await asyncio.gather(*asked[1:]) == [SMALL_RECORDS + 1] * (MOST_QUERIES - 1)
        assert await partition.query(lambda: 8) == 8

    try:
        run_partition(worker, work)
    finally:
        go_on.set()


def test_questions_to_a_partition_that_closes_are_refused(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        asked = asyncio.ensure_future(running.partition.query(lambda: 7))
        running.partition._closing = True
        await asyncio.sleep(0)
        await running.partition.close()
        with pytest.raises(RevokedError):
            await asked
        with pytest.raises(RevokedError):
            await running.partition.query(lambda: 7)

    run_partition(worker, work)


def test_lag_is_what_was_not_fetched_and_what_waits(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        running.not_fetched = 7
        assert running.partition.lag == 7
        running.accept(0, worker.records(like("a", 0), like("a", 1)))
        assert running.partition.lag == 9
        await running.applied(2)
        assert running.partition.lag == 7

    run_partition(worker, work)


def test_partition_waits_for_a_newer_row_and_answers_and_commits_meanwhile(
    worker: WorkerState, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tracker.stream.partition.NEWER_ROW_SECONDS", 0.1)
    process = worker.users.process
    blocked = True

    def newer(records: Any, end: int, handed: bool = False, together: bool = False) -> Any:
        if blocked and end == 2:
            raise NewerRowError("the row of item 1", b"\x03\x00", 2)
        return process(records, end)

    async def work(running: RunningPartition) -> None:
        nonlocal blocked
        running.accept(0, worker.records(like("a", 0)))
        await running.applied(1)
        running.accept(1, worker.records(like("a", 1)))
        await running.until(lambda: running.partition.waits_for is not None)
        assert "has format 3, and this version reads 2" in str(running.partition.waits_for)
        assert await running.partition.query(lambda: 7) == 7
        await running.until(lambda: running.partition.store.committed == 1)
        blocked = False
        await running.applied(1, 2)
        assert running.partition.waits_for is None

    worker.users.process = newer  # type: ignore[method-assign]
    run_partition(worker, work)
    assert caplog.text.count("waiting, not to write over it") == 1


def test_partition_that_waits_for_a_newer_row_closes_and_commits(worker: WorkerState) -> None:
    def newer(records: Any, end: int, handed: bool = False, together: bool = False) -> Any:
        raise NewerRowError("the row of item 1", b"\x03\x00", 2)

    async def work(running: RunningPartition) -> None:
        worker.users.process = newer  # type: ignore[method-assign]
        running.accept(0, worker.records(like("a", 0)))
        await running.until(lambda: running.partition.waits_for is not None)
        async with asyncio.timeout(60.0):
            await running.partition.close()

    running = run_partition(worker, work)
    assert running.fatal == []
    assert worker.users.store.committed == 0


def test_partition_whose_task_is_cancelled_ends_the_worker(worker: WorkerState) -> None:
    async def work(running: RunningPartition) -> None:
        task = running.partition._task
        assert task is not None
        task.cancel()
        while not running.fatal:
            await asyncio.sleep(0.01)

    running = run_partition(worker, work)
    assert "was cancelled" in str(running.fatal[0])


def test_partition_reads_the_ends_that_a_block_needs_until_the_brokers_answer(
    worker: WorkerState, caplog: pytest.LogCaptureFixture
) -> None:
    answers: list[dict[int, int]] = []

    async def read() -> dict[int, int]:
        answers.append({0: 5})
        if len(answers) == 1:
            raise BrokerError("no answer")
        return answers[-1]

    ends = SourceEnds(lambda partition: None, read)
    process = worker.users.process

    def needs(records: Any, end: int, handed: bool = False, together: bool = False) -> Any:
        if not ends.reaches(0, 4):
            raise UnknownOffsetError(ends)
        return process(records, end)

    async def work(running: RunningPartition) -> None:
        worker.users.process = needs  # type: ignore[method-assign]
        running.accept(0, worker.records(like("a", 0)))
        await running.applied(1)

    run_partition(worker, work)
    assert len(answers) == 2
    assert "the ends of the events topic cannot be read" in caplog.text
