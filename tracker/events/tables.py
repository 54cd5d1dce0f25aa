"""Rows of Parquet files and of tables of text (CSV, TSV), as fields by name."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any, cast

import msgspec

from tracker.events.opening import InputError, delimiter_of, partition_values

Fields = dict[str, Any]
"""One row by column name, without nulls."""

_BATCH_ROWS = 8192
_MOST_LETTERS = 1 << 20
_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_NUMBERS = ("value", "timestamp")
_NOTHING = frozenset(("nan", "null", "none", "na", "n/a", "\\n", "-"))
_OBJECTS = ("attributes",)


def parquet_rows(
    file: IO[bytes], source: str, select: Callable[[list[str]], Mapping[str, str]]
) -> Iterator[Fields]:
    """Yield the rows of a Parquet file.

    Times are float seconds, also nanoseconds and dates (at midnight UTC; a time without a zone is
    UTC); decimals are floats; binary columns are text. Within nested columns, times and decimals
    stay objects of Python. NaN is absent, as null is.

    Args:
        file: the open file; it is read whole if it cannot seek.
        source: its path, for messages, and for columns in the names of folders.
        select: chooses columns: from the names of all to the names of fields by column.

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
            constant = {
                fields_of[name]: value for name, value in folders.items() if name in fields_of
            }
            subset = [name for name in schema.names if name in fields_of]
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=subset):
                columns = [
                    (fields_of[name], _values(batch.column(name), f"{source}: column {name}"))
                    for name in batch.schema.names
                ]
                for row in range(batch.num_rows):
                    fields = dict(constant)
                    for name, values in columns:
                        value = values[row]
                        if value is not None and value == value:  # neither null nor NaN
                            fields[name] = value
                    yield fields
    except pa.ArrowException as error:
        raise InputError(f"{source}: not Parquet: {str(error).splitlines()[0]}") from error


def _values(column: Any, place: str) -> list[Any]:
    """Return the values of a column as objects of Python.

    Raises:
        InputError: the type of the column cannot be read; `place` names it.
    """
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        return _values(column.dictionary_decode(), place)
    if isinstance(kind, pa.ExtensionType) and not hasattr(pa, "UuidType"):
        column, kind = column.storage, kind.storage_type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _seconds(column)
    if pa.types.is_decimal(kind):
        whole = kind.scale <= 0
        return [None if v is None else int(v) if whole else float(v) for v in column.to_pylist()]
    if pa.types.is_time(kind) or pa.types.is_duration(kind):
        raise InputError(f"{place} is {kind}, which is no moment; a timestamp is expected")
    try:
        values = cast(list[Any], column.cast(_readable(kind), safe=False).to_pylist())
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        if "UTF" in str(error).upper() or isinstance(error, UnicodeDecodeError):
            raise InputError(
                f"{place} is {kind}, and not text in UTF-8; write it as a string"
            ) from error
        raise
    if pa.types.is_map(kind):
        return [None if value is None else dict(value) for value in values]
    return values


def _readable(kind: Any) -> Any:
    """Return the type to which a type is cast: text for bytes, microseconds for nanoseconds."""
    import pyarrow as pa

    types = pa.types
    if (
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    ):
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
    have a decimal comma. An empty cell is absent. `attributes` are JSON, and a
    column `attributes.NAME` is one attribute. A row with too many cells comes as bytes.

    Args:
        lines: the lines as UTF-8.
        source: the path, for messages, and for columns in the names of folders.
        select: chooses columns: from the names of all to the names of fields by column.

    Raises:
        InputError: the header is not one.
    """
    text = (line.decode(errors="replace") for line in lines)
    blank = 0
    header = ""
    for header in text:
        if header.strip():
            break
        blank += 1
    delimiter = delimiter_of(header) or ","
    names = [name.strip() for name in next(csv.reader([header], delimiter=delimiter), [])]
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
        number = blank + reader.line_num + 2
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield number, f"not a row of the table: {error}".encode()
            continue
        if len(row) > len(names) and any(row[len(names) :]):
            yield number, delimiter.join(row).encode()
            continue
        fields = dict(constant)
        for place, name in places:
            if place < len(row) and (cell := row[place].strip()):
                fields[name] = cell
        if fields.keys() - constant.keys():
            yield number, typed(fields, comma)


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
            number = _number(fields.pop(name), decimal_comma)
            if number is not None:
                fields[name] = number
    for name in _OBJECTS:
        if isinstance(fields.get(name), str):
            try:
                fields[name] = msgspec.json.decode(fields[name])
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
    for name in [name for name in fields if name.startswith("attributes.")]:
        part = fields.setdefault("attributes", {})
        if isinstance(part, dict):
            part[name.partition(".")[2]] = fields.pop(name)
    return fields


def _number(cell: str, decimal_comma: bool) -> float | int | str | None:
    """Return a cell as a number if it is one, None if it says that there is none, or the cell."""
    if cell.lower() in _NOTHING:
        return None
    if decimal_comma and _DECIMAL_COMMA.fullmatch(cell):
        cell = cell.replace(",", ".")
    if not _NUMBER.fullmatch(cell):
        return cell
    return int(cell) if cell.lstrip("+-").isdigit() else float(cell)
