"""Inner products and sums of vectors in native code, the innermost loops."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.native import reordered

Array = NDArray[Any]


@reordered
def dot(a: Array, b: Array) -> float:
    """Return the inner product of two float32 vectors of one length."""
    total = np.float32(0.0)
    for d in range(len(a)):
        total += a[d] * b[d]
    return total  # type: ignore[return-value]


@reordered
def square(vector: Array) -> float:
    """Return the squared length of a float32 vector; NaN where it has one."""
    total = np.float32(0.0)
    for d in range(len(vector)):
        total += vector[d] * vector[d]
    return total  # type: ignore[return-value]


@reordered
def three_dots(queries: Array, vector: Array, out: Array) -> None:
    """Write the inner products of three float32 vectors (3, F) with a fourth."""
    first = np.float32(0.0)
    second = np.float32(0.0)
    third = np.float32(0.0)
    for d in range(len(vector)):
        component = vector[d]
        first += queries[0, d] * component
        second += queries[1, d] * component
        third += queries[2, d] * component
    out[0] = first
    out[1] = second
    out[2] = third


@reordered
def add_scaled(out: Array, vector: Array, scale: float) -> None:
    """Add `scale` times a float32 vector to another."""
    factor = np.float32(scale)
    for d in range(len(out)):
        out[d] += factor * vector[d]


@reordered
def scale_in_place(vector: Array, scale: float) -> None:
    """Multiply a float32 vector by `scale`."""
    factor = np.float32(scale)
    for d in range(len(vector)):
        vector[d] *= factor


@reordered
def to_unit(vector: Array) -> bool:
    """Scale a float32 vector to unit length; False, and unchanged, where it is null."""
    length = square(vector)
    if not length > np.float32(1e-20):
        return False
    scale_in_place(vector, np.float32(1.0) / np.sqrt(length))
    return True
