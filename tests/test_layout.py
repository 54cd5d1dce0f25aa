"""The README's map is true: it lists every module, and imports point only upwards in it."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tests.paths import ROOT

PACKAGES = ("tracker", "indexer")
LAST_OF_KERNEL = "tracker.recommend.recommender"
CONFINED = {
    "faust": {
        "tracker.stream.partition",
        "tracker.worker.transport",
        "tracker.worker.plane",
        "tracker.worker.app",
        "tracker.worker.web",
    },
    "mode": {
        "tracker.worker.transport",
        "tracker.worker.plane",
        "tracker.worker.app",
        "tracker.worker.web",
    },
    "transformers": {"indexer.build.item_encoder"},
    "faiss": {"tracker.items.index", "indexer.build.index"},
}
NOT_IN_KERNEL = {"time", "random", "socket", "asyncio", "aiohttp", "aiokafka", "click", "rich"}


def map_of_modules() -> list[tuple[str, str]]:
    """Return (module, description) in the order of the README's map."""
    section = (ROOT / "README.md").read_text().split("\n## The map\n")[1].split("\n## ")[0]
    block = section.split("```")[1]
    package, modules = "", []
    for line in block.splitlines():
        if found := re.fullmatch(r"(\w+)/", line):
            package = found[1]
        elif found := re.fullmatch(r"  (\w+)\.py +(\S.*)", line):
            modules.append((f"{package}.{found[1]}", found[2]))
    return modules


def modules_on_disk() -> dict[str, Path]:
    return {
        f"{package}.{path.stem}": path
        for package in PACKAGES
        for path in (ROOT / package).glob("*.py")
        if path.stem not in ("__init__", "__main__")
    }


@cache
def imports_of(path: Path) -> frozenset[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            if node.module in PACKAGES:
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
            else:
                found.add(node.module)
    return frozenset(found)


MAP = map_of_modules()
ORDER = {module: position for position, (module, _) in enumerate(MAP)}
KERNEL = [module for module, _ in MAP[: ORDER[LAST_OF_KERNEL] + 1]]


def test_map_lists_every_module_once() -> None:
    listed = [module for module, _ in MAP]
    assert sorted(listed) == sorted(modules_on_disk())


@pytest.mark.parametrize("module", sorted(modules_on_disk()))
def test_module_imports_only_from_lines_above_its_own(module: str) -> None:
    assert module in ORDER, f"{module} is not in the README's map"
    path = modules_on_disk()[module]
    ours = {name for name in imports_of(path) if name.split(".")[0] in PACKAGES}
    below = [name for name in ours if ORDER.get(name, len(ORDER)) >= ORDER[module]]
    assert not below, f"{module} imports {below}, which do not stand above it in the README's map"


@pytest.mark.parametrize("module", sorted(modules_on_disk()))
def test_module_begins_with_one_line_that_says_what_it_is(module: str) -> None:
    docstring = ast.get_docstring(ast.parse(modules_on_disk()[module].read_text()))
    assert docstring
    assert docstring.splitlines()[0].endswith(".")


@pytest.mark.parametrize("package", PACKAGES)
def test_package_file_holds_a_docstring_and_imports_nothing(package: str) -> None:
    body = ast.parse((ROOT / package / "__init__.py").read_text()).body
    assert len(body) == 1
    assert isinstance(body[0], ast.Expr)


@pytest.mark.parametrize("framework", sorted(CONFINED))
def test_heavy_framework_is_known_to_its_modules_only(framework: str) -> None:
    users = {
        module
        for module, path in modules_on_disk().items()
        if framework in {name.split(".")[0] for name in imports_of(path)}
    }
    assert users <= CONFINED[framework]


@pytest.mark.parametrize("module", KERNEL)
def test_kernel_module_has_no_clock_network_or_terminal(module: str) -> None:
    imported = {name.split(".")[0] for name in imports_of(modules_on_disk()[module])}
    assert not imported & NOT_IN_KERNEL


def test_kernel_never_imports_the_indexer() -> None:
    tracker = [path for name, path in modules_on_disk().items() if name.startswith("tracker.")]
    assert not [p for p in tracker if any(n.startswith("indexer") for n in imports_of(p))]


def test_importing_the_kernel_loads_neither_faust_nor_transformers() -> None:
    code = (
        f"import sys, importlib\nfor name in {KERNEL!r}: importlib.import_module(name)\n"
        "print(*sorted({'faust', 'mode', 'aiokafka', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
