"""Context of (user, now) for the ranker: what kind of moment this is, the same for every item."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.items.counts import COUNT, DAY
from tracker.items.view import ItemView
from tracker.kernels.native import native
from tracker.scoring.features import FEATURES, trend_value
from tracker.users.readings import Histories
from tracker.users.rows import RequestBatch

Array = NDArray[Any]

CONTEXT = ("gap", "events", "recent_popularity", "recent_age", "recent_trend", "session")
"""The columns, by name; means are over the ring's positive events of known items, .8 an event.

- `gap`: log2 of 1 + minutes since the user's latest event. `events`: log2 of 1 + positive events.
- `recent_popularity`: mean log2 of 1 + the item's count of positive events, as it is now.
- `recent_age`: mean log2 of 1 + hours from the item's first event to the user's.
- `recent_trend`: mean of the feature `trend_1d`, as it is now.
- `session`: log2 of 1 + events within the hour before now.

A user of whom nothing is kept has zeros.
"""

MODELLED = ("encoder", "probability")
"""What trained models say of a candidate; zero without them.

- `encoder`: the item's score by the user encoder less that of the mean user, in nats
  (`Tower.queries` with `Tower.personal`).
- `probability`: the logit of the trained probability that the user takes to the item, before it is
  calibrated (`Prediction.logits`).
"""

LATE = MODELLED
"""Columns that a ranker adds to its score and does not mix with others in its hidden layers.

Found on film ratings: as an input of the hidden layers an encoder's score gains nothing. It is also
known only where the model has not learned from the target itself, so its weight is fitted last.
"""

COLUMNS = FEATURES + CONTEXT + MODELLED
"""What a trained ranker can read of a candidate: features, the user's context, models' scores."""

C_CONTEXT, C_ENCODER = len(FEATURES), len(FEATURES) + len(CONTEXT)
C_PROBABILITY = C_ENCODER + 1

_SESSION_SECONDS = 3600.0


@native
def _fill(
    now: Array, slots: Array, head: Array, ring: Array,
    ring_rows: Array, history: Array, n_history: Array,
    log2_counts: Array, ref_times: Array, first_times: Array, out: Array,
) -> None:  # fmt: skip
    for b in range(len(slots)):
        u = slots[b]
        if u < 0:
            continue
        if head[u]["events"] > 0:
            out[b, 0] = math.log2(1.0 + max(now[b] - head[u]["last_time"], 0.0) / 60.0)
        out[b, 1] = math.log2(1.0 + head[u]["positives"])
        weight = 1.0
        total = 0.0
        popularity = 0.0
        age = 0.0
        trend = 0.0
        session = 0
        for j in range(n_history[b]):
            row = ring_rows[b, history[b, j]]
            time = ring[u, history[b, j]]["time"]
            session += now[b] - time < _SESSION_SECONDS
            if log2_counts[row, COUNT.never] > -1e30:
                popularity += weight * math.log2(1.0 + math.pow(2.0, log2_counts[row, COUNT.never]))
                day = trend_value(log2_counts[row, COUNT.day], now[b] - ref_times[row], DAY)
                trend += weight * day
            if first_times[row] < time:  # not for NaN
                age += weight * math.log2(1.0 + (time - first_times[row]) / 3600.0)
            total += weight
            weight *= 0.8
        if total > 0.0:
            out[b, 2] = popularity / total
            out[b, 3] = age / total
            out[b, 4] = trend / total
        out[b, 5] = math.log2(1.0 + session)


def read_context(
    histories: Histories, requests: RequestBatch, view: ItemView
) -> NDArray[np.float32]:
    """Return CONTEXT of B users at the times of their requests: (B, len(CONTEXT)) float32."""
    states = requests.states
    out = np.zeros((len(requests), len(CONTEXT)), np.float32)
    _fill(
        requests.now, requests.slots, states.head, states.ring,
        histories.ring_rows, histories.history, histories.n_history,
        view.log2_counts, view.ref_times, view.first_times, out,
    )  # fmt: skip
    return out
