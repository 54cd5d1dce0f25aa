"""Train on logged events, evaluate what was trained, and store what the evaluation says.

    python -m benchmarks.quality films --data data

A case is a data set and a protocol. The artifact stays in `WORK/CASE`, for the benchmarks that need
a trained one. One seed, 0. How to get the data: docs/figures/reproduce.md.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import ROOT, store

WORK = ROOT / "build" / "figures"
"""Where artifacts and other things on the way to a figure are kept."""

FILMS, GROCERIES = "movietweetings", "completejourney"
FILES = {"items": "items.jsonl.gz", "events": "events.jsonl.gz", "users": "users.jsonl.gz"}


@dataclass(frozen=True, slots=True)
class Case:
    """A data set, which of its files are read, and what train and evaluate are told beside them."""

    data: str
    files: tuple[str, ...] = ("items", "events")
    told: tuple[str, ...] = ()

    def inputs(self, data: Path) -> list[str]:
        """Return the options that name the files."""
        return [
            word
            for name in self.files
            for word in (f"--{name}", str(data / self.data / FILES[name]))
        ]


CASES = {
    "films": Case(FILMS, told=("--core", "5", "--protocol", "gts")),
    "films-loo": Case(FILMS, told=("--core", "5", "--protocol", "loo")),
    "films-all": Case(FILMS, told=("--protocol", "gts")),
    "groceries": Case(GROCERIES, ("items", "events", "users"), ("--repeats", "--protocol", "gts")),
}

WITH_INTERVAL = {"hit_rate_at_10", "ndcg_at_10", "auc", "user_auc"}

TARGETS = ("--targets", "20000")
"""More than any of the cases has: all are asked for."""


def run(words: Sequence[str]) -> str:
    """Run a command of the product; return what it prints."""
    print(" ".join(words), file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def train(case: Case, data: Path, out: Path, *more: str) -> tuple[list[str], dict[str, Any]]:
    """Train; return the command, and what it says."""
    words = ["indexer", "train", *case.inputs(data), *case.told, *more, "--out", str(out)]
    return words, json.loads(run([*words, "--json"]))


def shown(words: Sequence[str], data: Path, out: Path) -> str:
    """Return a command as one would type it beside the data."""
    line = " ".join(words).replace(str(out), "artifacts")
    for name in CASES.values():
        line = line.replace(f"{data / name.data}/", "")
    return line


def figures_of(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Leave out the rows of single scenes, and intervals that no page shows."""
    rows = [
        {key: value for key, value in row.items() if value is not None}
        | {"ci": {key: value for key, value in row["ci"].items() if key in WITH_INTERVAL}}
        for row in evaluation["rows"]
        if not row["slice"].startswith("scene:")
    ]
    differences = [one for one in evaluation["differences"] if one["model"] == "tracker"]
    return evaluation | {"rows": rows, "differences": differences}


def main() -> None:
    """Run one case as told by the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("case", choices=sorted(CASES))
    parser.add_argument("--data", type=Path, required=True, help=f"has {FILMS}/ and {GROCERIES}/")
    parser.add_argument("--work", type=Path, default=WORK, help="artifacts are kept here")
    parser.add_argument("--trained", action="store_true", help="evaluate what is there already")
    given = parser.parse_args()
    case, data, out = CASES[given.case], given.data.resolve(), given.work.resolve() / given.case
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "training.json"
    if not given.trained:
        words, found = train(case, data, out, "--seed", "0")
        kept.write_text(json.dumps({"command": shown(words, data, out), "result": found}))
    training = json.loads(kept.read_text())
    words = ["indexer", "evaluate", *case.inputs(data), *case.told, *TARGETS, "--out", str(out)]
    evaluation = json.loads(run([*words, "--json", "-"]))
    figures = {"training": training["result"], "evaluation": figures_of(evaluation)}
    store(given.case, figures, [training["command"], shown(words, data, out)])


if __name__ == "__main__":
    main()
