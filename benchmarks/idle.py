"""Processor time of a worker at a trickle: its share of a core at 0, 100 and 1,000 events/s.

The worker is warm, and events come at a fixed rate for half a minute. At 0 events/s nothing comes.

    OMP_NUM_THREADS=1 python -m benchmarks.idle --repeat 3
"""

import argparse
import time
from pathlib import Path

from benchmarks.results import add_option, store
from benchmarks.systems import Systems, cpu_seconds, open_systems

RATES = (0, 100, 1000)
SECONDS = 30.0
WARM = 2000


def share(systems: Systems, rate: int) -> float:
    """Return the worker's share of a core at a rate."""
    name = f"idle{systems.runs}"
    events = f"{name}-events"
    systems.topics(name)
    with systems.tracker(name) as process:
        systems.send(events, WARM, False, 1, 1000.0)
        systems.committed(process, name, WARM)
        time.sleep(3.0)
        begun, cpu = time.monotonic(), cpu_seconds(process.pid)
        if rate:
            systems.send(events, round(rate * SECONDS), False, 2, float(rate))
        else:
            time.sleep(SECONDS)
        return (cpu_seconds(process.pid) - cpu) / (time.monotonic() - begun)


def main() -> None:
    """Measure each rate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rate", type=int, action="append")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="kept, its artifact taken again; a new one")
    add_option(parser)
    given = parser.parse_args()
    runs = []
    with open_systems(given.folder, given.items, given.users) as systems:
        for _ in range(given.repeat):
            for rate in given.rate or RATES:
                runs.append({"rate": rate, "core": share(systems, rate)})
                print(runs[-1], flush=True)
    store(given.result, {"runs": runs, "items": given.items, "users": given.users})


if __name__ == "__main__":
    main()
