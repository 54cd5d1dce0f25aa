"""A small catalogue and batches of events as arrays, for tests of the states."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.events.batch import EventBatch
from tracker.items.vectors import RowTable, hash_table, lookup_rows
from tracker.users.apply import Applied, apply_events
from tracker.users.config import InterestConfig
from tracker.users.seen import SeenSets
from tracker.users.states import RING_RETRACTED, UserStates

START = 1.7e9
SMALL = InterestConfig(
    dim=8, slots=4, slot_threshold=0.5, ring=8, ring_evict=2, seen_bits=1024, seen_capacity=60
)


@dataclass
class SmallCatalogue:
    """Items with hashes 1001, 1002, ... and unit vectors."""

    vectors: NDArray[np.float32]
    hashes: NDArray[np.uint64]
    table_hash: NDArray[np.uint64]
    table_row: NDArray[np.int32]
    live: int

    @property
    def table(self) -> RowTable:
        return RowTable(self.table_hash, self.table_row)


def catalogue(items: int = 40, dim: int = 8, seed: int = 0) -> SmallCatalogue:
    vectors = np.random.default_rng(seed).standard_normal((items, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    hashes = np.arange(1001, 1001 + items).astype(np.uint64)
    return SmallCatalogue(vectors, hashes, *hash_table(hashes), items)


@dataclass(frozen=True)
class Action:
    """One event, or with `retracts` a retraction; item 0 is not in any catalogue's rows."""

    user: int = 0
    item: int = 1
    time: float = START
    weight: float = 1.0
    event_id: int = 0
    retracts: int = 0
    scene: int = 0
    kind: int = 7
    value: float = float("nan")


def batch(actions: list[Action], items: SmallCatalogue, first_offset: int = 0) -> EventBatch:
    def column(name: str, dtype: Any) -> Any:
        return np.array([getattr(action, name) for action in actions], dtype)

    retracts = column("retracts", np.uint64)
    hashes = np.where(retracts > 0, 0, column("item", np.uint64) + 1000).astype(np.uint64)
    n = len(actions)
    return EventBatch(
        topic="events",
        partition=3,
        users=[f"user-{action.user}" for action in actions],
        slots=column("user", np.int64),
        items=hashes,
        rows=lookup_rows(items.table_hash, items.table_row, hashes),
        times=column("time", np.float64),
        appended=column("time", np.float64),
        weights=column("weight", np.float32),
        values=column("value", np.float32),
        kinds=column("kind", np.uint16),
        scenes=column("scene", np.uint32),
        event_ids=column("event_id", np.uint64),
        retracts=retracts,
        offsets=np.arange(first_offset, first_offset + n),
    )


class Users:
    """User rows with their seen sets, driven by actions."""

    def __init__(
        self,
        n: int = 3,
        config: InterestConfig = SMALL,
        items: SmallCatalogue | None = None,
    ) -> None:
        self.items = items or catalogue(dim=config.dim)
        self.states = UserStates(config, n)
        self.seen = SeenSets(config, 1)
        self.seen_slots = np.full(n, -1)
        self.offset = 0

    def apply(self, *actions: Action) -> Applied:
        events = batch(list(actions), self.items, self.offset)
        self.offset += len(actions)
        return apply_events(
            self.states, self.seen, self.seen_slots, events, self.items, basis=11, sequence=4
        )

    def one(self, action: Action) -> int:
        return int(self.apply(action).outcomes[0])

    def head(self, user: int = 0) -> Any:
        return self.states.head[user]

    def ring(self, user: int = 0) -> list[tuple[int, float, float]]:
        """Return item, weight and time of what was not retracted, latest arrival first."""
        entries = self.states.ring[user, : int(self.head(user)["n_ring"])]
        kept = entries[entries["flags"] & RING_RETRACTED == 0]
        return list(kept[["item", "weight", "time"]][::-1].tolist())

    def rows(self) -> list[bytes]:
        """Return all that is stored, as bytes: state rows, then the seen sets of who has one."""
        used = np.flatnonzero(self.states.head["evicted"] > 0)
        return [
            *self.states.pack(np.arange(self.states.capacity)),
            *self.seen.pack(self.seen_slots[used]),
        ]


def retraction(of: int, user: int = 0, time: float = START) -> Action:
    return Action(user=user, retracts=of, time=time, item=0, weight=0.0)


def later(action: Action, seconds: float) -> Action:
    return replace(action, time=action.time + seconds)


def lived_in() -> Users:
    """Return three users: one with a full row, one with a single event, one unknown."""
    users = Users()
    users.apply(
        *(
            Action(item=i, time=START + 600.0 * i, weight=1.0 + i % 3, event_id=i, scene=i % 2)
            for i in range(1, 30)
        ),
        Action(item=30, weight=-1.0, event_id=30, time=START + 20000.0),
        retraction(of=29),
        retraction(of=77),
        Action(user=1, item=3, value=4.5),
    )
    return users
