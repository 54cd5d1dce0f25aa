"""One reader for JSON lines, gzip and Parquet: what it yields, and how it names what it cannot."""

import gzip
from collections import Counter
from decimal import Decimal
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.data.catalog import Item
from indexer.data.input import read_structs
from tracker.events.entries import MAX_LINE_BYTES, Reading
from tracker.events.wire import User


class Thing(msgspec.Struct):
    """A struct with a required and an optional field."""

    name: str
    tags: dict[str, str | int] = {}


def test_lines_and_rows_give_the_same_structs(tmp_path: Path) -> None:
    plain = tmp_path / "things.jsonl"
    plain.write_text('{"name": "a", "tags": {"x": "1"}}\n\n{"name": "b", "more": 1}\n')
    packed = tmp_path / "things.JSONL.GZ"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    rows = tmp_path / "things.PQ"
    tags = pa.array([[("x", "1"), ("y", None)], None], pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"name": ["a", "b"], "tags": tags, "more": [1, 2]}), rows)
    wanted = [Thing("a", {"x": "1"}), Thing("b")]
    for path, places in ((plain, ("line 1", "line 3")), (packed, ("line 1", "line 3")),
                         (rows, ("row 1", "row 2"))):  # fmt: skip
        reading = Reading()
        found = list(read_structs(path, Thing, reading))
        assert found == [
            (f"{path}, {place}", thing) for place, thing in zip(places, wanted, strict=True)
        ]
        assert list(reading.notes.unused) == ["more"]


def test_a_line_that_is_no_struct_comes_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "things.jsonl"
    long = b'{"name": "' + b"x" * MAX_LINE_BYTES + b'"}\n'
    path.write_bytes(b'{\n{"name": 7}\n\xff\n' + b"[" * 5000 + b"\n" + long + b'{"name": "a"}')
    found = dict(read_structs(path, Thing))
    assert [place.removeprefix(f"{path}, ") for place in found] == [
        f"line {number}" for number in range(1, 7)
    ]
    reasons = list(found.values())
    assert str(reasons[0]).startswith("an object over several lines")
    assert str(reasons[1]).startswith("Expected `str`, got `int`")
    assert all(" is expected" in str(reasons[n]) for n in (0, 2))
    assert reasons[4] == f"longer than {MAX_LINE_BYTES} bytes; a shorter line is expected"
    assert reasons[5] == Thing("a")


def test_null_is_absent_everywhere_and_what_cannot_be_kept_is_left_out_and_counted(
    tmp_path: Path,
) -> None:
    rows = tmp_path / "items.parquet"
    released = pa.array([1_714_500_000_000_000_007, None], pa.timestamp("ns"))
    sizes = pa.array([Decimal("1.50"), None], pa.decimal128(5, 2))
    parts = pa.StructArray.from_arrays(
        [released, sizes, pa.array(["red", None]), pa.array([float("nan"), 2.0])],
        ["released", "size", "colour", "weight"],
    )
    categories = pa.array([["x", None], None], pa.list_(pa.string()))
    table = {"item_id": ["a", "b"], "title": ["A", "B"], "attributes": parts}
    pq.write_table(pa.table({**table, "categories": categories}), rows)
    lines = tmp_path / "items.jsonl"
    lines.write_text(
        '{"item_id": "a", "title": "A", "text": null, "categories": ["x", null], "attributes":'
        ' {"released": {"year": 1}, "size": [1, 2], "colour": "red", "weight": null}}\n'
        '{"item_id": "b", "title": "B", "categories": null, "attributes": {"weight": 2.0}}\n'
    )
    wanted = [
        Item("a", title="A", categories=["x"], attributes={"colour": "red"}),
        Item("b", title="B", attributes={"weight": 2.0}),
    ]
    for path, left_out in ((rows, {"released": 1}), (lines, {"released": 1, "size": 1})):
        counts: Counter[str] = Counter()
        found = [item for _, item in read_structs(path, Item, None, counts)]
        if path == rows:  # a decimal is a number
            assert isinstance(found[0], Item)
            assert found[0].attributes.pop("size") == 1.5
        assert found == wanted
        assert counts == left_out


def test_a_user_stays_whose_attributes_are_null_nested_or_unknown(tmp_path: Path) -> None:
    path = tmp_path / "users.jsonl"
    path.write_text(
        '{"user_id": "a", "attributes": null, "email": "a@b.c"}\n'
        '{"user_id": "b", "attributes": {"age": 7, "address": {"town": "x"}, "club": null}}\n'
    )
    counts: Counter[str] = Counter()
    reading = Reading()
    assert [user for _, user in read_structs(path, User, reading, counts)] == [
        User("a"),
        User("b", {"age": 7}),
    ]
    assert counts == {"address": 1}
    assert list(reading.notes.unused) == ["email"]


def test_items_from_a_table_of_text_have_categories_and_attributes(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text(
        "item_id,title,categories,attributes,attributes.size,price\n"
        '007,1917,War|Drama,"{""colour"": ""red""}",XL,3\n'
    )
    (found,) = [item for _, item in read_structs(path, Item)]
    assert found == Item(
        "007", title="1917", categories=["War", "Drama"],
        attributes={"colour": "red", "size": "XL"},
    )  # fmt: skip


def test_a_title_that_is_a_number_is_text_and_one_category_is_a_list(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"item_id": "a", "title": 1917, "categories": "War"}')
    (found,) = [item for _, item in read_structs(path, Item)]
    assert found == Item("a", title="1917", categories=["War"])


def test_attributes_of_any_type_are_left_out_and_the_item_stays(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    columns = {
        "item_id": ["a"],
        "attributes.raw": pa.array([b"\xff"], pa.binary()),
        "attributes.opens": pa.array([3600], pa.time32("s")),
        "attributes.size": ["M"],
        "attributes.day": pa.array([19_843], pa.date32()),
        "attributes.since": pa.array([1_714_500_000_000_000_007], pa.timestamp("ns", "UTC")),
        "attributes.price": pa.array([Decimal("1.50")], pa.decimal128(5, 2)),
    }
    pq.write_table(pa.table(columns), path)
    counts: Counter[str] = Counter()
    (item,) = [item for _, item in read_structs(path, Item, left_out=counts)]
    assert item == Item("a", attributes={"size": "M", "price": 1.5})
    assert counts == {"raw": 1, "opens": 1, "day": 1, "since": 1}


@pytest.mark.parametrize(
    ("categories", "kept"), [(7, ["7"]), ({"a": 1}, []), (1.5, []), (["a", {"b": 1}], ["a"])]
)
def test_categories_of_any_type_are_kept_or_left_out(
    tmp_path: Path, categories: object, kept: list[str]
) -> None:
    path = tmp_path / "items.jsonl"
    path.write_bytes(msgspec.json.encode({"item_id": "a", "categories": categories}))
    counts: Counter[str] = Counter()
    (item,) = [item for _, item in read_structs(path, Item, left_out=counts)]
    assert item == Item("a", categories=kept)
    assert ("categories" in counts) == (kept != ["7"])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (
            '{"name": "a", "tags": {"size": 1e999}}',
            "out of range; numbers below 1e308 are expected",
        ),
        ('{"nam": "a"}', "missing required field `name`; `nam` looks like `name`"),
        ('{"name": NaN}', "it knows neither NaN nor Infinity"),
        ('{"name": "a"},', "a comma after the object"),
    ],
)
def test_a_line_is_named_by_its_kind_as_records_are(tmp_path: Path, line: str, why: str) -> None:
    path = tmp_path / "things.jsonl"
    path.write_text(f"{line}\n")
    ((_, found),) = read_structs(path, Thing)
    assert why in str(found)
