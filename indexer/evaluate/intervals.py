"""Intervals of metrics, 95 %, by bootstrap over users.

A user's targets are drawn together, for they are not independent.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from indexer.evaluate.metrics import BINS, Flags, Floats, Integers

RESAMPLES, AREA_RESAMPLES = 1000, 200
"""Bootstrap resamples of an interval, and of that of an AUC, which is slower."""

_LEVEL = 0.95
_CHUNK_BYTES = 64 << 20
_AT_ONCE = 1 << 16
"""Users drawn at once, for all resamples together: numpy takes longer to be called than to draw."""


class Interval(NamedTuple):
    """A 95 % interval; NaN on both sides if there are fewer than two users."""

    low: float
    high: float


def mean_interval(
    values: Floats, users: Integers, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """Return the interval of a mean over targets.

    Args:
        values: (n,) one per target.
        users: (n,) user of each target; any codes.
        seed: of the resampling.
        resamples: number of resamples.
    """
    return ratio_intervals(values[:, None], np.ones((len(values), 1)), users, seed, resamples)[0]


def paired_interval(
    values: Floats, others: Floats, users: Integers, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """Return the interval of the mean of `values - others`, target by target."""
    return mean_interval(values - others, users, seed, resamples)


def ratio_intervals(
    parts: Floats, wholes: Floats, users: Integers, seed: int, resamples: int = RESAMPLES
) -> list[Interval]:
    """Return the intervals of M ratios of sums over the same targets, as of weighted means.

    A resample in which the whole is 0 has no ratio and is left out.

    Args:
        parts: (n, M) summands of the numerators, a line per target.
        wholes: (n, M) summands of the denominators.
        users: (n,) user of each target; any codes.
        seed: of the resampling.
        resamples: number of resamples.
    """
    codes, count = _groups(users)
    above, below = _sums(parts, codes, count), _sums(wholes, codes, count)

    def ratios(draws: Floats) -> Floats:
        whole = draws @ below
        return np.where(whole > 0.0, (draws @ above) / np.where(whole > 0.0, whole, 1.0), math.nan)

    return _bootstrap(count, ratios, seed, resamples, parts.shape[1])


def auc_interval(
    labels: Flags, scores: Floats, users: Integers, seed: int, resamples: int = AREA_RESAMPLES
) -> Interval:
    """Return the interval of the AUC over all events."""
    codes, count = _groups(users)
    order = np.argsort(scores, kind="stable")
    ordered, positive, codes = scores[order], labels[order], codes[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(order) else order

    def areas(draws: Floats) -> Floats:
        areas_of = np.full((len(draws), 1), math.nan)
        for n, weights in enumerate(draws):
            weight = weights[codes]
            ups = np.add.reduceat(np.where(positive, weight, 0.0), starts)
            downs = np.add.reduceat(np.where(positive, 0.0, weight), starts)
            total = ups.sum() * downs.sum()
            if total > 0.0:
                areas_of[n] = (ups * (np.cumsum(downs) - downs / 2.0)).sum() / total
        return areas_of

    return _bootstrap(count, areas, seed, resamples, 1)[0]


def ece_interval(
    labels: Flags,
    probabilities: Floats,
    users: Integers,
    seed: int,
    bins: int = BINS,
    resamples: int = RESAMPLES,
) -> Interval:
    """Return the interval of the calibration error in fixed bins; noise raises both sides."""
    codes, count = _groups(users)
    misses = np.zeros((count, bins))
    order = np.argsort(probabilities, kind="stable")
    for n, part in enumerate(np.array_split(order, bins)):
        np.add.at(misses[:, n], codes[part], probabilities[part] - labels[part])
    sizes = np.bincount(codes, minlength=count).astype(np.float64)

    def errors(draws: Floats) -> Floats:
        return np.asarray(np.abs(draws @ misses).sum(axis=1) / (draws @ sizes))[:, None]

    return _bootstrap(count, errors, seed, resamples, 1)[0]


def _bootstrap(
    users: int, statistics: Callable[[Floats], Floats], seed: int, resamples: int, count: int
) -> list[Interval]:
    """Return the intervals of `count` statistics, (R, count) of draws (R, users)."""
    if users < 2:
        return [Interval(math.nan, math.nan)] * count
    generator = np.random.default_rng(seed)
    at_once = max(1, min(resamples, _CHUNK_BYTES // (8 * users)))
    parts = []
    for start in range(0, resamples, at_once):
        draws = np.empty((min(at_once, resamples - start), users))
        _draw(generator, draws)
        parts.append(statistics(draws))
    edge = (1.0 - _LEVEL) / 2.0
    intervals = []
    for column in np.concatenate(parts).T:
        defined = column[~np.isnan(column)]
        low, high = (
            np.quantile(defined, [edge, 1.0 - edge]) if len(defined) else (math.nan, math.nan)
        )
        intervals.append(Interval(float(low), float(high)))
    return intervals


def _draw(generator: np.random.Generator, draws: Floats) -> None:
    """Fill draws (R, users): how often each user is drawn in each of R resamples."""
    users = draws.shape[1]
    some = max(1, _AT_ONCE // users)
    for start in range(0, len(draws), some):
        part = draws[start : start + some]
        choices = generator.integers(0, users, part.shape)
        choices += users * np.arange(len(part))[:, None]
        part[:] = np.bincount(choices.ravel(), minlength=part.size).reshape(part.shape)


def _sums(values: Floats, codes: Integers, count: int) -> Floats:
    """Return the sums (count, M) of the lines (n, M) of each code, in their order."""
    sums = [np.bincount(codes, column, count) for column in values.T]
    return np.stack(sums, axis=1) if sums else np.zeros((count, 0))


def _groups(users: Integers) -> tuple[Integers, int]:
    """Return a code for each target's user, and the number of users."""
    unique, codes = np.unique(users, return_inverse=True)
    return codes, len(unique)
