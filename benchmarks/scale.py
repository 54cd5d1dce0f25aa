"""Throughput with 1, 2 and 4 workers, the pause of a rebalance, and a simulation of 8 to 100.

The measured part shares the cores of one machine among broker and workers. The pause is the longest
time in which a partition gets no list after one of two workers has been told to stop.

The simulation divides the partitions of a topic among workers as evenly as it goes. It assumes:
each worker has a core of its own; an event takes the processor time that `pipeline` has measured;
every worker reads the item changelog of all workers, at `ITEM_ROWS_PER_EVENT` rows an event of
`ITEM_ROW_MICROSECONDS` each (both assumed, not measured); users are Zipf and lie in partitions by a
hash, so the fullest worker has more than the mean (drawn); brokers and network are no limit.

    OMP_NUM_THREADS=1 python -m benchmarks.scale --events 120000
"""

import argparse
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.results import add_option, read_results, store
from benchmarks.systems import PARTITIONS, TRACKER, Stored, Systems, open_systems, ranks

WORKERS = (1, 2, 4)
SIMULATED = (8, 16, 32, 64, 100)
TOPIC_PARTITIONS = 400
ITEM_ROW_MICROSECONDS = 4.0
"""Of reading one row of the item changelog into a view."""

ITEM_ROWS_PER_EVENT = 0.25
"""Rows of items that an event makes: several events of an item in a block make one."""


def throughput(systems: Systems, workers: int, count: int) -> float:
    """Return the events a second of some workers on one prefilled topic."""
    name = f"scale{systems.runs}"
    systems.topics(name)
    systems.send(f"{name}-events", count, False, 1, None)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                systems.tracker(name, TRACKER_DATA_DIR=str(systems.states / f"{name}-{number}"))
            )
            for number in range(workers)
        ]
        systems.committed(processes[0], name, count)
    times = [one.ms for one in systems.read(f"{name}-recommendations")]
    return 1000 * count / (max(times) - min(times))


def longest_gap(lists: list[Stored], after: float) -> float:
    """Return the longest time (ms) without a list of a partition, from a moment on.

    >>> longest_gap([Stored(5, 0, 0, b"", b""), Stored(9, 0, 1, b"", b"")], 4.0)
    4.0
    """
    found = 0.0
    for partition in {one.partition for one in lists}:
        times = sorted(one.ms for one in lists if one.partition == partition and one.ms >= after)
        found = max(found, *np.diff(times).tolist(), 0.0)
    return found


def pause(systems: Systems, rate: float) -> float:
    """Return the pause (ms) when one of two workers is told to stop, under load."""
    name = f"pause{systems.runs}"
    systems.topics(name)
    places = [{"TRACKER_DATA_DIR": str(systems.states / f"{name}-{number}")} for number in (0, 1)]
    with systems.tracker(name, **places[0]) as stays:
        with systems.tracker(name, **places[1]):
            systems.send(f"{name}-events", round(20 * rate), False, 1, rate)
            stopped = 1000 * time.time()
        systems.send(f"{name}-events", round(20 * rate), False, 2, rate)
        systems.committed(stays, name, round(40 * rate))
    return longest_gap(systems.read(f"{name}-recommendations"), stopped)


def simulated(workers: int, event_microseconds: float, fullest: float) -> float:
    """Return the events a second that workers keep up with.

    The worker with the fullest share f of all events E is the limit: E * f * event + E * rows * row
    = 1 second.

    Args:
        workers: each with a core.
        event_microseconds: processor time of an event.
        fullest: share of the fullest worker, times the number of workers.

    >>> round(simulated(1, 99.0, 1.0))
    10000
    """
    share = fullest / workers
    cost = share * event_microseconds + ITEM_ROWS_PER_EVENT * ITEM_ROW_MICROSECONDS
    return 1e6 / cost


def fullest(workers: int, users: int, events: int) -> float:
    """Return how much more than the mean the fullest worker gets, of Zipf users; drawn."""
    random = np.random.default_rng(11)
    drawn = ranks(random, users, events, 1.0)
    partition = random.integers(0, TOPIC_PARTITIONS, users)
    counts = np.bincount(partition[drawn] % workers, minlength=workers)
    return float(counts.max() / counts.mean())


def main() -> None:
    """Measure, and simulate."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--events", type=int, default=120_000)
    parser.add_argument("--rate", type=float, default=500.0, help="events a second, for the pause")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="kept, its artifact taken again; a new one")
    add_option(parser)
    given = parser.parse_args()
    runs: list[dict[str, float]] = []
    pauses: list[float] = []
    with open_systems(given.folder, given.items, given.users) as systems:
        for _ in range(given.repeat):
            for workers in WORKERS:
                rate = throughput(systems, workers, given.events)
                runs.append({"workers": workers, "events_per_second": rate})
                print(runs[-1], flush=True)
            pauses.append(pause(systems, given.rate))
            print(f"pause {pauses[-1]:.0f} ms", flush=True)
    pipeline = read_results()["pipeline"]["figures"]["uniform"][TRACKER]
    cost = float(np.median([run["cpu_microseconds"] for run in pipeline]))
    simulation = []
    for workers in SIMULATED:
        uneven = fullest(workers, given.users, 1_000_000)
        rate = simulated(workers, cost, uneven)
        simulation.append({"workers": workers, "fullest": uneven, "events_per_second": rate})
        print(simulation[-1])
    figures = {"runs": runs, "pause_ms": pauses, "simulation": simulation, "event": cost}
    store(given.result, figures | {"partitions": PARTITIONS, "items": given.items})


if __name__ == "__main__":
    main()
