"""Functions that a test has another process call: it loads nothing else, and starts fast."""

import os
import signal
import sys
import time
from pathlib import Path


class RefusedError(Exception):
    """Is raised in the other process."""


def note(path: Path) -> None:
    """Write the process and its priority, and print something as libraries do."""
    sys.stdout.write("no answer\n")
    sys.stdout.flush()
    path.write_text(f"{os.getpid()} {os.nice(0)}", encoding="utf-8")


def refuse(reason: str) -> None:
    raise RefusedError(reason)


class TwoPartsError(Exception):
    """Cannot be made again of its message, so pickle writes it and cannot read it."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


def fail_in_two_parts() -> None:
    raise TwoPartsError("a file", "cut short")


def note_score(path: Path) -> None:
    path.write_text(Path("/proc/self/oom_score_adj").read_text(encoding="utf-8"), encoding="utf-8")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def work(folder: Path) -> None:
    """Work for a long time, and tidy up at the end."""
    busy = folder / "busy"
    busy.touch()
    try:
        time.sleep(1000.0)
    finally:
        busy.unlink()
