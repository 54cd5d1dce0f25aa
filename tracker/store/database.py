"""The database of a partition: one write of records and offset, and what is done if it is damaged.

On the path of one commit: see docs/design/one-event-one-commit.md.

The changelog has all that a database holds. A damaged one is deleted, and read from there.
"""

import logging
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rocksdict import WriteBatch, WriteOptions

from tracker.explained import Explained, first_line

log = logging.getLogger(__name__)

CORRUPT = "Corruption"
"""Word in the errors of RocksDB, which are plain exceptions, for damaged files."""

MARK = ".damaged"
"""End of the name of the file beside a database that has to be deleted at the next start."""

FAUST_PREFIX = b"__faust"
"""First bytes of the keys under which Faust keeps its own records in a database."""

OFFSET_KEY = b"__faust\0offset__"
"""Key under which Faust keeps the changelog offset that a database has reached."""

TIME_KEY = b"__faust\0tracker-time__"
"""Key of the time up to which a database knows all changes, in seconds."""

NO_KEY = b"__faust\0none"
"""A key that no record has."""

_WITHOUT_LOG: Any = WriteOptions()  # its stub calls the property a method
_WITHOUT_LOG.disable_wal = True


class DatabaseError(Explained, OSError):
    """RocksDB cannot write; a restart restores what was committed from the changelog."""


class DamagedDatabaseError(DatabaseError):
    """Files of RocksDB are damaged; the next start reads the states from the changelog."""

    def __init__(self, path: str, error: BaseException) -> None:
        super().__init__(
            f"the database {path} is damaged ({first_line(error)}): the worker stops; its next"
            " start deletes the database and reads the states from the changelog. Nothing is lost."
            " Check the disk"
        )


def open_database(open_path: Callable[[Path], Any], path: Path) -> Any:
    """Open a database; delete it first if it is damaged, or was found to be.

    Args:
        open_path: opens the database of a path, or makes an empty one.
        path: folder of the database.
    """
    mark = path.with_name(path.name + MARK)
    if mark.exists():
        shutil.rmtree(path, ignore_errors=True)
        mark.unlink()
        log.warning("%s was damaged: it is deleted, and read from the changelog", path)
    database = None
    try:
        database = open_path(path)
        database.get(OFFSET_KEY)
    except Exception as error:  # rocksdict raises nothing narrower
        if database is not None:
            database.close()
        if CORRUPT not in str(error):
            raise
        log.warning(
            "%s is damaged (%s): it is deleted, and read from the changelog. Check the disk",
            path, first_line(error),
        )  # fmt: skip
        shutil.rmtree(path, ignore_errors=True)
        return open_path(path)
    return database


def read_rows(database: Any, keys: list[bytes]) -> list[bytes | None]:
    """Return the values of keys, None for those that are not there.

    Raises:
        DamagedDatabaseError: the files are damaged; the next `open_database` deletes them.
    """
    try:
        values: list[bytes | None] = database.get(keys)
    except Exception as error:  # rocksdict raises nothing narrower
        if CORRUPT in str(error):
            raise _damaged(database, error) from error
        raise
    return values


def _damaged(database: Any, error: BaseException) -> DamagedDatabaseError:
    """Mark a database for deletion, and return the error that ends the worker."""
    path = Path(database.path())
    path.with_name(path.name + MARK).touch()
    return DamagedDatabaseError(str(path), error)


def replace_rows(database: Any, rows: Iterable[tuple[bytes, bytes | None]]) -> None:
    """Write rows that the changelog has; the offset that the database has reached stays.

    Raises:
        DatabaseError: RocksDB cannot write.
    """
    write_records(database, rows, int(database.get(OFFSET_KEY) or b"0"))


def forgotten_rows(database: Any, prefix: bytes) -> dict[bytes, bytes]:
    """Return the records of a database with a prefix."""
    records = {}
    for key, value in database.items(from_key=prefix):
        if not key.startswith(prefix):
            break
        records[bytes(key)] = bytes(value)
    return records


def erase_deleted(database: Any) -> None:
    """Rewrite the files of a database without what was deleted, so that no byte of it is left.

    RocksDB's list of files names the first and last key of each. It is written again with each
    change of the files, and holds the state before the change: one more change follows.
    """
    database.flush()
    database.compact_range(None, None)
    batch = WriteBatch(raw_mode=True)
    batch.delete(NO_KEY)
    database.write(batch, _WITHOUT_LOG)
    database.flush()


def write_records(
    database: Any,
    records: Iterable[tuple[bytes, bytes | None]],
    last_offset: int,
    time: float | None = None,
) -> None:
    """Write records and the changelog offset of the last of them, all or nothing.

    RocksDB's write-ahead log is off: the changelog is the log. After a crash the database is as it
    was at its last flush, records and offset alike, and the rest is read from the changelog. This
    holds because every write of these databases goes through here: one with a log after one
    without would leave a hole.

    Args:
        database: RocksDB of a table's partition.
        records: key and value, None to delete.
        last_offset: changelog offset of the last record.
        time: when the changelog had no later record, in seconds; by default it stays as it is.

    Raises:
        DatabaseError: RocksDB cannot write.
    """
    batch = WriteBatch(raw_mode=True)
    for key, value in records:
        if value is None:
            batch.delete(key)
        else:
            batch.put(key, value)
    batch.put(OFFSET_KEY, str(last_offset).encode())
    if time is not None:
        batch.put(TIME_KEY, repr(time).encode())
    try:
        database.write(batch, _WITHOUT_LOG)
    except Exception as error:  # rocksdict raises nothing narrower
        if CORRUPT in str(error):
            raise _damaged(database, error) from error
        raise DatabaseError(
            f"RocksDB cannot write to TRACKER_DATA_DIR ({first_line(error)}): check that its disk"
            " is not full, and restart the worker; the states are restored from the changelog"
        ) from error


def offset_of(database: Any) -> int:
    """Return the changelog offset that a database has reached; -1 for none."""
    value = database.get(OFFSET_KEY)
    return -1 if value is None else int(value)


def note_time(database: Any, time: float) -> None:
    """Note that a database knows all changes up to a time, in seconds.

    Raises:
        DatabaseError: RocksDB cannot write.
    """
    offset = offset_of(database)
    if offset >= 0:
        write_records(database, (), offset, time)


def empty_if_older(database: Any, time: float) -> bool:
    """Empty a database that knows changes only up to before a time; return whether it was.

    Compaction removes the mark of a deletion some time after it was written. A database that was
    away for longer would never see it, and what was deleted would be there again. One without a
    noted time was written by an earlier version, and stays.

    Args:
        database: RocksDB of a table's partition.
        time: in seconds.

    Raises:
        DatabaseError: RocksDB cannot write.
    """
    value = database.get(TIME_KEY)
    try:
        is_older = value is not None and not float(value) >= time
    except ValueError:
        is_older = True
    if is_older:
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(b"", b"\xff" * 64)
        database.write(batch, _WITHOUT_LOG)
    return is_older
