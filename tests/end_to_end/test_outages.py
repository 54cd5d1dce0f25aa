"""A broker that goes away under load, and a disk that is full: nothing is lost, nothing hangs."""

import asyncio
import resource
import sys
from pathlib import Path

import pytest

from tests.brokers import KafkaBroker
from tests.end_to_end.steps import all_applied, send_lines
from tests.shop import build_shop, shop_events, shop_settings
from tests.states import without_list
from tracker.demo.audit import read_events
from tracker.demo.local import own_topics, until_ready, worker_environment, worker_process
from tracker.demo.processes import ChildProcess
from tracker.settings import Settings

EVENTS = 4000
PATIENCE = 12.0
AWAY = 24.0  # longer than a look for brokers takes to come, and than the worker has patience
FILE_BYTES = 64 * 1024
DISK_EVENTS = 24_000  # about three memtables of rows: the first flush meets the limit


def settings_of(address: str, name: str, folder: Path, event_partitions: int = 2) -> Settings:
    build_shop(folder / "artifacts")
    return shop_settings(
        address,
        name,
        folder,
        event_partitions=event_partitions,
        chunk_events=50,
        commit_interval_seconds=0.2,
        send_seconds=PATIENCE,
    )


@pytest.mark.kafka
@pytest.mark.timeout(400)
def test_a_broker_killed_under_load_costs_time_and_nothing_else(
    prefix: str, tmp_path: Path
) -> None:
    lines = shop_events(EVENTS, 400, seed=5)

    async def go(broker: KafkaBroker, settings: Settings) -> None:
        async with own_topics(settings, delete=False):
            worker = worker_process(settings, tmp_path / "worker.log")
            try:
                await until_ready(worker, settings)
                half = len(lines) // 2
                await send_lines(settings, lines[:half])
                broker.kill()
                await asyncio.sleep(AWAY)
                broker.start()
                await send_lines(settings, lines[half:])
                applied = asyncio.create_task(all_applied(settings, len(lines), 120))
                while not applied.done():  # a commit of unknown outcome ends it, as it should
                    if worker.returncode is not None:
                        assert worker.returncode == 1, worker.tail()
                        worker = worker_process(settings, tmp_path / "worker.log")
                    await asyncio.sleep(0.2)
                await applied
                assert await without_list(settings, await read_events(settings)) == []
                assert worker.stop(30) == 0, worker.tail()
                assert "cannot be written" not in (tmp_path / "worker.log").read_text()
            finally:
                worker.stop()

    with KafkaBroker(tmp_path / "kafka") as broker:
        asyncio.run(go(broker, settings_of(broker.address, prefix, tmp_path)))


@pytest.mark.kafka
@pytest.mark.timeout(400)
def test_a_full_disk_ends_the_worker_with_a_reason_and_a_larger_one_goes_on(
    kafka: KafkaBroker, prefix: str, tmp_path: Path
) -> None:
    """No file may grow past a limit, which RocksDB meets as it would meet a full disk."""
    settings = settings_of(kafka.address, prefix, tmp_path, event_partitions=1)
    lines = shop_events(DISK_EVENTS, 6000, seed=6)
    limited = (
        f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({FILE_BYTES},"
        f" {resource.RLIM_INFINITY})); from tracker.cli.main import main; main()"
    )

    async def go() -> None:
        async with own_topics(settings, delete=True):
            await send_lines(settings, lines)
            with ChildProcess(
                "tracker worker on a full disk",
                [sys.executable, "-c", limited, "worker"],
                tmp_path / "full.log",
                worker_environment(settings),
            ) as full:
                code = await asyncio.to_thread(full.wait, 240)
            log = full.tail(40)
            assert code == 1, log
            assert "No space left" in log or "File too large" in log, log
            with worker_process(settings, tmp_path / "worker.log") as worker:
                await until_ready(worker, settings)  # the first may have applied all of them
                await all_applied(settings, len(lines), 120)
                assert await without_list(settings, await read_events(settings)) == []
                assert worker.stop(30) == 0

    asyncio.run(go())
