"""Plane: partitions are fenced, opened, fed and released, and a fault ends the worker."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import TopicAuthorizationFailedError
from faust.types import TP
from rocksdict import Options, Rdict

from tests.plane_world import FakeKeeper, FakeRecord, like, small_artifact, small_cluster
from tracker.events.kinds import Kinds
from tracker.events.wire import encode_event
from tracker.kafka import cluster, producers
from tracker.kafka.changelog_rows import stored_rows
from tracker.kafka.cluster import check_topics
from tracker.kafka.topics import ensure_topics
from tracker.settings import Settings, load_settings
from tracker.store.committer import Committer, FencedError
from tracker.store.partition_store import PositionError
from tracker.stream.metrics import Metrics
from tracker.stream.partition import Chunk
from tracker.stream.serving import Context, make_serving
from tracker.worker import plane as plane_module
from tracker.worker.plane import Plane, finish


class FakeConsumer:
    """A consumer that knows the offsets at which logs begin and end."""

    def __init__(self) -> None:
        self.begin = 0
        self.end = 1000
        self.rewound: list[tuple[TP, int]] = []

    async def earliest_offsets(self, *tps: TP) -> dict[TP, int]:
        return {tp: 0 if tp.topic.endswith("handover") else self.begin for tp in tps}

    async def highwaters(self, *tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, self.end)

    def unread(self, tp: TP) -> int:
        return 0

    def fetched_end(self, tp: TP) -> int | None:
        return 5 if tp.partition == 0 else None

    def rewind(self, tp: TP, offset: int) -> None:
        self.rewound.append((tp, offset))


class Worker:
    """A plane on a real broker, without Faust."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.exits: list[int] = []
        self.databases: dict[tuple[str, int], Any] = {}
        self.consumer = FakeConsumer()

    def database(self, table: str, partition: int) -> Any:
        if (table, partition) not in self.databases:
            path = self.folder / f"{table}-{partition}"
            self.databases[table, partition] = Rdict(str(path), options=Options(raw_mode=True))
        return self.databases[table, partition]

    async def start(self) -> Plane:
        await ensure_topics(self.settings)
        serving = make_serving(small_artifact(), self.settings)
        self.context = Context(
            self.settings,
            await check_topics(self.settings),
            FakeKeeper(serving),  # type: ignore[arg-type]
            Kinds.default(),
            Metrics(),
        )
        plane = Plane(self.context, self.exits.append)
        plane.database = self.database
        plane.consumer = self.consumer  # type: ignore[assignment]
        await plane.start()
        return plane

    def run(self, work: Callable[[Plane], Coroutine[Any, Any, None]]) -> None:
        async def all_of_it() -> None:
            plane = await self.start()
            try:
                await work(plane)
            finally:
                await plane.stop()

        asyncio.run(all_of_it())

    def close(self) -> None:
        for database in self.databases.values():
            database.close()


@pytest.fixture
def worker(tansu: str, prefix: str, tmp_path: Path) -> Iterator[Worker]:
    settings = load_settings(
        {},
        brokers=tansu,
        name=prefix,
        data_dir=tmp_path,
        event_partitions=2,
        item_partitions=1,
        commit_interval_seconds=0.1,
    )
    made = Worker(settings, tmp_path)
    yield made
    made.close()


def tps(worker: Worker) -> list[TP]:
    name = worker.settings.name
    return [TP(f"{name}-events", 0), TP(f"{name}-events", 1), TP(f"{name}-items", 0)]


def chunk(tp: TP, start: int = 0) -> Chunk:
    event = like("a", start)
    return Chunk(tp, start, start + 1, [FakeRecord(start, encode_event(event), b"a")])


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(100.0):
        while not done():
            await asyncio.sleep(0.005)


def test_partitions_are_fenced_opened_fed_and_released(worker: Worker) -> None:
    done: list[bool] = []

    async def work(plane: Plane) -> None:
        events, other, items = tps(worker)
        await plane.fence([events, other, items], 1)
        assert not plane.room(events)
        assert (plane.position(events), plane.committed(events)) == (None, None)
        await plane.open_fenced()
        assert plane.assigned
        assert set(plane.partitions) == {events, other, items}
        assert plane.room(events)
        assert plane.position(events) == plane.committed(events) == 0
        plane.accept(chunk(events), lambda: done.append(True))
        await until(lambda: plane.committed(events) == 1)
        assert plane.position(events) == 1
        assert plane.lag == 0
        plane.observe()
        rows = worker.context.metrics.registry.get_sample_value(
            "tracker_rows", {"table": "users", "partition": "0"}
        )
        assert rows == 1
        waiting = worker.context.metrics.registry.get_sample_value("tracker_waiting_bytes")
        assert waiting == sum(one.waiting_bytes for one in plane.partitions.values())
        await plane.release([events])
        assert set(plane.partitions) == {other, items}
        assert plane.committed(events) == 1
        assert plane.position(events) is None
        plane.accept(chunk(events, 1), lambda: done.append(False))

    worker.run(work)
    assert done == [True, False]
    assert worker.exits == []


def test_state_is_there_when_a_partition_comes_back(worker: Worker) -> None:
    async def work(plane: Plane) -> None:
        events, _, _ = tps(worker)
        for start in range(2):
            await plane.fence([events], start)
            await plane.open_fenced()
            assert plane.position(events) == start
            plane.accept(chunk(events, start), lambda: None)
            await until(lambda: plane.position(events) == start + 1)  # noqa: B023
            await plane.release([events])

    worker.run(work)


@pytest.mark.parametrize(("second", "new"), [(5, []), (6, ["users-0"])])
def test_producer_goes_on_if_no_generation_lies_between_two_that_the_partition_is_ours_in(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, second: int, new: list[str]
) -> None:
    begun: list[str] = []
    stopped: list[int] = []
    begin, stop = producers.fenced_producer, Committer.stop

    async def fenced(settings: Any, table: str, partition: int, transactions: bool) -> Any:
        begun.append(f"{table}-{partition}")
        return await begin(settings, table, partition, transactions)

    async def stops(committer: Committer) -> None:
        stopped.append(committer._partition)
        await stop(committer)

    monkeypatch.setattr(plane_module, "fenced_producer", fenced)
    monkeypatch.setattr(Committer, "stop", stops)

    async def work(plane: Plane) -> None:
        events, other, _ = tps(worker)
        await plane.fence([events, other], 4)
        await plane.open_fenced()
        plane.accept(chunk(events), lambda: None)
        await until(lambda: plane.position(events) == 1)
        await plane.release([events, other])
        begun.clear()
        assert stopped == []
        await plane.fence([events], second)
        assert begun == new
        assert sorted(stopped) == [0] * len(new) + [1]
        await plane.open_fenced()
        plane.accept(chunk(events, 1), lambda: None)
        await until(lambda: plane.committed(events) == 2)

    worker.run(work)
    assert worker.exits == []
    assert sorted(stopped) == [0] * (1 + len(new)) + [1]  # the last one at the end


def test_producer_does_not_go_on_if_users_have_keys(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    begin = producers.fenced_producer

    async def fenced(settings: Any, table: str, partition: int, transactions: bool) -> Any:
        begun.append(f"{table}-{partition}")
        return await begin(settings, table, partition, transactions)

    monkeypatch.setattr(plane_module, "fenced_producer", fenced)

    async def work(plane: Plane) -> None:
        events, _, _ = tps(worker)
        settings = worker.settings.model_copy(update={"user_keys": True})
        plane._context = replace(plane._context, settings=settings)
        for generation in (1, 2):
            await plane.fence([events], generation)
            await plane.release([events])

    worker.run(work)
    assert begun == ["users-0", "users-0"]  # its transaction is complete in the topic of keys


def test_assignment_of_nothing_is_an_assignment(worker: Worker) -> None:
    async def work(plane: Plane) -> None:
        await plane.open_fenced()
        assert plane.assigned

    worker.run(work)


def test_position_of_another_topic_ends_the_worker_with_one_line(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(plane: Plane) -> None:
        events, _, _ = tps(worker)
        worker.database("users", 0).put(
            b"p",
            b'{"format":1,"position":0,"topic":"x","topic_id":"","partitions":9}',
        )
        await plane.fence([events], 1)
        await plane.open_fenced()

    worker.run(work)
    assert worker.exits == [1]
    assert "the worker stops: topic " in caplog.text
    assert "Traceback" not in caplog.text


def test_records_that_retention_has_deleted_are_counted(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(plane: Plane) -> None:
        events, _, _ = tps(worker)
        await plane.fence([events], 1)
        await plane.open_fenced()
        await plane.release([events])
        worker.consumer.begin = 30
        await plane.fence([events], 2)
        await plane.open_fenced()

    worker.run(work)
    assert "retention deleted 30 records" in caplog.text
    skipped = worker.context.metrics.registry.get_sample_value("tracker_skipped_offsets_total")
    assert skipped == 30


def test_broker_that_is_away_while_fencing_ends_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(producers, "UNREACHABLE_SECONDS", 0.2)
    monkeypatch.setattr(producers, "RETRY_SECONDS", 0.1)
    settings = load_settings({}, brokers="127.0.0.1:1", name="t", data_dir=tmp_path)
    serving = make_serving(small_artifact(), settings)
    exits: list[int] = []
    context = Context(
        settings,
        small_cluster(settings),
        FakeKeeper(serving),  # type: ignore[arg-type]
        Kinds.default(),
        Metrics(),
    )

    async def work() -> None:
        plane = Plane(context, exits.append)
        await plane.fence([TP("t-events", 0)], 1)
        await plane.stop()

    asyncio.run(work())
    assert exits == [1]
    assert "the producer t-users-0 cannot start" in caplog.text


def test_bug_ends_the_worker_once_with_its_traceback(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(plane: Plane) -> None:
        plane.fatal(ZeroDivisionError("a bug"))
        plane.fatal(FencedError("another"))

    worker.run(work)
    assert worker.exits == [1]
    assert "because of a bug" in caplog.text
    assert "ZeroDivisionError: a bug" in caplog.text


@pytest.mark.parametrize("named", ["the brokers do not allow Write on topic t-items", ""])
def test_denial_ends_the_worker_by_the_name_of_the_right_and_not_as_a_bug(
    worker: Worker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setattr(plane_module, "denied_now", lambda *_: named)

    async def work(plane: Plane) -> None:
        plane.fatal(TopicAuthorizationFailedError("t-items"))

    worker.run(work)
    assert worker.exits == [1]
    assert (named or "do not allow it ([Error 29] TopicAuthorizationFailedError") in caplog.text
    assert "bug" not in caplog.text
    assert "Traceback" not in caplog.text


def test_refusal_ends_the_worker_without_a_traceback(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(plane: Plane) -> None:
        plane.fatal(PositionError("run `tracker reset-state`"))

    worker.run(work)
    assert "the worker stops: run `tracker reset-state`" in caplog.text
    assert "Traceback" not in caplog.text


def test_partition_that_cannot_close_keeps_no_other_from_its_last_commit(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(plane: Plane) -> None:
        events, other, _ = tps(worker)
        await plane.fence([events, other], 1)
        await plane.open_fenced()
        plane.accept(chunk(other), lambda: None)
        await until(lambda: plane.position(other) == 1)
        exits_at: list[int | None] = []

        async def fails() -> None:
            raise ZeroDivisionError("a bug")

        plane.partitions[events].close = fails  # type: ignore[method-assign]
        plane._on_exit = lambda status: exits_at.append(plane.committed(other))
        late = plane.partitions[other]
        close = late.close

        async def closes_late() -> None:
            await asyncio.sleep(0.2)
            await close()
            plane._committed[other] = late.store.committed or 0

        late.close = closes_late  # type: ignore[method-assign]
        await plane.release([events, other])
        assert exits_at == [1]  # the other one was committed when the worker ended

    worker.run(work)
    assert "ZeroDivisionError: a bug" in caplog.text


def test_step_of_stopping_that_fails_or_hangs_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plane_module, "STOP_SECONDS", 0.05)

    async def fails() -> None:
        raise ZeroDivisionError("a bug")

    async def work() -> None:
        await finish("one", fails())
        await finish("two", asyncio.Event().wait())

    asyncio.run(work())
    assert [text.split(" did not close")[0] for text in caplog.messages] == ["one", "two"]


def test_task_that_dies_ends_the_worker_with_its_name(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(plane: Plane) -> None:
        plane.task_died("the feed of items", ZeroDivisionError("a bug"))

    worker.run(work)
    assert worker.exits == [1]
    assert "the feed of items has ended: a bug" in caplog.text


def test_ends_of_events_come_from_fetches_or_from_the_brokers(worker: Worker) -> None:
    async def work(plane: Plane) -> None:
        ends = plane._ends
        assert (ends.reaches(0, 4), ends.reaches(0, 5), ends.reaches(1, 0)) == (True, False, False)
        worker.consumer.end = 30
        await ends.refresh()
        assert (ends.end(0), ends.end(1)) == (30, 30)

    worker.run(work)


def test_partition_that_waits_is_no_reason_to_restart(worker: Worker) -> None:
    async def work(plane: Plane) -> None:
        events, _, _ = tps(worker)
        await plane.fence([events], 1)
        await plane.open_fenced()
        partition = plane.partitions[events]
        partition._accepted[events.topic] = 7
        assert (plane.lag, plane.waiting) == (7, [])
        partition.waits_for = "a newer row"
        assert (plane.lag, plane.waiting) == (0, [f"{partition.name} waits: a newer row"])

    worker.run(work)


def commit_event(worker: Worker, then: Callable[[Any], None]) -> None:
    """Commit one event of partition 0, change its database, and open it again."""

    async def work(plane: Plane) -> None:
        events, _, _ = tps(worker)
        await plane.fence([events], 1)
        await plane.open_fenced()
        plane.accept(chunk(events), lambda: None)
        await until(lambda: plane.committed(events) == 1)
        await plane.release([events])
        then(worker.database("users", 0))
        await plane.fence([events], 2)
        await plane.open_fenced()
        if not worker.exits:
            assert plane.position(events) == 1

    worker.run(work)


def test_damaged_position_of_the_disk_is_read_again_from_the_changelog(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    commit_event(worker, lambda database: database.put(b"p", b"garbage!"))
    assert worker.exits == []
    assert "the position record was damaged, and is read again" in caplog.text


def test_position_damaged_in_the_changelog_too_is_found_by_the_rows_of_the_users(
    worker: Worker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*arguments: Any) -> dict[bytes, Any]:
        return {}

    monkeypatch.setattr(plane_module, "stored_rows", nothing)
    commit_event(worker, lambda database: database.put(b"p", b"garbage!"))
    assert worker.exits == []
    assert "goes on from offset 1, by the rows of its users" in caplog.text


def test_position_that_nothing_tells_ends_the_worker_with_the_remedy(
    worker: Worker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*arguments: Any) -> dict[bytes, Any]:
        return {}

    def spoil(database: Any) -> None:
        database.put(b"p", b"garbage!")
        database.delete(b"ua")

    monkeypatch.setattr(plane_module, "stored_rows", nothing)
    commit_event(worker, spoil)
    assert worker.exits == [1]
    assert "the position record cannot be read" in caplog.text


def test_partitions_that_were_assigned_anew_while_they_were_opened_are_opened_by_the_later_call(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(plane: Plane) -> None:
        mine = tps(worker)
        await plane.fence(mine, 1)
        describe = cluster.describe_topics

        async def rebalanced(settings: Settings) -> Any:
            monkeypatch.setattr(plane_module, "describe_topics", describe)
            await plane.release(mine)
            await plane.fence(mine, 2)
            return await describe(settings)

        monkeypatch.setattr(plane_module, "describe_topics", rebalanced)
        await plane.open_fenced()
        assert dict(plane.partitions) == {}
        await plane.open_fenced()
        assert sorted(plane.partitions) == sorted(mine)

    worker.run(work)
    assert worker.exits == []


def test_partition_that_was_revoked_while_its_damaged_position_was_read_is_not_opened(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(plane: Plane) -> None:
        events, _, _ = tps(worker)
        await plane.fence([events], 1)
        await plane.open_fenced()
        await plane.release([events])
        worker.database("users", 0).put(b"p", b"garbage!")

        async def revoked(*arguments: Any) -> Any:
            await plane.release([events])
            return await stored_rows(*arguments)

        await plane.fence([events], 2)
        monkeypatch.setattr(plane_module, "stored_rows", revoked)
        await plane.open_fenced()
        assert dict(plane.partitions) == {}

    worker.run(work)
    assert worker.exits == []
