"""ListsTogether: lists of several partitions made at once are those made one by one."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.plane_world import NOW, RunningPartition, WorkerState, small_artifact
from tracker.events.wire import Event
from tracker.items.states import ItemStates
from tracker.kafka.outbox import Record
from tracker.stream.list_maker import ListJob
from tracker.stream.lists_together import MOST_TOGETHER, ListsTogether
from tracker.stream.serving import make_serving

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
        together = ListsTogether(some[0].context)
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


def test_lists_of_partitions_that_run_side_by_side_are_made_in_one_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    make_all = ListsTogether.make_all

    def counted(self: ListsTogether, jobs: list[ListJob]) -> list[list[Record]]:
        sizes.append(len(jobs))
        return make_all(self, jobs)

    monkeypatch.setattr(ListsTogether, "make_all", counted)

    async def all_of_it(parts: list[WorkerState]) -> list[RunningPartition]:
        together = ListsTogether(parts[0].context)
        running = [RunningPartition(part, lists=together) for part in parts]
        try:
            for one in running:
                await one.partition.start()
            for one, part in zip(running, parts, strict=True):
                one.accept(0, part.records(Event(f"u{part.partition}", "i1", "like", NOW)))
            for one in running:
                await one.applied(1)
                await one.partition.close()
        finally:
            for one in running:
                one.threads.shutdown()
        return running

    with workers(tmp_path) as parts:
        running = asyncio.run(all_of_it(parts))
        assert sizes == [PARTITIONS]
        assert [len(one.outbox.records) for one in running] == [1] * PARTITIONS
        assert [part.users.store.committed for part in parts] == [1] * PARTITIONS


def test_no_more_lists_than_the_bound_are_made_in_one_call(tmp_path: Path) -> None:
    with workers(tmp_path) as parts:
        jobs = []
        for part in parts:
            events = [Event(f"u{n}", "i1", "like", NOW) for n in range(MOST_TOGETHER // 2)]
            part.users.process(part.records(*events), part.offset, together=True)
            left = part.users.take_lists()
            assert left is not None
            jobs.append(left)
        together = ListsTogether(parts[0].context)
        sizes: list[int] = []

        def make_all(some: list[ListJob]) -> list[list[Record]]:
            sizes.append(len(some))
            return [job.make() for job in some]

        together.make_all = make_all  # type: ignore[method-assign,assignment]

        async def make() -> list[list[Record]]:
            return await asyncio.gather(*(together.make(str(n), job) for n, job in enumerate(jobs)))

        out = asyncio.run(make())
        assert sizes == [2, 1]
        assert [len(records) for records in out] == [MOST_TOGETHER // 2] * PARTITIONS


def jobs_of(parts: list[WorkerState]) -> list[ListJob]:
    """Return a job of one list from each partition."""
    jobs = []
    for part in parts:
        part.users.process(part.records(Event("u", "i1", "like", NOW)), 1, together=True)
        left = part.users.take_lists()
        assert left is not None
        jobs.append(left)
    return jobs


@pytest.mark.parametrize(
    ("comes", "sizes"),
    [
        ("late", [3]),  # within the time that lists wait
        ("without lists", [2]),
        ("never", [2]),
    ],
)
def test_lists_wait_for_those_of_the_partitions_whose_chunks_are_on_their_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes: str, sizes: list[int]
) -> None:
    hold = 0.05 if comes == "never" else 60.0
    monkeypatch.setattr("tracker.stream.lists_together.HOLD_SECONDS", hold)
    with workers(tmp_path) as parts:
        jobs = jobs_of(parts)
        together = ListsTogether(parts[0].context)
        made: list[int] = []

        def make_all(some: list[ListJob]) -> list[list[Record]]:
            made.append(len(some))
            return [job.make() for job in some]

        together.make_all = make_all  # type: ignore[method-assign,assignment]

        async def run() -> None:
            together.expect(["p0", "p1", "p2"])
            lists = [
                asyncio.create_task(together.make(f"p{number}", job))
                for number, job in enumerate(jobs[:2])
            ]
            for _ in range(5):
                await asyncio.sleep(0)
            assert made == []
            if comes == "late":
                assert len(await together.make("p2", jobs[2])) == 1
            if comes == "without lists":
                together.pass_by("p2")
            assert [len(records) for records in await asyncio.gather(*lists)] == [1, 1]
            assert len(await together.make("p0", jobs[0])) == 1  # nothing is expected any more

        asyncio.run(asyncio.wait_for(run(), 10.0))
        assert made == [*sizes, 1]


def test_an_error_ends_every_partition_that_waits_for_its_lists(tmp_path: Path) -> None:
    with workers(tmp_path) as parts:
        jobs = []
        for part in parts:
            part.users.process(part.records(Event("u", "i1", "like", NOW)), 1, together=True)
            left = part.users.take_lists()
            assert left is not None
            broken = replace(left.lists, times=np.zeros(0))
            jobs.append(left._replace(lists=broken))

        async def make() -> list[BaseException | list[Record]]:
            together = ListsTogether(parts[0].context)
            return await asyncio.gather(
                *(together.make(str(n), job) for n, job in enumerate(jobs)), return_exceptions=True
            )

        out = asyncio.run(make())
        assert [type(one) for one in out] == [ValueError] * PARTITIONS


@pytest.mark.parametrize("settings", [{"emit": "event"}, {"transactional_recommendations": True}])
def test_lists_that_wait_for_a_commit_or_for_each_event_are_made_at_once(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    with workers(tmp_path, **settings) as parts:
        part = parts[0]
        part.users.process(part.records(Event("u", "i1", "like", NOW)), 1, together=True)
        assert part.users.take_lists() is None
