"""Accepted events as columns: checks, reason codes, places."""

import msgspec
import numpy as np
import pytest

from tracker.events.arrivals import MAX_FUTURE_SECONDS, Arrivals
from tracker.events.batch import EventBatch, EventReader, waves
from tracker.events.kinds import DEFAULT_KINDS, Kinds
from tracker.events.text_caches import TextCaches
from tracker.events.wire import REASONS, Rejection, hash_id, kind_code, scene_code

NOW_MS = 1_700_000_000_000
NOW = NOW_MS / 1000.0


def read(*values: bytes | None) -> tuple[EventBatch, list[tuple[int, Rejection]]]:
    n = len(values)
    reader = EventReader(Kinds.default(0.0, 10.0))
    arrivals = Arrivals.of_records([NOW_MS] * n, [1] * n, NOW)
    return reader.read("events", 3, values, list(range(100, 100 + n)), arrivals)


def test_a_full_event_becomes_one_row_of_columns() -> None:
    batch, rejected = read(
        b'{"user_id":"u","item_id":"i","kind":"rate","timestamp":1362062307.5,"scene":"home",'
        b'"value":8,"event_id":"e1"}'
    )
    assert not rejected
    assert batch.users == ["u"]
    assert batch.items[0] == hash_id("i")
    assert batch.times[0] == 1362062307.5
    assert batch.appended[0] == NOW
    assert batch.weights[0] == pytest.approx(1.2)
    assert batch.values[0] == 8.0
    assert batch.kinds[0] == kind_code("rate")
    assert batch.scenes[0] == scene_code("home")
    assert batch.event_ids[0] == hash_id("e1")
    assert batch.retracts[0] == 0
    assert batch.offsets[0] == 100
    assert (batch.topic, batch.partition) == ("events", 3)


def test_a_retraction_takes_the_append_time_where_it_has_none() -> None:
    batch, rejected = read(b'{"user_id":"u","retracts":"e1"}')
    assert not rejected
    assert batch.retracts[0] == hash_id("e1")
    assert batch.items[0] == 0
    assert batch.times[0] == NOW


GOOD = {"user_id": "u", "item_id": "i", "kind": "view", "timestamp": 1.0}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"\xff\xfe", "not_json"),
        (b'{"user_id":"\xff"}', "not_json"),
        (b'{"user_id":"a\\ud800"}', "not_json"),
        (b"[]", "wrong_type"),
        (b"[" * 100_000, "wrong_type"),
        (msgspec.json.encode(GOOD | {"user_id": 7.0}), "wrong_type"),
        (msgspec.json.encode(GOOD | {"user_id": True}), "wrong_type"),
        (msgspec.json.encode(GOOD | {"value": "much"}), "wrong_type"),
        (b'{"item_id":"i"}', "missing_field"),
        (b'{"user_id":"u"}', "missing_field"),
        (msgspec.json.encode({**GOOD, "kind": None}), "missing_field"),
        (msgspec.json.encode(GOOD | {"retract": "e"}), "unknown_field"),
        (msgspec.json.encode(GOOD | {"eventId": "e"}), "unknown_field"),
        (msgspec.json.encode(GOOD | {"user_id": ""}), "bad_id"),
        (msgspec.json.encode(GOOD | {"item_id": "x" * 10_000_000}), "bad_id"),
        (msgspec.json.encode(GOOD | {"item_id": "é" * 200}), "bad_id"),
        (msgspec.json.encode(GOOD | {"timestamp": -1.0}), "bad_timestamp"),
        (msgspec.json.encode(GOOD | {"timestamp": "yesterday"}), "bad_timestamp"),
        (b'{"user_id":"u","item_id":"i","kind":"view","timestamp":NaN}', "not_json"),
        (msgspec.json.encode(GOOD | {"timestamp": NOW + 301}), "future_timestamp"),
        (msgspec.json.encode(GOOD | {"timestamp": (NOW + 301) * 1000}), "future_timestamp"),
        (msgspec.json.encode(GOOD | {"timestamp": 1e300}), "bad_timestamp"),
        (msgspec.json.encode(GOOD | {"value": 1e300}), "bad_value"),
        (msgspec.json.encode(GOOD | {"kind": "ogle"}), "unknown_kind"),
    ],
)
def test_each_bad_record_has_its_reason_and_its_place(value: bytes | None, reason: str) -> None:
    batch, rejected = read(msgspec.json.encode(GOOD), value, msgspec.json.encode(GOOD))
    assert len(batch) == 2
    assert batch.offsets.tolist() == [100, 102]
    [(position, rejection)] = rejected
    assert position == 1
    assert rejection.reason == reason
    assert reason in REASONS
    assert (rejection.topic, rejection.partition, rejection.offset) == ("events", 3, 101)
    assert 0 < len(rejection.message) < 400


def test_an_event_just_inside_the_allowed_skew_and_one_of_long_ago_are_taken() -> None:
    batch, rejected = read(
        msgspec.json.encode(GOOD | {"timestamp": NOW + MAX_FUTURE_SECONDS}),
        msgspec.json.encode(GOOD | {"timestamp": 0}),
    )
    assert len(batch) == 2
    assert not rejected


def test_a_chunk_of_rubbish_alone_gives_an_empty_batch() -> None:
    batch, rejected = read(b"?", None)
    assert len(batch) == 0
    assert batch.times.dtype == np.float64
    assert [r.reason for _, r in rejected] == ["not_json", "tombstone"]


def test_the_caches_are_bounded_and_answers_stay_right_after_they_were_emptied() -> None:
    caches = TextCaches(3000)
    reader = EventReader(Kinds(DEFAULT_KINDS, unknown=0.5), caches=caches)
    values = [
        msgspec.json.encode(
            GOOD | {"item_id": f"i{n}", "scene": f"s{n}", "kind": f"k{n}", "value": n}
        )
        for n in range(17)
    ]
    arrivals = Arrivals.of_records([NOW_MS] * 17, [1] * 17, NOW)
    batch, rejected = reader.read("events", 0, values, list(range(17)), arrivals)
    assert not rejected
    assert batch.items.tolist() == [hash_id(f"i{n}") for n in range(17)]
    assert batch.scenes.tolist() == [scene_code(f"s{n}") for n in range(17)]
    assert batch.kinds.tolist() == [kind_code(f"k{n}") for n in range(17)]
    assert reader.scene_names.get(scene_code("s16")) == "s16"
    assert len(caches.items) < 9
    assert len(caches.scenes) < 5
    assert len(caches.weights) < 3
    assert caches.bytes <= 3000


def test_a_wave_has_each_user_once_and_keeps_the_order() -> None:
    slots = np.array([3, 1, 3, 3, 2, 1])
    parts = waves(slots)
    assert [wave.tolist() for wave in parts] == [[0, 1, 4], [2, 5], [3]]
    assert waves(np.zeros(0, np.int64)) == []
