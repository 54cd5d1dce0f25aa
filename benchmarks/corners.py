"""Train and evaluate on each made-up stream, as a user would, and hold the lists against the best.

    python -m benchmarks.corners --work corners
    python -m benchmarks.corners news taste --work corners --result streams

For each stream of `benchmarks.streams` the commands `indexer build`, `train` and `evaluate` are
run with their default flags; where choices repeat, with `--repeats`, as one is told to. What is
finished stays in the folder, so the same command goes on where it was interrupted. Processor time
is that of the commands, all their processes together.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.results import ROOT, add_option, store
from benchmarks.streams import CORNERS, Stream, make, write

ENOUGH, HALF, WORTH = 0.98, 0.5, 0.05
"""The least share of the best baseline; the least share of the gap between that and the best list,
wherever the gap is larger than the last, as a share of the baseline."""


def measure(name: str, stream: Stream, folder: Path) -> dict[str, Any]:
    """Run the commands on one stream, or read what they said before; return its figures."""
    done = folder / "figures.json"
    knobs = asdict(stream)
    if done.exists():
        found: dict[str, Any] = json.loads(done.read_text())
        if found["stream"] == knobs:
            return found
    made = make(stream)
    write(made, folder)
    files = ["--items", str(folder / "items.jsonl"), "--events", str(folder / "events.jsonl")]
    out = ["--out", str(folder / "artifacts")]
    told = ["--protocol", "gts", *(["--repeats"] if stream.repetition else [])]
    report = folder / "evaluation.json"
    commands = {
        "build": ["build", files[1], *out],
        "train": ["train", *files, *told, *out],
        "evaluate": ["evaluate", *files, *told, *out, "--json", str(report)],
    }
    seconds = {part: run(words) for part, words in commands.items()}
    figures = {
        "stream": knobs,
        "best": made.truth,
        "seconds": seconds,
        **of_evaluation(json.loads(report.read_text())),
    }
    temporary = done.with_suffix(".new")
    temporary.write_text(json.dumps(figures, indent=1) + "\n")
    temporary.replace(done)
    print(f"{name}: {verdict(figures)}", flush=True)
    return figures


def run(words: Sequence[str]) -> dict[str, float]:
    """Run one command of the indexer; return its seconds, by the clock and of the processor.

    Raises:
        CalledProcessError: it failed.
    """
    print(f"indexer {' '.join(words)}", file=sys.stderr, flush=True)
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "indexer", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"clock": time.monotonic() - started, "processor": used}


def of_evaluation(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return HR@10 and NDCG@10 of each model over all targets, and their number."""
    rows = [row for row in evaluation["rows"] if row["slice"] == "all"]
    models = {
        row["model"]: {name: row[name] for name in ("hit_rate_at_10", "ndcg_at_10")}
        for row in rows
        if row["hit_rate_at_10"] is not None
    }
    return {"targets": evaluation["targets"], "models": models}


def best_baseline(figures: Mapping[str, Any]) -> tuple[str, float]:
    """Return the name and the HR@10 of the best model that is not the tracker's."""
    found = {
        name: row["hit_rate_at_10"]
        for name, row in figures["models"].items()
        if not name.startswith("tracker")
    }
    name = max(found, key=lambda one: found[one])
    return name, found[name]


def reached(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return what the served lists reach: shares of the best baseline, of the gap, of the whole.

    The hits of the best lists are those on the same targets, as of all others: so what is drawn by
    chance is the same for all, and cancels in the differences.
    """
    served = figures["models"]["tracker_served"]["hit_rate_at_10"]
    whole = figures["models"]["tracker"]["hit_rate_at_10"]
    best = figures["best"]["hit_rate_at_10_drawn"]
    _, baseline = best_baseline(figures)
    gap = best - baseline
    return {
        "of_baseline": served / max(baseline, 1e-9),
        "of_whole": served / max(whole, 1e-9),
        "gap": gap / max(baseline, 1e-9),
        "of_gap": (served - baseline) / gap if gap > 0.0 else float("nan"),
    }


def missed(figures: Mapping[str, Any]) -> list[str]:
    """Return the bars that the served lists miss, in words."""
    found = reached(figures)
    bars = []
    if found["of_baseline"] < ENOUGH:
        bars.append("below the best baseline")
    if found["gap"] > WORTH and found["of_gap"] < HALF:
        bars.append("less than half of the gap")
    if found["of_whole"] < ENOUGH:
        bars.append("below the whole ranking")
    return bars


def verdict(figures: Mapping[str, Any]) -> str:
    """Return one line on a stream."""
    name, baseline = best_baseline(figures)
    served = figures["models"]["tracker_served"]["hit_rate_at_10"]
    whole = figures["models"]["tracker"]["hit_rate_at_10"]
    return (
        f"HR@10 served {served:.4f}, every item ranked {whole:.4f}, {name} {baseline:.4f},"
        f" best possible {figures['best']['hit_rate_at_10_drawn']:.4f};"
        f" {', '.join(missed(figures)) or 'all bars met'}"
    )


def main() -> None:
    """Measure the streams that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "corners")
    parser.add_argument("--minutes", type=float, help="begin no further stream after this time")
    add_option(parser)
    given = parser.parse_args()
    if unknown := set(given.names) - CORNERS.keys():
        parser.error(f"no stream {', '.join(sorted(unknown))}; there are {', '.join(CORNERS)}")
    # One thread each: the trainings run in several processes anyway, and the sums stay in order.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    begun, figures, waiting = time.monotonic(), {}, []
    for name in given.names or CORNERS:
        if given.minutes and time.monotonic() - begun > 60.0 * given.minutes:
            waiting.append(name)
            continue
        figures[name] = measure(name, CORNERS[name], given.work.resolve() / name)
    for name, found in figures.items():
        print(f"{name}: {verdict(found)}")
    if waiting:
        print(f"not measured, the time was over: {', '.join(waiting)}")
    store(given.result, {"corners": figures})


if __name__ == "__main__":
    main()
