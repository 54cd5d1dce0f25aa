"""Child processes of the demonstration and of tests: started, watched, ended with their parent."""

import contextlib
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tracker.explained import Explained

START_SECONDS = 15.0

STOP_SECONDS = 10.0

FIRST_PORT, END_PORT = 20_000, 32_768
"""Ports to listen on: below those that Linux gives to outgoing connections."""

PORT_ATTEMPTS = 100


class ProcessError(Explained):
    """A child process did not start, ended by itself or had to be killed."""


class ChildProcess:
    """A child process whose output goes to a file, and which ends with its parent.

    It runs in a session of its own, so that a Ctrl-C in the terminal reaches only the parent, which
    then ends its children in the right order.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Start the command.

        Args:
            name: what people call it, for messages.
            command: program and arguments.
            log: file that its output is appended to.
            env: its whole environment; by default ours.
            cwd: its working directory; by default ours.

        Raises:
            ProcessError: the program could not be started.
        """
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    list(command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=None if env is None else dict(env),
                    cwd=cwd,
                    start_new_session=True,
                )
        except OSError as error:
            raise ProcessError(f"{name} could not be started: {error}") from error

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, None while it runs; minus the signal's number if one ended it."""
        return self._process.poll()

    def check(self) -> None:
        """Raise an error if the process has ended.

        Raises:
            ProcessError: it has ended; the message holds the last lines it wrote.
        """
        code = self.returncode
        if code is not None:
            raise ProcessError(f"{self.name} ended with code {code}; it wrote:\n{self.tail()}")

    def tail(self, lines: int = 15) -> str:
        """The last lines of its output."""
        try:
            text = self.log.read_bytes()[-16384:].decode("utf-8", "replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def send_signal(self, number: int) -> None:
        """Send a signal; no-op if the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Wait for its end and return the exit code.

        Raises:
            ProcessError: it still runs after that time.
        """
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise ProcessError(f"{self.name} still runs after {seconds:g} s") from error

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """Stop it with SIGTERM, after `seconds` with SIGKILL, and return the exit code."""
        if self._process.poll() is None:
            self.send_signal(signal.SIGTERM)
            self.send_signal(signal.SIGCONT)  # a stopped process would never see the first
            try:
                return self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.send_signal(signal.SIGKILL)
        return self._process.wait()

    def __enter__(self) -> Self:
        """Return the running process."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self.stop()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now.

    It is none of those that a system gives to connections by itself: one of them could have it
    before the process that is to listen.
    """
    for _ in range(PORT_ATTEMPTS):
        port = FIRST_PORT + secrets.randbelow(END_PORT - FIRST_PORT)
        with socket.socket() as probe, contextlib.suppress(OSError):  # taken: try another
            probe.bind(("127.0.0.1", port))
            return port
    raise ProcessError(
        f"{PORT_ATTEMPTS} ports from {FIRST_PORT} to {END_PORT - 1} are all taken; a demonstration"
        " needs a few that are free"
    )


def wait_for_port(process: ChildProcess, port: int, seconds: float = START_SECONDS) -> None:
    """Wait until the process listens on the port.

    Raises:
        ProcessError: it ended, or does not listen after that time.
    """
    deadline = time.monotonic() + seconds
    while True:
        process.check()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            if time.monotonic() > deadline:
                raise ProcessError(
                    f"{process.name} does not listen on port {port} after {seconds:g} s; "
                    f"it wrote:\n{process.tail()}"
                ) from None
            time.sleep(0.05)
        else:
            return
