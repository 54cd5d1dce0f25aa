"""A call in another process: what it raises comes back, and it ends with its caller."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tracker.artifact.versions import ArtifactError
from tracker.stream.aside import ProcessEndedError, call_aside


def note(path: Path) -> None:
    """Write the process and its priority, and print something as libraries do."""
    sys.stdout.write("no answer\n")
    sys.stdout.flush()
    path.write_text(f"{os.getpid()} {os.nice(0)}", encoding="utf-8")


def refuse(reason: str) -> None:
    raise ArtifactError(reason)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def work(folder: Path) -> None:
    """Work for a long time, and tidy up at the end."""
    busy = folder / "busy"
    busy.touch()
    try:
        time.sleep(100.0)
    finally:
        busy.unlink()


def test_a_call_runs_in_another_process_with_the_lowest_priority(tmp_path: Path) -> None:
    asyncio.run(call_aside(note, tmp_path / "note"))
    process, priority = map(int, (tmp_path / "note").read_text(encoding="utf-8").split())
    assert process != os.getpid()
    assert priority == 19


def test_what_a_call_raises_is_raised() -> None:
    with pytest.raises(ArtifactError, match="altered or cut short"):
        asyncio.run(call_aside(refuse, "altered or cut short"))


def test_a_call_whose_process_is_killed_has_no_answer() -> None:
    with pytest.raises(ProcessEndedError, match="ended with -9"):
        asyncio.run(call_aside(die))


def test_a_call_that_is_cancelled_tidies_up_and_ends(tmp_path: Path) -> None:
    async def cancel() -> None:
        call = asyncio.create_task(call_aside(work, tmp_path))
        async with asyncio.timeout(60.0):
            while not (tmp_path / "busy").exists():
                await asyncio.sleep(0.01)
            call.cancel()
            await asyncio.wait({call})
        assert call.cancelled()
        assert not (tmp_path / "busy").exists()

    asyncio.run(cancel())
