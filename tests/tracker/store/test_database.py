"""One write of a database: rows and offset together, and a failure that says where."""

from pathlib import Path
from typing import Any

import pytest
from rocksdict import Options, Rdict

from tracker.store.database import (
    OFFSET_KEY,
    DamagedDatabaseError,
    DatabaseError,
    empty_if_older,
    note_time,
    offset_of,
    open_database,
    read_rows,
    replace_rows,
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


def rows_on_disk(folder: Path) -> None:
    """Make a database of some blocks, and close it."""
    database = opened(folder)
    write_records(database, [(b"u%d" % n, bytes(range(256)) * 4) for n in range(400)], 7)
    database.flush()
    database.close()


def opened(folder: Path) -> Any:
    return open_database(lambda path: Rdict(str(path), options=Options(raw_mode=True)), folder)


def flip(path: Path, *places: int) -> None:
    data = bytearray(path.read_bytes())
    for place in places:
        data[place] ^= 0xFF
    path.write_bytes(data)


def test_flipped_byte_in_a_file_ends_the_worker_and_the_next_start_deletes_the_database(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "users-0.db"
    rows_on_disk(folder)
    (file,) = folder.glob("*.sst")
    flip(file, file.stat().st_size // 2)  # not in the first block, which the opening reads
    database = opened(folder)
    with pytest.raises(DamagedDatabaseError, match="next start deletes the database"):
        read_rows(database, [b"u%d" % n for n in range(400)])
    database.close()
    again = opened(folder)
    assert read_rows(again, [b"u0", OFFSET_KEY]) == [None, None]
    assert "it is deleted, and read from the changelog" in caplog.text
    again.close()
    opened(folder).close()
    assert caplog.text.count("it is deleted") == 1


def test_flipped_byte_where_the_offset_is_deletes_the_database_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "users-0.db"
    rows_on_disk(folder)
    (file,) = folder.glob("*.sst")
    flip(file, 3)
    database = opened(folder)
    assert read_rows(database, [b"u0", OFFSET_KEY]) == [None, None]
    assert "users-0.db is damaged" in caplog.text
    database.close()


@pytest.mark.parametrize("name", ["MANIFEST-*", "CURRENT", "*.sst"])
def test_database_that_cannot_be_opened_is_deleted_and_opened_empty(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "users-0.db"
    rows_on_disk(folder)
    (file,) = folder.glob(name)
    if name == "*.sst":
        file.unlink()
    else:
        flip(file, file.stat().st_size // 2)
    database = opened(folder)
    assert read_rows(database, [b"u0", OFFSET_KEY]) == [None, None]
    assert "users-0.db is damaged" in caplog.text
    database.close()


def test_database_that_another_process_holds_is_not_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "users-0.db"
    database = opened(folder)
    write_records(database, [(b"u", b"1")], 7)
    with pytest.raises(Exception, match="lock"):
        opened(folder)
    assert read_rows(database, [b"u"]) == [b"1"]
    database.close()


def test_replaced_rows_leave_the_offset_of_the_changelog(tmp_path: Path) -> None:
    database = opened(tmp_path / "users-0.db")
    write_records(database, [(b"u", b"1"), (b"v", b"2")], 7)
    replace_rows(database, [(b"u", b"3"), (b"v", None)])
    assert read_rows(database, [b"u", b"v", OFFSET_KEY]) == [b"3", None, b"7"]
    database.close()
