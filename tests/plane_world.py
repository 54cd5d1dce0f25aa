"""A worker's data plane without a broker: sides, their stores, and records to feed them."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from faust.types import TP
from rocksdict import Options, Rdict, WriteBatch

from tests.worlds import checkerboard
from tracker.artifact.artifact import Artifact
from tracker.dialects.loading import load_dialect
from tracker.events.kinds import Kinds
from tracker.events.wire import Event, Recommendation, encode_event
from tracker.items.rows import ItemRows
from tracker.items.vectors import ItemVectors
from tracker.kafka.cluster import Cluster, TopicInfo, topics_of
from tracker.kafka.outbox import Record
from tracker.kafka.pseudonyms import pseudonyms_of
from tracker.kafka.user_keys import UserKeys
from tracker.settings import Settings, load_settings
from tracker.store.committer import CommitAbortedError
from tracker.store.partition_store import PartitionStore
from tracker.store.row_cipher import RowCipher
from tracker.stream.item_side import ItemSide
from tracker.stream.metrics import Metrics
from tracker.stream.partition import Chunk, Partition
from tracker.stream.serving import Context, Serving, make_serving
from tracker.stream.user_side import UserSide
from tracker.users.config import InterestConfig
from tracker.users.rows import UserRows

NOW = 1_700_000_000.0
SMALL = InterestConfig(dim=16, ring=8, ring_evict=2, seen_bits=1024, seen_capacity=60)


@dataclass
class FakeRecord:
    """A record as the consumer returns it."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = int(NOW * 1000)
    timestamp_type: int = 1
    headers: tuple[tuple[str, bytes | None], ...] = ()


class FakeKeeper:
    """Holds an artifact, and loads no other one."""

    def __init__(self, serving: Serving) -> None:
        self.current = serving
        self.loaded = True
        self.caught_up = True
        self.feed_failing_seconds = 0.0
        self.stuck_tasks: list[str] = []
        self.tolerated = 0
        self.readable = True
        self.requested: list[int] = []
        self.problem: str | None = None

    def stuck(self, seconds: float) -> list[str]:
        return self.stuck_tasks

    @property
    def newest(self) -> int:
        return max(self.current.sequence, self.tolerated)

    async def catch_up(self, sequence: int) -> bool:
        self.requested.append(sequence)
        if self.readable:
            self.tolerated = sequence
        return self.readable


class FakeCommitter:
    """Commits to the database alone, and keeps the records for other topics."""

    def __init__(self) -> None:
        self.sent: list[Record] = []
        self.aborts = 0
        self.gate: asyncio.Event | None = None
        self.error: BaseException | None = None
        self.writes = 0
        self.stopped = False

    async def write(
        self,
        database: Any,
        records: Sequence[tuple[bytes, bytes | None]],
        outgoing: Sequence[Record],
    ) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        if self.aborts:
            self.aborts -= 1
            raise CommitAbortedError("not enough replicas")
        self.sent += outgoing
        self.writes += 1
        batch = WriteBatch(raw_mode=True)
        for key, value in records:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        database.write(batch)

    async def stop(self) -> None:
        self.stopped = True


def small_artifact(sequence: int = 1, items: int = 40, basis: str = "test") -> Artifact:
    ids = [f"i{number}" for number in range(items)]
    labels = [f"group {number % 2}" for number in range(items)]
    vectors = ItemVectors.make(ids, checkerboard(items), 16, labels=labels)
    return Artifact.in_memory(
        vectors, interest=SMALL, sequence=sequence, version=f"v{sequence}", basis=basis
    )


def small_cluster(
    settings: Settings, *, transactions: bool = True, hands_over: bool = False
) -> Cluster:
    names = topics_of(settings)
    info = {
        name: TopicInfo(name, 2 if "item" in name else 4, f"id-{name}")
        for name in names.all()
        if hands_over or name != names.hand_over
    }
    return Cluster(names, info, transactions)


class WorkerState:
    """The state of a worker without a broker: both sides of a partition, over real databases."""

    def __init__(
        self,
        folder: Path,
        *,
        transactions: bool = True,
        capacity: int = 1000,
        hands_over: bool = False,
        partition: int = 0,
        **settings: Any,
    ) -> None:
        self.settings = load_settings({}, name="t", **settings)
        self.keeper = FakeKeeper(make_serving(small_artifact(), self.settings))
        self.metrics = Metrics()
        self.now = NOW
        self.context = Context(
            self.settings,
            small_cluster(self.settings, transactions=transactions, hands_over=hands_over),
            self.keeper,  # type: ignore[arg-type]
            Kinds.default(),
            self.metrics,
            lambda: self.now,
            dialect=load_dialect(self.settings.events_format),
            pseudonyms=pseudonyms_of(self.settings),
        )
        self.capacity = capacity
        self.partition = partition
        self.databases = {
            table: Rdict(str(folder / table), options=Options(raw_mode=True))
            for table in ("users", "items")
        }
        self.offset = 0
        self.committer = FakeCommitter()
        self.restart()

    def restart(self) -> None:
        """Lose everything in memory, as a crash does."""
        rows = UserRows(self.keeper.current.config)
        users: PartitionStore[str] = PartitionStore(
            self.databases["users"],
            self.committer,  # type: ignore[arg-type]
            rows,
            self.capacity,
        )
        key = self.context.pseudonyms.fingerprint
        key_topic = None
        if self.settings.user_keys:
            users.cipher, key_topic = RowCipher(self.user_keys()), "id-t-user-keys"
        users.open("t-events", "id-t-events", 4, 0, 10**9, pseudonyms=key, user_keys=key_topic)
        if self.context.cluster.hands_over:
            users.open_hand_over("t-handover", "id-t-handover", 0, 10**9)
        self.rows = rows
        self.users = UserSide(self.context, self.partition, rows, users)
        self.users.opened()
        item_rows = ItemRows()
        items: PartitionStore[int] = PartitionStore(
            self.databases["items"],
            self.committer,  # type: ignore[arg-type]
            item_rows,
            self.capacity,
        )
        items.open("t-items", "id-t-items", 2, 0, 10**9)
        self.item_rows = item_rows
        self.items = ItemSide(self.context, 0, item_rows, items)
        self.items.opened()

    def user_keys(self) -> UserKeys:
        """Return the keys of users that the topic of them has."""
        keys = UserKeys(self.context.pseudonyms, "t-user-keys", self.partition)
        for record in self.committer.sent:
            if record.topic == "t-user-keys":
                keys.learn(record.key or b"", record.value)
        return keys

    def close(self) -> None:
        for database in self.databases.values():
            database.close()

    def records(self, *events: Event | bytes | None) -> list[FakeRecord]:
        """Make records that follow those before."""
        records = []
        for event in events:
            if isinstance(event, Event):
                records.append(FakeRecord(self.offset, encode_event(event), event.user_id.encode()))
            else:
                records.append(FakeRecord(self.offset, event, b"k"))
            self.offset += 1
        return records

    def send(self, *events: Event | bytes | None) -> list[Record]:
        """Process events as one chunk; return the records to send at once."""
        records = self.records(*events)
        return self.users.process(records, self.offset)

    def commit(self, side: UserSide | ItemSide | None = None) -> list[Record]:
        """Commit a side, the users' by default; return the outgoing records."""
        side = side or self.users
        store: PartitionStore[Any] = side.store
        outgoing = side.take_outgoing()
        asyncio.run(store.commit(store.snapshot(), outgoing))
        store.settle()
        return outgoing

    def head(self, user: str, field: str) -> Any:
        """Read a field of a user's row."""
        slot = self.users.store.slots_of([user])[0]
        return self.rows.states.head[field][slot]

    def count(self, name: str, **labels: str) -> float:
        """Read a counter."""
        return self.metrics.registry.get_sample_value(f"tracker_{name}_total", labels) or 0.0


Make = Callable[..., WorkerState]
"""Makes states with arguments of `WorkerState`; a fixture of tests/tracker/conftest.py."""


class FakeOutbox:
    """An outbox that keeps what it is given."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.full = False
        self.error: BaseException | None = None

    def put(self, records: Sequence[Record]) -> None:
        self.records += records

    def mark(self) -> None:
        return None

    async def wait(self, mark: None) -> None:
        if self.error is not None:
            raise self.error


class HandedSource:
    """The topic of handed-on events beside a running partition."""

    topic, number = "t-handover", 0

    def __init__(self, running: "RunningPartition") -> None:
        self.rewind = running.rewind

    def unread(self) -> int:
        return 0


class RunningPartition:
    """Partition 0 of the events topic over a worker's state, and its source."""

    def __init__(
        self,
        worker: WorkerState,
        commit_seconds: float = 0.05,
        limit: Callable[[], int] | None = None,
    ) -> None:
        self.worker = worker
        self.outbox = FakeOutbox()
        self.topic, self.number = "t-events", 0
        self.rewound: list[int] = []
        self.fatal: list[BaseException] = []
        self.not_fetched = 0
        self.done: list[int] = []
        self.threads = ThreadPoolExecutor(1)
        settings = worker.settings.model_copy(update={"commit_interval_seconds": commit_seconds})
        self.partition = Partition(
            replace(worker.context, settings=settings),
            self,
            worker.users,
            self.outbox,  # type: ignore[arg-type]
            self.threads,
            self.fatal.append,
            HandedSource(self) if worker.context.cluster.hands_over else None,
            limit,
        )

    def rewind(self, offset: int) -> None:
        self.rewound.append(offset)

    def unread(self) -> int:
        return self.not_fetched

    def accept(self, start: int, records: Sequence[FakeRecord], topic: str = "t-events") -> None:
        end = records[-1].offset + 1
        self.partition.accept(
            Chunk(TP(topic, 0), start, end, records), lambda: self.done.append(end)
        )

    async def until(self, done: Callable[[], bool]) -> None:
        """Wait for a condition; the first call of a kernel may compile it for many seconds."""
        async with asyncio.timeout(240.0):
            while not done():
                assert not self.fatal, self.fatal
                await asyncio.sleep(0.002)

    async def applied(self, *ends: int) -> None:
        await self.until(lambda: self.done == list(ends))


def run_partition(
    worker: WorkerState, work: Callable[[RunningPartition], Coroutine[Any, Any, None]], **more: Any
) -> RunningPartition:
    """Start a partition, do some work with it, and close it unless it has failed."""

    async def all_of_it() -> RunningPartition:
        running = RunningPartition(worker, **more)
        try:
            await running.partition.start()
            await work(running)
            if not running.fatal:
                await running.partition.close()
        finally:
            running.threads.shutdown()
        return running

    return asyncio.run(all_of_it())


def written_by(worker: WorkerState, sequence: int) -> None:
    """Commit a row of user a as another worker would, with a newer artifact."""
    worker.send(like("a", 0))
    worker.rows.states.head["artifact"][:] = sequence
    worker.commit()
    worker.restart()


def like(user: str, item: int | str = 0, *, time: float = NOW, **more: Any) -> Event:
    name = item if isinstance(item, str) else f"i{item}"
    return Event(user, name, more.pop("kind", "like"), time, **more)


def lists(records: Sequence[Record]) -> list[Recommendation]:
    """Decode the recommendations among records."""
    return [
        msgspec.json.decode(record.value or b"", type=Recommendation)
        for record in records
        if record.topic == "t-recommendations"
    ]


def slots_of(*slots: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(slots, np.int64)
