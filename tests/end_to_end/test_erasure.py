"""A forgotten user's id is in no byte of any compacted topic or database, after real compaction."""

import asyncio
import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.brokers import KafkaBroker
from tests.end_to_end.steps import all_applied
from tests.shop import START, build_shop, shop_events, shop_settings
from tracker.demo.local import own_topics, until_ready, worker_process
from tracker.events.lines import Line
from tracker.events.wire import Event, encode_event
from tracker.kafka.client import send_events
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import admin_client
from tracker.lookup.forget import forget_user
from tracker.settings import Settings

USER = "7f3kq9x2-ada-lovelace-z81m"
NEEDLE = b"ada-lovelace-z81m"  # a key that shares its beginning with another is stored without it

QUICK = """\
log.cleaner.backoff.ms=500
log.cleaner.min.cleanable.ratio=0.01
log.initial.task.delay.ms=500
log.retention.check.interval.ms=1000
"""
COMPACTION = {
    "max.compaction.lag.ms": "2000",
    "delete.retention.ms": "2000",
    "segment.ms": "2000",
    "min.cleanable.dirty.ratio": "0.01",
}
COMPACTED = ("users-changelog", "items-changelog", "forget", "__consumer_offsets", "__transaction")
SECONDS = 240.0


def crew(address: str, name: str, folder: Path) -> list[Settings]:
    build_shop(folder / "artifacts")
    return [
        shop_settings(
            address,
            name,
            folder,
            data_dir=folder / f"data-{number}",
            standbys=1,
            commit_interval_seconds=0.2,
            erase_seconds=2.0,
            emit_min_interval_seconds=3600.0,  # lists are owed
        )
        for number in range(2)
    ]


def events_of(user: str, count: int, begin: float) -> list[Line]:
    events = [
        Event(user, f"i{number}", "like", begin + number, event_id=f"e{number}")
        for number in range(count)
    ]
    return [Line(f"event {n}", encode_event(event)) for n, event in enumerate(events)]


async def alter(settings: Settings) -> None:
    names = topics_of(settings)
    async with admin_client(settings) as admin:
        for name in (names.users_changelog, names.items_changelog, names.forget):
            configs = {"cleanup.policy": "compact", **COMPACTION}
            await admin.alter_configs(
                [ConfigResource(ConfigResourceType.TOPIC, name, configs=configs)]
            )


def files_with(needle: bytes, folders: list[Path], patterns: tuple[str, ...]) -> list[str]:
    places = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or not any(part in str(path) for part in patterns):
                continue
            try:
                data = path.read_bytes()
            except FileNotFoundError:  # compacted away meanwhile
                continue
            if needle in data:
                places.append(str(path))
    return places


def list_files(folders: list[Path], patterns: tuple[str, ...]) -> list[tuple[str, int]]:
    return [
        (str(path.relative_to(folder.parent)), path.stat().st_size)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file() and any(part in str(path) for part in patterns)
    ]


def status_of(settings: Settings, user: str) -> int:
    try:
        url = f"http://127.0.0.1:{settings.web_port}/v1/users/{user}"
        with urllib.request.urlopen(url, timeout=5.0) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def statuses(settings: list[Settings]) -> set[int]:
    """Ask all workers for the user; 421 names another worker, which is asked too."""
    return {status_of(one, USER) for one in settings} - {421}


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.timeout(900)
def test_no_byte_of_a_forgotten_user_is_left_in_compacted_topics_and_databases(
    prefix: str, tmp_path: Path
) -> None:
    told: dict[str, Any] = {}

    async def go(broker: KafkaBroker) -> None:
        first, _ = settings = crew(broker.address, prefix, tmp_path)
        log = tmp_path / "kafka" / "data"
        data = [one.data_dir for one in settings]
        lines = shop_events(2000, 300, seed=3)
        async with own_topics(first, delete=False):
            await alter(first)
            workers = [
                worker_process(one, tmp_path / f"worker-{n}.log") for n, one in enumerate(settings)
            ]
            try:
                for worker, one in zip(workers, settings, strict=True):
                    await until_ready(worker, one)
                mine = events_of(USER, 60, START)
                sent = await send_events(first, iter(mine + lines))
                assert sent.confirmed == len(lines) + len(mine)
                await all_applied(first, sent.confirmed, SECONDS)
                for _ in range(60):  # a rebalance under load leaves a user without a worker
                    if statuses(settings) == {200}:
                        break
                    await asyncio.sleep(0.5)
                assert statuses(settings) == {200}
                for _ in range(20):  # a file may be renamed by compaction while it is read
                    before = files_with(NEEDLE, [log], COMPACTED)
                    if is_found := any("users-changelog" in place for place in before):
                        break
                    await asyncio.sleep(0.5)
                assert is_found, before

                report = await forget_user(first, USER, 60.0)
                assert report.complete, report
                assert report.was_known
                assert report.events_taken_out + report.events_left == 60
                assert statuses(settings) == {404}

                count, deadline = sent.confirmed, time.monotonic() + SECONDS
                left = ["not looked at"]
                while left and time.monotonic() < deadline:
                    more = shop_events(50, 300, seed=count)  # the stream goes on
                    count += (await send_events(first, iter(more))).confirmed
                    other = f"other-{count}"  # and others are forgotten
                    await forget_user(first, other, 20.0)
                    await asyncio.sleep(2.0)
                    left = files_with(NEEDLE, [log], COMPACTED) + files_with(NEEDLE, data, ("",))
                assert left == []
                told["topics"] = list_files([log], COMPACTED)
                told["databases"] = list_files(data, ("",))
                assert any(name.endswith(".sst") for name, _ in told["databases"])

                late = await send_events(first, iter(events_of(USER, 5, START)))
                await all_applied(first, count + late.confirmed, SECONDS)
                assert statuses(settings) == {404}
                assert files_with(NEEDLE, data, ("",)) == []
                logs = [(tmp_path / f"worker-{n}.log").read_bytes() for n in range(2)]
                assert not any(NEEDLE in text for text in logs)
                for worker in workers:
                    assert worker.stop(30) == 0, worker.tail()
            finally:
                for worker in workers:
                    worker.stop()
        left = files_with(NEEDLE, data, ("",))
        assert left == []

    with KafkaBroker(tmp_path / "kafka", extra=QUICK) as broker:
        asyncio.run(go(broker))
    for place, files in told.items():
        total = sum(size for _, size in files)
        print(f"{place}: {len(files)} files, {total} bytes read, the id is in none")  # noqa: T201
        for name, size in files:
            print(f"  {size:>10} {name}")  # noqa: T201
    (tmp_path / "erasure.json").write_text(json.dumps(told))
