"""A call in another process: what it raises comes back, and it ends with its caller."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.aside_calls import (
    RefusedError,
    die,
    fail_in_two_parts,
    note,
    note_score,
    refuse,
    work,
)
from tracker.stream.aside import ProcessEndedError, call_aside

AT_MOST_SECONDS = 100.0


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_error_that_cannot_be_pickled_comes_back_as_its_text() -> None:
    with pytest.raises(RuntimeError, match="TwoPartsError: a file: cut short"):
        asyncio.run(call_aside(fail_in_two_parts))


def test_a_call_runs_in_another_process_with_the_lowest_priority(tmp_path: Path) -> None:
    asyncio.run(call_aside(note, tmp_path / "note"))
    process, priority = map(int, (tmp_path / "note").read_text(encoding="utf-8").split())
    assert process != os.getpid()
    assert priority == 19


def test_what_a_call_raises_is_raised() -> None:
    with pytest.raises(RefusedError, match="altered or cut short"):
        asyncio.run(call_aside(refuse, "altered or cut short"))


def test_a_call_whose_process_is_killed_has_no_answer() -> None:
    with pytest.raises(ProcessEndedError, match="ended with -9"):
        asyncio.run(call_aside(die))


def test_files_of_the_working_directory_do_not_stand_for_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tracker.py", "pickle.py"):
        (tmp_path / name).write_text("raise RuntimeError('another file')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    asyncio.run(call_aside(note, tmp_path / "note"))
    assert (tmp_path / "note").exists()


def test_where_memory_is_short_the_system_takes_the_call_and_not_its_caller(tmp_path: Path) -> None:
    asyncio.run(call_aside(note_score, tmp_path / "score"))
    assert (tmp_path / "score").read_text(encoding="utf-8").strip() == "1000"


@pytest.mark.usefixtures("usual_priority")
def test_a_call_whose_caller_is_killed_tidies_up_and_ends(tmp_path: Path) -> None:
    call = (
        "import asyncio, pathlib; from tests.aside_calls import work;"
        " from tracker.stream.aside import call_aside;"
        f" asyncio.run(call_aside(work, pathlib.Path({str(tmp_path)!r})))"
    )
    with subprocess.Popen([sys.executable, "-c", call]) as caller:
        wait_for(lambda: (tmp_path / "busy").exists(), AT_MOST_SECONDS)
        caller.kill()
    wait_for(lambda: not (tmp_path / "busy").exists(), AT_MOST_SECONDS)


@pytest.mark.usefixtures("usual_priority")
def test_a_call_that_is_cancelled_tidies_up_and_ends(tmp_path: Path) -> None:
    async def cancel() -> None:
        call = asyncio.create_task(call_aside(work, tmp_path))
        async with asyncio.timeout(AT_MOST_SECONDS):
            while not (tmp_path / "busy").exists():
                await asyncio.sleep(0.01)
            call.cancel()
            await asyncio.wait({call})
        assert call.cancelled()
        assert not (tmp_path / "busy").exists()

    asyncio.run(cancel())
