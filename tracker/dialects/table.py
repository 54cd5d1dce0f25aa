"""TableDialect: a format of other systems, by a table of paths and words."""

from collections.abc import Sequence
from math import isfinite, isnan
from typing import Any, Literal

import msgspec

from tracker.dialects.paths import FieldPath, Paths, first_value, parsed_json, walk, with_list
from tracker.events.dialect import Fields, Part, PassedOver, numbered
from tracker.events.foreign import ForeignValueError, check_number
from tracker.events.names import nearest
from tracker.explained import Explained


class DialectError(Explained, ValueError):
    """A format is not known, or its file cannot be used; the message names what was found."""


class Join(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Records that join two users: their words, and the paths of both ids."""

    words: list[str]
    user: Paths
    was: Paths


class DialectFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The TOML file of a dialect; docs/reference/formats.md describes it for users.

    Attributes:
        base: the built-in dialect that it extends.
        records: path of a list of records within a record.
        user, item, kind, timestamp, scene, value, event_id: paths of the fields of an event.
        kinds: kind by word of the other system; empty if words are kinds.
        takes_back: the kind whose latest event a word takes back, by word.
        ignore: words that say nothing of items.
        absent: texts that stand for no value.
        join: records that join two users.
        others: what becomes of other words; by default they are rejected.
    """

    base: str | None = None
    records: str | None = None
    user: Paths | None = None
    item: Paths | None = None
    kind: Paths | None = None
    timestamp: Paths | None = None
    scene: Paths | None = None
    value: Paths | None = None
    event_id: Paths | None = None
    kinds: dict[str, str] = {}
    takes_back: dict[str, str] = {}
    ignore: list[str] = []
    absent: list[str] = []
    join: Join | None = None
    others: Literal["reject", "ignore"] | None = None


def _compiled(paths: Paths | None, place: str) -> tuple[FieldPath, ...]:
    texts = [] if paths is None else [paths] if isinstance(paths, str) else paths
    try:
        return tuple(FieldPath(text) for text in texts)
    except ValueError as error:
        raise DialectError(
            f"{place}: {error}; such as a.b, a[0].b, a[key=x].b, items[].id or =text is expected"
        ) from error


class TableDialect:
    """A dialect by a table of paths.

    Args:
        name: as settings and commands name it.
        file: the table.
        where: the file in which a word without a meaning is to be named, for messages.

    Raises:
        DialectError: a path cannot be read, or paths are missing.
    """

    def __init__(self, name: str, file: DialectFile, where: str) -> None:
        self.name = name
        self._where = where
        self._user = _compiled(file.user, f"{name}: user")
        self._item = _compiled(file.item, f"{name}: item")
        self._kind = _compiled(file.kind, f"{name}: kind")
        self._more = {
            "timestamp": _compiled(file.timestamp, f"{name}: timestamp"),
            "scene": _compiled(file.scene, f"{name}: scene"),
            "value": _compiled(file.value, f"{name}: value"),
        }
        self._event_id = _compiled(file.event_id, f"{name}: event_id")
        self._absent = frozenset(file.absent)
        self._records = _compiled(file.records, f"{name}: records")
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
        self._join_user = _compiled(join.user if join else None, f"{name}: join.user")
        self._join_was = _compiled(join.was if join else None, f"{name}: join.was")
        self._names = [*file.kinds, *file.takes_back, *(join.words if join else [])]

    def _paths(self) -> list[FieldPath]:
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
            inner = first_value(self._records, record) if isinstance(record, dict) else None
            parts += inner if isinstance(inner, list) else [record]
        return parts

    def parts(self, record: Fields) -> list[Part]:
        """Return the events of a record.

        Raises:
            ForeignValueError: the record is not one of this format.
            PassedOver: it is one that says nothing of items.
        """
        word = first_value(self._kind, record)
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
                f" kinds, takes_back or ignore in {self._where}",
            )
        common: Fields = {} if back is None else {"takes_back": back}
        if back is None:
            common["kind"] = kind
        user = self._first(self._user, record)
        if user is not None:
            common["user_id"] = user
        items = [] if self._list is None else parsed_json(walk(record, self._list))
        if isinstance(items, dict):
            items = [items]
        if not isinstance(items, list) or not items:
            return [Part(common | self._fields(record, None, 0))]
        check_number(len(items))
        return [
            Part(common | self._fields(record, item, place), place)
            for place, item in enumerate(items)
        ]

    def _first(self, paths: Sequence[FieldPath], record: Fields, item: Any = None) -> Any:
        """Return the value of the first path that has one which does not say that there is none."""
        value = first_value(paths, record, item)
        if isinstance(value, str) and value in self._absent:
            others = (path.find(record, item) for path in paths)
            value = next(
                (one for one in others if one is not None and one not in self._absent), None
            )
        return value

    def _fields(self, record: Fields, item: Any, place: int) -> Fields:
        """Return the fields that may differ from item to item."""
        fields: Fields = {}
        item_id = self._first(self._item, record, item)
        if item_id is not None:
            fields["item_id"] = item_id
        for name, paths in self._more.items():
            value = self._first(paths, record, item)
            if value is not None:
                fields[name] = value
        if isinstance(fields.get("value"), str):
            fields["value"] = _number(fields["value"])
        if "scene" in fields:
            fields["scene"] = str(fields["scene"])
        event_id = self._first(self._event_id, record, item)
        if event_id is not None:
            fields["event_id"] = numbered(event_id, place)
        elif self._event_id:
            self._check_names(record, item)
        return fields

    def _check_names(self, record: Fields, item: Any) -> None:
        """Refuse a record without an event id that has another name near that of the id.

        Raises:
            ForeignValueError: it has.
        """
        for path in self._event_id:
            if (near := path.near(record, item)) is not None:
                raise ForeignValueError(
                    "unknown_field",
                    f"`{near[:64]}` looks like `{path.text}`, the event id of the format"
                    f" {self.name}, so it is not ignored; correct the name, or name it as event_id"
                    f" in {self._where}",
                )

    def _join(self, record: Fields, word: str) -> Fields:
        user, was = self._first(self._join_user, record), self._first(self._join_was, record)
        if user is None or was is None or user == was:
            raise PassedOver(word)
        fields: Fields = {"user_id": user, "was": was}
        time = first_value(self._more["timestamp"], record)
        return fields if time is None else fields | {"timestamp": time}

    def only(self, record: Fields, places: Sequence[int]) -> Fields:
        """Return a record with only some of the items of its list."""
        some: Fields = with_list(record, self._list or (), places)
        return some

    def hint(self) -> str:
        """Return where the fields of an event are expected, for messages."""
        named = (("user", self._user), ("item", self._item), ("kind", self._kind))
        where = "; ".join(
            f"{name} at {', '.join(path.text for path in paths)}" for name, paths in named
        )
        return f"; the format {self.name} has {where}"


def _number(text: str) -> float | str | None:
    """Return the number of a text, None for one that says that there is none, or the text."""
    try:
        number = float(text)
    except ValueError:
        return text
    return number if isfinite(number) else None if isnan(number) else text
