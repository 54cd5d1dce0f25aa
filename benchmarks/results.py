"""Results of benchmarks as files: the figures, and what is needed to repeat them.

A file `benchmarks/results/NAME.json` holds the command, the commit, the date, the machine and the
figures. `benchmarks/figures.py` makes the pages of `docs/figures/` from these files.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from numbers import Integral
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks" / "results"

FORMAT = 1
"""Changes when the fields beside `figures` do."""

DIGITS = 7
"""Significant digits that a stored figure keeps."""

WIDTH = 1000
"""Characters of a line of a result."""

NOT_CODE = ("benchmarks/results", "docs", "*.md")
"""Files that a benchmark does not read: a change there does not make its figures doubtful."""

_FOLDERS = re.compile(r"(?<![\w./])/(?:[^\s/]+/)*(?=[^\s/])")


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add `--result NAME` to a benchmark."""
    parser.add_argument(
        "--result", metavar="NAME", help="write the figures to benchmarks/results/NAME.json too"
    )


def store(name: str | None, figures: Any, commands: Sequence[str] = ()) -> None:
    """Write a result; without a name do nothing.

    Args:
        name: of the file, without `.json`.
        figures: whatever JSON can hold. Folders are cut off paths.
        commands: that give these figures; by default the one that runs now.
    """
    if name is None:
        return
    result = {
        "format": FORMAT,
        "name": name,
        "commands": [without_folders(line) for line in commands or [own_command()]],
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "figures": _plain(figures),
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.json"
    path.write_text(_lines(result) + "\n", encoding="utf-8")
    print(f"{path.relative_to(ROOT)} written", file=sys.stderr)


def own_command() -> str:
    """Return the command of this process as one would type it in the repository."""
    threads = os.environ.get("OMP_NUM_THREADS")
    words = ["python", *sys.orig_argv[1:]]
    if threads is not None:
        words.insert(0, f"OMP_NUM_THREADS={threads}")
    return " ".join(words)


class NotMeasuredError(KeyError):
    """A result is not there yet; its name is the argument."""


class Stored(dict[str, Any]):
    """Results by name; one that is not there raises NotMeasuredError."""

    def __missing__(self, name: str) -> Any:
        raise NotMeasuredError(name)


def read_results(folder: Path = FOLDER) -> Stored:
    """Read every file of a folder of results."""
    files = sorted(folder.glob("*.json"))
    return Stored({file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files})


def without_folders(text: str) -> str:
    """Cut the folders off absolute paths.

    >>> without_folders("indexer build /data/films/items.jsonl.gz --out artifacts")
    'indexer build items.jsonl.gz --out artifacts'
    """
    return _FOLDERS.sub("", text)


def commit() -> str:
    """Return the short commit, with " dirty" after it if code differs from it."""
    changed = _git("status", "--porcelain", "--", ".", *(f":(exclude){path}" for path in NOT_CODE))
    return _git("rev-parse", "--short=7", "HEAD") + (" dirty" if changed else "")


def machine() -> dict[str, Any]:
    """Return what the figures depend on, and nothing that names the machine."""
    model = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.exists():
        found = re.search(r"^model name\s*: (.*)$", information.read_text(), re.MULTILINE)
        model = found[1].strip() if found else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": os.cpu_count(),
        "model": model,
        "memory_gib": round(memory / 2**30),
        "load_average": round(os.getloadavg()[1], 1),
        "python": platform.python_version(),
    }


def _plain(value: Any) -> Any:
    """Return the value with figures rounded, and without folders."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return without_folders(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(f"{float(value):.{DIGITS}g}")


def _lines(value: Any, indent: str = "") -> str:
    """Return JSON in which small things keep to one line, so that differences are easy to read."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or (indent and len(indent + flat) <= WIDTH):
        return flat
    deeper = indent + " "
    if isinstance(value, list):
        parts, (begin, end) = [_lines(one, deeper) for one in value], "[]"
    else:
        parts = [f"{json.dumps(key)}: {_lines(one, deeper)}" for key, one in value.items()]
        begin, end = "{}"
    return f"{begin}\n{deeper}" + f",\n{deeper}".join(parts) + f"\n{indent}{end}"


def _git(*words: str) -> str:
    run = subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True)
    return run.stdout.strip()
