"""Network: the trained ranker, two hidden layers over streaming features, in native code."""

import hashlib
import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tracker.kernels.native import native
from tracker.scoring.blend import CUT
from tracker.scoring.context import COLUMNS
from tracker.scoring.features import FORMER_NAMES
from tracker.scoring.retrieval import Retrieval
from tracker.scoring.weights import check_weights, names_of, read_weights, weights_to_bytes

Array = NDArray[Any]

_AT_ONCE = 256  # candidates whose units fit the nearer caches together


class RankerFileError(ValueError):
    """A ranker's file does not fit its description; the message says what was found."""


class RankerInfo(msgspec.Struct, frozen=True):
    """Description of a trained ranker, in the manifest.

    `columns` are the features it reads, `hidden` its widths. The other fields are those of
    `RecommendOptions` that its features and candidates depend on: it serves with what it was
    trained with.
    """

    columns: list[str]
    hidden: tuple[int, int]
    neighbour_events: int = 20
    neighbour_width: int = 64
    content_events: int = 28
    candidates: int = 200
    cut: int = 64
    retrieval: Retrieval = Retrieval()


@dataclass(frozen=True, slots=True)
class Weights:
    """The numbers of a network over P features with hidden widths H and G.

    `first` (P, H), `first_bias` (H,), `second` (H, G), `second_bias` (G,), `last` (G,) and `skip`
    (P,), all float32: score = last . relu(second relu(first x + bias) + bias) + skip . x. What
    standardises the features is folded in. `cut` (6,) are the ranker's `cut_weights`.
    """

    first: NDArray[np.float32]
    first_bias: NDArray[np.float32]
    second: NDArray[np.float32]
    second_bias: NDArray[np.float32]
    last: NDArray[np.float32]
    skip: NDArray[np.float32]
    cut: NDArray[np.float32]


class HiddenLayers(NamedTuple):
    """A network up to its read-out, as kernels take it; see `Weights` and `Network`."""

    places: Array
    first: Array
    first_bias: Array
    blocks: Array
    second_bias: Array


class Network:
    """A trained network as a Ranker: only read, so many threads may use one.

    `places` (P,) are where its columns stand in COLUMNS; `blocks` (M, H / M, G / M) are the second
    layer's: M are on its diagonal, as of the mean of M networks, and zero is what is outside of
    them, which is not computed.

    Args:
        columns: names of the P features, in the order of the weights.
        weights: the numbers.
        info: what it was trained with, if not the defaults; its columns and widths are not read.

    Raises:
        RankerFileError: a column is no feature, or shapes do not agree.
    """

    def __init__(
        self, columns: Sequence[str], weights: Weights, info: RankerInfo | None = None
    ) -> None:
        names = [FORMER_NAMES.get(name, name) for name in columns]
        unknown = sorted(set(names) - set(COLUMNS))
        if unknown:
            raise RankerFileError(
                f"the ranker reads feature {unknown[0]!r}, which this program does not compute;"
                " train it again, or upgrade this program"
            )
        hidden, width = weights.second.shape if weights.second.ndim == 2 else (0, 0)
        expected = {
            "first": (len(columns), hidden), "first_bias": (hidden,), "second": (hidden, width),
            "second_bias": (width,), "last": (width,), "skip": (len(columns),), "cut": (len(CUT),),
        }  # fmt: skip
        check_weights("ranker", weights, expected, RankerFileError)
        base = RankerInfo([], (0, 0)) if info is None else info
        self.info = msgspec.structs.replace(base, columns=list(columns), hidden=(hidden, width))
        self.weights = weights
        self.column_mask = np.zeros(len(COLUMNS), np.bool_)
        self.places = np.array([COLUMNS.index(name) for name in names], np.int64)
        self.column_mask[self.places] = True
        self.cut_weights = weights.cut
        self.blocks = _blocks_of(weights.second)

    @property
    def layers(self) -> HiddenLayers:
        """The hidden layers as kernels take them."""
        weights = self.weights
        return HiddenLayers(
            self.places, weights.first, weights.first_bias, self.blocks, weights.second_bias
        )

    @cached_property
    def code(self) -> int:
        """A hash of columns and weights."""
        digest = hashlib.blake2b(repr(self.info.columns).encode(), digest_size=8)
        for name in names_of(self.weights):
            digest.update(getattr(self.weights, name).tobytes())
        return int.from_bytes(digest.digest(), "little")

    def with_read_out(self, last: NDArray[np.float32], skip: NDArray[np.float32]) -> "Network":
        """Return a network with these hidden layers and a read-out of its own, not checked."""
        other = copy(self)
        other.__dict__.pop("code", None)
        other.weights = replace(self.weights, last=last, skip=skip)
        return other

    def score(
        self, features: NDArray[np.float32], n_rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the network's scores (B, C) of features (B, C, F); see `Ranker.score`."""
        return np.asarray(score_each((self,), features, n_rows)[0])

    def to_bytes(self) -> bytes:
        """Return the weights as safetensors; `info` belongs into the manifest."""
        return weights_to_bytes(self.weights)

    @classmethod
    def load(cls, path: Path, info: RankerInfo) -> "Network":
        """Read the weights of a ranker.

        Raises:
            RankerFileError: the file is not there, cut short, or not what `info` says.
        """
        network = cls(info.columns, read_weights(path, Weights, RankerFileError), info)
        if network.info != info:
            raise RankerFileError(
                f"{path}: hidden widths {network.info.hidden} found, {info.hidden} expected"
            )
        return network


def score_each(
    networks: Sequence[Network], features: NDArray[np.float32], n_rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the scores (R, B, C) of R networks that differ in their read-outs alone.

    Their hidden units are computed once; each scores as by itself. Arguments as in `Network.score`.

    Raises:
        ValueError: their hidden layers are not the same arrays, as those of `OnlineRanker` are.
    """
    first = networks[0]
    for other in networks[1:]:
        for name in ("first", "first_bias", "second", "second_bias"):
            if getattr(other.weights, name) is not getattr(first.weights, name):
                raise ValueError(f"{name!r} of the networks differs; the same array is expected")
    scores = np.zeros((len(networks), *features.shape[:2]), np.float32)
    _forward(
        features,
        n_rows,
        first.layers,
        np.stack([network.weights.last for network in networks]),
        np.stack([network.weights.skip for network in networks]),
        scores,
    )
    return scores


def _blocks_of(second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the most blocks of one shape (M, I, J) on a diagonal outside of which all is zero."""
    inputs, units = second.shape
    for count in range(math.gcd(inputs, units), 1, -1):
        if inputs % count or units % count:
            continue
        parts = second.reshape(count, inputs // count, count, units // count).swapaxes(1, 2)
        on = np.eye(count, dtype=np.bool_)
        if not parts[~on].any():
            return np.ascontiguousarray(parts[on])
    return second[None]


@native
def _layer(x: Array, weights: Array, bias: Array, n: int, out: Array) -> None:
    """Write relu(bias + weights x) of n candidates: x (I, C), weights (I, J), out (J, C).

    Candidates are the innermost, so that one instruction serves many of them and a candidate's sum
    is the same wherever it stands; eight inputs at a time spare the sums' way to memory and back.
    """
    inputs = len(weights)
    eights = inputs // 8 * 8
    for j in range(len(bias)):
        units = out[j]
        for c in range(n):
            units[c] = bias[j]
        for i in range(0, eights, 8):
            x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
            x4, x5, x6, x7 = x[i + 4], x[i + 5], x[i + 6], x[i + 7]
            w0, w1, w2, w3 = weights[i, j], weights[i + 1, j], weights[i + 2, j], weights[i + 3, j]
            w4, w5 = weights[i + 4, j], weights[i + 5, j]
            w6, w7 = weights[i + 6, j], weights[i + 7, j]
            for c in range(n):
                units[c] += (
                    ((x0[c] * w0 + x1[c] * w1) + (x2[c] * w2 + x3[c] * w3))
                    + ((x4[c] * w4 + x5[c] * w5) + (x6[c] * w6 + x7[c] * w7))
                )  # fmt: skip
        for i in range(eights, inputs):
            x0, w0 = x[i], weights[i, j]
            for c in range(n):
                units[c] += x0[c] * w0
        for c in range(n):
            units[c] = max(units[c], np.float32(0.0))


@native
def hidden_units(
    features: Array, n: int, layers: HiddenLayers, x: Array, one: Array, two: Array
) -> None:
    """Write the hidden units of the first n candidates, up to the read-out.

    Args:
        features: (C, F).
        n: candidates.
        layers: of the network.
        x: (P, C) float32, filled with the columns.
        one: (H, C) float32, filled with the units of the first hidden layer.
        two: (G, C) float32, filled with those of the second.
    """
    columns, first, first_bias, blocks, second_bias = layers
    for c in range(n):
        for i in range(len(columns)):
            x[i, c] = features[c, columns[i]]
    _layer(x, first, first_bias, n, one)
    count, inputs, units = blocks.shape
    for m in range(count):
        own = slice(m * units, m * units + units)
        _layer(one[m * inputs : m * inputs + inputs], blocks[m], second_bias[own], n, two[own])


@native
def _forward(
    features: Array,
    n_rows: Array,
    layers: HiddenLayers,
    lasts: Array,
    skips: Array,
    scores: Array,
) -> None:
    """Add the scores of R read-outs to zeros (R, B, C), some candidates at a time.

    Args:
        features: (B, C, F) float32.
        n_rows: (B,) candidates of each user.
        layers: the hidden layers that all read.
        lasts: (R, G) float32, `Weights.last` of each.
        skips: (R, P) float32, `Weights.skip` of each.
        scores: (R, B, C) float32, zeros.
    """
    width = len(layers.places)
    capacity = max(1, min(_AT_ONCE, scores.shape[2]))
    x = np.empty((width, capacity), np.float32)
    one = np.empty((len(layers.first_bias), capacity), np.float32)
    two = np.empty((len(layers.second_bias), capacity), np.float32)
    for b in range(len(n_rows)):
        for start in range(0, n_rows[b], capacity):
            n = min(capacity, n_rows[b] - start)
            hidden_units(features[b, start:], n, layers, x, one, two)
            for r in range(len(lasts)):
                out = scores[r, b, start:]
                for i in range(width):
                    for c in range(n):
                        out[c] += x[i, c] * skips[r, i]
                for j in range(lasts.shape[1]):
                    for c in range(n):
                        out[c] += two[j, c] * lasts[r, j]
