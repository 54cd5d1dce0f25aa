"""Bytes that a user's rows take: at most, and after a log of real events.

    python -m benchmarks.bytes_per_user --events EVENTS --artifacts ARTIFACTS

The log is replayed through the code that serves; then every user's rows are packed as for a commit.
A second row, of items seen long ago, is there for users whose ring has overflowed.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.results import add_option, store
from indexer.data.histories import core, read_event_log
from indexer.replay.replay import Replay
from tracker.artifact.artifact import Artifact
from tracker.events.kinds import Kinds
from tracker.kernels.row_bytes import USER_PREFIX
from tracker.users.config import InterestConfig
from tracker.users.seen import SeenSets
from tracker.users.states import row_bytes_max


def bounds(config: InterestConfig, hidden: int) -> dict[str, int]:
    """Return the most bytes that the rows of one user can have.

    Args:
        config: what shapes a state.
        hidden: width of the user encoder's state.
    """
    seen = SeenSets(config, 1)
    seen.bits[:] = 255
    (packed,) = seen.pack(np.zeros(1, np.int64))
    return {
        "state": row_bytes_max(config),
        "state_with_encoder": row_bytes_max(config, hidden),
        "seen": len(packed),
    }


def spread(sizes: NDArray[np.int64]) -> dict[str, float]:
    """Return how many there are, their mean, and quantiles of them."""
    if not len(sizes):
        return {"rows": 0}
    middle, high = np.percentile(sizes, [50, 99])
    return {
        "rows": len(sizes), "mean": sizes.mean(), "p50": middle, "p99": high, "max": sizes.max()
    }  # fmt: skip


def measure(replay: Replay) -> dict[str, Any]:
    """Replay the whole log, pack every user's rows, and return their sizes."""
    replay.advance(len(replay.log))
    replay.wait()
    rows = replay.users.dump(replay.log.user_ids, np.arange(len(replay.log.user_ids)))
    sizes: dict[bool, list[int]] = {True: [], False: []}
    for key, row in rows:
        sizes[key.startswith(USER_PREFIX)].append(len(row or b""))
    return {
        "events": len(replay.log),
        "users": len(replay.log.user_ids),
        "state": spread(np.array(sizes[True], np.int64)),
        "seen": spread(np.array(sizes[False], np.int64)),
    }


def main() -> None:
    """Measure as told by the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--events", type=Path, action="append", required=True)
    parser.add_argument("--artifacts", required=True, help="where the versions are")
    parser.add_argument("--core", type=int, default=1)
    add_option(parser)
    given = parser.parse_args()
    artifact = Artifact.load(given.artifacts, None, "cpu")
    config = artifact.manifest.interest
    kinds = msgspec.structs.replace(
        Kinds.default(), rating_min=config.rating_min, rating_max=config.rating_max
    )
    log = core(read_event_log(given.events, kinds, time.time()), given.core)
    figures = {"most": bounds(config, artifact.models.hidden), **measure(Replay(artifact, log))}
    print(figures)
    store(given.result, figures)


if __name__ == "__main__":
    main()
