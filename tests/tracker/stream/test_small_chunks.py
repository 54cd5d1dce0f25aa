"""SmallChunks: chunks of several partitions applied at once give what they give one by one."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faust.types import TP

from tests.plane_world import NOW, RunningPartition, WorkerState, small_artifact
from tracker.events.arrivals import MAX_FUTURE_SECONDS
from tracker.events.wire import Event
from tracker.items.states import ItemStates
from tracker.kafka.outbox import Record
from tracker.stream.list_maker import ListJob
from tracker.stream.partition import SMALL_BYTES, SMALL_RECORDS, Chunk
from tracker.stream.serving import make_serving
from tracker.stream.small_chunks import MOST_RECORDS, SmallChunks

PARTITIONS = 3
USERS = 6


@contextmanager
def workers(folder: Path, **settings: Any) -> Iterator[list[WorkerState]]:
    """Partitions of one worker, which share an artifact and the live statistics of its items."""
    parts = [
        WorkerState(folder / str(number), partition=number, partitioner="given", **settings)
        for number in range(PARTITIONS)
    ]
    serving = make_serving(small_artifact(), parts[0].settings)
    items = ItemStates(40, serving.view.scales)
    items.counted[:] = 1.0 + np.arange(40)[:, None]
    items.head["ref_time"] = NOW - 100.0
    serving.view.update_from(items, serving.artifact.vectors.hashes)
    for part in parts:
        part.keeper.current = serving
        part.restart()
    try:
        yield parts
    finally:
        for part in parts:
            part.close()


def some_events(random: np.random.Generator, partition: int, chunk: int) -> list[Event | bytes]:
    """Events of a partition; their last is at one time in all partitions, as are the trends."""
    events: list[Event | bytes] = []
    count = int(random.integers(1, 7))
    for number in range(count):
        last = number == count - 1
        events.append(
            Event(
                user_id=f"p{partition}-u{random.integers(USERS)}",
                item_id=f"i{random.integers(40)}",
                kind=str(random.choice(["view", "like", "cart", "dislike"])),
                timestamp=NOW - 50.0 + chunk + (0.9 if last else random.random() * 0.8),
                scene=str(random.choice(["home", "search"])),
            )
        )
    if random.random() < 0.2:
        events.insert(0, b"no event")
    return events


def rows_of(worker: WorkerState) -> dict[str, tuple[bytes, bytes | None]]:
    """Return the rows of all users in memory, as they would be stored, with their seen sets."""
    found = {}
    for user in (f"p{worker.partition}-u{number}" for number in range(USERS)):
        slot = worker.users.store.arena.slot(user)
        if slot >= 0:
            seen = int(worker.rows.seen_slots[slot])
            found[user] = (
                worker.rows.states.pack(np.array([slot]))[0],
                worker.rows.seen.pack(np.array([seen]))[0] if seen >= 0 else None,
            )
    return found


@pytest.mark.parametrize(
    ("seed", "settings"), [(1, {}), (2, {"emit": "changed"}), (3, {"explain": "parts"})]
)
def test_lists_and_rows_are_those_of_partition_by_partition(
    tmp_path: Path, seed: int, settings: dict[str, Any]
) -> None:
    with (
        workers(tmp_path / "a", **settings) as alone,
        workers(tmp_path / "b", **settings) as some,
    ):
        together = SmallChunks(some[0].context)
        left_open = 0
        for chunk in range(25):
            random = np.random.default_rng((seed, chunk))
            before: list[list[Record]] = []
            now: list[list[Record]] = []
            jobs: list[ListJob] = []
            places: list[int] = []
            for number in random.permutation(PARTITIONS)[: random.integers(1, PARTITIONS + 1)]:
                events = some_events(random, int(number), chunk)
                before.append(alone[number].send(*events))
                part = some[number]
                records = part.records(*events)
                now.append(part.users.process(records, part.offset, together=True))
                left = part.users.take_lists()
                if left is not None:
                    jobs.append(left)
                    places.append(len(now) - 1)
            left_open += len(jobs)
            for place, lists in zip(places, together.make_all(jobs), strict=True):
                now[place] = [*now[place], *lists]
            assert now == before
            for one, other in zip(alone, some, strict=True):
                assert rows_of(one) == rows_of(other)
        assert left_open > 30
        assert any(row[1] for worker in some for row in rows_of(worker).values())  # seen sets


async def side_by_side(
    parts: list[WorkerState], work: Callable[[list[RunningPartition]], Coroutine[Any, Any, None]]
) -> list[RunningPartition]:
    """Start partitions, do some work once all of them rest, and close them."""
    running = [RunningPartition(part, commit_seconds=60.0) for part in parts]
    try:
        for one in running:
            await one.partition.start()
        for one in running:
            await one.until(lambda one=one: one.partition._rests)  # type: ignore[misc]
        await work(running)
        for one in running:
            await one.partition.close()
    finally:
        for one in running:
            one.threads.shutdown()
    return running


def chunk_of(part: WorkerState, *events: Event | bytes) -> Chunk:
    """Return the next chunk of a partition."""
    start = part.offset
    records = part.records(*events)
    return Chunk(TP("t-events", part.partition), start, part.offset, records)


def views(part: WorkerState, count: int) -> list[Event | bytes]:
    """Return events of as many users of a partition."""
    return [Event(f"p{part.partition}-u{n}", "i1", "view", NOW + n) for n in range(count)]


def test_chunks_of_partitions_at_rest_are_applied_without_a_wait_and_listed_in_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    make_all = SmallChunks.make_all

    def counted(self: SmallChunks, jobs: list[ListJob]) -> list[list[Record]]:
        sizes.append(len(jobs))
        return make_all(self, jobs)

    monkeypatch.setattr(SmallChunks, "make_all", counted)

    async def work(running: list[RunningPartition]) -> None:
        small = SmallChunks(parts[0].context)
        for turn in range(2):
            pairs = [
                (one.partition, chunk_of(one.worker, *views(one.worker, 2))) for one in running
            ]
            assert small.apply(pairs) == [chunk for _, chunk in pairs]
            assert [len(one.outbox.records) for one in running] == [2 * turn + 2] * PARTITIONS
            assert [part.users.store.progress.position for part in parts] == [2 * turn + 2] * 3

    with workers(tmp_path) as parts:
        asyncio.run(side_by_side(parts, work))
        assert sizes == [PARTITIONS] * 2
        assert [part.users.store.committed for part in parts] == [4] * PARTITIONS


def test_partition_whose_commit_is_due_sooner_than_it_rests_wakes_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.stream.partition.REST_SECONDS", 1000.0)

    async def work(running: list[RunningPartition]) -> None:
        one = running[0]
        one.partition._commits._next_at = time.monotonic() + 0.02
        assert SmallChunks(parts[0].context).apply(
            [(one.partition, chunk_of(parts[0], *views(parts[0], 1)))]
        )
        async with asyncio.timeout(60.0):
            await one.until(lambda: parts[0].users.store.committed == 1)

    with workers(tmp_path) as parts:
        asyncio.run(side_by_side(parts, work))


BEFORE = ["a chunk waits", "it is not the next", "many records", "large records", "it closes"]


@pytest.mark.parametrize("before", BEFORE)
def test_chunk_that_something_comes_before_is_left_for_the_queue(
    tmp_path: Path, before: str
) -> None:
    async def work(running: list[RunningPartition]) -> None:
        one, part = running[0], parts[0]
        small = SmallChunks(part.context)
        if before == "a chunk waits":
            first = views(part, 1)
            one.accept(0, part.records(*first))
        if before == "it is not the next":
            part.offset += 1
        count = SMALL_RECORDS + 1 if before == "many records" else 2
        events = [b"x" * (SMALL_BYTES + 1)] if before == "large records" else views(part, count)
        chunk = chunk_of(part, *events)
        one.partition._closing = before == "it closes"
        assert small.apply([(one.partition, chunk)]) == []
        assert part.users.store.progress.position == 0
        assert one.outbox.records == []
        one.partition._closing = False

    with workers(tmp_path) as parts:
        asyncio.run(side_by_side(parts, work))


def test_chunk_that_needs_a_commit_first_comes_back_through_the_queue(tmp_path: Path) -> None:
    """The verdict on an event of the future depends on the clock, which is committed first."""
    future = Event("u", "i1", "view", NOW + MAX_FUTURE_SECONDS + 5.0)

    async def work(running: list[RunningPartition]) -> None:
        one, part = running[0], parts[0]
        chunk = chunk_of(part, future, *views(part, 1))
        assert SmallChunks(part.context).apply([(one.partition, chunk)]) == []
        assert part.users.store.progress.position == 0
        commits: list[float] = []
        commit = part.users.store.commit

        async def noted(*given: Any) -> None:
            commits.append(part.users.store.progress.position)
            await commit(*given)

        part.users.store.commit = noted  # type: ignore[method-assign, assignment]
        one.accept(0, chunk.records)
        await one.applied(2)
        assert commits == [0]  # before anything was applied

    with workers(tmp_path) as parts:
        asyncio.run(side_by_side(parts, work))


def test_no_more_records_than_the_bound_are_applied_at_once(tmp_path: Path) -> None:
    async def work(running: list[RunningPartition]) -> None:
        small = SmallChunks(parts[0].context)
        pairs = [(one.partition, chunk_of(one.worker, *views(one.worker, 20))) for one in running]
        assert small.apply(pairs) == [pairs[0][1], pairs[1][1]]
        assert [len(one.outbox.records) for one in running] == [20, 20, 0]

    with workers(tmp_path) as parts, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tracker.stream.small_chunks.MOST_RECORDS", 59)
        asyncio.run(side_by_side(parts, work))
    assert MOST_RECORDS >= SMALL_RECORDS


@pytest.mark.parametrize("what", ["lists", "process"])
def test_a_bug_ends_the_worker_and_commits_nothing_of_the_partitions_that_it_hit(
    tmp_path: Path, what: str
) -> None:
    def fail(*given: Any, **more: Any) -> Any:
        raise ValueError("a bug")

    async def work(running: list[RunningPartition]) -> None:
        small = SmallChunks(parts[0].context)
        with pytest.MonkeyPatch.context() as patch:
            if what == "lists":
                patch.setattr(small, "make_all", fail)
            else:
                patch.setattr(parts[1].users, "process", fail)
            small.apply(
                (one.partition, chunk_of(one.worker, *views(one.worker, 1))) for one in running
            )
        hit = [0, 1, 2] if what == "lists" else [1]
        failed = [number for number, one in enumerate(running) if one.fatal]
        assert failed == hit
        assert {str(running[number].fatal[0]) for number in hit} == {"a bug"}

    with workers(tmp_path) as parts:
        asyncio.run(side_by_side(parts, work))
        expected = [0, 0, 0] if what == "lists" else [1, 0, 1]
        assert [part.users.store.committed or 0 for part in parts] == expected


@pytest.mark.parametrize("settings", [{"emit": "event"}, {"transactional_recommendations": True}])
def test_lists_that_wait_for_a_commit_or_for_each_event_are_made_at_once(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    with workers(tmp_path, **settings) as parts:
        part = parts[0]
        part.users.process(part.records(Event("u", "i1", "like", NOW)), 1, together=True)
        assert part.users.take_lists() is None
