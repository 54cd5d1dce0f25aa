"""Arithmetic in native code that items and users share: inner products, and forward decay.

Source of the decay: Cormode, Shkapenyuk, Srivastava, Xu, "Forward Decay", ICDE 2009. A sum keeps
the time it is valid for (`ref_time`, that of its latest event). A late event adds what decay leaves
of it, so that any order of arrival gives the same sum. Reading never writes.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.native import inlined, native, reordered

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
    """Return the squared length of a float32 vector; NaN if a component is NaN."""
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


@inlined
def copy_row(target: Array, source: Array) -> None:
    """Copy one row to another of its length.

    `target[:] = source` compiles the check of both shapes into the kernel, with its message.
    """
    for d in range(len(source)):
        target[d] = source[d]


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
    """Scale a float32 vector to unit length; return False and leave it unchanged if it is null."""
    length = square(vector)
    if not length > np.float32(1e-20):
        return False
    scale_in_place(vector, np.float32(1.0) / np.sqrt(length))
    return True


_LN2 = math.log(2.0)

_MAX_HALVINGS = 66.0
"""Half-lives after which nothing is left: 2^-66 = 1.4e-20, far below float32's rounding of a sum
that has anything in it, and far above the denormal numbers that make processors slow."""


@native
def whole(value: Any) -> int:
    """Return a small unsigned number as int64; numba makes floats of uint64 mixed with int64."""
    return np.int64(value)  # type: ignore[return-value]


@native
def decay(age_seconds: float, half_life_seconds: float) -> float:
    """Return 2^(-age / half-life): 1 for no age or less, exactly 0 after 66 half-lives."""
    halvings = age_seconds / half_life_seconds
    if halvings <= 0.0:
        return 1.0
    if halvings >= _MAX_HALVINGS:
        return 0.0
    return math.exp(-_LN2 * halvings)


@native
def forward_decay_merge(
    total: Array,
    mass: float,
    ref_time: float,
    other_total: Array,
    other_mass: float,
    other_ref_time: float,
    half_life_seconds: float,
) -> tuple[float, float]:
    """Add another sum to `total` in place at the later of both times; return its mass and time."""
    latest = max(ref_time, other_ref_time)
    factor = decay(latest - ref_time, half_life_seconds)
    other_factor = decay(latest - other_ref_time, half_life_seconds)
    for d in range(total.shape[0]):
        total[d] = total[d] * factor + other_total[d] * other_factor
    return mass * factor + other_mass * other_factor, latest
