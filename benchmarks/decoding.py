"""Processor time of decoding an event, beside another checkout: pairs of processes, in turn.

python -m benchmarks.decoding --against ../before --pairs 9
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

EVENTS = 1000
CHUNKS = 150


def measure() -> float:
    """Return the microseconds of processor time that this checkout needs for an event."""
    from tracker.events.arrivals import Arrivals
    from tracker.events.batch import EventReader
    from tracker.events.kinds import Kinds

    kinds = ("view", "click", "cart", "purchase", "like")
    values = [
        json.dumps(
            {
                "user_id": f"user-{number * 7919 % 5000}",
                "item_id": f"item-{number * 104729 % 20000}",
                "kind": kinds[number % 5],
                "timestamp": 1.7e9 + number,
                "scene": "home" if number % 3 else "search",
                "event_id": f"event-{number}",
            }
        ).encode()
        for number in range(EVENTS)
    ]
    reader = EventReader(Kinds.default())
    offsets = list(range(EVENTS))
    arrivals = Arrivals.of_records([1_800_000_000_000] * EVENTS, [1] * EVENTS, 1.8e9)
    times = []
    for _ in range(CHUNKS):
        begun = time.process_time_ns()
        batch, rejected = reader.read("events", 0, values, offsets, arrivals)
        times.append(time.process_time_ns() - begun)
        assert len(batch) == EVENTS
        assert not rejected
    return min(times) / EVENTS / 1000  # other programs only add to it


def _in_checkout(folder: str) -> float:
    command = [sys.executable, os.path.abspath(__file__), "--alone"]
    environment = os.environ | {"PYTHONPATH": folder}
    return float(subprocess.run(command, env=environment, check=True, stdout=-1).stdout)


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--alone", action="store_true", help="print one measurement")
    parser.add_argument("--against", metavar="FOLDER", help="checkout to compare with")
    parser.add_argument("--pairs", type=int, default=9)
    arguments = parser.parse_args()
    if arguments.alone or arguments.against is None:
        print(measure())
        return
    here = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    pairs = []
    for number in range(arguments.pairs):
        order = (here, arguments.against) if number % 2 else (arguments.against, here)
        by_folder = {folder: _in_checkout(folder) for folder in order}
        pairs.append((by_folder[arguments.against], by_folder[here]))
    ratios = sorted(before / now for before, now in pairs)
    print(
        json.dumps(
            {
                "pairs": len(pairs),
                "us_before": round(statistics.median(before for before, _ in pairs), 3),
                "us_now": round(statistics.median(now for _, now in pairs), 3),
                "speed_ratio": round(statistics.median(ratios), 3),
                "lowest": round(ratios[0], 3),
                "highest": round(ratios[-1], 3),
                "load": os.getloadavg()[0],
            }
        )
    )


if __name__ == "__main__":
    main()
