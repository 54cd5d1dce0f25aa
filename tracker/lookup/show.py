"""Descriptions of a user, for people and programs."""

import math
from typing import Any

import numpy as np

from tracker.artifact.artifact import Artifact
from tracker.items.item_map import map_places
from tracker.items.vectors import ItemVectors
from tracker.lookup.outlook import outlook
from tracker.recommend.carry_over import carry_over
from tracker.users.readings import interest_strengths, shares_of
from tracker.users.states import RING_IN_SUMS, RING_RETRACTED, UserStates

RECENT_EVENTS = 10
ITEMS_BEHIND = 5
NEIGHBOURS_SHOWN = 10

COUNTERS = (
    "events",
    "positives",
    "negatives",
    "unknown",
    "retracted",
    "too_old",
    "duplicates",
)


def describe_user(
    user_id: str, states: UserStates, slot: int, artifact: Artifact, now: float
) -> dict[str, object]:
    """Describe the state of a user, in names instead of hashes.

    An item that is not in the catalogue is shown as `#` and its hash. The items behind an interest
    are those of the ring whose vector is nearer to it than to any other interest.

    Args:
        user_id: id of the user.
        states: the users' arrays; a row of another artifact is carried over.
        slot: slot of the user in `states`.
        artifact: ids, labels and vectors of items.
        now: time of ages and strengths, in seconds since the epoch.

    Returns:
        an object for `json.dumps`: counts, first and last event, interests (strongest first,
        `change` as in a recommendation), recent events (latest first), and the `outlook` if an
        encoder was trained.
    """
    carry_over(states, np.array([slot]), artifact)
    head = states.head[slot]
    vectors = artifact.vectors
    now = max(now, float(head["last_time"]))
    ring = states.ring[slot, : int(head["n_ring"])]
    description: dict[str, object] = {
        "user_id": user_id,
        **{name: int(head[name]) for name in COUNTERS},
        "first_event": float(head["first_time"]),
        "last_event": float(head["last_time"]),
        "last_event_age_seconds": now - float(head["last_time"]),
        "last_offset": int(head["last_offset"]),
        "evicted": int(head["evicted"]),
        "artifact": artifact.manifest.version,
    }
    description["interests"] = _interests(states, slot, vectors, ring, now)
    description["recent"] = [
        {
            "item_id": _name(vectors, int(entry["item"])),
            "time": float(entry["time"]),
            "age_seconds": now - float(entry["time"]),
            "weight": _rounded(float(entry["weight"])),
            "retracted": bool(int(entry["flags"]) & RING_RETRACTED),
        }
        for entry in ring[::-1][:RECENT_EVENTS]
    ]
    if artifact.models.tower is not None:
        description["outlook"] = outlook(user_id, states, slot, artifact, now)
    return description


def _interests(
    states: UserStates, slot: int, vectors: ItemVectors, ring: np.ndarray[Any, Any], now: float
) -> list[dict[str, object]]:
    count = int(states.head[slot]["n_slots"])
    strengths, changes = interest_strengths(
        states, np.array([slot], dtype=np.int64), np.array([now], dtype=np.float64)
    )
    shares, moved = shares_of(strengths, changes)
    means = states.interest_means[slot, :count].astype(np.float32)  # (S, D)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    behind = _items_behind(vectors, ring, means)
    places: list[list[float | None]] = [[None, None]] * count
    if len(vectors.map_projection):
        places = np.round(map_places(vectors.map_projection, means).astype(np.float64), 4).tolist()
    order = sorted(range(count), key=lambda number: -float(strengths[0, number]))
    interests: list[dict[str, object]] = []
    for number in order:
        interest = states.interest_heads[slot, number]
        medoid = int(vectors.row_of(np.array([interest["medoid"]], dtype=np.uint64))[0])
        interests.append(
            {
                "label": vectors.label(medoid) if medoid >= 0 else "",
                "strength": _rounded(float(shares[0, number])),
                "change": _rounded(float(moved[0, number])),
                "age_seconds": now - float(interest["born"]),
                "events": int(interest["events"]),
                "typical_item": _name(vectors, int(interest["medoid"])),
                "items": behind[number],
                "x": places[number][0],
                "y": places[number][1],
            }
        )
    return interests


def _items_behind(
    vectors: ItemVectors, ring: np.ndarray[Any, Any], means: np.ndarray[Any, Any]
) -> list[list[str]]:
    """The latest items of the ring by the interest (S, D) they are nearest to."""
    behind: list[list[str]] = [[] for _ in range(len(means))]
    if not len(means):
        return behind
    for entry in ring[::-1]:
        flags = int(entry["flags"])
        if not flags & RING_IN_SUMS or flags & RING_RETRACTED or entry["weight"] <= 0:
            continue
        row = int(vectors.row_of(np.array([entry["item"]], dtype=np.uint64))[0])
        if row < 0 or not vectors.vectors[row].any():
            continue
        items = behind[int(np.argmax(means @ vectors.vectors[row]))]
        if vectors.ids[row] not in items and len(items) < ITEMS_BEHIND:
            items.append(vectors.ids[row])
    return behind


def _name(vectors: ItemVectors, item: int) -> str:
    row = int(vectors.row_of(np.array([item], dtype=np.uint64))[0])
    return vectors.ids[row] if row >= 0 else f"#{item:016x}"


def _rounded(value: float) -> float:
    return round(value, 6)


def period(seconds: float) -> str:
    """Return a half-life as text: hours, days, or all."""
    if math.isinf(seconds):
        return "all"
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"
