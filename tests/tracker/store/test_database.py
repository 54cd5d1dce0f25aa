"""One write of a database: rows and offset together, and a failure that says where."""

from pathlib import Path
from typing import Any

import pytest
from rocksdict import Options, Rdict

from tracker.store.database import (
    OFFSET_KEY,
    DatabaseError,
    empty_if_older,
    note_time,
    offset_of,
    write_records,
)


def test_rows_and_their_offset_are_there_after_the_database_is_closed(tmp_path: Path) -> None:
    database = Rdict(str(tmp_path / "db"), options=Options(raw_mode=True))
    write_records(database, [(b"a", b"1"), (b"b", b"2")], 7)
    write_records(database, [(b"a", None)], 9)
    database.close()
    again = Rdict(str(tmp_path / "db"), options=Options(raw_mode=True))
    assert dict(again.items()) == {b"b": b"2", OFFSET_KEY: b"9"}
    again.close()


def test_database_without_a_time_is_of_an_earlier_version_and_stays(tmp_path: Path) -> None:
    database = Rdict(str(tmp_path / "db"), options=Options(raw_mode=True))
    write_records(database, [(b"a", b"1")], 7)
    assert not empty_if_older(database, 1e12)
    note_time(database, 100.0)
    assert not empty_if_older(database, 100.0)
    assert (database.get(b"a"), offset_of(database)) == (b"1", 7)
    assert empty_if_older(database, 100.5)
    assert list(database.items()) == []
    note_time(database, 100.0)  # an empty one has read nothing
    assert list(database.items()) == []
    database.close()


def test_database_that_cannot_be_written_is_named_with_what_to_look_at() -> None:
    class Full:
        def write(self, batch: Any, options: Any) -> None:
            raise Exception("IO error: No space left on device")

    with pytest.raises(DatabaseError, match=r"TRACKER_DATA_DIR.*No space left.*is not full"):
        write_records(Full(), [(b"a", b"1")], 0)
