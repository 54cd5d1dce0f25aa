"""Latency from an event's append to its list's append, at fixed rates, beside other programs.

Open loop: events come at their rate whether a system keeps up or not. All systems are measured on
the same broker in one run, one after another. The lists of a user are in the order of their events,
so the n-th answers the n-th; the tracker sends one list a user and chunk, which names the last
event that it answers. The echo writes each event again and is the floor.

    OMP_NUM_THREADS=1 python -m benchmarks.latency --rate 200 --rate 1000 --repeat 5
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.results import add_option, store
from benchmarks.systems import RIVALS, TRACKER, Stored, Systems, cpu_seconds, open_systems

SYSTEMS = [TRACKER, "Quix Streams", "Bytewax", "echo"]
RATES = (200.0, 1000.0, 2000.0)
SECONDS = 20.0
WARM = 2000
"""Events sent before, at half of `WARM_RATE`'s pace, so that nothing is compiled or empty."""

WARM_RATE = 1000.0


def quantiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """Return the quantiles that the pages show.

    >>> quantiles([1.0, 2.0, 3.0])["p50"]
    2.0
    """
    found = np.percentile(milliseconds, [50, 95, 99])
    return dict(zip(("p50", "p95", "p99"), map(float, found), strict=True))


def by_order(events: Iterable[Stored], lists: Iterable[Stored], first: int) -> list[float]:
    """Return the milliseconds of events after the `first`, of each user the n-th by its n-th list.

    Args:
        events: of all users; partition and offset give the order of a user's.
        lists: one for each event, or fewer if the system was stopped.
        first: events that came before the measurement.
    """
    appended: dict[tuple[bytes, int], int] = {}
    turn: Counter[bytes] = Counter()
    for number, event in enumerate(sorted(events)):
        appended[event.key, turn[event.key]] = event.ms if number >= first else -1
        turn[event.key] += 1
    turn.clear()
    found = []
    for one in sorted(lists):
        begun = appended[one.key, turn[one.key]]
        turn[one.key] += 1
        if begun >= 0:
            found.append(float(one.ms - begun))
    return found


def by_name(events: Iterable[Stored], lists: Iterable[Stored], first: int) -> list[float]:
    """Return the milliseconds of the events that lists name as their last ones."""
    ordered = sorted(events)
    appended = {
        (one.partition, one.offset): one.ms if number >= first else -1
        for number, one in enumerate(ordered)
    }
    found = []
    for one in lists:
        _, partition, offset = json.loads(one.value)["id"].rsplit("-", 2)
        begun = appended[int(partition), int(offset)]
        if begun >= 0:
            found.append(float(one.ms - begun))
    return found


def measure(systems: Systems, system: str, rate: float) -> dict[str, float]:
    """Return the quantiles of a system at a rate, and its share of a core."""
    name = f"paced{systems.runs}"
    count, events = int(rate * SECONDS), f"{name}-events"
    systems.topics(name)
    if system == TRACKER:
        with systems.tracker(name) as process:
            systems.send(events, WARM, False, 1, WARM_RATE)
            systems.committed(process, name, WARM)
            cpu = cpu_seconds(process.pid)
            systems.send(events, count, False, 2, rate)
            systems.committed(process, name, count + WARM)
            spent = cpu_seconds(process.pid) - cpu
        lists = systems.read(f"{name}-recommendations")
        found = by_name(systems.read(events), lists, WARM)
    else:
        with systems.rival(system, events) as (process, output):
            systems.send(events, WARM, False, 1, WARM_RATE)
            systems.wait(process, output, WARM, 60)
            cpu = cpu_seconds(process.pid)
            systems.send(events, count, False, 2, rate)
            systems.wait(process, output, count + WARM, 60)
            spent = cpu_seconds(process.pid) - cpu
        found = by_order(systems.read(events), systems.read(output), WARM)
    return {**quantiles(found), "lists": len(found), "core": spent / SECONDS}


def main() -> None:
    """Measure each system at each rate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rate", type=float, action="append", help="events a second")
    parser.add_argument("--half-of", type=float, help="full rate: half of it is measured too")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--only", action="append", choices=[*RIVALS, TRACKER])
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--folder", type=Path, help="kept, its artifact taken again; a new one")
    add_option(parser)
    given = parser.parse_args()
    rates = list(given.rate or RATES)
    if given.half_of:
        rates.append(round(given.half_of / 2, -2))
    found: dict[str, list[dict[str, float]]] = {}
    with open_systems(given.folder, given.items, given.users) as systems:
        for _ in range(given.repeat):
            for rate in rates:
                for system in given.only or SYSTEMS:
                    figures = measure(systems, system, rate)
                    found.setdefault(system, []).append({"rate": rate, **figures})
                    print(f"{rate:,.0f} events/s: {system} {figures}", flush=True)
    store(given.result, {"latency_ms": found, "items": given.items, "users": given.users})


if __name__ == "__main__":
    main()
