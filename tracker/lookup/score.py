"""Scores: the probability of a positive event of a user with items."""

import math
from collections.abc import Sequence

import numpy as np

from tracker.events.wire import scene_code
from tracker.recommend.recommender import Recommender
from tracker.scoring.calibration import Calibration
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
