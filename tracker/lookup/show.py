"""What is known of a user or an item, for people and programs."""

import json
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
from tracker.items.counts import ITEM_HALF_LIVES
from tracker.items.states import ItemStates
from tracker.items.vectors import ItemVectors
from tracker.lookup.changelogs import StateReader, item_rows, user_row
from tracker.lookup.outlook import outlook
from tracker.recommend.carry_over import carry_over
from tracker.settings import Settings
from tracker.users.readings import interest_strengths, shares_of
from tracker.users.states import RING_IN_SUMS, RING_RETRACTED, UserStates

RECENT_EVENTS = 10
ITEMS_BEHIND = 5
NEIGHBOURS_SHOWN = 10
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
    """Say what a state row holds, in names instead of hashes.

    An item that the catalogue lacks is shown as `#` and its hash. The items behind an interest are
    those of the ring whose vector is nearest to it of all interests.

    Args:
        user_id: whose row it is.
        states: where it is; a row of another artifact is carried over.
        slot: its place in `states`.
        artifact: names, labels and vectors of items.
        now: seconds since the epoch that ages and strengths are told for.

    Returns:
        what `json.dumps` takes: counts, first and last event, interests (strongest first, `change`
        as in a recommendation), recent events (latest first), and with a trained encoder the
        `outlook`.
    """
    carry_over(states, np.array([slot]), artifact)
    head = states.head[slot]
    vectors = artifact.vectors
    now = max(now, float(head["last_time"]))
    ring = states.ring[slot, : int(head["n_ring"])]
    found: dict[str, object] = {
        "user_id": user_id,
        **{name: int(head[name]) for name in COUNTERS},
        "first_event": float(head["first_time"]),
        "last_event": float(head["last_time"]),
        "last_event_age_seconds": now - float(head["last_time"]),
        "last_offset": int(head["last_offset"]),
        "evicted": int(head["evicted"]),
        "artifact": artifact.manifest.version,
    }
    found["interests"] = _interests(states, slot, vectors, ring, now)
    found["recent"] = [
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
        found["outlook"] = outlook(user_id, states, slot, artifact, now)
    return found


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
    found: list[dict[str, object]] = []
    for number in order:
        interest = states.interest_heads[slot, number]
        medoid = int(vectors.row_of(np.array([interest["medoid"]], dtype=np.uint64))[0])
        found.append(
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
    return found


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
        if row < 0:
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
    """Say what is known of an item: decayed counts, scenes, and what is chosen with it.

    Args:
        item_id: whose row it is.
        states: where it is.
        slot: its place in `states`.
        artifact: names of items.
        now: seconds since the epoch that counts are told for.
        scene_names: names by code; a scene without one is shown as `#` and its code.

    Returns:
        what `json.dumps` takes; a half-life of "all" does not decay.
    """
    head = states.head[slot]
    vectors = artifact.vectors
    now = max(now, float(head["ref_time"]))
    age = now - float(head["ref_time"])
    row = vectors.row_of_id(item_id)
    half_lives = [float(value) for value in ITEM_HALF_LIVES]
    scenes = states.scenes[slot, : int(head["n_scenes"])]
    near = states.neighbours[slot, : int(head["n_neighbours"])]
    near = near[np.argsort(-near["together"], kind="stable")][:NEIGHBOURS_SHOWN]
    day, ten_days = 0.5 ** (age / 86400.0), 0.5 ** (age / 864000.0)
    return {
        "item_id": item_id,
        "label": vectors.label(row) if row >= 0 else "",
        "in_catalogue": 0 <= row < vectors.live,
        "positives": int(head["positives"]),
        "negatives": int(head["negatives"]),
        "first_event": _finite(float(head["first_time"])),
        "last_event": _finite(float(head["last_time"])),
        "counts": {
            _period(half_life): _rounded(
                float(count) * (1.0 if math.isinf(half_life) else 0.5 ** (age / half_life))
            )
            for half_life, count in zip(half_lives, head["counts"], strict=True)
        },
        "scenes": [
            {
                "scene": _scene(int(scene["scene"]), scene_names),
                "day": _rounded(float(scene["counts"][0]) * day),
                "ten_days": _rounded(float(scene["counts"][1]) * ten_days),
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
    return f"{seconds / 86400:g}d" if seconds >= 86400 else f"{seconds / 3600:g}h"


def ask_worker(url: str, path: str) -> dict[str, Any] | None:
    """Ask a worker's web server; None where it does not run or does not know.

    Args:
        url: of the server, as http://HOST:PORT.
        path: as `users` and the id, each part unquoted.
    """
    kind, _, name = path.partition("/")
    return read_json(f"{url.rstrip('/')}/{kind}/{urllib.parse.quote(name, safe='')}")


def read_json(target: str) -> dict[str, Any] | None:
    """Return the object that an address answers with; None for anything else, and for nothing."""
    try:
        with urllib.request.urlopen(target, timeout=WEB_SECONDS) as answer:
            found = json.load(answer)
    except (OSError, ValueError):  # HTTPError and URLError are OSErrors
        return None
    return found if isinstance(found, dict) else None


async def user_from_changelog(
    settings: Settings, user_id: str, artifact: Artifact, now: float
) -> dict[str, object] | None:
    """Read a user's last committed row from the changelog; None where there is none.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: the changelog does not exist.
        StateFormatError, NewerArtifactError, ArtifactError: as `StateReader.read`.
    """
    row = await user_row(settings, user_id)
    if row is None:
        return None
    states = StateReader(settings, artifact).read([row])
    return describe_user(user_id, states, 0, artifact, now)


async def item_from_changelog(
    settings: Settings, item_id: str, artifact: Artifact, now: float
) -> dict[str, object] | None:
    """Read an item's last committed row from the changelog; None where there is none.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: the changelog does not exist.
        ItemStateFormatError: the row was written by another version.
    """
    wanted, row = hash_id(item_id), None
    async with aclosing(item_rows(settings)) as rows:
        async for item, found in rows:
            if item == wanted:
                row = found
    if row is None:
        return None
    states = ItemStates(1)
    states.unpack(np.zeros(1, dtype=np.int64), [row])
    return describe_item(item_id, states, 0, artifact, now)
