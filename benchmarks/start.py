"""Seconds from `tracker worker` to ready, beside importing torch, faiss and faust alone.

With no kernel compiled, and again with all of them in the cache; the broker, the topics and an
artifact of 20,000 items are there before. Ready is what /readyz says.

    OMP_NUM_THREADS=1 python -m benchmarks.start --repeat 5
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.results import add_option, store
from benchmarks.systems import Systems, cpu_seconds, open_systems, until
from tracker.demo.local import answers_ok
from tracker.demo.processes import free_port

IMPORTS = "import torch, faiss, faust"
NAMES = ("imports", "none_compiled", "compiled")


def imports() -> dict[str, float]:
    """Return the seconds in which a process imports the three, by the clock and the processor."""
    begun, usage = time.monotonic(), os.times()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    spent = os.times()
    return {
        "seconds": time.monotonic() - begun,
        "processor": spent.children_user + spent.children_system
        - usage.children_user - usage.children_system,
    }  # fmt: skip


def start(systems: Systems, name: str, cache: Path) -> dict[str, float]:
    """Return the seconds in which a worker becomes ready."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/readyz"
    settings = {"TRACKER_WEB_PORT": str(port), "NUMBA_CACHE_DIR": str(cache)}
    with systems.tracker(name, **settings) as process:
        seconds = until(lambda: answers_ok(url), process, 600)
        return {"seconds": seconds, "processor": cpu_seconds(process.pid)}


def ratios(runs: dict[str, list[dict[str, float]]], by: str) -> dict[str, float]:
    """Return how many times as long as the imports each start takes, by medians.

    >>> ratios({"imports": [{"seconds": 2.0}], "compiled": [{"seconds": 5.0}]}, "seconds")
    {'compiled': 2.5}
    """
    middle = {name: statistics.median(run[by] for run in some) for name, some in runs.items()}
    return {name: middle[name] / middle["imports"] for name in middle if name != "imports"}


def main() -> None:
    """Measure the starts in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="kept, its artifact taken again; a new one")
    add_option(parser)
    given = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    with open_systems(given.folder, given.items, 1000) as systems:
        for turn in range(given.repeat):
            cache = systems.folder / "kernels"
            shutil.rmtree(cache, ignore_errors=True)
            runs["imports"].append(imports())
            for name in NAMES[1:]:
                # Each has topics of its own: a group that has just ended keeps its member.
                topics = f"start-{turn}-{name.replace('_', '-')}"
                systems.topics(topics)
                runs[name].append(start(systems, topics, cache))
            print({name: some[-1] for name, some in runs.items()}, flush=True)
    by = {unit: ratios(runs, unit) for unit in ("seconds", "processor")}
    print(by)
    store(given.result, {"runs": runs, "times_the_imports": by, "items": given.items})


if __name__ == "__main__":
    main()
