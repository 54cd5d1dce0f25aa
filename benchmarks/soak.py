"""A long run at a fixed rate, the broker away in the middle: what grows, how late lists are.

Events come at their rate the whole time; while the broker is away the producer keeps them, and
sends them afterwards. A worker that ends is started again, as a supervisor would. Every ten seconds
memory, open files and what waits for the broker are noted; how late lists were is read from the
topics at the end, and so is whether each user's last event has one.

    OMP_NUM_THREADS=1 python -m benchmarks.soak --minutes 60 --away 10 --rate 300
"""

import argparse
import json
import os
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.latency import WARM, WARM_RATE, quantiles
from benchmarks.results import add_option, store
from benchmarks.systems import PARTITIONS, Systems, build, cpu_seconds
from tests.brokers import KafkaBroker
from tracker.demo.processes import ChildProcess, free_port

STEP_SECONDS = 10.0
"""Time between two samples, and width of a window of latencies."""

PAUSES = (10.0, 20.0, 40.0, 60.0)
"""Seconds before a worker that has ended is started again; the last one for every further time."""

PATIENT = "broker.session.timeout.ms=9000\n"
"""Kafka's default: with that of the tests, a busy machine takes the broker for dead."""

NAME = "soak"
GAUGES = {
    "tracker_waiting_bytes": "waiting_bytes",
    "tracker_rows": "rows",
    "tracker_lag": "lag",
    "tracker_broker_silence_seconds": "silence",
}
"""Metrics that are noted, as sums over their labels."""

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


def late(systems: Systems) -> tuple[NDArray[np.int64], NDArray[np.int64], int, int]:
    """Read what the broker has, and compare.

    Returns:
        of each list the time of its event's append and its own, (N,) milliseconds, the number of
        events, and the users whose last event no list answers.
    """
    appended: list[list[int]] = [[] for _ in range(PARTITIONS)]
    last: dict[bytes, int] = {}
    for event in systems.records(f"{NAME}-events"):
        appended[event.partition].append(event.ms)
        last[event.key] = event.offset
    answered: dict[bytes, int] = {}
    times: list[tuple[int, int]] = []
    for one in systems.records(f"{NAME}-recommendations"):
        _, partition, offset = json.loads(one.value)["id"].rsplit("-", 2)
        times.append((appended[int(partition)][int(offset)], one.ms))
        answered[one.key] = max(answered.get(one.key, -1), int(offset))
    missing = sum(answered.get(user, -1) < offset for user, offset in last.items())
    found = np.array(times, np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1], sum(map(len, appended)), missing


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
    found = []
    for place in np.unique(places[places >= 0]):
        took = (lists - events)[places == place]
        found.append(
            {"seconds": float(place) * STEP_SECONDS, "lists": len(took), **quantiles(list(took))}
        )
    return found


def soak(
    systems: Systems, broker: KafkaBroker, rate: float, minutes: float, away: float
) -> dict[str, Any]:
    """Run for some minutes, the broker away in the middle; return all that was noted."""
    systems.topics(NAME)
    events = f"{NAME}-events"
    count = int(rate * 60.0 * minutes)
    worker = Supervisor(systems, time.monotonic())
    samples: list[Sample] = []
    try:
        systems.send(events, WARM, False, 1, WARM_RATE)
        while worker.sample().get("lag") != 0.0:
            worker.look()
            time.sleep(1.0)
        began, clock = time.monotonic(), 1000 * time.time()
        worker.began = began
        leave, back = (60.0 * (minutes + sign * away) / 2 for sign in (-1.0, 1.0))
        kept = {"message.timeout.ms": 0, "enable.idempotence": True}
        sending = threading.Thread(
            target=systems.send, args=(events, count, False, 2, rate), kwargs={"more": kept}
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
    appended, listed, total, missing = late(systems)
    found: dict[str, Any] = {
        "minutes": minutes, "rate": rate, "items": systems.items, "users": systems.users,
        "events": total, "sent": count + WARM, "lists": len(listed), "without_list": missing,
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
    parser.add_argument("--rate", type=float, default=300.0, help="events a second")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, required=True, help="everything is kept here")
    add_option(parser)
    given = parser.parse_args()
    with KafkaBroker(given.folder / f"kafka-{os.getpid()}", extra=PATIENT) as broker:
        systems = Systems(given.folder, broker.address, given.items, given.users)
        build(given.folder / "artifacts", given.items)
        found = soak(systems, broker, given.rate, given.minutes, given.away)
    for key, value in found.items():
        if key not in ("samples", "latency_ms"):
            print(f"{key}: {value}")
    store(given.result, found)


if __name__ == "__main__":
    main()
