"""Descriptions of a user or an item, for people and programs."""

import json
import logging
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import Any

import numpy as np

from tracker.artifact.artifact import Artifact
from tracker.events.wire import hash_id
from tracker.items.states import ItemStates
from tracker.items.vectors import ItemVectors
from tracker.lookup.changelogs import StateReader, item_rows, user_row
from tracker.lookup.outlook import outlook
from tracker.recommend.carry_over import carry_over
from tracker.settings import Settings
from tracker.users.readings import interest_strengths, shares_of
from tracker.users.states import RING_IN_SUMS, RING_RETRACTED, StateFormatError, UserStates

log = logging.getLogger(__name__)

RECENT_EVENTS = 10
ITEMS_BEHIND = 5
NEIGHBOURS_SHOWN = 10

WARM_HALF_LIVES = 7.0
"""Half-lives after which less than 1 % of an estimate is left in a count."""

WEB_SECONDS = 2.0

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


def describe_item(
    item_id: str,
    states: ItemStates,
    slot: int,
    artifact: Artifact,
    now: float,
    scene_names: Mapping[int, str] = MappingProxyType({}),
) -> dict[str, object]:
    """Describe the state of an item: decayed counts, scenes, and items chosen together with it.

    Args:
        item_id: id of the item.
        states: the items' arrays.
        slot: slot of the item in `states`.
        artifact: ids and labels of items.
        now: time of the counts, in seconds since the epoch.
        scene_names: names by code; a scene without one is shown as `#` and its code.

    Returns:
        an object for `json.dumps`; a half-life of "all" does not decay. `warming` are half-lives
        whose counts are still estimates for the most part, as they are new.
    """
    head = states.head[slot]
    vectors = artifact.vectors
    now = max(now, float(head["ref_time"]))
    age = now - float(head["ref_time"])
    row = vectors.row_of_id(item_id)
    counted = states.counted[slot]
    order = np.argsort(states.half_lives, kind="stable").tolist()
    half_lives = states.half_lives.tolist()
    scenes = states.scenes[slot, : int(head["n_scenes"])]
    near = states.neighbours[slot, : int(head["n_neighbours"])]
    near = near[np.argsort(-near["together"], kind="stable")][:NEIGHBOURS_SHOWN]
    short, long = 0.5 ** (age / half_lives[0]), 0.5 ** (age / half_lives[1])
    return {
        "item_id": item_id,
        "label": vectors.label(row) if row >= 0 else "",
        "in_catalogue": 0 <= row < vectors.live,
        "positives": int(head["positives"]),
        "negatives": int(head["negatives"]),
        "first_event": _finite(float(head["first_time"])),
        "last_event": _finite(float(head["last_time"])),
        "counts": {
            _period(half_lives[h]): _rounded(
                float(counted[h]["count"]) * float(0.5 ** (age / half_lives[h]))
            )
            for h in order
        },
        "warming": [
            _period(half_lives[h])
            for h in order
            if counted[h]["seeded"]
            and now - float(counted[h]["seeded"]) < WARM_HALF_LIVES * half_lives[h]
        ],
        "scenes": [
            {
                "scene": _scene(int(scene["scene"]), scene_names),
                "short": _rounded(float(scene["counts"][0]) * short),
                "long": _rounded(float(scene["counts"][1]) * long),
            }
            for scene in scenes
        ],
        "chosen_together": [
            {
                "item_id": _name(vectors, int(other["item"])),
                "together": _rounded(float(other["together"])),
                "next": _rounded(float(other["next"])),
            }
            for other in near
        ],
        "artifact": artifact.manifest.version,
    }


def _name(vectors: ItemVectors, item: int) -> str:
    row = int(vectors.row_of(np.array([item], dtype=np.uint64))[0])
    return vectors.ids[row] if row >= 0 else f"#{item:016x}"


def _scene(code: int, names: Mapping[int, str]) -> str:
    return names.get(code, f"#{code:08x}") if code else ""


def _rounded(value: float) -> float:
    return round(value, 6)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _period(seconds: float) -> str:
    if math.isinf(seconds):
        return "all"
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def ask_worker(url: str, path: str) -> dict[str, Any] | None:
    """Request a page of a worker; None if it does not run, or has no such user or item.

    Args:
        url: web server of the worker, as http://HOST:PORT.
        path: kind and id, as in `users/42`; the id is not quoted.
    """
    kind, _, name = path.partition("/")
    return read_json(f"{url.rstrip('/')}/{kind}/{urllib.parse.quote(name, safe='')}")


def read_json(target: str) -> dict[str, Any] | None:
    """Return the JSON object at a URL; None for any other answer, and for none."""
    try:
        with urllib.request.urlopen(target, timeout=WEB_SECONDS) as answer:
            content = json.load(answer)
    except (OSError, ValueError):  # HTTPError and URLError are OSErrors
        return None
    return content if isinstance(content, dict) else None


async def user_from_changelog(
    settings: Settings, user_id: str, artifact: Artifact, now: float
) -> dict[str, object] | None:
    """Describe a user from the last committed row in the changelog; None if there is none.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: the changelog does not exist.
        StateFormatError, NewerArtifactError, ArtifactError: as `StateReader.read`.
    """
    row = await user_row(settings, user_id)
    if row is None:
        return None
    reader = StateReader(settings, artifact)
    try:
        states = reader.read([row])
    except StateFormatError as error:
        if UserStates(artifact.manifest.interest, 0, artifact.models.hidden).problem_of(row) != (
            "damaged"
        ):
            raise
        log.error("the row of user %s in the changelog cannot be read: %s", user_id, error)
        empty = describe_user(user_id, reader.read([None]), 0, artifact, now)
        return empty | {"set_aside": True}
    return describe_user(user_id, states, 0, artifact, now)


async def item_from_changelog(
    settings: Settings, item_id: str, artifact: Artifact, now: float
) -> dict[str, object] | None:
    """Describe an item from the last committed row in the changelog; None if there is none.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: the changelog does not exist.
        ItemStateFormatError: the row was written by another version.
    """
    item_hash, row = hash_id(item_id), None
    async with aclosing(item_rows(settings)) as rows:
        async for item, value in rows:
            if item == item_hash:
                row = value
    if row is None:
        return None
    states = ItemStates(1, artifact.manifest.item_counts)
    states.unpack(np.zeros(1, dtype=np.int64), [row])
    return describe_item(item_id, states, 0, artifact, now)
