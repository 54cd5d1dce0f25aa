"""The worker's process: a log without floods, a free port, a deadline, a calm collector."""

import asyncio
import gc
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest
from aiokafka.errors import GroupAuthorizationFailedError

from tracker.demo.processes import free_port
from tracker.explained import ONCE
from tracker.store.database import DatabaseError
from tracker.worker.process import (
    SWITCH_SECONDS,
    FloodFilter,
    PortError,
    calm_garbage_collector,
    check_port,
    set_up_logging,
    share_interpreter,
    write_held_lines,
)


def line(name: str, text: str, level: int = logging.WARNING, *args: object) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, args, None)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Later:
    """What was asked for later, to be run by the test."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, Callable[[], None]]] = []

    def __call__(self, seconds: float, run: Callable[[], None]) -> None:
        self.asked.append((seconds, run))


@contextmanager
def written_through(flood: FloodFilter) -> Iterator[list[str]]:
    """Yield the lines that a filter lets through to a handler of all loggers."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    handler.addFilter(flood)
    logging.getLogger().addHandler(handler)
    yield messages
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize("name", ["aiokafka.client", "tracker.stream.x"])
def test_of_equal_lines_one_comes_at_once_and_the_last_in_a_while_with_their_number(
    name: str,
) -> None:
    clock, later = Clock(), Later()
    flood = FloodFilter(10.0, clock, later)
    sort = "%s, offset %d: the event has another key"
    passed = [flood.filter(line(name, sort, logging.WARNING, "t", n)) for n in range(1500)]
    assert sum(passed) == passed[0] == 1
    assert flood.filter(line(name, "another sort"))
    clock.now += 10.0
    ((seconds, say),) = later.asked
    assert seconds == 10.0
    with written_through(flood) as messages:
        say()
        say()  # it is said
    assert messages == ["t, offset 1499: the event has another key (1498 more times)"]
    clock.now += 9.0
    assert not flood.filter(line(name, sort, logging.WARNING, "t", 1500))


def test_line_that_comes_before_the_held_ones_are_said_has_their_number() -> None:
    clock, later = Clock(), Later()
    flood = FloodFilter(10.0, clock, later)
    for number in range(5):
        flood.filter(line("aiokafka.client", "Unable connect to %s", logging.ERROR, number))
    clock.now += 11.0
    last = line("aiokafka.client", "Unable connect to %s", logging.ERROR, 9)
    assert flood.filter(last)
    assert last.getMessage() == "Unable connect to 9 (4 more times)"


def test_held_lines_are_written_when_their_time_is_over() -> None:
    with written_through(FloodFilter(0.05)) as messages:
        for number in range(2):
            logging.getLogger("tracker.x").warning("line %d", number)
        deadline = time.monotonic() + 10.0
        while len(messages) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert messages == ["line 0", "line 1"]


def test_what_ends_a_worker_and_what_is_said_once_always_passes() -> None:
    flood = FloodFilter()
    for _ in range(20):
        assert flood.filter(line("tracker.worker.plane", "the worker stops", logging.CRITICAL))
        once = line("tracker.stream.intake", "%s: %s")
        once.__dict__.update(ONCE)
        assert flood.filter(once)
        assert not hasattr(once, "once")  # or it would be a field of the line as JSON


def test_chatter_of_services_is_left_out_but_not_their_warnings() -> None:
    flood = FloodFilter()
    assert not flood.filter(line("tracker.worker.app", "[^-App]: Starting...", logging.INFO))
    assert flood.filter(line("tracker.worker.app", "[^-App]: Failing...", logging.WARNING))
    assert not flood.filter(line("faust.x", "Topic creation disabled! Can't create topic y"))


def test_denial_or_full_disk_is_shown_without_a_traceback_and_a_bug_with_one() -> None:
    for error, is_bug in (
        (GroupAuthorizationFailedError("shop"), False),
        (DatabaseError("the disk is full"), False),
        (KeyError("a"), True),
    ):
        crash = line("faust.transport.consumer", "Crashed reason=%r", logging.ERROR, error)
        crash.exc_info = (type(error), error, None)
        assert FloodFilter().filter(crash)
        assert (crash.exc_info is not None) == is_bug


def test_memory_of_lines_is_bounded() -> None:
    flood = FloodFilter(later=Later())
    for number in range(1500):
        flood.filter(line("mode.x", f"{number} is a line of its own"))
    assert len(flood._passed) <= 1001


@pytest.fixture
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("aiokafka", "faust", "numba")}
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, old in levels.items():
        logging.getLogger(name).setLevel(old)


def test_log_goes_to_stderr_with_the_libraries_held_down(root_logger: logging.Logger) -> None:
    set_up_logging("INFO")
    assert root_logger.level == logging.INFO
    assert logging.getLogger("aiokafka").level == logging.WARNING
    (handler,) = root_logger.handlers
    assert isinstance(handler, logging.StreamHandler)


def test_log_in_json_is_one_object_a_line(root_logger: logging.Logger) -> None:
    set_up_logging("INFO", "json")
    formatter = root_logger.handlers[0].formatter
    assert formatter is not None
    plain = line("tracker.worker.plane", "tracker-events-%d waits for \n\u00e9", logging.ERROR, 3)
    read = json.loads(formatter.format(plain))
    assert read["message"] == "tracker-events-3 waits for \n\u00e9"
    assert (read["level"], read["logger"]) == ("ERROR", "tracker.worker.plane")
    assert datetime.fromisoformat(read["time"]).tzinfo is not None
    assert "\n" not in formatter.format(plain)
    try:
        raise ValueError("odd")
    except ValueError:
        record = logging.LogRecord("t", logging.ERROR, "", 0, "a bug", (), sys.exc_info())
    assert "ValueError: odd" in json.loads(formatter.format(record))["exc_info"]


def test_a_thread_that_waits_for_the_interpreter_soon_has_it() -> None:
    before = sys.getswitchinterval()
    try:
        share_interpreter()
        assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS)
    finally:
        sys.setswitchinterval(before)


def test_collector_leaves_what_is_loaded_alone() -> None:
    thresholds = gc.get_threshold()
    try:
        calm_garbage_collector()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold()[0] >= 10_000
    finally:
        gc.set_threshold(*thresholds)  # what is frozen stays so: see tests/conftest.py


def test_port_that_is_free_is_left_free_and_one_in_use_is_refused() -> None:
    port = free_port()
    asyncio.run(check_port("127.0.0.1", port))
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(PortError, match=f"port {port} of 127.0.0.1 is in use.*TRACKER_WEB_"):
            asyncio.run(check_port("127.0.0.1", port))
    asyncio.run(check_port("127.0.0.1", port))


def test_address_of_another_machine_is_refused() -> None:
    with pytest.raises(PortError, match=r"on port \d+ of 192\.0\.2\.1: .*set TRACKER_WEB_HOST"):
        asyncio.run(check_port("192.0.2.1", free_port()))


def test_process_that_hangs_leaves_by_force_with_status_1() -> None:
    program = (
        "import logging, time\n"
        "logging.basicConfig()\n"
        "from tracker.worker.process import kill_after\n"
        "kill_after(0.2)\n"
        "time.sleep(60)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=50, check=False
    )
    assert ended.returncode == 1
    assert b"killing the process" in ended.stderr


def test_lines_that_are_held_come_before_the_last_line(
    root_logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging("INFO")
    for row in range(4):
        logging.getLogger("tracker.x").error("row %d is bad", row)
    write_held_lines()
    logging.getLogger("tracker.x").info("worker stopped cleanly")
    assert [one.split(": ", 1)[1] for one in capsys.readouterr().err.splitlines()] == [
        "row 0 is bad", "row 3 is bad (2 more times)", "worker stopped cleanly",
    ]  # fmt: skip


@pytest.mark.parametrize("end", ["", "; from tracker.worker.plane import exit_now; exit_now(0)"])
def test_lines_that_are_held_are_written_when_the_worker_ends(end: str) -> None:
    code = (
        "import logging; from tracker.worker.process import set_up_logging; set_up_logging('INFO');"
        "[logging.getLogger('tracker.x').error('row %d is bad', row) for row in range(4)]"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code + end], capture_output=True, text=True, check=True, timeout=60
    )
    assert [one.split(": ", 1)[1] for one in ended.stderr.splitlines()] == [
        "row 0 is bad", "row 3 is bad (2 more times)",
    ]  # fmt: skip
