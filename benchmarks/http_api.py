"""Requests for lists over HTTP while events stream: what each costs the other.

One broker, one worker, in turn: requests alone, the stream alone, and both; in every second round
both before the stream alone. Users have about as many events as a ring holds before that, so a list
costs nearly the same from the first round to the last. Requests come at their times whether earlier
ones are answered or not, and are measured from those times.

    python -m benchmarks.http_api --rounds 3
"""

import argparse
import asyncio
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from benchmarks.results import add_option, store
from benchmarks.systems import Systems, cpu_seconds
from tests.brokers import KafkaBroker
from tracker.demo.processes import ChildProcess

SLACK_SECONDS = 2.0
"""Before and after the requests the stream runs alone, and is not measured."""


MOST_CONNECTIONS = 64
"""Connections of who asks; a request that finds none free waits for one, which is measured."""

ANSWER_SECONDS = 60.0
"""Time in which the last requests have to be answered."""

_LENGTH = re.compile(rb"(?i)content-length: *(\d+)")


class Connection(asyncio.Protocol):
    """A connection that is kept open, for one request at a time: little work beside the worker's.

    Args:
        host: of the requests.
    """

    def __init__(self, host: str) -> None:
        self.transport: asyncio.Transport | None = None  # None: it is closed
        self._head = f" HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        self._received = b""
        self._answered: Callable[[int], object] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, error: Exception | None) -> None:
        """End the request under way as one that failed."""
        self.transport = None
        self._end(0)

    def ask(self, path: str, answered: Callable[[int], object]) -> None:
        """Send a request; `answered` is called with the status of the answer, 0 for none."""
        assert self.transport is not None
        self._answered = answered
        self.transport.write(b"GET " + path.encode() + self._head)

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head) if end else None
        if length is not None and len(body) >= int(length[1]):
            self._received = b""
            self._end(int(head.split(b" ", 2)[1]))

    def _end(self, status: int) -> None:
        answered, self._answered = self._answered, None
        if answered is not None:
            answered(status)


class Asker:
    """Asks for lists of users at times, whether earlier requests are answered or not.

    `times` are the seconds from the time of each request that was answered with a list to the
    answer, and `refused` is the number of the others.
    """

    def __init__(self, url: str) -> None:
        """Name the worker."""
        self._host = url.removeprefix("http://")
        self._loop = asyncio.get_running_loop()
        self._free: list[Connection] = []
        self._opened = 0
        self._waiting: deque[tuple[int, float]] = deque()
        self.times: list[float] = []
        self.refused = 0

    async def ask_all(self, users: list[int], rate: float) -> None:
        """Ask for a list of each user, so many a second, and wait for the answers."""
        self.times.clear()
        self.refused = 0
        begin = self._loop.time()
        for n, user in enumerate(users):
            due = begin + n / rate
            if due > self._loop.time():
                await asyncio.sleep(due - self._loop.time())
            self._waiting.append((user, due))
            if not self._free and self._opened < MOST_CONNECTIONS:
                self._opened += 1
                host, port = self._host.rsplit(":", 1)
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self._host), host, int(port)
                )
                self._free.append(connection)
            self._send()
        async with asyncio.timeout(ANSWER_SECONDS):
            while len(self.times) + self.refused < len(users):
                await asyncio.sleep(0.05)

    def _send(self) -> None:
        """Send requests that wait, as long as a connection is free."""
        while self._waiting and self._free:
            connection = self._free.pop()
            if connection.transport is None:
                self._opened -= 1  # the next request opens another one
            else:
                user, due = self._waiting.popleft()
                path = f"/v1/users/user{user:07d}/recommendations"
                connection.ask(path, partial(self._take, connection, due))

    def _take(self, connection: Connection, due: float, status: int) -> None:
        if status == 200:
            self.times.append(self._loop.time() - due)
        else:
            self.refused += 1
        self._free.append(connection)
        self._send()


async def ask(url: str, users: int, rate: float, seconds: float) -> dict[str, float]:
    """Ask for lists at a rate; return quantiles in milliseconds, and the number of each status.

    `share` is the processor time of this process, as a share of a core: one that is busy all the
    time would measure itself.
    """
    chance = np.random.default_rng(5)
    asker = Asker(url)
    await asker.ask_all(chance.integers(0, users, 40).tolist(), rate)  # what is made once
    begin, spent = time.monotonic(), time.process_time()
    await asker.ask_all(chance.integers(0, users, int(rate * seconds)).tolist(), rate)
    share = (time.process_time() - spent) / (time.monotonic() - begin)
    p50, p95, p99 = (1000.0 * np.percentile(asker.times, [50, 95, 99])).tolist()
    return {
        "p50": p50, "p95": p95, "p99": p99, "answers": len(asker.times), "refused": asker.refused,
        "share": share,
    }  # fmt: skip


class HttpBench(Systems):
    """A worker with a web server, events at a rate, and requests at a rate."""

    def __init__(self, folder: Path, broker: str, arguments: argparse.Namespace) -> None:
        """Connect; the arguments say how many items, users, events and requests."""
        super().__init__(folder, broker, arguments.items, arguments.users)
        self.arguments = arguments

    def start(self, port: int) -> tuple[dict[str, str], str]:
        """Create the topics; return the settings of the worker, and its name."""
        name = "asked"
        self.topics(name)
        return {**self.tracker_env(name), "TRACKER_WEB_PORT": str(port)}, name

    def requests(self, url: str) -> subprocess.Popen[str]:
        """Start a process that asks, once it is told to, and wait until it is ready."""
        arguments = self.arguments
        words = [
            sys.executable, "-m", "benchmarks.http_api", "--ask", url,
            "--users", str(arguments.users), "--requests", str(arguments.requests),
            "--seconds", str(arguments.seconds),
        ]  # fmt: skip
        asking = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert asking.stdout is not None
        asking.stdout.readline()
        return asking

    def stream(self, process: ChildProcess, name: str, sent: int, url: str | None) -> "Round":
        """Send events at the rate, with or without requests; return what both took."""
        arguments = self.arguments
        seconds = arguments.seconds + 2 * SLACK_SECONDS
        asking = None if url is None else self.requests(url)
        begun = self.ends(f"{name}-recommendations")
        started, spent = time.monotonic(), cpu_seconds(process.pid)
        count = int(arguments.events * seconds)
        words = [
            sys.executable, "-m", "benchmarks.http_api", "--send", self.broker, "--topic",
            f"{name}-events", "--users", str(arguments.users), "--items", str(arguments.items),
            "--events", str(arguments.events), "--seconds", str(seconds), "--seed", str(sent),
        ]  # fmt: skip
        sending = subprocess.Popen(words)
        time.sleep(SLACK_SECONDS + 1.0)
        answer = json.loads(asking.communicate("ask\n")[0]) if asking is not None else {}
        if sending.wait() != 0:
            raise SystemExit("the events could not be sent")
        share = (cpu_seconds(process.pid) - spent) / (time.monotonic() - started)
        self.committed(process, name, sent + count)
        appended = {(part, off): ms for ms, part, off, _, _ in self.read(f"{name}-events")}
        last = max(appended.values())
        start, end = last - 1000.0 * (seconds - SLACK_SECONDS), last - 1000.0 * SLACK_SECONDS
        latencies = []
        for ms, _, _, _, value in self.records(f"{name}-recommendations"):
            if ms < start:
                continue
            _, partition, offset = json.loads(value)["id"].rsplit("-", 2)
            at = appended[int(partition), int(offset)]
            if start <= at <= end:
                latencies.append(ms - at)
        if not latencies or self.ends(f"{name}-recommendations") == begun:
            raise SystemExit("no lists came")
        p50, p95, p99 = np.percentile(latencies, [50, 95, 99]).tolist()
        lists = {"p50": p50, "p95": p95, "p99": p99, "lists": len(latencies), "share": share}
        return lists, answer, sent + count


Round = tuple[dict[str, float], dict[str, float], int]
"""Quantiles of lists on the topic, those of answers, and the events sent so far."""


def measure(bench: HttpBench) -> list[dict[str, dict[str, float]]]:
    """Return the quantiles of each round, in milliseconds.

    `share` of lists is the worker's processor time as a share of a core, `microseconds` what an
    answer costs it while nothing streams.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env, name = bench.start(port)
    url = f"http://127.0.0.1:{port}"
    rounds = []
    with bench.running([sys.executable, "-m", "tracker", "worker"], env) as process:
        sent = bench.arguments.history * bench.arguments.users
        bench.send(f"{name}-events", sent, False, 1, None, ago=3600.0 + 0.001 * sent)
        bench.committed(process, name, sent)
        for number in range(bench.arguments.rounds):
            spent = cpu_seconds(process.pid)
            idle = json.loads(bench.requests(url).communicate("ask\n")[0])
            idle["microseconds"] = 1e6 * (cpu_seconds(process.pid) - spent) / idle["answers"]
            found = {"idle": idle}
            for part in ("alone", "both") if number % 2 == 0 else ("both", "alone"):
                asked = url if part == "both" else None
                found[part], answers, sent = bench.stream(process, name, sent, asked)
                if asked:
                    found["busy"] = answers
            rounds.append(found)
            print(f"round {number + 1}: {json.dumps(rounds[-1])}", flush=True)
    return rounds


def main() -> None:
    """Run all, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--history", type=int, default=32, help="events of a user before")
    parser.add_argument("--events", type=float, default=2000.0, help="a second")
    parser.add_argument("--requests", type=float, default=200.0, help="a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each part")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="kept, its artifact taken again; a new one")
    parser.add_argument("--ask", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--send", metavar="BROKER", help=argparse.SUPPRESS)
    parser.add_argument("--topic", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    add_option(parser)
    arguments = parser.parse_args()
    if arguments.ask:
        print("ready", flush=True)
        sys.stdin.readline()
        answer = asyncio.run(
            ask(arguments.ask, arguments.users, arguments.requests, arguments.seconds)
        )
        print(json.dumps(answer))
        return
    if arguments.send:
        count = int(arguments.events * arguments.seconds)
        bench = Systems(Path(), arguments.send, arguments.items, arguments.users)
        step = 1.0 / arguments.events
        bench.send(arguments.topic, count, False, arguments.seed, arguments.events, step=step)
        return
    with tempfile.TemporaryDirectory(prefix="tracker-http-") as place:
        folder = arguments.folder or Path(place)
        with KafkaBroker(folder / "kafka") as broker:
            http_bench = HttpBench(folder, broker.address, arguments)
            http_bench.prepare()
            rounds = measure(http_bench)
    ratios = {
        "answers": [one["busy"]["p99"] / one["idle"]["p99"] for one in rounds],
        "lists": [one["both"]["p99"] / one["alone"]["p99"] for one in rounds],
    }
    for name, values in ratios.items():
        print(f"{name}: p99 {statistics.median(values):.2f} times, of {sorted(values)}")
    store(
        arguments.result,
        {
            "items": arguments.items, "users": arguments.users, "history": arguments.history,
            "events": arguments.events,
            "requests": arguments.requests, "seconds": arguments.seconds, "rounds": rounds,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
