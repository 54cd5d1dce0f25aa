"""Parts of scores: what each group of features adds to a candidate's score, against a baseline."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from tracker.scoring.blend import Blend, Ranker
from tracker.scoring.context import COLUMNS, CONTEXT
from tracker.scoring.features import FEATURE, TREND_KNEE
from tracker.scoring.network import Network
from tracker.scoring.online_ranker import OnlineRanker

Array = NDArray[np.float64]

STEPS = 16
"""Pieces into which the way from the baseline to a candidate is cut."""


def _groups() -> Mapping[str, str]:
    """Return the group of each column."""
    groups: dict[str, str] = {}
    for name in COLUMNS:
        if name in CONTEXT:
            group = "moment"
        elif name.startswith(("trend", "rising", "age", "no_event", "idle")):
            group = "trend"
        elif name.startswith(("neighbours", "next")):
            group = "neighbours"
        elif name.startswith(("content", "slot", "interest", "negative")):
            group = "content"
        elif name.startswith("repeat"):
            group = "repeats"
        elif name.startswith("scene"):
            group = "scene"
        else:
            group = name
        groups[name] = group
    return MappingProxyType(groups)


GROUP_OF = _groups()
"""The group of each column: trend, neighbours, content, repeats, scene, moment (the user's context,
the same for all candidates of a list, so that its part is 0), encoder and probability."""

GROUPS = tuple(dict.fromkeys(GROUP_OF.values()))


def attributions(
    ranker: Ranker, features: NDArray[np.float32], baseline: NDArray[np.float32], steps: int = STEPS
) -> tuple[float, Array]:
    """Divide the scores of candidates among their columns, against the score of a baseline.

    A trained network's are integrated gradients, along the straight way from the baseline to the
    candidate: the way is cut into pieces, and on each piece a unit's slope is the change of its
    output over that of its input. So the parts add up to the difference of the scores however few
    the pieces are, and become integrated gradients as they get more. Source: Sundararajan et al.
    2017, "Axiomatic Attribution for Deep Networks"; for one piece it is the rescale rule of
    Shrikumar et al. 2017, "Learning Important Features Through Propagating Activation Differences".

    Args:
        ranker: a network, one that learns online, or the blend.
        features: (C, F) of the candidates.
        baseline: (F,).
        steps: pieces.

    Returns:
        the score of the baseline, and the parts (C, F) float64.

    Raises:
        ValueError: the ranker is of another kind.
    """
    if isinstance(ranker, Blend):
        return _of_blend(ranker, features.astype(np.float64), baseline.astype(np.float64))
    network = ranker.copy() if isinstance(ranker, OnlineRanker) else ranker
    if not isinstance(network, Network):
        raise ValueError(f"the scores of {type(ranker).__name__} have no parts")
    return _of_network(network, features.astype(np.float64), baseline.astype(np.float64), steps)


def grouped(parts: Array) -> dict[str, Array]:
    """Add the parts (C, F) of columns up by group: (C,) each."""
    sums = {group: np.zeros(len(parts)) for group in GROUPS}
    for place, name in enumerate(COLUMNS[: parts.shape[1]]):
        sums[GROUP_OF[name]] += parts[:, place]
    return sums


def _of_blend(blend: Blend, features: Array, baseline: Array) -> tuple[float, Array]:
    """Each column counts by itself, so its part is the difference."""
    parts = np.zeros_like(features)
    total = 0.0
    for column, weight in zip(blend.columns.tolist(), blend.weights.tolist(), strict=True):
        value, base = features[:, column], baseline[column]
        if column < FEATURE.age:
            value, base = np.maximum(value - TREND_KNEE, 0.0), max(base - TREND_KNEE, 0.0)
        parts[:, column] = weight * (value - base)
        total += weight * base
    return float(total), parts


def _of_network(
    network: Network, features: Array, baseline: Array, steps: int
) -> tuple[float, Array]:
    weights = network.weights
    first, second = weights.first.astype(np.float64), weights.second.astype(np.float64)
    x, base = features[:, network.places], baseline[network.places]
    way = x - base  # (C, P)
    at = np.linspace(0.0, 1.0, steps + 1)[None, :, None]
    inputs = base + at * way[:, None, :]  # (C, S + 1, P)
    before_one = inputs @ first + weights.first_bias
    one = np.maximum(before_one, 0.0)  # (C, S + 1, H)
    before_two = one @ second + weights.second_bias
    two = np.maximum(before_two, 0.0)  # (C, S + 1, G)
    slope = weights.last * _slopes(before_two, two)  # (C, S, G)
    slope = (slope @ second.T) * _slopes(before_one, one)  # (C, S, H)
    slope = (slope @ first.T).mean(axis=1) + weights.skip  # (C, P)
    parts = np.zeros_like(features)
    parts[:, network.places] = slope * way
    hidden = np.maximum(np.maximum(base @ first + weights.first_bias, 0.0) @ second
                        + weights.second_bias, 0.0)  # fmt: skip
    return float(hidden @ weights.last + base @ weights.skip), parts


def _slopes(before: Array, after: Array) -> Array:
    """Return the mean slope of each unit on each piece, from its values at the ends (C, S + 1)."""
    rise, run = np.diff(after, axis=1), np.diff(before, axis=1)
    flat = np.abs(run) < 1e-12
    middle = (before[:, 1:] + before[:, :-1]) > 0.0
    slopes: Array = np.where(flat, middle, rise / np.where(flat, 1.0, run))
    return slopes
