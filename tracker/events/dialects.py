"""Dialects: records of other systems as events, by a table of paths; built-in ones and your own."""

import base64
import importlib.resources
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from tracker.events.foreign import (
    ForeignValueError,
    SeveralEvents,
    check_number,
    content_of,
    object_of,
)
from tracker.events.lines import Line
from tracker.events.names import nearest
from tracker.events.wire import (
    Event,
    OwnFormat,
    RejectedEventError,
    Undecodable,
    decode_event,
)
from tracker.explained import Explained

OWN = "tracker"
"""The name of our own format, which is no dialect."""

BUILT_IN = ("segment", "snowplow", "ubi", "ga4")
"""Names of the dialects that come with the package, each a file in tracker/dialects."""

ENVELOPE = "cloudevents"
"""The name of the envelope; `cloudevents:segment` is the envelope around another format."""

FORMATS = (OWN, *BUILT_IN, ENVELOPE)

Fields = dict[str, Any]
"""Fields of one event in our format."""

_Paths = str | list[str]
_Step = str | int | tuple[str, str]
_SEGMENT = re.compile(r'(?:"([^"]+)"|([^.\[\]"]+))((?:\[[^\]]*\])*)(?:\.|$)')


class DialectError(Explained, ValueError):
    """A format is not known, or its file cannot be used; the message names what was found."""


class PassedOver(Exception):
    """A record that a dialect leaves out; `word` is what it says of itself."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class Part(msgspec.Struct, frozen=True):
    """One event of a record: its fields in our format, and the place of its item in the list.

    `place` is -1 for an event of the record as a whole.
    """

    fields: Fields
    place: int = -1


class Dialect(Protocol):
    """A format of records.

    Attributes:
        name: as settings and commands name it.
    """

    name: str

    def records(self, content: Any) -> list[Any]:
        """Return the records that a value holds, one or several."""

    def parts(self, record: Fields) -> list[Part]:
        """Return the events of a record.

        Raises:
            ForeignValueError: the record is not one of this format.
            PassedOver: it is one that says nothing of items.
        """

    def only(self, record: Fields, places: Sequence[int]) -> Fields:
        """Return a record with only some of the items of its list."""

    def hint(self) -> str:
        """Return where the fields of an event are expected, for messages."""


class _Join(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Records that join two users: their words, and the paths of both ids."""

    words: list[str]
    user: _Paths
    was: _Paths


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The TOML file of a dialect."""

    base: str | None = None
    records: str | None = None
    user: _Paths | None = None
    item: _Paths | None = None
    kind: _Paths | None = None
    timestamp: _Paths | None = None
    scene: _Paths | None = None
    value: _Paths | None = None
    event_id: _Paths | None = None
    kinds: dict[str, str] = {}
    takes_back: dict[str, str] = {}
    ignore: list[str] = []
    join: _Join | None = None
    others: Literal["reject", "ignore"] | None = None


class _Path:
    """One path, compiled: `a.b`, `a[0].b`, `a[key=x].b`, `"a.b".c`, `list[].b`, or `=text`.

    Attributes:
        text: as it was written.
        list_steps: steps to the list of items; None for a path without `[]`.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.constant = text[1:] if text.startswith("=") else None
        self.list_steps: tuple[_Step, ...] | None = None
        steps: list[_Step] = []
        at = 0
        while self.constant is None and (at < len(text) or not steps):
            match = _SEGMENT.match(text, at)
            if match is None:
                raise ValueError(f"{text!r} is no path")
            steps.append(match[1] or match[2])
            for inner in re.findall(r"\[([^\]]*)\]", match[3]):
                key, sign, word = inner.partition("=")
                if not inner:
                    if self.list_steps is not None:
                        raise ValueError(f"{text!r} has [] twice; one list of items is expected")
                    self.list_steps, steps = tuple(steps), []
                elif sign:
                    steps.append((key, word))
                elif inner.isdigit():
                    steps.append(int(inner))
                else:
                    raise ValueError(f"{text!r}: [{inner}] is neither [], [NUMBER] nor [KEY=TEXT]")
            at = match.end()
        self._steps = tuple(steps)

    def find(self, record: Fields, item: Any) -> Any:
        """Return the value at the path; None if there is none, or an empty text."""
        if self.constant is not None:
            return self.constant
        if self.list_steps is None:
            value = record.get(self.text)  # a table's column may have the path as its name
            if value is None:
                value = _walk(record, self._steps)
        else:
            value = _walk(item, self._steps)
        return None if value == "" else value


def _walk(value: Any, steps: Sequence[_Step]) -> Any:
    for step in steps:
        value = _parsed(value)
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        elif isinstance(step, int):
            value = value[step] if isinstance(value, list) and step < len(value) else None
        elif isinstance(value, list):
            key, word = step
            value = next(
                (one for one in value if isinstance(one, dict) and one.get(key) == word), None
            )
        else:
            value = value.get(step[1]) if isinstance(value, dict) else None
        if value is None:
            return None
    return value


def _parsed(value: Any) -> Any:
    """Return a value, parsed if it is JSON in a text, as columns of tables often are."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return value
    return value


def _compile(paths: _Paths | None, place: str) -> tuple[_Path, ...]:
    texts = [] if paths is None else [paths] if isinstance(paths, str) else paths
    try:
        return tuple(_Path(text) for text in texts)
    except ValueError as error:
        raise DialectError(
            f"{place}: {error}; such as a.b, a[0].b, a[key=x].b, items[].id or =text is expected"
        ) from error


def _first(paths: Sequence[_Path], record: Fields, item: Any = None) -> Any:
    for path in paths:
        value = path.find(record, item)
        if value is not None:
            return value
    return None


class TableDialect:
    """A dialect by a table of paths.

    Args:
        name: as settings and commands name it.
        file: the table.

    Raises:
        DialectError: a path cannot be read, or paths are missing.
    """

    def __init__(self, name: str, file: _File) -> None:
        self.name = name
        self._file = f'a file of your own with base = "{name}"' if name in BUILT_IN else name
        self._user = _compile(file.user, f"{name}: user")
        self._item = _compile(file.item, f"{name}: item")
        self._kind = _compile(file.kind, f"{name}: kind")
        self._more = {
            "timestamp": _compile(file.timestamp, f"{name}: timestamp"),
            "scene": _compile(file.scene, f"{name}: scene"),
            "value": _compile(file.value, f"{name}: value"),
        }
        self._event_id = _compile(file.event_id, f"{name}: event_id")
        self._records = _compile(file.records, f"{name}: records")
        missing = [
            field
            for field, paths in (("user", self._user), ("item", self._item), ("kind", self._kind))
            if not paths
        ]
        if missing:
            raise DialectError(
                f'{name}: no {", ".join(missing)}; a path is expected, such as user = "userId"'
            )
        lists = {path.list_steps for path in self._paths() if path.list_steps is not None}
        if len(lists) > 1:
            raise DialectError(f"{name}: [] in paths of several lists; one list is expected")
        self._list = next(iter(lists), None)
        self._kinds = {word.casefold(): kind for word, kind in file.kinds.items()}
        self._back = {word.casefold(): kind for word, kind in file.takes_back.items()}
        self._ignored = {word.casefold() for word in file.ignore}
        self._ignores_others = file.others == "ignore"
        join = file.join
        self._joins = {word.casefold() for word in join.words} if join else set()
        self._join_user = _compile(join.user if join else None, f"{name}: join.user")
        self._join_was = _compile(join.was if join else None, f"{name}: join.was")
        self._names = [*file.kinds, *file.takes_back, *(join.words if join else [])]

    def _paths(self) -> list[_Path]:
        return [
            path
            for paths in (self._user, self._item, self._kind, self._event_id, *self._more.values())
            for path in paths
        ]

    def records(self, content: Any) -> list[Any]:
        """Return the records that a value holds, one or several."""
        records = content if isinstance(content, list) else [content]
        if not self._records:
            return records
        parts: list[Any] = []
        for record in records:
            inner = _first(self._records, record) if isinstance(record, dict) else None
            parts += inner if isinstance(inner, list) else [record]
        return parts

    def parts(self, record: Fields) -> list[Part]:
        """Return the events of a record.

        Raises:
            ForeignValueError: the record is not one of this format.
            PassedOver: it is one that says nothing of items.
        """
        word = _first(self._kind, record)
        if word is None:
            raise ForeignValueError("missing_field", f"no kind{self.hint()}")
        word = str(word)
        folded = word.casefold()
        if folded in self._joins:
            return [Part(self._join(record, word))]
        kind = self._kinds.get(folded) if self._kinds else word
        back = self._back.get(folded)
        if back is None and folded in self._ignored:
            raise PassedOver(word)
        if back is None and kind is None:
            if self._ignores_others:
                raise PassedOver(word)
            meant = nearest(word, self._names)
            ask = "" if meant is None else f"; did you mean {meant}?"
            raise ForeignValueError(
                "unknown_kind",
                f"{word[:64]!r} is no kind of the format {self.name}{ask or ';'} name it under"
                f" kinds, takes_back or ignore in {self._file}",
            )
        common: Fields = {} if back is None else {"takes_back": back}
        if back is None:
            common["kind"] = kind
        user = _first(self._user, record)
        if user is not None:
            common["user_id"] = user
        items = [] if self._list is None else _parsed(_walk(record, self._list))
        if isinstance(items, dict):
            items = [items]
        if not isinstance(items, list) or not items:
            return [Part(common | self._fields(record, None, 0))]
        check_number(len(items))
        return [
            Part(common | self._fields(record, item, place), place)
            for place, item in enumerate(items)
        ]

    def _fields(self, record: Fields, item: Any, place: int) -> Fields:
        """Return the fields that may differ from item to item."""
        fields: Fields = {}
        item_id = _first(self._item, record, item)
        if item_id is not None:
            fields["item_id"] = item_id
        for name, paths in self._more.items():
            value = _first(paths, record, item)
            if value is not None:
                fields[name] = value
        if isinstance(fields.get("value"), str):
            fields["value"] = _number(fields["value"])
        if "scene" in fields:
            fields["scene"] = str(fields["scene"])
        event_id = _first(self._event_id, record, item)
        if event_id is not None:
            fields["event_id"] = numbered(event_id, place)
        return fields

    def _join(self, record: Fields, word: str) -> Fields:
        user, was = _first(self._join_user, record), _first(self._join_was, record)
        if user is None or was is None or user == was:
            raise PassedOver(word)
        fields: Fields = {"user_id": user, "was": was}
        time = _first(self._more["timestamp"], record)
        return fields if time is None else fields | {"timestamp": time}

    def only(self, record: Fields, places: Sequence[int]) -> Fields:
        """Return a record with only some of the items of its list."""
        some: Fields = _with_list(record, self._list or (), places)
        return some

    def hint(self) -> str:
        """Return where the fields of an event are expected, for messages."""
        named = (("user", self._user), ("item", self._item), ("kind", self._kind))
        where = "; ".join(
            f"{name} at {', '.join(path.text for path in paths)}" for name, paths in named
        )
        return f"; the format {self.name} has {where}"


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _with_list(value: Any, steps: Sequence[_Step], places: Sequence[int]) -> Any:
    value = _parsed(value)
    if not steps:
        return [value[place] for place in places] if isinstance(value, list) else value
    if isinstance(steps[0], str) and isinstance(value, dict):
        return value | {steps[0]: _with_list(value.get(steps[0]), steps[1:], places)}
    return value


def numbered(event_id: Any, place: int) -> Any:
    """Return the id of an event of a record of several: the record's, then with a number.

    >>> [numbered("m1", place) for place in range(3)]
    ['m1', 'm1/2', 'm1/3']
    """
    return event_id if place == 0 else f"{event_id}/{place + 1}"


class _OwnFormat:
    """Our own format, within an envelope."""

    name = OWN

    def records(self, content: Any) -> list[Any]:
        """Return the events of an array, or the one."""
        return content if isinstance(content, list) else [content]

    def parts(self, record: Fields) -> list[Part]:
        """Return the event."""
        return [Part(record)]

    def only(self, record: Fields, places: Sequence[int]) -> Fields:
        """Return the event."""
        return record

    def hint(self) -> str:
        """Return nothing: messages name our fields already."""
        return ""


class CloudEvents:
    """The envelope of CloudEvents 1.0 in its structured mode, also a batch of them.

    `data` holds a record of another format. Where that has no event id, `source` and `id` together
    are it; where it has no timestamp, `time` is, and for a kind the last part of `type`.

    Args:
        inner: the format of `data`.
    """

    def __init__(self, inner: Dialect | None) -> None:
        self._inner = inner or _OwnFormat()
        self.name = ENVELOPE if inner is None else f"{ENVELOPE}:{inner.name}"

    def records(self, content: Any) -> list[Any]:
        """Return the envelopes of a batch, or the one; those whose data are several, each."""
        envelopes = content if isinstance(content, list) else [content]
        return [
            envelope | {"data": data} if isinstance(envelope, dict) and len(inner) > 1 else envelope
            for envelope in envelopes
            for inner in [self._records_of(envelope)]
            for data in inner
        ]

    def _records_of(self, envelope: Any) -> list[Any]:
        if not isinstance(envelope, dict) or "data" not in envelope:
            return [None]
        return self._inner.records(_parsed(envelope["data"])) or [None]

    def parts(self, record: Fields) -> list[Part]:
        """Return the events of an envelope.

        Raises:
            ForeignValueError: it is no envelope, or its data are not of the inner format.
            PassedOver: the data say nothing of items.
        """
        if "specversion" not in record or not ("data" in record or "data_base64" in record):
            raise ForeignValueError(
                "missing_field",
                "no CloudEvent in structured mode: specversion, id, source, type and data are"
                " expected; in binary mode set the format to that of the value itself",
            )
        data = self._data(record)
        parts = self._inner.parts(object_of(data, "data is no object"))
        event_id = None
        if record.get("id") is not None:
            event_id = f"{record.get('source') or ''} {record['id']}".strip()
        return [self._completed(part, record, event_id) for part in parts]

    def _data(self, record: Fields) -> Any:
        if "data" in record:
            data = _parsed(record["data"])
        else:
            try:
                data = msgspec.json.decode(base64.b64decode(record["data_base64"]))
            except (ValueError, TypeError, msgspec.DecodeError, RecursionError) as error:
                raise ForeignValueError(
                    "not_json", f"data_base64 holds no JSON ({error}); an event is expected"
                ) from error
        return data[0] if isinstance(data, list) and len(data) == 1 else data

    def _completed(self, part: Part, record: Fields, event_id: str | None) -> Part:
        fields = dict(part.fields)
        if event_id is not None and fields.get("event_id") is None and "was" not in fields:
            fields["event_id"] = numbered(event_id, max(0, part.place))
        if fields.get("timestamp") is None and record.get("time") is not None:
            fields["timestamp"] = record["time"]
        is_action = not any(name in fields for name in ("retracts", "takes_back", "was"))
        if is_action and fields.get("kind") is None and isinstance(record.get("type"), str):
            fields["kind"] = record["type"].rpartition(".")[2]
        return Part(fields, part.place)

    def only(self, record: Fields, places: Sequence[int]) -> Fields:
        """Return an envelope with only some of the items of its data."""
        rest = {name: value for name, value in record.items() if name != "data_base64"}
        return rest | {"data": self._inner.only(self._data(record), places)}

    def hint(self) -> str:
        """Return where the fields of an event are expected, for messages."""
        return f" (in data){self._inner.hint()}"


def load_dialect(name: str) -> Dialect | None:
    """Return the dialect of a name, or of a TOML file; None for our own format.

    Args:
        name: one of FORMATS, a path that ends in .toml, or `cloudevents:` and one of these.

    Raises:
        DialectError: there is no such format, or the file cannot be used.
    """
    if name == OWN:
        return None
    envelope, sign, inner = name.partition(":")
    if envelope == ENVELOPE:
        return CloudEvents(load_dialect(inner) if sign else None)
    return TableDialect(name, _load_file(name))


def _load_file(name: str) -> _File:
    if name in BUILT_IN:
        resource = importlib.resources.files("tracker") / "dialects" / f"{name}.toml"
        return _read(name, resource.read_text(encoding="utf-8"))
    if not name.endswith(".toml"):
        meant = nearest(name, FORMATS)
        ask = "" if meant is None else f" Did you mean {meant}?"
        raise DialectError(
            f"format {name!r} is not known; one of {', '.join(FORMATS)}, or a file that ends in"
            f" .toml, is expected.{ask}"
        )
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DialectError(f"{name}: cannot be read: {why}") from error
    file = _read(name, text)
    if file.base is None:
        return file
    if file.base not in BUILT_IN:
        raise DialectError(
            f"{name}: base = {file.base!r} is not known; one of {', '.join(BUILT_IN)} is expected"
        )
    return _merged(_load_file(file.base), file)


def _merged(base: _File, file: _File) -> _File:
    """Return a file over another one: what it names counts, and the other's words stay."""
    named = set(file.kinds) | set(file.takes_back) | set(file.ignore)
    fields: dict[str, Any] = {
        name: value
        for name in file.__struct_fields__
        if name not in ("kinds", "takes_back", "ignore") and (value := getattr(file, name))
    }
    return msgspec.structs.replace(
        base,
        **fields,
        kinds=_without(base.kinds, named) | file.kinds,
        takes_back=_without(base.takes_back, named) | file.takes_back,
        ignore=[word for word in base.ignore if word not in named] + file.ignore,
    )


def _without(table: Mapping[str, str], words: set[str]) -> dict[str, str]:
    return {word: kind for word, kind in table.items() if word not in words}


def _read(name: str, text: str) -> _File:
    try:
        return msgspec.convert(tomllib.loads(text), _File)
    except msgspec.ValidationError as error:
        raise DialectError(
            f"{name}: {error}; expected are the paths user, item, kind, timestamp, scene, value,"
            " event_id and records, base, others, ignore, and the tables kinds, takes_back, join"
        ) from error
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise DialectError(f"{name}: not TOML: {error}") from error


def decode_record(value: bytes | None, dialect: Dialect) -> Event:
    """Read the event of a record in a dialect.

    Args:
        value: bytes of a record or line.
        dialect: its format.

    Raises:
        RejectedEventError: it is none; the message names what was found and expected.
        SeveralEvents: there are several.
        PassedOver: it is a record of the dialect that says nothing of items.
    """
    if value is None:
        raise RejectedEventError("tombstone", f"a record without value; {dialect.name} is expected")
    if isinstance(value, OwnFormat):
        return decode_event(value)
    if isinstance(value, Undecodable):
        raise RejectedEventError(value.reason, value.why)
    try:
        parts, record_of = _split(value, dialect)
    except ForeignValueError as error:
        raise RejectedEventError(error.reason, str(error)) from error
    if len(parts) > 1:
        raise SeveralEvents(parts, record_of)
    try:
        return decode_event(parts[0])
    except RejectedEventError as error:
        if error.reason == "missing_field":
            raise RejectedEventError(error.reason, f"{error}{dialect.hint()}") from error
        raise


def _split(value: bytes, dialect: Dialect) -> tuple[list[bytes], Callable[[Sequence[int]], bytes]]:
    """Return the events of a record as JSON in our format, and what makes a record of some.

    Raises:
        ForeignValueError: no part of the record is of the dialect.
        PassedOver: none of its parts says anything of items.
    """
    records = dialect.records(content_of(value))
    check_number(len(records))
    if not records:
        raise ForeignValueError("wrong_type", "an empty array; an event is expected")
    parts: list[bytes] = []
    origins: list[tuple[int, int]] = []
    for number, record in enumerate(records):
        try:
            events = dialect.parts(object_of(record, f"of the format {dialect.name}"))
        except PassedOver:
            if len(records) == 1:
                raise
            continue
        except ForeignValueError as error:
            if len(records) == 1:
                raise
            parts.append(Undecodable(b"", str(error), error.reason))
            origins.append((number, -1))
            continue
        parts += [_encoder.encode(part.fields) for part in events]
        origins += [(number, part.place) for part in events]
    if not parts:
        raise PassedOver("batch")
    check_number(len(parts))

    def record_of(places: Sequence[int]) -> bytes:
        by_record: dict[int, list[int]] = {}
        for place in places:
            number, item = origins[place]
            by_record.setdefault(number, []).append(item)
        some = [
            records[number] if items == [-1] else dialect.only(records[number], items)
            for number, items in by_record.items()
        ]
        return _encoder.encode(some[0] if len(some) == 1 else some)

    return parts, record_of


def records_of(value: bytes, dialect: Dialect | None, as_it_is: bool) -> list[bytes]:
    """Return a line of a file as the records to send: those of several users are apart.

    Args:
        value: the line.
        dialect: its format; None for our own.
        as_it_is: whether records keep the dialect; else they are in our own format.

    Returns:
        the records, none for a line that the dialect passes over. A line that is none of the
        dialect comes as it is, with its reason.
    """
    if dialect is None and not value.startswith(b"["):
        return [value]
    try:
        if dialect is None:
            content = content_of(value)
            several = isinstance(content, list) and len(content) > 1
            return [_encoder.encode(part) for part in content] if several else [value]
        if not as_it_is:
            return _split(value, dialect)[0]
        content = content_of(value)
        records = dialect.records(content)
        return [value] if len(records) == 1 else [_encoder.encode(record) for record in records]
    except PassedOver:
        return []
    except ForeignValueError as error:
        return [Undecodable(value, str(error), error.reason)]


def records_in(
    lines: Iterator[Line], dialect: Dialect | None = None, as_it_is: bool = False
) -> Iterator[Line]:
    """Yield the records of lines, each with the place of its line; see `records_of`."""
    for line in lines:
        for value in records_of(line.value, dialect, as_it_is):
            yield line if value is line.value else Line(line.place, value)


_encoder = msgspec.json.Encoder()
