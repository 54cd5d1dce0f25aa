"""Item score: one number per item and time, of features that do not depend on the user."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.items.counts import COUNT
from tracker.items.view import ItemColumns, ItemView
from tracker.kernels.native import native
from tracker.scoring.features import fastest_of, rising_value, trend_value
from tracker.scoring.retrieval import TRENDS, ItemScore

Array = NDArray[Any]

_TRENDS = len(TRENDS)
_AGE, _NO_EVENT, _IDLE, _RISING, _RISING_FAST = range(_TRENDS, _TRENDS + 5)


@native
def _score(columns: ItemColumns, weights: Array, knee: float, now: float, out: Array) -> None:
    """Write the item score of each row into `out` (N,); see `ItemScore`."""
    log2_counts, ref_times = columns.log2_counts, columns.ref_times
    first_times, last_times = columns.first_times, columns.last_times
    half_lives = columns.half_lives
    trends = min(len(half_lives), _TRENDS)
    fastest = fastest_of(half_lives)
    for row in range(len(out)):
        if not first_times[row] >= -1e300:  # NaN: never chosen
            out[row] = weights[_NO_EVENT]
            continue
        age = now - ref_times[row]
        total = 0.0
        for h in range(trends):
            if weights[h] != 0.0 and log2_counts[row, h] > -1e30:
                trend = trend_value(log2_counts[row, h], age, half_lives[h])
                total += weights[h] * max(trend - knee, 0.0)
        if weights[_AGE] != 0.0:
            hours = max(now - first_times[row], 0.0) / 3600.0
            total += weights[_AGE] * math.log2(1.0 + hours)
        if weights[_IDLE] != 0.0:
            minutes = max(now - last_times[row], 0.0) / 60.0
            total += weights[_IDLE] * math.log2(1.0 + minutes)
        if weights[_RISING] != 0.0:
            total += weights[_RISING] * rising_value(
                log2_counts[row], half_lives, COUNT.short, COUNT.long, age
            )
        if weights[_RISING_FAST] != 0.0:
            total += weights[_RISING_FAST] * rising_value(
                log2_counts[row], half_lives, fastest, COUNT.short, age
            )
        out[row] = total


def item_scores(view: ItemView, score: ItemScore, now: float) -> NDArray[np.float32]:
    """Return the item score of every catalogue row (N,) float32 at `now`, or one lately made.

    See `ItemView.lately` for how old it may be.
    """

    def make() -> Array:
        out = np.empty(len(view.columns.ref_times), np.float32)
        _score(view.columns, score.weights, score.knee, now, out)
        return out

    scores: NDArray[np.float32] = view.lately(score.key, now, make)
    return scores


@native
def _as_wide(scores: Array, out: Array) -> None:
    for row in range(len(out)):
        out[row] = scores[row]


def best_by_score(view: ItemView, score: ItemScore, now: float, k: int) -> NDArray[np.int64]:
    """Return the live rows of the highest item score at `now`: at most k, best first."""
    scores = item_scores(view, score, now)

    def write(out: Array) -> None:
        _as_wide(scores, out)

    return view.best_rows(("score", *score.key), now, k, write)
