"""Take each protection out once: `python -m tests.promises [NAME ...] [--result promises]`.

The tests of a promise have to pass, and to fail without its protection. The command prints which
failed; a promise that does not hold makes it end with status 1. Each run of tests is a fork of one
process that has loaded our modules, but no test.
"""

import argparse
import gc
import importlib
import json
import os
import pkgutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.results import add_option, own_command, read_results, store
from tests.promises.rows import NAMES, OUTCOMES, PROMISES, WITHOUT, Promise, is_one_of

OPTIONS = (
    "-q", "-n0", "--no-cov", "--tb=short", "-p", "tests.promises.without",
    "-p", "no:cacheprovider", "-o", "timeout=300",
)  # fmt: skip

LOADED = ("tracker", "indexer", "opacus")
"""Packages that are loaded once, before the first fork."""

SHOWN = 40
"""Lines of a run that are shown if tests do not pass."""


def load_modules() -> None:
    """Import what tests will need; what cannot be imported here, its tests import or skip."""
    for name in LOADED:
        with suppress(ImportError):
            package = importlib.import_module(name)
            if name == "opacus":
                continue
            for module in pkgutil.walk_packages(package.__path__, f"{name}."):
                if not module.name.endswith("__main__"):
                    with suppress(ImportError):
                        importlib.import_module(module.name)
    gc.freeze()


def run_tests(rows: Sequence[Promise], without: str = "") -> tuple[dict[str, str], int, str]:
    """Run the tests of promises in a fork.

    Args:
        rows: the promises.
        without: name of the one whose protection is taken out.

    Returns:
        outcomes by test; the exit status, less than 0 for a signal; and what was printed.
    """
    files = dict.fromkeys(tests.split(" ", 1)[0] for row in rows for tests in row.tests)
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "out").open("w+") as output:
        outcomes = Path(folder) / "outcomes.json"
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            status = 70
            try:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                names = " ".join(row.name for row in rows)
                os.environ |= {WITHOUT: without, NAMES: names, OUTCOMES: str(outcomes)}
                # What a failed test leaves open would end the run before the outcomes are written.
                more = ["-p", "no:unraisableexception"] if without else []
                status = int(pytest.main([*OPTIONS, *more, *files]))
            finally:
                with suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        found = json.loads(outcomes.read_text()) if outcomes.exists() else {}
        return found, status, output.read()


def judge(row: Promise, passing: dict[str, str]) -> tuple[list[str], list[str]]:
    """Run the tests of a promise without its protection.

    Args:
        row: the promise.
        passing: outcomes of all tests with all protections.

    Returns:
        tests that pass with it and fail without it, and what is wrong.
    """
    outcomes, status, _ = run_tests([row], row.name)
    failed: list[str] = []
    problems: list[str] = []
    for tests in row.tests:
        mine = {test: end for test, end in passing.items() if is_one_of(test, tests)}
        if not mine or set(mine.values()) != {"passed"}:
            problems.append(f"{tests}: does not pass with the protection: {mine or 'no such test'}")
        now = [test for test in mine if outcomes.get(test) == "failed"]
        if not now and status < 0:  # the process was ended, by SIGBUS for example
            now = [f"{tests.split(' ', 1)[0]}: ended by signal {-status}"]
        failed += now
        if not now:
            problems.append(f"{tests}: does not fail without the protection (status {status})")
    return failed, problems


def main(arguments: list[str]) -> int:
    """Judge the promises, and print what failed; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.promises", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of promises [all]")
    add_option(parser)
    options = parser.parse_args(arguments)
    unknown = set(options.names) - {row.name for row in PROMISES}
    if unknown:
        parser.error(f"no such promise: {', '.join(sorted(unknown))}")
    rows = [row for row in PROMISES if not options.names or row.name in options.names]
    begun = time.monotonic()
    load_modules()
    passing, status, text = run_tests(rows)
    if status != 0:
        print("\n".join(text.splitlines()[-SHOWN:]), flush=True)  # noqa: T201
    took = time.monotonic() - begun
    print(f"with all protections {len(passing)} tests run ({took:.0f} s)", flush=True)  # noqa: T201
    figures = {}
    for row in rows:
        begun_row = time.monotonic()
        failed, problems = judge(row, passing)
        took = time.monotonic() - begun_row
        state = "NOT HELD" if problems else "held"
        lines = [f"{state}  {row.name}: {row.promise} ({took:.1f} s)"]
        lines += [f"    failed without it: {test}" for test in failed]
        lines += [f"    {problem}" for problem in problems]
        print("\n".join(lines), flush=True)  # noqa: T201
        if not problems:
            figures[row.name] = {"promise": row.promise, "failed": sorted(failed)}
    took = time.monotonic() - begun
    print(f"{len(figures)} of {len(rows)} promises hold ({took:.0f} s)")  # noqa: T201
    all_hold = len(figures) == len(rows)
    if options.result is not None and all_hold:
        stored = read_results().get(options.result, {"figures": {}, "commands": []})
        figures = stored["figures"] | figures  # promises that were not named stay
        names = [row.name for row in PROMISES if row.name in figures]
        commands = list(dict.fromkeys([*stored["commands"], own_command()]))
        store(options.result, {name: figures[name] for name in names}, commands)
    return 0 if all_hold else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
