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
from tests.end_to_end.steps import (
    all_applied,
    command,
    differences,
    refusal,
    rejected,
    send_lines,
    settings_of,
)
from tests.faults import undisturbed
from tests.paths import ROOT
from tests.shop import build_shop, shop_events
from tests.states import (
    EMISSION,
    PLACE,
    Rows,
    read_rows,
)
from tracker.demo.local import own_topics, until_ready, worker_environment, worker_process
from tracker.demo.processes import ChildProcess
from tracker.events.lines import Line
from tracker.events.wire import decode_event
from tracker.kafka.cluster import describe_topics, topics_of
from tracker.kafka.connect import admin_client
from tracker.kafka.partitioner import partition_of
from tracker.settings import Settings

EVENTS, USERS = 20_000, 4000


def tracker_of(address: str, name: str, folder: Path, partitions: int) -> Settings:
    return settings_of(address, name, folder, event_partitions=partitions, item_partitions=2)


def user_of(line: Line) -> str:
    return decode_event(line.value).user_id


def users_in(lines: list[Line]) -> set[str]:
    return {user_of(line) for line in lines}


def moving_states(settings: Settings, log: Path) -> ChildProcess:
    return command(settings, log, "move-states", "--yes")


async def killed_after(settings: Settings, log: Path, partition: int) -> None:
    """Kill the command when it has moved a partition, and stands still."""
    line = [sys.executable, "-m", "tests.stalled_move", str(partition)]
    with ChildProcess("move-states", line, log, worker_environment(settings), ROOT) as moving:
        while f"partition {partition}:" not in log.read_text():
            moving.check()
            await asyncio.sleep(0.1)
        moving.send_signal(signal.SIGKILL)
        moving.wait(10)


async def with_more(settings: Settings, lines: list[Line], folder: Path) -> Rows:
    third = len(lines) // 3
    log, moves = folder / "moved.log", folder / "moves.log"
    async with own_topics(settings, delete=False):
        with worker_process(settings, log) as worker:
            await until_ready(worker, settings)
            await send_lines(settings, lines[:third])
            await all_applied(settings, third, 240)
            assert worker.stop(30) == 0
        await send_lines(settings, lines[third : 2 * third])  # they lie in the old partitions
        async with admin_client(settings) as admin:
            await admin.create_partitions({topics_of(settings).events: NewPartitions(6)})
        while (await describe_topics(settings))[topics_of(settings).events].partitions != 6:
            await asyncio.sleep(0.1)
        settings = settings.model_copy(update={"event_partitions": 6})
        waiting = users_in(lines[third : 2 * third])
        last = lines[2 * third :]
        await send_lines(settings, [line for line in last if user_of(line) not in waiting])
        assert "tracker move-states" in await refusal(settings, log)
        await killed_after(settings, moves, 0)
        assert "tracker move-states" in await refusal(settings, log)
        await killed_after(settings, moves, 2)
        with moving_states(settings, moves) as moving:
            assert await asyncio.to_thread(moving.wait, 120) == 0, moving.tail()
        with moving_states(settings, moves) as moving:
            assert await asyncio.to_thread(moving.wait, 120) == 0, moving.tail()
        assert "nothing is moved" in moves.read_text()
        with worker_process(settings, log) as worker:
            await until_ready(worker, settings)
            rest = [line for line in last if user_of(line) in waiting]
            await all_applied(settings, len(lines) - len(rest), 240)
            await asyncio.sleep(5.0)  # what was handed on
            await send_lines(settings, rest)
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


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.timeout(900)
def test_states_of_four_partitions_become_those_of_six_and_a_kill_is_taken_up_again(
    kafka: KafkaBroker, prefix: str, tmp_path: Path
) -> None:
    build_shop(tmp_path / "artifacts")
    lines = shop_events(EVENTS, USERS, seed=13)
    six = tracker_of(kafka.address, f"{prefix}-six", tmp_path, 6)
    four = tracker_of(kafka.address, f"{prefix}-four", tmp_path, 4)
    whole = undisturbed(six, lambda: send_lines(six, lines), tmp_path / "six")
    expected = anywhere(asyncio.run(whole))
    found = anywhere(asyncio.run(with_more(four, lines, tmp_path)))
    # Each user's events came in the same order, so every bit is the same.
    unlike = (*EMISSION, *PLACE)
    assert differences(expected, found, tmp_path / "artifacts", unlike=unlike) == []
    assert len(expected.users) > 2000
    assert asyncio.run(rejected(four)) == asyncio.run(rejected(six)) == []
