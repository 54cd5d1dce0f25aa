"""The scale of ratings, told by their distribution; their extremes alone are often mistakes."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.events.kinds import NOT_RATED

USUAL: tuple[float, float] = (1.0, 5.0)
"""The scale without any rating."""

FEW = 0.03
"""Largest share of ratings beyond the scale that is taken for mistakes; more is a warning."""

_MISTAKES = 0.01
_LOWEST = 0.005
"""Shares of ratings above, and below, a scale that do not make it longer."""

_MANY = 100
"""Number of ratings from which a short scale, such as 1 to 3, can be told from a usual one."""

_NAMED = 3


class RatingScale(NamedTuple):
    """The scale of ratings: lowest, highest, and a line for people that tells why.

    Attributes:
        low: the lowest rating.
        high: the highest rating.
        beyond: number of ratings outside.
        rated: number of ratings.
        unrated: number of values that say "not rated".
        note: the scale, its reason and what lies outside; "" without a rating.
    """

    low: float
    high: float
    beyond: int = 0
    rated: int = 0
    unrated: int = 0
    note: str = ""

    @property
    def share_beyond(self) -> float:
        """The share of ratings that lie outside."""
        return self.beyond / self.rated if self.rated else 0.0


def rating_scale(
    ratings: NDArray[np.floating],
    before: tuple[float, float] | None = None,
    fixed: tuple[float, float] | None = None,
    fixed_by: str = "as given",
) -> RatingScale:
    """Choose the scale of ratings.

    1. A scale that is fixed stays. The one in use before stays if the ratings lie in it, all but a
       few mistakes.
    2. Otherwise it is the shortest usual scale that holds all ratings but a few: up to 1, 5, 10 or
       100; many ratings may also show one up to 2, 3, 4, 7 or 20. It begins at 1, at 0.5, 0 or
       below if more than a few ratings lie there.
    3. A value of -1 says "not rated", unless the scale begins there.

    Args:
        ratings: (R,) as in the events; NaN for none.
        before: the scale in use, None for none.
        fixed: the scale that stays whatever the ratings are, None for none.
        fixed_by: words for the note that tell where it comes from.

    >>> rating_scale(np.array([0.0, 1.0] * 400))[:2]
    (0.0, 1.0)
    >>> rating_scale(np.array([1.0, 3, 4, 5, 5] * 100 + [55.0]))[:3]
    (1.0, 5.0, 1)
    """
    finite = np.asarray(ratings, np.float64)
    finite = finite[np.isfinite(finite)]
    missing = finite == NOT_RATED
    stars = finite[~missing]
    if fixed is not None:
        missing &= fixed[0] > NOT_RATED
    elif len(stars) == 0 or _is_opinion(stars, missing):
        missing &= False
    stars = finite[~missing]
    if not len(stars):
        low, high = fixed or before or USUAL
        return RatingScale(low, high, unrated=int(missing.sum()))
    if fixed is not None:
        (low, high), why = fixed, fixed_by
    elif before is not None and _beyond(stars, *before) <= _MISTAKES / 2 * len(stars):
        (low, high), why = before, "as before"
    else:
        low, high = _told(stars)
        why = "from the distribution"
    beyond = _beyond(stars, low, high)
    note = f"ratings: scale {low:g} to {high:g}, {why}: {_frequent(stars)}"
    if beyond:
        outside = np.unique(stars[(stars < low) | (stars > high)])
        examples = ", ".join(f"{value:g}" for value in outside[:_NAMED])
        more = ", ..." if len(outside) > _NAMED else ""
        note += (
            f"; {beyond:,} of {len(stars):,} ({beyond / len(stars):.1%}) lie outside"
            f" ({examples}{more}) and are cut"
        )
        if beyond > FEW * len(stars):
            note += ": more than a few, so check the scale, and name it with --rating-scale"
    if missing.any():
        note += f"; {int(missing.sum()):,} of {NOT_RATED:g} are taken as not rated"
    return RatingScale(low, high, beyond, len(stars), int(missing.sum()), note)


def _is_opinion(stars: NDArray[np.float64], missing: NDArray[np.bool_]) -> bool:
    """Return whether -1 is the lowest rating of a scale, and does not say "not rated"."""
    negative = (stars < 0.0).mean() > _LOWEST
    return bool(negative or (stars.max() <= 1.0 and missing.mean() >= _MISTAKES))


def _beyond(stars: NDArray[np.float64], low: float, high: float) -> int:
    return int(((stars < low) | (stars > high)).sum())


def _told(stars: NDArray[np.float64]) -> tuple[float, float]:
    """Return the scale that the distribution of R ratings tells."""
    count, top = len(stars), float(stars.max())
    few = int(_MISTAKES * count) if count >= _MANY else int(count >= 20)
    low_few = int(_LOWEST * count)

    def holds(high: float) -> bool:
        return int((stars > high).sum()) <= few

    ones = not (stars < 1.0).any() and count < 20  # a handful of ones is no scale of its own
    high = next((h for h in (1.0, 5.0, 10.0, 100.0) if holds(h) and not (h == 1.0 and ones)), None)
    if high is None:
        low, high = (float(v) for v in np.quantile(stars, (_MISTAKES, 1.0 - _MISTAKES)))
        return math.floor(min(low, 0.0)), math.ceil(high)
    if count >= _MANY:
        shorter = {5.0: (2.0, 3.0, 4.0), 10.0: (7.0,), 100.0: (20.0,)}.get(high, ())
        high = next((h for h in shorter if top <= h and (stars == h).sum() > few), high)
    below = stars[stars < 1.0]
    if high == 1.0:
        return (-1.0 if (stars < 0.0).sum() > low_few else 0.0), 1.0
    if (stars < 0.0).sum() > low_few:
        return -high, high
    if high in (10.0, 100.0) and (len(below) or count < 2 * _MANY or high == 100.0):
        return 0.0, high
    if len(below) <= low_few:
        return 1.0, high
    return (0.5 if (below < 0.5).sum() <= low_few else 0.0), high


def _frequent(stars: NDArray[np.float64]) -> str:
    """Return the most frequent ratings with their shares, for people."""
    values, counts = np.unique(stars, return_counts=True)
    most = np.argsort(-counts, kind="stable")[:_NAMED]
    named = ", ".join(f"{values[n]:g} ({counts[n] / len(stars):.0%})" for n in most)
    return f"{len(stars):,} ratings, most often {named}"
