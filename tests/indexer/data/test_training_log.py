"""What is said of logged events that were read, and which are refused."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.data.histories import EventFileError, core, read_event_log
from indexer.data.training_log import check_core, check_events, read_log
from tracker.events.kinds import Kinds
from tracker.events.wire import hash_id


def event(number: int, item: str = "i{n}", kind: str = "like", **more: Any) -> str:
    line = {
        "user_id": f"u{number % 5}", "item_id": item.format(n=number), "kind": kind,
        "timestamp": 1.7e9 + number, **more,
    }  # fmt: skip
    return json.dumps(line)


def check(folder: Path, lines: Sequence[str], items: int = 100) -> str:
    path = folder / "events.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    log = read_event_log([path], Kinds.default(), 4e9)
    hashes = np.array([hash_id(f"i{n}") for n in range(items)], np.uint64)
    said = check_events([path], log, np.isin(log.batch.items, hashes), "the catalogue")
    return said.replace(str(path), "events.jsonl")


def test_events_that_are_all_taken_are_counted_and_nothing_else_is_said(tmp_path: Path) -> None:
    assert check(tmp_path, [event(n) for n in range(100)]) == "events.jsonl: 100 events"


def test_what_is_left_out_is_named_by_reason_and_what_is_not_in_the_catalogue_is_counted(
    tmp_path: Path,
) -> None:
    good = [event(n, event_id=f"e{n}") for n in range(48)]
    others = [event(n, "other{n}") for n in (1, 1, 2)]
    said = check(tmp_path, [*good, "garbage", '{"user_id":"u"}', *others, good[0]])
    assert said.splitlines() == [
        "events.jsonl: 51 events; 2 lines left out; 1 repeated event_id left out;"
        " 3 events of 2 items that are not in the catalogue",
        "  not_json (1):",
        "    events.jsonl, line 49: not JSON: JSON is malformed: invalid character (byte 0)",
        "  missing_field (1):",
        "    events.jsonl, line 50: item_id, kind, timestamp missing; an event carries user_id,"
        " item_id, kind and timestamp, a retraction user_id and retracts",
    ]


def test_more_than_a_tenth_of_bad_lines_is_refused_with_the_first(tmp_path: Path) -> None:
    with pytest.raises(EventFileError, match=r"(?s)1 event; 9 lines left out.*a tenth.*line 2: "):
        check(tmp_path, [event(0), *["# prose"] * 9])
    assert "1 line left out" in check(tmp_path, [*(event(n) for n in range(9)), "# prose"])


def test_unknown_kinds_are_named_with_their_counts_and_the_option(tmp_path: Path) -> None:
    lines = [*(event(n, kind="veiw") for n in range(12)), event(0, kind="clik")]
    wanted = r"unknown kinds: 'veiw' \(12 events\), 'clik' \(1 event\).*--kinds"
    with pytest.raises(EventFileError, match=wanted):
        check(tmp_path, lines)
    with pytest.raises(EventFileError, match=wanted):
        check(tmp_path, [*lines, '{"user_id":"u1","retracts":"e1"}'])
    many = [event(n, kind=f"kind{n % 8}") for n in range(80)]
    with pytest.raises(EventFileError, match=r"'kind4' \(10 events\), 3 more; name them"):
        check(tmp_path, many)


def test_events_of_another_catalogue_are_refused(tmp_path: Path) -> None:
    wanted = "none of the 20 events is of an item of the catalogue; item_id must be the same"
    retraction = '{"user_id":"u1","retracts":"e1"}'
    with pytest.raises(EventFileError, match=wanted):
        check(tmp_path, [*(event(n, "other{n}") for n in range(20)), retraction])
    with pytest.raises(EventFileError, match="all of them retractions"):
        check(tmp_path, [retraction] * 3)


def test_a_core_that_nothing_is_left_of_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(event(0))
    log = read_event_log([path], Kinds.default(), 4e9)
    check_core(core(log, 1), 1)
    with pytest.raises(EventFileError, match="2 events or more; choose a smaller --core"):
        check_core(core(log, 2), 2)


def test_up_to_ten_bad_lines_are_named_each_reason_with_its_share(tmp_path: Path) -> None:
    bad = [*["# prose"] * 30, '{"user_id":"u"}', *["null"] * 30]
    with pytest.raises(EventFileError) as refused:
        check(tmp_path, [event(0), *bad])
    lines = str(refused.value).splitlines()[1:]
    assert [line for line in lines if line.startswith("  ") and not line.startswith("    ")] == [
        "  not_json (30):", "  wrong_type (30):", "  missing_field (1):",
    ]  # fmt: skip
    named = [int(line.split(", line ")[1].split(":")[0]) for line in lines if ", line " in line]
    assert named == [2, 3, 4, 5, 6, 33, 34, 35, 36, 32]


def test_fields_that_an_event_does_not_have_are_ignored_and_named_once(tmp_path: Path) -> None:
    said = check(tmp_path, [event(n, page="/home", session=5) for n in range(9)])
    assert said == "events.jsonl: 9 events\n  fields not used: page, session"


def rated(path: Path, values: Sequence[float]) -> Path:
    lines = [event(n, kind="rate", value=value) for n, value in enumerate(values)]
    file = path / "ratings.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def test_ratings_of_0_and_1_are_a_scale_of_their_own_and_it_is_said(tmp_path: Path) -> None:
    log, scale = read_log([rated(tmp_path, [0.0, 1.0] * 400)], Kinds.default(), (1.0, 5.0), 4e9)
    assert scale == (0.0, 1.0)
    assert np.unique(log.batch.weights).tolist() == [-2.0, 2.0]
    assert log.notes == [
        "ratings: scale 0 to 1, from the distribution: 800 ratings, most often 0 (50%), 1 (50%)"
    ]


def test_ratings_weigh_in_files_as_on_the_stream(tmp_path: Path) -> None:
    values = [0.5, 1.1, 2.7, 3.3, 4.9, 5.0, -1.0, 77.0] * 20 + [3.0] * 2000
    log, scale = read_log([rated(tmp_path, values)], Kinds.default(), None, 4e9, None, (1.0, 5.0))
    assert scale == (1.0, 5.0)
    kinds = Kinds.default(1.0, 5.0)
    live = np.array([kinds.weight("rate", value) for value in values], np.float32)
    np.testing.assert_array_equal(log.batch.weights, live)
    unrated = np.array(values) == -1.0
    np.testing.assert_array_equal(np.isnan(log.batch.values), unrated)
    assert (log.batch.weights[unrated] == 0.0).all()


def test_a_scale_outside_which_most_ratings_lie_is_refused(tmp_path: Path) -> None:
    path = rated(tmp_path, [0.0, 0.0, 1.0] * 300)
    with pytest.raises(EventFileError, match=r"600 of 900 \(66.7%\) lie outside \(0\)"):
        read_log([path], Kinds.default(), None, 4e9, None, (1.0, 5.0))
