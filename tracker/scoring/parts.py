"""Parts of scores: what each group of features adds to an item's score, against a baseline."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.arithmetic import dot
from tracker.kernels.native import native, reordered
from tracker.scoring.blend import Blend, Ranker
from tracker.scoring.context import COLUMNS, CONTEXT
from tracker.scoring.features import FEATURE, TREND_KNEE
from tracker.scoring.network import HiddenLayers, Network
from tracker.scoring.online_ranker import OnlineRanker

Array = NDArray[Any]

STEPS = 4
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


@dataclass(frozen=True, slots=True)
class GroupParts:
    """The parts of the scores of lists, by group of features; B users, K items, G groups.

    `bases` (B,) float32 are the scores of the mean candidates; `groups` (B, K, G) float32 what the
    items' features add to them, in the order of GROUPS; `losses` (B, K) float32 what the items lost
    in the order of the list by being like those above them, in units of the scores. 0 beyond the
    lists' ends.
    """

    bases: NDArray[np.float32]
    groups: NDArray[np.float32]
    losses: NDArray[np.float32]


def list_parts(
    ranker: Ranker,
    features: NDArray[np.float32],
    n_rows: NDArray[np.int64],
    scores: NDArray[np.float32],
    picks: NDArray[np.int64],
    rows: NDArray[np.int32],
    vectors: NDArray[np.float32],
    diversity: float,
    steps: int = STEPS,
) -> GroupParts:
    """Divide the scores of lists among groups of features, against the mean candidate.

    A trained network's parts are integrated gradients, along the straight way from the baseline to
    the candidate: the way is cut into pieces, and on each piece a unit's slope is the change of its
    output over that of its input. So the parts add up to the difference of the scores however few
    the pieces are, and become integrated gradients as they get more. Source: Sundararajan et al.
    2017, "Axiomatic Attribution for Deep Networks"; for one piece it is the rescale rule of
    Shrikumar et al. 2017, "Learning Important Features Through Propagating Activation Differences".

    Args:
        ranker: made the scores: a network, one that learns online, or the blend.
        features: (B, C, F) of the candidates, of which the first `n_rows` (B,) are filled.
        n_rows: (B,).
        scores: (B, C) of the candidates.
        picks: (B, K) positions among the candidates, -1 padded.
        rows: (B, C) catalogue rows of the candidates.
        vectors: (N, D) unit vectors of items.
        diversity: weight of the diversity, 0 to 1.
        steps: pieces.

    Raises:
        ValueError: the ranker is of another kind.
    """
    users, k = picks.shape
    bases = np.zeros(users, np.float32)
    groups = np.zeros((users, k, len(GROUPS)), np.float32)
    losses = np.zeros((users, k), np.float32)
    if isinstance(ranker, Blend):
        _parts_of_blend(
            features, n_rows, picks, ranker.columns, ranker.weights, _GROUPS_OF, bases, groups
        )
    else:
        network = ranker.copy() if isinstance(ranker, OnlineRanker) else ranker
        if not isinstance(network, Network):
            raise ValueError(f"the scores of {type(ranker).__name__} have no parts")
        weights = network.weights
        _parts_of_network(
            features, n_rows, picks, network.layers, weights.last, weights.skip, _GROUPS_OF,
            steps, bases, groups,
        )  # fmt: skip
    if 0.0 < diversity < 1.0:
        _find_losses(scores, n_rows, picks, rows, vectors, diversity / (1.0 - diversity), losses)
    return GroupParts(bases, groups, losses)


_GROUPS_OF = np.array([GROUPS.index(GROUP_OF[name]) for name in COLUMNS], np.int64)


@native
def _find_losses(
    scores: Array,
    n_rows: Array,
    picks: Array,
    rows: Array,
    vectors: Array,
    weight: float,
    losses: Array,
) -> None:
    for b in range(len(picks)):
        n = n_rows[b]
        if n == 0:
            continue
        span = scores[b, :n].max() - scores[b, :n].min()
        if not span > 0.0:
            span = np.float32(1.0)
        for i in range(1, picks.shape[1]):
            if picks[b, i] < 0:
                break
            near = np.float32(-1.0)
            for j in range(i):
                one, other = rows[b, picks[b, i]], rows[b, picks[b, j]]
                near = max(near, np.float32(dot(vectors[one], vectors[other])))
            losses[b, i] = -weight * span * near


@native
def _parts_of_blend(
    features: Array, n_rows: Array, picks: Array, columns: Array, weights: Array, groups_of: Array,
    bases: Array, parts: Array,
) -> None:  # fmt: skip
    """Divide the scores of a blend: each column counts by itself, so its part is the difference."""
    for b in range(len(picks)):
        n = n_rows[b]
        if n == 0:
            continue
        for i in range(len(columns)):
            column = columns[i]
            mean = 0.0
            for c in range(n):
                mean += features[b, c, column]
            mean /= n
            is_trend = column < FEATURE.age
            base = max(mean - TREND_KNEE, 0.0) if is_trend else mean
            bases[b] += weights[i] * base
            for p in range(picks.shape[1]):
                if picks[b, p] < 0:
                    break
                value = float(features[b, picks[b, p], column])
                if is_trend:
                    value = max(value - TREND_KNEE, 0.0)
                parts[b, p, groups_of[column]] += weights[i] * (value - base)


@reordered
def _slope(start: float, end: float) -> float:
    """Return the mean slope of a unit between two inputs."""
    if start > 0.0 and end > 0.0:
        return np.float32(1.0)  # type: ignore[return-value]
    if start <= 0.0 and end <= 0.0:
        return np.float32(0.0)  # type: ignore[return-value]
    return max(start, end) / abs(end - start)


@reordered
def _parts_of_network(
    features: Array, n_rows: Array, picks: Array, layers: HiddenLayers, last: Array, skip: Array,
    groups_of: Array, steps: int, bases: Array, parts: Array,
) -> None:  # fmt: skip
    """Divide the scores of a network by integrated gradients; see `list_parts`.

    The inputs of the first layer are linear on the way. A unit of it that is on at both ends is on
    all the way, so what it gives to the second layer is linear too; one that is off at both ends
    gives nothing. Only the others are followed from piece to piece. All is one function with plain
    loops, because a call with arrays costs as much as what it does here.
    """
    places, first, first_bias, blocks, second_bias = layers
    count, inputs, units = blocks.shape
    width, hidden, groups = len(places), len(first_bias), parts.shape[2]
    base = np.empty(width, np.float32)
    base_one = np.empty(hidden, np.float32)
    base_two = np.empty(count * units, np.float32)
    moves = np.empty((groups, hidden), np.float32)
    move = np.empty(hidden, np.float32)
    move_two = np.empty(count * units, np.float32)
    before = np.empty(count * units, np.float32)
    after = np.empty(count * units, np.float32)
    slopes = np.empty(count * units, np.float32)
    sum_of_slopes = np.empty(count * units, np.float32)
    gradient = np.empty(hidden, np.float32)
    turning = np.empty(hidden, np.int64)
    for b in range(len(picks)):
        n = n_rows[b]
        if n == 0:
            continue
        # The baseline: the mean candidate, and its score.
        base[:] = 0.0
        for c in range(n):
            for i in range(width):
                base[i] += features[b, c, places[i]]
        base_one[:] = first_bias
        score = np.float32(0.0)
        for i in range(width):
            base[i] /= np.float32(n)
            score += base[i] * skip[i]
            for h in range(hidden):
                base_one[h] += base[i] * first[i, h]
        base_two[:] = second_bias
        for h in range(hidden):
            if base_one[h] > 0.0:
                m, r = h // inputs, h % inputs
                for j in range(units):
                    base_two[m * units + j] += base_one[h] * blocks[m, r, j]
        for j in range(count * units):
            score += max(base_two[j], np.float32(0.0)) * last[j]
        bases[b] = score
        for p in range(picks.shape[1]):
            c = picks[b, p]
            if c < 0:
                break
            # The way, and what it moves in the first layer, by group.
            moves[:] = 0.0
            move[:] = 0.0
            for i in range(width):
                way = features[b, c, places[i]] - base[i]
                if way != 0.0:
                    group = groups_of[places[i]]
                    parts[b, p, group] += way * skip[i]
                    for h in range(hidden):
                        share = way * first[i, h]
                        moves[group, h] += share
                        move[h] += share
            # What the units that are on all the way move in the second layer.
            n_turning = 0
            move_two[:] = 0.0
            for h in range(hidden):
                gradient[h] = 0.0
                end = base_one[h] + move[h]
                if (base_one[h] > 0.0) != (end > 0.0):
                    turning[n_turning] = h
                    n_turning += 1
                elif end > 0.0:
                    m, r = h // inputs, h % inputs
                    for j in range(units):
                        move_two[m * units + j] += move[h] * blocks[m, r, j]
            # Piece by piece.
            sum_of_slopes[:] = 0.0
            before[:] = base_two
            for step in range(1, steps + 1):
                at, past = np.float32(step / steps), np.float32((step - 1) / steps)
                for j in range(count * units):
                    after[j] = base_two[j] + at * move_two[j]
                for t in range(n_turning):
                    h = turning[t]
                    one = max(base_one[h] + at * move[h], np.float32(0.0))
                    one -= max(base_one[h], np.float32(0.0))
                    if one != 0.0:
                        m, r = h // inputs, h % inputs
                        for j in range(units):
                            after[m * units + j] += one * blocks[m, r, j]
                for j in range(count * units):
                    slopes[j] = last[j] * np.float32(_slope(before[j], after[j]))
                    sum_of_slopes[j] += slopes[j]
                    before[j] = after[j]
                for t in range(n_turning):
                    h = turning[t]
                    slope = np.float32(
                        _slope(base_one[h] + past * move[h], base_one[h] + at * move[h])
                    )
                    if slope > 0.0:
                        m, r = h // inputs, h % inputs
                        back = np.float32(0.0)
                        for j in range(units):
                            back += blocks[m, r, j] * slopes[m * units + j]
                        gradient[h] += slope * back
            for h in range(hidden):
                if base_one[h] > 0.0 and base_one[h] + move[h] > 0.0:
                    m, r = h // inputs, h % inputs
                    back = np.float32(0.0)
                    for j in range(units):
                        back += blocks[m, r, j] * sum_of_slopes[m * units + j]
                    gradient[h] = back
            for group in range(groups):
                total = np.float32(0.0)
                for h in range(hidden):
                    total += moves[group, h] * gradient[h]
                parts[b, p, group] += total / np.float32(steps)
