"""Workbooks: sheets, dates, numbers and empty cells as events and items, and what is refused."""

import builtins
import datetime
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from indexer.data.catalog import read_items
from tracker.events.entries import entries, event_reading, place_of, read_lines
from tracker.events.opening import InputError

HEADER = ["user_id", "item_id", "kind", "timestamp", "value"]
EVENING = datetime.datetime(2024, 4, 30, 18, 0)
SECONDS = 1714500000


def workbook(path: Path, *sheets: Sequence[Sequence[Any]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for number, rows in enumerate(sheets, 1):
        sheet = book.create_sheet(f"S{number}")
        for row in rows:
            sheet.append(list(row))
    book.save(path)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line.value) for line in read_lines([str(path)], event_reading())]


@pytest.mark.parametrize("name", ["events.xlsx", "EVENTS.XLSX", "events", "events.csv"])
def test_dates_numbers_and_empty_cells_are_what_they_are_in_other_files(
    tmp_path: Path, name: str
) -> None:
    path = workbook(
        tmp_path / name,
        [
            [],
            HEADER,
            ["u", 17, "rate", EVENING, 3.5],
            [],
            [18, " 007 ", "view", "2024-04-30 18:00:00 UTC", None],
            ["u", "a", "purchase", SECONDS, "2,5"],
            ["u", "a", "view", EVENING.date(), 2],
        ],
    )
    assert read(path) == [
        {"user_id": "u", "item_id": 17, "kind": "rate", "timestamp": SECONDS, "value": 3.5},
        {"user_id": 18, "item_id": "007", "kind": "view", "timestamp": "2024-04-30 18:00:00 UTC"},
        {"user_id": "u", "item_id": "a", "kind": "purchase", "timestamp": SECONDS, "value": 2.5},
        {"user_id": "u", "item_id": "a", "kind": "view", "timestamp": 1714435200, "value": 2},
    ]
    numbers = [number for _, number, _ in entries(str(path), event_reading())]
    assert numbers == [3, 5, 6, 7]
    assert place_of("events.xlsx", 3) == "events.xlsx, row 3"


def test_sheets_with_the_same_header_are_read_and_the_others_are_named(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "events.xlsx",
        [],
        [HEADER, ["u", "a", "view", 5e9, None]],
        [["notes"], ["made by hand"]],
        [HEADER, ["v", "b", "view", 5e9, None]],
    )
    reading = event_reading()
    rows = [json.loads(line.value)["user_id"] for line in read_lines([str(path)], reading)]
    assert rows == ["u", "v"]
    assert list(reading.notes.remarks) == [
        f"{path}: sheet S2 is read",
        f"{path}: sheet S3 has another header, and is not read",
        f"{path}: sheet S4 has the same header, and is read too",
    ]


def test_a_number_that_a_spreadsheet_has_rounded_is_no_id(tmp_path: Path) -> None:
    items: list[list[Any]] = [
        ["item_id", "title"],
        [123456789012345, "a"],
        [1234567890123456789, "b"],
    ]
    catalog = read_items([workbook(tmp_path / "items.xlsx", items)], skip_bad=True)
    assert [item.item_id for item in catalog.items] == ["123456789012345"]
    assert "item_id is the float 1.234567890123457e+18" in catalog.problems[0].message


def test_a_date_that_is_shown_as_a_number_is_no_time_of_1970(tmp_path: Path) -> None:
    path = workbook(tmp_path / "events.xlsx", [HEADER, ["u", "a", "view", 45412.75, None]])
    (event,) = read(path)
    assert event["timestamp"].startswith("45412.8 days, a date that is shown as a number")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["visitorid", "itemid"], ["u", "a"]], "no column user_id; there are visitorid, itemid"),
        ([["user_id", "item_id", "user_id"], ["u", "a", "v"]], "the header names user_id twice"),
    ],
)
def test_a_workbook_with_another_header_is_refused_with_its_columns(
    tmp_path: Path, rows: list[list[str]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(workbook(tmp_path / "events.xlsx", rows))


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04....xl/", b"PK\x03\x04", b"PK\x03\x04docProps/app"]
)
def test_a_damaged_workbook_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "events.xlsx"
    path.write_bytes(content)
    with pytest.raises(InputError, match="no workbook that can be read") as refusal:
        read(path)
    assert "\n" not in str(refusal.value)


def test_without_the_extra_a_workbook_is_refused_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = workbook(tmp_path / "events.xlsx", [HEADER])
    real = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name == "openpyxl":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(InputError, match=r"pip install 'interest-tracker\[xlsx\]', or save it as"):
        read(path)


def test_a_stray_cell_at_the_end_of_a_sheet_costs_no_memory(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for place, cell in {"A1": "user_id", "A2": "u", "C2": "#N/A", "XFD20000": "x"}.items():
        book.active[place] = cell
    book.save(tmp_path / "events.xlsx")
    assert read(tmp_path / "events.xlsx") == [{"user_id": "u"}]


@pytest.mark.parametrize("part", ["xl/worksheets/sheet1.xml", "xl/workbook.xml"])
def test_a_damaged_part_is_named_in_one_line(tmp_path: Path, part: str) -> None:
    path = workbook(tmp_path / "events.xlsx", [HEADER, ["u", "a", "view", 5e9, 1]])
    with zipfile.ZipFile(path) as whole:
        parts = {one.filename: whole.read(one) for one in whole.infolist()}
    parts[part] = parts[part][: len(parts[part]) * 2 // 3]
    with zipfile.ZipFile(path, "w") as damaged:
        for name, content in parts.items():
            damaged.writestr(name, content)
    with pytest.raises(InputError, match="no workbook that can be read: ") as refusal:
        read(path)
    assert "\n" not in str(refusal.value)
