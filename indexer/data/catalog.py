"""The catalogue: items with id, text, categories and attributes, read from files."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from indexer.data.input import left_out_note, read_structs
from tracker.events.entries import Reading
from tracker.events.opening import InputError
from tracker.events.wire import MAX_ID_BYTES, hash_id
from tracker.explained import Explained

MAX_LABEL_LETTERS = 40

SHOWN_PROBLEMS = 10

_FIELDS = "item_id, text or title with categories, attributes"


class Item(msgspec.Struct, frozen=True):
    """One item of the catalogue: `item_id`, and `text` or `title` (with `categories`).

    The encoder reads `text`; without it, the title and the categories. `attributes` do not change
    the vector. Other fields are ignored.
    """

    item_id: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)]
    text: str | None = None
    title: str | None = None
    categories: list[str] = []
    attributes: dict[str, str | float | bool | list[str] | None] = {}

    def encoded_text(self) -> str:
        """Return the text for the encoder, or "" if there is none.

        >>> Item("m1", title="Alien (1979)", categories=["Horror", "Sci-Fi"]).encoded_text()
        'Alien (1979). Horror, Sci-Fi'
        """
        if self.text is not None and self.text.strip():
            return self.text.strip()
        parts = [(self.title or "").strip(), ", ".join(name for name in self.categories if name)]
        return ". ".join(part for part in parts if part)

    def label(self) -> str:
        """Return the label of an interest in this item: its first category, otherwise its title.

        >>> Item("m1", title="Alien (1979)", categories=["Horror", "Sci-Fi"]).label()
        'Horror'
        """
        category = next((name.strip() for name in self.categories if name.strip()), "")
        return category or (self.title or self.text or "").strip()[:MAX_LABEL_LETTERS]


@dataclass(frozen=True)
class Problem:
    """The reason why one line cannot be used; `place` names file and line, or file and row."""

    place: str
    message: str

    def __str__(self) -> str:
        """Return the place and the reason, on one line."""
        return f"{self.place}: {self.message}"


class CatalogError(Explained):
    """The items cannot be used; `problems` are the first of `total` lines that cannot."""

    def __init__(self, message: str, problems: Sequence[Problem] = (), total: int = 0) -> None:
        lines = "".join(f"\n  {problem}" for problem in problems)
        more = total - len(problems)
        super().__init__(message + lines + (f"\n  and {more} more" if more > 0 else ""))
        self.problems = list(problems)
        self.total = total


@dataclass
class Catalog:
    """The items in the order of their files.

    Attributes:
        items: the items.
        problems: the first ten lines that cannot be used.
        skipped: number of lines that cannot be used.
        ignored_fields: names of fields that items do not have.
        notes: other facts about the files, one a line, such as attributes that were left out.
        without_text: number of items without text; they have no content vector.
    """

    items: list[Item] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    skipped: int = 0
    ignored_fields: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    without_text: int = 0


def read_items(paths: Sequence[Path], *, skip_bad: bool = False) -> Catalog:
    """Read files of items, of any format.

    Null is absent. Attributes that cannot be kept are left out, and named in the notes.

    Args:
        paths: the files of one catalogue, or folders of them; `-` is standard input.
        skip_bad: skip lines that cannot be used; of an id that comes twice the first stays.

    Returns:
        at least one item; `skipped` counts bad lines, `problems` has the first ten.

    Raises:
        CatalogError: a file cannot be read, a line cannot be used, there is no item, or more than
            half of the items have no text. The first ten bad lines are named, with what was found
            and expected, and their total.
    """
    catalog = Catalog()
    reading = Reading()
    left_out: Counter[str] = Counter()
    try:
        _add_items(catalog, paths, reading, left_out)
    except InputError as error:
        raise CatalogError(str(error)) from error
    files = ", ".join(str(path) for path in paths)
    if catalog.skipped and not skip_bad:
        raise CatalogError(
            f"{files}: {catalog.skipped} of {catalog.skipped + len(catalog.items)} items cannot be"
            " used; correct them, or leave them out with --skip-bad-items:",
            catalog.problems,
            catalog.skipped,
        )
    if not catalog.items:
        raise CatalogError(
            f"{files}: no item; one JSON object per line is expected, with {_FIELDS}",
            catalog.problems,
            catalog.skipped,
        )
    empty = [item.item_id for item in catalog.items if not item.encoded_text()]
    catalog.without_text = len(empty)
    if 2 * len(empty) > len(catalog.items):
        raise CatalogError(
            f"{files}: {len(empty)} of {len(catalog.items)} items have no text; at most half"
            f" expected; give them a text or title; {_named(empty)}"
        )
    catalog.ignored_fields = reading.notes.unused_names(Item.__struct_fields__)
    catalog.notes = [*reading.notes.remarks, *filter(None, [left_out_note(left_out)])]
    if empty:
        catalog.notes.append(
            f"{len(empty)} of {len(catalog.items)} items have no text, so only what users do with"
            f" them recommends them; give them a text or title; {_named(empty)}"
        )
    return catalog


def _named(ids: Sequence[str]) -> str:
    """Return the first ids, and the number of the others.

    >>> _named(["a", "b"])
    'they are: a, b'
    """
    names = ", ".join(item_id[:64] for item_id in ids[:SHOWN_PROBLEMS])
    more = len(ids) - SHOWN_PROBLEMS
    return f"the first: {names} and {more} more" if more > 0 else f"they are: {names}"


def _add_items(
    catalog: Catalog, paths: Sequence[Path], reading: Reading, left_out: Counter[str]
) -> None:
    """Add the items of files to a catalogue, and what was not used of them to the notes."""
    first: dict[int, str] = {}
    for path in paths:
        for place, item in read_structs(path, Item, reading, left_out):
            if isinstance(item, str):
                problem = f"{item}; an item has {_FIELDS}" if "item_id" in item else item
            elif not (problem := _unusable(item)):
                earlier = first.setdefault(hash_id(item.item_id), place)
                if earlier == place:
                    catalog.items.append(item)
                    continue
                problem = f"item_id {item.item_id[:64]!r} again; it is at {earlier} already"
            catalog.skipped += 1
            if len(catalog.problems) < SHOWN_PROBLEMS:
                catalog.problems.append(Problem(place, problem))


def _unusable(item: Item) -> str:
    """Return the reason why an item cannot be used, or "" if it can."""
    size = len(item.item_id.encode(errors="replace"))
    if size > MAX_ID_BYTES:
        return f"item_id has {size} bytes; at most {MAX_ID_BYTES} expected"
    if not item.item_id.strip():
        return "item_id is blank; an id is expected"
    return ""
