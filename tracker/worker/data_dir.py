"""The data directory of a worker: its lock, and the deletion of its content."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from tracker.explained import Explained

LOCK = "worker.lock"


class DataDirError(Explained):
    """The data directory is in use or cannot be written."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the data directory; the lock ends with the process, however it ends.

    Args:
        folder: the directory; created if it does not exist.

    Raises:
        DataDirError: another process holds the lock, or nothing can be written there.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # states are of persons
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataDirError(
            f"the data directory {folder} cannot be written: {error.strerror}; set TRACKER_DATA_DIR"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise DataDirError(
                f"the data directory {folder} is in use by process {holder}; every worker needs "
                "its own: set TRACKER_DATA_DIR"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def clear(folder: Path) -> int:
    """Delete the content of a data directory, and return its number of bytes.

    Only a folder that a worker has used is touched: it has a lock file.

    Raises:
        DataDirError: a worker uses it, it is not a data directory, or it cannot be deleted.
    """
    if not folder.exists():
        return 0
    if not (folder / LOCK).exists():
        if not any(folder.iterdir()):
            return 0
        raise DataDirError(
            f"{folder} does not look like a data directory (no {LOCK} in it): nothing deleted; "
            "check TRACKER_DATA_DIR"
        )
    with locked(folder):
        removed = 0
        try:
            for entry in folder.iterdir():
                if entry.name == LOCK:
                    continue
                removed += _size(entry)
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        except OSError as error:
            raise DataDirError(f"{error.filename}: cannot be deleted: {error.strerror}") from error
        return removed


def _size(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        return sum(_size(entry) for entry in path.iterdir())
    return path.lstat().st_size
