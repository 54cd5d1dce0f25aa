"""Damaged files and rows under a running worker: named, healed at the next start, nothing lost.

Takes minutes: make test ARGS='-m long -k damage'.
"""

import asyncio
import shutil
import signal
from pathlib import Path

import pytest

from tests.brokers import KafkaBroker
from tests.end_to_end.steps import all_applied, differences, send_lines, settings_of
from tests.end_to_end.test_bad_tables import send, until
from tests.faults import undisturbed
from tests.shop import START, build_shop, shop_events
from tests.states import Rows, read_rows, without_list
from tests.tracker.worker.test_web import get
from tracker.demo.audit import read_events
from tracker.demo.local import own_topics, until_ready, worker_process
from tracker.events.lines import Line
from tracker.events.wire import Event, encode_event
from tracker.kafka.cluster import topics_of
from tracker.kafka.partitioner import partition_of
from tracker.kernels.row_bytes import user_key
from tracker.settings import Settings

EVENTS, USERS, PARTITIONS = 24_000, 3000, 2
DATABASES = ("users-0", "users-1", "items-0")
NOBODY = "a user without any good row"


def tracker_of(address: str, name: str, folder: Path) -> Settings:
    return settings_of(
        address, name, folder, event_partitions=PARTITIONS, session_timeout_seconds=10.0
    )


def flip(folder: Path, pattern: str, tables: str = "") -> list[Path]:
    """Change bytes in the middle of files of the databases."""
    paths = [path for path in folder.rglob(pattern) if tables in str(path)]
    for path in paths:
        data = bytearray(path.read_bytes())
        for place in range(len(data) // 3, len(data), max(1, len(data) // 7)):
            data[place] ^= 0xFF
        path.write_bytes(data)
    return paths


async def supervised(settings: Settings, log: Path, events: int) -> int:
    """Start a worker again whenever it ends by itself, until it has applied all events.

    Returns:
        how often it ended.
    """
    for ends in range(len(DATABASES) + 1):
        with worker_process(settings, log) as worker:
            applied = asyncio.create_task(all_applied(settings, events, 240))
            while worker.returncode is None and not applied.done():
                await asyncio.sleep(0.2)
            if worker.returncode is None:
                await applied
                assert worker.stop(30) == 0
                return ends
            applied.cancel()
            assert worker.returncode == 1, worker.tail()
    raise AssertionError(f"the worker ended {ends + 1} times: {log.read_text()[-3000:]}")


async def hurt(settings: Settings, lines: list[Line], log: Path) -> Rows:
    quarter = len(lines) // 4
    parts = [lines[n * quarter : (n + 1) * quarter] for n in range(3)] + [lines[3 * quarter :]]
    names = topics_of(settings)
    async with own_topics(settings, delete=False):
        # 1. Files of users are changed under a running worker: it ends by name when it reads them.
        with worker_process(settings, log) as worker:
            await until_ready(worker, settings)
            await send_lines(settings, parts[0])
            await all_applied(settings, len(parts[0]), 240)
            assert worker.stop(30) == 0
        with worker_process(settings, log) as worker:
            await until_ready(worker, settings)
            assert flip(settings.data_dir, "*.sst", "users-0")
            await send_lines(settings, parts[1])
            assert await asyncio.to_thread(worker.wait, 120) == 1, worker.tail()
            assert "users-0.db is damaged (Corruption" in worker.tail(20)
        # 2. Its next start reads them from the changelog. It is killed, then files of all change.
        with worker_process(settings, log) as worker:
            await until_ready(worker, settings)
            assert "users-0.db was damaged: it is deleted, and read from the changelog" in (
                log.read_text()
            )
            await all_applied(settings, sum(map(len, parts[:2])), 240)
            await send_lines(settings, parts[2])
            worker.send_signal(signal.SIGKILL)
            worker.wait(10)
        assert flip(settings.data_dir, "*.sst")
        assert flip(settings.data_dir, "MANIFEST-*", "items")
        ends = await supervised(settings, log, sum(map(len, parts[:3])))
        assert ends <= len(DATABASES)  # each of them at most once
        # 3. Rows of the changelog are damaged while nothing runs, and the disk is empty.
        shutil.rmtree(settings.data_dir)
        rows = await read_rows(settings)
        victims = sorted(rows.users)[:3]
        for partition, user in victims:
            row = rows.users[partition, user]
            bad = row[:64] + bytes([row[64] ^ 1]) + row[65:]
            key = user_key(user.decode())
            await send(settings, names.users_changelog, partition, (key, bad), (key, b"garbage!"))
        home = partition_of(NOBODY, PARTITIONS, "murmur2")
        assert home is not None
        await send(settings, names.users_changelog, home, (user_key(NOBODY), b"garbage!"))
        item = next(iter(rows.items))
        good = rows.items[item]
        await send(settings, names.items_changelog, 0, (b"i" + item, b"x"), (b"i" + item, good))
        with worker_process(settings, log) as worker:
            await until_ready(worker, settings)
            await send_lines(settings, parts[3])
            await all_applied(settings, len(lines), 240)
            metrics = await until(settings, "/metrics", lambda status, _: status == 200)
            problem = 'tracker_unreadable_rows_total{problem="damaged",table="users"}'
            assert problem in metrics
            assert get(settings, "/readyz")[0] == get(settings, "/healthz")[0] == 200
            assert worker.stop(30) == 0
    assert "Traceback" not in log.read_text()
    return await read_rows(settings)


@pytest.mark.long
@pytest.mark.kafka
@pytest.mark.timeout(1500)
def test_damaged_files_and_rows_cost_no_event_and_no_other_user(
    kafka: KafkaBroker, prefix: str, tmp_path: Path
) -> None:
    build_shop(tmp_path / "artifacts")
    lines = shop_events(EVENTS, USERS, seed=11)
    likes = [Event(NOBODY, f"i{n}", "like", START + n, event_id=f"n{n}") for n in range(4)]
    lines += [Line(f"like {n}", encode_event(event)) for n, event in enumerate(likes)]
    # every user who is damaged comes again, and so does everybody else
    lines += shop_events(EVENTS // 4, USERS, seed=12)

    async def go() -> None:
        one = tracker_of(kafka.address, f"{prefix}-calm", tmp_path)
        other = tracker_of(kafka.address, f"{prefix}-hurt", tmp_path)
        expected = await undisturbed(one, lambda: send_lines(one, lines), tmp_path / "calm")
        found = await hurt(other, lines, tmp_path / "hurt.log")
        assert differences(expected, found, tmp_path / "artifacts", {NOBODY.encode()}) == []
        assert not found.owed
        assert await without_list(other, await read_events(other)) == []

    asyncio.run(go())
