"""Rows of workbooks (.xlsx), as fields by name; the extra `xlsx` reads them."""

import datetime
import io
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

from tracker.events.opening import InputError, Notes
from tracker.events.tables import Fields, twice_named, typed
from tracker.events.times import MAX_SECONDS
from tracker.explained import first_line

EXTRA = "pip install 'interest-tracker[xlsx]'"

ERRORS = frozenset(
    ("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A", "#GETTING_DATA")
)
"""Texts of cells whose formula has no result."""

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
        file: the open file, which is read whole; its rows are not.
        source: its path, for messages.
        select: chooses columns: from the names of all to the names of fields by column.
        notes: gets the names of sheets that are not read.
        in_seconds: whether numbers of the field `timestamp` are read as seconds; times are text
            otherwise.

    Raises:
        InputError: the extra is not installed, it is no workbook, or the header is not one.
    """
    try:
        import openpyxl
    except ImportError as error:
        raise InputError(
            f"{source}: a workbook, and what reads it is not installed: {EXTRA}, or save it as CSV"
            " (UTF-8) or Parquet"
        ) from error
    content = io.BytesIO(file.read())
    header: list[str] | None = None
    places: list[tuple[int, str]] = []
    before = 0
    with _readable(source):
        sheets = openpyxl.load_workbook(content, read_only=True, data_only=True).worksheets
    for sheet in sheets:
        rows = _rows(sheet, source)
        number, names = next(((n, names) for n, row in rows if (names := _header(row))), (0, []))
        if not names:
            continue
        if header is None:
            header = names
            if twice := twice_named(names):
                raise InputError(f"{source}: the header names {', '.join(twice)} twice")
            fields_of = select(names)
            places = [(place, fields_of[n]) for place, n in enumerate(names) if n in fields_of]
            if len(sheets) > 1:
                notes.remarks[f"{source}: sheet {sheet.title} is read"] = None
        elif names != header:
            remark = f"{source}: sheet {sheet.title} has another header, and is not read"
            notes.remarks[remark] = None
            continue
        else:
            remark = f"{source}: sheet {sheet.title} has the same header, and is read too"
            notes.remarks[remark] = None
        for number, row in rows:
            if fields := _fields(row, places, in_seconds):
                yield before + number, fields
        before += number


@contextmanager
def _readable(source: str) -> Iterator[None]:
    """Name whatever a damaged workbook raises, and keep the reader's warnings to itself.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:  # of ZIP, XML, and of numbers that are none, without a common name
        raise InputError(f"{source}: no workbook that can be read: {first_line(error)}") from error


def _rows(sheet: Any, source: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Yield the number and the cells of each row that has some."""
    with _readable(source):
        sheet.reset_dimensions()  # some programs write wrong ones
        rows = sheet.iter_rows(values_only=True)
    for number in itertools.count(1):
        with _readable(source):
            row = next(rows, None)
        if row is None:
            return
        if any(cell is not None for cell in row):
            yield number, row


def _header(row: Sequence[Any]) -> list[str]:
    names = ["" if cell is None else str(cell).strip() for cell in row]
    while names and not names[-1]:
        names.pop()
    return names


def _fields(row: Sequence[Any], places: list[tuple[int, str]], in_seconds: bool) -> Fields:
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
    """Return a cell as text, truth or number; times are float seconds, an error is no text."""
    if cell is None or (isinstance(cell, str) and cell in ERRORS):
        return ""
    if isinstance(cell, datetime.datetime):
        zone = cell.tzinfo or datetime.UTC
        return cell.replace(tzinfo=zone).timestamp()
    if isinstance(cell, datetime.date):
        moment = datetime.datetime(cell.year, cell.month, cell.day, tzinfo=datetime.UTC)
        return moment.timestamp()
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < MAX_EXACT:
        return int(cell)
    return cell if isinstance(cell, str | bool | int | float) else str(cell)
