"""Files are whole or not there."""

from pathlib import Path

import pytest

from tracker.files import new_file, write_whole


def test_file_is_there_when_all_of_it_is_and_one_that_fails_leaves_what_was(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with new_file(path) as temporary:
        temporary.write_text("first")
        assert not path.exists()

    def fail() -> None:
        with new_file(path) as temporary:
            temporary.write_text("sec")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(path.name, "first")]


def test_folder_that_does_not_exist_is_named_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "none" / "a.parquet"
    with pytest.raises(FileNotFoundError) as error, new_file(path):
        raise AssertionError("the block ran")
    assert (error.value.filename, error.value.strerror) == (str(path.parent), "no such folder")


def test_two_writers_of_a_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with new_file(path) as one, new_file(path) as other:
        one.write_text("one")
        write_whole(path, b"third")
        other.write_text("other")
    assert path.read_text() == "one"  # the outer block ends last
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
