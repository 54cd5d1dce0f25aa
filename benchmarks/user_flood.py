"""What one user who floods the events topic adds to states, beside as many events of honest users.

    OMP_NUM_THREADS=1 python -m benchmarks.user_flood --result user-flood

Two partitions of a worker without a broker, one of users and one of items, get the same number of
events a second, and commit once a second. Bytes are those of keys and values, without what Kafka
adds and before it compresses.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recommend import make_items
from benchmarks.results import add_option, store
from tests.plane_world import NOW, FakeCommitter, FakeRecord, WorkerState
from tracker.artifact.artifact import Artifact
from tracker.events.item_events import decode_blocks, encode_block
from tracker.events.wire import Event
from tracker.kernels.row_bytes import USER_PREFIX
from tracker.stream.serving import make_serving
from tracker.users.config import InterestConfig

ITEMS, HONEST = 5000, 2000
RATE, CHUNKS = 1000, 4
"""Events of a second, and the chunks in which they come."""

Pairs = Iterator[tuple[str, int]]
"""User and row of the item, event by event."""


class CountingCommitter(FakeCommitter):
    """Counts what goes to a changelog."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0
        self.bytes = 0

    async def write(
        self,
        database: Any,
        records: Sequence[tuple[bytes, bytes | None]],
        outgoing: Sequence[Any],
    ) -> None:
        """Count, and write."""
        self.rows += len(records)
        self.bytes += sum(len(key) + len(value or b"") for key, value in records)
        await super().write(database, records, outgoing)


def honest(random: np.random.Generator) -> Pairs:
    """Yield events of many users on items, some of which are chosen more often."""
    chances = 1.0 / np.arange(1, ITEMS + 1) ** 0.8
    while True:
        rows = random.choice(ITEMS, 1000, p=chances / chances.sum())
        for user, row in zip(random.integers(0, HONEST, 1000).tolist(), rows.tolist(), strict=True):
            yield f"user{user}", row


def one_item(random: np.random.Generator) -> Pairs:
    """Yield events of one user on one item."""
    while True:
        yield "flood", 7


def all_items(random: np.random.Generator) -> Pairs:
    """Yield events of one user on item after item."""
    while True:
        for row in range(ITEMS):
            yield "flood", row


STREAMS = {
    f"{HONEST:,} honest users": honest,
    "1 user, the same item": one_item,
    "1 user, item after item": all_items,
}


def measure(folder: Path, artifact: Artifact, name: str, seconds: int) -> dict[str, Any]:
    """Serve a stream of events; return bytes by event, and the rows that are left."""
    worker = WorkerState(folder, capacity=10_000, partitioner="given")
    worker.keeper.current = make_serving(artifact, worker.settings)
    worker.committer = users = CountingCommitter()
    worker.restart()
    items = CountingCommitter()
    worker.items.store._committer = items  # type: ignore[assignment]
    ids = artifact.vectors.ids
    pairs = STREAMS[name](np.random.default_rng(7))
    blocks = topic_bytes = 0
    for second in range(seconds):
        for chunk in range(CHUNKS):
            begin = NOW - seconds + second + chunk / CHUNKS
            worker.send(
                *(
                    Event(user, ids[row], "like", begin + number / RATE)
                    for number, (user, row) in zip(range(RATE // CHUNKS), pairs, strict=False)
                )
            )
        values = [record.value or b"" for record in worker.commit() if record.topic == "t-items"]
        topic_bytes += sum(map(len, values))
        if values:
            found = decode_blocks(values)
            block = encode_block(found[np.argsort(found["source_offset"], kind="stable")])
            worker.items.process([FakeRecord(blocks, block)], blocks + 1)
            blocks += 1
            worker.commit(worker.items)
    rows = [len(row) for _, row in worker.users.store.scan(USER_PREFIX)]
    worker.close()
    events = seconds * RATE
    return {
        "stream": name,
        "users": len(rows),
        "user_bytes": sum(rows),
        "users_changelog": users.bytes / events,
        "items_topic": topic_bytes / events,
        "items_changelog": items.bytes / events,
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=60, help="of events")
    add_option(parser)
    given = parser.parse_args()
    artifact = Artifact.in_memory(
        make_items(ITEMS, np.random.default_rng(7)), interest=InterestConfig()
    )
    runs = []
    for name in STREAMS:
        with tempfile.TemporaryDirectory() as folder:
            runs.append(measure(Path(folder), artifact, name, given.seconds))
        print(runs[-1], flush=True)
    store(given.result, {"rate": RATE, "seconds": given.seconds, "runs": runs})


if __name__ == "__main__":
    main()
