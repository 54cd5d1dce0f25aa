"""The documentation site: built strictly, with everything in it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

pytestmark = pytest.mark.xdist_group("site")  # it is built once


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does: any warning, so any broken link, is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable, "-m", "sphinx", "--quiet", "--fail-on-warning", "--keep-going",
        "--builder", "html", "--doctree-dir", str(folder / "doctrees"),
        str(ROOT / "docs"), str(folder / "html"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_make_docs_builds_with_the_same_options() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "sphinx-build --quiet --fail-on-warning --keep-going --builder html" in makefile


def test_every_page_is_in_the_site(site: Path) -> None:
    pages = {p.relative_to(ROOT / "docs").with_suffix("") for p in (ROOT / "docs").rglob("*.md")}
    built = {p.relative_to(site).with_suffix("") for p in site.rglob("*.html")}
    assert pages <= built


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    """The site opens from a folder, without a network."""
    loaded = []
    for page in site.rglob("*.html"):
        for tag in re.findall(r"<(?:script|link|img|source|iframe)\b[^>]*>", page.read_text()):
            loaded += re.findall(r'(?:src|href|srcset)="((?:https?:)?//[^"]*)"', tag)
    for sheet in site.rglob("*.css"):
        text = sheet.read_text()
        loaded += re.findall(r"url\([\"']?((?:https?:)?//[^)]*)\)", text)
        loaded += re.findall(r"@import[^;]*//[^;]*", text)
    assert loaded == []


def test_what_a_page_loads_is_in_the_site(site: Path) -> None:
    missing = []
    for page in site.rglob("*.html"):
        for tag in re.findall(r"<(?:script|link|img|source)\b[^>]*>", page.read_text()):
            for path in re.findall(r'(?:src|href)="([^"#?:]+)[^"]*"', tag):
                if not (page.parent / path).exists():
                    missing.append(f"{page.relative_to(site)}: {path}")
    assert missing == []
