"""A long run at a fixed rate, the broker away in the middle: what grows, how late lists are.

Events come at their rate the whole time; while the broker is away the producer keeps them, and
sends them afterwards. A worker that ends is started again, as a supervisor would. Every ten seconds
memory, open files and what waits for the broker are noted. A reader beside it notes how late each
list is, and whether each user's last event has one; so the broker may delete what has been read.
Afterwards events are sent as fast as it goes, so that the share of the full rate is known at which
the run was.

    OMP_NUM_THREADS=1 python -m benchmarks.soak --minutes 60 --away 0 --rate 4500 --full 500000
"""

import argparse
import os
import sys
import threading
import time
import urllib.request
from array import array
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from numpy.typing import NDArray

from benchmarks.latency import WARM, WARM_RATE
from benchmarks.results import add_option, store
from benchmarks.systems import PARTITIONS, Systems, build, cpu_seconds
from tests.brokers import KafkaBroker
from tracker.demo.processes import ChildProcess, free_port

STEP_SECONDS = 10.0
"""Time between two samples, and width of a window of latencies."""

PAUSES = (10.0, 20.0, 40.0, 60.0)
"""Seconds before a worker that has ended is started again; the last one for every further time."""

BROKER = """\
broker.session.timeout.ms=9000
log.segment.bytes=67108864
log.retention.bytes=1500000000
log.retention.check.interval.ms=30000
"""
"""Settings of the broker.

The session timeout is Kafka's default: with that of the tests, a busy machine takes the broker for
dead. Logs are deleted and compacted in small pieces, so that an hour needs little disk.
"""

PRODUCER: dict[str, str | int | bool] = {
    "message.timeout.ms": 0,
    "enable.idempotence": True,
    "queue.buffering.max.messages": 10_000_000,
    "queue.buffering.max.kbytes": 2_097_151,
}
"""Settings of the producer: it keeps all events while the broker is away."""

NAME = "soak"
GAUGES = {
    "tracker_waiting_bytes": "waiting_bytes",
    "tracker_rows": "rows",
    "tracker_lag": "lag",
    "tracker_broker_silence_seconds": "silence",
}
"""Metrics that are noted, as sums over their labels."""

FULL_STEP = 1e-4
"""Seconds between the times of events that are sent as fast as it goes."""

FULL_SECONDS = 600.0
"""Time in which these have to have their lists."""

Sample = dict[str, float]


class Supervisor:
    """A worker that is started again when it ends.

    Attributes:
        began: monotonic time from which seconds count.
        ends: seconds since the begin, exit code and last line of each end that was not asked for.
    """

    def __init__(self, systems: Systems, began: float) -> None:
        self._systems = systems
        self.began = began
        self.port = free_port()
        self.ends: list[dict[str, Any]] = []
        self._start_at: float | None = None
        self._process = self._start()

    def _start(self) -> ChildProcess:
        env = {**os.environ, **self._systems.tracker_env(NAME), "TRACKER_WEB_PORT": str(self.port)}
        command = [sys.executable, "-m", "tracker", "worker"]
        return ChildProcess("worker", command, self._systems.folder / "soak.log", env)

    def look(self) -> None:
        """Start the worker again if it has ended and its pause is over."""
        now = time.monotonic()
        if self._process.returncode is None:
            return
        if self._start_at is None:
            pause = PAUSES[min(len(self.ends), len(PAUSES) - 1)]
            self._start_at = now + pause
            last = self._process.tail(1)
            self.ends.append(
                {"seconds": now - self.began, "code": self._process.returncode, "line": last}
            )
            print(self.ends[-1], flush=True)
        elif now >= self._start_at:
            self._start_at = None
            self._process = self._start()

    def sample(self) -> Sample:
        """Return what is known of the worker now; without its figures while none runs."""
        found = {"seconds": time.monotonic() - self.began}
        if self._process.returncode is not None:
            return found
        try:
            place = Path(f"/proc/{self._process.pid}")
            status = dict(
                line.split(":", 1) for line in (place / "status").read_text().splitlines()
            )
            found["memory_mib"] = int(status["VmRSS"].split()[0]) / 1024
            found["threads"] = int(status["Threads"])
            found["files"] = len(list((place / "fd").iterdir()))
            found["processor_seconds"] = cpu_seconds(self._process.pid)
            return found | metrics_of(self.port)
        except (OSError, KeyError):  # it has just ended, or does not serve yet
            return found

    def stop(self) -> int:
        """Stop the worker, and return its exit code."""
        return self._process.stop(60.0)


def metrics_of(port: int) -> Sample:
    """Return the sums of the gauges of a worker."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5.0) as answer:
        text = answer.read().decode()
    found: Sample = {}
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in GAUGES:
            found[GAUGES[name]] = found.get(GAUGES[name], 0.0) + float(line.rsplit(" ", 1)[1])
    return found


class ListId(msgspec.Struct):
    """What is read of a list.

    Attributes:
        id: topic, partition and offset of its event, with hyphens between.
    """

    id: str


class Reader(threading.Thread):
    """Reads events and lists while they come, and keeps their times of append."""

    def __init__(self, systems: Systems) -> None:
        super().__init__(daemon=True)
        self._broker = systems.broker
        self._events = f"{NAME}-events"
        self._topics = (self._events, f"{NAME}-recommendations")
        self._ended = threading.Event()
        self.appended = [array("q") for _ in range(PARTITIONS)]
        self.lists = [array("q") for _ in range(PARTITIONS)]
        self.offsets = [array("q") for _ in range(PARTITIONS)]
        self.last: dict[bytes, int] = {}
        self.answered: dict[bytes, int] = {}

    def run(self) -> None:
        """Read until `stop`."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._broker,
                "group.id": "bench-soak",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
            }
        )
        consumer.assign(
            [
                TopicPartition(topic, partition, OFFSET_BEGINNING)
                for topic in self._topics
                for partition in range(PARTITIONS)
            ]
        )
        head = msgspec.json.Decoder(ListId)
        while not self._ended.is_set():
            for message in consumer.consume(10_000, 0.5):
                if message.error():
                    continue  # the broker is away
                ms, user = message.timestamp()[1], message.key()
                if message.topic() == self._events:
                    self.appended[message.partition()].append(ms)
                    self.last[user] = message.offset()
                    continue
                _, partition, offset = head.decode(message.value()).id.rsplit("-", 2)
                self.lists[int(partition)].append(ms)
                self.offsets[int(partition)].append(int(offset))
                self.answered[user] = max(self.answered.get(user, -1), int(offset))
        consumer.close()

    def stop(self) -> None:
        """End the reading."""
        self._ended.set()
        self.join()

    def missing(self) -> int:
        """Return the number of users whose last event no list answers."""
        return sum(self.answered.get(user, -1) < offset for user, offset in list(self.last.items()))

    def pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return of each list the time of its event's append and its own, (N,) milliseconds."""
        events = [
            np.frombuffer(appended, np.int64)[np.frombuffer(offsets, np.int64)]
            for appended, offsets in zip(self.appended, self.offsets, strict=True)
        ]
        return np.concatenate(events), np.concatenate(self.lists)


def windows(
    events: NDArray[np.int64], lists: NDArray[np.int64], began: float
) -> list[dict[str, float]]:
    """Return the quantiles of how late lists were, by the window of their events' append.

    Args:
        events: milliseconds of the events' append, (N,).
        lists: of the lists' append, (N,).
        began: of the first window.

    >>> windows(np.array([5000, 7000, 15000]), np.array([5010, 7030, 15500]), 0.0)[1]["p99"]
    500.0
    """
    places = ((events - began) // (1000 * STEP_SECONDS)).astype(np.int64)
    order = np.argsort(places, kind="stable")
    late, places = (lists - events)[order], places[order]
    found = []
    for place in np.unique(places[places >= 0]):
        took = late[slice(*np.searchsorted(places, [place, place + 1]))]
        p50, p95, p99 = np.percentile(took, [50, 95, 99])
        found.append(
            {
                "seconds": float(place) * STEP_SECONDS, "lists": len(took),
                "p50": float(p50), "p95": float(p95), "p99": float(p99),
            }
        )  # fmt: skip
    return found


def work_off(systems: Systems, reader: Reader, count: int) -> int:
    """Let events wait, start a worker that takes them all, and return its exit code."""
    # As old as those before, and closer together: none lies in the future.
    systems.send(f"{NAME}-events", count, False, 3, None, PRODUCER, step=FULL_STEP)
    worker = Supervisor(systems, time.monotonic())
    try:
        until = time.monotonic() + FULL_SECONDS
        while reader.missing() and time.monotonic() < until:
            worker.look()
            time.sleep(1.0)
    finally:
        code = worker.stop()
    return code


def soak(
    systems: Systems, broker: KafkaBroker, rate: float, minutes: float, away: float, full: int
) -> dict[str, Any]:
    """Run for some minutes, the broker away in the middle; return all that was noted."""
    systems.topics(NAME)
    events = f"{NAME}-events"
    count = int(rate * 60.0 * minutes)
    worker = Supervisor(systems, time.monotonic())
    reader = Reader(systems)
    reader.start()
    samples: list[Sample] = []
    try:
        systems.send(events, WARM, False, 1, WARM_RATE)
        while worker.sample().get("lag") != 0.0:
            worker.look()
            time.sleep(1.0)
        began, clock = time.monotonic(), 1000 * time.time()
        worker.began = began
        leave, back = (60.0 * (minutes + sign * away) / 2 for sign in (-1.0, 1.0))
        sending = threading.Thread(
            target=systems.send,
            args=(events, count, False, 2, rate),
            kwargs={"more": PRODUCER, "step": 1.0 / rate},
        )
        sending.start()
        noted: dict[str, float] = {}
        while sending.is_alive() or samples[-1].get("lag") != 0.0:
            now = time.monotonic() - began
            if now >= 60.0 * minutes + 600.0:
                break
            if away and now >= leave and "leave" not in noted:
                noted["leave"] = now
                broker.kill()
            if "leave" in noted and now >= back and "back" not in noted:
                noted["back"] = now
                broker.begin()  # whoever needs it waits for it
            worker.look()
            samples.append(worker.sample())
            print({name: round(value, 1) for name, value in samples[-1].items()}, flush=True)
            time.sleep(max(0.0, STEP_SECONDS - (time.monotonic() - began) % STEP_SECONDS))
        sending.join()
        time.sleep(2 * STEP_SECONDS)
        code = worker.stop()
    finally:
        worker.stop()
    ended, missing = 1000 * time.time(), reader.missing()
    if full:
        code = work_off(systems, reader, full) or code
        missing += reader.missing()
    reader.stop()
    appended, listed = reader.pairs()
    waited = listed[appended >= ended]
    if len(waited):
        noted["full_rate"] = 1000 * full / float(waited.max() - waited.min())
    appended, listed = appended[appended < ended], listed[appended < ended]
    found: dict[str, Any] = {
        "minutes": minutes, "rate": rate, "items": systems.items, "users": systems.users,
        "events": sum(map(len, reader.appended)), "sent": count + WARM + full,
        "lists": len(listed),
        "without_list": missing, "rejected": systems.ends(f"{NAME}-rejected"),
        "ends": worker.ends, "exit_code": code, **noted,
        "step_seconds": STEP_SECONDS, "samples": samples,
        "latency_ms": windows(appended, listed, clock),
    }  # fmt: skip
    if "back" in noted:
        returned = clock + 1000 * noted["back"]
        found["first_list_seconds"] = float(listed[listed >= returned].min() - returned) / 1000
        found["caught_up_seconds"] = caught_up(found["latency_ms"], noted["back"])
    return found


LATE_MS = 1000.0


def caught_up(latencies: list[dict[str, float]], back: float) -> float:
    """Return the seconds from a broker's return to the end of the last window of late lists."""
    late_ones = [one["seconds"] for one in latencies if one["p99"] > LATE_MS]
    return max([end + STEP_SECONDS - back for end in late_ones if end + STEP_SECONDS > back] or [0])


def main() -> None:
    """Run as told by the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--away", type=float, default=10.0, help="minutes without a broker")
    parser.add_argument("--rate", type=float, default=5000.0, help="events a second")
    parser.add_argument("--full", type=int, default=0, help="events as fast as it goes, at the end")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, required=True, help="everything is kept here")
    add_option(parser)
    given = parser.parse_args()
    with KafkaBroker(given.folder / f"kafka-{os.getpid()}", extra=BROKER) as broker:
        systems = Systems(given.folder, broker.address, given.items, given.users)
        build(given.folder / "artifacts", given.items)
        found = soak(systems, broker, given.rate, given.minutes, given.away, given.full)
    for key, value in found.items():
        if key not in ("samples", "latency_ms"):
            print(f"{key}: {value}")
    store(given.result, found)


if __name__ == "__main__":
    main()
