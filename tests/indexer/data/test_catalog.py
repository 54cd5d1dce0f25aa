"""Items read from files, and what is said of those that cannot be."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from indexer.data.catalog import CatalogError, Item, read_items
from tracker.events.entries import MAX_LINE_BYTES


def write(path: Path, *lines: Any) -> Path:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def test_items_are_read_in_the_order_of_their_files(tmp_path: Path) -> None:
    one = write(
        tmp_path / "a.jsonl", {"item_id": "b", "text": "boots"}, {"item_id": "a", "title": "axe"}
    )
    two = tmp_path / "b.jsonl.gz"
    two.write_bytes(gzip.compress(b'\xef\xbb\xbf{"item_id": "c", "text": "cup"}\n\n'))
    catalog = read_items([one, two])
    assert [item.item_id for item in catalog.items] == ["b", "a", "c"]
    assert catalog.skipped == 0


def test_text_is_encoded_as_it_is_and_a_title_with_its_categories() -> None:
    assert Item("x", text=" a cup ", title="Cup").encoded_text() == "a cup"
    assert Item("x", title="Cup", categories=["Home", ""]).encoded_text() == "Cup. Home"
    assert Item("x", categories=["Home"]).encoded_text() == "Home"
    assert Item("x", text=" ").encoded_text() == ""


def test_an_item_is_labelled_by_its_first_category_or_the_head_of_its_title() -> None:
    assert Item("x", title="Cup", categories=["", " Home "]).label() == "Home"
    assert Item("x", title="t" * 50).label() == "t" * 40
    assert Item("x", text="some text").label() == "some text"


def test_parquet_is_read_as_json_lines_are(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    table = pyarrow.table(
        {
            "item_id": ["a", "b"],
            "title": ["axe", None],
            "text": [None, "boots"],
            "categories": [["tools"], None],
            "attributes": pyarrow.array(
                [[("colour", "red")], None], pyarrow.map_(pyarrow.string(), pyarrow.string())
            ),
            "price": [1.0, 2.0],
        }
    )
    pyarrow.parquet.write_table(table, path)
    catalog = read_items([path])
    assert catalog.items == [
        Item("a", title="axe", categories=["tools"], attributes={"colour": "red"}),
        Item("b", text="boots"),
    ]
    assert catalog.ignored_fields == ["price"]


def test_a_parquet_row_of_another_type_is_named(tmp_path: Path) -> None:
    path = tmp_path / "items.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"item_id": [7.0], "text": ["axe"]}), path)
    with pytest.raises(CatalogError, match=r"items.parquet, row 1: item_id is the float 7.0"):
        read_items([path])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "not JSON"),
        ("[1, 2]", "Expected `object`, got `array`"),
        ({"text": "axe"}, "missing required field `item_id`"),
        ({"item_id": 5.5, "text": "axe"}, "item_id is the float 5.5"),
        ({"item_id": ["a"], "text": "axe"}, "item_id is an array"),
        ({"item_id": "a", "title": ["axe"]}, "Expected `str . null`, got `array`"),
        ({"item_id": "", "text": "axe"}, "length >= 1"),
        ({"item_id": " ", "text": "axe"}, "item_id is blank"),
        ({"item_id": "a" * 257, "text": "axe"}, "length <= 256"),
        ({"item_id": "ü" * 200, "text": "axe"}, "400 bytes; at most 256"),
        (
            {"item_id": "good", "text": "axe"},
            r"'good' again; it is at .*items.jsonl, line 1 already",
        ),
        ('{"item_id": "a", "text": "' + "x" * MAX_LINE_BYTES + '"}', "longer than 1048576 bytes"),
    ],
)
def test_a_bad_line_is_refused_with_its_place_or_skipped(
    tmp_path: Path, line: Any, message: str
) -> None:
    good = {"item_id": "good", "text": "a good item"}
    path = write(tmp_path / "items.jsonl", good, line, {"item_id": "last", "text": "the end"})
    with pytest.raises(
        CatalogError, match=r"(?s)1 of 3 items cannot be used.*jsonl, line 2: .*" + message
    ):
        read_items([path])
    catalog = read_items([path], skip_bad=True)
    assert [item.item_id for item in catalog.items] == ["good", "last"]
    assert catalog.skipped == 1
    assert f"{path}, line 2" == catalog.problems[0].place


def test_the_first_ten_bad_lines_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "items.jsonl", *["nonsense"] * 25)
    with pytest.raises(CatalogError) as caught:
        read_items([path])
    assert caught.value.total == 25
    assert len(caught.value.problems) == 10
    assert str(caught.value).endswith("and 15 more")


@pytest.mark.parametrize(
    "empty", [{}, {"text": "  "}, {"title": ""}, {"title": None}, {"categories": [""]}]
)
def test_items_without_text_are_kept_counted_and_named(
    tmp_path: Path, empty: dict[str, Any]
) -> None:
    full = [{"item_id": f"full-{n}", "text": f"item {n}"} for n in range(12)]
    without = [{"item_id": f"empty-{n}"} | empty for n in range(12)]
    catalog = read_items([write(tmp_path / "few.jsonl", *without[:2], *full)])
    assert (len(catalog.items), catalog.without_text, catalog.skipped) == (14, 2, 0)
    (note,) = catalog.notes
    assert note.startswith("2 of 14 items have no text")
    assert note.endswith("they are: empty-0, empty-1")
    (note,) = read_items([write(tmp_path / "half.jsonl", *without, *full)]).notes
    assert note.startswith("12 of 24 items have no text")
    assert note.endswith("empty-8, empty-9 and 2 more")
    more = write(tmp_path / "more.jsonl", *without, *full[1:])
    with pytest.raises(CatalogError, match=r"12 of 23 items have no text; at most half expected"):
        read_items([more])
    with pytest.raises(CatalogError, match="1 of 1 items have no text"):
        read_items([write(tmp_path / "one.jsonl", without[0])], skip_bad=True)


def test_an_empty_catalogue_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "items.jsonl", "")
    with pytest.raises(CatalogError, match="no item; one JSON object per line is expected"):
        read_items([path])
    bad = write(tmp_path / "bad.jsonl", "x")
    with pytest.raises(CatalogError, match="no item"):
        read_items([bad], skip_bad=True)


@pytest.mark.parametrize("rows", ["foo,bar\n1,2\n", "foo,bar\n"])
def test_a_table_without_a_column_of_ids_is_refused_with_its_columns(
    tmp_path: Path, rows: str
) -> None:
    path = tmp_path / "items.csv"
    path.write_text(rows, encoding="utf-8")
    with pytest.raises(CatalogError, match=r"items\.csv: no column item_id; there are foo, bar$"):
        read_items([path])


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"absent.jsonl: cannot be read: No such file"):
        read_items([tmp_path / "absent.jsonl"])
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(gzip.compress(b'{"item_id": "c", "text": "cup"}\n' * 100)[:-12])
    with pytest.raises(
        CatalogError, match=r"cut.jsonl.gz: its compression is damaged, or cut short"
    ):
        read_items([cut])
    plain = tmp_path / "plain.jsonl.gz"
    plain.write_bytes(b"\0\1")
    with pytest.raises(CatalogError, match=r"plain.jsonl.gz: not gzip"):
        read_items([plain])
    table = tmp_path / "items.parquet"
    table.write_bytes(b"no table")
    with pytest.raises(CatalogError, match=r"items.parquet: not Parquet"):
        read_items([table])


def test_an_item_with_null_categories_stays_and_numeric_ids_are_their_text(tmp_path: Path) -> None:
    lines = (
        {"item_id": "cy-0", "title": "A road bike for cycling", "categories": None},
        {"item_id": 17, "title": "A helmet", "categories": ["Cycling"]},
        {"item_id": "a", "title": "A lamp", "attributes": {"size": {"x": 1}, "watts": 5}},
    )
    catalog = read_items([write(tmp_path / "items.jsonl", *lines)])
    assert [(item.item_id, item.categories) for item in catalog.items] == [
        ("cy-0", []), ("17", ["Cycling"]), ("a", []),
    ]  # fmt: skip
    assert catalog.items[2].attributes == {"watts": 5}
    assert catalog.notes == [
        "attributes left out, not text, number, true, false or list of texts: size (1)"
    ]
