"""Values that are not plain events: taken where their meaning is plain, named where not."""

import json
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest

from tracker.events.arrivals import Arrivals
from tracker.events.batch import EventBatch, EventReader
from tracker.events.foreign import MAX_NAMES, OTHER_NAMES, look_alikes
from tracker.events.kinds import Kinds
from tracker.events.wire import Event, RejectedEventError, Rejection, decode_event, hash_id

GOOD: dict[str, Any] = {"user_id": "u", "item_id": "i", "kind": "view", "timestamp": 1.7e9}
PLAIN = Event("u", "i", "view", 1.7e9)


def read(reader: EventReader, *values: bytes) -> tuple[EventBatch, list[tuple[int, Rejection]]]:
    n = len(values)
    return reader.read("events", 0, values, list(range(n)), Arrivals.of_file(n, 2e9))


def line(**more: Any) -> bytes:
    return msgspec.json.encode(GOOD | more)


@pytest.mark.parametrize(
    "value",
    [
        b"\xef\xbb\xbf" + line(),
        msgspec.json.encode({"schema": {"type": "struct"}, "payload": GOOD}),
        msgspec.json.encode({"payload": GOOD, "schema": None}),
        b"[" + line() + b"]",
        line(colour="red", page={"url": "/x"}, items=[1, 2], scen="home", nothing=None),
    ],
)
def test_what_can_only_be_one_event_is_taken(value: bytes) -> None:
    assert decode_event(value) == PLAIN


def test_whole_numbers_as_ids_are_their_digits() -> None:
    event = decode_event(line(user_id=17, item_id=2**63, event_id=-5))
    assert (event.user_id, event.item_id, event.event_id) == ("17", str(2**63), "-5")
    assert decode_event(b'{"user_id":17,"retracts":5}').retracts == "5"


def test_a_whole_number_as_scene_or_kind_is_its_digits_as_in_a_table_of_text() -> None:
    event = decode_event(line(scene=7, kind=3))
    assert (event.scene, event.kind) == ("7", "3")
    with pytest.raises(RejectedEventError, match=r"\$\.scene"):
        decode_event(line(scene=True))


def test_a_number_in_quotes_is_a_value_and_an_empty_text_is_none() -> None:
    assert [decode_event(line(value=text)).value for text in ("3.5", " -2 ", "1e3", "", " ")] == [
        3.5, -2.0, 1000.0, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize("field", ["user_id", "item_id", "event_id", "retracts"])
def test_a_float_as_an_id_is_refused_with_the_remedy(field: str) -> None:
    with pytest.raises(RejectedEventError, match=rf"{field} is the float 17.0; .*in quotes"):
        decode_event(line(**{field: 17.0}))


@pytest.mark.parametrize(
    ("value", "reason", "named"),
    [
        (b"\x00\x00\x00\x00\x01\x02u\x04i1", "not_json", "with schema id 1; send"),
        (b"\x00\x00\x00\x00\x07" + line(), "not_json", "schema id 7; send plain JSON"),
        (line().decode().encode("utf-16"), "not_json", "write it as UTF-8"),
        (line().decode().encode("utf-16-le"), "not_json", "UTF-16"),
        (line().decode().encode("utf-16-be"), "not_json", "UTF-16"),
        (json.dumps(line().decode()).encode(), "wrong_type", "encoded twice; send the object"),
        (b'"hello"', "wrong_type", "a JSON text; an object"),
        (b"[" + b",".join([line()] * 501) + b"]", "too_many_events", "501 events in one record"),
        (b"[]", "wrong_type", "an array of 0"),
        (b"17", "wrong_type", "no object"),
        (b"null", "wrong_type", "no object"),
        (line(value=1).replace(b"1}", b"NaN}"), "not_json", "neither NaN nor Infinity; leave the"),
        (line(value=1).replace(b"1}", b"-Infinity}"), "not_json", "neither NaN nor Infinity"),
        (b"u,i,view,1700000000", "not_json", "a line of CSV"),
        (b"user_id;item_id;kind", "not_json", "a line of CSV"),
        (b"17\t5\tview", "not_json", "a line of CSV"),
        (line() + b"\n" + line() + b"\n", "not_json", "2 lines of JSON in one record"),
        (str(GOOD).encode(), "not_json", "json.dumps"),
        (b"\x1f\x8b\x08\x00", "not_json", "gzip bytes"),
        (b"", "not_json", "an empty value"),
        (b"<event/>", "not_json", "XML"),
        (line()[:-3], "not_json", "truncated"),
        (b'{"schema":null,"payload":null}', "tombstone", "envelope with no payload"),
        (line(eventid="e"), "unknown_field", "`eventid` looks like `event_id`"),
        (line(Retracts="e"), "unknown_field", "`Retracts` looks like `retracts`"),
        (
            b'{"userId":"u","itemId":"i","kind":"view","timestamp":1}',
            "missing_field",
            "`userId` looks like `user_id`; `itemId` looks like `item_id`",
        ),
        (b'{"user_id":"u","itemid":"i","kind":"view","timestamp":1}', "missing_field", "`itemid` "),
        (b'{"user_id":null,"item_id":"i","kind":"view"}', "missing_field", "field `user_id`"),
        (line(value="5 stars"), "wrong_type", "value '5 stars' is no number"),
        (line(value="1e999"), "wrong_type", "value '1e999' is no number"),
        (bytes(40), "not_json", "zero bytes, as a damaged file or a full disk leaves them"),
        (line(user_id="zo\xeb").decode().encode("cp1252"), "not_json", "is not UTF-8; write the"),
        (line() + line(), "not_json", "several objects in one line"),
        (line() + b",", "not_json", "a comma after the object"),
        (b"{", "not_json", "an object over several lines"),
        (b'  "user_id": "u",', "not_json", "a part of an object over several lines"),
        (b"  },", "not_json", "a part of an object over several lines"),
        (line(value=1).replace(b"1}", b"1e999}"), "wrong_type", "Number out of range; numbers"),
        (line(x=1).replace(b"1}", b"1" + b"0" * 5000 + b"}"), "wrong_type", "numbers below"),
        (line(was="v"), "wrong_type", "was and item_id in one event"),
        (b'{"data":[' + line() + b"," + line() + b"]}", "missing_field", "`data` holds 2 objects"),
        (b'{"before":null,"after":' + line() + b"}", "missing_field", "`after` holds an object wi"),
    ],
)  # fmt: skip
def test_anything_else_is_named_with_the_remedy(value: bytes, reason: str, named: str) -> None:
    with pytest.raises(RejectedEventError) as rejected:
        decode_event(value)
    assert named in str(rejected.value)
    assert rejected.value.reason == reason


def test_unknown_fields_are_counted_by_name_and_the_names_are_bounded() -> None:
    unknown: Counter[str] = Counter()
    for n in range(MAX_NAMES + 7):
        decode_event(line(**{f"field number {n}": 1, "x" * 1000: 2}), unknown)
    assert unknown["x" * 64] == MAX_NAMES + 7
    assert len(unknown) == MAX_NAMES + 1
    assert unknown[OTHER_NAMES] == 8


def test_names_that_look_like_a_field_are_told() -> None:
    plain = dict.fromkeys(("colour", "id", "uid", "pid", "end"), 9)  # far from all, or short
    assert look_alikes(Counter({"scen": 2, "valeu": 3, **plain})) == [
        "`valeu` looks like `value`",
        "`scen` looks like `scene`",
    ]


def test_unknown_fields_are_refused_if_the_setting_says_so() -> None:
    with pytest.raises(RejectedEventError, match=r"`scen` that looks like `scene`; .*=ignore"):
        decode_event(line(scen="home"), reject_unknown=True)
    reader = EventReader(Kinds.default(), reject_unknown_fields=True)
    batch, rejected = read(reader, *[line(), line(colour=1)])
    assert len(batch) == 1
    assert rejected[0][1].reason == "unknown_field"


def test_a_reader_takes_times_and_ids_of_all_forms_and_says_what_it_met() -> None:
    reader = EventReader(Kinds.default())
    times: list[Any] = [1.7e9, 1.7e12, 1.7e15, 1.7e18, "1700000000", "2023-11-14 22:13:20 UTC"]
    values = [line(timestamp=time, item_id=5, colour=1) for time in times]
    batch, rejected = read(reader, *values)
    assert not rejected
    assert np.unique(batch.times).tolist() == [1.7e9]
    assert np.unique(batch.items).tolist() == [hash_id("5")]
    assert reader.units == {"ms": 1, "us": 1, "ns": 1, "seconds": 1}
    assert reader.unknown_fields == {"colour": 6}
    read(reader, *[line()])
    assert not reader.units
    assert not reader.unknown_fields


def test_a_reader_takes_numbers_in_the_unit_it_is_given() -> None:
    reader = EventReader(Kinds.default(), timestamps="ms")
    values = [line(timestamp=5000), line(timestamp="2023-11-14T22:13:20Z")]
    batch, rejected = read(reader, *values)
    assert not rejected
    assert batch.times.tolist() == [5.0, 1.7e9]


@pytest.mark.parametrize(
    ("kind", "meant"), [("clcik", "click"), ("Views", "view"), ("purchases", "purchase")]
)
def test_an_unknown_kind_is_answered_with_the_nearest_name(kind: str, meant: str) -> None:
    reader = EventReader(Kinds.default())
    _, rejected = read(reader, *[line(kind=kind)])
    assert f"did you mean {meant}? If not, add it to the weights file" in rejected[0][1].message
    _, rejected = read(reader, *[line(kind="teleport")])
    assert "table of weights; add it" in rejected[0][1].message
