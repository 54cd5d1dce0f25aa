"""A forgotten user is gone from states and items, late events are dropped, and it is exact."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.plane_world import NOW, FakeRecord, Make, WorkerState, like, lists
from tracker.events.wire import hash_id
from tracker.items.states import ItemStates
from tracker.kafka.forget import AUDIT_PREFIX, Audit, ForgetRequest, PendingForget
from tracker.kafka.outbox import Record
from tracker.kernels.row_bytes import FORGOTTEN_PREFIX, item_key, keys_of_user

ADA_EVENTS = [like("ada", item, time=NOW - 50 + item) for item in range(6)]
BOB_EVENTS = [like("bob", item, time=NOW - 49 + item) for item in (2, 0, 4, 3)]


class FakeFeed:
    """Requests of partition 0."""

    def __init__(self) -> None:
        self.requests: list[PendingForget] = []

    def ask(self, user: str, at: float = NOW, everywhere: bool = True) -> None:
        value = ForgetRequest(f"r{len(self.requests)}", 0.0, everywhere)
        offset = len(self.requests)
        self.requests.append(PendingForget(user.encode(), offset, at, value))

    def pending(self, partition: int, applied: int) -> list[PendingForget]:
        return [request for request in self.requests if request.offset > applied]


def with_feed(worker: WorkerState) -> FakeFeed:
    feed = FakeFeed()
    worker.context = replace(worker.context, forget_feed=feed)  # type: ignore[arg-type]
    worker.restart()
    return feed


@pytest.fixture
def other(make: Make) -> WorkerState:
    return make()


def apply_requests(worker: WorkerState) -> None:
    while worker.users.has_requests():
        worker.users.apply_request()


def to_items(worker: WorkerState, outgoing: list[Record], at: list[int]) -> None:
    """Give blocks of item events to the item side, as the topic does."""
    blocks = [r for r in outgoing if r.topic == "t-items" and r.partition == 0]
    records = [FakeRecord(at[0] + number, r.value) for number, r in enumerate(blocks)]
    at[0] += len(records)
    assert worker.items.process(records, at[0]) == []


def item_states(worker: WorkerState) -> dict[int, Any]:
    worker.commit(worker.items)
    rows = {}
    for item in range(6):
        key = item_key(hash_id(f"i{item}"))
        row = worker.databases["items"].get(key)
        if row is not None:
            states = ItemStates(1)
            states.unpack(np.zeros(1, int), [row])
            rows[item] = states
    return rows


def test_items_are_as_if_the_forgotten_user_had_never_come(
    worker: WorkerState, other: WorkerState
) -> None:
    feed, at, there = with_feed(worker), [0], [0]
    worker.send(*ADA_EVENTS[:3], *BOB_EVENTS, *ADA_EVENTS[3:])
    to_items(worker, worker.commit(), at)
    feed.ask("ada")
    apply_requests(worker)
    to_items(worker, worker.commit(), at)
    other.send(*BOB_EVENTS)
    to_items(other, other.commit(), there)
    mine, expected = item_states(worker), item_states(other)
    assert len(expected) > 1
    for item, states in expected.items():
        head, wanted = mine[item].head[0], states.head[0]
        assert head["positives"] == wanted["positives"]
        counts = mine[item].counted[0]["count"]
        assert counts == pytest.approx(states.counted[0]["count"], abs=1e-6)
        n = int(wanted["n_neighbours"])
        assert head["n_neighbours"] == n
        near = [np.sort(s.neighbours[0, :n], order="item") for s in (mine[item], states)]
        assert near[0]["item"].tolist() == near[1]["item"].tolist()
        assert near[0]["together"] == pytest.approx(near[1]["together"], abs=1e-6)
        assert near[0]["pairs"].tolist() == near[1]["pairs"].tolist()


def test_no_record_of_the_database_has_the_id_and_the_audit_has_not_either(
    worker: WorkerState,
) -> None:
    feed = with_feed(worker)
    for number in range(12):  # more than the ring holds: there is a seen set
        worker.send(like("ada-lovelace", number, time=NOW - 50 + number))
    worker.commit()
    assert worker.databases["users"].get(b"sada-lovelace") is not None
    feed.ask("ada-lovelace")
    apply_requests(worker)
    outgoing = worker.commit()
    rows: Any = worker.databases["users"]
    assert [key for key, value in rows.items() if b"ada-lovelace" in key + value] == []
    mine = [record for record in outgoing if record.topic == "t-forget"]
    end = next(record for record in mine if record.value is None)
    assert (end.key, end.partition) == (b"ada-lovelace", 0)
    (audit,) = [record for record in mine if record.value is not None]
    assert b"ada" not in (audit.value or b"") + (audit.key or b"")
    told = msgspec.json.decode(audit.value or b"")
    head = (told["events_taken_out"], told["events_left"], told["was_known"])
    assert (head[0] + head[1], head[2]) == (12, True)
    assert worker.users.lookup.find("ada-lovelace") is None
    worker.users.sweep()
    assert "ada-lovelace" not in worker.users.store.arena


def test_the_audit_says_when_it_was_complete_and_not_when_it_was_asked_for_or_begun(
    worker: WorkerState,
) -> None:
    feed = with_feed(worker)
    worker.send(*ADA_EVENTS)
    worker.commit()
    feed.ask("ada", NOW - 10)
    apply_requests(worker)
    worker.restart()  # a crash before the commit: it was not complete
    worker.now += 60
    apply_requests(worker)
    audits = [r.value for r in worker.commit() if (r.key or b"").startswith(AUDIT_PREFIX)]
    (audit,) = [msgspec.json.decode(value or b"", type=Audit) for value in audits]
    assert (audit.requested_at, audit.completed_at) == (NOW - 10, NOW + 60)
    worker.now += 60
    assert [r for r in worker.commit() if (r.key or b"").startswith(AUDIT_PREFIX)] == []


def test_late_events_are_dropped_and_later_ones_begin_from_nothing(worker: WorkerState) -> None:
    feed = with_feed(worker)
    worker.send(*ADA_EVENTS)
    worker.commit()
    feed.ask("ada", NOW - 10)
    apply_requests(worker)
    worker.commit()
    worker.restart()
    sent = worker.send(like("ada", 7, time=NOW - 11), like("bob", 7, time=NOW - 11))
    assert [one.user_id for one in lists(sent)] == ["bob"]
    assert worker.count("forgotten_events") == 1
    worker.send(like("ada", 8, time=NOW - 9))
    assert worker.head("ada", "events") == 1
    assert worker.head("ada", "n_ring") == 1
    worker.commit()
    worker.restart()
    assert worker.head("ada", "events") == 1


def test_a_user_who_returns_before_the_commit_has_no_event_of_before(worker: WorkerState) -> None:
    feed = with_feed(worker)
    worker.send(*[like("ada", n, time=NOW - 50 + n) for n in range(12)])
    worker.commit()
    feed.ask("ada", NOW - 10)
    apply_requests(worker)
    worker.send(like("ada", 9, time=NOW))
    worker.commit()
    worker.restart()
    assert worker.head("ada", "events") == 1
    assert worker.databases["users"].get(b"sada") is None


def test_a_crash_before_the_commit_forgets_again_and_one_after_it_does_not(
    worker: WorkerState,
) -> None:
    feed = with_feed(worker)
    worker.send(*ADA_EVENTS)
    worker.commit()
    feed.ask("ada", NOW - 10)
    apply_requests(worker)
    worker.restart()  # a crash
    assert worker.head("ada", "events") == len(ADA_EVENTS)
    assert worker.users.has_requests()
    apply_requests(worker)
    worker.commit()
    worker.send(like("ada", 9, time=NOW))
    worker.commit()
    worker.restart()
    assert not worker.users.has_requests()  # the feed still has the request
    assert worker.head("ada", "events") == 1


def test_an_aborted_commit_keeps_the_deletion_and_writes_no_seen_set_of_others(
    worker: WorkerState,
) -> None:
    feed = with_feed(worker)
    worker.send(*ADA_EVENTS, *BOB_EVENTS)
    worker.commit()
    feed.ask("ada")
    worker.send(like("bob", 7))
    apply_requests(worker)
    worker.committer.aborts = 1
    with pytest.raises(Exception, match="not enough replicas"):
        worker.commit()
    worker.users.store.settle()
    worker.commit()
    rows = worker.databases["users"]
    assert all(rows.get(key) is None for key in keys_of_user("ada"))
    assert rows.get(b"sbob") is None  # bob's ring has never overflowed


def test_what_is_owed_goes_too(make: Make) -> None:
    worker = make(emit_min_interval_seconds=60.0)
    feed = with_feed(worker)
    worker.send(like("ada", 1))
    worker.send(like("ada", 2), like("bob", 2))
    worker.send(like("bob", 3))
    assert worker.users.pending() == 2
    worker.commit()
    feed.ask("ada")
    apply_requests(worker)
    worker.commit()
    assert worker.users.pending() == 1
    worker.restart()
    assert worker.users.pending() == 1
    worker.now += 61
    assert [one.user_id for one in lists(worker.users.emit_due())] == ["bob"]


def test_request_to_one_partition_is_sent_on_to_the_others(worker: WorkerState) -> None:
    feed = with_feed(worker)
    feed.ask("ada", NOW - 5, everywhere=False)
    apply_requests(worker)
    sent = [r for r in worker.commit() if r.topic == "t-forget" and r.key == b"ada" and r.value]
    assert [record.partition for record in sent] == [1, 2, 3]
    value = msgspec.json.decode(sent[0].value or b"", type=ForgetRequest)
    assert (value.before, value.everywhere) == (NOW - 5, True)


def test_a_user_of_another_partition_leaves_a_hash_and_no_key(worker: WorkerState) -> None:
    feed = with_feed(worker)
    feed.ask("ada")
    apply_requests(worker)
    snapshot = worker.users.store.snapshot()
    assert [key for key, _ in snapshot.records if b"ada" in key] == []
    assert any(key.startswith(FORGOTTEN_PREFIX) for key, _ in snapshot.records)


def test_hash_is_deleted_when_its_time_is_over(worker: WorkerState) -> None:
    feed = with_feed(worker)
    feed.ask("ada")
    apply_requests(worker)
    worker.commit()
    assert worker.users.store.scan(FORGOTTEN_PREFIX) != []
    worker.now += 31 * 86400
    worker.users.sweep()
    worker.commit()
    assert worker.users.store.scan(FORGOTTEN_PREFIX) == []


def test_a_quiet_partition_writes_now_and_then_so_that_its_topics_are_compacted(
    worker: WorkerState,
) -> None:
    feed = with_feed(worker)
    feed.ask("ada")
    apply_requests(worker)
    worker.commit()
    wanted = []
    for seconds in (0, 3601):
        worker.now += seconds
        assert not worker.users.has_requests()
        wanted.append(worker.users.store.needs_commit)
    assert wanted == [False, True]
    assert [record.value for record in worker.commit()] == [None]


def test_without_transactions_the_request_ends_after_the_deletion_is_committed(
    make: Make,
) -> None:
    worker = make(transactions=False)
    feed = with_feed(worker)
    worker.send(*ADA_EVENTS)
    feed.ask("ada")
    apply_requests(worker)
    ends = [[r for r in worker.commit() if r.value is None] for _ in range(2)]
    assert ([len(one) for one in ends]) == [0, 1]
