"""A demonstration's events are split into the bulk and one user's story."""

import gzip
from pathlib import Path

import pytest

from tracker.demo.input import DemoInput, load_input, shipped
from tracker.events.opening import InputError
from tracker.events.wire import decode_event


def event(user: str, item: str, **more: object) -> str:
    fields: dict[str, object] = {"user_id": user, "item_id": item, "kind": "click"}
    fields |= {"timestamp": 1000, **more}
    return str(fields).replace("'", '"')


def load(tmp_path: Path, *lines: str, limit: int | None = None) -> DemoInput:
    events, items = tmp_path / "events.jsonl", tmp_path / "items.jsonl.gz"
    events.write_text("\n".join(lines))
    items.write_bytes(gzip.compress(b'{"item_id":"i1","title":"One"}\n{"oops\n'))
    return load_input([str(items)], [str(events)], None, limit)


def users(found: DemoInput) -> list[str]:
    return [decode_event(line.value).user_id for line in found.bulk]


def test_story_is_the_last_events_of_the_last_user_with_enough_of_them(tmp_path: Path) -> None:
    found = load(tmp_path, *[event("ann", f"i{n}") for n in range(12)], event("bob", "i1"))
    assert found.user_id == "ann"
    assert [decode_event(line.value).item_id for line in found.story] == [
        "i7", "i8", "i9", "i10", "i11",
    ]  # fmt: skip
    assert users(found) == ["ann"] * 7 + ["bob"]
    assert found.events == 13


def test_user_with_few_events_keeps_half_of_them_for_the_story(tmp_path: Path) -> None:
    found = load(tmp_path, event("ann", "i1"), event("bob", "i1"), event("ann", "i2"))
    assert (found.user_id, len(found.story), len(found.bulk)) == ("ann", 1, 2)


def test_single_event_is_the_story(tmp_path: Path) -> None:
    found = load(tmp_path, event("ann", "i1"))
    assert (len(found.story), len(found.bulk)) == (1, 0)


def test_limit_takes_the_first_events(tmp_path: Path) -> None:
    found = load(tmp_path, *[event("ann", f"i{n}") for n in range(12)], limit=4)
    assert found.events == 4


def test_bad_lines_are_left_out_and_named(tmp_path: Path) -> None:
    found = load(tmp_path, event("ann", "i1"), "{oops", event("ann", "i2"))
    assert found.events == 2
    assert "line 2: not_json" in found.bad[0]


@pytest.mark.parametrize(("value", "scale"), [(5, (1.0, 5.0)), (6, (0.0, 10.0))])
def test_scale_of_ratings_is_seen_from_the_values(
    tmp_path: Path, value: int, scale: tuple[float, float]
) -> None:
    found = load(tmp_path, event("ann", "i1", kind="rate", value=value))
    assert found.rating_scale == scale


def test_titles_are_read_and_lines_that_are_no_items_left_to_the_indexer(tmp_path: Path) -> None:
    assert load(tmp_path, event("ann", "i1")).titles == {"i1": "One"}


def test_paced_copies_are_new_events_of_the_latest_time(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        event("ann", "i1", event_id="e1", timestamp=500),
        '{"user_id":"ann","retracts":"e1"}',
        event("bob", "i2", timestamp=900),
        event("bob", "i3", timestamp=950),
    )
    copies = [decode_event(line.value) for line in found.paced(4)]
    assert len(copies) == 4
    assert all(copy.event_id is None and copy.retracts is None for copy in copies)
    assert {copy.timestamp for copy in copies} == {max(found_times(found))}


def found_times(found: DemoInput) -> list[float]:
    times = [decode_event(line.value).timestamp for line in found.bulk]
    return [float(time) for time in times if time is not None]


def test_nothing_to_pace_is_nothing(tmp_path: Path) -> None:
    assert list(load(tmp_path, event("ann", "i1")).paced(4)) == []


def test_files_without_an_event_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no event in"):
        load(tmp_path, "{oops")


def test_users_that_are_no_users_are_named_by_line(tmp_path: Path) -> None:
    bad = tmp_path / "users.jsonl"
    bad.write_text('{"user_id":"x"}\n{"name":"y"}\n')
    with pytest.raises(InputError, match=r"users\.jsonl, line 2: "):
        load_input([shipped("items.jsonl")], [shipped("events.jsonl")], str(bad), None)


def test_shipped_story_is_a_change_of_taste_with_the_users_attributes() -> None:
    found = load_input(
        [shipped("items.jsonl")], [shipped("events.jsonl")], shipped("users.jsonl"), None
    )
    assert found.user_id == "ada"
    assert len(found.story) == 5
    assert found.bad == []
    assert found.attributes
    assert all(decode_event(line.value).user_id == "ada" for line in found.story)
    assert len(found.titles) == 300
