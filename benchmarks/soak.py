"""Memory, open files and latency of a worker over a long time, and while its broker is away.

Events come at an even rate, and a few of them by HTTP. Then the broker is killed: events go on to
wait at the producer and to come by HTTP, until the broker is back and all is committed. A worker
that ends meanwhile is started again, as an orchestrator does.

    OMP_NUM_THREADS=1 python -m benchmarks.soak --minutes 25 --away 10
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from benchmarks.results import add_option, store
from benchmarks.systems import Systems, cpu_seconds
from tests.brokers import KafkaBroker
from tracker.demo.processes import ChildProcess, free_port

NAME = "soak"
SAMPLE_SECONDS = 10.0
RESTART_SECONDS = 5.0
POST_SECONDS = 0.5
"""Time between two requests that send events."""

POST_EVENTS = 20
CAUGHT_UP_SECONDS = 400.0


def send(broker: str, folder: Path, rate: float, users: int, items: int) -> None:
    """Produce events at a rate until SIGTERM, wait until all are confirmed, and print how many.

    Nothing is given up: while the broker is away, events wait in the memory of this process.
    """
    producer = Producer(
        {
            "bootstrap.servers": broker,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
            "message.timeout.ms": 0,
            "queue.buffering.max.messages": 4_000_000,
            "queue.buffering.max.kbytes": 2_000_000,
            "linger.ms": 5,
            "log_level": 0,
        }
    )
    counts: Counter[str] = Counter()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())

    def confirmed(error: Any, message: Any) -> None:
        counts["failed" if error else "confirmed"] += 1

    systems = Systems(folder, broker, items, users)
    begin, n = time.perf_counter(), 0
    while not ended.is_set():
        for user, value in systems.events(100_000, True, n):
            ahead = n / rate - (time.perf_counter() - begin)
            if ahead > 0.002:
                time.sleep(ahead)
            producer.produce(f"{NAME}-events", value, key=user.encode(), callback=confirmed)
            n += 1
            if n % 100 == 0:
                producer.poll(0)
            if ended.is_set():
                break
    left = producer.flush(CAUGHT_UP_SECONDS)
    print(json.dumps({"sent": n, "left": left, **counts}))


@dataclass
class Sample:
    """The worker at a moment, and what had come since the one before."""

    seconds: float
    part: str
    memory_mib: float = 0.0
    files: int = 0
    threads: int = 0
    core: float = 0.0
    events: float = 0.0
    p50: float | None = None
    p99: float | None = None
    lag: float = 0.0
    silence: float = 0.0
    load: float = 0.0


@dataclass
class Soak:
    """A run: what was seen, and what was sent by HTTP."""

    systems: Systems
    env: dict[str, str]
    url: str
    begun: float = field(default_factory=time.monotonic)
    part: str = "warm"
    samples: list[Sample] = field(default_factory=list)
    ends: list[dict[str, Any]] = field(default_factory=list)
    posts: Counter[str] = field(default_factory=Counter)
    stored: int = 0
    unconfirmed: int = 0
    longest_post: float = 0.0
    over: threading.Event = field(default_factory=threading.Event)
    worker: ChildProcess | None = None

    def keep_worker(self) -> None:
        """Start the worker, and again whenever it ends, until all is over."""
        while not self.over.is_set():
            with self.systems.running([sys.executable, "-m", "tracker", "worker"], self.env) as one:
                self.worker = one
                while one.returncode is None and not self.over.wait(0.2):
                    pass
                if one.returncode is not None:
                    last = (one.tail(1) or "")[-300:]
                    self.ends.append(
                        {
                            "seconds": self.now,
                            "part": self.part,
                            "code": one.returncode,
                            "last": last,
                        }
                    )
            self.over.wait(RESTART_SECONDS)

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return round(time.monotonic() - self.begun, 1)

    def post(self) -> None:
        """Send events by HTTP, one request after the other."""
        number = 0
        while not self.over.wait(POST_SECONDS):
            events = [
                {"user_id": f"web{number % 5000}", "item_id": f"item{n:07d}", "kind": "click"}
                for n in range(POST_EVENTS)
            ]
            number += 1
            request = urllib.request.Request(
                f"{self.url}/v1/events",
                json.dumps({"events": events}).encode(),
                {"Content-Type": "application/json"},
            )
            begun = time.monotonic()
            answer: dict[str, Any] = {}
            try:
                with urllib.request.urlopen(request, timeout=30.0) as reply:
                    status, answer = str(reply.status), json.load(reply)
            except urllib.error.HTTPError as error:
                status = str(error.code)
                # Kafka may have them all the same: the answer says so.
                self.unconfirmed += POST_EVENTS if error.code == 503 else 0
            except OSError:
                status = "no answer"
                self.unconfirmed += POST_EVENTS
            self.longest_post = max(self.longest_post, time.monotonic() - begun)
            self.posts[f"{self.part}: {status}"] += 1
            self.stored += answer.get("sent", 0)
            self.unconfirmed += answer.get("refused", 0)

    def watch(self) -> None:
        """Take a sample every ten seconds."""
        before: dict[str, Any] = {}
        while not self.over.wait(SAMPLE_SECONDS):
            one = Sample(self.now, self.part, load=round(os.getloadavg()[0], 1))
            worker = self.worker
            try:
                if worker is None or worker.returncode is not None:
                    raise OSError
                pid = worker.pid
                status = Path(f"/proc/{pid}/status").read_text()
                fields = {
                    name: value
                    for name, _, value in (s.partition(":") for s in status.splitlines())
                }
                one.memory_mib = int(fields["VmRSS"].split()[0]) / 1024
                one.threads = int(fields["Threads"])
                one.files = len(os.listdir(f"/proc/{pid}/fd"))
                cpu, at = cpu_seconds(pid), time.monotonic()
                now = {"pid": pid, "cpu": cpu, "at": at, **metrics(self.url)}
                if before.get("pid") == pid:
                    one.core = (cpu - before["cpu"]) / (at - before["at"])
                    one.events = (now["events"] - before["events"]) / (at - before["at"])
                    one.p50, one.p99 = quantiles(before["latency"], now["latency"], (0.5, 0.99))
                one.lag, one.silence = now["lag"], now["silence"]
                before = now
            except (OSError, KeyError):
                before = {}
            self.samples.append(one)


def metrics(url: str) -> dict[str, Any]:
    """Return what the worker tells of itself.

    Raises:
        OSError: it does not answer.
        KeyError: it has not told it yet.
    """
    with urllib.request.urlopen(f"{url}/metrics", timeout=10.0) as reply:
        text = reply.read().decode()
    sums: Counter[str] = Counter()
    buckets: Counter[float] = Counter()
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        name, value = line.rsplit(" ", 1)
        bare = name.split("{", 1)[0]
        sums[bare] += float(value)
        if bare == "tracker_latency_seconds_bucket":
            buckets[float(name.split('le="', 1)[1].split('"', 1)[0])] += float(value)
    return {
        "events": sums["tracker_events_total"],
        "lag": sums["tracker_lag"],
        "silence": sums["tracker_broker_silence_seconds"],
        "latency": dict(buckets),
    }


def quantiles(
    before: dict[float, float], after: dict[float, float], shares: tuple[float, ...]
) -> list[float | None]:
    """Return quantiles in milliseconds of what a histogram counted between two looks."""
    counts = [(bound, after[bound] - before.get(bound, 0.0)) for bound in sorted(after)]
    total = counts[-1][1] if counts else 0.0
    found: list[float | None] = []
    for share in shares:
        value, low, below = None, 0.0, 0.0
        for bound, count in counts if total else ():
            if count >= share * total:
                part = (share * total - below) / max(count - below, 1.0)
                value = 1000.0 * (low + part * (min(bound, 2.0 * low + 1.0) - low))
                break
            low, below = bound, count
        found.append(None if value is None else round(value, 1))
    return found


def median_of(samples: list[Sample], read: Callable[[Sample], float | None]) -> float:
    """Return the median of what samples have."""
    values = [value for one in samples if (value := read(one)) is not None]
    return statistics.median(values) if values else 0.0


def slope(samples: list[Sample], read: Callable[[Sample], float]) -> float:
    """Return the growth of a value in an hour, by least squares."""
    hours = [one.seconds / 3600.0 for one in samples]
    return statistics.linear_regression(hours, [read(one) for one in samples]).slope


def summary(soak: Soak, sender: dict[str, int], offsets: int, committed: int) -> dict[str, Any]:
    """Return what a run shows."""
    even = [one for one in soak.samples if one.part == "even" and one.memory_mib]
    middle = len(even) // 2
    halves = {}
    for name, half in (("first", even[:middle]), ("second", even[middle:])):
        halves[name] = {
            "minutes": (half[-1].seconds - half[0].seconds) / 60.0,
            "memory_mib": median_of(half, lambda one: one.memory_mib),
            "memory_growth_mib_an_hour": slope(half, lambda one: one.memory_mib),
            "files": median_of(half, lambda one: float(one.files)),
            "most_files": max(one.files for one in half),
            "threads": median_of(half, lambda one: float(one.threads)),
            "p50_ms": median_of(half, lambda one: one.p50),
            "p99_ms": median_of(half, lambda one: one.p99),
            "core": median_of(half, lambda one: one.core),
            "events_a_second": median_of(half, lambda one: one.events),
            "load": median_of(half, lambda one: one.load),
        }
    parts = {}
    for part in ("even", "away", "back"):
        seen = [one for one in soak.samples if one.part == part and one.memory_mib]
        parts[part] = {
            "samples": len([one for one in soak.samples if one.part == part]),
            "most_memory_mib": max((one.memory_mib for one in seen), default=0.0),
            "most_files": max((one.files for one in seen), default=0),
            "most_threads": max((one.threads for one in seen), default=0),
            "ends": len([end for end in soak.ends if end["part"] == part]),
        }
    return {
        "halves": halves,
        "parts": parts,
        "ends": soak.ends,
        "posts": dict(soak.posts),
        "longest_post_seconds": soak.longest_post,
        "sender": sender,
        "stored_by_http": soak.stored,
        "unconfirmed_by_http": soak.unconfirmed,
        "offsets": offsets,
        "committed": committed,
        "samples": [
            [one.seconds, one.part, round(one.memory_mib, 1), one.files, one.threads,
             round(one.core, 2), round(one.events), one.p50, one.p99, one.lag, one.load]
            for one in soak.samples
        ],
    }  # fmt: skip


def committed_of(systems: Systems) -> int:
    """Return the sum of the offsets that the worker's group has committed."""
    from confluent_kafka import Consumer, TopicPartition

    from benchmarks.systems import PARTITIONS

    consumer = Consumer({"bootstrap.servers": systems.broker, "group.id": NAME})
    try:
        places = [TopicPartition(f"{NAME}-events", number) for number in range(PARTITIONS)]
        return sum(max(0, place.offset) for place in consumer.committed(places, timeout=10))
    finally:
        consumer.close()


def run(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all parts, and return what was seen."""
    with KafkaBroker(folder / "kafka") as broker:
        systems = Systems(folder, broker.address, arguments.items, arguments.users)
        systems.prepare()
        systems.topics(NAME)
        port = free_port()
        env = systems.tracker_env(NAME) | {"TRACKER_WEB_PORT": str(port)}
        soak = Soak(systems, env, f"http://127.0.0.1:{port}")
        words = [
            sys.executable, "-m", "benchmarks.soak", "--send", broker.address,
            "--rate", str(arguments.rate), "--users", str(arguments.users),
            "--items", str(arguments.items), "--folder", str(folder / "sender"),
        ]  # fmt: skip
        sending = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        threads = [
            threading.Thread(target=work, daemon=True)
            for work in (soak.keep_worker, soak.watch, soak.post)
        ]
        try:
            for thread in threads:
                thread.start()
            time.sleep(60.0 * arguments.warm)
            for part, minutes in (("even", arguments.minutes), ("away", arguments.away)):
                if not minutes:
                    continue
                soak.part = part
                if part == "away":
                    broker.kill()
                time.sleep(60.0 * minutes)
                print(json.dumps(vars(soak.samples[-1])), file=sys.stderr, flush=True)
            soak.part = "back"
            if arguments.away:
                broker.start()
                time.sleep(60.0)
            sending.send_signal(signal.SIGTERM)
            sender = json.loads(sending.communicate(timeout=CAUGHT_UP_SECONDS)[0])
            deadline, committed, offsets = time.monotonic() + CAUGHT_UP_SECONDS, 0, 1
            soak.part = "end"
            while committed < offsets and time.monotonic() < deadline:
                time.sleep(2.0)
                offsets, committed = systems.ends(f"{NAME}-events"), committed_of(systems)
            return summary(soak, sender, offsets, committed)
        finally:
            soak.over.set()
            threads[0].join(60.0)
            if sending.poll() is None:
                sending.kill()


def main() -> None:
    """Measure, or send for the measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--warm", type=float, default=2.0, help="minutes that are not judged")
    parser.add_argument("--minutes", type=float, default=25.0, help="at an even rate")
    parser.add_argument("--away", type=float, default=10.0, help="minutes without a broker")
    parser.add_argument("--rate", type=float, default=1000.0, help="events a second")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=5000)
    parser.add_argument("--folder", type=Path, help="kept; a new one")
    parser.add_argument("--send", metavar="BROKER", help=argparse.SUPPRESS)
    add_option(parser)
    arguments = parser.parse_args()
    if arguments.send:
        send(arguments.send, arguments.folder, arguments.rate, arguments.users, arguments.items)
        return
    with tempfile.TemporaryDirectory(prefix="tracker-soak-") as place:
        figures = run(arguments.folder or Path(place), arguments)
    samples = figures.pop("samples")
    print(json.dumps(figures, indent=1))
    store(
        arguments.result,
        figures | {"samples": samples, "rate": arguments.rate, "minutes": arguments.minutes,
                   "away": arguments.away, "users": arguments.users, "items": arguments.items},
    )  # fmt: skip


if __name__ == "__main__":
    main()
