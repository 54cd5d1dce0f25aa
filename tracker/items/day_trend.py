"""The trend of an item over the last day, estimated from its decayed counts."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DAY_SECONDS = 86400.0


class Stretch(NamedTuple):
    """A stretch of time before now, in seconds ago, and the events in it."""

    start: float
    end: float
    events: float


def day_trend(
    counts: NDArray[np.float64], half_lives: NDArray[np.float64], age: float
) -> list[Stretch]:
    """Estimate the events of each stretch of the last day from decayed counts.

    A decayed count weighs each stretch of the past in its own way, so counts of several half-lives
    tell apart as many stretches. They begin at the half-lives, and in each the rate of events is
    taken to be even. The fit is that of least squares, by relative error; stretches whose events
    would be negative have none, one after the other, the most negative first.

    Args:
        counts: (H,) decayed counts of positive events now.
        half_lives: (H,) seconds; infinite for one that does not decay.
        age: seconds since the first event.

    Returns:
        the stretches of the last day, the oldest first; none if nothing was counted.
    """
    order = np.argsort(half_lives, kind="stable")
    counts, half_lives = counts[order], half_lives[order]
    if not counts.max(initial=0.0) > 0.0:
        return []
    inner = [float(one) for one in half_lives if one < DAY_SECONDS]
    edges = [0.0, *inner, DAY_SECONDS]
    beyond = [float(one) for one in half_lives if DAY_SECONDS < one < age]
    ends = [*edges[1:], *beyond]
    starts = [*edges[:-1], *([DAY_SECONDS, *beyond] if age > DAY_SECONDS else [])]
    ends += [age] if age > DAY_SECONDS else []
    weights = np.array(
        [
            [_weight(start, end, half_life) for start, end in zip(starts, ends, strict=True)]
            for half_life in half_lives.tolist()
        ]
    )
    scale = 1.0 / np.maximum(counts, 1e-3 * counts.max())
    weights, target = weights * scale[:, None], counts * scale
    lengths = np.array(ends) - np.array(starts)
    weights = weights / lengths  # of one event of each stretch
    events = np.zeros(len(starts))
    free = np.ones(len(starts), np.bool_)
    while free.any():
        events[:] = 0.0
        events[free] = np.linalg.lstsq(weights[:, free], target, rcond=None)[0]
        if not events.min() < 0.0:
            break
        free[int(np.argmin(events))] = False
    else:
        events[:] = 0.0
    return [
        Stretch(start, end, float(number))
        for start, end, number in zip(starts, ends, events.tolist(), strict=True)
        if end <= DAY_SECONDS
    ][::-1]


def _weight(start: float, end: float, half_life: float) -> float:
    """Return what is left of a rate of 1 a second over a stretch, in seconds."""
    if math.isinf(half_life):
        return end - start
    scale = half_life / math.log(2.0)
    return float(scale * (2.0 ** (-start / half_life) - 2.0 ** (-end / half_life)))
