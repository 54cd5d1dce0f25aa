"""Connections that ask without a pause while events stream: what they cost the stream.

One broker, one worker, in turn: the stream alone, and with 64 connections that are kept open, each
of which asks again as soon as it is answered; in every second round the other way round. Half of
them ask for all that is known of a user, half for a list. Users have about as many events as a ring
holds before that. Each part has events at an even rate, and then as many as the worker can take.
Who asks runs on the same cores as worker and broker, so a part of the cost is its own.

    python -m benchmarks.http_flood --rounds 4
"""

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.http_api import Connection, HttpBench
from benchmarks.results import add_option, store
from tests.brokers import KafkaBroker
from tracker.demo.processes import ChildProcess

CONNECTIONS = 64
PATHS = ("/v1/users/user{:07d}", "/v1/users/user{:07d}/recommendations")
SLACK_SECONDS = 1.0
"""Time in which the connections are opened."""


class Loop:
    """Connections that ask without a pause; `statuses` counts the answers."""

    def __init__(self, url: str, users: int) -> None:
        """Name the worker and its users."""
        self._host = url.removeprefix("http://")
        self._users = users
        self._chance = np.random.default_rng(5)
        self._lost: set[int] = set()
        self.statuses: Counter[int] = Counter()

    async def run(self, ended: asyncio.Event) -> None:
        """Ask until told to end; a connection that was closed is opened again."""
        self._lost = set(range(CONNECTIONS))
        while not ended.is_set():
            lost, self._lost = self._lost, set()
            for number in lost:
                try:
                    await self._open(number)
                except OSError:
                    self._lost.add(number)
            await asyncio.sleep(0.05)

    async def _open(self, number: int) -> None:
        host, port = self._host.rsplit(":", 1)
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self._host), host, int(port)
        )
        self._ask(connection, number)

    def _ask(self, connection: Connection, number: int) -> None:
        path = PATHS[number % len(PATHS)].format(self._chance.integers(self._users))
        connection.ask(path, partial(self._take, connection, number))

    def _take(self, connection: Connection, number: int, status: int) -> None:
        self.statuses[status] += 1
        if connection.transport is None:
            self._lost.add(number)
        else:
            self._ask(connection, number)


async def flood(url: str, users: int) -> dict[str, Any]:
    """Ask until the input is closed; return answers a second by status, and the share of a core."""
    loop, ended = Loop(url, users), asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    begin, spent = time.monotonic(), time.process_time()
    await loop.run(ended)
    seconds = time.monotonic() - begin
    return {
        "answers": {str(status): count / seconds for status, count in loop.statuses.items()},
        "share": (time.process_time() - spent) / seconds,
    }


class FloodBench(HttpBench):
    """A worker with a web server, and a part of the measurement with or without the connections."""

    def part(
        self, process: ChildProcess, name: str, sent: int, url: str | None
    ) -> tuple[dict[str, Any], int]:
        """Return what the stream took, and the events sent so far."""
        asking = None
        if url is not None:
            words = [sys.executable, "-m", "benchmarks.http_flood", "--ask", url]
            words += ["--users", str(self.users)]
            asking = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            time.sleep(SLACK_SECONDS)
        found: dict[str, Any]
        found, _, sent = self.stream(process, name, sent, None)
        found["events_per_second"] = self.burst(process, name, sent)
        sent += self.arguments.burst
        if asking is not None:
            found |= {"flood": json.loads(asking.communicate()[0])}
        return found, sent

    def burst(self, process: ChildProcess, name: str, sent: int) -> float:
        """Send events as fast as it goes; return how many a second the worker took."""
        count = self.arguments.burst
        begun = 1000.0 * time.time()
        self.send(f"{name}-events", count, False, sent, None, step=1e-4)
        self.committed(process, name, sent + count)
        last = max(one.ms for one in self.records(f"{name}-recommendations"))
        return float(1000.0 * count / (last - begun))


def measure(bench: FloodBench) -> list[dict[str, dict[str, Any]]]:
    """Return what the stream took in each round, alone and with the connections."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env, name = bench.start(port)
    rounds = []
    with bench.running([sys.executable, "-m", "tracker", "worker"], env) as process:
        sent = bench.arguments.history * bench.users
        bench.send(f"{name}-events", sent, False, 1, None, ago=3600.0 + 0.001 * sent)
        bench.committed(process, name, sent)
        for number in range(bench.arguments.rounds):
            found = {}
            for part in ("alone", "both") if number % 2 == 0 else ("both", "alone"):
                url = f"http://127.0.0.1:{port}" if part == "both" else None
                found[part], sent = bench.part(process, name, sent, url)
            rounds.append(found)
            print(f"round {number + 1}: {json.dumps(found)}", flush=True)
    return rounds


def main() -> None:
    """Run all, and print the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--history", type=int, default=32, help="events of a user before")
    parser.add_argument("--events", type=float, default=2000.0, help="a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of events at that rate")
    parser.add_argument("--burst", type=int, default=50_000, help="events as fast as it goes")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="kept, its artifact taken again; a new one")
    parser.add_argument("--ask", metavar="URL", help=argparse.SUPPRESS)
    add_option(parser)
    arguments = parser.parse_args()
    if arguments.ask:
        print(json.dumps(asyncio.run(flood(arguments.ask, arguments.users))))
        return
    with tempfile.TemporaryDirectory(prefix="tracker-flood-") as place:
        folder = arguments.folder or Path(place)
        with KafkaBroker(folder / "kafka") as broker:
            bench = FloodBench(folder, broker.address, arguments)
            bench.prepare()
            rounds = measure(bench)
    rate = "events_per_second"
    ratios = {
        "events a second": [one["alone"][rate] / one["both"][rate] for one in rounds],
        "p50": [one["both"]["p50"] / one["alone"]["p50"] for one in rounds],
        "p99": [one["both"]["p99"] / one["alone"]["p99"] for one in rounds],
    }
    for name, values in ratios.items():
        print(f"{name}: {statistics.median(values):.2f} times worse, of {sorted(values)}")
    plan = {
        "connections": CONNECTIONS, "items": arguments.items, "users": arguments.users,
        "history": arguments.history, "events": arguments.events, "burst": arguments.burst,
    }  # fmt: skip
    store(arguments.result, {**plan, "rounds": rounds})


if __name__ == "__main__":
    main()
