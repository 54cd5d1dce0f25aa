"""Partitions added to the events topic: the moved states are those of a topic that had them.

Takes minutes: make test ARGS='-m long -k move_states'.
"""

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from aiokafka.admin import NewPartitions

from tests.brokers import KafkaBroker
from tests.end_to_end.test_outages import all_applied
from tests.faults import undisturbed
from tests.shop import build_shop, shop_events, shop_settings
from tests.states import (
    EMISSION,
    PLACE,
    Rows,
    item_differences,
    read_rows,
    user_differences,
)
from tracker.artifact.artifact import Artifact
from tracker.demo.local import own_topics, until_ready, worker_environment, worker_process
from tracker.demo.processes import ChildProcess
from tracker.events.lines import Line
from tracker.events.wire import decode_event
from tracker.kafka.client import read_topic, send_events
from tracker.kafka.cluster import describe_topics, topics_of
from tracker.kafka.connect import admin_client
from tracker.kafka.partitioner import partition_of
from tracker.settings import Settings

EVENTS, USERS = 20_000, 4000

SESSION = 6.0


def settings_of(address: str, name: str, folder: Path, partitions: int) -> Settings:
    return shop_settings(
        address, name, folder, data_dir=folder / name, event_partitions=partitions,
        item_partitions=2, commit_interval_seconds=0.5, session_timeout_seconds=SESSION,
    )  # fmt: skip


async def send(settings: Settings, lines: list[Line]) -> None:
    assert (await send_events(settings, iter(lines))).confirmed == len(lines)


async def refusal(settings: Settings, log: Path) -> str:
    with worker_process(settings, log) as worker:
        assert await asyncio.to_thread(worker.wait, 120) == 1, worker.tail()
        return worker.tail(3)


def user_of(line: Line) -> str:
    return decode_event(line.value).user_id


def users_in(lines: list[Line]) -> set[str]:
    return {user_of(line) for line in lines}


def command(settings: Settings, log: Path) -> ChildProcess:
    words = [sys.executable, "-m", "tracker", "move-states", "--yes"]
    return ChildProcess("move-states", words, log, worker_environment(settings))


async def killed_after(settings: Settings, log: Path, line: str) -> None:
    with command(settings, log) as moving:
        while moving.returncode is None and line not in log.read_text():
            await asyncio.sleep(0.01)
        moving.send_signal(signal.SIGKILL)
        assert moving.wait(10) == -signal.SIGKILL, moving.tail()


async def with_more(settings: Settings, lines: list[Line], folder: Path) -> Rows:
    third = len(lines) // 3
    log, moves = folder / "moved.log", folder / "moves.log"
    async with own_topics(settings, delete=False):
        with worker_process(settings, log) as worker:
            await until_ready(worker, settings)
            await send(settings, lines[:third])
            await all_applied(settings, third, 240)
            assert worker.stop(30) == 0
        await send(settings, lines[third : 2 * third])  # they lie in the old partitions
        async with admin_client(settings) as admin:
            await admin.create_partitions({topics_of(settings).events: NewPartitions(6)})
        while (await describe_topics(settings))[topics_of(settings).events].partitions != 6:
            await asyncio.sleep(0.1)
        settings = settings.model_copy(update={"event_partitions": 6})
        waiting = users_in(lines[third : 2 * third])
        last = lines[2 * third :]
        await send(settings, [line for line in last if user_of(line) not in waiting])
        assert "tracker move-states" in await refusal(settings, log)
        await killed_after(settings, moves, "partition 0:")
        assert "tracker move-states" in await refusal(settings, log)
        await asyncio.sleep(SESSION + 2.0)  # the group forgets the worker that has ended
        await killed_after(settings, moves, "partition 2:")
        with command(settings, moves) as moving:
            assert await asyncio.to_thread(moving.wait, 120) == 0, moving.tail()
        with command(settings, moves) as moving:
            assert await asyncio.to_thread(moving.wait, 120) == 0, moving.tail()
        assert "nothing is moved" in moves.read_text()
        with worker_process(settings, log) as worker:
            await until_ready(worker, settings)
            rest = [line for line in last if user_of(line) in waiting]
            await all_applied(settings, len(lines) - len(rest), 240)
            await asyncio.sleep(5.0)  # what was handed on
            await send(settings, rest)
            await all_applied(settings, len(lines), 240)
            await asyncio.sleep(5.0)  # the item events of the last commits
            assert worker.stop(30) == 0
    assert "Traceback" not in log.read_text() + moves.read_text()
    return await read_rows(settings)


def anywhere(rows: Rows) -> Rows:
    """Return rows with users of whatever partition, of which each has one."""
    for table in (rows.users, rows.seen):
        for (place, user), _ in list(table.items()):
            assert place == partition_of(user.decode(), 6, "murmur2"), user
    return rows


async def rejected(settings: Settings) -> int:
    topic = topics_of(settings).rejected
    return len([record async for record in read_topic(settings, topic)])


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.timeout(900)
def test_states_of_four_partitions_become_those_of_six_and_a_kill_is_taken_up_again(
    kafka: KafkaBroker, prefix: str, tmp_path: Path
) -> None:
    build_shop(tmp_path / "artifacts")
    lines = shop_events(EVENTS, USERS, seed=13)
    six = settings_of(kafka.address, f"{prefix}-six", tmp_path, 6)
    four = settings_of(kafka.address, f"{prefix}-four", tmp_path, 4)
    whole = undisturbed(six, lambda: send(six, lines), tmp_path / "six")
    expected = anywhere(asyncio.run(whole))
    found = anywhere(asyncio.run(with_more(four, lines, tmp_path)))
    config = Artifact.load(str(tmp_path / "artifacts")).manifest.interest
    # Each user's events came in the same order, so every bit is the same.
    assert user_differences(expected, found, config, unlike=(*EMISSION, *PLACE)) == []
    assert item_differences(expected, found) == []
    assert len(expected.users) > 2000
    assert asyncio.run(rejected(four)) == asyncio.run(rejected(six)) == 0
