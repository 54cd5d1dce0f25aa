"""The rates at which an item was chosen in the past, as its decayed counts tell them."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

QUARTERS = (0.25, 0.5, 0.75)

_HALVINGS = 60


class Rate(NamedTuple):
    """A mean rate of events, and the ages, in seconds, between which half of its weight lies.

    A quarter of the weight is of events later than `start` ago, a half later than `middle` ago,
    and three quarters later than `end` ago.
    """

    start: float
    middle: float
    end: float
    per_second: float


def past_rates(counts: NDArray[np.float64], half_lives: NDArray[np.float64]) -> list[Rate]:
    """Return the rates of events in the past that decayed counts give exactly.

    A count with half-life h weighs an event of age t by 2^(-t / h). The difference of two counts
    weighs it by 2^(-t / longer) - 2^(-t / shorter): a weight that is never negative, rises, and
    falls again. Over its sum of (longer - shorter) / ln 2 it is a mean rate around that age. So
    each rate is a weighted mean of the true one, without a guess about what lies between.

    Args:
        counts: (H,) decayed counts of events now.
        half_lives: (H,) seconds, distinct; one that is infinite tells no rate and is left out.

    Returns:
        a rate for each finite half-life, the oldest first; none if nothing was counted.
    """
    order = np.argsort(half_lives, kind="stable")
    order = order[np.isfinite(half_lives[order])]
    if not counts.max(initial=0.0) > 0.0:
        return []
    rates, shorter, least = [], 0.0, 0.0
    for longer, count in zip(half_lives[order].tolist(), counts[order].tolist(), strict=True):
        ages = [_age(shorter, longer, share) for share in QUARTERS]
        # Counts are rounded, so a difference of two may fall a little below nothing.
        per_second = max(count - least, 0.0) * math.log(2.0) / (longer - shorter)
        rates.append(Rate(ages[0], ages[1], ages[2], per_second))
        shorter, least = longer, count
    return rates[::-1]


def _age(shorter: float, longer: float, share: float) -> float:
    """Return the age at which a share of the weight of a difference of two counts lies below."""
    low, high = 0.0, 64.0 * longer
    for _ in range(_HALVINGS):
        middle = (low + high) / 2.0
        weight = longer * (1.0 - 2.0 ** (-middle / longer))
        if shorter > 0.0:
            weight -= shorter * (1.0 - 2.0 ** (-middle / shorter))
        low, high = (middle, high) if weight < share * (longer - shorter) else (low, middle)
    return high
