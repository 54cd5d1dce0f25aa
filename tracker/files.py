"""Files that are whole or not there, and vectors as columns of Parquet files."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

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
    """Yield another name to write a file under; after the block it is at `path`, and on disk.

    1. The block writes the file under a name of its own in the same folder.
    2. It is synced, then renamed to `path` in one step, then its folder is synced: a crash leaves
       the old file or the new one, whole.

    If the block fails, what was at `path` stays, and nothing else is left.

    Raises:
        OSError: as `check_folder`, or it cannot be synced or renamed.
    """
    check_folder(path)
    # 1. A name of its own: two processes may write the same file.
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.new")
    try:
        yield temporary
        # 2. Sync, rename, sync.
        sync_file(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file in one step, as `new_file`: readers find the old content or the new one."""
    with new_file(path) as temporary:
        temporary.write_bytes(content)


def write_synced(path: Path, content: bytes) -> None:
    """Write a file in place and wait until it is on disk, for folders that nobody reads yet."""
    path.write_bytes(content)
    sync_file(path)


def sync_file(path: Path) -> None:
    """Wait until a file's content is on disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Wait until a directory's entries are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
