"""Erasure: a user is forgotten on Apache Kafka, and every file of topics and databases is read.

    python -m tests.erasure

Events of the user go on to come late, others are forgotten too, and the topics and databases are
compacted. Then the id is looked for in every compacted topic and in every file of a database.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from benchmarks.results import add_option, store
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


class Place(TypedDict):
    """A topic, or the databases of a table at a worker, and what was read there.

    Attributes:
        name: of the topic, or of worker and table.
        files: that were read.
        bytes: of these.
        before: files in which the id was before the user was forgotten.
    """

    name: str
    files: int
    bytes: int
    before: int


def places_of(folders: list[Path], patterns: tuple[str, ...], before: Sequence[str]) -> list[Place]:
    """Count the files of each place; `before` are those that had the id."""
    places: dict[str, Place] = {}

    def place(path: Path, folder: Path) -> Place:
        name = name_of(path, folder)
        return places.setdefault(name, {"name": name, "files": 0, "bytes": 0, "before": 0})

    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or not any(part in str(path) for part in patterns):
                continue
            with suppress(FileNotFoundError):  # compacted away meanwhile
                size = path.stat().st_size
                found = place(path, folder)
                found["files"] += 1
                found["bytes"] += size
        for path in map(Path, before):
            if path.is_relative_to(folder):
                place(path, folder)["before"] += 1
    return list(places.values())


def name_of(path: Path, folder: Path) -> str:
    """Return the topic of a file of Kafka, or worker and table of a file of a database."""
    inside = path.relative_to(folder).parts
    if "tables" in inside:
        return f"{folder.name}, {inside[inside.index('tables') + 1].split('-')[0]}"
    if len(inside) == 2 and inside[0][-1].isdigit():
        return inside[0].rsplit("-", 1)[0]
    return f"{folder.name}, other files"


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


def erase(folder: Path, name: str) -> dict[str, list[Place]]:
    """Forget a user, and return what was read by kind of place.

    Raises:
        AssertionError: the id is somewhere, or a worker still knows the user.
    """
    found: dict[str, list[Place]] = {}

    async def go(broker: KafkaBroker) -> None:
        first, _ = settings = crew(broker.address, name, folder)
        log = folder / "kafka" / "data"
        data = [one.data_dir for one in settings]
        lines = shop_events(2000, 300, seed=3)
        async with own_topics(first, delete=False):
            await alter(first)
            workers = [
                worker_process(one, folder / f"worker-{n}.log") for n, one in enumerate(settings)
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
                # The databases are rewritten for somebody else: only now the id is on the disks.
                assert (await forget_user(first, "somebody", 60.0)).complete
                for _ in range(60):
                    kept = files_with(NEEDLE, data, ("",))
                    if is_kept := all(any(str(one) in path for path in kept) for one in data):
                        break
                    await asyncio.sleep(0.5)
                assert is_kept, kept

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
                found["topics"] = places_of([log], COMPACTED, before)
                found["databases"] = places_of(data, ("",), kept)
                assert any(path.suffix == ".sst" for one in data for path in one.rglob("*"))

                late = await send_events(first, iter(events_of(USER, 5, START)))
                await all_applied(first, count + late.confirmed, SECONDS)
                assert statuses(settings) == {404}
                assert files_with(NEEDLE, data, ("",)) == []
                logs = [(folder / f"worker-{n}.log").read_bytes() for n in range(2)]
                assert not any(NEEDLE in text for text in logs)
                for worker in workers:
                    assert worker.stop(30) == 0, worker.tail()
            finally:
                for worker in workers:
                    worker.stop()
        left = files_with(NEEDLE, data, ("",))
        assert left == []

    with KafkaBroker(folder / "kafka", extra=QUICK) as broker:
        asyncio.run(go(broker))
    return found


def main() -> int:
    """Erase, print what was read, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.erasure", description=__doc__)
    add_option(parser)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tracker-erasure-"))
    found = erase(folder, "erasure")
    for kind, places in found.items():
        for place in places:
            sys.stdout.write(
                f"{kind}: {place['name']}: {place['files']} files, {place['bytes']} bytes read;"
                f" with the id {place['before']} before, 0 after\n"
            )
    store(options.result, found)
    shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
