"""OnlineRanker: a trained ranker whose read-out goes on learning, near what was published."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.native import reordered
from tracker.scoring.network import HiddenLayers, Network, hidden_units

Array = NDArray[Any]

RATE = 0.02
"""Step of the read-out, in units of its weights; chosen on validation targets of two data sets."""

CLIP = 4.0
"""Longest gradient of one example, in the same units."""

PULL = 0.001
"""Part of the way back to the published weights that each step takes."""

RADIUS = 2.0
"""Farthest the read-out may get from the published weights, in the same units: see `distance`."""


class ReadOut(NamedTuple):
    """The weights that are learned: `last` (G,) and `skip` (P,) of `Weights`."""

    last: Array
    skip: Array


class _Units(NamedTuple):
    """The units of a read-out: one for `last`, and (P,) for `skip`."""

    last: np.float32
    skip: Array


class OnlineRanker:
    """A ranker that learns: the published network, with a read-out of its own.

    The hidden layers stay as published; learned are the weights `last` of the second hidden layer
    and `skip` of the columns, so that the loss is convex in what is learned. Every weight is
    measured in units of its typical published size: the root mean square of `last` for those of
    `last`, and for that of a column in `skip` the root mean square of what the first layer weighs
    the column by (or its own size, if that is more). One example is one step of gradient descent
    on the cross-entropy of the softmax over its candidates, the gradient cut to CLIP, then PULL of
    the way back; what is farther than RADIUS from the published weights is put back on that sphere.

    One thread at a time may use it.

    Args:
        published: the artifact's ranker, which is not changed.
    """

    def __init__(self, published: Network) -> None:
        weights = published.weights
        self.published = published
        self.column_mask = published.column_mask
        self.cut_weights = published.cut_weights
        self._network = published.with_read_out(weights.last.copy(), weights.skip.copy())
        sizes = np.sqrt(np.square(weights.first).mean(axis=1))
        self._skip_unit = np.maximum(sizes, np.abs(weights.skip)).astype(np.float32)
        self._last_unit = np.float32(np.sqrt(np.square(weights.last).mean()))

    def score(
        self, features: NDArray[np.float32], n_rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the scores (B, C) of features (B, C, F); see `Ranker.score`."""
        return self._network.score(features, n_rows)

    def learn(self, features: NDArray[np.float32], target: int) -> tuple[float, float]:
        """Take one step towards a target among its candidates.

        Args:
            features: (C, F) columns of the candidates, of which those of the published network
                are read.
            target: which candidate was chosen.

        Returns:
            the loss of the example before the step, by the weights as they were and by the
            published ones: nats.
        """
        published, own = self.published.weights, self._network.weights
        hidden = np.empty((len(published.last), len(features)), np.float32)
        scores = np.empty((2, len(features)), np.float32)
        return _learn(
            features,
            target,
            self.published.layers,
            ReadOut(published.last, published.skip),
            ReadOut(own.last, own.skip),
            _Units(self._last_unit, self._skip_unit),
            hidden,
            scores,
        )

    @property
    def distance(self) -> float:
        """The distance of the read-out from the published one, in units of weights: 0 to RADIUS.

        RADIUS means that a weight is on average (root mean square) off by RADIUS / sqrt(n) of its
        typical size, n the number of weights: a fifth with 32 hidden units and 60 columns.
        """
        published, own = self.published.weights, self._network.weights
        last = (own.last - published.last) / max(self._last_unit, _LEAST)
        skip = (own.skip - published.skip) / np.maximum(self._skip_unit, _LEAST)
        return math.sqrt(float(np.square(last).sum() + np.square(skip).sum()))

    def copy(self) -> Network:
        """Return the ranker as it is now, which learns no more."""
        own = self._network.weights
        return self.published.with_read_out(own.last.copy(), own.skip.copy())

    def to_bytes(self) -> bytes:
        """Return what was learned: `last`, then `skip`, float32, little-endian."""
        own = self._network.weights
        return np.concatenate([own.last, own.skip]).astype("<f4").tobytes()

    def set_bytes(self, values: bytes) -> None:
        """Take over what `to_bytes` gave, of a ranker with the same published weights.

        Raises:
            ValueError: there are more or fewer numbers, or they are not finite or too far off.
        """
        own = self._network.weights
        count = len(own.last) + len(own.skip)
        if len(values) != 4 * count:
            raise ValueError(f"{len(values)} bytes of learned weights; {4 * count} are expected")
        before = self.to_bytes()
        self._put(values)
        distance = self.distance
        if not distance <= RADIUS * 1.001:  # nor for NaN
            self._put(before)
            raise ValueError(
                f"the learned weights are {distance:g} from the published ones;"
                f" at most {RADIUS:g} is expected"
            )

    def _put(self, values: bytes) -> None:
        own = self._network.weights
        both = np.frombuffer(values, "<f4")
        own.last[:] = both[: len(own.last)]
        own.skip[:] = both[len(own.last) :]


_LEAST = np.float32(1e-12)


@reordered
def _learn(
    features: Array,
    target: int,
    layers: HiddenLayers,
    published: ReadOut,
    learned: ReadOut,
    units: _Units,
    hidden: Array,
    scores: Array,
) -> tuple[float, float]:
    """Do the work of `OnlineRanker.learn`.

    1. The hidden units of each candidate, and its scores by the learned and published read-out.
    2. Both losses, and the gradient of each candidate's score by the learned one.
    3. The gradient, in units of the weights, its length cut.
    4. The step, and the way back.
    5. Back on the sphere, if need be.
    """
    published_last, published_skip = published
    last, skip = learned
    last_unit, skip_unit = units
    width, count = hidden.shape
    n_columns = len(layers.places)
    # 1. The hidden units, and the scores by both read-outs.
    x = np.empty((n_columns, count), np.float32)
    one = np.empty((len(layers.first_bias), count), np.float32)
    hidden_units(features, count, layers, x, one, hidden)
    for c in range(count):
        own = np.float32(0.0)
        before = np.float32(0.0)
        for i in range(n_columns):
            own += x[i, c] * skip[i]
            before += x[i, c] * published_skip[i]
        for j in range(width):
            own += hidden[j, c] * last[j]
            before += hidden[j, c] * published_last[j]
        scores[0, c] = own
        scores[1, c] = before
    # 2. Both losses, and the gradient of the scores.
    losses = np.zeros(2)
    for which in range(2):
        most = scores[which].max()
        total = 0.0
        for c in range(count):
            total += math.exp(scores[which, c] - most)
        losses[which] = most + math.log(total) - scores[which, target]
        if which == 0:
            for c in range(count):
                scores[0, c] = math.exp(scores[0, c] - most) / total
            scores[0, target] -= np.float32(1.0)
    # 3. The gradient, in units of the weights, its length cut.
    last_step = np.zeros(width, np.float32)
    skip_step = np.zeros(n_columns, np.float32)
    for c in range(count):
        for j in range(width):
            last_step[j] += scores[0, c] * hidden[j, c]
        for i in range(n_columns):
            skip_step[i] += scores[0, c] * x[i, c]
    length = 0.0
    for j in range(width):
        last_step[j] *= last_unit
        length += last_step[j] * last_step[j]
    for i in range(n_columns):
        skip_step[i] *= skip_unit[i]
        length += skip_step[i] * skip_step[i]
    length = math.sqrt(length)
    scale = np.float32(RATE * (CLIP / length if length > CLIP else 1.0))
    # 4. The step, and the way back.
    away = 0.0
    for j in range(width):
        last[j] += np.float32(PULL) * (published_last[j] - last[j])
        last[j] -= scale * last_unit * last_step[j]
        if last_unit > 0.0:
            away += ((last[j] - published_last[j]) / last_unit) ** 2
    for i in range(n_columns):
        skip[i] += np.float32(PULL) * (published_skip[i] - skip[i])
        skip[i] -= scale * skip_unit[i] * skip_step[i]
        if skip_unit[i] > 0.0:
            away += ((skip[i] - published_skip[i]) / skip_unit[i]) ** 2
    away = math.sqrt(away)
    # 5. Back on the sphere, if need be.
    if away > RADIUS:
        back = np.float32(1.0 - RADIUS / away)
        for j in range(width):
            last[j] += back * (published_last[j] - last[j])
        for i in range(n_columns):
            skip[i] += back * (published_skip[i] - skip[i])
    return losses[0], losses[1]
