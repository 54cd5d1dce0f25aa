"""The probability that a user takes to items, from a worker or the changelogs."""

import urllib.parse
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import numpy as np

from tracker.artifact.artifact import Artifact
from tracker.events.wire import scene_code
from tracker.items.view import ItemView
from tracker.lookup.changelogs import StateReader, item_rows, user_row
from tracker.lookup.show import read_json
from tracker.recommend.recommender import Recommender
from tracker.scoring.calibration import Calibration
from tracker.settings import Settings
from tracker.users.rows import RequestBatch, UserRows

BATCH = 4096
"""Item rows that are placed at a time."""


def score_items(
    recommender: Recommender,
    users: UserRows,
    slot: int,
    user_id: str,
    item_ids: Sequence[str],
    now: float,
    scene: str | None = None,
    calibration: Calibration | None = None,
) -> dict[str, object]:
    """Say how probable it is that a user takes to each of some items.

    Args:
        recommender: what serves.
        users: where the user's row is; one of another artifact is carried over.
        slot: its place, -1 for a user of whom nothing is kept.
        user_id: the user.
        item_ids: the items.
        now: seconds since the epoch.
        scene: where.
        calibration: instead of the artifact's own.

    Returns:
        what `json.dumps` takes; a probability is None for an item that is not in the catalogue,
        and for all where the artifact has no trained prediction; `note` says why.
    """
    vectors = recommender.artifact.vectors
    rows = np.array([[vectors.row_of_id(item_id) for item_id in item_ids]], np.int64)
    asked = RequestBatch(
        users,
        np.array([slot], np.int64),
        np.array([now], np.float64),
        np.array([scene_code(scene)], np.uint32),
    )
    found = recommender.probabilities(asked, rows, calibration)[0].tolist()
    trained = recommender.artifact.models.prediction is not None
    return {
        "user_id": user_id,
        "known": slot >= 0,
        "time": now,
        "scene": scene,
        "items": [
            {
                "item_id": item_id,
                "in_catalogue": row >= 0,
                "probability": None if chance != chance else round(chance, 6),
            }
            for item_id, row, chance in zip(item_ids, rows[0].tolist(), found, strict=True)
        ],
        "trained": trained,
        "note": "" if trained else recommender.artifact.manifest.without("prediction"),
        "artifact": recommender.artifact.manifest.version,
    }


def ask_scores(
    url: str, user_id: str, item_ids: Sequence[str], scene: str | None, at: float | None
) -> dict[str, Any] | None:
    """Ask a worker's web server; None where it does not run, or another one has the user.

    Args:
        url: of the server, as http://HOST:PORT.
        user_id: the user.
        item_ids: the items.
        scene: where, if anywhere.
        at: seconds since the epoch; by default the worker's stream time.
    """
    query = [("user", user_id), *(("item", item_id) for item_id in item_ids)]
    query += [("scene", scene)] if scene else []
    query += [("at", repr(at))] if at is not None else []
    return read_json(f"{url.rstrip('/')}/score?{urllib.parse.urlencode(query)}")


async def scores_from_changelogs(
    settings: Settings,
    artifact: Artifact,
    user_id: str,
    item_ids: Sequence[str],
    scene: str | None = None,
    at: float | None = None,
) -> dict[str, object]:
    """Compute scores from the last committed rows: the user's, and those of all items.

    What workers have learned since the artifact was published is not known here.

    Args:
        settings: how to reach the broker.
        artifact: the items and the trained prediction.
        user_id: the user; one without a row is scored as a new one.
        item_ids: the items.
        scene: where, if anywhere.
        at: seconds since the epoch; by default the latest that the rows tell of.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: a changelog does not exist.
        StateFormatError, NewerArtifactError, ArtifactError: as `StateReader.read`.
        ItemStateFormatError: an item's row was written by another version.
    """
    view = ItemView(artifact.vectors)
    items: dict[int, bytes | None] = {}
    async with aclosing(item_rows(settings)) as rows:
        async for item, found in rows:
            items[item] = found
            if len(items) >= BATCH:
                _place(view, items)
    _place(view, items)
    row = await user_row(settings, user_id)
    users = UserRows.of(StateReader(settings, artifact).read([row]))
    if at is None:
        at = max(float(users.states.head["last_time"][0]), float(view.ref_times.max(initial=0.0)))
    recommender = Recommender(artifact, view)
    slot = -1 if row is None else 0
    return score_items(recommender, users, slot, user_id, item_ids, at, scene)


def _place(view: ItemView, items: dict[int, bytes | None]) -> None:
    """Place rows into the view, and forget them here."""
    view.update(list(items.values()), np.array(list(items), np.uint64))
    items.clear()
