"""Attacks measured twice: with the cap on one user's share, and without it in another process."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.results import ROOT, add_option, store
from tracker.users import ring

Figures = list[dict[str, Any]]


def run_attacks(
    module: str, description: str | None, measure: Callable[[], Figures], world: Mapping[str, int]
) -> None:
    """Measure as told by the command line, print the figures, and store them.

    Args:
        module: name of the benchmark.
        description: of its help.
        measure: returns the figures of all attacks.
        world: what they are made in.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--without", action="store_true", help="only print it without the cap")
    add_option(parser)
    given = parser.parse_args()
    if given.without:
        ring.MOST_FOR_AN_ITEM = 1 << 30  # a constant of kernels that are not compiled yet
        print(json.dumps(measure()))
        return
    found = {"with": measure(), "without": _without_cap(module)}
    for name, rows in found.items():
        for row in rows:
            print(f"{name:8} {row}")
    store(given.result, {**world, "cap": ring.MOST_FOR_AN_ITEM, **found})


def _without_cap(module: str) -> Figures:
    """Measure all attacks in another process, whose kernels are compiled without the cap."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(ROOT / "build" / "uncapped")}
    command = [sys.executable, "-m", f"benchmarks.{module}", "--without"]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    found: Figures = json.loads(done.stdout)
    return found
