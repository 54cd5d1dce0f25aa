"""Fuzz all that is read from outside: `python -m tests.fuzz [--minutes M] [--only NAME ...]`.

The targets take turns until the time is over. Inputs that failed are kept in build/fuzz, and tried
first by the next run. With NUMBA_BOUNDSCHECK=1 native code checks every index as well. It ends with
1 if a target failed. With `--result NAME` the counts are stored, those of failures too.
"""

import argparse
import logging
import os
import sys
import time
import traceback
import tracemalloc
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.database import DirectoryBasedExampleDatabase

from benchmarks.results import add_option, store
from tests.fuzz.targets import Target, targets

KEPT = Path("build/fuzz")

EXAMPLES = 60
"""Inputs of a target in one turn."""


def fuzz(target: Target, examples: int, database: Any = None, measure: bool = False) -> int:
    """Try a target with made-up inputs; raises what it raises, with the smallest input found.

    Returns:
        the most bytes that one input made its reader allocate; 0 if it is not measured.
    """
    most_used = 0

    @settings(
        max_examples=examples,
        deadline=None,
        database=database,
        derandomize=database is None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.reuse, Phase.generate, Phase.shrink),
        print_blob=False,
    )
    @given(target.inputs)
    def read(given_input: Any) -> None:
        nonlocal most_used
        if not measure:
            target.read(given_input)
            return
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        target.read(given_input)
        used = tracemalloc.get_traced_memory()[1] - before
        assert used <= target.most_bytes, f"{used} bytes were allocated for one input"
        most_used = max(most_used, used)

    read()
    return most_used


def main(arguments: list[str]) -> int:
    """Run the targets in turn until the time is over; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="how long [60]")
    parser.add_argument("--only", nargs="*", default=None, help="names of targets [all]")
    add_option(parser)
    options = parser.parse_args(arguments)
    chosen = [one for one in targets() if options.only is None or one.name in options.only]
    if not chosen:
        names = ", ".join(one.name for one in targets())
        parser.error(f"no such target; expected: {names}")
    logging.disable(logging.CRITICAL)  # damaged rows are named by the hundred
    end = time.monotonic() + 60.0 * options.minutes
    begun = time.process_time()
    failed: set[str] = set()
    tried = dict.fromkeys((one.name for one in chosen), 0)
    used = dict.fromkeys(tried, 0)
    for one in chosen:
        fuzz(one, 5)  # compiles native code, outside of what is measured
    tracemalloc.start()
    while time.monotonic() < end and len(failed) < len(chosen):
        for one in chosen:
            if one.name in failed or time.monotonic() >= end:
                continue
            number = max(1, int(EXAMPLES * one.weight))
            try:
                # A folder each: what failed would be given up when another target passes it.
                kept = DirectoryBasedExampleDatabase(KEPT / one.name)
                used[one.name] = max(used[one.name], fuzz(one, number, kept, measure=True))
                tried[one.name] += number
            except Exception:
                failed.add(one.name)
                print(f"{one.name}: failed", flush=True)  # noqa: T201
                traceback.print_exc()
    figures = []
    for one in chosen:
        state = "FAILED" if one.name in failed else "ok"
        print(f"{one.name:12} {tried[one.name]:9,d} inputs  {state}")  # noqa: T201
        figures.append(
            {
                "name": one.name,
                "does": (one.read.__doc__ or "").split("\n", 1)[0],
                "inputs": tried[one.name],
                "most_bytes": used[one.name],
                "failed": one.name in failed,
            }
        )
    indices_checked = os.environ.get("NUMBA_BOUNDSCHECK") == "1"
    run = {
        "minutes": options.minutes,
        "processor_minutes": (time.process_time() - begun) / 60.0,
        "indices_checked": indices_checked,
        "targets": figures,
    }
    store(options.result, run)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
