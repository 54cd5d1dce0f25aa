"""The HTTP API over a worker's state without a broker: requests, and the events behind them."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tests.plane_world import RunningPartition, WorkerState
from tracker.api.build import build_api
from tracker.api.host import Host
from tracker.api.routes import PREFIX
from tracker.kafka.partitioner import partition_of
from tracker.stream.partition import Partition


def user_in(partition: int, partitions: int = 4, skip: int = 0) -> str:
    """Return a user id whose events lie in a partition."""
    names = (f"user{number}" for number in range(10_000))
    found = (name for name in names if partition_of(name, partitions, "murmur2") == partition)
    return next(islice(found, skip, None))


class ApiWorld:
    """A worker with partition 0 of the events topic, and a client of its API.

    `addresses` are what the group has told, `sent` what went to Kafka, `moving` and `reasons` what
    the worker says of itself. Kafka confirms once `confirms` is set.
    """

    def __init__(self, worker: WorkerState, running: RunningPartition) -> None:
        self.worker = worker
        self.running = running
        self.sent: list[tuple[str, int, bytes, bytes]] = []
        self.addresses: dict[int, str] = {}
        self.open: dict[int, Partition] = {0: running.partition}
        self.moving = False
        self.reasons: list[str] = []
        self.failure: Exception | None = None
        self.confirms: asyncio.Event | None = None  # None: at once
        host = Host(
            worker.context,
            lambda: self.open,
            lambda: list(self.open.values()),
            "http://me:1",
            lambda: self.addresses,
            lambda: self.reasons,
            lambda: self.moving,
            self._send,
        )
        self.app = web.Application()
        self.app.add_subapp(PREFIX, build_api(host).app)
        self.client: TestClient[Any, Any]

    async def _send(self, topic: str, partition: int, key: bytes, value: bytes) -> int:
        if self.confirms is not None:
            await self.confirms.wait()
        if self.failure is not None:
            raise self.failure
        self.sent.append((topic, partition, key, value))
        return len(self.sent) - 1

    async def ask(
        self,
        path: str,
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Ask for a path below /v1, and return the status and the object that came."""
        async with self.client.request(method, PREFIX + path, json=body, headers=headers) as answer:
            assert answer.headers["Content-Type"].startswith("application/")
            if answer.status in (429, 503):
                assert int(answer.headers["Retry-After"]) > 0
            return answer.status, await answer.json(content_type=None)


def with_api(
    folder: Path, work: Callable[[ApiWorld], Awaitable[None]], **settings: Any
) -> RunningPartition:
    """Run work with the API of a worker with these settings."""
    worker = WorkerState(folder, **settings)

    async def go() -> RunningPartition:
        running = RunningPartition(worker)
        await running.partition.start()
        world = ApiWorld(worker, running)
        try:
            async with TestClient(TestServer(world.app)) as client:
                world.client = client
                await work(world)
            await running.partition.close()
        finally:
            running.threads.shutdown()
        return running

    try:
        running = asyncio.run(go())
        assert running.fatal == []
        return running
    finally:
        worker.close()
