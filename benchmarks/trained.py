"""Throughput of a worker with a trained version, beside the same items untrained, in one run.

One version is trained on the ratings of `DATA/movietweetings` with default flags but `--core 5`:
user encoder, ranker, probability, and online learning in the worker. Another one is built of its
items. Both workers read the same prefilled topic of made-up events on Apache Kafka, in turn. What a
folder has already is not built or trained again.

    OMP_NUM_THREADS=1 python -m benchmarks.trained --films DATA --folder trained --repeat 5
"""

import argparse
import os
import statistics
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import msgspec

from benchmarks.quality import FILMS
from benchmarks.results import add_option, store
from benchmarks.systems import Rate, open_systems
from indexer.data.catalog import read_items
from tracker.artifact.artifact import Artifact

VERSIONS = ("untrained", "trained")


def publish(films: Path, folder: Path) -> None:
    """Train a version of the films, and build another one of the same items."""
    items, events = (films / FILMS / f"{name}.jsonl.gz" for name in ("items", "events"))
    _indexer(folder / "trained", "train", "--items", items, "--events", events, "--core", "5")
    same = folder / "items.jsonl"
    ids = set(Artifact.load(folder / "trained").vectors.ids)
    kept = [item for item in read_items([items]).items if item.item_id in ids]
    same.write_bytes(b"\n".join(msgspec.json.encode(item) for item in kept))
    _indexer(folder / "untrained", "build", same)


def _indexer(out: Path, *words: object) -> None:
    """Run a command of the indexer that publishes into a folder, unless that has a version."""
    if not (out / "LATEST").exists():
        command = [sys.executable, "-m", "indexer", *map(str, words), "--out", str(out)]
        subprocess.run(command, check=True)


def main() -> None:
    """Run both in turn, and print the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--films", type=Path, required=True, metavar="DATA")
    parser.add_argument("--folder", type=Path, required=True, help="kept, its versions taken again")
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--repeat", type=int, default=3)
    add_option(parser)
    given = parser.parse_args()
    publish(given.films, given.folder)
    ids = list(Artifact.load(given.folder / "untrained").vectors.ids)
    rates: dict[str, list[Rate]] = {version: [] for version in VERSIONS}
    with open_systems(given.folder, len(ids), given.users, lambda *_: None) as systems:
        systems.item_ids = ids
        for turn in range(given.repeat):
            for version in VERSIONS:
                name = f"{version}-{os.getpid()}-{turn}"
                systems.topics(name)
                systems.send(f"{name}-events", given.events, False, turn, None)
                root = str(given.folder / version)
                rate = systems.rate_of_tracker(name, given.events, TRACKER_ARTIFACTS=root)
                rates[version].append(rate)
                print(
                    f"# run {turn + 1}: {version} {rate.events_per_second:,.0f} events/s,"
                    f" {rate.cpu_microseconds:.0f} us of processor each",
                    flush=True,
                )
    ratios = [
        trained.events_per_second / untrained.events_per_second
        for untrained, trained in zip(rates["untrained"], rates["trained"], strict=True)
    ]
    print(f"trained / untrained: median {statistics.median(ratios):.2f} of {len(ratios)} runs")
    runs = {
        version: [asdict(run) | {"events_per_second": run.events_per_second} for run in found]
        for version, found in rates.items()
    }
    store(given.result, {"runs": runs, "items": len(ids), "users": given.users})


if __name__ == "__main__":
    main()
