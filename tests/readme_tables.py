"""The README's tables that come from the code: `python -m tests.readme_tables` writes them anew."""

import re
from typing import Any

import numpy as np

from tests.paths import ROOT
from tracker.events.kinds import DEFAULT_KINDS
from tracker.settings import settings_table
from tracker.users.config import InterestConfig
from tracker.users.states import row_dtype

README = ROOT / "README.md"
SOURCES = ("tracker/users/layout.py", "tracker/users/interests.py")
NAMES = {"V": "bytes", "f": "float", "i": "int", "u": "uint"}


def settings() -> list[list[str]]:
    rows = [
        [f"`{row.variable}`", f"`{row.default}`" if row.default else "", row.meaning]
        for row in settings_table()
    ]
    return [["Variable", "Default", "Meaning"], *rows]


def kinds() -> list[list[str]]:
    rows = [
        [f"`{name}`", f"{kind.weight:g}", "" if kind.curve == "none" else kind.curve]
        for name, kind in DEFAULT_KINDS.items()
    ]
    return [["Kind", "Weight", "Curve of `value`"], *rows]


def _comments(layout: str) -> dict[str, str]:
    """Return what the sources say beside each field of the numpy layout of that name."""
    text = "".join((ROOT / path).read_text() for path in SOURCES)
    block = text.split(f"\n{layout} = np.dtype(\n")[1].split("\n)\n")[0]
    return dict(re.findall(r'\(\s*"(\w+)",\s*"<?[fiu]\d",?\s*\),\s+# (.*)', block))


def _type(dtype: np.dtype[Any]) -> str:
    base, shape = (dtype.base, dtype.shape)
    name = f"{NAMES[base.kind]}{base.itemsize * 8}" if base.kind in "fiu" else "record"
    return name + "".join(f" x {n}" for n in shape)


def _layout(dtype: np.dtype[Any], meanings: dict[str, str]) -> list[list[str]]:
    assert dtype.fields is not None
    rows = []
    for name, (field, offset, *_) in dtype.fields.items():
        rows.append(
            [str(offset), str(field.itemsize), _type(field), f"`{name}`", meanings.get(name, "")]
        )
    return [["Offset", "Bytes", "Type", "Field", "Meaning"], *rows]


PARTS = {
    "header": "format and layout, below",
    "head": "scalars, below",
    "masses": "sum of the decayed weights of positive events, one a half-life",
    "sums": "sum of the decayed weighted vectors, one a half-life",
    "negative": "the same of negative events, with its own half-life",
    "hidden": "the user encoder's state, as wide as the artifact's encoder; 0 without one",
    "pending": "event ids whose retraction came first; only those in use are stored",
    "slots": "interests, below; only those in use are stored",
    "slot_means": "weighted mean vector of each, in units of 1/32767; likewise",
    "ring": "recent events, below; only those in use are stored",
}


def row() -> list[list[str]]:
    return _layout(row_dtype(InterestConfig()), PARTS)


def _part(name: str, layout: str) -> list[list[str]]:
    fields = row_dtype(InterestConfig()).fields
    assert fields is not None
    return _layout(fields[name][0].base, _comments(layout))


HEADER = {
    "format": "1",
    "dim": "width of a vector",
    "checksum": "of all the rest of the row",
    "hidden": "width of the encoder's vector",
    "n_sums": "half-lives",
    "n_pending": "entries that follow",
    "n_slots": "likewise",
    "n_ring": "likewise",
}


def header() -> list[list[str]]:
    fields = row_dtype(InterestConfig()).fields
    assert fields is not None
    return _layout(fields["header"][0], HEADER)


def tables() -> dict[str, str]:
    """Return the text of each table by the name in its marker."""
    made = {
        "settings": settings(),
        "kinds": kinds(),
        "row": row(),
        "header": header(),
        "head": _part("head", "HEAD"),
        "interest": _part("slots", "INTEREST"),
        "ring": _part("ring", "RING"),
    }
    return {name: render(rows) for name, rows in made.items()}


def render(rows: list[list[str]]) -> str:
    lines = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines.insert(1, ["---"] * len(rows[0]))
    return "\n".join("|" + "|".join(f" {c} " if c else " " for c in line) + "|" for line in lines)


def in_readme(text: str) -> dict[str, str]:
    """Return what stands between the markers of the README."""
    return dict(re.findall(r"<!-- table: (\w+) -->\n(.*?)\n<!-- end -->", text, re.DOTALL))


def renew(text: str) -> str:
    """Return the README with its tables made anew."""
    made = tables()

    def table(found: re.Match[str]) -> str:
        return f"<!-- table: {found[1]} -->\n{made[found[1]]}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", table, text, flags=re.DOTALL)


if __name__ == "__main__":
    README.write_text(renew(README.read_text()))
