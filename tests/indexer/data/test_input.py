"""One reader for JSON lines, gzip and Parquet: what it yields, and how it names what it cannot."""

import gzip
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer.data.input import MAX_LINE_BYTES, read_entries, read_structs
from tracker.events.lines import InputError


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
        names: set[str] = set()
        found = list(read_structs(path, Thing, names))
        assert found == [
            (f"{path}, {place}", thing) for place, thing in zip(places, wanted, strict=True)
        ]
        assert names == {"name", "tags", "more"}


def test_only_the_columns_that_are_asked_for_are_read(tmp_path: Path) -> None:
    path = tmp_path / "things.parquet"
    pq.write_table(pa.table({"name": ["a", None], "tags": [1, 2], "more": [1, 2]}), path)
    assert list(read_entries(path, ["name", "tags"])) == [
        (1, {"name": "a", "tags": 1}),
        (2, {"tags": 2}),
    ]
    assert list(read_entries(path))[1] == (2, {"tags": 2, "more": 2})


def test_a_line_that_is_no_struct_comes_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "things.jsonl"
    long = b'{"name": "' + b"x" * MAX_LINE_BYTES + b'"}\n'
    path.write_bytes(b'{\n{"name": 7}\n\xff\n' + b"[" * 5000 + b"\n" + long + b'{"name": "a"}')
    found = dict(read_structs(path, Thing))
    assert [place.removeprefix(f"{path}, ") for place in found] == [
        f"line {number}" for number in range(1, 7)
    ]
    reasons = list(found.values())
    assert str(reasons[0]).startswith("not JSON (Input data was truncated")
    assert str(reasons[1]).startswith("Expected `str`, got `int`")
    assert all("one JSON object per line is expected" in str(reasons[n]) for n in (0, 2))
    assert reasons[4] == f"longer than {MAX_LINE_BYTES} bytes; a shorter line is expected"
    assert reasons[5] == Thing("a")


def absent(path: Path) -> None:
    pass


def text(path: Path) -> None:
    path.write_text("plain text")


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.jsonl", absent, r"a\.jsonl: cannot be read: No such file"),
        ("a.jsonl", folder, r"a\.jsonl: cannot be read: Is a directory"),
        ("a.jsonl.gz", text, r"a\.jsonl\.gz: not gzip, or cut short: Not a gzipped file"),
        ("a.parquet", absent, r"a\.parquet: cannot be read: No such file"),
        ("a.pq", text, r"a\.pq: not Parquet: Parquet magic bytes"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, name: str, make: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / name
    make(path)
    with pytest.raises(InputError, match=message):
        list(read_entries(path))
