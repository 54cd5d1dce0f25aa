"""Scores: the probability of a positive event of a user with items."""

import math
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
"""Number of item rows that are placed together."""


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
    """Return the probability of a positive event of a user with each of some items.

    Args:
        recommender: recommender in use.
        users: the users' arrays; a row of another artifact is carried over.
        slot: slot of the user, -1 for a user of whom nothing is kept.
        user_id: id of the user.
        item_ids: ids of the items.
        now: seconds since the epoch.
        scene: scene of the user, if any.
        calibration: calibration learned online, in place of the artifact's.

    Returns:
        an object for `json.dumps`; a probability is None for an item that is not in the catalogue,
        and for all items if the artifact has no trained prediction: `note` has the reason.
    """
    vectors = recommender.artifact.vectors
    rows = np.array([[vectors.row_of_id(item_id) for item_id in item_ids]], np.int64)
    requests = RequestBatch(
        users,
        np.array([slot], np.int64),
        np.array([now], np.float64),
        np.array([scene_code(scene)], np.uint32),
    )
    probabilities = recommender.probabilities(requests, rows, calibration)[0].tolist()
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
                "probability": None if math.isnan(probability) else round(probability, 6),
            }
            for item_id, row, probability in zip(
                item_ids, rows[0].tolist(), probabilities, strict=True
            )
        ],
        "trained": trained,
        "note": "" if trained else recommender.artifact.manifest.without("prediction"),
        "artifact": recommender.artifact.manifest.version,
    }


def ask_scores(
    url: str, user_id: str, item_ids: Sequence[str], scene: str | None, at: float | None
) -> dict[str, Any] | None:
    """Request scores from a worker; None if it does not run, or another one has the user.

    Args:
        url: web server of the worker, as http://HOST:PORT.
        user_id: id of the user.
        item_ids: ids of the items.
        scene: scene of the user, if any.
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

    The models that workers learn online are not used.

    Args:
        settings: where the brokers are.
        artifact: items and trained prediction.
        user_id: id of the user; one without a row is scored as a new user.
        item_ids: ids of the items.
        scene: scene of the user, if any.
        at: seconds since the epoch; by default the latest event time of the rows.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: a changelog does not exist.
        StateFormatError, NewerArtifactError, ArtifactError: as `StateReader.read`.
        ItemStateFormatError: an item's row was written by another version.
    """
    view = ItemView(artifact.vectors, artifact.manifest.item_counts)
    items: dict[int, bytes | None] = {}
    async with aclosing(item_rows(settings)) as rows:
        async for item, value in rows:
            items[item] = value
            if len(items) >= BATCH:
                _place(view, items)
    _place(view, items)
    row = await user_row(settings, user_id)
    users = UserRows.of(StateReader(settings, artifact).read([row]))
    if at is None:
        at = max(
            float(users.states.head["last_time"][0]), float(view.columns.ref_times.max(initial=0.0))
        )
    recommender = Recommender(artifact, view)
    slot = -1 if row is None else 0
    return score_items(recommender, users, slot, user_id, item_ids, at, scene)


def _place(view: ItemView, items: dict[int, bytes | None]) -> None:
    """Move rows into the view."""
    view.update(list(items.values()), np.array(list(items), np.uint64))
    items.clear()
