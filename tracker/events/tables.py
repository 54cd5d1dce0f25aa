"""Rows of Parquet files and of tables of text (CSV, TSV), as fields by name."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import IO, Any, cast

import msgspec

from tracker.events.opening import InputError, delimiter_of, partition_values
from tracker.events.times import MAX_SECONDS, is_date
from tracker.events.wire import Undecodable

Fields = dict[str, Any]
"""One row by column name, without nulls."""

_BATCH_ROWS = 8192
_MOST_LETTERS = 1 << 20
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_MAY_BE_THOUSANDS = re.compile(r"(?<!\d)[1-9]\d{0,2},\d{3}$")
_THOUSANDS = re.compile(r"[+-]?\d{1,3}((,\d{3})+\.\d+|(,\d{3}){2,})")
_POINT_THOUSANDS = re.compile(r"[+-]?\d{1,3}(\.\d{3})+,\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NUMBERS = ("value", "timestamp")
_NOTHING = frozenset(("nan", "null", "none", "na", "n/a", "\\n", "-"))
_OBJECTS = ("attributes",)
_IDS = ("user_id", "item_id", "event_id", "retracts", "was")
_MOST_DIGITS = 300
_SHORTENED = re.compile(r"\d([.,]\d+)?[eE]\+\d+")
_WITH_FRACTION = re.compile(r"-?\d+\.0+")
_BEFORE_HEADER = re.compile(r"""#(?![,;\t|])|\s*"?sep=.?"?\s*$""", re.IGNORECASE)


def parquet_rows(
    file: IO[bytes],
    source: str,
    select: Callable[[list[str]], Mapping[str, str]],
    in_seconds: bool = True,
) -> Iterator[Fields]:
    """Yield the rows of a Parquet file.

    Times are float seconds, also nanoseconds and dates (at midnight UTC; a time without a zone is
    UTC); decimals are floats; binary columns and UUIDs are text. Within nested columns, times and
    decimals stay objects of Python, as do attributes that cannot be kept. NaN is absent, as null
    is.

    Args:
        file: the open file; it is read whole if it cannot seek.
        source: its path, for messages, and for columns in the names of folders.
        select: chooses columns: from the names of all to the names of fields by column.
        in_seconds: whether numbers of the field `timestamp` are read as seconds; times are text
            otherwise.

    Raises:
        InputError: it is not Parquet, or a column has a type that cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if not file.seekable() or not isinstance(getattr(file, "raw", None), io.FileIO):
            file = io.BytesIO(file.read())
        with pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            folders = {k: v for k, v in partition_values(source).items() if k not in schema.names}
            fields_of = select([*schema.names, *folders])
            if twice := [name for name in twice_named(schema.names) if name in fields_of]:
                raise InputError(f"{source}: columns {', '.join(twice)} are there twice")
            constant = {
                fields_of[name]: value for name, value in folders.items() if name in fields_of
            }
            subset = [name for name in schema.names if name in fields_of]
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=subset):
                columns = [
                    (
                        fields_of[name],
                        _column(batch.column(name), fields_of[name], f"{source}: column {name}"),
                    )
                    for name in batch.schema.names
                ]
                if not in_seconds:
                    columns = [
                        (name, _moments(values) if _is_time(batch.column(place)) else values)
                        for place, (name, values) in enumerate(columns)
                    ]
                for row in range(batch.num_rows):
                    fields = dict(constant)
                    for name, values in columns:
                        value = values[row]
                        if value is not None and value == value:  # neither null nor NaN
                            fields[name] = value
                    yield _with_attributes(fields)
    except pa.ArrowException as error:
        raise InputError(f"{source}: not Parquet: {str(error).splitlines()[0]}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: the name of a column is not UTF-8") from error


def _column(column: Any, name: str, place: str) -> list[Any]:
    """Return the values of the column of a field; attributes that cannot be kept are objects."""
    is_attribute = name.partition(".")[0] == "attributes"
    if is_attribute and _is_time(column):
        return cast(list[Any], column.cast(_readable(column.type), safe=False).to_pylist())
    if name in _IDS and (_is_time(column) or _is_time_of_day(column)):
        raise InputError(f"{place} is {column.type}; an id is a text or a whole number")
    try:
        values = _values(column, place)
    except InputError:
        if not is_attribute:
            raise
        return cast(list[Any], column.to_pylist())
    if name == "timestamp" and _is_time(column):
        return [_moment(v) if v is not None and v >= MAX_SECONDS else v for v in values]
    return values


def _is_time(column: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_timestamp(column.type) or pa.types.is_date(column.type))


def _is_time_of_day(column: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_time(column.type) or pa.types.is_duration(column.type))


def _moments(values: Sequence[Any]) -> list[Any]:
    return [_moment(value) if isinstance(value, float) else value for value in values]


def _moment(seconds: float) -> str:
    """Return seconds as a text that no unit of numbers changes."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        return f"{seconds:.0f} seconds"


def _values(column: Any, place: str) -> list[Any]:
    """Return the values of a column as objects of Python.

    Raises:
        InputError: the type of the column cannot be read; `place` names it.
    """
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        return _values(column.dictionary_decode(), place)
    if isinstance(kind, pa.UuidType):
        return [None if value is None else str(value) for value in column.to_pylist()]
    if isinstance(kind, pa.BaseExtensionType):
        return _values(column.storage, place)
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _seconds(column)
    if pa.types.is_decimal(kind):
        whole = kind.scale <= 0
        return [None if v is None else int(v) if whole else float(v) for v in column.to_pylist()]
    if _is_time_of_day(column):
        raise InputError(f"{place} is {kind}, which is no moment; a timestamp is expected")
    try:
        values = cast(list[Any], column.cast(_readable(kind), safe=False).to_pylist())
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        if "UTF" in str(error).upper() or isinstance(error, UnicodeDecodeError):
            raise InputError(
                f"{place} is {kind}, and not text in UTF-8; write it as a string"
            ) from error
        raise
    if _is_bytes(kind) and any(value and "\0" in value for value in values):
        raise InputError(f"{place} is {kind} with zero bytes, and not text; write it as a string")
    if pa.types.is_map(kind):
        return [None if value is None else dict(value) for value in values]
    return values


def _readable(kind: Any) -> Any:
    """Return the type to which a type is cast: text for bytes, microseconds for nanoseconds."""
    import pyarrow as pa

    types = pa.types
    if _is_bytes(kind):
        return pa.large_string()
    if types.is_timestamp(kind):
        return pa.timestamp("us", kind.tz)
    if types.is_time64(kind):
        return pa.time64("us")
    if types.is_duration(kind):
        return pa.duration("us")
    if types.is_dictionary(kind):
        return _readable(kind.value_type)
    if types.is_struct(kind):
        return pa.struct([pa.field(part.name, _readable(part.type)) for part in kind])
    if types.is_map(kind):
        return pa.map_(_readable(kind.key_type), _readable(kind.item_type))
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return pa.large_list(_readable(kind.value_type))
    return kind


def _is_bytes(kind: Any) -> bool:
    from pyarrow import types

    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def _seconds(column: Any) -> list[float | None]:
    """Return times as float seconds since the epoch; dates are midnight UTC."""
    import pyarrow as pa

    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s" if pa.types.is_date32(column.type) else "ms"))
    per_second = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[column.type.unit]
    whole = column.cast(pa.int64()).to_pylist()
    return [None if value is None else value / per_second for value in whole]


def table_rows(
    lines: Iterator[bytes], source: str, select: Callable[[list[str]], Mapping[str, str]]
) -> Iterator[tuple[int, Fields | bytes]]:
    """Yield the number of the line and the fields of each row of a table of text with a header.

    The delimiter is told by the header: comma, semicolon, tab or bar. With semicolons, numbers may
    have a decimal comma. An empty cell is absent. `attributes` are JSON, and a column
    `attributes.NAME` is one attribute. Comments (`# ...`) and a line `sep=;` before the header are
    skipped. A row that cannot be read comes as `Undecodable`, with the reason.

    Args:
        lines: the lines as UTF-8.
        source: the path, for messages, and for columns in the names of folders.
        select: chooses columns: from the names of all to the names of fields by column.

    Raises:
        InputError: the header is not one.
    """
    text = _Lines(lines)
    before, header = 0, ""
    for header in text:
        if header.strip() and not _BEFORE_HEADER.match(header):
            break
        before += 1
    delimiter = delimiter_of(header) or ","
    try:
        names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
    except csv.Error as error:
        raise InputError(f"{source}: the header is not one: {error}") from error
    if twice := twice_named(names):
        raise InputError(f"{source}: the header names {', '.join(twice)} twice")
    folders = {k: v for k, v in partition_values(source).items() if k not in names}
    fields_of = select([*names, *folders])
    constant = {fields_of[name]: value for name, value in folders.items() if name in fields_of}
    places = [(place, fields_of[name]) for place, name in enumerate(names) if name in fields_of]
    csv.field_size_limit(max(csv.field_size_limit(), _MOST_LETTERS))
    reader = csv.reader(text, delimiter=delimiter)
    comma = delimiter != ","
    while True:
        number = before + reader.line_num + 2
        text.row_lines.clear()
        text.is_cut = False
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, Undecodable(b"", f"not a row of the table: {error}", "wrong_type")
            continue
        why = text.damage(len(names) - 1, delimiter)
        if why:
            yield number, Undecodable(delimiter.join(row).encode(), why, "wrong_type")
            continue
        if len(row) > len(names) and any(row[len(names) :]):
            why = f"{len(row)} cells, and the header has {len(names)}: put quotes around texts"
            yield number, Undecodable(delimiter.join(row).encode(), why, "wrong_type")
            continue
        fields = dict(constant)
        for place, name in places:
            if place < len(row) and (cell := row[place].strip()):
                fields[name] = cell
        if why := _damage(fields):
            yield number, Undecodable(delimiter.join(row).encode(), why, "wrong_type")
        elif fields.keys() - constant.keys():
            yield number, typed(fields, comma)


class _Lines:
    """The lines of a table as text, and those of the present row.

    Attributes:
        row_lines: the lines that the row goes over.
        is_cut: whether one of them is longer than is read.
    """

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines
        self._has_ended = False
        self.row_lines: list[str] = []
        self.is_cut = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            raw = next(self._lines)
        except StopIteration:
            self._has_ended = True
            raise
        line = raw.decode(errors="replace")
        self.row_lines.append(line)
        if len(raw) > _MOST_LETTERS:
            self.is_cut = True
            if "".join(self.row_lines).count('"') % 2:
                return line + '"'  # or the cell would go on in the next line
        return line

    def damage(self, delimiters: int, delimiter: str) -> str:
        """Return the reason why the lines cannot be one row; "" if they may be."""
        if self.is_cut:
            return f"longer than {_MOST_LETTERS} bytes; a shorter line is expected"
        if len(self.row_lines) < 2:
            return ""
        within = [line.count(delimiter) for line in self.row_lines[1:-1]]
        is_open = self._has_ended and "".join(self.row_lines).count('"') % 2 == 1
        if is_open or (delimiters > 1 and len(within) > 2 and {*within} == {delimiters}):
            return (
                f"{len(self.row_lines)} lines in one cell: a quote is not closed, or closed too"
                " late; write two quotes for one within a text"
            )
        return ""


def _damage(fields: Fields) -> str:
    """Return the reason why the ids of a row cannot be right; "" if they may be."""
    for name in _IDS:
        cell = fields.get(name, "")
        if "\n" in cell:
            return f"{name} goes over several lines: a quote is not closed, or closed too late"
        if "\ufffd" in cell:
            return (
                f"{name} holds bytes that are neither UTF-8 nor Windows-1252: write the file as"
                " UTF-8"
            )
        if _SHORTENED.fullmatch(cell):
            return (
                f"{name} is {cell}, a number that a spreadsheet has shortened: format the column as"
                " text before it is saved"
            )
        if _WITH_FRACTION.fullmatch(cell):
            return (
                f"{name} is {cell}, a whole number that was written as a float, as pandas does"
                " where a cell is empty: write it without the fraction (.astype('Int64'))"
            )
    return ""


def twice_named(names: Sequence[str]) -> list[str]:
    """Return the names that stand in a header more than once, sorted.

    >>> twice_named(["a", "b", "a", "", ""])
    ['a']
    """
    return sorted({name for name in names if name and names.count(name) > 1})


def typed(fields: Fields, decimal_comma: bool) -> Fields:
    """Return the fields of a row with numbers, lists and objects where text stands for them."""
    for name in _NUMBERS:
        if isinstance(fields.get(name), str):
            if name == "timestamp" and is_date(fields[name]):
                continue  # 20240430 is a day, and no second of 1970
            number = _number(fields.pop(name), decimal_comma)
            if number is not None:
                fields[name] = number
    for name in _OBJECTS:
        if isinstance(fields.get(name), str):
            try:
                fields[name] = msgspec.json.decode(fields[name])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
    return _with_attributes(fields)


def _with_attributes(fields: Fields) -> Fields:
    """Return the fields of a row with those of columns `attributes.NAME` as attributes."""
    for name in [name for name in fields if name.startswith("attributes.")]:
        part = fields.setdefault("attributes", {})
        if isinstance(part, dict):
            part[name.partition(".")[2]] = fields.pop(name)
    return fields


def _number(cell: str, decimal_comma: bool) -> float | int | str | None:
    """Return a cell as a number if it is one, None if it says that there is none, or the cell.

    A comma is a decimal comma if the table says so, or if no comma between thousands stands there.
    """
    if cell.lower() in _NOTHING:
        return None
    plain = cell
    if _THOUSANDS.fullmatch(cell):
        plain = cell.replace(",", "")
    elif _POINT_THOUSANDS.fullmatch(cell):
        plain = cell.replace(".", "").replace(",", ".")
    elif _DECIMAL_COMMA.fullmatch(cell) and (decimal_comma or not _MAY_BE_THOUSANDS.search(cell)):
        plain = cell.replace(",", ".")
    if not _NUMBER.fullmatch(plain) or len(plain) > _MOST_DIGITS:
        return cell
    number = float(plain)
    return int(plain) if plain.lstrip("+-").isdigit() else number if isfinite(number) else cell
