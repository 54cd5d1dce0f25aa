"""Files that are whole or not there, and vectors as columns of Parquet files."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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


def check_folder(path: Path) -> None:
    """Check that a file can be written at `path`, before anything is computed for it.

    Raises:
        OSError: its folder does not exist, or nothing can be written there; `filename` is the
            folder.
    """
    folder = path.parent
    if not folder.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "nothing can be written in this folder", str(folder))


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Give another name to write a file under; after the block it is at `path`.

    Where the block fails, what was at `path` stays, and nothing else is left.

    Raises:
        OSError: as `check_folder`, or it cannot be renamed.
    """
    check_folder(path)
    temporary = path.with_name(path.name + ".new")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until a directory's entries are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
