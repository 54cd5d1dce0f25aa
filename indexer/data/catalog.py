"""Read items: id, text, categories, attributes; from JSON lines, also compressed, or Parquet."""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, BinaryIO, cast

import msgspec
import pyarrow
import pyarrow.parquet

from tracker.events.wire import MAX_ID_BYTES, hash_id

MAX_LINE_BYTES = 1 << 20
"""Longest line of a file of items; texts are cut by the encoder long before."""

MAX_LABEL_LETTERS = 40

SHOWN_PROBLEMS = 10

_FIELDS = "item_id, text or title with categories, attributes"

_NOTICED_LINES = 1000


class Item(msgspec.Struct, frozen=True):
    """One item of the catalogue: `item_id`, and `text` or `title` (with `categories`).

    `text` is what is encoded; without it the title and the categories are. `attributes` are kept
    in the format for filters and models to come, and shape no vector. Other fields are ignored.
    """

    item_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)]
    text: str | None = None
    title: str | None = None
    categories: list[str] = []
    attributes: dict[str, str | float | bool | list[str] | None] = {}

    def encoded_text(self) -> str:
        """Return what the encoder reads; empty when there is nothing.

        >>> Item("m1", title="Alien (1979)", categories=["Horror", "Sci-Fi"]).encoded_text()
        'Alien (1979). Horror, Sci-Fi'
        """
        if self.text is not None and self.text.strip():
            return self.text.strip()
        parts = [(self.title or "").strip(), ", ".join(name for name in self.categories if name)]
        return ". ".join(part for part in parts if part)

    def label(self) -> str:
        """Return how an interest in this item is called: its first category, else its title.

        >>> Item("m1", title="Alien (1979)", categories=["Horror", "Sci-Fi"]).label()
        'Horror'
        """
        category = next((name.strip() for name in self.categories if name.strip()), "")
        return category or (self.title or self.text or "").strip()[:MAX_LABEL_LETTERS]


@dataclass(frozen=True)
class Problem:
    """What is wrong with one line; `place` is `file:line` (or `file:row n`)."""

    place: str
    message: str

    def __str__(self) -> str:
        """Return one line for people."""
        return f"{self.place}: {self.message}"


class CatalogError(Exception):
    """The items cannot be used; `problems` are the first of `total`."""

    def __init__(self, message: str, problems: Sequence[Problem] = (), total: int = 0) -> None:
        shown = "".join(f"\n  {problem}" for problem in problems)
        more = total - len(problems)
        super().__init__(message + shown + (f"\n  and {more} more" if more > 0 else ""))
        self.problems = list(problems)
        self.total = total


@dataclass
class Catalog:
    """The items in the order of their files, and what was left out or ignored."""

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    skipped: int = 0
    ignored_fields: list[str] = field(default_factory=list)


def read_items(paths: Sequence[Path], *, skip_bad: bool = False) -> Catalog:
    """Read files of items, `.parquet` (or `.pq`) or JSON lines, `.gz` or not.

    Args:
        paths: the files, of one catalogue.
        skip_bad: go on without the lines that cannot be used; of an id that comes twice the first
            stays.

    Returns:
        at least one item; `skipped` counts bad lines, `problems` has the first ten.

    Raises:
        CatalogError: a file cannot be read, a line cannot be used, or there is no item. The first
            ten bad lines are named, with what was found and expected, and their total.
    """
    catalog = Catalog()
    first: dict[int, str] = {}
    ignored: set[str] = set()
    for path in paths:
        for place, found in _records(path, ignored):
            problem = found if isinstance(found, str) else _unusable(found)
            if not problem and isinstance(found, Item):
                before = first.setdefault(hash_id(found.item_id), place)
                if before == place:
                    catalog.items.append(found)
                    continue
                problem = f"item_id {found.item_id[:64]!r} again; it is at {before} already"
            catalog.skipped += 1
            if len(catalog.problems) < SHOWN_PROBLEMS:
                catalog.problems.append(Problem(place, problem))
    named = ", ".join(str(path) for path in paths)
    if catalog.skipped and not skip_bad:
        raise CatalogError(
            f"{named}: {catalog.skipped} of {catalog.skipped + len(catalog.items)} items cannot be"
            " used; correct them, or leave them out with --skip-bad-items:",
            catalog.problems,
            catalog.skipped,
        )
    if not catalog.items:
        raise CatalogError(
            f"{named}: no item; one JSON object a line is expected, with {_FIELDS}",
            catalog.problems,
            catalog.skipped,
        )
    catalog.ignored_fields = sorted(ignored - set(Item.__struct_fields__))
    return catalog


def _records(path: Path, seen: set[str]) -> Iterator[tuple[str, Item | str]]:
    """Yield each record's place with its item, or with what is wrong with it."""
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            yield from _rows(path, seen)
        else:
            yield from _lines(path, seen)
    except pyarrow.ArrowException as error:
        raise CatalogError(f"{path}: not Parquet: {str(error).splitlines()[0]}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CatalogError(f"{path}: not gzip, or cut short: {error}") from error
    except OSError as error:
        raise CatalogError(f"{path}: cannot be read: {error.strerror or error}") from error


def _lines(path: Path, seen: set[str]) -> Iterator[tuple[str, Item | str]]:
    decoder = msgspec.json.Decoder(Item)
    with _opened(path) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            place = f"{path}:{number}"
            if len(line) > MAX_LINE_BYTES:
                while line and not line.endswith(b"\n"):
                    line = file.readline(MAX_LINE_BYTES)
                yield place, f"a line of more than {MAX_LINE_BYTES} bytes; items are shorter"
                continue
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            try:
                item = decoder.decode(line)
                if number <= _NOTICED_LINES:
                    seen.update(msgspec.json.decode(line, type=dict[str, msgspec.Raw]))
            except msgspec.ValidationError as error:
                yield place, _expected(error)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                yield place, f"not JSON ({error}); one JSON object a line is expected"
            else:
                yield place, item


def _rows(path: Path, seen: set[str]) -> Iterator[tuple[str, Item | str]]:
    with pyarrow.parquet.ParquetFile(path) as file:
        names = file.schema_arrow.names
        seen.update(names)
        columns = [name for name in names if name in Item.__struct_fields__]
        number = 0
        for batch in file.iter_batches(batch_size=8192, columns=columns):
            for row in cast(list[dict[str, Any]], batch.to_pylist()):
                number += 1
                fields = {name: value for name, value in row.items() if value is not None}
                if isinstance(fields.get("attributes"), list):  # Parquet's own maps
                    fields["attributes"] = dict(fields["attributes"])
                try:
                    item = msgspec.convert(fields, Item)
                except msgspec.ValidationError as error:
                    yield f"{path}:row {number}", _expected(error)
                else:
                    yield f"{path}:row {number}", item


def _unusable(item: Item) -> str:
    size = len(item.item_id.encode(errors="replace"))
    if size > MAX_ID_BYTES:
        return f"item_id has {size} bytes; at most {MAX_ID_BYTES} are taken"
    if not item.item_id.strip():
        return "item_id is blank; an id is expected"
    if item.encoded_text():
        return ""
    found = "text" if item.text is not None else "title" if item.title is not None else ""
    return f"{found} is empty" if found else "neither text nor title; one of them is expected"


def _expected(error: msgspec.ValidationError) -> str:
    message = str(error)
    return message if "item_id" not in message else f"{message}; an item has {_FIELDS}"


def _opened(path: Path) -> BinaryIO:
    if path.suffix.lower() == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    return path.open("rb")
