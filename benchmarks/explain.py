"""Processor time of a chunk of events in the worker, by what is said of each item of a list.

Three partitions of a worker without a broker, one with each value of `TRACKER_EXPLAIN`, have the
same trained network, users and chunks, by turns in one process. So what else the machine does
falls on all three alike.

    OMP_NUM_THREADS=1 python -m benchmarks.explain --items 20000
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import add_option, store

MODES = ("off", "reasons", "parts")
USERS = 2000
BEFORE = 40
"""Chunks that come before what is measured."""


def measure(items: int, size: int, chunks: int) -> dict[str, list[float]]:
    """Return the microseconds an event of each chunk, by what is said of items."""
    import faiss

    from benchmarks.recommend import make_items, make_network
    from indexer.items.index import build_index
    from tests import plane_world as plane
    from tracker.artifact.artifact import Artifact
    from tracker.artifact.models import Models
    from tracker.events.wire import Event
    from tracker.stream.serving import make_serving
    from tracker.users.config import InterestConfig

    faiss.omp_set_num_threads(1)
    random = np.random.default_rng(7)
    vectors = make_items(items, random)
    index, _ = build_index(np.asarray(vectors.vectors), 0.95)
    artifact = Artifact.in_memory(
        vectors, interest=InterestConfig(), index=index, models=Models(ranker=make_network())
    )
    taken: dict[str, list[float]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as folder:
        workers: dict[str, plane.WorkerState] = {}
        for mode in MODES:
            worker = plane.WorkerState(
                Path(folder) / mode, capacity=10_000, partitioner="given", explain=mode
            )
            worker.keeper.current = make_serving(artifact, worker.settings)
            worker.restart()
            workers[mode] = worker
        for turn in range(BEFORE + chunks):
            users, rows = random.integers(0, USERS, size), random.integers(0, items, size)
            events = [
                Event(
                    user_id=f"user{user}", item_id=vectors.ids[row], kind="view", scene="home",
                    timestamp=plane.NOW - 50_000 + turn + 0.001 * number,
                )
                for number, (user, row) in enumerate(
                    zip(users.tolist(), rows.tolist(), strict=True)
                )
            ]  # fmt: skip
            for place in range(len(MODES)):
                mode = MODES[(place + turn) % len(MODES)]
                worker = workers[mode]
                some = worker.records(*events)
                begun = time.thread_time_ns()
                worker.users.process(some, worker.offset)
                spent = (time.thread_time_ns() - begun) / 1000 / size
                worker.users.take_outgoing()
                if turn >= BEFORE:
                    taken[mode].append(spent)
        for worker in workers.values():
            worker.close()
    return taken


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=256, help="events of a chunk")
    parser.add_argument("--chunks", type=int, default=60)
    add_option(parser)
    given = parser.parse_args()
    taken = measure(given.items, given.size, given.chunks)
    found: dict[str, Any] = {
        "items": given.items,
        "size": given.size,
        "chunks": given.chunks,
        "microseconds": {mode: statistics.median(taken[mode]) for mode in MODES},
        # Pairs of the same chunk: what else runs falls on both.
        "times_off": {
            mode: statistics.median(
                one / off for one, off in zip(taken[mode], taken["off"], strict=True)
            )
            for mode in MODES[1:]
        },
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(found))
    store(given.result, found)


if __name__ == "__main__":
    main()
