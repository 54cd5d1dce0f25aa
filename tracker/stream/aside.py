"""A call in a process of its own, which takes only the time that all others leave.

What computes for seconds in a thread of the worker makes every list of these seconds late: it takes
the interpreter's lock in turns with them, and the cores.
"""

import asyncio
import contextlib
import ctypes
import os
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1
"""Asks Linux for a signal when the parent ends."""


class ProcessEndedError(OSError):
    """The process ended before it had an answer."""


async def call_aside(function: Callable[..., object], *arguments: object) -> None:
    """Call a function in a new process, and wait until it has returned.

    If the caller is cancelled or ends, the process is told to end. Where memory is short, the
    system takes the process, and not the caller.

    Args:
        function: of a module; what it returns is dropped.
        arguments: of the function; they are pickled.

    Raises:
        Exception: what the function raises; a RuntimeError with its text if it cannot be pickled.
        ProcessEndedError: the process was killed, for want of memory for example.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # a file of the working directory is no module of ours
        __file__,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        answer, _ = await process.communicate(
            pickle.dumps((os.getpid(), sys.path)) + pickle.dumps((function, arguments))
        )
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended
            process.terminate()
        await process.wait()
    if process.returncode != 0:
        raise ProcessEndedError(f"its process ended with {process.returncode}")
    error = pickle.loads(answer)
    if error is not None:
        raise error


def _answer() -> None:
    """Call what stdin names, and write its exception to stdout, or None."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # half a copy is removed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's matter
    caller, sys.path[:] = pickle.load(sys.stdin.buffer)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != caller:
        sys.exit(1)
    os.nice(19)
    with contextlib.suppress(OSError):  # a system that hides it
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    error: Exception | None = None
    function, arguments = pickle.load(sys.stdin.buffer)
    try:
        function(*arguments)
    except Exception as raised:
        error = raised
    answers.write(_pickled(error))
    answers.close()


def _pickled(error: Exception | None) -> bytes:
    """Return an exception as bytes; one that cannot be pickled and read again, as its text."""
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)
    except Exception:  # what pickle raises is up to the exception's class
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return pickled


if __name__ == "__main__":
    _answer()
