"""Links of README and docs/: what is inside exists, what is outside is listed in one file."""

from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.project.markdown import PAGES, headings, links, name_of

OUTSIDE = ROOT / "docs" / "links.txt"


def is_outside(link: str) -> bool:
    return link.startswith(("http://", "https://", "mailto:"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_link_inside_leads_to_a_file_and_a_heading(page: Path) -> None:
    inside = [link for link in links(page) if not is_outside(link)]
    assert [link for link in inside if not leads_somewhere(page, link)] == []


def leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or not target.is_relative_to(ROOT):
        return False
    return not anchor or target.suffix != ".md" or anchor in headings(target)


def test_links_to_the_outside_are_those_of_the_list() -> None:
    found = {link.partition("#")[0] for page in PAGES for link in links(page) if is_outside(link)}
    assert sorted(found) == OUTSIDE.read_text().split()
