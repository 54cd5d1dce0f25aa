"""One write of a partition's database: rows, and how far they follow the changelog."""

from collections.abc import Iterable
from typing import Any

from rocksdict import WriteBatch, WriteOptions

from tracker.explained import Explained

OFFSET_KEY = b"__faust\0offset__"
"""Where Faust keeps how far a database has followed its changelog."""

_WITHOUT_LOG: Any = WriteOptions()  # its stub calls the property a method
_WITHOUT_LOG.disable_wal = True


class DatabaseError(Explained, OSError):
    """RocksDB cannot write; what was committed comes back from the changelog."""


def write_rows(database: Any, rows: Iterable[tuple[bytes, bytes | None]], last_offset: int) -> None:
    """Write rows and the offset of the last of them in the changelog, all or nothing.

    RocksDB's own log is left out: the changelog is the log. After a crash the database is as it
    was at its last flush, rows and offset alike, and the rest is read from the changelog. This
    holds because every write of these databases goes through here: one with a log after one
    without would leave a hole.

    Args:
        database: RocksDB of a table's partition.
        rows: key and value, None to delete.
        last_offset: of the last row.

    Raises:
        DatabaseError: it cannot be written.
    """
    batch = WriteBatch(raw_mode=True)
    for key, value in rows:
        if value is None:
            batch.delete(key)
        else:
            batch.put(key, value)
    batch.put(OFFSET_KEY, str(last_offset).encode())
    try:
        database.write(batch, _WITHOUT_LOG)
    except Exception as error:  # rocksdict raises nothing narrower
        raise DatabaseError(
            f"the database in TRACKER_DATA_DIR cannot be written ({error}); is the disk full?"
        ) from error
