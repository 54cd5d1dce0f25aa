"""Lines of the log that the pages of How to quote are those that the code writes."""

import re

from tests.paths import ROOT

HOW_TO = ROOT / "docs" / "how-to"
CODE = "\n".join(path.read_text() for path in sorted((ROOT / "tracker").rglob("*.py")))


def quoted() -> list[str]:
    """Return what stands between backticks after `log:`, and as a line of a worker that stops."""
    texts = "\n".join(path.read_text() for path in sorted(HOW_TO.glob("*.md")))
    found = re.findall(r"log: `([^`]+)`|logs `([^`]+)`", texts)
    page = (HOW_TO / "find-what-is-wrong.md").read_text()
    section = page.split("\n## A worker does not start, or stops\n")[1].split("\n## ")[0]
    return [a or b for a, b in found] + re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)


def test_lines_of_the_log_are_those_of_the_code() -> None:
    lines = quoted()
    assert len(lines) > 8
    for line in lines:
        words = re.sub(r"\d{6}-", "", line)
        for part in re.split(r"\.\.\.", words):
            assert part.strip(" ?") in CODE, line
