"""Partition: chunks strictly in order, and an end that loses nothing."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from faust.types import TP

from tests.plane_world import NOW, Bench, Source, like, lists
from tracker.kafka.outbox import Record
from tracker.store.arena import ArenaFullError
from tracker.stream.partition import SMALL_BYTES, WAITING_CHUNKS, Chunk, Partition

EVENTS = TP("t-events", 0)


class Box:
    """An outbox that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.full = False
        self.error: BaseException | None = None

    def put(self, records: Sequence[Record]) -> None:
        self.records += records

    def mark(self) -> None:
        return None

    async def wait(self, mark: None) -> None:
        if self.error is not None:
            raise self.error


class Line:
    """One partition in work over a bench."""

    def __init__(self, bench: Bench, commit_seconds: float = 0.05) -> None:
        self.bench = bench
        self.box = Box()
        self.topic, self.number = EVENTS
        self.rewound: list[int] = []
        self.fatal: list[BaseException] = []
        self.not_fetched = 0
        self.done: list[int] = []
        self.threads = ThreadPoolExecutor(1)
        settings = bench.settings.model_copy(update={"commit_interval_seconds": commit_seconds})
        self.partition = Partition(
            replace(bench.context, settings=settings),
            self,
            bench.users,
            self.box,  # type: ignore[arg-type]
            self.threads,
            self.fatal.append,
        )

    def rewind(self, offset: int) -> None:
        self.rewound.append(offset)

    def unread(self) -> int:
        return self.not_fetched

    def accept(self, start: int, records: Sequence[Source]) -> None:
        end = records[-1].offset + 1
        self.partition.accept(Chunk(EVENTS, start, end, records), lambda: self.done.append(end))

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(20.0):
            while not done():
                await asyncio.sleep(0.002)

    async def applied(self, *ends: int) -> None:
        await self.until(lambda: self.done == list(ends))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, capacity=20)
    yield made
    made.close()


def run(bench: Bench, work: Callable[[Line], Coroutine[Any, Any, None]], **more: Any) -> Line:
    async def all_of_it() -> Line:
        line = Line(bench, **more)
        try:
            await line.partition.start()
            await work(line)
            if not line.fatal:
                await line.partition.close()
        finally:
            line.threads.shutdown()
        return line

    return asyncio.run(all_of_it())


def test_chunks_are_applied_in_order_and_committed_at_the_end(bench: Bench) -> None:
    async def work(line: Line) -> None:
        line.accept(0, bench.records(like("a", 0), like("b", 1)))
        line.accept(2, bench.records(like("a", 2)))
        await line.applied(2, 3)

    line = run(bench, work, commit_seconds=60.0)
    assert line.fatal == []
    assert [one.id for one in lists(line.box.records)] == [
        "t-events-0-0", "t-events-0-1", "t-events-0-2",
    ]  # fmt: skip
    assert bench.users.store.committed == 3
    bench.restart()
    assert bench.users.store.progress.position == 3


def test_small_chunk_is_processed_on_the_loop_and_a_large_one_in_a_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = bench.users.process
    on_the_loop: list[bool] = []

    def watched(records: Sequence[Any], end: int) -> list[Record]:
        on_the_loop.append(threading.current_thread() is threading.main_thread())
        return process(records, end)

    monkeypatch.setattr(bench.users, "process", watched)

    async def work(line: Line) -> None:
        small = bench.records(like("a", 0))
        line.accept(0, small)
        await line.applied(1)
        room = SMALL_BYTES // len(small[0].value or b"") + 1
        line.accept(1, bench.records(*(like("b", at % 40) for at in range(room))))
        await line.applied(1, 1 + room)

    line = run(bench, work)
    assert line.fatal == []
    assert on_the_loop == [True, False]


def test_chunk_that_starts_past_the_position_is_dropped_and_asked_for_again(bench: Bench) -> None:
    async def work(line: Line) -> None:
        records = bench.records(like("a", 0), like("a", 1), like("a", 2))
        line.accept(2, records[2:])
        await line.applied(3)
        assert line.rewound == [0]
        assert line.partition.lag == 0
        line.accept(0, records)
        await line.applied(3, 3)

    run(bench, work)
    assert bench.head("a", "events") == 3


def test_chunk_that_ends_before_the_position_is_dropped(bench: Bench) -> None:
    async def work(line: Line) -> None:
        records = bench.records(like("a", 0), like("a", 1))
        line.accept(0, records)
        line.accept(0, records)
        await line.applied(2, 2)

    line = run(bench, work)
    assert bench.head("a", "events") == 2
    assert line.rewound == []


def test_chunk_that_overlaps_is_cut(bench: Bench) -> None:
    async def work(line: Line) -> None:
        records = bench.records(like("a", 0), like("a", 1), like("a", 2))
        line.accept(0, records[:2])
        line.accept(1, records[1:])
        await line.applied(2, 3)

    run(bench, work)
    assert bench.head("a", "events") == 3


def test_gap_that_the_log_has_is_passed(bench: Bench) -> None:
    async def work(line: Line) -> None:
        first = bench.records(like("a", 0))
        bench.offset += 5
        line.accept(0, first)
        line.accept(1, bench.records(like("a", 1)))
        await line.applied(1, 7)

    run(bench, work)
    assert bench.users.store.progress.position == 7


def test_full_arena_commits_early_and_goes_on(bench: Bench) -> None:
    async def work(line: Line) -> None:
        for at in range(4):
            line.accept(at * 10, bench.records(*(like(f"u{at}-{n}", n) for n in range(10))))
        await line.applied(10, 20, 30, 40)

    line = run(bench, work, commit_seconds=60.0)
    assert line.fatal == []
    assert bench.committer.writes >= 3
    assert bench.users.store.progress.position == 40


def test_chunk_with_more_users_than_rows_ends_the_worker(bench: Bench) -> None:
    async def work(line: Line) -> None:
        line.accept(0, bench.records(*(like(f"u{n}", 0) for n in range(21))))
        await line.until(lambda: bool(line.fatal))

    line = run(bench, work)
    assert isinstance(line.fatal[0], ArenaFullError)
    assert line.done == []


def test_bug_in_processing_ends_the_worker_and_nothing_is_acknowledged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(records: Sequence[Any], end: int) -> list[Record]:
        raise ZeroDivisionError

    monkeypatch.setattr(bench.users, "process", fail)

    async def work(line: Line) -> None:
        line.accept(0, bench.records(like("a", 0)))
        await line.until(lambda: bool(line.fatal))

    line = run(bench, work)
    assert isinstance(line.fatal[0], ZeroDivisionError)
    assert line.done == []
    assert bench.users.store.committed == 0


def test_newer_artifact_is_loaded_before_its_states_are_touched(bench: Bench) -> None:
    async def work(line: Line) -> None:
        line.accept(1, bench.records(like("a", 1)))
        await line.applied(2)

    written_by(bench, 5)
    run(bench, work)
    assert bench.keeper.asked == [5]
    assert bench.head("a", "events") == 2


def written_by(bench: Bench, sequence: int) -> None:
    """Commit a row of user a as another worker would, with a newer artifact."""
    bench.send(like("a", 0))
    bench.rows.states.head["artifact"][:] = sequence
    bench.commit()
    bench.restart()


def test_a_chunk_waits_while_it_cannot_be_told_what_latest_names(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tracker.stream.partition.RETRY_SECONDS", 0.01)

    async def work(line: Line) -> None:
        line.accept(1, bench.records(like("a", 1)))
        await line.until(lambda: len(bench.keeper.asked) > 3)
        assert line.done == []
        bench.keeper.readable = True
        await line.applied(2)

    written_by(bench, 5)
    bench.keeper.readable = False
    run(bench, work)
    assert bench.head("a", "events") == 2
    assert caplog.text.count("waiting for an artifact: user row 0 of 1 was written with") == 1


def test_a_chunk_that_waits_for_an_artifact_is_given_back_at_the_end(bench: Bench) -> None:
    async def work(line: Line) -> None:
        line.accept(1, bench.records(like("a", 1)))
        await line.until(lambda: bool(bench.keeper.asked))

    written_by(bench, 5)
    bench.keeper.readable = False
    line = run(bench, work)
    assert line.fatal == []
    assert line.done == [2]
    assert bench.users.store.committed == bench.users.store.progress.position == 1


def test_chunks_that_wait_at_the_end_are_given_back(bench: Bench) -> None:
    async def work(line: Line) -> None:
        for at in range(WAITING_CHUNKS):
            line.accept(at, bench.records(like("a", at)))
        assert not line.partition.room
        await line.partition.close()
        line.accept(9, bench.records(like("a", 9)))

    line = run(bench, work)
    assert len(line.done) == WAITING_CHUNKS + 1
    assert bench.users.store.committed == bench.users.store.progress.position
    assert bench.head("a", "events") == bench.users.store.progress.position


def test_partition_waits_while_too_much_is_unsent(bench: Bench) -> None:
    async def work(line: Line) -> None:
        line.box.full = True
        assert not line.partition.room

    run(bench, work)


def test_owed_list_goes_out_when_it_is_due(tmp_path: Path) -> None:
    bench = Bench(tmp_path, emit_min_interval_seconds=10.0)

    async def work(line: Line) -> None:
        line.accept(0, bench.records(like("a", 0)))
        line.accept(1, bench.records(like("a", 2)))
        await line.applied(1, 2)
        bench.now = NOW + 11.0
        line.accept(2, bench.records(like("b", 1)))
        await line.until(lambda: len(lists(line.box.records)) == 3)

    line = run(bench, work)
    assert {one.id for one in lists(line.box.records)} == {f"t-events-0-{n}" for n in range(3)}
    bench.close()


def test_question_is_answered_between_chunks(bench: Bench) -> None:
    answers: list[Any] = []

    async def work(line: Line) -> None:
        line.accept(0, bench.records(like("a", 0)))
        answers.append(await line.partition.query(lambda: bench.head("a", "events")))
        with pytest.raises(LookupError):
            await line.partition.query(lambda: [][0])

    run(bench, work)
    assert answers == [1]


def test_lag_is_what_was_not_fetched_and_what_waits(bench: Bench) -> None:
    async def work(line: Line) -> None:
        line.not_fetched = 7
        assert line.partition.lag == 7
        line.accept(0, bench.records(like("a", 0), like("a", 1)))
        assert line.partition.lag == 9
        await line.applied(2)
        assert line.partition.lag == 7

    run(bench, work)
