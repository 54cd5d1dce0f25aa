"""A worker's data plane without a broker: sides, their stores, and records to feed them."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rocksdict import Options, Rdict, WriteBatch

from tests.worlds import checkerboard
from tracker.artifact.artifact import Artifact
from tracker.events.kinds import Kinds
from tracker.events.wire import Event, Recommendation, encode_event
from tracker.items.rows import ItemRows
from tracker.items.vectors import ItemVectors
from tracker.kafka.cluster import Cluster, TopicInfo, topics_of
from tracker.kafka.outbox import Record
from tracker.settings import Settings, load_settings
from tracker.store.committer import CommitAbortedError
from tracker.store.partition_store import PartitionStore
from tracker.stream.item_side import ItemSide
from tracker.stream.metrics import Metrics
from tracker.stream.serving import Context, Serving, make_serving
from tracker.stream.user_side import UserSide
from tracker.users.config import InterestConfig
from tracker.users.rows import UserRows

NOW = 1_700_000_000.0
SMALL = InterestConfig(dim=16, ring=8, ring_evict=2, seen_bits=1024, seen_capacity=60)


@dataclass
class Source:
    """A record as the consumer gives it."""

    offset: int
    value: bytes | None
    key: bytes | None = None
    timestamp: int = int(NOW * 1000)
    timestamp_type: int = 1


class Keeper:
    """Holds an artifact; says what states may name."""

    def __init__(self, serving: Serving) -> None:
        self.current = serving
        self.loaded = True
        self.caught_up = True
        self.tolerated = 0
        self.readable = True
        self.asked: list[int] = []

    @property
    def newest(self) -> int:
        return max(self.current.sequence, self.tolerated)

    async def catch_up(self, sequence: int) -> bool:
        self.asked.append(sequence)
        if self.readable:
            self.tolerated = sequence
        return self.readable


class Committer:
    """Commits to the database only, and keeps what else would have gone out."""

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


def small_cluster(settings: Settings, *, transactions: bool = True) -> Cluster:
    names = topics_of(settings)
    info = {name: TopicInfo(name, 2 if "item" in name else 4, f"id-{name}") for name in names.all()}
    return Cluster(names, info, transactions)


class Bench:
    """The sides of partition 0, over real databases."""

    def __init__(
        self, folder: Path, *, transactions: bool = True, capacity: int = 1000, **settings: Any
    ) -> None:
        self.settings = load_settings({}, name="t", **settings)
        self.keeper = Keeper(make_serving(small_artifact(), self.settings))
        self.metrics = Metrics()
        self.now = NOW
        self.context = Context(
            self.settings,
            small_cluster(self.settings, transactions=transactions),
            self.keeper,  # type: ignore[arg-type]
            Kinds.default(),
            self.metrics,
            lambda: self.now,
        )
        self.capacity = capacity
        self.databases = {
            table: Rdict(str(folder / table), options=Options(raw_mode=True))
            for table in ("users", "items")
        }
        self.offset = 0
        self.committer = Committer()
        self.restart()

    def restart(self) -> None:
        """Forget everything in memory, as a crash does."""
        rows = UserRows(self.keeper.current.config)
        users: PartitionStore[str] = PartitionStore(
            self.databases["users"],
            self.committer,  # type: ignore[arg-type]
            rows,
            self.capacity,
        )
        users.open("t-events", "id-t-events", 4, 0, 10**9)
        self.rows = rows
        self.users = UserSide(self.context, 0, rows, users)
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

    def close(self) -> None:
        for database in self.databases.values():
            database.close()

    def records(self, *events: Event | bytes | None) -> list[Source]:
        """Make records that follow those before."""
        found = []
        for event in events:
            if isinstance(event, Event):
                found.append(Source(self.offset, encode_event(event), event.user_id.encode()))
            else:
                found.append(Source(self.offset, event, b"k"))
            self.offset += 1
        return found

    def send(self, *events: Event | bytes | None) -> list[Record]:
        """Process events as one chunk; return what goes out."""
        records = self.records(*events)
        return self.users.process(records, self.offset)

    def commit(self, side: UserSide | ItemSide | None = None) -> list[Record]:
        """Commit a side, the users' by default; return what went out with it."""
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
