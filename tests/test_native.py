"""The decorator of kernels."""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from tracker.native import native


@native
def doubled(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return 2.0 * values


def test_a_kernel_gives_what_its_plain_function_gives() -> None:
    values = np.arange(3.0)
    np.testing.assert_array_equal(doubled(values), [0.0, 2.0, 4.0])
    np.testing.assert_array_equal(cast(Any, doubled).py_func(values), [0.0, 2.0, 4.0])
