"""A process that has imported all of a worker, and forks one when it is told to.

Three quarters of the processor time of a start are imports, and a random walk starts a worker every
few seconds. A child is a process of its own: a session, a log, an environment and an end like those
of one that a shell starts, and it runs the same command.
"""

import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tracker.demo.processes import ChildProcess, ProcessError

POLL_SECONDS = 0.02


class Nursery:
    """Starts workers by forking; they end with it."""

    def __init__(self, log: Path) -> None:
        """Start the process that forks; its own errors go to `log`."""
        self._lock = threading.Lock()
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.walk.nursery"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip
        assert self._ask({}) == 0

    def _ask(self, request: Mapping[str, Any]) -> int | None:
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answer: int | None = json.loads(self._process.stdout.readline())
            return answer

    def fork(self, log: Path, env: Mapping[str, str], first: str) -> int:
        """Start a worker and return its process id.

        Args:
            log: what it writes is appended there.
            env: its whole environment.
            first: Python that it runs before.
        """
        pid = self._ask({"log": str(log), "env": dict(env), "first": first})
        assert pid is not None
        return pid

    def code_of(self, pid: int) -> int | None:
        """Return the exit code of a child; None while it runs."""
        return self._ask({"pid": pid})

    def close(self) -> None:
        """End it, and the children that still run."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10.0)
        self._process.stdout.close()


class ForkedWorker(ChildProcess):
    """A worker of a nursery, which is used as any child process."""

    def __init__(self, nursery: Nursery, log: Path, env: Mapping[str, str], first: str) -> None:
        """Start it."""
        self.name = "tracker worker"
        self.log = log
        self._nursery = nursery
        self._code: int | None = None
        self._pid = nursery.fork(log, env, first)

    @property
    def pid(self) -> int:
        """The process id."""
        return self._pid

    @property
    def returncode(self) -> int | None:
        """The exit code, None while it runs; minus the signal's number if one ended it."""
        if self._code is None:
            self._code = self._nursery.code_of(self._pid)
        return self._code

    def send_signal(self, number: int) -> None:
        """Send a signal; no-op if the process has ended."""
        if self.returncode is None:
            os.kill(self._pid, number)

    def wait(self, seconds: float) -> int:
        """Wait for its end and return the exit code.

        Raises:
            ProcessError: it still runs after that time.
        """
        until = time.monotonic() + seconds
        while (code := self.returncode) is None:
            if time.monotonic() > until:
                raise ProcessError(f"{self.name} still runs after {seconds:g} s")
            time.sleep(POLL_SECONDS)
        return code

    def stop(self, seconds: float = 10.0) -> int:
        """Stop it with SIGTERM, after `seconds` with SIGKILL, and return the exit code."""
        self.send_signal(15)
        self.send_signal(18)  # a stopped process would never see the first
        try:
            return self.wait(seconds)
        except ProcessError:
            self.send_signal(9)
            return self.wait(10.0)


def _ended(pid: int, children: dict[int, int | None]) -> int | None:
    if children.get(pid) is None:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            children[pid] = os.waitstatus_to_exitcode(status)
    return children[pid]


def _become(request: Mapping[str, Any]) -> None:
    """Be a worker from now on: what a shell would have set up."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    output = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["tracker", "worker"]
    gc.enable()
    if request["first"]:
        exec(request["first"], {})
    from tracker.cli.main import main

    main()


def serve() -> None:
    """Fork when told to, until the input ends; then end the children."""
    import tracker.cli.main
    import tracker.worker.run  # noqa: F401

    gc.collect()
    gc.freeze()
    children: dict[int, int | None] = {}
    while line := sys.stdin.readline():
        request = json.loads(line)
        answer: int | None = 0
        if "pid" in request:
            answer = _ended(request["pid"], children)
        elif "log" in request:
            answer = os.fork()
            if not answer:
                _become(request)
                return
            children[answer] = None
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    for pid in children:
        if _ended(pid, children) is None:
            os.kill(pid, 9)


if __name__ == "__main__":
    serve()
