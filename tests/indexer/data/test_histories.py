"""Logged events as one stream in time order: reading, k-core and splits."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.data.histories import (
    PROTOCOLS,
    TEST,
    EventFileError,
    EventLog,
    core,
    read_event_log,
    split,
)
from tracker.events.entries import event_reading
from tracker.events.kinds import Kinds
from tracker.events.label_rule import LabelRule
from tracker.events.wire import hash_id, kind_code

NOT_AFTER = 2e9


def event(user: str, item: str, time: float, **more: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "kind": "click", "timestamp": time, **more}


def write(path: Path, events: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in events))
    return path


def read(path: Path, *events: Mapping[str, Any]) -> EventLog:
    return read_event_log([write(path / "events.jsonl", events)], Kinds.default(), NOT_AFTER)


def test_events_come_in_time_order_and_in_file_order_where_times_tie(tmp_path: Path) -> None:
    log = read(tmp_path, event("u", "c", 30), event("u", "a", 10), event("v", "b", 10))
    assert log.batch.times.tolist() == [10.0, 10.0, 30.0]
    assert log.batch.users == ["u", "v", "u"]
    assert log.user_ids == ["u", "v"]
    assert log.users.tolist() == [0, 1, 0]
    assert log.item_hashes[log.items].tolist() == [hash_id("a"), hash_id("b"), hash_id("c")]
    assert log.lengths().tolist() == [0, 0, 1]


def test_gzip_and_parquet_give_the_same_stream_as_plain_lines(tmp_path: Path) -> None:
    events = [event("u", "a", 1.5, scene="home", value=3.0), event("u", "b", 2.5)]
    plain = read(tmp_path, *events)
    packed = tmp_path / "events.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "events.jsonl").read_bytes()))
    table = tmp_path / "events.parquet"
    pq.write_table(pa.Table.from_pylist(events), table)
    text = tmp_path / "events.csv"
    text.write_text(
        "user_id;item_id;kind;timestamp;scene;value;page\nu;a;click;1,5;home;3,0;x\n"
        "u;b;click;1970-01-01T00:00:02.5Z;;;y\n"
    )
    for path in (packed, table, text):
        other = read_event_log([path], Kinds.default(), NOT_AFTER)
        assert other.users.tolist() == plain.users.tolist()
        for column in ("items", "times", "weights", "values", "kinds", "scenes"):
            np.testing.assert_array_equal(
                getattr(other.batch, column), getattr(plain.batch, column)
            )


def test_lines_which_the_stream_rejects_are_left_out_counted_and_the_first_is_named(
    tmp_path: Path,
) -> None:
    path = tmp_path / "events.jsonl"
    good = json.dumps(event("u", "a", 1))
    unknown = json.dumps(event("u", "a", 1, kind="teleport"))
    path.write_text(f"{good}\n\nnot json\n{unknown}\n{good}")
    log = read_event_log([path], Kinds.default(), NOT_AFTER)
    assert len(log) == 2
    assert log.rejected == {"not_json": 1, "unknown_kind": 1}
    assert log.bad_lines.first["not_json"][0].startswith(f"{path}, line 3: not JSON")


def test_a_timestamp_of_the_future_is_left_out_and_milliseconds_are_told(tmp_path: Path) -> None:
    times = (1, 1_362_062_307_000, NOT_AFTER + 1000)
    log = read(tmp_path, *(event("u", "a", time) for time in times))
    assert log.batch.times.tolist() == [1.0, 1_362_062_307.0]
    assert log.rejected == {"future_timestamp": 1}


def test_a_repeated_event_id_of_a_user_is_left_out_and_counted(tmp_path: Path) -> None:
    log = read(
        tmp_path,
        event("u", "a", 1, event_id="e1"),
        event("v", "a", 2, event_id="e1"),
        event("u", "a", 3, event_id="e1"),
    )
    assert log.batch.users == ["u", "v"]
    assert log.rejected == {"duplicate": 1}


def test_a_retraction_without_time_takes_that_of_the_line_before(tmp_path: Path) -> None:
    log = read(
        tmp_path,
        event("u", "a", 10, event_id="e1"),
        {"user_id": "u", "retracts": "e1"},
        event("u", "b", 20),
    )
    assert log.batch.times.tolist() == [10.0, 10.0, 20.0]
    assert log.items.tolist()[1] == -1
    assert not log.positive[1]
    assert log.lengths().tolist() == [0, 1, 1]


@pytest.mark.parametrize("content", ["", "not json\n"])
def test_a_file_without_events_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(content)
    with pytest.raises(EventFileError, match=r"events\.jsonl: no event that can be used"):
        read_event_log([path], Kinds.default(), NOT_AFTER)


@pytest.mark.parametrize("name", ["absent.jsonl", "absent.jsonl.gz", "absent.parquet"])
def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(EventFileError, match="absent"):
        read_event_log([tmp_path / name], Kinds.default(), NOT_AFTER)


@pytest.mark.parametrize("name", ["events.jsonl.gz", "events.parquet"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b'{"user_id": "u"}\n' * 1000)[:-9])
    with pytest.raises(EventFileError, match="events"):
        read_event_log([path], Kinds.default(), NOT_AFTER)


def test_core_repeats_until_nothing_changes(tmp_path: Path) -> None:
    # w has two events, but one of them is of an item that falls; then v's item b falls too.
    log = read(
        tmp_path,
        event("u", "a", 1), event("v", "a", 2), event("u", "c", 3), event("v", "c", 4),
        event("w", "a", 5), event("w", "lonely", 6),
    )  # fmt: skip
    kept = core(log, 2)
    assert kept.batch.users == ["u", "v", "u", "v"]
    assert kept.user_ids == ["u", "v"]
    assert len(kept.item_hashes) == 2
    assert core(log, 1) is log
    assert len(core(log, 3)) == 0


def test_core_keeps_a_retraction_only_with_the_event_it_takes_back(tmp_path: Path) -> None:
    log = read(
        tmp_path,
        event("u", "a", 1, event_id="kept"), event("u", "a", 2),
        event("u", "lonely", 3, event_id="gone"),
        {"user_id": "u", "retracts": "kept", "timestamp": 4},
        {"user_id": "u", "retracts": "gone", "timestamp": 5},
    )  # fmt: skip
    kept = core(log, 2)
    assert kept.batch.times.tolist() == [1.0, 2.0, 4.0]


def test_gts_cuts_at_quantiles_of_time_and_targets_have_a_past(tmp_path: Path) -> None:
    log = read(tmp_path, *(event("u", f"i{n}", n) for n in range(9)), event("new", "a", 9))
    found = split(log, "gts")
    np.testing.assert_allclose(found.cuts, (7.2, 8.1))
    assert found.parts.tolist() == [0] * 8 + [1, 2]
    assert found.validation.tolist() == [8]
    assert found.test.tolist() == []  # the only test event is its user's first


def test_loo_takes_the_last_event_of_each_user_and_the_one_before(tmp_path: Path) -> None:
    log = read(
        tmp_path,
        event("u", "a", 1), event("v", "a", 2), event("u", "b", 3), event("u", "c", 4),
        event("u", "d", 5, kind="hide"), event("once", "a", 6), event("v", "b", 7),
    )  # fmt: skip
    found = split(log, "loo")
    assert found.test.tolist() == [3, 6]  # u's c, for a refusal is no target; v's b
    assert found.validation.tolist() == [2]  # v's first event has no past
    assert found.parts.tolist() == [0, 0, 1, 2, TEST, 0, 2]


def test_a_low_rating_can_be_a_target_and_a_refusal_cannot(tmp_path: Path) -> None:
    log = read(
        tmp_path,
        event("u", "a", 1, kind="rate", value=1.0),
        event("u", "b", 2, kind="dislike"),
        event("u", "c", 3, kind="impression"),
    )
    assert log.positive.tolist() == [True, False, False]


def test_splits_of_nothing_are_empty(tmp_path: Path) -> None:
    nothing = core(read(tmp_path, event("u", "a", 1)), 2)
    for protocol in PROTOCOLS:
        found = split(nothing, protocol)
        assert len(found.test) == len(found.validation) == len(found.parts) == 0


def test_events_at_one_time_all_belong_to_the_test_part(tmp_path: Path) -> None:
    log = read(tmp_path, *(event("u", f"i{n}", 5) for n in range(4)))
    found = split(log, "gts")
    assert found.parts.tolist() == [TEST] * 4
    assert found.test.tolist() == [1, 2, 3]


def test_a_purchase_of_a_negative_quantity_is_a_return_and_no_target(tmp_path: Path) -> None:
    quantities = (2.0, -1.0, 0.0, None)
    more = [{} if quantity is None else {"value": quantity} for quantity in quantities]
    events = [event("u", f"i{n}", n, kind="purchase", **extra) for n, extra in enumerate(more)]
    log = read(tmp_path, *events, event("u", "x", 9, kind="dwell", value=-3.0))
    assert log.batch.weights.tolist() == [6.0, -2.0, 0.0, 3.0, 0.0]
    assert log.batch.kinds[1] == kind_code("return")
    assert log.positive.tolist() == [True, False, False, True, False]
    labels = LabelRule().labels(log.batch.kinds, log.batch.values, log.batch.weights)
    assert labels.tolist() == [1, 0, -1, 1, -1]


def test_times_of_any_unit_are_read_and_said_and_the_unit_can_be_given(tmp_path: Path) -> None:
    path = write(tmp_path / "events.jsonl", [event("u", "a", 2000.0), event("u", "b", 3000.0)])
    reading = event_reading(timestamps="ms")
    log = read_event_log([path], Kinds.default(), NOT_AFTER, reading)
    assert log.batch.times.tolist() == [2.0, 3.0]
    assert log.notes == [
        "timestamps are taken as ms",
        "2 timestamps lie before 1990, the first 1970-01-01; if they do not, they are of another"
        " unit (--timestamps)",
    ]
    path = write(tmp_path / "more.jsonl", [event("u", "a", 1.1e12), event("u", "b", 1.2e15)])
    log = read_event_log([path], Kinds.default(), 4e9)
    assert log.batch.times.tolist() == [1.1e9, 1.2e9]
    assert log.notes == ["timestamps are taken as ms", "timestamps are taken as us"]
