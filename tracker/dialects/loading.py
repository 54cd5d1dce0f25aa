"""The built-in dialects, and your own from TOML files."""

import importlib.resources
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tracker.dialects.cloud_events import ENVELOPE, CloudEvents
from tracker.dialects.table import DialectError, DialectFile, TableDialect
from tracker.events.dialect import OWN, Dialect
from tracker.events.names import nearest
from tracker.events.tables import twice_named

BUILT_IN = ("segment", "snowplow", "ubi", "ga4")
"""Names of the dialects that come with the package, each a file in tracker/dialects."""

FORMATS = (OWN, *BUILT_IN, ENVELOPE)


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
        if inner.partition(":")[0] == ENVELOPE:
            raise DialectError(
                f"format {name[:64]!r}: {ENVELOPE} goes around another format once;"
                f" {ENVELOPE}:segment, for example, is expected"
            )
        return CloudEvents(load_dialect(inner) if sign else None)
    where = f'a file of your own with base = "{name}"' if name in BUILT_IN else name
    return TableDialect(name, _load_file(name), where)


def _load_file(name: str) -> DialectFile:
    if name in BUILT_IN:
        resource = importlib.resources.files("tracker") / "dialects" / f"{name}.toml"
        return _read(name, resource.read_text(encoding="utf-8"))
    if not name.endswith(".toml"):
        meant = nearest(name, FORMATS)
        ask = "" if meant is None else f" Did you mean {meant}?"
        raise DialectError(
            f"format {name[:64]!r} is not known; one of {', '.join(FORMATS)}, or a file that ends"
            f" in .toml, is expected.{ask}"
        )
    try:
        text = Path(name).read_text(encoding="utf-8-sig")  # Windows writes a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DialectError(f"{name}: cannot be read: {why}") from error
    file = _read(name, text)
    joins = file.join.words if file.join else []
    words = [word.casefold() for word in (*file.kinds, *file.takes_back, *file.ignore, *joins)]
    if twice := twice_named(words):
        raise DialectError(
            f"{name}: {', '.join(twice)[:200]}: under two of kinds, takes_back, ignore and"
            " join.words, or twice under one; a word has one meaning"
        )
    if file.base is None:
        return file
    if file.base not in BUILT_IN:
        raise DialectError(
            f"{name}: base = {file.base!r} is not known; one of {', '.join(BUILT_IN)} is expected"
        )
    return _merged(_load_file(file.base), file)


def _merged(base: DialectFile, file: DialectFile) -> DialectFile:
    """Return a file over another one: what it names counts, and the other's words stay."""
    named = {word.casefold() for word in (*file.kinds, *file.takes_back, *file.ignore)}
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
        ignore=[word for word in base.ignore if word.casefold() not in named] + file.ignore,
    )


def _without(table: Mapping[str, str], words: set[str]) -> dict[str, str]:
    return {word: kind for word, kind in table.items() if word.casefold() not in words}


def _read(name: str, text: str) -> DialectFile:
    try:
        return msgspec.convert(tomllib.loads(text), DialectFile)
    except msgspec.ValidationError as error:
        raise DialectError(
            f"{name}: {error}; expected are the paths user, item, kind, timestamp, scene, value,"
            " event_id and records, base, others, ignore, absent, and the tables kinds, takes_back,"
            " join"
        ) from error
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise DialectError(f"{name}: not TOML: {error}") from error
