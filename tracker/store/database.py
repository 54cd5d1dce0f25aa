"""One write of a partition's database: records, and the changelog offset they belong to."""

from collections.abc import Iterable
from typing import Any

from rocksdict import WriteBatch, WriteOptions

from tracker.explained import Explained, first_line

FAUST_PREFIX = b"__faust"
"""First bytes of the keys under which Faust keeps its own records in a database."""

OFFSET_KEY = b"__faust\0offset__"
"""Key under which Faust keeps the changelog offset that a database has reached."""

TIME_KEY = b"__faust\0tracker-time__"
"""Key of the time up to which a database knows all changes, in seconds."""

_WITHOUT_LOG: Any = WriteOptions()  # its stub calls the property a method
_WITHOUT_LOG.disable_wal = True


class DatabaseError(Explained, OSError):
    """RocksDB cannot write; a restart restores what was committed from the changelog."""


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
