"""Whitening: the frozen step from encodings to the space of item vectors and states."""

import hashlib
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from tracker.artifact.manifest import EncoderInfo
from tracker.items.vectors import Vectors, unit
from tracker.users.config import InterestConfig

_BLOCK = 8192

EVEN_ITEMS = 5000.0
"""As many items as count for equal variances: of N items, 5000 / (5000 + N) of the covariance is
replaced by equal variances of all directions. With few items most directions are noise, and to
stretch them hides what the encoder knows: the nearest items of an item are then seldom of its
category. Measured, with the rules that it was compared with: `benchmarks/whitening.py`."""

_MEAN_PRIOR = 8.0
"""The mean is over the items and this many more at the origin; otherwise a single item would be
its own mean, and have no direction. Not studied."""


@dataclass(frozen=True)
class Whitening:
    """Subtracts the mean of encodings, and brings the variances of all directions closer together.

    Attributes:
        mean: (W,) float32.
        matrix: (W, F) float32, columns in order of falling variance.
    """

    mean: NDArray[np.float32]
    matrix: NDArray[np.float32]

    @property
    def spread(self) -> Vectors:
        """The deviations (F,) of the directions before they were stretched, up to one factor."""
        lengths = np.linalg.norm(self.matrix, axis=0)
        deviations: Vectors = (lengths.min() / lengths).astype(np.float32)
        return deviations

    def apply(self, encodings: NDArray[np.float16]) -> Vectors:
        """Whiten encodings (N, W) to unit vectors (N, F)."""
        whitened = np.empty((len(encodings), self.matrix.shape[1]), np.float32)
        for start in range(0, len(encodings), _BLOCK):
            block = unit(encodings[start : start + _BLOCK].astype(np.float32))  # (block, W)
            whitened[start : start + len(block)] = unit(
                ((block - self.mean) @ self.matrix).astype(np.float32)
            )
        return whitened


def fit_whitening(encodings: NDArray[np.float16], even_items: float = EVEN_ITEMS) -> Whitening:
    """Fit mean and principal components on the encodings of a catalogue of any size.

    The covariance is shrunk towards a multiple of the identity: by 5000 / (5000 + N), and at least
    as much as the error of its estimate demands. So the mean alone is taken off a small catalogue,
    and a large one is whitened. Source of the second: Chen, Wiesel, Eldar, Hero, "Shrinkage
    algorithms for MMSE covariance estimation", IEEE TSP 2010, eq. 23 (OAS). The first is ours.

    Args:
        encodings: (N, W), N at least 1.
        even_items: see EVEN_ITEMS; 0 shrinks by the error alone, 1e12 takes off the mean alone.

    Returns:
        a full-width whitening, F = W. The signs of the columns are fixed, so that the same
        encodings give the same matrix.
    """
    count, width = encodings.shape
    total = np.zeros(width)
    second = np.zeros((width, width))
    for start in range(0, count, _BLOCK):
        block = unit(encodings[start : start + _BLOCK].astype(np.float32)).astype(np.float64)
        total += block.sum(0)
        second += block.T @ block
    centre = total / count
    covariance = second / count - np.outer(centre, centre)
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = variances[::-1], axes[:, ::-1]
    share = max(_error_share(covariance, count), even_items / (even_items + count))
    variances = (1 - share) * variances + share * np.trace(covariance) / width
    largest = np.abs(axes).argmax(0)
    axes = axes * np.sign(axes[largest, np.arange(width)])
    if variances[0] <= 1e-12 / width:  # one item, or all the same
        variances = np.ones(width)
    matrix = axes / np.sqrt(np.maximum(variances, 1e-9 * variances[0]))
    return Whitening((total / (count + _MEAN_PRIOR)).astype(np.float32), matrix.astype(np.float32))


def basis_of(whitening: Whitening, encoder: EncoderInfo, interest: InterestConfig) -> str:
    """Return the name of the basis of states: a hash of encoder, whitening and shape of states."""
    digest = hashlib.sha256(encoder.fingerprint.encode())
    digest.update(np.ascontiguousarray(whitening.mean).tobytes())
    digest.update(np.ascontiguousarray(whitening.matrix).tobytes())
    digest.update(msgspec.json.encode(interest, order="sorted"))
    return digest.hexdigest()[:16]


def _error_share(covariance: NDArray[np.float64], count: int) -> float:
    """Return the share of equal variances that the error of an estimate from N items demands."""
    width = len(covariance)
    trace = float(np.trace(covariance))
    squares = float((covariance * covariance).sum())
    above = (1 - 2 / width) * squares + trace * trace
    below = (count + 1 - 2 / width) * (squares - trace * trace / width)
    return 1.0 if below <= above else above / below
