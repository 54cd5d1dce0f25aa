"""Parts of scores: what each group of features adds to an item's score, against a baseline."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.arithmetic import dot
from tracker.kernels.native import inlined, native, reordered
from tracker.scoring.blend import Blend, Ranker
from tracker.scoring.context import COLUMNS, CONTEXT
from tracker.scoring.features import FEATURE, TREND_KNEE
from tracker.scoring.network import HiddenLayers, Network
from tracker.scoring.online_ranker import OnlineRanker

Array = NDArray[Any]

STEPS = 2
"""Pieces into which the way from the baseline to a candidate is cut."""


def _groups() -> Mapping[str, str]:
    """Return the group of each column."""
    groups: dict[str, str] = {}
    for name in COLUMNS:
        if name in CONTEXT:
            group = "moment"
        elif name.startswith(("trend", "rising", "age", "no_event", "idle")):
            group = "trend"
        elif name.startswith(("neighbours", "next", "item_weights")):
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


_MOMENT = GROUPS.index("moment")

_LANES = 64
"""Items that are divided at once: what they need stays in the processor's cache."""

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


class _Ways(NamedTuple):
    """Items in lanes (L): their ways from the baselines, and the baselines' hidden units.

    `columns` (P, L) are the ways of the columns in use, in the order of `_Order`; `one` (H, L) and
    `two` (U, L) the inputs of the hidden units at the baselines.
    """

    columns: Array
    one: Array
    two: Array


class _Order(NamedTuple):
    """The columns in use by their groups, and the weights that go with them.

    `columns` (P,) are places in the network; those of group g that the hidden layers read stand
    from `starts[g]` to `starts[g + 1]`, those that only the read-out reads after all of them.
    `first` (Q, H) are the weights of the former, `backward` (M, U, I) the blocks, turned.
    """

    columns: Array
    starts: Array
    first: Array
    backward: Array


class _Steps(NamedTuple):
    """Numbers followed along the ways: (H, L) and (U, L), the moves by group (G, H, L)."""

    moves: Array
    move: Array
    change: Array
    back: Array
    gradient: Array
    before: Array
    after: Array


@native
def _order_of(layers: HiddenLayers, groups_of: Array, groups: int) -> _Order:
    places, first, _, blocks, _ = layers
    width = len(places)
    columns = np.empty(width, np.int64)
    starts = np.zeros(groups + 1, np.int64)
    used = 0
    for reads in (True, False):
        for group in range(groups):
            for i in range(width):
                is_own = groups_of[places[i]] == group and group != _MOMENT
                if is_own and first[i].any() == reads:
                    columns[used] = i
                    used += 1
            if reads:
                starts[group + 1] = used
    weights = np.empty((starts[groups], first.shape[1]), np.float32)
    for i in range(len(weights)):
        weights[i] = first[columns[i]]
    backward = np.empty((blocks.shape[0], blocks.shape[2], blocks.shape[1]), np.float32)
    for m in range(len(blocks)):
        backward[m] = blocks[m].T
    return _Order(columns[:used], starts, weights, backward)


@reordered
def _baseline(
    features: Array, layers: HiddenLayers, last: Array, skip: Array, mean: Array, one: Array,
    two: Array,
) -> Any:  # fmt: skip
    """Write the mean candidate, and the inputs of its hidden units; return its score."""
    places, first, first_bias, blocks, second_bias = layers
    _, inputs, units = blocks.shape
    mean[:] = 0.0
    for c in range(len(features)):
        for f in range(features.shape[1]):
            mean[f] += features[c, f]
    for f in range(features.shape[1]):
        mean[f] /= np.float32(len(features))
    one[:] = first_bias
    score = np.float32(0.0)
    for i in range(len(places)):
        value = mean[places[i]]
        score += value * skip[i]
        for h in range(len(one)):
            one[h] += value * first[i, h]
    two[:] = second_bias
    for h in range(len(one)):
        if one[h] > 0.0:
            m, r = h // inputs, h % inputs
            for j in range(units):
                two[m * units + j] += one[h] * blocks[m, r, j]
    for j in range(len(two)):
        score += max(two[j], np.float32(0.0)) * last[j]
    return score


@reordered
def _add(x: Array, weights: Array, n: int, out: Array) -> None:
    """Add weights x of n lanes to `out`: x (I, L), weights (I, J), out (J, L); see `_layer`."""
    inputs = len(weights)
    fours = inputs // 4 * 4
    for j in range(weights.shape[1]):
        units = out[j]
        for i in range(0, fours, 4):
            x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
            w0, w1, w2, w3 = weights[i, j], weights[i + 1, j], weights[i + 2, j], weights[i + 3, j]
            for c in range(n):
                units[c] += (x0[c] * w0 + x1[c] * w1) + (x2[c] * w2 + x3[c] * w3)
        for i in range(fours, inputs):
            x0, w0 = x[i], weights[i, j]
            for c in range(n):
                units[c] += x0[c] * w0


@inlined
def _slope(start: Any, end: Any) -> Any:
    """Return the mean slope of a unit between two inputs."""
    way = end - start
    rise = max(end, np.float32(0.0)) - max(start, np.float32(0.0))
    flat = np.float32(1.0) if end > 0.0 else np.float32(0.0)
    slope = np.divide(rise, way if way != 0.0 else np.float32(1.0))
    return slope if way != 0.0 else flat


@reordered
def _divide(
    ways: _Ways, n: int, order: _Order, blocks: Array, last: Array, skip: Array, groups_of: Array,
    pieces: int, steps: _Steps, out: Array,
) -> None:  # fmt: skip
    """Write the parts (G, L) of n lanes; see `list_parts`."""
    moves, move, change, back, gradient, before, after = steps
    count, inputs, units = blocks.shape
    groups, hidden = moves.shape[:2]
    move[:, :n] = 0.0
    gradient[:, :n] = 0.0
    for g in range(groups):
        begin, end = order.starts[g], order.starts[g + 1]
        if begin == end:
            continue
        moves[g, :, :n] = 0.0
        _add(ways.columns[begin:end], order.first[begin:end], n, moves[g])
        for h in range(hidden):
            total, own = move[h], moves[g, h]
            for c in range(n):
                total[c] += own[c]
    before[:, :n] = ways.two[:, :n]
    for piece in range(1, pieces + 1):
        at, past = np.float32(piece / pieces), np.float32((piece - 1) / pieces)
        for h in range(hidden):
            start, way, x = ways.one[h], move[h], change[h]
            for c in range(n):
                x[c] = max(start[c] + at * way[c], np.float32(0.0))
                x[c] -= max(start[c], np.float32(0.0))
        after[:, :n] = ways.two[:, :n]
        back[:, :n] = 0.0
        for m in range(count):
            own, mine = slice(m * units, m * units + units), slice(m * inputs, m * inputs + inputs)
            _add(change[mine], blocks[m], n, after[own])
        for j in range(len(last)):
            old, new, weight = before[j], after[j], last[j]
            for c in range(n):
                start, old[c] = old[c], new[c]
                new[c] = weight * _slope(start, new[c])
        for m in range(count):
            own, mine = slice(m * units, m * units + units), slice(m * inputs, m * inputs + inputs)
            _add(after[own], order.backward[m], n, back[mine])
        for h in range(hidden):
            x, way, total, one = back[h], move[h], gradient[h], ways.one[h]
            for c in range(n):
                total[c] += x[c] * _slope(one[c] + past * way[c], one[c] + at * way[c])
    out[:, :n] = 0.0
    for g in range(groups):
        total = out[g]
        if order.starts[g] < order.starts[g + 1]:
            for h in range(hidden):
                own, x = moves[g, h], gradient[h]
                for c in range(n):
                    total[c] += own[c] * x[c]
            for c in range(n):
                total[c] /= np.float32(pieces)
    for i in range(len(order.columns)):
        column = order.columns[i]
        x, weight, total = ways.columns[i], skip[column], out[groups_of[column]]
        for c in range(n):
            total[c] += x[c] * weight


@native
def _parts_of_network(
    features: Array, n_rows: Array, picks: Array, layers: HiddenLayers, last: Array, skip: Array,
    groups_of: Array, pieces: int, bases: Array, parts: Array,
) -> None:  # fmt: skip
    """Divide the scores of a network by integrated gradients; see `list_parts`.

    Items of several users are divided at once, each in a lane of its own, so that one instruction
    serves many of them. Columns of the context are the same for all candidates of a user and have
    no part; a column that the hidden layers do not read counts by its own weight.
    """
    places, hidden, outputs = layers.places, len(layers.first_bias), len(layers.second_bias)
    groups = parts.shape[2]
    order = _order_of(layers, groups_of, groups)
    lanes = min(_LANES, picks.size)
    ways = _Ways(
        np.empty((len(order.columns), lanes), np.float32),
        np.empty((hidden, lanes), np.float32),
        np.empty((outputs, lanes), np.float32),
    )
    steps = _Steps(
        np.empty((groups, hidden, lanes), np.float32),
        np.empty((hidden, lanes), np.float32), np.empty((hidden, lanes), np.float32),
        np.empty((hidden, lanes), np.float32), np.empty((hidden, lanes), np.float32),
        np.empty((outputs, lanes), np.float32), np.empty((outputs, lanes), np.float32),
    )  # fmt: skip
    out = np.empty((groups, lanes), np.float32)
    of_places = groups_of[places]
    users, positions = np.empty(lanes, np.int64), np.empty(lanes, np.int64)
    mean = np.empty(features.shape[2], np.float32)
    one, two = np.empty(hidden, np.float32), np.empty(outputs, np.float32)
    n = 0
    for b in range(len(picks)):
        if n_rows[b] == 0:
            continue
        bases[b] = _baseline(features[b, : n_rows[b]], layers, last, skip, mean, one, two)
        for p in range(picks.shape[1]):
            if picks[b, p] < 0:
                break
            users[n], positions[n] = b, p
            x = features[b, picks[b, p]]
            for i in range(len(order.columns)):
                place = places[order.columns[i]]
                ways.columns[i, n] = x[place] - mean[place]
            for h in range(hidden):
                ways.one[h, n] = one[h]
            for j in range(outputs):
                ways.two[j, n] = two[j]
            n += 1
            if n == lanes:
                _divide(ways, n, order, layers.blocks, last, skip, of_places, pieces, steps, out)
                _put(out, n, users, positions, parts)
                n = 0
    if n > 0:
        _divide(ways, n, order, layers.blocks, last, skip, of_places, pieces, steps, out)
        _put(out, n, users, positions, parts)


@native
def _put(out: Array, n: int, users: Array, positions: Array, parts: Array) -> None:
    """Write the parts of n lanes to where their items stand."""
    for c in range(n):
        for g in range(len(out)):
            parts[users[c], positions[c], g] = out[g, c]
