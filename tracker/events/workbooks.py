"""Rows of workbooks (.xlsx, .xlsb, .xls, .ods), as fields by name; the extra `xlsx` reads them."""

import datetime
import io
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

from tracker.events.opening import InputError, Notes
from tracker.events.tables import Fields, twice_named, typed
from tracker.events.times import MAX_SECONDS

EXTRA = "pip install 'interest-tracker[xlsx]'"

MAX_EXACT = 1e15
"""Spreadsheets keep 15 digits; a longer number is no longer the one that was typed."""

MAX_DAYS = 1e5
"""A timestamp below this is a day as spreadsheets count, shown as a number: the year 2173."""


def workbook_rows(
    file: IO[bytes],
    source: str,
    select: Callable[[list[str]], Mapping[str, str]],
    notes: Notes,
    in_seconds: bool = True,
) -> Iterator[tuple[int, Fields]]:
    """Yield the number and the fields of each row of a workbook.

    The first sheet with a row is read, its first row is the header. Further sheets are read if they
    have the same header, otherwise they are noted. Times are float seconds, in UTC. Whole numbers
    are integers, an empty cell is absent, and text is read as in a table of text.

    Args:
        file: the open file, which is read whole.
        source: its path, for messages.
        select: chooses columns: from the names of all to the names of fields by column.
        notes: gets the names of sheets that are not read.
        in_seconds: whether numbers of the field `timestamp` are read as seconds; times are text
            otherwise.

    Raises:
        InputError: the extra is not installed, it is no workbook, or the header is not one.
    """
    try:
        import python_calamine as calamine
    except ImportError as error:
        raise InputError(
            f"{source}: a workbook, and what reads it is not installed: {EXTRA}, or save it as CSV"
            " (UTF-8) or Parquet"
        ) from error
    header: list[str] | None = None
    before = 0
    try:
        book = calamine.CalamineWorkbook.from_filelike(io.BytesIO(file.read()))
        for name in book.sheet_names:
            rows = book.get_sheet_by_name(name).to_python(skip_empty_area=False)
            first = next((n for n, row in enumerate(rows) if any(cell != "" for cell in row)), None)
            if first is None:
                continue
            names = _header(rows[first])
            if header is None:
                header = names
                if twice := twice_named(names):
                    raise InputError(f"{source}: the header names {', '.join(twice)} twice")
                fields_of = select(names)
                places = [(n, fields_of[one]) for n, one in enumerate(names) if one in fields_of]
                if len(book.sheet_names) > 1:
                    notes.remarks[f"{source}: sheet {name} is read"] = None
            elif names != header:
                notes.remarks[f"{source}: sheet {name} has another header, and is not read"] = None
                continue
            else:
                notes.remarks[f"{source}: sheet {name} has the same header, and is read too"] = None
            for number, row in enumerate(rows[first + 1 :], first + 2):
                fields = _fields(row, places, in_seconds)
                if fields:
                    yield before + number, fields
            before += len(rows)
    except (calamine.CalamineError, ValueError) as error:
        raise InputError(f"{source}: no workbook that can be read: {error}") from error


def _header(row: list[Any]) -> list[str]:
    names = [str(cell).strip() for cell in row]
    while names and not names[-1]:
        names.pop()
    return names


def _fields(row: list[Any], places: list[tuple[int, str]], in_seconds: bool) -> Fields:
    """Return the fields of a row; none for a row of empty cells."""
    fields: Fields = {}
    for place, name in places:
        value = _value(row[place]) if place < len(row) else ""
        if isinstance(value, str) and not (value := value.strip()):
            continue
        if name == "timestamp" and isinstance(row[place], datetime.date):
            value = value if in_seconds and value < MAX_SECONDS else row[place].isoformat()
        elif name == "timestamp" and not isinstance(value, str | bool) and 0 < value < MAX_DAYS:
            value = f"{value:g} days, a date that is shown as a number: format the cells as dates"
        fields[name] = value
    return typed(fields, True) if fields else fields


def _value(cell: Any) -> Any:
    """Return a cell as text, truth or number; times are float seconds."""
    if isinstance(cell, datetime.datetime):
        zone = cell.tzinfo or datetime.UTC
        return cell.replace(tzinfo=zone).timestamp()
    if isinstance(cell, datetime.date):
        moment = datetime.datetime(cell.year, cell.month, cell.day, tzinfo=datetime.UTC)
        return moment.timestamp()
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < MAX_EXACT:
        return int(cell)
    return cell if isinstance(cell, str | bool | int | float) else str(cell)
