"""Processor time that a key of each user costs a worker, by event and by row.

Two partitions of a worker without a broker, one with `TRACKER_USER_KEYS`, have the same users and
chunks, by turns in one process. So what else the machine does falls on both alike. Then rows are
read from the database by both, and keys from their records, as a worker does that takes a
partition over.

    OMP_NUM_THREADS=1 python -m benchmarks.user_keys
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import add_option, store

MODES = ("plain", "keyed")
USERS = 2000
ITEMS = 5000
BEFORE = 60
"""Chunks that come before what is measured: rings fill."""

PART = 100
"""Rows that are read at once."""

Costs = dict[str, list[float]]
"""Microseconds by worker."""


def now() -> float:
    """Return the processor time of this thread, in microseconds."""
    return time.thread_time_ns() / 1000


def measure(folder: Path, size: int, chunks: int) -> dict[str, Any]:
    """Return medians in microseconds, plain and with keys.

    Args:
        folder: for the databases.
        size: events of a chunk.
        chunks: that are measured.
    """
    import faiss

    from benchmarks.recommend import make_items
    from indexer.items.index import build_index
    from tests.plane_world import WorkerState
    from tracker.artifact.artifact import Artifact
    from tracker.kernels.row_bytes import USER_PREFIX
    from tracker.stream.serving import make_serving
    from tracker.users.config import InterestConfig

    faiss.omp_set_num_threads(1)
    random = np.random.default_rng(7)
    vectors = make_items(ITEMS, random)
    index, _ = build_index(np.asarray(vectors.vectors), 0.95)
    artifact = Artifact.in_memory(vectors, interest=InterestConfig(), index=index)
    (folder / "key").write_text("k" * 32)
    workers: dict[str, Any] = {}
    for name in MODES:
        worker = workers[name] = WorkerState(
            folder / name, capacity=10_000, partitioner="given",
            pseudonym_key_file=folder / "key", user_keys=name == "keyed",
        )  # fmt: skip
        worker.keeper.current = make_serving(artifact, worker.settings)
        worker.restart()
    event, written = serve(workers, vectors.ids, random, size, chunks)
    times = [one / other for one, other in zip(event["keyed"], event["plain"], strict=True)]
    rows = [row for _, row in workers["plain"].users.store.scan(USER_PREFIX)]
    found = {
        "size": size,
        "chunks": chunks,
        "users": USERS,
        "row_bytes": statistics.mean(map(len, rows)),
        "event": {name: statistics.median(event[name]) for name in MODES},
        "event_times": statistics.median(times),
        "row_written": {name: statistics.median(written[name]) for name in MODES},
        "row_read": read_rows(workers),
        "key_read": read_keys(workers["keyed"]),
    }
    for worker in workers.values():
        worker.close()
    return found


def serve(
    workers: dict[str, Any],
    items: Sequence[str],
    random: np.random.Generator,
    size: int,
    chunks: int,
) -> tuple[Costs, Costs]:
    """Return by worker what an event cost in each chunk, with its commit, and a row in that."""
    from tests.plane_world import NOW
    from tracker.events.wire import Event

    event: Costs = {name: [] for name in MODES}
    written: Costs = {name: [] for name in MODES}
    for turn in range(BEFORE + chunks):
        users, rows = random.integers(0, USERS, size), random.integers(0, len(items), size)
        events = [
            Event(f"user{user}", items[row], "view", NOW - 50_000 + turn + 0.001 * number)
            for number, (user, row) in enumerate(zip(users.tolist(), rows.tolist(), strict=True))
        ]
        for name in MODES if turn % 2 else MODES[::-1]:
            worker = workers[name]
            records, rows_of = worker.records(*events), worker.users.store
            begun = now()
            worker.users.process(records, worker.offset)
            spent = now() - begun
            outgoing = worker.users.take_outgoing()
            dirty = rows_of.dirty_rows
            begun = now()
            snapshot = rows_of.snapshot()
            taken = now() - begun
            asyncio.run(rows_of.commit(snapshot, outgoing))
            rows_of.settle()
            if turn >= BEFORE:
                event[name].append((spent + taken) / size)
                written[name].append(taken / dirty)
    return event, written


def read_rows(workers: dict[str, Any]) -> dict[str, float]:
    """Return what it costs to read a row of the database, by worker."""
    costs: Costs = {name: [] for name in MODES}
    pseudonyms = workers["plain"].context.pseudonyms
    users = [pseudonyms.of(f"user{number}") for number in range(USERS)]
    for turn in range(3):
        for name in MODES if turn % 2 else MODES[::-1]:
            workers[name].restart()
            rows_of = workers[name].users.store
            for start in range(0, USERS, PART):
                some = users[start : start + PART]
                begun = now()
                rows_of.slots_of(some)
                costs[name].append((now() - begun) / len(some))
    return {name: statistics.median(costs[name]) for name in MODES}


def read_keys(worker: Any) -> float:
    """Return what it costs to take a key over from its record."""
    from tracker.kafka.user_keys import UserKeys

    records = [one for one in worker.committer.sent if one.topic == "t-user-keys"]
    costs = []
    for _ in range(5):
        keys = UserKeys(worker.context.pseudonyms, "t-user-keys", 0)
        begun = now()
        for record in records:
            keys.learn(record.key, record.value)
        costs.append((now() - begun) / len(records))
    return statistics.median(costs)


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--size", type=int, default=256, help="events of a chunk")
    parser.add_argument("--chunks", type=int, default=200)
    add_option(parser)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), given.size, given.chunks)
    print(json.dumps(found))
    store(given.result, found)


if __name__ == "__main__":
    main()
