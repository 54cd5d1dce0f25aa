"""Each line of the docs that promises something has a test that fails without its protection."""

import re
from collections.abc import Iterator

import pytest

from benchmarks.results import read_results
from tests.paths import ROOT
from tests.promises.rows import PROMISES, UNTESTED

PARTS = {
    "docs/concepts/guarantees.md": ("Not guaranteed",),
    "SECURITY.md": ("Report a weakness", "What is not done"),
}
"""Pages that promise, and their parts that do not."""


def lines_of(page: str, without: tuple[str, ...]) -> Iterator[str]:
    """Yield the rows of tables and the items of lists of a page."""
    for part in (ROOT / page).read_text().split("\n## ")[1:]:
        if part.startswith(without):
            continue
        for block in re.split(r"\n(?=\n|[|]|- )", part):
            text = " ".join(block.split())
            is_row = text.startswith("| ") and not text.startswith(("| |", "| ---", "| Who can"))
            if is_row or text.startswith("- "):
                yield text


LINES = [(page, line) for page, without in PARTS.items() for line in lines_of(page, without)]


@pytest.mark.parametrize("line", [line for _, line in LINES], ids=lambda line: line[:40])
def test_a_line_that_promises_has_a_test_or_a_reason(line: str) -> None:
    rows = [row.name for row in PROMISES if any(words in line for words in row.said)]
    reasons = [words for words in UNTESTED if words in line]
    assert bool(rows) != bool(reasons), (line, rows, reasons)


def test_every_row_and_every_reason_is_about_a_line() -> None:
    said = {words for row in PROMISES for words in row.said} | set(UNTESTED)
    pages = " ".join(" ".join((ROOT / page).read_text().split()) for page in PARTS)
    assert [words for words in said if words not in pages] == []


def test_the_tests_of_a_promise_are_there() -> None:
    for row in PROMISES:
        for tests in row.tests:
            file, _, words = tests.partition(" -k ")
            text = (ROOT / file).read_text()
            for name in re.split(r" (?:or|and) ", words):
                assert name in text, (row.name, name)
    assert len({row.name for row in PROMISES}) == len(PROMISES)


def test_the_figures_are_of_promises_that_are_there() -> None:
    judged = set(read_results()["promises"]["figures"])
    assert judged == {row.name for row in PROMISES}
