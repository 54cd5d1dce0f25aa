"""The demonstration's figures: `tracker demo --json`, on the shop that comes with it or your files.

    python -m benchmarks.demonstration --result demo
    python -m benchmarks.demonstration --items ITEMS --events EVENTS --kafka --result demo-films

With `--kafka` it runs on Apache Kafka (Java and Maven needed), without on the embedded broker.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from benchmarks.results import ROOT, add_option, own_command, store
from tests.brokers import KafkaBroker


def main() -> None:
    """Run the demonstration once, and store what it prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=Path)
    parser.add_argument("--events", type=Path)
    parser.add_argument("--kafka", action="store_true")
    add_option(parser)
    given = parser.parse_args()
    words = [sys.executable, "-m", "tracker", "demo", "--json"]
    for name in ("items", "events"):
        if path := getattr(given, name):
            words += [f"--{name}", str(path)]
    with ExitStack() as stack:
        if given.kafka:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tracker-demo-")))
            words += ["--broker", stack.enter_context(KafkaBroker(folder / "kafka")).address]
        done = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout) | {"broker": "Apache Kafka" if given.kafka else "embedded"}
    print(json.dumps(found, indent=2))
    store(given.result, found, [own_command()])


if __name__ == "__main__":
    main()
