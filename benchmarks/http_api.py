"""Requests for lists over HTTP while events stream: what each costs the other.

One broker, one worker, in turn: requests alone, the stream alone, and both. Requests come at their
times whether earlier ones are answered or not, and are measured from those times.

    python -m benchmarks.http_api --rounds 3
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
from pathlib import Path

import aiohttp
import numpy as np

from benchmarks.results import add_option, store
from benchmarks.systems import Systems, cpu_seconds
from tests.brokers import KafkaBroker
from tracker.demo.processes import ChildProcess

SLACK_SECONDS = 2.0
"""Before and after the requests the stream runs alone, and is not measured."""


async def ask(url: str, users: int, rate: float, seconds: float) -> dict[str, float]:
    """Ask for lists at a rate; return quantiles in milliseconds, and the number of each status.

    `share` is the processor time of this process, as a share of a core: one that is busy all the
    time would measure itself.
    """
    chance = np.random.default_rng(5)
    loop = asyncio.get_running_loop()
    times: list[float] = []
    refused = 0

    async def one(session: aiohttp.ClientSession, user: int, due: float) -> None:
        nonlocal refused
        async with session.get(f"{url}/v1/users/user{user:07d}/recommendations") as answer:
            await answer.read()
            if answer.status == 200:
                times.append(loop.time() - due)
            else:
                refused += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as session:
        for user in chance.integers(0, users, 40).tolist():  # connections, and what is made once
            await one(session, user, loop.time())
        times.clear()
        begin, spent = loop.time(), time.process_time()
        tasks = []
        for n, user in enumerate(chance.integers(0, users, int(rate * seconds)).tolist()):
            due = begin + n / rate
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            tasks.append(asyncio.create_task(one(session, user, due)))
        await asyncio.gather(*tasks)
        share = (time.process_time() - spent) / (loop.time() - begin)
    p50, p95, p99 = (1000.0 * np.percentile(times, [50, 95, 99])).tolist()
    return {
        "p50": p50, "p95": p95, "p99": p99, "answers": len(times), "refused": refused,
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
        """Start a process that asks."""
        arguments = self.arguments
        words = [
            sys.executable, "-m", "benchmarks.http_api", "--ask", url,
            "--users", str(arguments.users), "--requests", str(arguments.requests),
            "--seconds", str(arguments.seconds),
        ]  # fmt: skip
        return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)

    def stream(self, process: ChildProcess, name: str, sent: int, url: str | None) -> "Round":
        """Send events at the rate, with or without requests; return what both took."""
        arguments = self.arguments
        seconds = arguments.seconds + 2 * SLACK_SECONDS
        begun = self.ends(f"{name}-recommendations")
        started, spent = time.monotonic(), cpu_seconds(process.pid)
        count = int(arguments.events * seconds)
        asking = None
        words = [
            sys.executable, "-m", "benchmarks.http_api", "--send", self.broker, "--topic",
            f"{name}-events", "--users", str(arguments.users), "--items", str(arguments.items),
            "--events", str(arguments.events), "--seconds", str(seconds), "--seed", str(sent),
        ]  # fmt: skip
        sending = subprocess.Popen(words)
        time.sleep(SLACK_SECONDS + 1.0)
        if url is not None:
            asking = self.requests(url)
        answer = json.loads(asking.communicate()[0]) if asking is not None else {}
        if sending.wait() != 0:
            raise SystemExit("the events could not be sent")
        share = (cpu_seconds(process.pid) - spent) / (time.monotonic() - started)
        self.committed(process, name, sent + count)
        appended = {(part, off): ms for ms, part, off, _, _ in self.read(f"{name}-events")}
        last = max(appended.values())
        start, end = last - 1000.0 * (seconds - SLACK_SECONDS), last - 1000.0 * SLACK_SECONDS
        latencies = []
        for ms, _, _, _, value in self.read(f"{name}-recommendations"):
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
        bench.send(f"{name}-events", 10_000, False, 1, 2000.0)
        bench.committed(process, name, 10_000)
        sent = 10_000
        for number in range(bench.arguments.rounds):
            spent = cpu_seconds(process.pid)
            idle = json.loads(bench.requests(url).communicate()[0])
            idle["microseconds"] = 1e6 * (cpu_seconds(process.pid) - spent) / idle["answers"]
            alone, _, sent = bench.stream(process, name, sent, None)
            both, busy, sent = bench.stream(process, name, sent, url)
            rounds.append({"idle": idle, "busy": busy, "alone": alone, "both": both})
            print(f"round {number + 1}: {json.dumps(rounds[-1])}", flush=True)
    return rounds


def main() -> None:
    """Run all, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=5000)
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
        answer = asyncio.run(
            ask(arguments.ask, arguments.users, arguments.requests, arguments.seconds)
        )
        print(json.dumps(answer))
        return
    if arguments.send:
        count = int(arguments.events * arguments.seconds)
        bench = Systems(Path(), arguments.send, arguments.items, arguments.users)
        bench.send(arguments.topic, count, False, arguments.seed, arguments.events)
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
            "items": arguments.items, "users": arguments.users, "events": arguments.events,
            "requests": arguments.requests, "seconds": arguments.seconds, "rounds": rounds,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
