"""Train under differential privacy at several budgets, and say what each costs on held-out films.

    python -m benchmarks.privacy --data data --result privacy

The items are encoded once. Each training begins with a copy of that version, and is evaluated on
all targets of the last tenth of the time.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.quality import CASES, FILES, FILMS, TARGETS, WORK, run, shown, train
from benchmarks.results import add_option, store

DELTA = "1e-5"
BUDGETS = ("1", "4", "8")
"""Values of epsilon."""

WITHOUT = "without"
CASE = CASES["films"]

WANTED = ("tracker", "tracker_served", "tracker_online", "decayed_popularity")
METRICS = ("hit_rate_at_10", "ndcg_at_10", "auc", "user_auc", "ece")


def measure(base: Path, data: Path, name: str, work: Path) -> tuple[list[str], dict[str, Any]]:
    """Train with a budget, or without, and evaluate; return the commands and the figures."""
    out = work / name
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(base, out)
    told = ["--no-encoder"] if name == WITHOUT else ["--epsilon", name, "--delta", DELTA]
    words, training = train(CASE, data, out, *told)
    asked = ["indexer", "evaluate", *CASE.inputs(data), *CASE.told, *TARGETS, "--out", str(out)]
    evaluation = json.loads(run([*asked, "--json", "-"]))
    models = {
        row["model"]: {key: row.get(key) for key in (*METRICS, "n")}
        for row in evaluation["rows"]
        if row["slice"] == "all" and row["model"] in WANTED
    }
    figures = {
        "privacy": training["privacy"], "seconds": training["seconds"],
        "validation": training["validation"], "models": models,
    }  # fmt: skip
    return [shown(words, data, out), shown(asked, data, out)], figures


def main() -> None:
    """Measure as told by the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help=f"has {FILMS}/")
    parser.add_argument("--work", type=Path, default=WORK / "privacy", help="artifacts are here")
    parser.add_argument("--only", nargs="*", default=(WITHOUT, *BUDGETS), help="which of them")
    add_option(parser)
    given = parser.parse_args()
    data, work = given.data.resolve(), given.work.resolve()
    base, kept = work / "base", work / "figures.json"
    base.mkdir(parents=True, exist_ok=True)
    items = str(data / FILMS / FILES["items"])
    run(["indexer", "build", items, "--refit", "--out", str(base)])
    found = json.loads(kept.read_text()) if kept.exists() else {}
    for name in given.only:
        found[name] = measure(base, data, name, work)
        kept.write_text(json.dumps(found))
        print(name, found[name][1], flush=True)
    lines = [shown(["indexer", "build", items, "--out", str(base)], data, base)]
    lines += [line for commands, _ in found.values() for line in commands]
    store(given.result, {name: figures for name, (_, figures) in found.items()}, lines)


if __name__ == "__main__":
    main()
