"""Input files: JSON lines, also gzip, or Parquet, for items, events and users alike."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tracker.events.lines import InputError, numbered_lines

MAX_LINE_BYTES = 1 << 20
"""Longest line of a file; the encoder cuts texts long before."""

Fields = dict[str, Any]
"""One row of a Parquet file by column name, without nulls."""

Struct = TypeVar("Struct")

_BATCH_ROWS = 8192

_NAMED_LINES = 1000
"""Lines at the beginning of a file whose field names are collected."""


def is_parquet(path: Path) -> bool:
    """Return whether a file is read as Parquet, by its name: `.parquet` or `.pq`."""
    return path.suffix.lower() in (".parquet", ".pq")


def place_of(path: Path, number: int) -> str:
    """Return the place of a line or row as messages name it.

    >>> place_of(Path("items.jsonl"), 3), place_of(Path("items.parquet"), 3)
    ('items.jsonl, line 3', 'items.parquet, row 3')
    """
    return f"{path}, {'row' if is_parquet(path) else 'line'} {number}"


def read_entries(
    path: Path, columns: Collection[str] | None = None, names: set[str] | None = None
) -> Iterator[tuple[int, bytes | Fields]]:
    """Yield the number, from 1, and the content of each line or row of a file.

    A line is yielded as bytes, cut to MAX_LINE_BYTES + 1; blank lines are skipped. A row of
    Parquet is yielded as its fields; a map is a dict, and nulls are left out.

    Args:
        path: JSON lines, compressed if it ends in `.gz`, or Parquet.
        columns: the columns of Parquet to read; None for all.
        names: if given, the names of all columns of Parquet are added to it.

    Raises:
        InputError: the file does not exist, or it is damaged or of another format.
    """
    if not is_parquet(path):
        yield from numbered_lines(str(path), MAX_LINE_BYTES)
        return
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if names is not None:
                names.update(schema.names)
            subset = [name for name in schema.names if columns is None or name in columns]
            maps = {field.name for field in schema if pa.types.is_map(field.type)}
            number = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=subset):
                for row in cast(list[Fields], batch.to_pylist()):
                    number += 1
                    yield number, _given(row, maps)
    except pa.ArrowException as error:
        raise InputError(f"{path}: not Parquet: {str(error).splitlines()[0]}") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)  # Arrow's names the file
        raise InputError(f"{path}: cannot be read: {reason}") from error


def read_structs(
    path: Path, struct: type[Struct], names: set[str] | None = None
) -> Iterator[tuple[str, Struct | str]]:
    """Yield the place of each line or row with its struct, or with the reason why there is none.

    Args:
        path: JSON lines, compressed if it ends in `.gz`, or Parquet.
        struct: the class of the msgspec structs.
        names: if given, the names of fields in the file are added to it: all columns of Parquet,
            or the fields of the first 1,000 lines.

    Raises:
        InputError: the file does not exist, or it is damaged or of another format.
    """
    decoder = msgspec.json.Decoder(struct)
    fields: tuple[str, ...] = struct.__struct_fields__  # type: ignore[attr-defined]
    for number, entry in read_entries(path, fields, names):
        place = place_of(path, number)
        try:
            if isinstance(entry, dict):
                yield place, msgspec.convert(entry, struct)
            elif len(entry) > MAX_LINE_BYTES:
                yield place, f"longer than {MAX_LINE_BYTES} bytes; a shorter line is expected"
            else:
                result = decoder.decode(entry)
                if names is not None and number <= _NAMED_LINES:
                    names.update(msgspec.json.decode(entry, type=dict[str, msgspec.Raw]))
                yield place, result
        except msgspec.ValidationError as error:
            yield place, str(error)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield place, f"not JSON ({error}); one JSON object per line is expected"


def _given(row: Fields, maps: set[str]) -> Fields:
    """Return the fields of a row that have a value, maps as dicts."""
    fields = {name: value for name, value in row.items() if value is not None}
    for name in maps & fields.keys():
        fields[name] = dict(fields[name])
    for name, value in fields.items():
        if isinstance(value, dict):
            fields[name] = {key: inner for key, inner in value.items() if inner is not None}
    return fields
