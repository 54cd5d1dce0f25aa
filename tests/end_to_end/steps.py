"""Steps that several long tests take: settings, commands, waits, and how runs are compared."""

import asyncio
import subprocess
import sys
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tests.shop import shop_settings
from tests.states import EMISSION, Rows, item_differences, read_rows, user_differences
from tests.tracker.stream.test_key_check import users_of
from tracker.artifact.artifact import Artifact
from tracker.demo.local import worker_environment, worker_process
from tracker.demo.processes import ChildProcess
from tracker.events.lines import Line
from tracker.events.wire import Recommendation
from tracker.kafka.client import read_topic, send_events
from tracker.kafka.cluster import topics_of
from tracker.kafka.partitioner import partition_of
from tracker.settings import Settings

SESSION = 6.0
"""Session timeout of workers that are killed or started again under another name, in seconds."""

IN_TWO_PLACES = [user for user in users_of(1, "crc32", 8) if partition_of(user, 4, "murmur2") == 3]
"""Users of partition 3 of 4 by the rule of Java clients, and of partition 1 by librdkafka's."""


def settings_of(address: str, name: str, folder: Path, **more: Any) -> Settings:
    """Return settings of one of several trackers in a folder: with the folder's artifacts."""
    own: dict[str, Any] = {
        "data_dir": folder / name,
        "commit_interval_seconds": 0.5,
        "session_timeout_seconds": SESSION,
    }
    return shop_settings(address, name, folder, **(own | more))


def command(settings: Settings, log: Path, *words: str) -> ChildProcess:
    """Start a command of the tracker that runs for a while."""
    line = [sys.executable, "-m", "tracker", *words]
    return ChildProcess(words[0], line, log, worker_environment(settings))


def output_of(settings: Settings, *words: str) -> str:
    """Run a command of the tracker to its end; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tracker", *words],
        env=worker_environment(settings),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


async def send_lines(settings: Settings, lines: Sequence[Line]) -> int:
    """Send events, all of which are confirmed; return how many."""
    assert (await send_events(settings, iter(lines))).confirmed == len(lines)
    return len(lines)


async def all_applied(settings: Settings, count: int, seconds: float) -> None:
    """Wait until the committed positions have reached the number of events."""
    events = topics_of(settings).users_changelog
    for _ in range(int(seconds)):
        positions = (await read_rows(settings)).positions
        if sum(at for (topic, _), at in positions.items() if topic == events) >= count:
            return
        await asyncio.sleep(1.0)
    raise TimeoutError(f"positions are {positions} after {seconds} s; {count} events were sent")


async def no_list_waits(settings: Settings) -> None:
    """Wait until no user waits for a list."""
    for _ in range(60):
        await asyncio.sleep(1.0)
        if not (await read_rows(settings)).owed:
            return
    raise TimeoutError("users still wait for lists after 60 s")


async def session_ends() -> None:
    """Wait until the group forgets a worker that has gone."""
    await asyncio.sleep(SESSION + 2.0)


async def refusal(settings: Settings, log: Path) -> str:
    """Start a worker that refuses to start; return the end of its log."""
    with worker_process(settings, log) as worker:
        assert await asyncio.to_thread(worker.wait, 120) == 1, worker.tail()
        text = worker.tail(5)
    await session_ends()
    return text


async def lists_of(settings: Settings) -> list[Recommendation]:
    """Return all lists of the topic, those of each partition in order."""
    topic = topics_of(settings).recommendations
    return [
        msgspec.json.decode(record.value or b"", type=Recommendation)
        async for record in read_topic(settings, topic)
    ]


async def rejected(settings: Settings) -> list[Any]:
    """Return all rejected records."""
    return [record async for record in read_topic(settings, topics_of(settings).rejected)]


def differences(
    expected: Rows,
    found: Rows,
    root: Path,
    skip: Container[bytes] = (),
    unlike: Sequence[str] = EMISSION,
) -> list[str]:
    """Name the users and items whose rows differ, by the artifact of a folder.

    Args:
        expected: rows of the undisturbed run.
        found: rows of the other one.
        root: folder of the artifacts.
        skip: users who are not compared.
        unlike: fields of a user that may differ.
    """
    artifact = Artifact.load(root, device="cpu")
    config, hidden = artifact.manifest.interest, artifact.models.hidden
    users = user_differences(expected, found, config, hidden, skip, unlike)
    return users + item_differences(expected, found)
