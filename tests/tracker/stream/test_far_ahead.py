"""Events stamped far ahead: refused by the right clock, once and for all, and old harm heals."""

from collections.abc import Sequence

import numpy as np
import pytest

from tests.plane_world import (
    NOW,
    FakeRecord,
    Make,
    RunningPartition,
    WorkerState,
    like,
    lists,
    run_partition,
)
from tracker.events.arrivals import MAX_FUTURE_SECONDS
from tracker.events.item_events import decode_blocks, encode_block
from tracker.events.wire import Event, hash_id
from tracker.kafka.outbox import Record
from tracker.kernels.row_bytes import item_key
from tracker.stream.side import OpenVerdictError

CREATE, APPEND = 0, 1
FAR = 4_102_444_800.0
DAY = 86_400.0


def stamped(worker: WorkerState, kind: int, recorded: float, *events: Event) -> list[FakeRecord]:
    records = worker.records(*events)
    for record in records:
        record.timestamp, record.timestamp_type = int(recorded * 1000), kind
    return records


def process(worker: WorkerState, records: Sequence[FakeRecord]) -> list[Record]:
    """Process a chunk as a partition does: a verdict that depends on the clock is committed."""
    end = records[-1].offset + 1
    try:
        return worker.users.process(records, end)
    except OpenVerdictError:
        worker.commit()
        return worker.users.process(records, end)


def reasons(records: Sequence[Record]) -> list[tuple[int, str]]:
    """Return offset and reason of the rejections among records."""
    headers = [dict(record.headers) for record in records if record.topic == "t-rejected"]
    return [(int(one["offset"]), one["reason"].decode()) for one in headers]


@pytest.mark.parametrize("kind", [CREATE, APPEND])
def test_an_event_of_2100_is_refused_whoever_stamped_the_record(make: Make, kind: int) -> None:
    worker = make()
    worker.send(like("a", 0))
    out = process(worker, stamped(worker, kind, FAR, like("b", 1, time=FAR), like("c", 2)))
    assert reasons(out) == [(1, "future_timestamp")]
    assert [one.user_id for one in lists(out)] == ["c"]
    assert worker.users.store.progress.stream_time == NOW


def test_an_old_record_of_a_producer_does_not_limit_its_event(make: Make) -> None:
    worker = make()
    old = NOW - 10 * DAY
    assert reasons(process(worker, stamped(worker, CREATE, old, like("a", time=NOW)))) == []
    assert reasons(process(worker, stamped(worker, APPEND, old, like("a", time=NOW)))) == [
        (1, "future_timestamp")
    ]


def test_a_retraction_without_a_time_does_not_take_a_record_time_of_the_future(make: Make) -> None:
    worker = make()
    process(worker, stamped(worker, CREATE, FAR, Event("a", None, None, None, retracts="e")))
    assert worker.users.store.progress.stream_time == NOW


def test_the_latency_of_a_record_of_the_future_is_not_counted_as_nothing(make: Make) -> None:
    worker = make(emit_min_interval_seconds=10.0)
    worker.send(like("a"))
    process(worker, stamped(worker, CREATE, FAR, like("a", 1)))
    worker.now += 10.0
    (found,) = lists(worker.users.emit_due())
    assert found.latency_ms == pytest.approx(10_000.0)


@pytest.mark.parametrize("transactions", [True, False])
@pytest.mark.parametrize("shift", [1e6, -290.0])
def test_a_verdict_stays_the_same_when_the_clock_has_moved_meanwhile(
    make: Make, transactions: bool, shift: float
) -> None:
    worker = make(transactions=transactions)
    worker.send(like("z"))
    worker.commit()
    records = stamped(
        worker, CREATE, NOW, like("a", 0, time=NOW + 1000.0), like("b", 1, time=NOW + 299.0)
    )
    first = process(worker, records)
    assert reasons(first) == [(1, "future_timestamp")]
    worker.restart()  # without a commit of what was applied
    worker.now = NOW + shift
    again = worker.users.process(records, 3)
    assert reasons(again) == reasons(first)
    assert [one.user_id for one in lists(again)] == ["b"]


def test_nothing_is_changed_or_sent_before_a_verdict_is_kept(make: Make) -> None:
    worker = make()
    records = stamped(worker, CREATE, NOW, like("a"), like("b", time=FAR))
    with pytest.raises(OpenVerdictError):
        worker.users.process(records, 2)
    assert worker.users.store.progress.position == 0
    assert worker.count("rejected", reason="future_timestamp") == 0
    assert worker.users.store.needs_commit
    assert worker.users.take_outgoing() == []


def test_ordinary_records_wait_for_no_commit(make: Make) -> None:
    worker = make()
    for kind in (CREATE, APPEND):
        for recorded in (NOW - 1.0, NOW, NOW + 60.0):
            records = stamped(worker, kind, recorded, like("a", time=NOW + 5.0), like("b"))
            worker.users.process(records, worker.offset)
    assert worker.users.store.progress.clock_end == 0


def test_a_partition_keeps_the_verdict_and_goes_on(make: Make) -> None:
    worker = make()
    records = stamped(worker, CREATE, NOW, like("a"), like("b", time=FAR), like("c"))

    async def work(running: RunningPartition) -> None:
        running.accept(0, records)
        await running.applied(3)

    running = run_partition(worker, work, commit_seconds=1000.0)
    assert reasons(running.outbox.records) == [(1, "future_timestamp")]
    assert worker.users.store.progress.position == 3
    assert worker.users.store.committed == 3
    assert (worker.users.store.progress.clock, worker.users.store.progress.clock_end) == (NOW, 3)


def test_a_chunk_is_cut_where_the_kept_verdicts_end(make: Make) -> None:
    worker = make()
    ahead = NOW + 1000.0
    records = stamped(worker, CREATE, NOW, *(like(user, time=ahead) for user in "abcd"))
    with pytest.raises(OpenVerdictError):
        worker.users.process(records[:2], 2)
    worker.commit()
    worker.restart()
    worker.now = ahead  # the time has come: what was not judged yet is taken

    async def work(running: RunningPartition) -> None:
        running.accept(0, records)
        await running.applied(4)

    running = run_partition(worker, work)
    assert reasons(running.outbox.records) == [(0, "future_timestamp"), (1, "future_timestamp")]
    assert {one.user_id for one in lists(running.outbox.records)} == {"c", "d"}


def test_a_position_row_of_the_future_heals_on_opening_and_says_so_once(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make()
    worker.send(like("a", 0))
    for side in (worker.users, worker.items):
        side.store.progress.stream_time = FAR
        side.store.advance(side.store.progress.position)
        worker.commit(side)
    worker.restart()
    for side in (worker.users, worker.items):
        assert side.store.progress.stream_time == NOW
        assert side.store.needs_commit
        worker.commit(side)
    assert caplog.text.count("past the worker's clock") == 2
    worker.restart()
    assert caplog.text.count("past the worker's clock") == 2
    (found,) = lists(worker.send(like("b", 1)))
    assert found.timestamp == NOW


def test_stream_time_follows_a_clock_that_is_put_right(make: Make) -> None:
    worker = make()
    worker.now = FAR
    process(worker, stamped(worker, APPEND, FAR, like("a", time=FAR)))
    worker.now = NOW
    (found,) = lists(worker.send(like("b")))
    assert found.timestamp == NOW + MAX_FUTURE_SECONDS
    assert worker.users.store.progress.stream_time == NOW + MAX_FUTURE_SECONDS


def far_user(worker: WorkerState) -> None:
    """Let user a have an event of the future, as older versions took it."""
    worker.now = FAR
    process(worker, stamped(worker, APPEND, FAR, like("a", 0, time=FAR, event_id="e")))
    worker.now = NOW
    worker.commit()
    worker.restart()
    worker.users.take_outgoing()


def test_lists_of_a_user_of_the_future_are_made_for_now(make: Make) -> None:
    worker = make(emit_min_interval_seconds=10.0)
    far_user(worker)
    user = worker.users.lookup.find("a")
    assert user is not None
    assert user.now == NOW + MAX_FUTURE_SECONDS
    assert lists(worker.send(like("a", 1))) == []  # the last list was sent in 2100: as if now
    assert worker.users.due_at(True) == NOW + 10.0
    worker.now = NOW + 10.0
    (found,) = lists(worker.users.emit_due())
    assert found.timestamp <= worker.now + MAX_FUTURE_SECONDS


def test_an_item_event_of_the_future_is_taken_as_of_now(make: Make) -> None:
    worker = make()
    far_user(worker)
    worker.send(Event("a", None, None, NOW, retracts="e"))  # its time is that of the event
    blocks = [record.value or b"" for record in worker.commit()]
    assert decode_blocks(blocks)["time"].tolist() == [FAR]
    block = decode_blocks(blocks)
    block["sign"] = 1
    worker.items.process([FakeRecord(0, encode_block(block))], 1)
    found = worker.items.find_item(hash_id("i0"))
    assert found is not None
    states, slot = found
    for field in ("ref_time", "last_time"):
        assert states.head[field][slot] == NOW + MAX_FUTURE_SECONDS
    assert worker.items.store.progress.stream_time == NOW + MAX_FUTURE_SECONDS


def test_nobody_is_idle_by_a_stream_time_ahead_of_the_clock(make: Make) -> None:
    worker = make(state_idle_days=30.0)
    worker.send(like("a", time=NOW - 20 * DAY))
    worker.commit()
    worker.users.store.progress.stream_time = NOW + 20 * DAY
    worker.users.sweep()
    assert worker.count("deleted_states", table="users") == 0
    worker.now = NOW + 20 * DAY
    worker.users.sweep()
    assert worker.count("deleted_states", table="users") == 1


def test_an_item_of_the_future_is_not_first_in_every_trend(make: Make) -> None:
    worker = make()
    view = worker.keeper.current.view
    worker.now = FAR
    process(worker, stamped(worker, APPEND, FAR, like("a", 0, time=FAR)))
    worker.send(*(like(f"u{number}", 1) for number in range(9)))
    blocks = [FakeRecord(at, record.value) for at, record in enumerate(worker.commit())]
    worker.items.process(blocks, len(blocks))
    worker.commit(worker.items)
    items = [hash_id("i0"), hash_id("i1")]
    rows = worker.items.store.read([item_key(item) for item in items])
    view.update(rows, np.array(items, np.uint64), NOW + MAX_FUTURE_SECONDS)
    first = view.trend_rows(NOW, 0, 2)
    assert [worker.keeper.current.artifact.vectors.ids[row] for row in first] == ["i1", "i0"]
