"""Items and users from files: each line or row as a struct, or the reason why it is none."""

import dataclasses
import decimal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tracker.events.entries import Reading, entries, place_of
from tracker.events.foreign import ForeignValueError, content_of
from tracker.events.ids import IdError, id_text
from tracker.events.names import nearest
from tracker.events.tables import Fields
from tracker.events.wire import Undecodable

Struct = TypeVar("Struct")

_TEXTS = ("text", "title")
_IDS = ("item_id", "user_id")


def read_structs(
    path: Path,
    struct: type[Struct],
    reading: Reading | None = None,
    left_out: Counter[str] | None = None,
) -> Iterator[tuple[str, Struct | str]]:
    """Yield the place of each line or row with its struct, or with the reason why there is none.

    Null is absent, everywhere. An attribute that cannot be kept, such as a date or an object within
    it, is left out; the rest of the line stays.

    Args:
        path: a file, or a folder of part files, of any format; `-` is standard input.
        struct: the class of the msgspec structs.
        reading: if given, its notes get the names of fields that are not used.
        left_out: if given, the attributes left out are counted in it by name.

    Raises:
        InputError: the file does not exist, it is damaged or of another format, or a table without
            a column of ids.
    """
    decoder = msgspec.json.Decoder(struct)
    fields: tuple[str, ...] = struct.__struct_fields__  # type: ignore[attr-defined]
    reading = reading or Reading()
    required = tuple(name for name in _IDS if name in fields)
    reading = dataclasses.replace(reading, fields=fields, required=required)
    for source, number, entry in entries(str(path), reading):
        place = place_of(source, number)
        try:
            if isinstance(entry, Undecodable):
                yield place, entry.why
            elif isinstance(entry, dict):
                yield place, msgspec.convert(tidy(entry, fields, left_out), struct)
            else:
                try:
                    yield place, decoder.decode(entry)
                except msgspec.ValidationError:
                    try:
                        line = msgspec.json.decode(entry)
                    except msgspec.ValidationError as beyond:  # a number that nothing can hold
                        yield place, _not_json(entry, beyond)
                        continue
                    if not isinstance(line, dict):
                        raise
                    yield place, msgspec.convert(tidy(line, fields, left_out), struct)
        except (msgspec.ValidationError, IdError) as error:
            yield place, f"{error}{_look_alikes(entry, fields)}"
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield place, _not_json(entry, error)


def _look_alikes(entry: Any, names: tuple[str, ...]) -> str:
    """Return which fields of a line look like those that are expected, for its message."""
    there = entry if isinstance(entry, dict) else msgspec.json.decode(entry)
    if not isinstance(there, dict):
        return ""
    near = [(name, nearest(name, names)) for name in there if name not in names]
    return "".join(f"; `{name[:64]}` looks like `{meant}`" for name, meant in near if meant)


def _not_json(line: Any, error: Exception) -> str:
    """Return what a line is that cannot be decoded."""
    why = f"not JSON: {error}"
    try:
        content_of(line)
    except ForeignValueError as foreign:
        why = str(foreign)
    return why if " expected" in why else f"{why}; one JSON object per line is expected"


def tidy(entry: Fields, names: tuple[str, ...], left_out: Counter[str] | None = None) -> Fields:
    """Return the known fields of a line without nulls, and without what cannot be kept.

    Args:
        entry: the fields of a line or row.
        names: names of the known fields.
        left_out: if given, the attributes left out are counted in it by name.

    Raises:
        IdError: an id is neither a text nor a whole number.

    >>> counts: Counter[str] = Counter()
    >>> tidy({"title": "a", "attributes": {"x": {}, "y": 1}}, ("title", "attributes"), counts)
    {'title': 'a', 'attributes': {'y': 1}}
    >>> counts
    Counter({'x': 1})
    """
    fields = {name: _without_nulls(entry[name]) for name in names if entry.get(name) is not None}
    if "categories" in fields:
        fields["categories"] = _categories(fields["categories"], left_out)
    if "attributes" in fields:
        fields["attributes"] = _attributes(fields["attributes"], left_out)
    for name in _IDS:
        if name in fields:
            fields[name] = id_text(fields[name], name)
    for name in _TEXTS:
        if isinstance(fields.get(name), int) and not isinstance(fields[name], bool):
            fields[name] = str(fields[name])  # a film called 1917
    return fields


def _without_nulls(value: Any) -> Any:
    """Return a value without the nulls within it; NaN, as pandas writes, is null."""
    if isinstance(value, dict):
        return {
            key: _without_nulls(one) for key, one in value.items() if one is not None and one == one
        }
    if isinstance(value, list):
        return [_without_nulls(one) for one in value if one is not None and one == one]
    return value


def _categories(categories: Any, left_out: Counter[str] | None) -> Any:
    """Return categories as a list of texts; those in one text are divided at `|`."""
    if isinstance(categories, str):
        if categories.startswith("["):
            try:
                return _categories(msgspec.json.decode(categories), left_out)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass
        return [part.strip() for part in categories.split("|") if part.strip()]
    texts = []
    for one in categories if isinstance(categories, list) else [categories]:
        if isinstance(one, str):
            texts.append(one)
        elif isinstance(one, int) and not isinstance(one, bool):
            texts.append(str(one))
        elif left_out is not None:
            left_out["categories"] += 1
    return texts


def _attributes(attributes: Any, left_out: Counter[str] | None) -> Fields:
    """Return the attributes that can be kept: texts, finite numbers, truths and lists of texts."""
    if not isinstance(attributes, dict):
        if left_out is not None:
            left_out["attributes"] += 1
        return {}
    result: Fields = {}
    for name, value in attributes.items():
        if isinstance(value, list):
            can_be_kept = all(isinstance(one, str) for one in value)
        else:
            if isinstance(value, decimal.Decimal):
                value = float(value)
            can_be_kept = isinstance(value, str | int | float) and value not in _INFINITE
        if can_be_kept and isinstance(name, str):
            result[name] = value
        elif left_out is not None:
            left_out[str(name)] += 1
    return result


_INFINITE = (float("inf"), float("-inf"))


def left_out_note(left_out: Counter[str]) -> str:
    """Return a line that names the attributes that were left out, or "".

    >>> left_out_note(Counter({"released": 3, "size": 1}))
    'attributes left out, not text, number, true, false or list of texts: released (3), size (1)'
    """
    if not left_out:
        return ""
    named = [f"{name[:64]} ({count:,})" for name, count in left_out.most_common(10)]
    more = f" and {len(left_out) - 10} more" if len(left_out) > 10 else ""
    return (
        "attributes left out, not text, number, true, false or list of texts:"
        f" {', '.join(named)}{more}"
    )
