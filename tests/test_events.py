"""Events in: decoding, checks, reason codes and columns."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker.event_batch import MAX_FUTURE_SECONDS, EventBatch, EventReader
from tracker.events import (
    REASONS,
    Event,
    RejectedEventError,
    Rejection,
    decode_event,
    encode_event,
    hash_id,
    kind_code,
    scene_code,
    seconds,
)
from tracker.kinds import Kinds

NOW_MS = 1_700_000_000_000
NOW = NOW_MS / 1000.0


def read(*values: bytes | None) -> tuple[EventBatch, list[tuple[int, Rejection]]]:
    n = len(values)
    reader = EventReader(Kinds.default(0.0, 10.0))
    return reader.read("events", 3, values, list(range(100, 100 + n)), [NOW_MS] * n)


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
        (msgspec.json.encode(GOOD | {"user_id": 7}), "wrong_type"),
        (msgspec.json.encode(GOOD | {"value": "much"}), "wrong_type"),
        (b'{"item_id":"i"}', "missing_field"),
        (b'{"user_id":"u"}', "missing_field"),
        (msgspec.json.encode({**GOOD, "kind": None}), "missing_field"),
        (msgspec.json.encode(GOOD | {"colour": "red"}), "unknown_field"),
        (msgspec.json.encode(GOOD | {"user_id": ""}), "bad_id"),
        (msgspec.json.encode(GOOD | {"item_id": "x" * 10_000_000}), "bad_id"),
        (msgspec.json.encode(GOOD | {"item_id": "é" * 200}), "bad_id"),
        (msgspec.json.encode(GOOD | {"timestamp": -1.0}), "bad_timestamp"),
        (msgspec.json.encode(GOOD | {"timestamp": "yesterday"}), "bad_timestamp"),
        (b'{"user_id":"u","item_id":"i","kind":"view","timestamp":NaN}', "not_json"),
        (msgspec.json.encode(GOOD | {"timestamp": NOW + 301}), "future_timestamp"),
        (msgspec.json.encode(GOOD | {"timestamp": NOW * 1000}), "future_timestamp"),
        (msgspec.json.encode(GOOD | {"timestamp": 1e300}), "future_timestamp"),
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


def test_iso_times_with_and_without_a_zone_are_read() -> None:
    assert seconds("2013-02-28T14:38:27+00:00") == 1362062307.0
    assert seconds("2013-02-28T15:38:27+01:00") == 1362062307.0
    assert seconds("2013-02-28 14:38:27") == 1362062307.0


@pytest.mark.parametrize("timestamp", [math.nan, math.inf, -1.0, "0001-01-01T00:00:00", "7 pm"])
def test_what_is_no_time_is_refused(timestamp: float | str) -> None:
    with pytest.raises(ValueError, match="time"):
        seconds(timestamp)


def test_hashes_never_meet_the_mark_for_none() -> None:
    assert hash_id("") != 0
    assert scene_code(None) == scene_code("") == 0
    assert scene_code("home") != 0
    assert kind_code("view") != 0


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_an_event_or_a_named_rejection(value: bytes) -> None:
    try:
        decode_event(value)
    except RejectedEventError as error:
        assert error.reason in REASONS


_IDS = st.text(min_size=1, max_size=20, alphabet=st.characters(exclude_categories=["Cs"]))


@given(_IDS, _IDS, st.floats(0, 1e9), st.none() | _IDS, st.none() | st.floats(-1e6, 1e6))
def test_an_encoded_event_is_read_back_as_it_was(
    user: str, item: str, time: float, scene: str | None, value: float | None
) -> None:
    event = Event(user, item, "view", time, scene, value)
    assert decode_event(encode_event(event)) == event
