"""Events outside their user's partition are handed on to its owner, and taken there once."""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.paths import GOLDEN
from tests.plane_world import NOW, FakeRecord, Make, WorkerState, like, lists, run_partition
from tests.tracker.stream.test_key_check import users_of
from tracker.events.item_events import decode_blocks
from tracker.events.wire import Event, OtherEvent, encode_event
from tracker.feeds.source_ends import SourceEnds, UnknownOffsetError
from tracker.kafka.hand_over_records import Origin, Readdressed, headers_of, origin_of
from tracker.kafka.outbox import Record
from tracker.kafka.partitioner import partition_of
from tracker.store.partition_store import decode_position
from tracker.stream.hand_over import HAND_OVER_REASONS, SURE_ROWS

HERE = users_of(0, "murmur2", 3)
AWAY = [user for user in users_of(0, "crc32", 200) if partition_of(user, 4, "murmur2") == 2]


@pytest.fixture
def worlds(make: Make) -> Make:
    return partial(make, hands_over=True)


def handed(worker: WorkerState) -> list[Record]:
    """Commit, and return what was handed on."""
    return [record for record in worker.commit() if record.topic == "t-handover"]


def as_read(records: Sequence[Record], start: int = 0) -> list[FakeRecord]:
    """Return records as the owner of their partition reads them."""
    return [
        FakeRecord(start + at, one.value, one.key, int(NOW * 1000), 1, one.headers)
        for at, one in enumerate(records)
    ]


def receive(worker: WorkerState, records: Sequence[FakeRecord]) -> list[Record]:
    return worker.users.process(records, records[-1].offset + 1, True)


def rejections(out: Sequence[Record]) -> list[dict[str, str]]:
    return [
        {name: value.decode() for name, value in record.headers}
        for record in out
        if record.topic == "t-rejected"
    ]


def test_event_goes_to_its_users_partition_with_its_origin_and_the_next_commit(worlds: Any) -> None:
    source = worlds()
    out = source.send(like(HERE[0]), like(AWAY[0]), like(HERE[1]))
    assert [one.user_id for one in lists(out)] == HERE[:2]
    (record,) = handed(source)
    assert (record.topic, record.partition) == ("t-handover", 2)
    assert record.value == encode_event(like(AWAY[0]))
    assert origin_of(record.headers) == Origin(0, 1, int(NOW * 1000), 1, "murmur2")
    assert source.count("handed_on") == 1
    assert source.count("key_mismatch", cause="other_partition") == 1
    assert AWAY[0] not in source.users.store.arena
    assert source.users.store.progress.position == 3
    assert handed(source) == []


def test_its_owner_makes_the_state_and_a_list_that_names_the_origin(worlds: Any) -> None:
    source, owner = worlds(), worlds(partition=2)
    source.now = owner.now = NOW + 5.0
    source.send(like(HERE[0]), like(AWAY[0], 3))
    (one,) = lists(receive(owner, as_read(handed(source), 40)))
    assert (one.user_id, one.id) == (AWAY[0], "t-events-0-1")
    assert one.latency_ms == pytest.approx(5000.0)
    assert owner.head(AWAY[0], "events") == 1
    assert owner.head(AWAY[0], "last_offset") == -1
    progress = owner.users.store.progress
    assert (progress.position, progress.hand_over.position) == (0, 41)
    assert progress.hand_over.origins == {0: 1}
    blocks = [r for r in owner.commit() if r.topic == "t-items"]
    (item,) = decode_blocks([block.value or b"" for block in blocks])
    assert (item["source_partition"], item["source_offset"]) == (2 + 4, 40)


def test_headers_without_a_value_are_no_worker_s(worlds: Any) -> None:
    source, owner = worlds(), worlds(partition=2)
    source.send(like(AWAY[0]))
    (good,) = as_read(handed(source), 40)
    names = [name for name, _ in good.headers]
    for without in (*names[:2], *names[3:]):  # an empty time is none
        some = tuple((name, None if name == without else value) for name, value in good.headers)
        bad = replace(good, headers=some)
        (refused,) = rejections(receive(owner, [bad]))
        assert refused["reason"] in HAND_OVER_REASONS
    again = (*good.headers, ("place", None), ("homes", None))
    taken = replace(good, offset=41, headers=again)
    assert rejections(receive(owner, [taken])) == []
    assert owner.head(AWAY[0], "events") == 1


def test_events_without_a_key_are_handed_on_too(worlds: Any) -> None:
    source = worlds()
    source.users.process([FakeRecord(0, encode_event(like(AWAY[0])), None)], 1)
    (record,) = handed(source)
    assert (record.partition, record.key) == (2, None)


@pytest.mark.parametrize("more", [{"hand_over": "off"}, {"partitioner": "given"}])
def test_where_nothing_is_handed_on_events_are_taken_where_they_are(worlds: Any, more: Any) -> None:
    source = worlds(**more)
    source.send(like(AWAY[0]))
    assert handed(source) == []
    assert source.head(AWAY[0], "events") == 1


def test_without_the_topic_events_are_taken_where_they_are(worlds: Any) -> None:
    source = worlds(hands_over=False)
    source.send(like(AWAY[0]))
    assert handed(source) == []
    assert source.head(AWAY[0], "events") == 1
    position = decode_position(source.databases["users"].get(b"p"))
    assert (position.format, position.hand_over) == (1, None)


def test_rejected_records_are_never_handed_on(worlds: Any) -> None:
    source = worlds()
    out = source.send(b'{"user_id": "%s"}' % AWAY[0].encode(), b"{")
    assert len(rejections(out)) == 2
    assert handed(source) == []


def test_repeat_of_an_origin_is_skipped_and_counted_also_after_a_restart(worlds: Any) -> None:
    source, owner = worlds(), worlds(partition=2)
    source.send(like(AWAY[0], 0), like(AWAY[1], 1))
    records = handed(source)
    receive(owner, as_read(records))
    owner.commit()
    owner.restart()
    assert receive(owner, as_read(records, 2)) == []
    assert owner.count("replayed") == 2
    assert owner.head(AWAY[0], "events") == 1
    assert owner.users.store.progress.hand_over.position == 4


def test_own_events_are_not_taken_for_replays_of_handed_on_ones(worlds: Any) -> None:
    owner = worlds(partition=2, transactions=False)
    source = worlds()
    source.send(like(HERE[0]), like(AWAY[0], 0))
    receive(owner, as_read(handed(source), 1000))
    owner.send(like(AWAY[0], 1))
    owner.send(like(AWAY[0], 2))
    assert owner.head(AWAY[0], "events") == 3
    assert owner.head(AWAY[0], "last_offset") == 1
    assert owner.count("replayed") == 0


def test_versions_of_a_users_lists_grow_over_both_topics_and_over_a_restart(worlds: Any) -> None:
    source, owner = worlds(), worlds(partition=2)
    source.send(*[like(AWAY[0], item) for item in range(3)])
    records = as_read(handed(source), 7)
    found = lists(owner.send(like(AWAY[0], 5)))
    found += lists(receive(owner, records[:2]))
    found += lists(owner.send(like(AWAY[0], 6)))
    owner.commit()
    found += lists(receive(owner, records[2:]))
    owner.restart()  # the last one was not committed
    found += lists(receive(owner, records[2:]))
    versions = [one.version for one in found]
    assert versions == sorted(set(versions))
    assert [one.id for one in found[-2:]] == ["t-events-0-2"] * 2
    assert versions[0] >= NOW * 1e6
    assert versions[-1] < 2**53


def test_pending_list_keeps_origin_and_version(worlds: Any) -> None:
    source, owner = worlds(), worlds(partition=2, emit_min_interval_seconds=10.0)
    source.send(like(HERE[0]), like(AWAY[0], 0), like(AWAY[0], 1))
    one, two = as_read(handed(source))
    (first,) = lists(receive(owner, [one]))
    assert lists(receive(owner, [two])) == []
    owner.commit()
    owner.restart()
    (second,) = lists(owner.users.emit_due())
    assert (first.id, second.id) == ("t-events-0-1", "t-events-0-2")
    assert second.version == first.version + 1


def test_record_handed_to_the_wrong_partition_is_rejected_with_its_origin(worlds: Any) -> None:
    source, other = worlds(), worlds(partition=1)
    source.send(like(HERE[0]), like(AWAY[0]))
    out = receive(other, as_read(handed(source)))
    (headers,) = rejections(out)
    assert headers["reason"] == "handed_twice"
    assert (headers["topic"], headers["partition"], headers["offset"]) == ("t-events", "0", "1")
    assert "TRACKER_PARTITIONER" in headers["message"]
    assert AWAY[0] not in other.users.store.arena
    assert handed(other) == []
    assert other.users.store.progress.hand_over.position == 1


def test_record_of_another_partitioner_is_rejected(worlds: Any) -> None:
    source, owner = worlds(), worlds(partition=2, partitioner="fnv1a")
    source.send(like(AWAY[0]))
    (headers,) = rejections(receive(owner, as_read(handed(source))))
    assert headers["reason"] == "handed_twice"
    assert "murmur2" in headers["message"]
    assert "fnv1a" in headers["message"]


def test_record_that_a_newer_setting_refuses_is_rejected_with_its_origin(worlds: Any) -> None:
    source, owner = worlds(), worlds(partition=2, unknown_fields="reject")
    value = encode_event(like(AWAY[0]))[:-1] + b',"colour":1}'
    source.send(like(HERE[0]), value)
    (headers,) = rejections(receive(owner, as_read(handed(source))))
    assert headers["reason"] == "unknown_field"
    assert (headers["topic"], headers["partition"], headers["offset"]) == ("t-events", "0", "1")


def made_up(**headers: bytes) -> FakeRecord:
    fields = {
        "partition": b"0",
        "offset": b"1",
        "time": b"1700000000000",
        "time_type": b"1",
        "partitioner": b"murmur2",
    } | headers
    return FakeRecord(0, encode_event(like(AWAY[0])), b"k", headers=tuple(fields.items()))


@pytest.mark.parametrize(
    "headers",
    [
        {"partition": b"4"},
        {"partition": b"-1"},
        {"offset": b"99999999999999999999"},
        {"offset": b""},
        {"offset": b"x"},
        {"time": b"soon"},
        {"time_type": b"\xff"},
    ],
)
def test_record_that_no_worker_wrote_is_rejected(worlds: Any, headers: Any) -> None:
    owner = worlds(partition=2)
    (found,) = rejections(receive(owner, [made_up(**headers)]))
    assert found["reason"] == "no_origin"
    assert found["topic"] == "t-handover"
    assert owner.users.store.progress.hand_over.origins == {}
    bare = FakeRecord(1, b"{", None)
    (found,) = rejections(receive(owner, [bare]))
    assert found["reason"] == "no_origin"


def test_made_up_offset_hides_no_true_events(worlds: Any) -> None:
    owner = worlds(partition=2)
    ends = SourceEnds(lambda number: None, lambda: None)  # type: ignore[arg-type, return-value]
    owner.users._hand_over._ends = ends
    with pytest.raises(UnknownOffsetError):
        receive(owner, [made_up(offset=b"9000")])
    ends._ends[0], ends.reads_begun, ends.last_read = 50, 1, 1
    (found,) = rejections(receive(owner, [made_up(offset=b"9000")]))
    assert found["reason"] == "no_origin"
    assert "ends at 50" in found["message"]
    assert owner.users.store.progress.hand_over.origins == {}


def test_event_of_the_future_is_judged_by_its_own_time(worlds: Any) -> None:
    owner = worlds(partition=2)
    ahead = encode_event(like(AWAY[0], time=NOW + 4000.0))
    owner.now = NOW + 5000.0
    record = made_up()
    record.value = ahead
    (found,) = rejections(receive(owner, [record]))
    assert found["reason"] == "future_timestamp"


def test_users_of_both_sorts_lie_in_one_state_as_with_one_partitioner(worlds: Any) -> None:
    """Half of a user's events go another way, and the sums are those of one way."""
    random = np.random.default_rng(5)
    alone, owner, source = worlds(partition=2), worlds(partition=2), worlds()
    for step in range(30):
        event = like(AWAY[step % 2], int(random.integers(40)), time=NOW - 3600.0 + step)
        alone.send(event)
        if random.random() < 0.5:
            owner.send(event)
        else:
            source.send(event)
            receive(owner, as_read(handed(source), step))
    for user in AWAY[:2]:
        one, two = (int(w.users.store.slots_of([user])[0]) for w in (alone, owner))
        assert alone.head(user, "events") == owner.head(user, "events") == 15
        np.testing.assert_allclose(
            alone.rows.states.sums[one], owner.rows.states.sums[two], rtol=1e-5, atol=1e-5
        )
        assert alone.head(user, "last_time") == owner.head(user, "last_time")


def test_partition_takes_both_topics_each_by_its_own_position(worlds: Any) -> None:
    source, owner = worlds(), worlds(partition=2)
    source.send(*[like(AWAY[0], item) for item in range(4)])
    records = as_read(handed(source))

    async def work(running: Any) -> None:
        own = owner.records(like(AWAY[1], 0), like(AWAY[1], 1))
        running.accept(0, own)
        running.accept(0, records[:2], "t-handover")
        running.accept(3, records[3:], "t-handover")  # a gap: fetched again
        await running.applied(2, 2, 4)
        running.accept(2, records[2:], "t-handover")
        await running.applied(2, 2, 4, 4)
        assert running.partition.lags() == {"t-events": 0, "t-handover": 0}

    running = run_partition(owner, work)
    assert running.rewound == [2]
    position = decode_position(owner.databases["users"].get(b"p"))
    assert (position.format, position.position) == (2, 2)
    assert position.hand_over is not None
    assert position.hand_over.position == 4


def states_of_librdkafka(worker: WorkerState, count: int) -> None:
    """Keep states as a version without hand-over did, of producers with the rule crc32."""
    worker.send(*[like(user) for user in users_of(0, "crc32", count)])
    worker.commit()


def test_partition_whose_users_all_lie_by_another_rule_hands_nothing_on(
    worlds: Any, caplog: pytest.LogCaptureFixture
) -> None:
    worker = worlds(hand_over="off")
    states_of_librdkafka(worker, SURE_ROWS)
    worker.context = _with(worker, hand_over="on")
    worker.restart()
    worker.send(like(AWAY[0]))
    assert handed(worker) == []
    assert "events are not handed on" in caplog.text
    assert "TRACKER_PARTITIONER=crc32" in caplog.text


@pytest.mark.parametrize(("may_name", "name"), [(True, AWAY[0]), (False, "(hidden)")])
def test_users_whose_states_lie_elsewhere_are_counted_once(
    worlds: Any, caplog: pytest.LogCaptureFixture, may_name: bool, name: str
) -> None:
    worker = worlds(hand_over="off", log_user_ids=may_name)
    worker.send(*[like(user) for user in [*HERE, AWAY[0]]])
    worker.commit()
    worker.context = _with(worker, hand_over="on")
    for _ in range(2):
        worker.restart()
        worker.commit()
    lines = [r.getMessage() for r in caplog.records if "users looked at" in r.getMessage()]
    assert len(lines) == 1
    assert f"1 of 4 users looked at belong to other partitions, the first is {name}" in lines[0]
    worker.send(like(AWAY[0]))
    assert len(handed(worker)) == 1


def _with(worker: WorkerState, **settings: Any) -> Any:
    from dataclasses import replace

    return replace(worker.context, settings=worker.settings.model_copy(update=settings))


def test_topic_that_was_created_again_is_read_from_its_beginning(
    worlds: Any, caplog: pytest.LogCaptureFixture
) -> None:
    owner = worlds(partition=2)
    store = owner.users.store
    store.advance(70, True)
    store.open_hand_over("t-handover", "id-t-handover", 0, 100)
    assert store.reached(True).position == 70
    store.open_hand_over("t-handover", "another", 3, 100)
    assert store.reached(True).position == 3
    store.advance(70, True)
    store.open_hand_over("t-handover", "another", 0, 60)
    assert store.reached(True).position == 0
    assert caplog.text.count("created again or has lost records") == 2


def test_handed_on_value_of_a_rating_is_not_changed(worlds: Any) -> None:
    source, owner = worlds(), worlds(partition=2)
    source.send(Event(AWAY[0], "i1", "rate", NOW, value=4.0))
    receive(owner, as_read(handed(source)))
    slot = owner.users.store.slots_of([AWAY[0]])[0]
    assert math.isclose(float(owner.rows.states.ring[slot, 0]["value"]), 4.0)


def joins(user: str, was: str) -> Event:
    return OtherEvent(user, timestamp=NOW, retracts="", was=was)


@pytest.mark.parametrize("keyed_by", ["user", "was", "neither"])
def test_a_visitor_of_another_partition_joins_once(worlds: Any, keyed_by: str) -> None:
    """The record lies with the user, with the visitor, or with neither of both."""
    home, visitors = worlds(partition=0), worlds(partition=2)
    other = worlds(partition=3)
    user, was = HERE[0], AWAY[0]
    home.send(like(user, 3))
    visitors.send(*(like(was, n, time=NOW - 20 + n) for n in range(9)))
    source = {"user": home, "was": visitors, "neither": other}[keyed_by]
    source.send(joins(user, was))
    offsets = {home: 0, visitors: 0, other: 0}
    by_partition = {0: home, 2: visitors, 3: other}
    kept = [(source, handed(source))]
    seen: list[FakeRecord] = []
    for _ in range(3):  # records travel until there are none
        out = []
        for _, records in kept:
            for record in records:
                world = by_partition[record.partition]
                read = as_read([record], offsets[world])
                offsets[world] += 1
                receive(world, read)
                if world is home:
                    seen += read
        for world in by_partition.values():
            out.append((world, handed(world)))
        kept = out
    assert not any(records for _, records in kept)
    assert home.head(user, "events") == 10
    assert home.head(user, "evicted") == 2
    assert visitors.head(was, "events") == 0
    assert home.count("outcomes", outcome="joined") == 1
    assert visitors.count("outcomes", outcome="handed_on") == 1
    assert not any(key.startswith("\0") for key in home.users.store.arena._slots)
    again = [replace(one, offset=100 + at) for at, one in enumerate(seen)]
    home.restart()
    receive(home, again)  # a source that was torn may hand on once more
    assert home.head(user, "events") == 10
    for world in by_partition.values():
        assert not rejections(world.committer.sent)


def test_a_repeat_of_a_state_that_joined_takes_nobody_out_of_memory(worlds: Any) -> None:
    """The other user has the slot that the state had until it joined."""
    home, visitors = worlds(partition=0), worlds(partition=2)
    user, was, other = HERE[0], AWAY[0], HERE[1]
    visitors.send(like(was, 0), like(was, 1))
    home.send(like(user, 3), joins(user, was))
    receive(visitors, as_read(handed(home)))
    state = handed(visitors)
    receive(home, as_read(state))
    assert home.head(user, "events") == 3
    home.users.store.slots_of([other])  # as for a list that is due
    assert receive(home, as_read(state, 1)) == []
    assert other in home.users.store.arena


@pytest.mark.parametrize(("home", "events"), [((0, 2), 1), ((1, 2), 0)])
def test_what_is_handed_on_again_is_taken_for_the_users_it_was_for_alone(
    worlds: Any, home: tuple[int, int], events: int
) -> None:
    """Before there were four partitions there were two, of which one was the home of the user."""
    owner = worlds(partition=2)
    origin = Origin(4 * 4 + home[0], 17, int(NOW * 1000), 1, "murmur2")
    headers = (*headers_of(origin), *Readdressed((1, 9), (home,)).headers())
    record = Record("", 2, b"k", encode_event(like(AWAY[0])), headers)
    out = receive(owner, as_read([record, record]))
    assert not rejections(out)
    assert [one.id for one in lists(out)] == ["t-events-1-9"] * events
    assert owner.head(AWAY[0], "events") == events
    assert owner.users.store.progress.hand_over.origins == {16 + home[0]: 17}


def test_a_user_who_left_before_partitions_were_added_is_handed_on_by_one_of_them(
    worlds: Any,
) -> None:
    owner = worlds(partition=0)
    owner.send(like(HERE[0], 0), like(HERE[0], 1))
    join = encode_event(OtherEvent(AWAY[0], timestamp=NOW, retracts="", was=HERE[0]))
    for home, leaves in ((1, 0), (0, 1)):
        origin = Origin(4 * 4 + home, 17, int(NOW * 1000), 1, "murmur2")
        headers = (*headers_of(origin), *Readdressed((1, 9), ((home, 2),)).headers())
        out = receive(owner, as_read([Record("", 0, b"k", join, headers)], home))
        assert not rejections(out)
        assert len(handed(owner)) == leaves


def test_a_stored_state_that_was_handed_on_is_read(worlds: Any) -> None:
    """The record as the first release wrote it: value in base64 of rows, headers of a state."""
    home = worlds(partition=0)
    value = (GOLDEN / "joining_state_1.json").read_bytes()
    headers = (
        ("partition", b"10"), ("offset", b"9"), ("time", b""), ("time_type", b"0"),
        ("partitioner", b"murmur2"), ("holds", b"state"),
    )  # fmt: skip
    (found,) = lists(receive(home, as_read([Record("", 0, b"k", value, headers)])))
    assert (found.user_id, found.id) == (HERE[0], "t-events-2-9")
    assert home.head(HERE[0], "events") == 9
    more = (headers[0], ("offset", b"11"), *headers[2:])
    (refused,) = rejections(receive(home, as_read([Record("", 0, b"k", value[:-20], more)], 1)))
    assert refused["reason"] == "no_origin"


@pytest.mark.parametrize(
    "change",
    [
        {"partition": 4},
        {"partition": -1},
        {"offset": -1},
        {"offset": 2**63 - 1},
        {"offset": 2**70},
        {"time": -1.0},
        {"time": 4e11},
        {"user": ""},
        {"user": "x" * 300},
        {"was": 7},
    ],
)
def test_a_handed_on_state_out_of_bounds_is_rejected(worlds: Any, change: Any) -> None:
    home = worlds(partition=0)
    state = msgspec.json.decode((GOLDEN / "joining_state_1.json").read_bytes()) | change
    (refused,) = rejections(receive(home, [stored(msgspec.json.encode(state))]))
    assert refused["reason"] == "no_origin"
    assert "is to hold the state of a user, and does not" in refused["message"]
    assert home.users.store.progress.hand_over.origins == {}


@pytest.mark.parametrize("row", [b"", b"garbage!", bytes(4096)])
def test_a_handed_on_state_that_is_damaged_joins_nobody_and_the_partition_goes_on(
    worlds: Any, row: bytes
) -> None:
    home = worlds(partition=0)
    state = msgspec.json.decode((GOLDEN / "joining_state_1.json").read_bytes())
    value = msgspec.json.encode(state | {"row": row})
    receive(home, [stored(value)])
    assert home.head(HERE[0], "events") == 0
    home.restart()
    receive(home, [stored((GOLDEN / "joining_state_1.json").read_bytes(), b"11", 1)])
    assert home.head(HERE[0], "events") == 9


def stored(value: bytes, origin: bytes = b"9", offset: int = 0) -> FakeRecord:
    """Return a record of the topic of handed-on events that holds a state."""
    headers = (
        ("partition", b"10"), ("offset", origin), ("time", b""), ("time_type", b"0"),
        ("partitioner", b"murmur2"), ("holds", b"state"),
    )  # fmt: skip
    return as_read([Record("", 0, b"k", value, headers)], offset)[0]
