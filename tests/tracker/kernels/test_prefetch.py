"""Asking for rows before they are read."""

from typing import Any, cast

import numba
import numpy as np
from numpy.typing import NDArray

from tracker.kernels.native import native, prefetch


@native
def total(rows: NDArray[np.float32], order: NDArray[np.int32]) -> float:
    found = 0.0
    for i in range(len(order)):
        prefetch(rows, order[min(i + 1, len(order) - 1)])
        found += rows[order[i]].sum()
    return found


def test_a_row_asked_for_is_fetched_by_its_lines_and_changes_no_result() -> None:
    rows = np.arange(4 * 40, dtype=np.float32).reshape(4, 40)
    order = np.array([2, 0, 3], np.int32)
    for kernel in (total, cast(Any, total).py_func):
        assert kernel(rows, order) == rows[order].sum()
        assert kernel(rows[:, ::2], order) == rows[order, ::2].sum()
        assert kernel(rows[:, :0], order) == 0.0


def test_a_kernel_that_asks_for_rows_has_the_instruction() -> None:
    compiled: Any = numba.njit(cast(Any, total).py_func)
    compiled(np.zeros((4, 40), np.float32), np.array([2, 0, 3], np.int32))
    (code,) = compiled.inspect_llvm().values()
    assert "call void @llvm.prefetch" in code
