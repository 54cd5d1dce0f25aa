"""Known-answer worlds for the recommender's tests: a catalogue in groups, users, events."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.artifact.artifact import Artifact
from tracker.events.batch import EventBatch
from tracker.events.wire import hash_id, kind_code, scene_code
from tracker.items.counts import apply_item_events
from tracker.items.states import ItemStates
from tracker.items.vectors import ItemVectors
from tracker.items.view import ItemView
from tracker.recommend.lists import RecommendedBatch
from tracker.recommend.options import RecommendOptions
from tracker.recommend.recommender import Recommender
from tracker.scoring.blend import Ranker
from tracker.users.apply import Applied
from tracker.users.config import InterestConfig
from tracker.users.rows import RequestBatch, UserRows
from tracker.users.states import UserStates

DAY = 86400.0
START = 1_700_000_000.0


def checkerboard(count: int, *, groups: int = 2, width: int = 32) -> NDArray[np.float32]:
    """Return unit vectors (count, width): item i is of group i % groups, near its group's axis."""
    noise = np.random.default_rng(5).normal(size=(count, width))
    noise[:, :groups] = 0.0
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    full = 0.5 * noise
    full[np.arange(count), np.arange(count) % groups] = math.sqrt(0.75)
    return full.astype(np.float32)


class World:
    """A catalogue of items "i0", "i1", ... in groups, an arena of users, and what is live."""

    def __init__(
        self,
        count: int = 40,
        *,
        users: int = 8,
        live: int | None = None,
        options: RecommendOptions | None = None,
        ranker: Ranker | None = None,
        basis: str = "test",
        groups: int = 2,
        **interest: Any,
    ) -> None:
        ids = [f"i{i}" for i in range(count)]
        labels = [f"group {i % groups}" for i in range(count)]
        self.items = ItemVectors.make(
            ids, checkerboard(count, groups=groups), 16, live=live, labels=labels
        )
        self.config = InterestConfig(dim=16, **interest)
        self.artifact = Artifact.in_memory(self.items, interest=self.config, basis=basis)
        self.view = ItemView(self.items)
        self.item_states = ItemStates(max(count, 1) + 64)
        self.item_slots: dict[int, int] = {}
        self.users = UserRows(self.config)
        self.users.grow(users)
        self.recommender = Recommender(self.artifact, self.view, options, ranker)
        self._offset = 0

    @classmethod
    def of(cls, artifact: Artifact, users: int = 2) -> "World":
        """Return a world with the items of an artifact, whatever they are."""
        world = cls(1, users=1)
        world.items, world.config = artifact.vectors, artifact.manifest.interest
        world.artifact, world.view = artifact, ItemView(artifact.vectors)
        world.item_states = ItemStates(len(artifact.vectors) + 64)
        world.users = UserRows(world.config)
        world.users.grow(users)
        world.recommender = Recommender(artifact, world.view)
        return world

    def with_options(self, **options: Any) -> "World":
        """Use other options from here on; returns the world."""
        self.recommender = Recommender(self.artifact, self.view, RecommendOptions(**options))
        return self

    def batch(self, events: Sequence[dict[str, Any]]) -> EventBatch:
        """Return events as columns: user, item, and optional weight, time, scene, id, retracts."""
        size = len(events)
        self._offset += size
        times = np.array([event.get("time", START) for event in events], np.float64)
        return EventBatch(
            topic="events",
            partition=0,
            users=[f"u{event['user']}" for event in events],
            slots=np.array([event["user"] for event in events], np.int64),
            items=np.array(
                [hash_id(event["item"]) if "item" in event else 0 for event in events], np.uint64
            ),
            rows=np.full(size, -1, np.int64),
            times=times,
            appended=times,
            weights=np.array(
                [event.get("weight", 1.0) if "item" in event else 0.0 for event in events],
                np.float32,
            ),
            values=np.full(size, np.nan, np.float32),
            kinds=np.array(
                [kind_code("like") if "item" in event else 0 for event in events], np.uint16
            ),
            scenes=np.array([scene_code(event.get("scene")) for event in events], np.uint32),
            event_ids=np.array(
                [hash_id(event["id"]) if "id" in event else 0 for event in events], np.uint64
            ),
            retracts=np.array(
                [hash_id(event["retracts"]) if "retracts" in event else 0 for event in events],
                np.uint64,
            ),
            offsets=np.arange(self._offset - size, self._offset, dtype=np.int64),
        )

    def send(self, *events: dict[str, Any]) -> Applied:
        """Apply events to users, then what follows from them to the items and the view."""
        applied = self.recommender.update(self.users, self.batch(events))
        self.apply_items(applied.item_events)
        return applied

    def apply_items(self, item_events: NDArray[np.void]) -> None:
        """Apply item events to the item states, and show them in the view."""
        hashes = item_events["item"].tolist()
        slots = np.array(
            [self.item_slots.setdefault(item, len(self.item_slots)) for item in hashes], np.int64
        )
        apply_item_events(self.item_states, slots, item_events)
        changed = np.unique(slots)
        if len(changed):
            by_slot = {slot: item for item, slot in self.item_slots.items()}
            self.view.update(
                self.item_states.pack(changed),
                np.array([by_slot[slot] for slot in changed.tolist()], np.uint64),
            )

    def recommend(
        self,
        users: Sequence[int],
        *,
        now: float | Sequence[float] = START,
        scene: str | None = None,
        k: int = 5,
    ) -> RecommendedBatch:
        """Make lists of users (-1 for one of whom nothing is kept)."""
        return self.recommender.recommend(self.asked(users, now=now, scene=scene), k)

    def asked(
        self,
        users: Sequence[int],
        *,
        now: float | Sequence[float] = START,
        scene: str | None = None,
    ) -> RequestBatch:
        """Return users (-1 for one of whom nothing is kept) to ask something of."""
        size = len(users)
        return RequestBatch(
            self.users,
            np.array(users, np.int64),
            np.array(np.broadcast_to(now, (size,)), np.float64),
            np.full(size, scene_code(scene), np.uint32),
        )

    @property
    def states(self) -> UserStates:
        """The users' states."""
        return self.users.states

    def rows(self, user: int, **arguments: Any) -> list[int]:
        """Return the rows of one user's list, without padding."""
        rows: list[int] = self.recommend([user], **arguments).rows[0].tolist()
        return [row for row in rows if row >= 0]


def likes(
    user: int, items: Sequence[int], *, time: float = START, **more: Any
) -> list[dict[str, Any]]:
    """Return a like of each item by a user, a second apart."""
    return [
        {"user": user, "item": f"i{item}", "time": time + n, **more} for n, item in enumerate(items)
    ]
