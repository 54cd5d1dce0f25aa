"""The indexer and a worker as processes of this machine, on topics of their own."""

import asyncio
import contextlib
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from tracker.demo.processes import ChildProcess, ProcessError
from tracker.kafka.cluster import TopicError, topics_of
from tracker.kafka.connect import admin_client
from tracker.kafka.topics import ensure_topics
from tracker.settings import PREFIX, Settings

BUILD_SECONDS = 3600.0
READY_SECONDS = 240.0


def _nothing() -> None:
    """No-op."""


def worker_environment(settings: Settings) -> dict[str, str]:
    """Return our environment with these settings in it, for a worker process."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is not None:
            secret = getattr(value, "get_secret_value", None)
            env[PREFIX + name.upper()] = str(value if secret is None else secret())
    return env


async def build_index(
    items: Sequence[str],
    artifacts: str,
    log: Path,
    arguments: Sequence[str] = (),
    on_wait: Callable[[], None] = _nothing,
) -> None:
    """Run `indexer build` to its end.

    Args:
        items: catalogue files.
        artifacts: folder or URL to which it publishes.
        log: what it writes goes there.
        arguments: further flags.
        on_wait: called ten times a second.

    Raises:
        ProcessError: it failed; the message has its last lines.
    """
    command = [sys.executable, "-m", "indexer", "build", *items, "--out", artifacts, *arguments]
    env = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    with ChildProcess("indexer build", command, log, env) as process:
        deadline = time.monotonic() + BUILD_SECONDS
        while process.returncode is None:
            on_wait()
            if time.monotonic() > deadline:
                raise ProcessError(f"indexer build still runs after {BUILD_SECONDS:g} s")
            await asyncio.sleep(0.1)
        if process.returncode != 0:
            process.check()


@contextlib.asynccontextmanager
async def own_topics(settings: Settings, delete: bool) -> AsyncIterator[None]:
    """Create the topics, and delete them at the end if `delete`.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: topics of that name exist and do not fit each other.
    """
    reports = await ensure_topics(settings)
    wrong = [problem for report in reports for problem in report.problems]
    if wrong:
        raise TopicError("; ".join(wrong))
    try:
        yield
    finally:
        if delete:
            async with admin_client(settings) as admin:
                await admin.delete_topics(list(topics_of(settings).all()))


def worker_process(settings: Settings, log: Path) -> ChildProcess:
    """Start `tracker worker` with these settings and no others.

    Raises:
        ProcessError: it could not be started.
    """
    command = [sys.executable, "-m", "tracker", "worker"]
    return ChildProcess("tracker worker", command, log, worker_environment(settings))


async def until_ready(
    worker: ChildProcess,
    settings: Settings,
    on_wait: Callable[[], None] = _nothing,
    seconds: float = READY_SECONDS,
) -> None:
    """Wait until the worker's `/readyz` says so.

    Raises:
        ProcessError: it ended, or is not ready after that time.
    """
    url = f"http://{settings.web_host}:{settings.web_port}/readyz"
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(answers_ok, url):
        on_wait()
        worker.check()
        if time.monotonic() > deadline:
            raise ProcessError(
                f"the worker is not ready after {seconds:g} s; it wrote:\n{worker.tail()}"
            )
        await asyncio.sleep(0.1)


def answers_ok(url: str) -> bool:
    """Return whether a web server answers with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2.0) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
