"""The process of a worker: its log, web port, deadline, threads and garbage collection.

What can break one event's path: see docs/design/one-event-one-commit.md.
"""

import asyncio
import contextlib
import errno
import gc
import logging
import math
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from pythonjsonlogger.json import JsonFormatter

from tracker.explained import ONCE, Explained
from tracker.kafka.denials import denial_of
from tracker.settings import LogFormat

FLOOD_SECONDS = 10.0
"""Time in which one of equal lines is written, of libraries and of ours."""

MOST_OPEN_FILES = 1_000_000

DATABASE_FILES, LEAST_FILES = 256, 8
"""Files that a database keeps open, at most and at least."""

OTHER_FILES = 512
"""Open files that are left to connections, artifacts and libraries."""

FLOODS = ("aiokafka", "faust", "mode", "kafka")
"""Libraries that are quiet unless something is wrong."""

SWITCH_SECONDS = 0.0005
"""Maximum time that a thread keeps the interpreter while another one waits for it. Python's 5 ms
made answers over HTTP and the lists of the same time take twice as long."""

OFF_TOPIC = ("Topic creation disabled",)
"""Beginnings of Faust's lines about topics that `tracker topics` has created."""

log = logging.getLogger(__name__)


class PortError(Explained):
    """The port of the web server is not available."""


def _later(seconds: float, run: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, run)
    timer.daemon = True
    timer.start()


class FloodFilter(logging.Filter):
    """Passes one of equal lines at once, and at the end of a time the last one with the number.

    Lines are equal if they differ in their values only. While a broker is away the clients write
    thousands of them; so would we, of each record of a producer that does something wrong. What
    ends a worker always passes, and so does a line with `extra=ONCE`, which its sender says once.

    Args:
        seconds: time in which one line passes.
        clock: monotonic time, in seconds.
        later: calls a function after so many seconds.
    """

    def __init__(
        self,
        seconds: float = FLOOD_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        later: Callable[[float, Callable[[], None]], None] = _later,
    ) -> None:
        super().__init__()
        self._seconds = seconds
        self._clock = clock
        self._later = later
        self._passed: dict[tuple[str, str], float] = {}  # when the last line passed
        self._rest: dict[tuple[str, str], tuple[int, logging.LogRecord]] = {}  # number, and last

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a line is written."""
        text = str(record.msg)
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and (denial_of(error) is not None or isinstance(error, Explained)):
            record.exc_info = None  # no bug: its message, or a line of its own, says what to do
        if record.levelno < logging.WARNING and "[^" in record.getMessage():
            return False  # a service of Faust's that starts or stops
        if text.startswith(OFF_TOPIC):
            return False
        if record.__dict__.pop("once", False) or record.levelno >= logging.CRITICAL:
            return True
        key = (record.name, text[:80])
        now = self._clock()
        rest = self._passed.get(key, -math.inf) + self._seconds - now
        if rest > 0.0:
            count, _ = self._rest.get(key, (0, record))
            self._rest[key] = count + 1, record
            if count == 0:
                self._later(rest, lambda: self._say(key))
            return False
        if len(self._passed) > 1000:
            self._passed.clear()
            self._rest.clear()
        self._passed[key] = now
        self._count(record, self._rest.pop(key, (0, record))[0])
        return True

    def say_all(self) -> None:
        """Write what is held of all lines: the worker ends."""
        for key in list(self._rest):
            self._say(key)

    def _say(self, key: tuple[str, str]) -> None:
        """Write the last of the lines that were held, with the number of the others."""
        count, record = self._rest.pop(key, (0, None))
        if record is not None:
            self._passed[key] = self._clock()
            self._count(record, count - 1)
            record.__dict__.update(ONCE)
            logging.getLogger(record.name).handle(record)

    @staticmethod
    def _count(record: logging.LogRecord, others: int) -> None:
        if others:
            record.msg = f"{record.getMessage()} ({others} more times)"
            record.args = ()


class _FloodHandler(logging.StreamHandler[TextIO]):
    """Writes lines to stderr but for a flood of equal ones, whose number comes at the end."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._flood = FloodFilter()
        self.addFilter(self._flood)

    def say_all(self) -> None:
        """Write what is held."""
        self._flood.say_all()

    def close(self) -> None:
        """Write what is held, and close; `logging.shutdown` calls it."""
        self.say_all()
        super().close()


def write_held_lines() -> None:
    """Write the lines of log that are held, so that a worker's last line is the last."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _FloodHandler):
            handler.say_all()


def set_up_logging(level: str, form: LogFormat = "text") -> None:
    """Log to stderr; libraries only from WARNING on, unless the level is DEBUG.

    In JSON each line is an object with `time`, `level`, `logger` and `message`; with `exc_info` if
    there is a traceback.
    """
    handler = _FloodHandler()
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
        if form == "text"
        else JsonFormatter(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger", "timestamp": "time"},
            timestamp=True,
            json_ensure_ascii=False,
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    if level != "DEBUG":
        for name in (*FLOODS, "numba", "asyncio", "aiohttp", "faiss"):
            logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))


async def check_port(host: str, port: int) -> None:
    """Check the web server's port before the group is joined, by listening on it for a moment.

    Raises:
        PortError: another process listens there, or the address is not one of this machine.
    """
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(asyncio.Protocol, host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortError(
                f"port {port} of {host} is in use, perhaps by another worker; set TRACKER_WEB_PORT"
                " to a free one, or to 0 for no web server"
            ) from error
        raise PortError(
            f"cannot listen on port {port} of {host}: {error.strerror}; set TRACKER_WEB_HOST"
            " to an address of this machine, and TRACKER_WEB_PORT to a port that is allowed"
        ) from error
    server.close()
    await server.wait_closed()


def raise_open_files() -> int:
    """Raise the limit of open files to what this user may have, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # more than the system allows
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_OPEN_FILES if soft == resource.RLIM_INFINITY else min(soft, MOST_OPEN_FILES)


def open_files_of(limit: int, databases: int) -> int:
    """Return how many files each of the databases may keep open, within a limit of the process.

    >>> open_files_of(1024, 24), open_files_of(1_000_000, 24)
    (21, 256)
    """
    return max(LEAST_FILES, min(DATABASE_FILES, (limit - OTHER_FILES) // max(1, databases)))


def calm_garbage_collector() -> None:
    """Exclude the objects loaded so far from collections, and collect less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def share_interpreter() -> None:
    """Set how soon a thread hands the interpreter to one that waits for it."""
    sys.setswitchinterval(SWITCH_SECONDS)


def kill_after(after_seconds: float) -> threading.Timer:
    """Kill the process after a deadline, whatever hangs; uncommitted events are repeated."""

    def kill() -> None:
        log.critical("shutdown timed out after %.0f s: killing the process", after_seconds)
        logging.shutdown()
        os._exit(1)

    timer = threading.Timer(after_seconds, kill)
    timer.daemon = True
    timer.start()
    return timer
