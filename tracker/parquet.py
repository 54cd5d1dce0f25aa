"""Vectors as columns of Parquet files."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def vector_lists(vectors: NDArray[Any]) -> pa.Array:
    """Return vectors (M, D) as M lists of float32, without a Python object a number.

    >>> vector_lists(np.eye(2)).to_pylist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).ravel())
    offsets = np.arange(0, len(flat) + 1, vectors.shape[1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), flat)
