"""The generated parts of README.md and docs/: `python -m docs.generate` writes them.

A page marks a part by `<!-- table: NAME -->` and `<!-- end -->`. What stands between is written
from the code, all else by hand. Where the code knows a name but not its meaning, the meaning stands
here, and a name without one is a KeyError.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from tracker.settings import settings_table

ROOT = Path(__file__).parents[1]
PART = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(\n<!-- end -->)", re.DOTALL)


def settings() -> str:
    """Return the table of all settings."""
    rows = [
        [f"`{row.variable}`", f"`{row.default}`" if row.default else "", row.meaning]
        for row in settings_table()
    ]
    return table(["Variable", "Default", "Meaning"], rows)


PARTS: dict[str, Callable[[], str]] = {
    "settings": settings,
}
"""What makes each part."""


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [[cell.replace("|", "\\|") for cell in row] for row in [head, *rows]]
    lines.insert(1, ["---"] * len(head))
    return "\n".join("|" + "|".join(f" {c} " if c else " " for c in line) + "|" for line in lines)


def pages() -> Iterator[Path]:
    """Yield every page of docs/."""
    yield from sorted((ROOT / "docs").rglob("*.md"))


def renew(text: str) -> str:
    """Return the text of a page with its marked parts as the code has them now."""
    return PART.sub(lambda part: part[1] + PARTS[part[2]]() + part[3], text)


def main() -> None:
    """Write every page that has changed."""
    for page in pages():
        text = page.read_text()
        if (new := renew(text)) != text:
            page.write_text(new)


if __name__ == "__main__":
    main()
