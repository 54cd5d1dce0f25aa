"""Weights of a linear score of candidates, of least cross-entropy: a convex problem."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]

CandidatesOf = Callable[[slice], tuple[Array, Array]]
"""Takes some of Q targets, and returns the values (q, C, D) and offsets (q, C) of candidates."""

CHUNK = 256
"""Targets at a time, so that the memory does not grow with their number."""

MOST_STEPS, MOST_HALVINGS = 40, 12

ENOUGH = 1e-5
"""Nats that a step has to gain for another one, which would gain about the square of it."""


class _Point(NamedTuple):
    """Loss, gradient (D,) and second derivatives (D, D) at some weights."""

    loss: float
    gradient: Floats
    curvature: Floats


def fit_linear(
    candidates_of: CandidatesOf,
    targets: int,
    start: Floats,
    penalty: float = 0.0,
    shares: Array | None = None,
) -> Floats:
    """Return the weights (D,) of least mean cross-entropy, by Newton's method with halved steps.

    The score of a candidate is the inner product of its values with the weights, plus its offset,
    -inf for an empty place. No rate, no seed and no early stop are needed.

    Args:
        candidates_of: the candidates of some targets.
        targets: Q.
        start: (D,) the weights to begin with.
        penalty: of squared weights.
        shares: (Q, C) the distribution that is asked for; by default the first candidate's is 1.
    """
    weights = start.astype(np.float64)
    if not targets or not len(start):
        return weights
    point = _point(candidates_of, targets, weights, penalty, shares)
    for _ in range(MOST_STEPS):
        # A trace of a ridge: columns may say the same, or nothing.
        size = 1e-9 * max(float(np.trace(point.curvature)) / len(weights), 1e-9)
        step = np.linalg.solve(point.curvature + size * np.eye(len(weights)), point.gradient)
        for _ in range(MOST_HALVINGS):
            tried = _point(candidates_of, targets, weights - step, penalty, shares)
            if tried.loss <= point.loss:
                break
            step /= 2.0
        else:
            return weights
        weights = weights - step
        gained, point = point.loss - tried.loss, tried
        if gained < ENOUGH:
            break
    return weights


def _point(
    candidates_of: CandidatesOf, targets: int, weights: Floats, penalty: float, shares: Array | None
) -> _Point:
    dim = len(weights)
    loss, gradient, curvature = 0.0, np.zeros(dim), np.zeros((dim, dim))
    for begin in range(0, targets, CHUNK):
        part = slice(begin, min(begin + CHUNK, targets))
        values, offsets = candidates_of(part)
        scores = values @ weights.astype(values.dtype) + offsets  # (q, C)
        most = scores.max(axis=1, keepdims=True)
        chances = np.exp(scores - most)
        sums = chances.sum(axis=1, keepdims=True)
        chances /= sums
        if shares is None:
            own, of_target = scores[:, 0], values[:, 0].sum(axis=0, dtype=np.float64)
        else:
            target_shares = shares[part]
            own = np.where(target_shares > 0.0, scores, 0.0)
            own = (own * target_shares).sum(axis=1)
            of_target = np.einsum("qc,qcd->d", target_shares, values, dtype=np.float64)
        loss += float((np.log(sums) + most).sum(dtype=np.float64) - own.sum(dtype=np.float64))
        flat = values.reshape(-1, dim)
        weighed = flat * chances.reshape(-1, 1)
        means = weighed.reshape(values.shape).sum(axis=1)  # (q, D)
        gradient += means.sum(axis=0, dtype=np.float64) - of_target
        curvature += weighed.T @ flat - means.T @ means
    return _Point(
        loss / targets + penalty * float(weights @ weights),
        gradient / targets + 2.0 * penalty * weights,
        curvature / targets + 2.0 * penalty * np.eye(dim),
    )
