"""One way to read files of events, items and users, whatever their format, for all commands."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import msgspec

from tracker.events.dialect import Dialect
from tracker.events.foreign import FIELDS, decisive
from tracker.events.lines import Line, utf8_lines
from tracker.events.names import nearest
from tracker.events.opening import (
    WORKBOOKS,
    InputError,
    Notes,
    is_pandas_index,
    name_of,
    opened,
    part_files,
)
from tracker.events.tables import Fields, parquet_rows, table_rows
from tracker.events.times import Unit
from tracker.events.wire import Undecodable
from tracker.events.workbooks import workbook_rows

MAX_LINE_BYTES = 1 << 20
"""Longest line of a file; the encoder cuts texts long before."""

MAX_ARRAY_BYTES = 1 << 28
"""Longest JSON array in one piece; a longer one is refused, for it would fill the memory."""

EVENT_FIELDS: tuple[str, ...] = FIELDS

_TOO_LONG = f"longer than {MAX_LINE_BYTES} bytes; a shorter line is expected"

_SHORT = {"user": "user_id", "item": "item_id", "event": "kind", "time": "timestamp"}
MAIN_FIELDS = ("user_id", "item_id", "kind", "timestamp")
_NAMED_LINES = 1000
"""Lines at the beginning of a file whose field names are looked at."""


@dataclass(frozen=True)
class Reading:
    """The fields that are wanted from files, and what they are called there.

    Attributes:
        fields: names of the fields that are read; None for all.
        columns: the name in the files, by name of the field, where the two differ.
        required: fields without which a table is refused.
        of_events: whether they are events, of which no other field may look like a decisive one.
        notes: facts about the files, gathered while they are read.
        timestamps: unit of timestamps that are numbers.
        dialect: format of the events; None for our own. The entries come as they are in the files.
    """

    fields: Collection[str] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    required: Sequence[str] = ()
    of_events: bool = False
    notes: Notes = field(default_factory=Notes)
    timestamps: Unit = "auto"
    dialect: Dialect | None = None

    def select(self, source: str, names: Sequence[str]) -> dict[str, str]:
        """Return the names of the wanted fields by the names of their columns.

        Raises:
            InputError: a required field has no column, or a column that is named is not there.
        """
        there = [name for name in names if not is_pandas_index(name)]
        absent = [column for column in self.columns.values() if column not in names]
        if absent:
            raise InputError(
                f"{source}: no column {', '.join(absent)}, which --columns names; there are"
                f" {', '.join(there[:20])}"
            )
        names_by_column = {column: name for name, column in self.columns.items()}
        for name in there:
            is_field = self.fields is None or name in self.fields
            is_field = is_field or name.startswith("attributes.")
            if is_field and name not in names_by_column and name not in self.columns:
                names_by_column[name] = name
        missing = [name for name in self.required if name not in names_by_column.values()]
        if missing:
            remedy = f". {self._example(missing, there)}" if self.of_events else ""
            raise InputError(
                f"{source}: no column {', '.join(missing)}; there are"
                f" {', '.join(there[:20]) or 'none'}{remedy}"
            )
        for name in there:
            meant = None if name in names_by_column else self.meant(name)
            if meant is not None:
                raise InputError(
                    f"{source}: the column {name} looks like {meant}, which changes what an event"
                    f" does; name it with --columns {meant}={name}, or leave it out"
                )
        self.notes.unused.update(
            dict.fromkeys(name for name in there if name not in names_by_column)
        )
        return names_by_column

    def _example(self, missing: Sequence[str], there: Sequence[str]) -> str:
        """Return how to name the columns, by the names that look alike."""
        short = {name: key for key, name in _SHORT.items() if key not in ("event", "time")}
        fields = [name for name in MAIN_FIELDS if name in (self.fields or missing)]
        near = {name: nearest(name, there) for name in fields if name not in there}
        example = ",".join(
            f"{short.get(name, name)}={column or 'NAME'}"
            for name, column in near.items()
            if column or name in missing
        )
        return f"Name the columns, for example --columns {example}"

    def meant(self, name: str) -> str | None:
        """Return the field that a name may mean, which changes what an event does; None for none.

        A field that --columns names is not meant by another name.
        """
        field = decisive(name) if self.of_events else None
        return None if field in self.columns else field


def parse_columns(text: str) -> dict[str, str]:
    """Return the column names by field, from a list such as `user=visitorid,item=itemid`.

    Raises:
        ValueError: a part is not `FIELD=NAME`, or there is no such field of events.

    >>> parse_columns("user=visitorid,item=itemid,kind=event,timestamp=timestamp")
    {'user_id': 'visitorid', 'item_id': 'itemid', 'kind': 'event', 'timestamp': 'timestamp'}
    """
    columns: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, sign, column = (word.strip() for word in part.partition("="))
        name = _SHORT.get(key, key)
        if not sign or not column:
            raise ValueError(f"{part!r} is not FIELD=NAME, for example user=visitorid")
        if name not in EVENT_FIELDS:
            ours = ", ".join(("user", "item", *EVENT_FIELDS[2:]))
            raise ValueError(f"{key!r} is no field of an event; the fields are {ours}")
        if name in columns:
            raise ValueError(f"{key!r} is named twice")
        if column in columns.values():
            raise ValueError(f"{column!r} is named for two fields; one is expected")
        columns[name] = column
    return columns


def event_reading(
    columns: Mapping[str, str] | None = None,
    timestamps: Unit = "auto",
    dialect: Dialect | None = None,
) -> Reading:
    """Return how events are read; the fields that an event does not have are noted.

    Args:
        columns: names of columns in the files, by field, where the two differ.
        timestamps: unit of timestamps that are numbers.
        dialect: format of the events; None for our own.

    Raises:
        InputError: columns are named, and the format is not our own.
    """
    if dialect is not None:
        if columns:
            raise InputError(
                f"--columns names fields of our own format, and the format is {dialect.name}; name"
                " the paths in a TOML file, and give that as --format"
            )
        return Reading(timestamps=timestamps, dialect=dialect)
    return Reading(EVENT_FIELDS, columns or {}, ("user_id",), of_events=True, timestamps=timestamps)


def entries(source: str, reading: Reading) -> Iterator[tuple[str, int, bytes | Fields]]:
    """Yield file, number and content of each line or row of a file, or of a folder of part files.

    A line of JSON is yielded as bytes, cut to MAX_LINE_BYTES + 1; blank lines are skipped. A row of
    a table is yielded as its fields: of Parquet with values, of text with text.

    Args:
        source: a path, also of a folder; `-` is standard input.
        reading: which fields are wanted.

    Raises:
        InputError: the file does not exist, it is damaged, or of a format that is not read here.
    """
    for path in part_files(source):
        for number, entry in _entries(path, reading, path != source):
            yield path, number, entry


def _entries(path: str, reading: Reading, is_part: bool) -> Iterator[tuple[int, bytes | Fields]]:
    name = name_of(path)

    def select(names: list[str]) -> Mapping[str, str]:
        return reading.select(name, names)

    in_seconds = reading.timestamps in ("auto", "seconds")
    with opened(path) as (file, form, head):
        if not head and is_part:
            reading.notes.remarks[f"{name}: the file is empty"] = None
            return
        if not head and form != "lines":
            raise InputError(f"{name}: the file is empty")
        if form == "parquet":
            yield from enumerate(parquet_rows(file, name, select, in_seconds), 1)
            return
        if form == "workbook":
            yield from workbook_rows(file, name, select, reading.notes, in_seconds)
            return
        lines = utf8_lines(file, head, name, MAX_LINE_BYTES, reading.notes)
        if form == "table":
            yield from table_rows(lines, name, select)
            return
        numbered: Iterator[tuple[int, bytes]]
        numbered = enumerate(lines, 1) if form == "lines" else _array(lines, name)
        rename = _renamer(reading)
        for number, line in numbered:
            if len(line) > MAX_LINE_BYTES:
                yield number, Undecodable(line, _TOO_LONG, "wrong_type")
            elif line := line.strip():
                yield number, line if rename is None else rename(line)
                if number <= _NAMED_LINES and reading.fields is not None:
                    _note_names(line, reading)


def _array(lines: Iterator[bytes], name: str) -> Iterator[tuple[int, bytes]]:
    """Yield the elements of a JSON array; lines that are arrays each are yielded as they are.

    Raises:
        InputError: the array is longer than MAX_ARRAY_BYTES, or not JSON.
    """
    whole = bytearray()
    for line in lines:
        whole += line
        if len(whole) > MAX_ARRAY_BYTES:
            raise InputError(
                f"{name}: one JSON array of more than {MAX_ARRAY_BYTES >> 20} MiB; JSON lines are"
                " expected: make them with jq -c '.[]'"
            )
    try:
        elements = msgspec.json.decode(bytes(whole), type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if not _is_array(bytes(whole.partition(b"\n")[0])):
            raise InputError(
                f"{name}: a JSON array is expected, and this is none: {error}"
            ) from error
        yield from enumerate(bytes(whole).split(b"\n"), 1)
        return
    for number, element in enumerate(elements, 1):
        yield number, bytes(element)


def _is_array(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _renamer(reading: Reading) -> Callable[[bytes], bytes] | None:
    """Return a function that gives the fields of a line of JSON our names; None if they have."""
    if not reading.columns:
        return None
    names = {column: name for name, column in reading.columns.items()}
    one = msgspec.json.Decoder(dict[str, msgspec.Raw])
    many = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])

    def renamed(fields: dict[str, msgspec.Raw]) -> dict[str, Any]:
        if fields.keys() == {"schema", "payload"}:  # Kafka Connect, see foreign.py
            return fields | {"payload": renamed(one.decode(fields["payload"]))}
        return {
            names.get(key, key): value
            for key, value in fields.items()
            if key in names or (key not in reading.columns and decisive(key) not in reading.columns)
        }

    def rename(line: bytes) -> bytes:
        try:
            if line.startswith(b"["):
                return msgspec.json.encode([renamed(fields) for fields in many.decode(line)])
            return msgspec.json.encode(renamed(one.decode(line)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return line

    return rename


def _note_names(line: bytes, reading: Reading) -> None:
    try:
        fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if fields.keys() == {"schema", "payload"}:
        return
    used = set(reading.fields or ()) | set(reading.columns.values())
    reading.notes.unused.update(dict.fromkeys(name for name in fields if name not in used))


def place_of(path: str, number: int) -> str:
    """Return the place of a line or row as messages name it.

    >>> place_of("items.jsonl", 3), place_of("-", 3), place_of("items.parquet", 3)
    ('items.jsonl, line 3', 'standard input, line 3', 'items.parquet, row 3')
    """
    row = path.lower().rstrip("/").endswith((".parquet", ".pq", *WORKBOOKS))
    return f"{name_of(path)}, {'row' if row else 'line'} {number}"


def read_lines(sources: Sequence[str], reading: Reading | None = None) -> Iterator[Line]:
    """Read lines of JSON from files, in order; rows of tables become JSON.

    Args:
        sources: paths of files or folders, of any format; `-` is standard input.
        reading: which fields are wanted, for events that of `event_reading`; None for all.

    Raises:
        InputError: a file cannot be read.
    """
    reading = reading or Reading()
    for source in sources:
        for path, number, value in entries(source, reading):
            yield Line(place_of(path, number), as_json(value))


def as_json(entry: bytes | Fields) -> bytes:
    """Return a line, or the JSON of a row."""
    if isinstance(entry, bytes):
        return entry
    for name, value in entry.items():
        if isinstance(value, float) and not isfinite(value):
            entry = entry | {name: str(value)}  # JSON would make it null
    return _encoder.encode(entry)


_encoder = msgspec.json.Encoder(enc_hook=str)
