"""Throughput of the whole job on Apache Kafka, beside other programs, in one run.

One broker, one worker of each system in turn, the same prefilled topic of events: JSON in, durable
state a user, a search of 100,000 items, ten items out as JSON. Rates are events by the span from
the first to the last output's append time at the broker. The tracker runs with everything on: item
side, ring, slots, reasons, trend, at most two searches a user, default settings. The bare loop is
no rival: it keeps nothing, and shows what reading, searching and writing cost.

    OMP_NUM_THREADS=1 python -m benchmarks.pipeline --events 120000 --repeat 5
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.results import add_option, store
from benchmarks.systems import RIVALS, TRACKER, Rate, Systems, open_systems

SYSTEMS = ["textbook Faust", "Quix Streams", "Bytewax", "bare loop", TRACKER]


def compare(systems: Systems, law: str, given: argparse.Namespace) -> dict[str, list[Rate]]:
    """Run the systems in turn on the same topic of events, several times."""
    rates: dict[str, list[Rate]] = {}
    for turn in range(given.repeat):
        name = f"bench-{law}-{turn}"
        systems.topics(name)
        topic = f"{name}-events"
        systems.send(topic, given.events, law == "zipf", turn, None)
        for system in given.only or SYSTEMS:
            if system == TRACKER:
                rate = systems.rate_of_tracker(name, given.events)
            else:
                slow = system == "textbook Faust"
                count = given.faust_events if slow else given.events
                rate = systems.rate_of(system, topic, count)
            rates.setdefault(system, []).append(rate)
            print(
                f"# {law} users, run {turn + 1}: {system} {rate.events_per_second:,.0f} events/s,"
                f" {rate.cpu_microseconds:.0f} us of processor each, {rate.outputs} lists of"
                f" {rate.output_bytes:.0f} bytes",
                flush=True,
            )
    return rates


def median_rate(rates: Sequence[Rate]) -> float:
    """Return the median of the events per second, 0 without a run."""
    return statistics.median([rate.events_per_second for rate in rates] or [0.0])


def main() -> None:
    """Run all and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--events", type=int, default=400_000)
    parser.add_argument("--faust-events", type=int, default=40_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", action="append", choices=[*RIVALS, TRACKER])
    parser.add_argument("--users-law", default="uniform,zipf")
    parser.add_argument("--folder", type=Path, help="kept, its artifact taken again; a new one")
    add_option(parser)
    given = parser.parse_args()
    throughput: dict[str, dict[str, list[Rate]]] = {}
    with open_systems(given.folder, given.items, given.users) as systems:
        for law in given.users_law.split(","):
            throughput[law] = compare(systems, law, given)
            ours = median_rate(throughput[law].get(TRACKER, []))
            for system, runs in throughput[law].items():
                middle = median_rate(runs)
                print(
                    f"{law:8} {system:15} {middle:9,.0f} events/s"
                    f"   tracker / it = {ours / middle:.2f}",
                    flush=True,
                )
    figures: dict[str, object] = {
        law: {
            system: [asdict(run) | {"events_per_second": run.events_per_second} for run in runs]
            for system, runs in rates.items()
        }
        for law, rates in throughput.items()
    }
    store(given.result, figures | {"items": given.items, "users": given.users})


if __name__ == "__main__":
    main()
