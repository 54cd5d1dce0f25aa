"""Outlook: the interest of a user at later times, by the trained user encoder."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from tracker.artifact.artifact import Artifact
from tracker.events.wire import hash_id, scene_code
from tracker.users.rows import RequestBatch, UserRows
from tracker.users.states import UserStates

HORIZONS_SECONDS = (0.0, 3600.0, 86400.0, 604800.0)
"""Now, in an hour, in a day, in a week."""

CONSIDERED = 100
"""Number of best items that the shares are taken over."""

LABELS, ITEMS = 3, 5


def outlook(
    user_id: str,
    states: UserStates,
    slot: int,
    artifact: Artifact,
    now: float,
    scene: str | None = None,
    horizons_seconds: Sequence[float] = HORIZONS_SECONDS,
) -> list[dict[str, object]]:
    """Return the interest of a user at some times from now, if no event comes until then.

    The encoder's query depends on the time since the last event, so interest changes without a
    write. Shares are the softmax of the items' scores over the best 100.

    Args:
        user_id: id of the user, for attributes.
        states: the users' arrays; a row of another encoder is rebuilt from its ring.
        slot: slot of the user in `states`.
        artifact: ids and labels of items, and the trained encoder.
        now: seconds since the epoch.
        scene: scene of the user, if any.
        horizons_seconds: times from now.

    Returns:
        one entry per time: seconds, the strongest labels with their shares, and the best items;
        [] if no encoder was trained.
    """
    tower = artifact.models.tower
    if tower is None:
        return []
    place = np.array([slot])
    tower.carry_over(states, place, artifact.vectors)
    count = len(horizons_seconds)
    requests = RequestBatch(
        UserRows.of(states),
        np.repeat(place, count),
        now + np.array(horizons_seconds),
        np.full(count, scene_code(scene), np.uint32),
        np.full(count, hash_id(user_id), np.uint64),
    )
    queries = tower.queries(requests)
    rows, scores = tower.index.search(queries, min(CONSIDERED, artifact.vectors.live))
    outlooks: list[dict[str, object]] = []
    for seconds, of_time, values in zip(horizons_seconds, rows, scores, strict=True):
        there = of_time >= 0
        weights = np.exp(values[there] - values[there].max(initial=-np.inf))
        weights /= weights.sum()
        shares: dict[str, float] = defaultdict(float)
        for row, weight in zip(of_time[there].tolist(), weights.tolist(), strict=True):
            shares[artifact.vectors.label(row)] += weight
        best = sorted(shares.items(), key=lambda pair: (-pair[1], pair[0]))[:LABELS]
        outlooks.append(
            {
                "seconds": seconds,
                "labels": [{"label": name, "share": round(share, 6)} for name, share in best],
                "items": [artifact.vectors.ids[row] for row in of_time[there][:ITEMS].tolist()],
            }
        )
    return outlooks
