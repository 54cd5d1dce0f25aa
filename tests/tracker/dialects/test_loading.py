"""Dialects: the examples of the docs, files and stream alike, and what cannot be taken."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.data.histories import read_event_log
from tests.paths import ROOT
from tracker.dialects.loading import BUILT_IN, load_dialect
from tracker.dialects.table import DialectError
from tracker.events.arrivals import Arrivals
from tracker.events.batch import EventBatch, EventReader, events_in
from tracker.events.dialect import PassedOver, decode_record, records_of
from tracker.events.entries import event_reading
from tracker.events.foreign import MAX_EVENTS
from tracker.events.kinds import Kinds
from tracker.events.wire import (
    Event,
    RejectedEventError,
    Undecodable,
    decode_event,
    encode_event,
    hash_id,
)

PAGE = (ROOT / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
NAMED = (*BUILT_IN, "cloudevents", "my.toml")
COLUMNS = (
    "users", "items", "times", "weights", "values", "kinds", "scenes", "event_ids", "retracts",
    "joined",
)  # fmt: skip


def block(kind: str, name: str) -> list[bytes]:
    """Return the lines of a marked block of the page."""
    match = re.search(rf"<!-- {kind}: {re.escape(name)} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert match is not None
    return match[1].encode().splitlines()


def format_of(name: str, folder: Path) -> str:
    if name != "my.toml":
        return name
    path = folder / name
    path.write_bytes(b"\n".join(block("toml", name)))
    return str(path)


def read(values: list[bytes], name: str = "tracker") -> tuple[EventBatch, EventReader, list[Any]]:
    reader = EventReader(Kinds.default(), dialect=load_dialect(name))
    batch, rejected = reader.read(
        "events", 0, values, range(len(values)), Arrivals.of_file(len(values), 2e9)
    )
    return batch, reader, rejected


def columns(batch: EventBatch) -> dict[str, Any]:
    as_lists = {
        name: value if isinstance(value := getattr(batch, name), list | dict) else value.tolist()
        for name in COLUMNS
    }
    as_lists["values"] = [str(value) for value in as_lists["values"]]
    return as_lists


@pytest.mark.parametrize("name", NAMED)
def test_the_records_of_the_docs_are_the_events_beside_them(name: str, tmp_path: Path) -> None:
    form = format_of(name, tmp_path)
    expected = [decode_event(line) for line in block("events", name)]
    dialect = load_dialect(form)
    found = [event for line in block("format", name) for event in events_in(line, dialect)]
    assert found == expected
    assert [decode_event(encode_event(event)) for event in found] == expected
    batch, _, rejected = read(block("format", name), form)
    assert not rejected
    assert columns(batch) == columns(read(block("events", name))[0])


@pytest.mark.parametrize("name", NAMED)
def test_a_file_in_a_dialect_is_the_log_of_its_events(name: str, tmp_path: Path) -> None:
    form = format_of(name, tmp_path)
    theirs, ours = tmp_path / "theirs.jsonl", tmp_path / "ours.jsonl"
    theirs.write_bytes(b"\n".join(block("format", name)))
    ours.write_bytes(b"\n".join(block("events", name)))
    log = read_event_log([theirs], Kinds.default(), 2e9, event_reading(dialect=load_dialect(form)))
    plain = read_event_log([ours], Kinds.default(), 2e9)
    assert columns(log.batch) == columns(plain.batch)
    assert not log.rejected
    assert not log.batch.joined
    assert "d-1" not in log.user_ids or name == "snowplow"


def test_nested_columns_of_parquet_are_read(tmp_path: Path) -> None:
    rows = [msgspec.json.decode(line) for line in block("format", "ga4")]
    for row in rows:
        row["event_timestamp"] = int(row["event_timestamp"])
        for item in row["items"]:
            item.pop("price", None)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "ga4.parquet")
    log = read_event_log(
        [tmp_path / "ga4.parquet"], Kinds.default(), 2e9, event_reading(dialect=load_dialect("ga4"))
    )
    (tmp_path / "ours.jsonl").write_bytes(b"\n".join(block("events", "ga4")))
    plain = read_event_log([tmp_path / "ours.jsonl"], Kinds.default(), 2e9)
    assert columns(log.batch) == columns(plain.batch)


def test_what_a_record_says_nothing_of_is_passed_over_and_counted() -> None:
    _, reader, rejected = read(block("format", "segment"), "segment")
    assert not rejected
    assert reader.passed_over == {"page": 1}
    with pytest.raises(PassedOver, match="identify"):  # a visitor who gave no name
        decode_record(b'{"type":"identify","anonymousId":"a"}', segment())


def segment() -> Any:
    return load_dialect("segment")


@pytest.mark.parametrize(
    ("record", "reason", "named"),
    [
        (b'{"event":"Product Viewd","userId":"u"}', "unknown_kind", "did you mean Product Viewed"),
        (b'{"event":"Tea Drunk","userId":"u"}', "unknown_kind", 'with base = "segment"'),
        (b'{"userId":"u"}', "missing_field", "kind at event, type"),
        (b'{"event":"Product Viewed","userId":"u"}', "missing_field", "properties.product_id"),
        (b"17", "wrong_type", "of the format segment"),
        (b"[]", "wrong_type", "an empty array"),
        (b"{'a'", "not_json", "json.dumps"),
    ],
)
def test_a_record_of_no_use_is_rejected_with_the_remedy(
    record: bytes, reason: str, named: str
) -> None:
    with pytest.raises(RejectedEventError, match=re.escape(named)) as caught:
        decode_record(record, segment())
    assert caught.value.reason == reason


def order(*products: Any, **more: Any) -> dict[str, Any]:
    return {
        "event": "Order Completed",
        "userId": "ada",
        "messageId": "m",
        "timestamp": 1.7e9,
        "properties": {"products": list(products)},
    } | more


def test_products_that_cannot_be_taken_are_rejected_without_the_others() -> None:
    record = order({"product_id": "a"}, {"name": "b"}, {"product_id": "c", "quantity": "many"}, {})
    batch, reader, rejected = read([msgspec.json.encode(record)], "segment")
    assert batch.items.tolist() == [hash_id("a")]
    assert reader.places == [0]
    assert [(place, one.reason, one.events) for place, one in rejected] == [
        (0, "missing_field", 2),
        (0, "wrong_type", 1),
    ]
    assert rejected[0][1].message.startswith("event 2, 4 of 4 in the record: item_id missing")
    again = msgspec.json.decode(reader.parts_refused[0, "wrong_type"])
    assert again == order({"product_id": "c", "quantity": "many"})


def test_a_record_of_more_than_five_hundred_products_is_rejected() -> None:
    products = [{"product_id": str(number)} for number in range(MAX_EVENTS + 1)]
    batch, _, rejected = read([msgspec.json.encode(order(*products[1:]))], "segment")
    assert (len(batch), rejected) == (MAX_EVENTS, [])
    batch, _, rejected = read([msgspec.json.encode(order(*products))], "segment")
    assert (len(batch), rejected[0][1].reason) == (0, "too_many_events")


def test_a_batch_of_records_is_all_of_them() -> None:
    batch = [order({"product_id": "a"}), {"type": "page"}, {"event": "Tea"}, order({"sku": "b"})]
    for whole in (batch, {"batch": batch, "sentAt": "2026-01-01"}):
        read_batch, reader, rejected = read([msgspec.json.encode(whole)], "segment")
        assert read_batch.items.tolist() == [hash_id("a"), hash_id("b")]
        assert [one.reason for _, one in rejected] == ["unknown_kind"]
        assert msgspec.json.decode(reader.parts_refused[0, "unknown_kind"]) == {"event": "Tea"}


def test_the_envelope_goes_around_any_format() -> None:
    data = order({"product_id": "a"}, {"product_id": "b"})
    del data["messageId"]
    envelope = {"specversion": "1.0", "id": "9", "source": "s", "type": "t", "data": data}
    dialect = load_dialect("cloudevents:segment")
    batch, _, rejected = read([msgspec.json.encode([envelope, envelope])], "cloudevents:segment")
    assert not rejected
    assert batch.event_ids.tolist() == [hash_id("s 9"), hash_id("s 9/2")] * 2
    assert dialect is not None
    with pytest.raises(RejectedEventError, match="structured mode"):
        decode_record(msgspec.json.encode(data), dialect)


def test_several_data_of_an_envelope_have_ids_of_their_own() -> None:
    plain = {"user_id": "u", "item_id": "a", "kind": "view", "timestamp": 1}
    envelope = {"specversion": "1.0", "id": "9", "source": "s", "type": "t"}
    value = msgspec.json.encode(envelope | {"data": [plain, plain, plain | {"event_id": "own"}]})
    batch, _, rejected = read([value], "cloudevents")
    assert not rejected
    assert batch.event_ids.tolist() == [hash_id(text) for text in ("s 9", "s 9.2", "own")]
    data = order({"product_id": "a"}, {"product_id": "b"})
    del data["messageId"]
    value = msgspec.json.encode(envelope | {"data": {"batch": [data, data]}})
    batch, _, rejected = read([value], "cloudevents:segment")
    assert not rejected
    assert batch.event_ids.tolist() == [
        hash_id(text) for text in ("s 9", "s 9/2", "s 9.2", "s 9.2/2")
    ]


@pytest.mark.parametrize(
    "name", ["click", "com.example.shop.click", "com.example.shop.click.v2", "shop.click.v1.0"]
)
def test_the_kind_of_an_envelope_is_the_last_word_of_its_type(name: str) -> None:
    data = {"user_id": "u", "item_id": "a", "timestamp": 1}
    value = msgspec.json.encode({"specversion": "1.0", "type": name, "data": data})
    dialect = load_dialect("cloudevents")
    assert dialect is not None
    assert decode_record(value, dialect).kind == "click"


GA4 = {"event_timestamp": "1714500000000000", "user_pseudo_id": "1.2"}


def test_a_text_that_says_there_is_none_is_absent() -> None:
    item = {"item_id": "a", "item_list_name": "(not set)", "quantity": None}
    parameters = [{"key": "item_list_name", "value": {"string_value": "Related"}}]
    record = GA4 | {"event_name": "view_item", "user_id": "(not set)", "items": [item]}
    values = [
        record | {"event_params": parameters},
        record | {"event_params": []},
        record | {"items": [item | {"item_id": "(not set)"}]},
    ]
    batch, reader, rejected = read([msgspec.json.encode(value) for value in values], "ga4")
    assert [reader.scene_names.get(code) for code in batch.scenes.tolist()] == ["Related", None]
    assert batch.users == ["1.2", "1.2"]
    assert [one.reason for _, one in rejected] == ["missing_field"]


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("segment", {"type": "track", "event": "Application Opened"}),
        ("segment", {"type": "merge", "mergeProperties": []}),
        ("ga4", {"event_name": "generate_lead"}),
        ("ga4", {"event_name": "ad_impression", "items": []}),
        ("ubi", {"action_name": "new_user_entry"}),
        ("snowplow", {"event": "struct", "event_name": "event"}),
    ],
)
def test_what_a_system_records_by_itself_is_passed_over(name: str, record: dict[str, Any]) -> None:
    batch, reader, rejected = read([msgspec.json.encode(record)], name)
    assert (len(batch), rejected, reader.passed_over.total()) == (0, [], 1)


def test_a_film_that_was_watched_to_its_end_is_played() -> None:
    properties = {"asset_id": "a", "position": 5400, "total_length": 5400, "session_id": "s"}
    record = {
        "type": "track", "event": "Video Content Completed", "userId": "u", "messageId": "m",
        "timestamp": "2024-04-30T18:00:00Z", "properties": properties,
    }  # fmt: skip
    event = decode_record(msgspec.json.encode(record), segment())
    assert (event.item_id, event.kind, event.value) == ("a", "play", None)


def test_what_was_shared_is_named_by_a_parameter() -> None:
    parameters = [{"key": "item_id", "value": {"string_value": "a"}}]
    record = GA4 | {"event_name": "share", "items": [], "event_params": parameters}
    batch, _, _ = read([msgspec.json.encode(record)], "ga4")
    assert batch.items.tolist() == [hash_id("a")]


def test_our_own_arrays_are_their_events() -> None:
    first = Event("u", "i", "view", 1.0)
    second = {"user_id": "v", "item_id": "j", "kind": "veiw", "timestamp": 1}
    third = Event("w", "k", "like", 2.0)
    value = msgspec.json.encode([first, second, third])
    batch, reader, rejected = read([value, encode_event(first)])
    assert batch.users == ["u", "w", "u"]
    assert batch.offsets.tolist() == [0, 0, 1]
    assert reader.places == [0, 0, 1]
    assert [(place, one.reason) for place, one in rejected] == [(0, "unknown_kind")]
    assert msgspec.json.decode(reader.parts_refused[0, "unknown_kind"]) == [second]
    assert reader.unknown_kinds == {"veiw": 1}
    nested = msgspec.json.encode([[first, third], first])
    assert [one.reason for _, one in read([nested])[2]] == ["wrong_type"]


def test_records_to_send_have_one_user_each() -> None:
    own = [Event("u", "i", "view", 1.0), Event("v", "i", "view", 1.0)]
    assert records_of(msgspec.json.encode(own), None, True) == [
        msgspec.json.encode(one) for one in own
    ]
    value = msgspec.json.encode(order({"product_id": "a"}, {"product_id": "b"}))
    assert records_of(value, segment(), True) == [value]
    sent = [decode_event(part) for part in records_of(value, segment(), False)]
    assert [event.item_id for event in sent] == ["a", "b"]
    assert records_of(b'{"type":"page"}', segment(), False) == []
    (bad,) = records_of(b'{"event":"Tea"}', segment(), False)
    with pytest.raises(RejectedEventError, match="'Tea'"):
        decode_event(bad)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('user = "a"\nitem = "b"', "no kind"),
        ('user = "a"\nitem = "b[]["\nkind = "c"', "'b[][' is no path"),
        ('user = "a"\nitem = "b[x]"\nkind = "c"', "[x] is neither"),
        ('user = "x[].a"\nitem = "y[].b"\nkind = "c"', "several lists"),
        ('usr = "a"', "unknown field `usr`"),
        ("user = ", "not TOML"),
        ('base = "segmnt"', "'segmnt' is not known"),
        ('base = "ga4"\nignore = ["Tea"]\n[kinds]\ntea = "like"', "tea: under two of kinds"),
        ('base = "ga4"\n[takes_back]\na = "like"\nA = "view"', "a: under two of kinds"),
    ],
)
def test_a_file_that_is_no_format_is_refused(text: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text)
    with pytest.raises(DialectError, match=re.escape(named)):
        load_dialect(str(path))


def test_a_file_with_a_byte_order_mark_is_a_format(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('base = "ga4"\nignore = ["tea"]\n', encoding="utf-8-sig")
    dialect = load_dialect(str(path))
    assert dialect is not None
    with pytest.raises(PassedOver):
        decode_record(b'{"event_name":"tea"}', dialect)


def test_an_unknown_format_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(DialectError, match="Did you mean segment"):
        load_dialect("segmnt")
    with pytest.raises(DialectError, match="cannot be read: No such file"):
        load_dialect("nowhere.toml")


@pytest.mark.parametrize("times", [2, 3, 100_000])
def test_an_envelope_around_an_envelope_is_refused_by_name(times: int) -> None:
    with pytest.raises(DialectError, match=r"cloudevents goes around another format once") as error:
        load_dialect("cloudevents:" * times + "segment")
    assert len(str(error.value)) < 300
    with pytest.raises(DialectError, match="goes around another format once"):
        load_dialect("cloudevents:cloudevents")


@pytest.mark.parametrize("form", [None, "segment"])
@pytest.mark.parametrize("as_it_is", [True, False])
def test_a_line_that_is_known_to_be_none_keeps_its_reason(form: str | None, as_it_is: bool) -> None:
    value = Undecodable(b"[{", "longer than 5 bytes")
    (found,) = records_of(value, load_dialect(form) if form else None, as_it_is)
    assert found is value


@pytest.mark.parametrize(
    ("record", "named"),
    [
        ({"messageID": "m"}, "`messageID` looks like `messageId`, the event id of the format seg"),
        ({"message_id": "m"}, 'name it as event_id in a file of your own with base = "segment"'),
        ({"mesageId": None}, "`mesageId` looks like `messageId`"),
    ],
)
def test_a_name_near_that_of_the_event_id_is_rejected_as_in_our_own_format(
    record: dict[str, Any], named: str
) -> None:
    plain = order({"product_id": "a"})
    del plain["messageId"]
    assert decode_record(msgspec.json.encode(plain), segment()).event_id is None
    with pytest.raises(RejectedEventError, match=re.escape(named)) as caught:
        decode_record(msgspec.json.encode(plain | record), segment())
    assert caught.value.reason == "unknown_field"
    both = plain | record | {"messageId": "right"}
    assert decode_record(msgspec.json.encode(both), segment()).event_id == "right"


def test_the_names_of_the_ids_of_products_are_looked_at_too(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('user="u"\nitem="l[].i"\nkind="k"\nevent_id="l[].lineId"\ntimestamp="t"\n')
    dialect = load_dialect(str(path))
    assert dialect is not None
    record = {"u": "u", "k": "view", "t": 5, "l": [{"i": "a", "line_id": "x"}]}
    with pytest.raises(RejectedEventError, match=r"`line_id` looks like `l\[\].lineId`"):
        decode_record(msgspec.json.encode(record), dialect)


@pytest.mark.parametrize("event_id", [1.5, True, ["m"], {"a": 1}])
def test_an_event_id_that_is_none_is_rejected_for_every_product(event_id: Any) -> None:
    record = order({"product_id": "a"}, {"product_id": "b"}) | {"messageId": event_id}
    batch, _, ((_, rejection),) = read([msgspec.json.encode(record)], "segment")
    assert not len(batch)
    assert (rejection.reason, rejection.events) == ("wrong_type", 2)


@pytest.mark.parametrize(("text", "taken"), [("nan", 1), ("inf", 0), ("-Infinity", 0), ("2", 1)])
def test_a_quantity_in_quotes_that_is_endless_is_rejected(text: str, taken: int) -> None:
    record = order({"product_id": "a", "quantity": text})
    assert len(read([msgspec.json.encode(record)], "segment")[0]) == taken


def test_a_file_over_a_built_in_format_adds_its_words(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        'base = "segment"\nscene = "context.page.title"\nothers = "ignore"\n'
        '[kinds]\n"Tea Drunk" = "like"\n"Product Removed" = "remove_from_cart"\n'
    )
    dialect = load_dialect(str(path))
    assert dialect is not None
    record = {"userId": "u", "timestamp": 1, "properties": {"id": "x"}, "context": {}}
    kinds = {
        word: decode_record(msgspec.json.encode(record | {"event": word}), dialect).kind
        for word in ("Tea Drunk", "Product Removed", "Product Viewed")
    }
    assert list(kinds.values()) == ["like", "remove_from_cart", "view"]
    with pytest.raises(PassedOver):
        decode_record(b'{"event":"Anything"}', dialect)


def test_a_word_of_a_file_over_a_built_in_format_counts_in_any_case(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(
        'base = "segment"\n[kinds]\n"cart viewed" = "view"\n"product removed" = "dislike"\n'
        '[takes_back]\n"PRODUCT ADDED" = "save"\n'
    )
    dialect = load_dialect(str(path))
    assert dialect is not None
    record = {"userId": "u", "timestamp": 1, "properties": {"id": "x"}}
    events = [
        decode_record(msgspec.json.encode(record | {"event": word}), dialect)
        for word in ("Cart Viewed", "Product Removed", "Product Added")
    ]
    assert [event.kind for event in events] == ["view", "dislike", None]


def test_a_flat_table_is_read_by_its_columns(tmp_path: Path) -> None:
    path, own = tmp_path / "log.csv", tmp_path / "own.toml"
    path.write_text("who,what.id,did,when\nu,i1,seen,1700000000\nu,i2,seen,1700000001\n")
    own.write_text(
        'user = "who"\nitem = "what.id"\nkind = "did"\ntimestamp = "when"\n[kinds]\nseen = "view"\n'
    )
    log = read_event_log(
        [path], Kinds.default(), 2e9, event_reading(dialect=load_dialect(str(own)))
    )
    assert log.batch.items.tolist() == [hash_id("i1"), hash_id("i2")]
    assert log.batch.times.tolist() == [1.7e9, 1.7e9 + 1]


@pytest.mark.parametrize("text", ["a = " + "[" * 3000, "user = " + "9" * 5000])
def test_a_file_too_deep_or_with_too_long_a_number_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(DialectError, match=r"mine\.toml: not TOML"):
        load_dialect(str(tmp_path / "mine.toml"))
