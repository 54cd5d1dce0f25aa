"""What fine-tuning the text encoder is worth: `indexer finetune --json`, stored.

    python -m benchmarks.finetune --items ITEMS --events EVENTS --work FOLDER --result finetune

The time limit is set so high that the number of batches ends it: the result does not depend on how
fast the machine is.
"""

import argparse
import json
from pathlib import Path

from benchmarks.quality import run
from benchmarks.results import add_option, store


def main() -> None:
    """Fine-tune once, and store the scores before and after."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=Path, required=True)
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="the encoder is written here")
    parser.add_argument("--minutes", default="120")
    add_option(parser)
    given = parser.parse_args()
    words = ["indexer", "finetune", "--items", str(given.items), "--events", str(given.events)]
    words += ["--minutes", given.minutes, "--to", str(given.work / "encoder")]
    found = json.loads(run([*words, "--force", "--json"]))
    kept = ("objective", "method", "measure", "validation", "epochs", "best_epoch", "seconds")
    figures = {name: found[name] for name in kept}
    print(json.dumps(figures, indent=2))
    store(given.result, figures, [" ".join(words)])


if __name__ == "__main__":
    main()
