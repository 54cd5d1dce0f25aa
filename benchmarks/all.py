"""Measure every figure of docs/figures/ in turn, each as a command of its own.

    python -m benchmarks.all --data DATA [NAME ...]
    make figures DATA=data ONLY="films groceries"

DATA has the folders `movietweetings` and `completejourney`; docs/figures/reproduce.md says where
they come from. Without a NAME all are measured, which takes about a day on two cores. The figures
of quality come first, because they do not depend on what else the machine does; those of speed come
last and want the machine for themselves. Ctrl-C ends it; what is written stays.
"""

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.quality import CASES, FILMS, GROCERIES, WORK
from benchmarks.results import ROOT


def commands(data: Path, work: Path) -> dict[str, list[list[str]]]:
    """Return the commands of each figure, in the order in which they are best measured."""
    films = ["--events", str(data / FILMS / "events.jsonl.gz")]
    film_items = ["--items", str(data / FILMS / "items.jsonl.gz")]
    groceries = ["--events", str(data / GROCERIES / "events.jsonl.gz")]
    grocery_items = ["--items", str(data / GROCERIES / "items.jsonl.gz")]
    households = ["--users", str(data / GROCERIES / "users.jsonl.gz")]
    carried = work / "carry-over"
    again = ["--core", "5", "--protocol", "gts", "--refit", "--seed", "1", "--out", str(carried)]
    found: dict[str, list[list[str]]] = {
        case: [_python("quality", case, "--data", str(data), "--work", str(work))] for case in CASES
    }
    found |= {
        "carry-over": [
            ["copy", str(work / "films"), str(carried)],
            [sys.executable, "-m", "indexer", "train", *film_items, *films, *again],
            _python("carry_over", *films, "--core", "5", "--out", str(carried)),
        ],
        "neighbours-films": [
            _python("neighbours", *films, "--core", "5", "--artifacts", str(work / "films")),
        ],
        "neighbours-groceries": [
            _python("neighbours", *groceries, "--artifacts", str(work / "groceries")),
        ],
        "streams": [_python("corners", "--work", str(work / "corners"))],
        "learnable": [_python("learnable")],
        "stream-parts": [_python("stream_parts", "--work", str(work / "parts"))],
        "train": [_python("train", "--work", str(work / "sizes"))],
        "whitening": [_python("whitening", "--data", str(data))],
        "bytes-films": [
            _python("bytes_per_user", *films, "--artifacts", str(work / "films-all")),
        ],
        "bytes-groceries": [
            _python("bytes_per_user", *groceries, "--artifacts", str(work / "groceries")),
        ],
        "interests": [
            _python("trace", "--user", "6667", *films, "--artifacts", str(work / "films-all")),
        ],
        "scene-change": [
            _python(
                "scene_change", *grocery_items, *groceries, "--out", str(work / "groceries"),
                "--user", "1240", "--repeats",
            ),
        ],
        "new-users": [
            _python(
                "new_users", *grocery_items, *groceries, *households, "--repeats",
                "--out", str(work / "new-users"),
            ),
        ],
        "ablation": [
            _python(
                "ablation", *film_items, *films, "--core", "5", "--out", str(work / "ablation")
            ),
        ],
        "finetune": [_python("finetune", *film_items, *films, "--work", str(work))],
        "privacy": [_python("privacy", "--data", str(data), "--work", str(work / "privacy"))],
        "trend-attack": [_python("trend_attack")],
        "neighbour-attack": [_python("neighbour_attack")],
        "user-flood": [_python("user_flood")],
        "http-flood": [_python("http_flood")],
        "promises": [[sys.executable, "-m", "tests.promises"]],
        "erasure": [[sys.executable, "-m", "tests.erasure"]],
        "fuzz": [[sys.executable, "-m", "tests.fuzz"]],
        "faults": [
            _faults("--seed", *map(str, range(1001, 1021)), "--actions", "100",
                    "--folder", str(work / "walks")),
        ],
        "faults-three": [
            _faults("--brokers", "3", "--seed", "101", "102", "--actions", "60",
                    "--folder", str(work / "walks-three")),
        ],
        "faults-plain": [
            _faults("--plain", "--seed", "301", "302", "--actions", "60",
                    "--folder", str(work / "walks-plain")),
        ],
        "faults-again": [
            _faults("--seed", "402", "403", "404", "406", "407", "409", "410", "411", "421",
                    "--actions", "60", "--folder", str(work / "walks-again")),
        ],
        "faults-more": [
            _faults("--seed", "701", "702", "--actions", "60",
                    "--folder", str(work / "walks-more")),
        ],
        "faults-three-again": [
            _faults("--brokers", "3", "--seed", "502", "--actions", "30",
                    "--folder", str(work / "walks-three-again")),
        ],
        "broker-killed": [
            _faults("--only", "broker killed", "--seed", "601", "--actions", "12",
                    "--folder", str(work / "walks-killed")),
        ],
        "faults-trained": [
            _faults("--trained", "--workers", "2", "--kills", "3", "--terms", "1",
                    "--freezes", "1", "--events", "10000", "--users", "1000", "--seed", "3"),
        ],
        "pauses": [_python("pauses", "--times", "5")],
        "pauses-wiped": [_python("pauses", "--times", "5", "--wiped")],
        "soak": [
            _python("soak", "--minutes", "60", "--away", "0", "--rate", "5000", "--full", "500000",
                    "--folder", str(work / "soak")),
        ],
        "outage": [
            _python("soak", "--minutes", "14", "--away", "10", "--rate", "2000",
                    "--folder", str(work / "outage")),
        ],
        "demo": [_python("demonstration")],
        "demo-films": [_python("demonstration", *film_items, *films)],
        "demo-films-kafka": [_python("demonstration", *film_items, *films, "--kafka")],
        "recommend": [_recommend("20000", "4000")],
        "recommend-large": [_recommend("100000", "20000")],
        "user-keys": [_python("user_keys")],
        "late-events": [_python("late_events", "--items", "20000", "--users", "4000")],
        "http-api": [_python("http_api", "--rounds", "5")],
        "http-api-slower": [_python("http_api", "--rounds", "4", "--seconds", "12")],
        "page": [_python("page", "--repeat", "5")],
        "operator-walk": [
            _python("operator_walk", "--prometheus", shutil.which("prometheus") or "prometheus")
        ],
        "encode": [_python("encode", "--repeat", "5")],
        "search": [_python("search", "--artifacts", str(work / "films-all"), *films)],
        "search-lists": [
            _python(
                "search", "--artifacts", str(work / "films-all"), *films,
                "--k", "40", "--items", "0", "100000",
            ),
        ],
        "search-memory": [_python("search_memory")],
        "step": [_python("step")],
        "start": [_python("start", "--repeat", "5")],
        "idle": [_python("idle", "--repeat", "3")],
        "swap": [_python("swap", "--repeat", "3")],
        "recover": [_python("recover")],
        "latency": [_python("latency", "--repeat", "5", "--half-of", "20000")],
        "pipeline": [
            _python("pipeline", "--events", "120000", "--faust-events", "8000", "--repeat", "5"),
        ],
        "trained": [
            _python("trained", "--films", str(data), "--folder", str(work / "trained"),
                    "--repeat", "5"),
        ],
        "scale": [_python("scale", "--repeat", "3")],
    }  # fmt: skip
    for name, words in found.items():
        if name not in CASES:
            words[-1] += ["--result", name]
    return found


SPEED = (
    "encode", "step", "train", "search", "search-lists", "search-memory", "start", "idle", "swap",
    "recover", "pipeline", "latency", "http-api", "trained", "scale", "pauses",
)  # fmt: skip
"""What `make bench` measures."""


def _python(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{module}", *words]


def _faults(*words: str) -> list[str]:
    return [sys.executable, "-m", "tests.faults", *words]


def _recommend(items: str, users: str) -> list[str]:
    sizes = ["--items", items, "--users", users, "--events", "15"]
    return _python("recommend", *sizes, "--batch", "256", "--repeats", "40")


def run(words: list[str]) -> None:
    """Run one command, or copy a folder."""
    print(" ".join(words), file=sys.stderr, flush=True)
    if words[0] == "copy":
        shutil.rmtree(words[2], ignore_errors=True)
        shutil.copytree(words[1], words[2])
    else:
        subprocess.run(words, cwd=ROOT, check=True, stdout=sys.stderr)


def main() -> int:
    """Measure what the command line names; return 1 if a command failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=WORK, help="artifacts are kept here")
    parser.add_argument("--speed", action="store_true", help=f"measure {', '.join(SPEED)}")
    parser.add_argument("--list", action="store_true", help="only print the names")
    given = parser.parse_args()
    plan = commands(given.data.resolve(), given.work.resolve())
    if given.list:
        print("\n".join(plan))
        return 0
    if unknown := set(given.names) - set(plan):
        parser.error(
            f"no figure is called {', '.join(sorted(unknown))}; there are {', '.join(plan)}"
        )
    failed = []
    for name in given.names or (SPEED if given.speed else plan):
        started = time.monotonic()
        try:
            for words in plan[name]:
                run(words)
        except (subprocess.CalledProcessError, OSError) as error:
            failed.append(name)
            print(f"{name} failed: {error}", file=sys.stderr)
        print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
