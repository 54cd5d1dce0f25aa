"""Context of (user, now) for the ranker: what kind of moment this is, the same for every item."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.items.counts import COUNT
from tracker.items.view import ItemColumns, ItemView
from tracker.kernels.native import native
from tracker.scoring.features import FEATURES, trend_value
from tracker.users.columns import RequestColumns, RowColumns, rows_of
from tracker.users.readings import Histories
from tracker.users.rows import RequestBatch

Array = NDArray[Any]


class _ContextColumns(NamedTuple):
    gap: int = 0
    events: int = 1
    recent_popularity: int = 2
    recent_age: int = 3
    recent_trend: int = 4
    session: int = 5


_AT = _ContextColumns()

CONTEXT = _ContextColumns._fields
"""The columns, by name; means are over the ring's positive events of known items, .8 an event.

- `gap`: log2 of 1 + minutes since the user's latest event. `events`: log2 of 1 + positive events.
- `recent_popularity`: mean log2 of 1 + the item's count of positive events, as it is now.
- `recent_age`: mean log2 of 1 + hours from the item's first event to the user's.
- `recent_trend`: mean of the feature `trend_short`, as it is now.
- `session`: log2 of 1 + events within the hour before now.

A user of whom nothing is kept has zeros.
"""

MODELLED = ("encoder", "probability", "item_weights")
"""What trained models say of a candidate; zero without them.

- `encoder`: the item's score by the user encoder less that of the mean user, in nats
  (`Tower.queries` with `Tower.personal`).
- `probability`: the logit of the trained probability of a positive event on the item, before it is
  calibrated (`Prediction.logits`).
- `item_weights`: log2(1 + 64 x), x the sum of the fitted weights of the user's items of the ring
  for this one, older events less (`weigh_rows`).
"""

LATE = MODELLED
"""Columns that a ranker adds to its score and does not mix with others in its hidden layers.

Found on film ratings: as an input of the hidden layers an encoder's score gains nothing. It is also
known only where the model has not learned from the target itself, so its weight is fitted last.
"""

COLUMNS = FEATURES + CONTEXT + MODELLED
"""What a trained ranker can read of a candidate: features, the user's context, models' scores."""

C_CONTEXT = COLUMNS.index(CONTEXT[0])
C_ENCODER, C_PROBABILITY, C_ITEM_WEIGHTS = (COLUMNS.index(name) for name in MODELLED)

_SESSION_SECONDS = 3600.0


@native
def _fill(
    requests: RequestColumns,
    users: RowColumns,
    histories: Histories,
    items: ItemColumns,
    out: Array,
) -> None:
    """Write CONTEXT of B users into zeros (B, len(CONTEXT))."""
    log2_counts, ref_times, first_times = items.log2_counts, items.ref_times, items.first_times
    short_half_life = items.half_lives[COUNT.short]
    for b in range(len(out)):
        u = requests.slots[b]
        now = requests.now[b]
        x = out[b]
        if u < 0:
            continue
        head = users.head[u]
        if head["events"] > 0:
            x[_AT.gap] = math.log2(1.0 + max(now - head["last_time"], 0.0) / 60.0)
        x[_AT.events] = math.log2(1.0 + head["positives"])
        weight = 1.0
        total = 0.0
        popularity = 0.0
        age = 0.0
        trend = 0.0
        session = 0
        for j in range(histories.n_history[b]):
            place = histories.history[b, j]
            row = histories.ring_rows[b, place]
            time = users.ring[u, place]["time"]
            session += now - time < _SESSION_SECONDS
            if log2_counts[row, COUNT.never] > -1e30:
                count = math.pow(2.0, log2_counts[row, COUNT.never])
                popularity += weight * math.log2(1.0 + count)
                trend += weight * trend_value(
                    log2_counts[row, COUNT.short], now - ref_times[row], short_half_life
                )
            if first_times[row] < time:  # not for NaN
                age += weight * math.log2(1.0 + (time - first_times[row]) / 3600.0)
            total += weight
            weight *= 0.8
        if total > 0.0:
            x[_AT.recent_popularity] = popularity / total
            x[_AT.recent_age] = age / total
            x[_AT.recent_trend] = trend / total
        x[_AT.session] = math.log2(1.0 + session)


def read_context(
    histories: Histories, requests: RequestBatch, view: ItemView
) -> NDArray[np.float32]:
    """Return CONTEXT of B users: (B, len(CONTEXT)) float32."""
    out = np.zeros((len(requests), len(CONTEXT)), np.float32)
    _fill(requests.columns, rows_of(requests.states), histories, view.columns, out)
    return out
