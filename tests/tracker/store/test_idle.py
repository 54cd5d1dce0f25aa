"""IdleSweep: states without an event for the stated time end, and only those."""

import asyncio
from contextlib import suppress

import pytest

from tests.plane_world import NOW, FakeRecord, Make, WorkerState, like
from tracker.events.wire import Event, hash_id
from tracker.store import idle
from tracker.store.committer import CommitAbortedError

DAY = 86400.0


def sweep(worker: WorkerState) -> None:
    worker.users.sweep()
    worker.commit()


def kept(worker: WorkerState) -> set[str]:
    return {key[1:].decode() for key, _ in worker.users.store.scan(b"u")}


def test_user_who_was_idle_for_too_long_ends_with_all_rows(make: Make) -> None:
    worker = make(state_idle_days=30.0)
    worker.send(*(like("old", n % 40, time=NOW - 40 * DAY) for n in range(30)))
    worker.send(like("young", 1, time=NOW - 20 * DAY))
    worker.commit()
    assert [key for key, _ in worker.users.store.scan(b"s")] == [b"sold"]
    worker.send(like("now", 2, time=NOW))
    sweep(worker)
    assert kept(worker) == {"young", "now"}
    assert worker.users.store.scan(b"s") == []
    assert worker.count("deleted_states", table="users") == 1
    worker.restart()
    assert worker.users.lookup.find("old") is None


def test_nothing_ends_where_no_time_is_stated(make: Make) -> None:
    worker = make()
    worker.send(like("old", 1, time=NOW - 4000 * DAY), like("now", 1))
    worker.commit()
    sweep(worker)
    assert kept(worker) == {"old", "now"}


def test_user_who_comes_back_beside_the_deletion_stays(make: Make) -> None:
    worker = make(state_idle_days=30.0)
    worker.send(like("old", 1, time=NOW - 40 * DAY))
    worker.commit()
    worker.send(like("now", 2, time=NOW))
    worker.users.sweep()
    worker.send(like("old", 3, time=NOW))
    worker.commit()
    assert kept(worker) == {"old", "now"}
    worker.restart()
    assert worker.head("old", "last_time") == NOW


def test_row_in_memory_that_is_newer_than_the_database_stays(make: Make) -> None:
    worker = make(state_idle_days=30.0)
    worker.send(like("old", 1, time=NOW - 40 * DAY))
    worker.commit()
    worker.send(like("old", 2, time=NOW))
    worker.users.sweep()
    assert worker.count("deleted_states", table="users") == 0
    worker.commit()
    assert kept(worker) == {"old"}


def test_sweep_goes_round_in_parts(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "SWEEP_RECORDS", 2)
    worker = make(state_idle_days=30.0)
    worker.users.sweep()  # nothing there yet
    worker.send(*(like(f"u{n}", n, time=NOW - 40 * DAY) for n in range(5)))
    worker.commit()
    worker.send(like("now", 1, time=NOW))
    left = []
    for _ in range(4):
        sweep(worker)
        left.append(len(kept(worker)))
    assert left == [4, 2, 1, 1]
    assert kept(worker) == {"now"}


def test_idle_items_end_too(make: Make) -> None:
    worker = make(state_idle_days=30.0)
    worker.send(like("a", 1, time=NOW - 40 * DAY), like("a", 3, time=NOW))
    values = [record.value for record in worker.commit()]
    records = [FakeRecord(at, value) for at, value in enumerate(values)]
    worker.items.process(records, len(records))
    worker.commit(worker.items)
    worker.items.sweep()
    worker.commit(worker.items)
    assert worker.items.find_item(hash_id("i1")) is None
    assert worker.items.find_item(hash_id("i3")) is not None
    assert worker.count("deleted_states", table="items") == 1


@pytest.mark.parametrize("aborted", [False, True])
def test_user_who_comes_back_while_the_deletion_is_committed_begins_again_with_all_rows(
    make: Make, aborted: bool
) -> None:
    worker = make(state_idle_days=30.0)
    worker.send(*(like("old", n % 40, time=NOW - 40 * DAY) for n in range(30)))
    worker.commit()
    worker.send(like("now", 2, time=NOW))
    worker.users.sweep()
    store = worker.users.store
    snapshot = store.snapshot()
    worker.send(like("old", 3, time=NOW))  # the database still has the old rows
    worker.committer.error = CommitAbortedError("away") if aborted else None
    with suppress(CommitAbortedError):
        asyncio.run(store.commit(snapshot, []))
    worker.committer.error = None
    store.settle()
    worker.commit()
    worker.restart()
    assert worker.head("old", "events") == 1
    assert worker.head("old", "evicted") == 0  # or its seen set would have to be there
    assert worker.users.store.read([b"sold"]) == [None]


def test_retraction_of_an_event_before_an_item_row_began_again_is_passed_over(make: Make) -> None:
    worker = make(state_idle_days=30.0)

    def to_items() -> None:
        values = [record.value for record in worker.commit()]
        at = worker.items.store.progress.position
        records = [FakeRecord(at + n, value) for n, value in enumerate(values)]
        worker.items.process(records, at + len(records))
        worker.commit(worker.items)

    worker.send(like("a", 1, time=NOW - 40 * DAY, event_id="e1"), like("b", 3, time=NOW))
    to_items()
    worker.items.sweep()
    worker.commit(worker.items)
    assert worker.items.find_item(hash_id("i1")) is None
    retraction = Event("a", None, None, NOW, retracts="e1")
    worker.send(retraction)
    to_items()
    states, slot = worker.items.find_item(hash_id("i1")) or pytest.fail("no row")
    assert states.head["positives"][slot] == 0
    worker.items.sweep()
    worker.commit(worker.items)
    assert worker.items.find_item(hash_id("i1")) is None  # a row without any event is idle
