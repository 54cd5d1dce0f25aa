"""The rooms: the README's map names them, and each module says what it is.

Which room may import which is a contract in `pyproject.toml`, kept by `make lint`.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGES = ("tracker", "indexer")
KERNEL = (
    "kernels", "events", "items", "users", "encoder", "scoring", "artifact", "recommend",
)  # fmt: skip
MODULES = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)
FOLDERS = sorted({path.parent for path in MODULES})


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def map_in_readme(readme: str, title: str) -> set[str]:
    """Return the rooms and modules that the block of a README's map names, as paths."""
    section = (ROOT / readme).read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    package, found = "", set()
    for line in section.split("```")[1].splitlines():
        if top := re.fullmatch(r"(\w+)/", line):
            package = top[1]
        elif entry := re.match(r"  (\w+/|\w+\.py) +\S", line):
            found.add(f"{package}/{entry[1].rstrip('/')}")
    return found


@pytest.mark.parametrize(
    ("readme", "title"), [("README.md", "The map"), ("README.zh-CN.md", "代码地图")]
)
def test_the_readme_names_every_room_and_no_other(readme: str, title: str) -> None:
    rooms = {name_of(folder) for folder in FOLDERS if folder.name not in PACKAGES}
    loose = {name_of(path) for path in MODULES if path.parent.name in PACKAGES}
    assert map_in_readme(readme, title) == rooms | loose


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_begins_with_one_line_that_says_what_it_is(path: Path) -> None:
    assert re.match(r'"""[^"\n]+\.(\n|""")', path.read_text())


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_package_file_holds_one_docstring_and_imports_nothing(folder: Path) -> None:
    """`tracker --help` loads no torch, FAISS or Faust only while this holds."""
    body = ast.parse((folder / "__init__.py").read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_room_has_no_third_level(folder: Path) -> None:
    assert len(folder.relative_to(ROOT).parts) <= 2


@pytest.mark.parametrize("folder", FOLDERS, ids=name_of)
def test_no_tool_passes_a_room_over_for_its_name(folder: Path) -> None:
    """Ruff checks nothing in a folder called `build`, and pytest collects nothing there."""
    assert folder.name not in {"build", "dist", "node_modules", "venv"}


def test_tests_mirror_the_rooms() -> None:
    rooms = {name_of(folder) for folder in FOLDERS}
    mirrored = {
        path.parent.relative_to(ROOT / "tests").as_posix()
        for package in PACKAGES
        for path in (ROOT / "tests" / package).rglob("test_*.py")
    }
    assert mirrored <= rooms


def test_importing_the_kernel_loads_neither_faust_nor_transformers() -> None:
    modules = [
        name_of(path).removesuffix(".py").replace("/", ".")
        for path in MODULES
        if path.parent.name in KERNEL and path.parents[1].name == "tracker"
    ]
    assert len(modules) > 40
    code = (
        f"import sys, importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
        "print(*sorted({'faust', 'mode', 'aiokafka', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
