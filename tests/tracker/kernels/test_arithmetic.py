"""Inner products against numpy's."""

from typing import Any

import numpy as np
import pytest

from tracker.kernels import arithmetic as dots

RANDOM = np.random.default_rng(1)
A = RANDOM.normal(size=37).astype(np.float32)
B = RANDOM.normal(size=37).astype(np.float32)


def both(kernel: Any) -> list[Any]:
    return [kernel, kernel.py_func]


def test_inner_products_are_those_of_numpy() -> None:
    for dot in both(dots.dot):
        assert dot(A, B) == pytest.approx(float(A @ B), abs=1e-4)


def test_three_at_once_are_three_inner_products() -> None:
    queries = RANDOM.normal(size=(3, 37)).astype(np.float32)
    for three_dots in both(dots.three_dots):
        out = np.zeros(3, np.float32)
        three_dots(queries, B, out)
        assert out == pytest.approx(queries @ B, abs=1e-4)


def test_scaled_sums_and_unit_length() -> None:
    for add_scaled, to_unit in zip(both(dots.add_scaled), both(dots.to_unit), strict=True):
        out = A.copy()
        add_scaled(out, B, 0.5)
        assert out == pytest.approx(A + 0.5 * B, abs=1e-6)
        assert to_unit(out)
        assert np.linalg.norm(out) == pytest.approx(1.0, abs=1e-6)
        null = np.zeros(4, np.float32)
        assert not to_unit(null)
        assert (null == 0).all()


def test_square_and_scale_are_those_of_numpy() -> None:
    for square, scale_in_place in zip(both(dots.square), both(dots.scale_in_place), strict=True):
        out = A.copy()
        scale_in_place(out, 0.5)
        assert out == pytest.approx(0.5 * A, abs=1e-6)
        assert square(out) == pytest.approx(0.25 * float(A @ A), rel=1e-5)
        out[3] = np.nan
        assert np.isnan(square(out))
