"""Time, memory and quality of trainings and evaluations by size, beside another checkout.

    python -m benchmarks.train --evaluate --result train
    python -m benchmarks.train --evaluate --beside ../before --events 100000 --items 9000
    python -m benchmarks.train --evaluate --beside ../before --films DATA

Each point is a made-up stream of news, or all films of `DATA/movietweetings`. Its items are built
first, so the encoding of texts is not counted. Then `indexer train` and, with `--evaluate`,
`indexer evaluate` run with default flags, in this checkout and in the other one in turn; the other
one has an environment `.venv` of its own. A command that takes longer than `--minutes` is ended.

Processor time is that of a command and its processes; memory is the largest of any of them. What is
measured stays in the folder and is not measured again.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.results import ROOT, add_option, store
from benchmarks.streams import NEWS_LARGE, Stream, make, write

EVENTS = (10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000)
ITEMS = (1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
USUAL_EVENTS, USUAL_ITEMS = 100_000, 9000
"""The size of what is not varied."""


@dataclass(frozen=True, slots=True)
class Point:
    """Items and events to train on, in files; `events` and `items` are numbers, 0 for films."""

    name: str
    item_file: Path
    event_file: Path
    events: int = 0
    items: int = 0

    @classmethod
    def of_films(cls, data: Path) -> "Point":
        """Return all films of a folder of data."""
        folder = data.absolute() / "movietweetings"
        return cls("films", folder / "items.jsonl.gz", folder / "events.jsonl.gz")

    @classmethod
    def of_news(cls, work: Path, events: int, items: int) -> "Point":
        """Return a stream of news of some size, which is made when it is measured."""
        name = f"{events}-{items}"
        data = work / name / "data"
        return cls(name, data / "items.jsonl", data / "events.jsonl", events, items)

    @property
    def stream(self) -> Stream:
        """Return the stream of news: as long in time as in events, six events a user."""
        days = max(1.0, NEWS_LARGE.days * self.events / NEWS_LARGE.events)
        users = max(100, self.events // 6)
        return replace(NEWS_LARGE, events=self.events, items=self.items, users=users, days=days)

    def prepare(self) -> None:
        """Make the stream of news, if it is not there."""
        folder = self.event_file.parent
        if self.events and not (folder / "truth.json").exists():
            write(make(self.stream), folder)


def points(work: Path, events: Sequence[int], items: Sequence[int]) -> Iterator[Point]:
    """Yield the points of both curves, or those of the sizes that are given, each once."""
    if events and items:
        sizes = [(one, other) for one in events for other in items]
    else:
        sizes = [(one, USUAL_ITEMS) for one in (events or ([] if items else EVENTS))]
        sizes += [(USUAL_EVENTS, one) for one in (items or ([] if events else ITEMS))]
    yield from (Point.of_news(work, *size) for size in dict.fromkeys(sizes))


def run(checkout: Path, words: Sequence[str], seconds: float) -> dict[str, float] | None:
    """Run a command of the indexer of a checkout; return what it took, None if it was ended.

    Raises:
        CalledProcessError: it failed.
    """
    print(f"{checkout.name}: indexer {' '.join(words)}", file=sys.stderr, flush=True)
    command = [str(checkout / ".venv" / "bin" / "python"), "-m", "indexer", *words]
    load, started = os.getloadavg()[0], time.monotonic()
    process = subprocess.Popen(command, cwd=checkout, stdout=subprocess.DEVNULL)
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - started > seconds:
            process.terminate()
            os.wait4(process.pid, 0)
            return None
        time.sleep(0.2)
    if code := os.waitstatus_to_exitcode(status):
        raise subprocess.CalledProcessError(code, command)
    return {
        "clock": time.monotonic() - started,
        "processor": usage.ru_utime + usage.ru_stime,
        "memory_mib": usage.ru_maxrss / 1024.0,
        "load_before": load,
    }


def measure(
    point: Point, checkout: Path, folder: Path, evaluation: Sequence[str] | None, seconds: float
) -> dict[str, Any] | None:
    """Train on a point by one checkout; return what it took, None if it was ended.

    Args:
        point: files to train on.
        checkout: whose code runs.
        folder: of what is measured of the point.
        evaluation: options of an evaluation of the version; None for none.
        seconds: a command may take.
    """
    own = folder / checkout.name
    kept, built, out = own / "figures.json", own / "built", own / "artifacts"
    if kept.exists():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    point.prepare()
    items = ["--items", str(point.item_file)]
    if not (built / "LATEST").exists():
        run(checkout, ["build", str(point.item_file), "--out", str(built)], 1e9)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(built, out)
    told = [*items, "--events", str(point.event_file), "--protocol", "gts", "--out", str(out)]
    figures: dict[str, Any] = {"train": run(checkout, ["train", *told], seconds)}
    if figures["train"] is None:
        return None
    if evaluation is not None:
        report = own / "evaluation.json"
        command = ["evaluate", *told, *evaluation, "--json", str(report)]
        figures["evaluate"] = run(checkout, command, seconds)
        if figures["evaluate"] is not None:
            said = json.loads(report.read_text())
            every = [row for row in said["rows"] if row["slice"] == "all"]
            for metric in ("hit_rate_at_10", "ndcg_at_10"):
                figures[metric] = {row["model"]: row[metric] for row in every}
            figures["targets"] = every[0]["n"]
            figures["events_per_second"] = said["events_per_second"]
    kept.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the power of the size by which time grows: 1 is linear, 0 is not at all.

    >>> round(exponent([1e4, 1e5, 1e6], [2.0, 20.0, 200.0]), 3)
    1.0
    """
    if len(sizes) < 2:
        return float("nan")
    logs = [[math.log(one) for one in some] for some in (sizes, seconds)]
    return statistics.linear_regression(*logs).slope


def main() -> None:
    """Measure the points that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "sizes")
    parser.add_argument("--beside", type=Path, help="a second checkout, with its .venv")
    parser.add_argument("--films", type=Path, metavar="DATA", help="folder of `movietweetings`")
    parser.add_argument("--events", type=int, nargs="*", default=[])
    parser.add_argument("--items", type=int, nargs="*", default=[])
    parser.add_argument("--evaluate", action="store_true")
    parser.add_argument("--targets", type=int, help="of an evaluation; by default as many as usual")
    parser.add_argument("--minutes", type=float, default=40.0, help="of one command at most")
    add_option(parser)
    given = parser.parse_args()
    # The path is not resolved further: .venv/bin/python is a link that must stay one.
    checkouts = [ROOT, *([given.beside.absolute()] if given.beside else [])]
    found: list[dict[str, Any]] = []
    ended: list[str] = []
    work = given.work.absolute()
    wanted = [Point.of_films(given.films)] if given.films else []
    if given.events or given.items or not wanted:
        wanted += points(work, given.events, given.items)
    evaluation = None
    if given.evaluate:
        evaluation = [] if given.targets is None else ["--targets", str(given.targets)]
    for point in wanted:
        by_checkout = {}
        for number, checkout in enumerate(checkouts):
            figures = measure(point, checkout, work / point.name, evaluation, 60.0 * given.minutes)
            by_checkout["other" if number else "own"] = figures
            if figures is None:
                ended.append(f"{point.name} by {checkout.name}")
            else:
                print(f"{point.name} {checkout.name}: {json.dumps(figures)}", flush=True)
        found.append(
            {"name": point.name, "events": point.events, "items": point.items, **by_checkout}
        )
    for size in ("events", "items"):
        other, usual = ("items", USUAL_ITEMS) if size == "events" else ("events", USUAL_EVENTS)
        curve = [one for one in found if one[other] == usual and one["own"] is not None]
        times = [one["own"]["train"]["processor"] for one in curve]
        if len(curve) > 1:
            power = exponent([one[size] for one in curve], times)
            print(f"processor time of a training grows with {size} to the power {power:.2f}")
    if ended:
        print(f"ended after {given.minutes:g} minutes: {', '.join(ended)}")
    store(given.result, {"points": found, "ended": ended})


if __name__ == "__main__":
    main()
