"""A data directory has one worker at a time, and only such a directory is emptied."""

import subprocess
import sys
from pathlib import Path

import pytest

from tracker.worker.data_dir import LOCK, DataDirError, clear, locked


def test_second_holder_is_refused_with_the_first_ones_process_id(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tracker.worker.data_dir import locked\n"
        "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DataDirError, match=f"in use by process {holder.pid}"), locked(tmp_path):
            pass
        with pytest.raises(DataDirError, match="in use"):
            clear(tmp_path)
        holder.kill()
        holder.wait()
    with locked(tmp_path):  # the lock ended with its process
        pass


def test_folder_that_cannot_be_made_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataDirError, match="TRACKER_DATA_DIR"),
        locked(tmp_path / "file" / "data"),
    ):
        pass


def test_state_is_deleted_and_its_size_told(tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / "v1" / "tables").mkdir(parents=True)
        (tmp_path / "v1" / "tables" / "users-0.db").write_bytes(b"x" * 100)
        (tmp_path / "note").write_bytes(b"y" * 20)
    assert clear(tmp_path) == 120
    assert [entry.name for entry in tmp_path.iterdir()] == [LOCK]


def test_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(DataDirError, match="does not look like a data directory"):
        clear(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_no_folder_and_an_empty_one_hold_nothing(tmp_path: Path) -> None:
    assert clear(tmp_path) == 0
    assert clear(tmp_path / "nothing") == 0


def test_nobody_else_can_read_a_data_directory(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with locked(folder):
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "worker.lock").stat().st_mode & 0o777 == 0o600
