"""ChunkConsumer: chunks without holes, sources held back alone, changelogs in bulk."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import IllegalStateError
from faust.types import TP
from rocksdict import Options, Rdict

from tests.plane_world import FakeRecord
from tracker.kafka.fetch_pace import MOST_PACE_SECONDS, SMALL_FETCH, FetchPace
from tracker.store.database import OFFSET_KEY, TIME_KEY, write_records
from tracker.stream.partition import SMALL_RECORDS, Chunk
from tracker.worker.changelog_databases import ChangelogDatabases
from tracker.worker.owner import NoOwner
from tracker.worker.transport import (
    ChunkConsumer,
    ChunkSchema,
    ChunkThread,
    RecoveryEnd,
)

EVENTS = TP("events", 0)
OTHER = TP("events", 1)
CHANGES = TP("users-changelog", 0)


class FakeOwner(NoOwner):
    """An owner whose answers a test sets."""

    def __init__(self) -> None:
        self.positions: dict[TP, int] = {}
        self.commits: dict[TP, int] = {}
        self.full: set[TP] = set()
        self.offered: list[Chunk] = []
        self.taken: set[TP] = set()

    def position(self, tp: TP) -> int | None:
        return self.positions.get(tp)

    def committed(self, tp: TP) -> int | None:
        return self.commits.get(tp)

    def take(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        self.offered += chunks
        return [chunk for chunk in chunks if chunk.tp in self.taken]

    def room(self, tp: TP) -> bool:
        return tp not in self.full


def bare() -> Any:
    """A consumer without Kafka behind it."""
    consumer: Any = object.__new__(ChunkConsumer)
    consumer._next, consumer._probed, consumer._rewind, consumer._gaps = {}, {}, {}, {}
    consumer._read_offset = {}
    consumer._acked, consumer._acked_index = defaultdict(list), defaultdict(set)
    consumer._committed_offset = defaultdict(lambda: None)
    consumer.transport = SimpleNamespace(
        chunk_records={"events": 3},
        owner=FakeOwner(),
        ends=None,
        count_unreadable=lambda table, problem: None,
        linger_seconds=None,
        pace=FetchPace(),
    )
    consumer._databases = ChangelogDatabases(lambda: consumer.app.tables, consumer.transport)
    return consumer


@dataclass
class ChangelogRecord:
    """A record of the changelog."""

    offset: int
    key: bytes | None
    value: bytes | None = b"100"
    topic: str = CHANGES.topic
    partition: int = CHANGES.partition
    timestamp: int = 0


def records(*offsets: int) -> list[FakeRecord]:
    return [FakeRecord(offset, b"", str(offset).encode()) for offset in offsets]


def ranges(chunks: Sequence[Chunk]) -> list[tuple[int, int, int]]:
    return [(chunk.start, chunk.end, len(chunk.records)) for chunk in chunks]


def test_records_are_cut_into_chunks_that_follow_each_other() -> None:
    consumer = bare()
    assert ranges(consumer._chunks(EVENTS, records(5, 6, 7, 8))) == [(5, 8, 3), (8, 9, 1)]
    assert ranges(consumer._chunks(EVENTS, records(9))) == [(9, 10, 1)]
    assert consumer._chunks(EVENTS, []) == []


def test_hole_inside_a_fetch_belongs_to_the_chunk_after_it() -> None:
    assert ranges(bare()._chunks(EVENTS, records(1, 2, 3, 9))) == [(1, 4, 3), (4, 10, 1)]


def test_first_offset_past_the_expected_one_is_sought_once_and_then_believed() -> None:
    consumer = bare()
    consumer._next[EVENTS] = 5
    assert consumer._chunks(EVENTS, records(8)) == []
    assert consumer._rewind == {EVENTS: 5}
    assert ranges(consumer._chunks(EVENTS, records(8))) == [(5, 9, 1)]


@pytest.mark.parametrize(
    ("begin", "deleted"),
    [(0, []), (5, []), (9, [(EVENTS, 5, 4)]), (12, [(EVENTS, 5, 7)]), (99, [(EVENTS, 5, 7)])],
)
def test_records_that_retention_deleted_while_the_worker_ran_are_reported(
    begin: int, deleted: list[tuple[TP, int, int]]
) -> None:
    consumer = bare()
    reported: list[tuple[TP, int, int]] = []
    consumer.transport.report_deleted = lambda *place: reported.append(place)

    async def earliest(*tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, begin)

    consumer.earliest_offsets = earliest
    consumer._next[EVENTS] = consumer._probed[EVENTS] = 5
    ((_, message),) = fetched(consumer, {EVENTS: records(12)})
    assert ranges([message.value]) == [(5, 13, 1)]
    assert reported == deleted


def test_the_marker_of_a_transaction_is_no_gap_to_ask_about() -> None:
    consumer = bare()
    consumer._next[EVENTS] = consumer._probed[EVENTS] = 5
    assert len(fetched(consumer, {EVENTS: records(7)})) == 1  # it has no earliest_offsets


def test_records_that_were_handed_over_before_are_left_out() -> None:
    consumer = bare()
    consumer._next[EVENTS] = 5
    assert consumer._chunks(EVENTS, records(1, 2)) == []
    assert ranges(consumer._chunks(EVENTS, records(3, 4, 5, 6))) == [(5, 7, 2)]


def test_records_of_a_chunk_past_a_position_are_found() -> None:
    chunk = Chunk(EVENTS, 0, 9, records(2, 4, 8))
    assert [record.offset for record in chunk.past(0)] == [2, 4, 8]
    assert [record.offset for record in chunk.past(3)] == [4, 8]
    assert list(Chunk(EVENTS, 0, 9, []).past(3)) == []


def fetched(
    consumer: Any, found: dict[TP, list[FakeRecord]], *, generation: list[int] | None = None
) -> list[tuple[TP, Any]]:
    """Run one getmany over what a fetch brought."""
    generations = iter(generation or [])

    class App:
        topics = SimpleNamespace(acks_enabled_for=lambda topic: True)

        @property
        def consumer_generation_id(self) -> int:
            return next(generations, 7)

    async def wait(timeout: float) -> Any:
        return found, set(found)

    consumer.app = App()
    consumer.flow_active = True
    consumer.scheduler = SimpleNamespace(
        iterate=lambda rest: ((tp, record) for tp, many in rest.items() for record in many)
    )
    consumer._to_message = lambda tp, record: ("message", record.offset)
    consumer._wait_next_records = wait
    consumer.assignment = lambda: {EVENTS, OTHER}
    consumer._stopped = SimpleNamespace(is_set=lambda: False)
    consumer._crashed = SimpleNamespace(is_set=lambda: False)

    async def run() -> list[tuple[TP, Any]]:
        return [pair async for pair in consumer.getmany(1.0)]

    return asyncio.run(run())


def test_partitions_take_turns_and_other_topics_come_as_they_are() -> None:
    consumer = bare()
    found = fetched(
        consumer,
        {EVENTS: records(0, 1, 2, 3), OTHER: records(5), TP("replies", 0): records(9)},
    )
    assert [(tp.partition, message.value.start) for tp, message in found[:3]] == [
        (0, 0), (1, 5), (0, 3),
    ]  # fmt: skip
    assert found[3][1] == ("message", 9)
    assert consumer._read_offset[EVENTS] == 3


def test_new_generation_ends_a_fetch() -> None:
    found = fetched(bare(), {EVENTS: records(0, 1, 2, 3)}, generation=[7, 7, 7, 8])
    assert len(found) == 1
    consumer = bare()
    consumer.transport.owner.taken = {EVENTS}
    assert fetched(consumer, {EVENTS: records(0)}, generation=[7, 8]) == []
    assert consumer.transport.owner.offered == []


def test_recovery_that_has_ended_before_is_no_end_of_the_next_one() -> None:
    lacking = [5]

    async def go() -> None:
        end = RecoveryEnd(lambda: bool(lacking))
        end.set()  # of the rebalance before
        waiting = asyncio.create_task(end.wait())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not waiting.done()
        lacking.clear()
        end.set()
        assert await waiting

    asyncio.run(go())


def test_rewinding_seeks_before_the_next_fetch() -> None:
    consumer = bare()
    sought: list[tuple[TP, int]] = []

    async def seek(offsets: dict[TP, int]) -> None:
        sought.extend(offsets.items())

    consumer._seek_all = seek
    consumer.rewind(EVENTS, 4)
    consumer.rewind(TP("events", 9), 4)  # not ours any more
    found = fetched(consumer, {EVENTS: records(4)})
    assert sought == [(EVENTS, 4)]
    assert found[0][1].value.start == 4


def test_only_sources_without_room_are_left_out_of_a_fetch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[set[TP], float]] = []

    async def getmany(self: Any, active: set[TP], timeout: float) -> dict[TP, Any]:
        asked.append((active, timeout))
        return {}

    monkeypatch.setattr("faust.transport.drivers.aiokafka.Consumer._getmany", getmany)
    consumer = bare()
    consumer.transport.owner.full = {EVENTS}
    consumer._room = asyncio.Event()
    asyncio.run(consumer._getmany({EVENTS, OTHER, CHANGES}, 1.0))
    asyncio.run(consumer._getmany({OTHER}, 1.0))
    asyncio.run(consumer._getmany({EVENTS}, 1.0))
    assert asked[0][0] == {OTHER, CHANGES}
    assert asked[0][1] < 0.1
    assert asked[1] == ({OTHER}, 1.0)
    assert len(asked) == 2


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Rdict]:
    """Open a database; it is closed before its folder goes, which takes a second else."""
    opened = Rdict(str(tmp_path / "db"), options=Options(raw_mode=True))
    yield opened
    opened.close()


class Table:
    """A table whose database keeps what is written."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.data = SimpleNamespace(_db_for_partition=lambda partition: self.database)

    @property
    def rows(self) -> dict[bytes, bytes]:
        return {key: value for key, value in self.database.items() if key != TIME_KEY}


def at(position: int, highwater: int | None = None) -> Any:
    """Return what the client knows of a partition whose next record is at a position."""
    return SimpleNamespace(position=position, has_valid_position=True, highwater=highwater)


def recovering(consumer: Any, database: Rdict, *, standby: bool = False) -> tuple[Table, Any]:
    table = Table(database)
    recovery = SimpleNamespace(
        active_tps=set() if standby else {CHANGES},
        standby_tps={CHANGES} if standby else set(),
        active_offsets={CHANGES: None},
        standby_offsets={CHANGES: 3},
        in_recovery=not standby,
        signal_recovery_end=asyncio.Event(),
        flush_buffers=lambda: None,
        need_recovery=lambda: False,
        ended=[],
    )
    recovery._set_recovery_ended = lambda: recovery.ended.append(True)
    tables = SimpleNamespace(_changelogs={CHANGES.topic: table}, recovery=recovery)
    consumer.app = SimpleNamespace(tables=tables)

    consumer._fetch_state = lambda tp: at(12)
    return table, recovery


def test_changelog_is_applied_in_bulk_and_recovery_ends_at_what_was_read(database: Rdict) -> None:
    consumer = bare()
    table, recovery = recovering(consumer, database)
    found: dict[TP, Any] = {CHANGES: records(0, 1, 9), EVENTS: records(1)}
    asyncio.run(consumer._apply_changelogs(found, {CHANGES, EVENTS}))
    assert table.rows == {b"0": b"", b"1": b"", b"9": b"", OFFSET_KEY: b"9"}
    assert CHANGES not in found
    assert EVENTS in found
    assert recovery.active_offsets[CHANGES] == 11  # offsets 10 and 11 are markers
    assert recovery.ended == [True]
    assert recovery.signal_recovery_end.is_set()


def test_record_of_a_changelog_without_a_key_of_ours_is_passed_over(
    database: Rdict, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = bare()
    table, recovery = recovering(consumer, database)
    table.name = "items"  # type: ignore[attr-defined]
    counted: list[tuple[str, str]] = []
    consumer.transport.count_unreadable = lambda *row: counted.append(row)
    odd = [ChangelogRecord(10 + at, key) for at, key in enumerate((None, b"", OFFSET_KEY))]
    asyncio.run(consumer._apply_changelogs({CHANGES: [*records(0), *odd]}, {CHANGES}))
    assert table.rows == {b"0": b"", OFFSET_KEY: b"12"}
    assert counted == [("items", "key")] * 3
    assert "users-changelog-0: passed over the row at offset 10 with key none" in caplog.text
    assert recovery.ended == [True]


def test_partition_that_a_rebalance_takes_away_meanwhile_is_neither_asked_nor_sought(
    database: Rdict,
) -> None:
    consumer = bare()
    _, recovery = recovering(consumer, database)
    consumer._fetch_state = lambda tp: None
    asyncio.run(consumer._apply_changelogs({CHANGES: records(4)}, {CHANGES}))
    assert recovery.active_offsets[CHANGES] == 4
    sought = seeks_of(consumer, without=EVENTS)
    asyncio.run(consumer._seek_all({EVENTS: 5, OTHER: 6}))
    assert sought == [(OTHER, 6)]
    assert consumer._read_offset[EVENTS] is consumer._read_offset[OTHER] is None


def seeks_of(consumer: Any, without: TP | None = None) -> list[tuple[TP, int]]:
    """Return the list to which the seeks of a consumer go; one partition is not assigned."""
    sought: list[tuple[TP, int]] = []

    def seek(tp: TP, offset: int) -> None:
        if tp == without:
            raise IllegalStateError("the partition is not assigned")
        sought.append((tp, offset))

    async def call(run: Any) -> None:
        run()

    thread = SimpleNamespace(call_thread=call)
    thread._ensure_consumer = lambda: SimpleNamespace(seek=seek)
    consumer._thread = thread
    return sought


def test_partitions_are_sought_to_their_positions_and_no_offset_of_the_group_is_asked_for() -> None:
    consumer = bare()
    consumer.assignment = lambda: {EVENTS, OTHER, CHANGES}
    consumer.transport.owner.positions = {EVENTS: 7, CHANGES: 9}
    consumer._rewind = {EVENTS: 3}
    sought = seeks_of(consumer)
    asyncio.run(consumer.perform_seek())
    assert sought == [(EVENTS, 7)]  # the other one is not open
    assert consumer._next == {EVENTS: 7}
    assert consumer._rewind == {}


def test_partitions_are_fetched_while_the_flow_is_on_and_faust_does_not_pause_them() -> None:
    consumer = bare()
    plans: list[bool] = []
    consumer._thread = SimpleNamespace(plan_again=lambda: plans.append(True))
    consumer._active_partitions, consumer._paused_partitions = {EVENTS}, {OTHER}
    consumer.can_resume_flow, consumer.suspend_flow = asyncio.Event(), asyncio.Event()
    consumer.stop_flow()
    assert not consumer.fetches(EVENTS)
    consumer.resume_flow()
    assert (consumer.fetches(EVENTS), consumer.fetches(OTHER)) == (True, False)
    consumer.resume_partitions({OTHER})
    assert consumer.fetches(OTHER)
    assert len(plans) == 2


def test_fetch_waits_for_records_a_shorter_time_during_a_rebalance() -> None:
    consumer = bare()
    consumer.app = SimpleNamespace(rebalancing=False)
    calm = consumer.fetch_wait()
    consumer.app.rebalancing = True
    assert consumer.fetch_wait() < calm


@pytest.mark.parametrize(("in_recovery", "most"), [(False, 0.1), (True, 0.01)])
def test_recovery_does_not_wait_for_records_where_only_a_marker_is_left(
    monkeypatch: pytest.MonkeyPatch, in_recovery: bool, most: float
) -> None:
    waits: list[float] = []

    async def wait(self: Any, timeout: float) -> Any:
        waits.append(timeout)
        return None, None

    monkeypatch.setattr("faust.transport.drivers.aiokafka.Consumer._wait_next_records", wait)
    consumer = bare()
    consumer.app = SimpleNamespace(in_recovery=in_recovery)
    consumer.flow_active, consumer._active_partitions = True, {CHANGES}
    asyncio.run(consumer._wait_next_records(1.0))
    assert waits == [most]


def test_standby_is_kept_up_to_date_the_same_way(database: Rdict) -> None:
    consumer = bare()
    table, recovery = recovering(consumer, database, standby=True)
    asyncio.run(consumer._apply_changelogs({CHANGES: records(4)}, {CHANGES}))
    assert table.rows == {b"4": b"", OFFSET_KEY: b"4"}
    assert recovery.standby_offsets[CHANGES] == 11
    assert recovery.ended == []


def test_database_knows_up_to_when_it_has_all_changes(
    database: Rdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_800_000_000.0
    monkeypatch.setattr("tracker.worker.changelog_databases.time.time", lambda: now)
    consumer = bare()
    table, _ = recovering(consumer, database)
    consumer._fetch_state = lambda tp: at(12, 13)
    asyncio.run(consumer._apply_changelogs({CHANGES: records(4)}, {CHANGES}))
    assert float(table.database.get(TIME_KEY)) == records(4)[0].timestamp / 1000  # not at its end
    consumer._fetch_state = lambda tp: at(12, 12)
    asyncio.run(consumer._apply_changelogs({CHANGES: records(5)}, {CHANGES}))
    assert float(table.database.get(TIME_KEY)) == now


def test_database_that_was_away_for_longer_than_deletions_are_kept_is_read_again(
    database: Rdict, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = bare()
    table, _ = recovering(consumer, database)
    consumer.transport.tombstone_seconds = 86400.0
    for age, is_emptied in ((80_000.0, False), (90_000.0, True)):
        write_records(table.database, [(b"ua", b"1")], 7, time.time() - age)
        consumer._databases.empty_old([CHANGES, EVENTS])
        assert (table.database.get(OFFSET_KEY) is None) == is_emptied
        assert (table.database.get(b"ua") is None) == is_emptied
    assert "read again from the begin" in caplog.text


def test_changelog_that_is_nobodys_is_passed_over(database: Rdict) -> None:
    consumer = bare()
    table, recovery = recovering(consumer, database)
    recovery.active_tps = set()
    recovery.in_recovery = False
    asyncio.run(consumer._apply_changelogs({CHANGES: records(4)}, {CHANGES}))
    assert table.rows == {}


def test_group_offset_is_that_of_the_last_commit_and_never_goes_back() -> None:
    consumer = bare()
    assert consumer._new_offset(EVENTS) is None
    consumer.transport.owner.commits[EVENTS] = 8
    consumer._acked[EVENTS].append(99)
    assert consumer._new_offset(EVENTS) == 8
    assert consumer._acked[EVENTS] == []
    consumer._committed_offset[EVENTS] = 8
    assert consumer._new_offset(EVENTS) is None


def test_offsets_not_fetched_are_told_once_they_are_known() -> None:
    consumer = bare()
    consumer._thread = SimpleNamespace(_consumer=None)
    assert consumer.unread(EVENTS) is None
    assert consumer.fetched_end(EVENTS) is None
    state = SimpleNamespace(highwater=10, lso=10, position=4, has_valid_position=True)
    assignment = SimpleNamespace(tps={EVENTS}, state_value=lambda tp: state)
    inner = SimpleNamespace(
        _subscription=SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))
    )
    consumer._thread = SimpleNamespace(_consumer=inner)
    assert consumer.unread(EVENTS) == 6
    assert consumer.held_back(EVENTS) == consumer.held_back(OTHER) == (0, 0)
    state.lso = 7  # a transaction that is not finished begins there
    assert consumer.unread(EVENTS) == 3
    assert consumer.held_back(EVENTS) == (7, 3)
    state.lso = None  # an old broker does not tell
    assert consumer.unread(EVENTS) == 6
    assert consumer.unread(OTHER) is None
    state.highwater = None
    assert consumer.unread(EVENTS) is None
    assert consumer.held_back(EVENTS) == (0, 0)


def test_ends_of_logs_come_from_where_they_can_be_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer(self: Any, *tps: TP) -> dict[TP, int]:
        return dict.fromkeys(tps, 1)

    async def ends(tps: Sequence[TP]) -> dict[TP, int]:
        return dict.fromkeys(tps, 50)

    monkeypatch.setattr("faust.transport.drivers.aiokafka.Consumer.highwaters", answer)
    consumer = bare()
    consumer.app = SimpleNamespace(tables=SimpleNamespace(_changelogs={}))
    assert asyncio.run(consumer.highwaters(EVENTS)) == {EVENTS: 1}
    consumer.transport.ends = ends
    assert asyncio.run(consumer.highwaters(EVENTS)) == {EVENTS: 50}


def test_end_of_a_changelog_waits_for_the_marker_of_the_last_commit(
    database: Rdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = bare()
    table, _ = recovering(consumer, database)
    write_records(table.database, [(b"a", b"1")], 7)
    answers = [3, 3, 9]

    async def ends(tps: Sequence[TP]) -> dict[TP, int]:
        return {CHANGES: answers.pop(0) if len(answers) > 1 else answers[0], EVENTS: 0}

    consumer.transport.ends = ends
    assert asyncio.run(consumer.highwaters(CHANGES, EVENTS)) == {CHANGES: 9, EVENTS: 0}
    monkeypatch.setattr("tracker.worker.transport.MARKER_SECONDS", 0.02)
    answers[:] = [3]  # it has lost records: Faust is told, and ends the worker
    assert asyncio.run(consumer.highwaters(CHANGES)) == {CHANGES: 3, EVENTS: 0}


def test_schema_hands_chunks_over_as_they_are() -> None:
    chunk = Chunk(EVENTS, 0, 1, records(0))
    schema: Any = ChunkSchema(allow_empty=True)
    message = SimpleNamespace(value=chunk)
    assert schema.loads_value(None, message) is chunk
    assert schema.loads_key(None, message) is None


def test_transport_without_an_owner_holds_nothing_back() -> None:
    owner = NoOwner()
    assert owner.room(EVENTS)
    assert (owner.position(EVENTS), owner.committed(EVENTS)) == (None, None)
    asyncio.run(owner.fence([EVENTS], 1))
    asyncio.run(owner.release([EVENTS]))
    assert owner.take([Chunk(EVENTS, 0, 1, records(0))]) == []


FETCHES: list[dict[TP, list[FakeRecord]]] = [
    {EVENTS: records(1)},
    {EVENTS: records(1), CHANGES: records(2)},  # of a recovery or a standby
    {CHANGES: records(2)},
    {EVENTS: records(*range(SMALL_FETCH))},
]


def test_fetch_that_brought_few_events_lets_the_next_one_wait() -> None:
    consumer = bare()
    consumer.unread, consumer.assignment = lambda tp: 0, lambda: {EVENTS, CHANGES}
    consumer.transport.linger_seconds = 0.5
    waits = []
    for brought in FETCHES:
        consumer._set_pace(brought)
        waits.append(consumer.transport.pace.seconds)
    assert waits == [0.5, 0.0, 0.0, 0.0]


def test_fetch_does_not_wait_while_many_records_are_not_fetched_yet() -> None:
    consumer = bare()
    consumer.transport.linger_seconds = 0.5
    consumer.assignment = lambda: {EVENTS, CHANGES}
    waits = []
    for unread in (0, None, SMALL_FETCH - 2, SMALL_FETCH - 1):
        consumer.unread = lambda tp, unread=unread: unread
        consumer._set_pace({EVENTS: records(1)})
        waits.append(consumer.transport.pace.seconds)
    assert waits == [0.5, 0.5, 0.5, 0.0]


def test_next_fetch_waits_twice_as_long_as_the_loop_works_for_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    consumer = bare()
    consumer.unread, consumer.assignment = lambda tp: 0, lambda: {EVENTS, CHANGES}
    clock = iter([0.0, *(0.002 * n for n in range(1, 100)), 1.0, 2.0])
    monkeypatch.setattr("tracker.kafka.fetch_pace.time.thread_time", lambda: next(clock))
    for _ in range(100):
        consumer._set_pace({EVENTS: records(1)})
    assert consumer.transport.pace.seconds == pytest.approx(0.004, rel=1e-3)
    consumer._set_pace({})  # the work of a commit is none of a fetch
    assert consumer.transport.pace.seconds == pytest.approx(0.004, rel=1e-3)
    consumer._set_pace({EVENTS: records(1)})
    assert consumer.transport.pace.seconds == MOST_PACE_SECONDS


def test_small_chunks_that_the_owner_takes_do_not_go_through_faust() -> None:
    consumer = bare()
    consumer.transport.chunk_records = {"events": 1000}
    consumer.transport.owner.taken = {EVENTS}
    large = TP("events", 2)
    found = fetched(
        consumer,
        {EVENTS: records(1, 2), OTHER: records(5), large: records(*range(SMALL_RECORDS + 1))},
    )
    assert [chunk.tp for chunk in consumer.transport.owner.offered] == [EVENTS, OTHER]
    assert [tp for tp, _ in found] == [OTHER, large]
    assert consumer._read_offset[EVENTS] == 2
    consumer.transport.owner.commits = {EVENTS: 3}
    committed = {tp: consumer._new_offset(tp) for tp in consumer._filter_tps_with_pending_acks()}
    assert committed == {EVENTS: 3}  # the group's offset goes on without Faust's acks


def test_chunks_of_one_fetch_that_are_cut_are_not_offered_as_small_ones() -> None:
    consumer = bare()
    fetched(consumer, {EVENTS: records(1, 2, 3, 4)})  # chunks of three records
    assert consumer.transport.owner.offered == []


def test_consumer_that_cannot_be_stopped_without_a_broker_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(self: Any) -> None:
        raise asyncio.CancelledError

    base = "faust.transport.drivers.aiokafka.AIOKafkaConsumerThread.on_thread_stop"
    monkeypatch.setattr(base, fail)
    thread: Any = object.__new__(ChunkThread)
    asyncio.run(thread.on_thread_stop())
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "the consumer did not close"
    ]
