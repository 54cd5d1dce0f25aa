"""States that a replay has built beside the live ones are those that living it has made.

Takes minutes: make test ARGS='-m long -k test_replay'.
"""

import asyncio
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.brokers import KafkaBroker
from tests.end_to_end.steps import (
    all_applied,
    command,
    differences,
    lists_of,
    refusal,
    send_lines,
    session_ends,
    settings_of,
)
from tests.faults import undisturbed
from tests.paths import ROOT
from tests.shop import START, build_shop, shop_events
from tests.stalled_replay import STALL
from tests.states import (
    EMISSION,
    PLACE,
    Rows,
    read_rows,
    without_list,
)
from tests.tracker.stream.test_key_check import users_of
from tracker.demo.audit import read_events
from tracker.demo.local import own_topics, until_ready, worker_environment, worker_process
from tracker.demo.processes import ChildProcess
from tracker.events.lines import Line
from tracker.events.wire import Event, encode_event, hash_id
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import producer
from tracker.kafka.partitioner import partition_of
from tracker.kernels.row_bytes import item_key
from tracker.lookup.forget import forget_user
from tracker.settings import Settings

EVENTS, USERS, PARTITIONS = 24_000, 3000, 4
MIDDLE, LATE = 1000, 5200
"""Offsets of each partition: in the first third of the events, and in the last one."""

AWAY = [user for user in users_of(0, "crc32", 100) if partition_of(user, PARTITIONS, "murmur2")]
GONE = ("gone-before", "gone-between")


def tracker_of(address: str, name: str, folder: Path, **more: Any) -> Settings:
    return settings_of(
        address, name, folder, event_partitions=PARTITIONS, item_partitions=2, **more
    )


async def send(settings: Settings, lines: list[Line], part: int) -> None:
    """Send a third of the events, and events of users in the partition of another rule."""
    third = len(lines) // 3
    await send_lines(settings, lines[part * third : (part + 1) * third])
    async with producer(settings) as client:
        for number, user in enumerate(AWAY * 3):
            place = START + part * 1000 + number
            event = Event(user, f"i{number % 290}", "like", place, event_id=f"{part}-{number}")
            topic = topics_of(settings).events
            await client.send_and_wait(topic, encode_event(event), user.encode(), 0)


async def send_gone(settings: Settings) -> None:
    likes = [Event(user, f"only-{user}", "like", START, event_id=user) for user in GONE]
    await send_lines(settings, [Line("gone", encode_event(event)) for event in likes])


async def send_all(settings: Settings, lines: list[Line]) -> None:
    for part in range(3):
        await send(settings, lines, part)


def replay_command(settings: Settings, of: str, log: Path, *more: str) -> ChildProcess:
    return command(settings, log, "replay", "--of", of, *more)


async def killed_at(settings: Settings, of: str, log: Path, offset: int, *more: str) -> None:
    """Kill the command when each partition has committed all before an offset, and stands still."""
    line = [sys.executable, "-m", "tests.stalled_replay", str(offset), "--of", of, *more]
    with ChildProcess("replay", line, log, worker_environment(settings), ROOT) as replay:
        while STALL.format(offset) not in log.read_text():
            replay.check()
            await asyncio.sleep(0.2)
        replay.send_signal(signal.SIGKILL)
        replay.wait(10)
    await session_ends()


async def to_its_end(settings: Settings, of: str, log: Path, *more: str) -> None:
    with replay_command(settings, of, log, *more) as replay:
        assert await asyncio.to_thread(replay.wait, 200) == 0, replay.tail(30)


async def replayed(
    live: Settings, new: Settings, lines: list[Line], folder: Path, kill: bool
) -> Rows:
    log, replays = folder / "live.log", folder / "replays.log"
    part = len(lines) // 3 + 3 * len(AWAY)
    async with own_topics(live, delete=False):
        with worker_process(live, log) as worker:
            await until_ready(worker, live)
            await send_gone(live)
            await send(live, lines, 0)
            await all_applied(live, part + len(GONE), 240)
            assert (await forget_user(live, GONE[0], 30)).complete
            await send(live, lines, 1)
            # 1. A replay is killed in the middle, and goes on beside the live worker.
            await killed_at(new, live.name, replays, MIDDLE)
            await to_its_end(new, live.name, replays)
            assert f"caught up with {live.name}" in replays.read_text()
            assert (await forget_user(live, GONE[1], 30)).complete
            assert "tracker replay" in await refusal(new, folder / "early.log")
            # 2. The live worker ends in the middle of events.
            await send(live, lines, 2)
            if kill:
                worker.send_signal(signal.SIGKILL)
                worker.wait(10)
                await session_ends()
            else:
                assert worker.stop(30) == 0
        # 3. The change-over is killed, and goes on; the live states are nobody's any more.
        await killed_at(new, live.name, replays, LATE, "--change-over")
        await to_its_end(new, live.name, replays, "--change-over")
        assert f"TRACKER_NAME={new.name}" in await refusal(live, log)
        # 4. The new states are served.
        with worker_process(new, folder / "new.log") as worker:
            await until_ready(worker, new)
            await all_applied(new, 3 * part + len(GONE), 240)
            await asyncio.sleep(4.0)
            assert worker.stop(30) == 0
    texts = [path.read_text() for path in folder.glob("*.log")]
    assert not [text for text in texts if "Traceback" in text]
    return await read_rows(new)


async def list_ids(settings: Settings) -> Counter[str]:
    return Counter(one.id for one in await lists_of(settings))


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kill", [False, True])
def test_replayed_states_are_those_of_living_it_and_no_list_is_lost_at_the_change_over(
    kafka: KafkaBroker, prefix: str, tmp_path: Path, kill: bool
) -> None:
    build_shop(tmp_path / "artifacts")
    lines = shop_events(EVENTS, USERS, seed=17)

    async def go() -> None:
        one = tracker_of(kafka.address, f"{prefix}-calm", tmp_path)
        live = tracker_of(kafka.address, f"{prefix}-live", tmp_path)
        new = tracker_of(kafka.address, f"{prefix}-new", tmp_path, stream=live.name)
        expected = await undisturbed(one, lambda: send_all(one, lines), tmp_path / "calm")
        found = await replayed(live, new, lines, tmp_path, kill)
        for user in GONE:
            assert not [place for place in found.users if place[1] == user.encode()]
            found.items.pop(item_key(hash_id(f"only-{user}"))[1:], None)
        unlike = (*EMISSION, *PLACE)
        assert differences(expected, found, tmp_path / "artifacts", unlike=unlike) == []
        assert len(expected.users) > 2000
        assert not found.owed
        assert await without_list(new, await read_events(new)) == []
        repeats = {name: n for name, n in (await list_ids(new)).items() if n > 1}
        if not kill:
            assert repeats == {}  # all have their event's id, so another id would be another event
        assert len(await list_ids(new)) > 1000

    asyncio.run(go())
