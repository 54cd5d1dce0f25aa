"""How one user's interests rose and fell over a log: `indexer trace --json`, stored for a picture.

python -m benchmarks.trace --user USER --events EVENTS --artifacts ARTIFACTS --result interests
"""

import argparse
import json
from pathlib import Path

from benchmarks.quality import run
from benchmarks.results import add_option, store


def main() -> None:
    """Trace one user, and store the shares of the interests after each event."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--user", required=True)
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--artifacts", required=True)
    add_option(parser)
    given = parser.parse_args()
    words = ["indexer", "trace", given.user, "--events", str(given.events)]
    words += ["--artifacts", given.artifacts]
    moments = json.loads(run([*words, "--json"]))
    figures = {
        "user": given.user,
        "moments": [{"time": int(one["time"]), "interests": one["interests"]} for one in moments],
    }
    print(f"{len(moments)} events of user {given.user}")
    store(given.result, figures, [" ".join(words)])


if __name__ == "__main__":
    main()
