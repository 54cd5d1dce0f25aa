"""One way to read files: formats, compression, folders, columns, and what is refused."""

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracker.events.arrivals import Arrivals
from tracker.events.batch import EventReader, events_in
from tracker.events.entries import Reading, entries, event_reading, parse_columns, read_lines
from tracker.events.kinds import Kinds
from tracker.events.opening import InputError
from tracker.events.times import Unit, seconds
from tracker.events.wire import Undecodable

EVENTS: list[dict[str, Any]] = [
    {"user_id": "u", "item_id": "007", "kind": "rate", "timestamp": 1714500000, "value": 3.5},
    {"user_id": "v", "item_id": "zoë", "kind": "view", "timestamp": 1714500001},
]
LINES = "".join(json.dumps(event) + "\n" for event in EVENTS).encode()


def zstandard(data: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(data))


def parquet(**options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(EVENTS), out, **options)
    return out.getvalue()


def read(*paths: Path | str, reading: Reading | None = None) -> list[dict[str, Any]]:
    sources = [str(path) for path in paths]
    return [json.loads(line.value) for line in read_lines(sources, reading or event_reading())]


COMMAS = "user_id,item_id,kind,timestamp,value\nu,007,rate,1714500000,3.5\nv,zoë,view,1714500001,\n"
SEMICOLONS = COMMAS.replace(",", ";").replace("3.5", "3,5")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("events.jsonl", LINES),
        ("events.JSONL", b"\xef\xbb\xbf" + LINES.replace(b"\n", b"\r\n")),
        ("events.jsonl.gz", gzip.compress(b"\xef\xbb\xbf" + LINES, mtime=0)),
        ("events.json.GZ", gzip.compress(LINES, mtime=0)),
        ("events", gzip.compress(LINES, mtime=0)),
        ("events.jsonl.zst", zstandard(LINES)),
        ("events.jsonl.bz2", bz2.compress(LINES)),
        ("events.jsonl.xz", lzma.compress(LINES)),
        ("events.json", json.dumps(EVENTS, indent=2).encode()),
        ("events.parquet", parquet()),
        ("events.PQ", parquet(compression="zstd")),
        ("events.snappy.parquet", parquet(compression="snappy")),
        ("events", parquet()),
        ("events.csv", COMMAS.encode()),
        ("events.CSV.gz", gzip.compress(b"\xef\xbb\xbf" + COMMAS.encode(), mtime=0)),
        ("events.csv.zst", zstandard(COMMAS.encode())),
        ("events.tsv", COMMAS.replace(",", "\t").encode()),
        ("events.txt", COMMAS.replace(",", "\t").encode("utf-16")),
        ("events.csv", SEMICOLONS.encode("cp1252")),
        ("events.csv", SEMICOLONS.replace("\n", "\r\n").encode("utf-16")),
        ("events.csv", COMMAS.encode("utf-16-le")),
        ("events.csv", COMMAS.replace("\n", "\r").encode()),
        ("events.jsonl", LINES.replace(b"\n", b"\r")),
        ("events.csv", COMMAS.replace("\n", "\r").encode("utf-16")),
        ("events.csv", b"sep=;\r\n" + SEMICOLONS.replace("\n", "\r\n").encode()),
        ("events.csv", b"# ----\n# Events of May\n\n" + COMMAS.encode()),
        ("events.csv", COMMAS.replace("3.5", '"3,5"').encode()),
        ("events.jsonl.gz", LINES),
        ("events.csv.zst", COMMAS.encode()),
        ("events.jsonl.lz4", bytes(pa.Codec("lz4").compress(LINES))),
        ("events.csv", ('"' + COMMAS.replace(",", '","').replace("\n", '"\n"')).encode()),
    ],
)
def test_every_format_gives_the_same_events(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert read(path) == EVENTS


@pytest.mark.parametrize(
    "content", [LINES, gzip.compress(LINES, mtime=0), parquet(), COMMAS.encode()]
)
def test_standard_input_is_read_as_a_file_is(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert read("-") == EVENTS


def test_a_folder_is_its_part_files_in_order_of_their_names(tmp_path: Path) -> None:
    folder = tmp_path / "events.parquet"
    for day, event in enumerate(EVENTS):
        part = folder / f"day=2024-05-0{day + 1}"
        part.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([event]), part / "part-00000.snappy.parquet")
        (part / ".part-00000.snappy.parquet.crc").write_bytes(b"crc")
    (folder / "_SUCCESS").touch()
    reading = event_reading()
    assert read(folder, reading=reading) == EVENTS
    assert reading.notes.lines(reading.fields or ()) == ["fields not used: day"]


def test_a_column_in_the_names_of_folders_is_read(tmp_path: Path) -> None:
    part = tmp_path / "kind=view"
    part.mkdir()
    (part / "part.csv").write_text("user_id,item_id,timestamp\nu,a,5\n")
    assert read(tmp_path) == [{"user_id": "u", "item_id": "a", "kind": "view", "timestamp": 5}]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data file"):
        read(tmp_path)


def test_columns_of_other_names_are_read_under_ours_in_every_format(tmp_path: Path) -> None:
    columns = parse_columns("user=visitorid, item=itemid, kind=event,timestamp=timestamp")
    table = "timestamp,visitorid,event,itemid,transactionid,user_id\n5,257597,view,355908,,x\n"
    (tmp_path / "events.csv").write_text(table)
    row = {"timestamp": 5, "visitorid": "257597", "event": "view", "itemid": "355908",
           "transactionid": None, "user_id": "x"}  # fmt: skip
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "events.parquet")
    (tmp_path / "events.jsonl").write_text(json.dumps(row))
    wanted = {"user_id": "257597", "item_id": "355908", "kind": "view", "timestamp": 5}
    for name in ("events.csv", "events.parquet", "events.jsonl"):
        reading = event_reading(columns)
        (found,) = read(tmp_path / name, reading=reading)
        assert {key: found[key] for key in wanted} == wanted
        assert "transactionid" in reading.notes.unused_names(())


@pytest.mark.parametrize(
    ("text", "message"),
    [("user", "FIELD=NAME"), ("usr=x", "'usr' is no field"), ("user=a,user_id=b", "twice")],
)
def test_wrong_columns_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_columns(text)


@pytest.mark.parametrize("name", ["events.csv", "events.parquet"])
def test_a_table_without_the_user_is_refused_with_its_columns_and_the_remedy(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if name.endswith("csv"):
        path.write_text("visitorid,itemid\n1,2\n")
    else:
        pq.write_table(pa.table({"visitorid": [1], "itemid": [2]}), path)
    with pytest.raises(InputError, match=r"no column user_id; there are visitorid, itemid.*user=N"):
        read(path)
    with pytest.raises(InputError, match="no column visitor, which --columns names"):
        read(path, reading=event_reading({"user_id": "visitor"}))


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("events", b"PK\x03\x04....", "ZIP"),
        ("events.ods", b"PK\x03\x04mimetypeapplication", "other than .xlsx"),
        ("events.xls", b"\xd0\xcf\x11\xe0", "Excel"),
        ("events.avro", b"Obj\x01", "Avro"),
        ("events.orc", b"ORC", "ORC"),
        ("events.feather", b"ARROW1", "Feather"),
    ],
)
def test_another_format_is_refused_with_the_remedy(
    tmp_path: Path, name: str, content: bytes, what: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{what}.*save it as CSV \(UTF-8\) or Parquet"):
        read(path)


def absent(path: Path) -> None:
    pass


def text(path: Path) -> None:
    path.write_text("plain text")


def empty(path: Path) -> None:
    path.touch()


def binary(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0\x10\0\1\1\0\x40\x20\x20")


def twice(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.compress(LINES)))


def comma(path: Path) -> None:
    path.write_text('[\n{"user_id": "u"},\n]')


def header(path: Path) -> None:
    path.write_text("user_id,item\rid\nu,a\n")


def odd_column(path: Path) -> None:
    path.write_bytes(parquet().replace(b"user_id", b"user\x80id"))


def upper(path: Path) -> None:
    path.write_text("USER_ID,ITEM_ID,Timestamp\nu,a,5\n")


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.jsonl", absent, r"a\.jsonl: cannot be read: No such file"),
        ("a.jsonl.gz", binary, r"a\.jsonl\.gz: not gzip, or cut short"),
        ("a.jsonl.zst", binary, r"a\.jsonl\.zst: not zstd"),
        ("a.jsonl", binary, r"a\.jsonl: no text, and none of the formats that are read here"),
        ("a.csv", empty, r"a\.csv: the file is empty"),
        ("a.parquet", empty, r"a\.parquet: the file is empty"),
        ("a.xlsx", empty, r"a\.xlsx: the file is empty"),
        ("a.jsonl.gz", twice, r"a\.jsonl\.gz: compressed twice; decompress it once"),
        ("a.json", comma, r"a\.json: a JSON array is expected, and this is none: .*trailing comma"),
        ("a.csv", header, r"a\.csv: the header is not one: new-line character"),
        ("a.csv", upper, r"--columns user=USER_ID,item=ITEM_ID,timestamp=Timestamp$"),
        ("a.parquet", absent, r"a\.parquet: cannot be read: No such file"),
        ("a.pq", text, r"a\.pq: not Parquet: Parquet magic bytes"),
        ("a.pq", odd_column, r"a\.pq: the name of a column is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    tmp_path: Path, name: str, make: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / name
    make(path)
    with pytest.raises(InputError, match=message):
        read(path)


def test_a_cut_zstd_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(zstandard(LINES * 1000)[:-9])
    with pytest.raises(InputError, match=r"a\.jsonl\.zst"):
        read(path)


@pytest.mark.parametrize(
    "times",
    [
        pa.array([1_714_500_000_000_000_007, None], pa.timestamp("ns")),
        pa.array([1_714_500_000_000_000_007, None], pa.timestamp("ns", "Europe/Berlin")),
        pa.array([1_714_500_000_000_000, None], pa.timestamp("us")),
        pa.array([1_714_500_000_000, None], pa.timestamp("ms", "UTC")),
        pa.array([1_714_500_000, None], pa.timestamp("s")),
    ],
)
def test_timestamps_of_any_unit_are_seconds(tmp_path: Path, times: pa.Array) -> None:
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"user_id": ["u", "v"], "timestamp": times}), path, version="2.6")
    assert read(path) == [{"user_id": "u", "timestamp": 1714500000.0}, {"user_id": "v"}]


def test_a_date_is_its_midnight_and_a_time_of_day_is_refused_by_column(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    dates = pa.array([19843], pa.date32())
    pq.write_table(pa.table({"user_id": ["u"], "timestamp": dates}), path)
    assert read(path) == [{"user_id": "u", "timestamp": 1714435200.0}]
    pq.write_table(pa.table({"user_id": ["u"], "timestamp": pa.array([5], pa.time32("ms"))}), path)
    with pytest.raises(InputError, match=r"column timestamp is time32\[ms\]"):
        read(path)


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.dictionary(pa.int32(), pa.binary())]
)
def test_strings_as_plain_binary_are_text_or_refused_by_column(
    tmp_path: Path, kind: pa.DataType
) -> None:
    path = tmp_path / "events.parquet"
    values = pa.array([b"u0", "zoë".encode()])
    typed = values.dictionary_encode() if pa.types.is_dictionary(kind) else values.cast(kind)
    pq.write_table(pa.table({"user_id": typed}), path)
    assert read(path) == [{"user_id": "u0"}, {"user_id": "zoë"}]
    pq.write_table(pa.table({"user_id": pa.array([b"\xff\xfe"])}), path)
    with pytest.raises(InputError, match=r"column user_id is .*binary.*not text in UTF-8"):
        read(path)


def test_decimals_are_numbers_and_nan_is_absent(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    values = pa.array([Decimal("2.50"), None], pa.decimal128(8, 2))
    ids = pa.array([Decimal(17), Decimal(18)], pa.decimal128(38, 0))
    times = pa.array([5.0, float("nan")])
    pq.write_table(pa.table({"user_id": ids, "value": values, "timestamp": times}), path)
    assert read(path) == [{"user_id": 17, "value": 2.5, "timestamp": 5.0}, {"user_id": 18}]


def test_a_row_of_text_with_too_many_cells_is_passed_on_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text('\nuser_id,scene\nu,"a\nb"\n\nv,b,c,d\nw\n')
    found = list(entries(str(path), Reading()))
    assert [(number, entry) for _, number, entry in found] == [
        (3, {"user_id": "u", "scene": "a\nb"}),
        (6, b"v,b,c,d"),
        (7, {"user_id": "w"}),
    ]


def test_a_header_may_begin_with_a_number_sign(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("# of May\n#,user_id\n1,u\n")
    assert read(path) == [{"user_id": "u"}]


def test_a_header_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,item_id\nu,a,b\n")
    with pytest.raises(InputError, match="names item_id twice"):
        read(path)


def test_an_index_of_pandas_is_passed_over_without_a_note(tmp_path: Path) -> None:
    table = tmp_path / "events.parquet"
    pq.write_table(pa.table({"user_id": ["u"], "__index_level_0__": [0]}), table)
    text = tmp_path / "events.csv"
    text.write_text(",user_id\n0,u\n")
    for path in (table, text):
        reading = event_reading()
        assert read(path, reading=reading) == [{"user_id": "u"}]
        assert reading.notes.lines(reading.fields or ()) == []


def test_a_column_that_looks_like_the_one_of_retractions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user_id,retract,scen\nu,e1,home\n")
    with pytest.raises(InputError, match="the column retract looks like retracts"):
        read(path)
    reading = event_reading({"retracts": "retract"})
    assert read(path, reading=reading) == [{"user_id": "u", "retracts": "e1"}]
    assert reading.notes.lines(()) == ["fields not used: scen; `scen` looks like `scene`"]


ROW = {"user_id": "u", "item_id": "a", "kind": "view", "timestamp": 5}


def write_rows(path: Path, row: dict[str, Any]) -> None:
    match path.suffix:
        case ".jsonl":
            path.write_text(json.dumps(row) + "\n" + json.dumps([row, row]) + "\n")
        case ".json":
            path.write_text(json.dumps([row], indent=1))
        case ".csv":
            path.write_text(",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
        case _:
            pq.write_table(pa.Table.from_pylist([row]), path)


@pytest.mark.parametrize("name", ["e.jsonl", "e.json", "e.csv", "e.parquet"])
@pytest.mark.parametrize("column", ["eventId", "event_idd", "Event_ID", "retract"])
def test_a_name_near_one_that_decides_is_refused_in_files_of_every_format(
    tmp_path: Path, name: str, column: str
) -> None:
    write_rows(tmp_path / name, ROW | {column: "e1"})
    reader = EventReader(Kinds.default())

    def ids(columns: dict[str, str]) -> set[tuple[str | None, str | None]]:
        reading = event_reading(columns)
        lines = [line.value for line in read_lines([str(tmp_path / name)], reading)]
        _, rejected = reader.read("", 0, lines, [*range(len(lines))], arrivals(lines))
        if rejected:
            raise InputError(rejected[0][1].message)
        events = [event for line in lines for event in events_in(line)]
        assert len(events) == 1 + 2 * name.endswith("l")
        return {(event.event_id, event.retracts) for event in events}

    field = "retracts" if column == "retract" else "event_id"
    with pytest.raises(InputError, match=f"{column}`? looks like .*--columns {field}={column}"):
        ids({})
    pair = ("e1", None) if field == "event_id" else (None, "e1")
    assert ids({field: column}) == {pair}  # it is named
    write_rows(tmp_path / name, ROW | {column: "e1", "key": "k1", field: "e2"})
    pair = ("k1", None) if field == "event_id" else (None, "k1")
    assert ids({field: "key"}) == {pair}  # another one is named, so this one is not meant
    with pytest.raises(InputError, match="looks like"):
        ids({})


def arrivals(lines: list[bytes]) -> Arrivals:
    return Arrivals.of_file(len(lines), 1e9)


def reasons(path: Path) -> list[tuple[int, str]]:
    """Return the number and the reason of each entry of a table that is no row."""
    found = entries(str(path), event_reading())
    return [(number, entry.why) for _, number, entry in found if isinstance(entry, Undecodable)]


LOST = "lines in one cell: a quote is not closed, or closed too late; write two quotes for one"


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ('u,a,view,5,"note\n' + "v,b,view,6,\n" * 2, [(2, f"3 {LOST}")]),
        ('u,a,view,5,"note\n' + "v,b,view,6,\n" * 3 + 'v,b,view,6,"x"\n', [(2, f"5 {LOST}")]),
        ('"u\n,a",view,5,7,\n', [(2, "user_id goes over several lines")]),
        ("u,a,view,5,7,8\n", [(2, "6 cells, and the header has 5: put quotes around texts")]),
        ("1.23457E+17,a,view,5,\n", [(2, "user_id is 1.23457E+17, a number that a spreadsheet")]),
        ("1.23e+17,a,view,5,\n", [(2, "user_id is 1.23e+17, a number that a spreadsheet")]),
        ("u,17.0,view,5,\n", [(2, "item_id is 17.0, a whole number that was written as a float")]),
        ("1.5,v1.0,view,5,\n", []),
        ("u,\x83\x81,view,5,\n", [(2, "item_id holds bytes that are neither UTF-8 nor")]),
        ('u,a,view,5,"' + "x" * (1 << 20) + '"\nv,b,view,6,\n', [(2, "longer than 1048576")]),
        ('u,a,view,5,"one, two\nthree, four\nfive"\n', []),
    ],
)
def test_a_row_that_lost_its_place_is_named_and_no_row_is_lost_in_silence(
    tmp_path: Path, rows: str, expected: list[tuple[int, str]]
) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user_id,item_id,kind,timestamp,note\n" + rows, encoding="latin-1")
    found = reasons(path)
    assert [number for number, _ in found] == [number for number, _ in expected]
    for (_, why), (_, named) in zip(found, expected, strict=True):
        assert why.startswith(named)


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1,500.25", 1500.25),
        ("1,234,567", 1234567),
        ("1,500", "1,500"),  # one and a half, or one and a half thousand?
        ("0,500", 0.5),
        ("1" * 400, "1" * 400),
        ("9" * 290 + "e99", "9" * 290 + "e99"),
    ],
)
def test_a_number_of_a_table_is_taken_if_it_has_one_meaning(
    tmp_path: Path, cell: str, value: float | str
) -> None:
    path = tmp_path / "events.csv"
    path.write_text(f'user_id,value\nu,"{cell}"\n')
    assert read(path) == [{"user_id": "u", "value": value}]
    path.write_text("user_id;value\nu;1.500,5\n")
    assert read(path) == [{"user_id": "u", "value": 1500.5}]


def test_empty_part_files_are_passed_over_and_named(tmp_path: Path) -> None:
    (tmp_path / "part-0.csv").touch()
    (tmp_path / "part-1.parquet").touch()
    (tmp_path / "part-2.csv").write_text("user_id\nu\n")
    reading = event_reading()
    assert read(tmp_path, reading=reading) == [{"user_id": "u"}]
    assert list(reading.notes.remarks) == [
        f"{tmp_path}/part-0.csv: the file is empty",
        f"{tmp_path}/part-1.parquet: the file is empty",
    ]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_time_of_parquet_is_that_time_whatever_the_unit_of_numbers_is(
    tmp_path: Path, unit: str
) -> None:
    path = tmp_path / "events.parquet"
    moment = pa.scalar(1714500000, pa.timestamp("s")).cast(pa.timestamp(unit))
    pq.write_table(pa.table({"user_id": ["u"], "timestamp": [moment.as_py()]}), path)
    for numbers in get_args(Unit):
        (event,) = read(path, reading=event_reading(timestamps=numbers))
        assert seconds(event["timestamp"], numbers) == 1714500000


def test_the_last_day_of_the_calendar_is_no_day_of_1978(tmp_path: Path) -> None:
    never = datetime(9999, 12, 31, tzinfo=UTC)
    row = {"user_id": "u", "timestamp": never}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "events.parquet")
    assert read(tmp_path / "events.parquet")[0]["timestamp"] == never.isoformat()


def test_columns_of_parquet_that_are_no_text_or_twice_there_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    zeros = pa.array([bytes(16)], pa.binary(16))
    pq.write_table(pa.table({"user_id": zeros}), path)
    with pytest.raises(InputError, match=r"user_id is fixed_size_binary\[16\] with zero bytes"):
        read(path)
    twice_there = pa.Table.from_arrays([pa.array(["u"])] * 2, ["user_id", "user_id"])
    pq.write_table(twice_there, path)
    with pytest.raises(InputError, match="columns user_id are there twice"):
        read(path)


def test_infinity_of_parquet_is_no_absent_value(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"user_id": ["u", "u"], "value": [float("inf"), float("nan")]}), path)
    assert read(path) == [{"user_id": "u", "value": "inf"}, {"user_id": "u"}]


def test_a_uuid_of_parquet_is_its_text(tmp_path: Path) -> None:
    one = UUID(int=2**100)
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"user_id": pa.array([one.bytes], pa.uuid())}), path)
    assert read(path) == [{"user_id": str(one)}]


def test_eight_digits_in_a_table_are_a_day_if_they_can_be_one(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("user_id,timestamp\nu,20240430\nu,20249999\nu,1714500000\n")
    rows: list[Any] = [entry for _, _, entry in entries(str(path), event_reading())]
    assert [row["timestamp"] for row in rows] == ["20240430", 20249999, 1714500000]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([19_843], pa.date32()),
        pa.array([3600], pa.time32("s")),
        pa.array([5], pa.duration("s")),
        pa.array([5], pa.timestamp("us", "UTC")),
    ],
)
def test_a_column_of_times_is_no_column_of_ids(tmp_path: Path, column: pa.Array) -> None:
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"user_id": column}), path)
    with pytest.raises(InputError, match=r"column user_id is .*; an id is a text or a whole num"):
        list(entries(str(path), event_reading()))


def test_one_column_is_not_named_for_two_fields() -> None:
    with pytest.raises(ValueError, match="'id' is named for two fields"):
        parse_columns("user=id,item=id")
