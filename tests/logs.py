"""Logged events of worlds with known answers, for replay, training and evaluation."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexer.data.histories import EventLog, read_event_log
from tests.worlds import START, checkerboard
from tracker.artifact.artifact import Artifact
from tracker.events.kinds import Kinds
from tracker.items.vectors import ItemVectors
from tracker.users.config import InterestConfig

MINUTE = 60.0


def write_events(path: Path, events: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in events))
    return path


def read_events(folder: Path, events: Sequence[Mapping[str, Any]]) -> EventLog:
    return read_event_log([write_events(folder / "events.jsonl", events)], Kinds.default(), 4e9)


def likes(
    count: int, user: str = "u{n}", item: str = "i{n}", step: float = 60.0, items: int = 40
) -> list[Any]:
    """Return likes of 20 users and some items in turn, `step` seconds apart."""
    return [
        {
            "user_id": user.format(n=n % 20), "item_id": item.format(n=n % items), "kind": "like",
            "timestamp": 1.7e9 + n * step,
        }
        for n in range(count)
    ]  # fmt: skip


def group_events(
    *, users: int = 20, items: int = 40, each: int = 12, groups: int = 2, seed: int = 0
) -> list[dict[str, Any]]:
    """Return likes in time order: a user chooses new items, all of the user's own group."""
    random = np.random.default_rng(seed)
    orders = [random.permutation(np.arange(u % groups, items, groups)) for u in range(users)]
    turns = random.permutation(np.repeat(np.arange(users), each))
    taken = [0] * users
    events = []
    for n, user in enumerate(turns.tolist()):
        events.append(
            {
                "user_id": f"u{user}", "item_id": f"i{orders[user][taken[user]]}", "kind": "like",
                "timestamp": START + n * MINUTE, "scene": ("home", "search")[user % 2],
                "event_id": f"e{n}",
            }
        )  # fmt: skip
        taken[user] += 1
    return events


def group_artifact(items: int = 40, groups: int = 2) -> Artifact:
    """Return an artifact of items "i0", "i1", ... near the axes of their groups."""
    vectors = ItemVectors.make(
        [f"i{n}" for n in range(items)], checkerboard(items, groups=groups), 16
    )
    return Artifact.in_memory(vectors, interest=InterestConfig(dim=16))
