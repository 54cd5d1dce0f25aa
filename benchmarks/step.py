"""Processor time of a chunk of events in the worker, by its size: decoded, applied, recommended.

A partition of a worker without a broker: made-up items, users with a history, and chunks of events
that go through `UserSide.process`. What a chunk of one event takes is nearly all fixed.

    OMP_NUM_THREADS=1 python -m benchmarks.step --items 20000
    OMP_NUM_THREADS=1 python -m benchmarks.step --against ../before --pairs 5

With `--against` another checkout is measured in turn, each time in a process of its own. With
`--together` the chunks of four partitions have their lists made in one call, by turns with one by
one:

    OMP_NUM_THREADS=1 python -m benchmarks.step --together --chunks 400
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIZES = (1, 2, 4, 8, 16, 32, 64, 256)
PARTITIONS = 4
USERS = 5000
HISTORY = 60
"""Chunks of 256 events that come before: three events a user."""


def measure(items: int, chunks: int) -> dict[str, float]:
    """Return the microseconds of a chunk of each of SIZES, the median of at least so many."""
    import faiss

    from benchmarks.recommend import make_items
    from indexer.items.index import build_index
    from tests import plane_world as plane
    from tracker.artifact.artifact import Artifact
    from tracker.events.wire import Event
    from tracker.kafka.partitioner import partition_of
    from tracker.stream.serving import make_serving
    from tracker.users.config import InterestConfig

    faiss.omp_set_num_threads(1)
    random = np.random.default_rng(7)
    vectors = make_items(items, random)
    index, _ = build_index(np.asarray(vectors.vectors), 0.95)
    artifact = Artifact.in_memory(vectors, interest=InterestConfig(), index=index)
    with tempfile.TemporaryDirectory() as folder:
        worker = plane.WorkerState(Path(folder), capacity=30_000)
        worker.keeper.current = make_serving(artifact, worker.settings)
        worker.restart()
        here = (f"user{number:07d}" for number in range(100 * USERS))
        users = [user for user in here if partition_of(user, 4, "murmur2") == 0][:USERS]

        def records(count: int, chunk: int) -> list[Any]:
            return worker.records(
                *(
                    Event(
                        user_id=users[user],
                        item_id=vectors.ids[item],
                        kind="view",
                        timestamp=plane.NOW - 50_000 + chunk + 0.001 * number,
                        scene="home",
                    )
                    for number, (user, item) in enumerate(
                        zip(
                            random.integers(0, USERS, count).tolist(),
                            random.integers(0, items, count).tolist(),
                            strict=True,
                        )
                    )
                )
            )

        for chunk in range(HISTORY):
            worker.users.process(records(256, chunk), worker.offset)
        worker.commit()
        turn = HISTORY
        found = {}
        for size in SIZES:
            taken = []
            for _ in range(max(20, chunks // size)):
                turn += 1
                some = records(size, turn)
                begun = time.thread_time_ns()
                out = worker.users.process(some, worker.offset)
                taken.append((time.thread_time_ns() - begun) / 1000)
                assert out
                worker.users.take_outgoing()
            found[str(size)] = statistics.median(taken)
        worker.close()
    return found


def measure_together(items: int, turns: int) -> dict[str, dict[str, float]]:
    """Return the microseconds of a chunk in each of PARTITIONS, by its size: medians by turns.

    `alone` is partition by partition, `together` with the lists of all in one call.
    """
    import faiss

    from benchmarks.recommend import make_items
    from indexer.items.index import build_index
    from tests import plane_world as plane
    from tracker.artifact.artifact import Artifact
    from tracker.events.wire import Event
    from tracker.stream.serving import make_serving
    from tracker.stream.small_chunks import SmallChunks
    from tracker.users.config import InterestConfig

    faiss.omp_set_num_threads(1)
    random = np.random.default_rng(7)
    vectors = make_items(items, random)
    index, _ = build_index(np.asarray(vectors.vectors), 0.95)
    artifact = Artifact.in_memory(vectors, interest=InterestConfig(), index=index)
    with tempfile.TemporaryDirectory() as folder:
        workers = [
            plane.WorkerState(
                Path(folder) / str(number), capacity=30_000, partition=number, partitioner="given"
            )
            for number in range(PARTITIONS)
        ]
        serving = make_serving(artifact, workers[0].settings)
        for worker in workers:
            worker.keeper.current = serving
            worker.restart()
        together = SmallChunks(workers[0].context)

        def records(worker: plane.WorkerState, count: int, chunk: int) -> list[Any]:
            return worker.records(
                *(
                    Event(
                        user_id=f"user{worker.partition}-{random.integers(1000)}",
                        item_id=vectors.ids[int(random.integers(items))],
                        kind="view",
                        timestamp=plane.NOW - 50_000 + chunk + 0.001 * number,
                        scene="home",
                    )
                    for number in range(count)
                )
            )

        def process(count: int, chunk: int, at_once: bool) -> float:
            some = [records(worker, count, chunk) for worker in workers]
            begun = time.thread_time_ns()
            for worker, chunk_records in zip(workers, some, strict=True):
                worker.users.process(chunk_records, worker.offset, together=at_once)
            if at_once:
                jobs = [worker.users.take_lists() for worker in workers]
                together.make_all([job for job in jobs if job is not None])
            taken = (time.thread_time_ns() - begun) / 1000 / len(workers)
            for worker in workers:
                worker.users.take_outgoing()
            return taken

        for chunk in range(HISTORY // 4):
            process(256, chunk, False)
        found: dict[str, dict[str, float]] = {}
        chunk = HISTORY
        for size in (1, 2, 4, 8, 16):
            taken: dict[bool, list[float]] = {False: [], True: []}
            for _ in range(max(20, turns // size)):
                for at_once in (False, True):
                    chunk += 1
                    taken[at_once].append(process(size, chunk, at_once))
            found[str(size)] = {
                "alone": statistics.median(taken[False]),
                "together": statistics.median(taken[True]),
            }
        for worker in workers:
            worker.close()
    return found


def in_turn(other: str, pairs: int, alone: Callable[[str], dict[str, float]]) -> dict[str, Any]:
    """Measure this checkout and another one in turn; return the medians of both, by size."""
    here = str(Path(__file__).parents[1])
    runs: dict[str, list[dict[str, float]]] = {here: [], other: []}
    for number in range(pairs):
        for folder in (here, other) if number % 2 else (other, here):
            runs[folder].append(alone(folder))
    ratios = [
        {size: before[size] / now[size] for size in now}
        for before, now in zip(runs[other], runs[here], strict=True)
    ]
    return {
        "pairs": pairs,
        "microseconds_before": _medians(runs[other]),
        "microseconds": _medians(runs[here]),
        "times_faster": _medians(ratios),
        "runs": {"before": runs[other], "now": runs[here]},
    }


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {size: statistics.median(run[size] for run in runs) for size in runs[0]}


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--chunks", type=int, default=2000, help="of one event; fewer of more")
    parser.add_argument("--against", metavar="FOLDER", help="checkout to compare with")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--result", metavar="NAME", help="write benchmarks/results/NAME.json too")
    parser.add_argument("--together", action="store_true", help="four partitions, by turns")
    given = parser.parse_args()
    if given.together:
        found: dict[str, Any] = {"microseconds": measure_together(given.items, given.chunks)}
    elif given.against is None:
        found = {"microseconds": measure(given.items, given.chunks)}
    else:

        def alone(folder: str) -> dict[str, float]:
            sizes = ["--items", str(given.items), "--chunks", str(given.chunks)]
            run = subprocess.run(
                [sys.executable, os.path.abspath(__file__), *sizes],
                env=os.environ | {"PYTHONPATH": folder},
                cwd=folder,
                check=True,
                stdout=subprocess.PIPE,
            )
            times: dict[str, float] = json.loads(run.stdout)["microseconds"]
            return times

        found = in_turn(given.against, given.pairs, alone)
    found |= {"items": given.items, "load": round(os.getloadavg()[0], 1)}
    if given.result is not None:
        from benchmarks.results import store

        store(given.result, found)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
