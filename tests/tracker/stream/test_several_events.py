"""Several events in a record, what takes back without an id, and joins: live, and read again."""

import asyncio
from typing import Any

import msgspec
import numpy as np
import pytest
from faust.types import TP

from tests.plane_world import (
    NOW,
    FakeRecord,
    Make,
    RunningPartition,
    WorkerState,
    like,
    lists,
)
from tracker.events.item_events import decode_blocks
from tracker.events.wire import Event, OtherEvent, encode_event
from tracker.kafka.outbox import Record
from tracker.stream.partition import Chunk


def array(*events: Any) -> bytes:
    return msgspec.json.encode([msgspec.Raw(encode_event(event)) for event in events])


def takes_back(user: str, item: int, kind: str = "like", **more: Any) -> Event:
    more = {"timestamp": NOW} | more
    return OtherEvent(user, f"i{item}", retracts="", takes_back=kind, **more)


def joins(user: str, was: str) -> Event:
    return OtherEvent(user, timestamp=NOW, retracts="", was=was)


def state(worker: WorkerState, *users: str) -> list[bytes]:
    """Return the users' rows without what differs with the offsets of lists."""
    slots = worker.users.store.slots_of(users)
    worker.rows.states.head["emitted_at"][slots] = 0.0
    worker.rows.states.head["emitted_offset"][slots] = -1
    worker.rows.states.head["list_hash"][slots] = 0
    worker.rows.states.head["last_offset"][slots] = -1
    return worker.rows.states.pack(slots)


def sent_item_events(worker: WorkerState, sent: list[Record]) -> list[tuple[int, int, int]]:
    blocks = [record.value or b"" for record in sent if record.topic == "t-items"]
    found = decode_blocks(blocks)
    columns = (found[name].tolist() for name in ("source_offset", "item", "sign"))
    return sorted(zip(*columns, strict=True))


@pytest.mark.parametrize("emit", ["chunk", "event"])
def test_an_array_of_events_is_its_events_and_brings_a_user_one_list(make: Make, emit: str) -> None:
    one, several = make(emit=emit), make(emit=emit)
    events = [like("a", 0), like("b", 1), like("a", 2)]
    found = lists(several.send(array(*events)))
    assert sorted((each.user_id, each.id) for each in found) == [
        ("a", "t-events-0-0"),
        ("b", "t-events-0-0"),
    ]
    one.send(*events)
    assert state(one, "a", "b") == state(several, "a", "b")
    assert several.users.store.progress.position == 1
    assert several.count("events") == 3
    blocks = several.commit()
    assert [offset for offset, _, _ in sent_item_events(several, blocks)] == [0, 0, 0]


@pytest.mark.parametrize("transactions", [True, False])
@pytest.mark.parametrize("emit", ["chunk", "event"])
def test_states_after_a_crash_in_the_middle_are_those_without_one(
    make: Make, emit: str, transactions: bool
) -> None:
    calm = make(emit=emit, transactions=transactions)
    torn = make(emit=emit, transactions=transactions)
    records = [
        array(like("a", 0, event_id="x"), like("v", 1), like("a", 2)),
        array(like("a", 3), like("a", 3), takes_back("a", 3, event_id="back")),
        encode_event(joins("a", "v")),
        array(like("v", 5), like("b", 6), joins("b", "v"), takes_back("b", 5)),
        array(like("b", 6), like("a", 7)),
    ]
    for worker in (calm, torn):
        worker.send(*records[:2])
        worker.commit()
    calm.send(*records[2:])
    torn.send(*records[2:])
    counts = [int(calm.head(user, "events")) for user in "abv"]
    assert counts == [5, 2, 0]  # b: of v the like of 5 has joined, and was taken back
    first = torn.users.take_outgoing()
    if transactions:
        torn.restart()  # nothing of it was committed
    else:  # the rows are in the changelog, their position is not
        position = torn.databases["users"].get(b"p")
        torn.commit()
        if position is not None:
            torn.databases["users"][b"p"] = position
        torn.restart()
        torn.users.store.progress.position = 2
    torn.offset = 2
    torn.send(*records[2:])
    assert state(torn, "a", "b", "v") == state(calm, "a", "b", "v")
    again = torn.users.take_outgoing()
    if transactions:
        assert sent_item_events(torn, again) == sent_item_events(torn, first)
    else:
        assert sent_item_events(torn, again) == []
        assert torn.count("replayed") > 0


def test_the_events_of_a_record_that_cannot_be_taken_are_rejected_alone(make: Make) -> None:
    worker = make()
    bad = Event("a", "i1", "veiw", NOW)
    out = worker.send(array(like("a", 0), bad, Event("a", "i2", "lik", NOW), like("b", 1)))
    (rejected,) = [record for record in out if record.topic == "t-rejected"]
    headers = dict(rejected.headers)
    assert headers["reason"] == b"unknown_kind"
    assert headers["events"] == b"2"
    assert headers["message"].startswith(b"event 2, 3 of 4 in the record: kind 'veiw'")
    assert [one["kind"] for one in msgspec.json.decode(rejected.value or b"")] == ["veiw", "lik"]
    assert worker.count("rejected", reason="unknown_kind") == 2
    assert worker.count("events") == 2


def test_a_record_of_another_system_is_its_events(make: Make) -> None:
    worker = make(events_format="segment")
    order = {
        "type": "track",
        "event": "Order Completed",
        "anonymousId": "v",
        "messageId": "m",
        "timestamp": NOW,
        "properties": {"products": [{"product_id": "i1"}, {"product_id": "i3"}]},
    }
    identify = {"type": "identify", "userId": "a", "anonymousId": "v"}
    found = worker.send(*map(msgspec.json.encode, (order, order, {"type": "page"}, identify)))
    assert [one.user_id for one in lists(found)] == ["v", "a"]
    assert worker.head("a", "events") == 2
    assert worker.count("duplicates") == 2
    assert worker.count("passed_over", word="page") == 1
    assert worker.count("outcomes", outcome="joined") == 1


def test_what_takes_back_takes_the_latest_event_of_its_kind_not_newer_than_itself(
    make: Make,
) -> None:
    worker, expected = make(), make()
    first, second = like("a", 1, time=NOW - 20), like("a", 1, time=NOW - 10)
    worker.send(first, second, like("a", 2), takes_back("a", 1, timestamp=NOW - 15))
    kept = worker.rows.states.ring[worker.users.store.slots_of(["a"])[0]][:3]
    assert [bool(flags & 2) for flags in kept["flags"].tolist()] == [True, False, False]
    worker.send(takes_back("a", 1, timestamp=NOW - 15))  # none is older: the latest then
    assert worker.head("a", "events") == 1
    worker.send(takes_back("a", 1), takes_back("a", 2, kind="cart"), takes_back("c", 1))
    assert worker.count("outcomes", outcome="retracted") == 2
    assert worker.count("outcomes", outcome="nothing_to_take_back") == 3
    signs = [sign for _, _, sign in sent_item_events(worker, worker.commit())]
    assert sorted(signs) == [-1, -1, 1, 1, 1]
    expected.send(like("a", 2))
    slot, other = worker.users.store.slots_of(["a"])[0], expected.users.store.slots_of(["a"])[0]
    np.testing.assert_array_equal(worker.rows.states.sums[slot], expected.rows.states.sums[other])


def test_a_repeat_of_what_takes_back_takes_nothing_more(make: Make) -> None:
    worker = make()
    worker.send(like("a", 1), like("a", 1), takes_back("a", 1, event_id="back"))
    worker.send(takes_back("a", 1, event_id="back"), takes_back("b", 1, event_id="vain"))
    assert worker.head("a", "events") == 1
    assert worker.count("duplicates") == 1
    worker.send(like("b", 1), takes_back("b", 1, event_id="vain"))
    assert worker.head("b", "events") == 1


def test_a_visitor_joins_once_and_is_a_visitor_again(make: Make) -> None:
    worker, known = make(), make()
    worker.send(like("v", 1, time=NOW - 1), like("a", 2), joins("a", "v"))
    known.send(like("a", 1, time=NOW - 1), like("a", 2))
    assert state(worker, "a")[0] == state(known, "a")[0]
    worker.send(joins("a", "v"), like("v", 3), joins("a", "a"))
    assert worker.head("a", "events") == 2
    assert worker.head("v", "events") == 1
    worker.commit()
    worker.restart()
    worker.send(joins("b", "v"))
    assert (worker.head("a", "events"), worker.head("b", "events")) == (2, 1)
    assert worker.head("v", "events") == 0
    assert worker.count("outcomes", outcome="joined") == 2


def test_a_join_brings_the_lists_of_the_one_who_joined_to_an_end(make: Make) -> None:
    worker = make(emit_min_interval_seconds=60.0)
    worker.send(like("v", 1))
    worker.send(like("v", 2))  # its list is postponed
    assert worker.users.pending() == 1
    (found,) = lists(worker.send(joins("a", "v")))
    assert (found.user_id, found.id) == ("a", "t-events-0-2")
    assert worker.users.pending() == 0


def test_a_long_history_joins_with_its_seen_set(make: Make) -> None:
    worker = make()
    worker.send(*(like("v", n) for n in range(12)), like("a", 20))
    worker.commit()
    worker.restart()
    worker.send(joins("a", "v"))
    worker.commit()
    worker.restart()
    assert worker.head("a", "evicted") > 0
    slot = worker.users.store.slots_of(["a"])[0]
    assert worker.rows.seen_slots[slot] >= 0
    assert worker.head("v", "evicted") == 0
    assert worker.databases["users"].get(b"svv") is None


def test_a_waiting_retraction_of_a_visitor_meets_the_event_of_the_user(make: Make) -> None:
    worker = make()
    worker.send(like("a", 1, event_id="e"), Event("v", timestamp=NOW, retracts="e"))
    worker.send(joins("a", "v"))
    assert worker.head("a", "events") == 0
    assert worker.count("outcomes", outcome="retracted") == 1


def test_a_join_of_a_user_of_another_partition_is_counted_and_said_once(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make(hands_over=False)
    worker.send(*(joins("a", f"v{n}") for n in range(8)))
    assert worker.count("joins_elsewhere") > 1
    lines = [line for line in caplog.messages if "that state stays there" in line]
    assert len(lines) == 1


def test_records_of_more_users_than_fit_are_applied_in_parts(make: Make) -> None:
    worker = make(capacity=40)
    users = [f"u{n}" for n in range(120)]
    values = [array(*(like(user, 1) for user in users[at : at + 10])) for at in range(0, 120, 10)]
    records = [FakeRecord(number, value, b"k") for number, value in enumerate(values)]

    async def run() -> RunningPartition:
        running = RunningPartition(worker)
        await running.partition.start()
        done = asyncio.Event()
        running.partition.accept(Chunk(TP("t-events", 0), 0, len(records), records), done.set)
        await asyncio.wait_for(done.wait(), 100.0)  # kernels may compile first
        await running.partition.close()
        return running

    running = asyncio.run(run())
    assert not running.fatal
    assert worker.users.store.progress.position == len(records)
    assert worker.count("events") == 120
