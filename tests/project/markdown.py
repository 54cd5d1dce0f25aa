"""README and docs/ as text: pages, code blocks, headings, links."""

import re
from pathlib import Path
from typing import NamedTuple

from tests.paths import ROOT

PAGES = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md"))
"""README, CHANGELOG, CONTRIBUTING and every page of the site."""

_FENCE = re.compile(r"^( *)(`{3,})([^\n]*)\n(.*?)^\1\2`*$", re.DOTALL | re.MULTILINE)
_COMMENT = re.compile(r"<!-- ([\w-]+)(?:: ([\w-]+))? -->\n\Z")
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)(?: \"[^\"]*\")?\)")
_PART = re.compile(r"<!-- (?:table|figure): [\w-]+ -->\n.*?<!-- end -->", re.DOTALL)


class Block(NamedTuple):
    """A fenced block of code; `marker` is the comment before it, such as `example: event`."""

    page: Path
    language: str
    text: str
    marker: str


def name_of(page: Path) -> str:
    """Return the path of a page inside the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return the fenced blocks of a page, of some languages or of all."""
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        comment = _COMMENT.search(text[: match.start()])
        marker = "" if comment is None else ": ".join(filter(None, comment.groups()))
        code = re.sub(rf"^{match[1]}", "", match[4], flags=re.MULTILINE)
        found.append(Block(page, match[3].strip(), code, marker))
    return [block for block in found if not languages or block.language in languages]


def prose(page: Path) -> str:
    """Return the text of a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def by_hand(page: Path) -> str:
    """Return the text of a page without its generated parts."""
    return _PART.sub("", page.read_text())


def headings(page: Path) -> list[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    anchors: list[str] = []
    for title in re.findall(r"^#{1,6} +(.*?) *$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        same = sum(
            re.fullmatch(rf"{re.escape(slug)}(-\d+)?", other) is not None for other in anchors
        )
        anchors.append(f"{slug}-{same}" if same else slug)
    return anchors + re.findall(r'(?:id|name)="([\w-]+)"', prose(page))


def links(page: Path) -> list[str]:
    """Return what a page links to, pictures included."""
    text = re.sub(r"`[^`\n]*`", "", prose(page))
    found = _LINK.findall(text) + re.findall(r'(?:href|src|srcset)="([^"]+)"', text)
    return found + re.findall(r"<(https?://[^>\s]+)>", text)
