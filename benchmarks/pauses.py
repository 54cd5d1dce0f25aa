"""How long no list comes when a worker goes or comes, by partition, each action alone.

Three workers on one Apache Kafka broker of the same machine, a standby of each state, events at an
even rate. A worker is killed, told to stop, or frozen until it has lost its partitions. Then it is
started again on its disk, and joins the others; once it is killed and started again at once. Before
each action all workers are ready, and the one before is some seconds ago. Each user has some events
before the first action.

With `--wiped` the disk of a worker is lost instead: it is killed, its data directory is deleted,
and it is started again at once. First each state has a standby. Then there is none: nobody has a
copy, and whoever gets the partitions reads their states from Kafka.

A partition's pause is the longest time from the append of an event to the append of the first list
that answers it or a later event of the user, by the broker's clock. Counted are the events from a
second before the action to a second before the next one.

    OMP_NUM_THREADS=1 python -m benchmarks.pauses --times 5
    OMP_NUM_THREADS=1 python -m benchmarks.pauses --times 5 --wiped
"""

import argparse
import asyncio
import itertools
import json
import re
import shutil
import signal
import statistics
import sys
import threading
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from benchmarks.results import add_option, store
from benchmarks.systems import Stored, Systems, build, open_systems
from tests.faults import FROZEN_SECONDS, SESSION_SECONDS, Crew, crew
from tracker.demo.processes import ProcessError
from tracker.kafka.cluster import group_of, topics_of
from tracker.kafka.topics import ensure_topics
from tracker.settings import Settings, load_settings

WORKERS = 3
PARTITIONS = 8
ITEM_PARTITIONS = 4
STANDBYS = 1
ACTIONS = ("term", "kill", "respawn", "freeze")
"""After each the worker is started again: a `join`. `AT_ONCE` are those that do so themselves."""

AT_ONCE = ("respawn", "wipe")

EACH = 5
"""Events of a user before the first action."""

CALM_SECONDS = 5.0
"""Time between the end of an action and the next one."""

STOP_SECONDS = 20.0

EARLIER_MS = 1000.0
"""Events that came so long before an action may still wait for their list when it begins."""

Place = tuple[int, int]
"""Number of a partition of the events topic, and offset."""

REBALANCED = re.compile(r"rebalanced in [\d.]+ s \((.*?)\)")


@dataclass
class Action:
    """What was done to a worker.

    Attributes:
        name: of `ACTIONS`, `wipe` or `join`.
        begun: when, in milliseconds since the epoch.
        owners: member of the group by partition of the events topic, before.
        moved: partitions that had another owner afterwards.
        phases: seconds of each phase of each rebalance that followed, by worker.
    """

    name: str
    begun: float
    owners: Mapping[int, str]
    moved: set[int] = field(default_factory=set)
    phases: list[dict[str, float]] = field(default_factory=list)


class Stream(threading.Thread):
    """Sends events at an even rate until it is stopped."""

    def __init__(self, systems: Systems, topic: str, rate: float) -> None:
        """Prepare; `start` begins."""
        super().__init__(name="events", daemon=True)
        self._systems, self._topic, self._rate = systems, topic, rate
        self._ended = threading.Event()

    def run(self) -> None:
        """Send."""
        producer = Producer(
            {
                "bootstrap.servers": self._systems.broker,
                "partitioner": "murmur2_random",
                "linger.ms": 2,
            }
        )
        begun = time.perf_counter()
        numbers = itertools.count()
        for seed in itertools.count():
            for user, value in self._systems.events(1000, False, seed):
                ahead = next(numbers) / self._rate - (time.perf_counter() - begun)
                if self._ended.wait(max(0.0, ahead)):
                    producer.flush()
                    return
                producer.produce(self._topic, value, key=user.encode())
                producer.poll(0)

    def stop(self) -> None:
        """End, with all that was sent."""
        self._ended.set()
        self.join()


class Stage:
    """The workers, what is done to them, and what they write about it."""

    def __init__(self, systems: Systems, settings: Settings, workers: Crew) -> None:
        """Look at workers that run."""
        self._systems, self._settings, self._workers = systems, settings, workers
        self._read = [0] * WORKERS  # bytes of each log that are read
        self.actions: list[Action] = []

    def owners(self) -> dict[int, str]:
        """Return the member of the group that has each partition of the events topic."""
        group, topic = group_of(self._settings), topics_of(self._settings).events
        found = self._systems.admin.describe_consumer_groups([group])[group].result()
        return {
            place.partition: member.member_id
            for member in found.members
            for place in member.assignment.topic_partitions
            if place.topic == topic
        }

    def calm(self) -> None:
        """Wait until all workers are ready, and a little longer."""
        asyncio.run(self._workers.ready())
        time.sleep(CALM_SECONDS)

    def begin(self, name: str) -> Action:
        """Note the begin of an action."""
        self._lines()
        action = Action(name, 1000.0 * time.time(), self.owners())
        self.actions.append(action)
        return action

    def end(self, action: Action) -> None:
        """Note which partitions an action has moved, and how long the workers' phases were."""
        owners = self.owners()
        action.moved = {
            number for number in range(PARTITIONS)
            if owners.get(number) != action.owners.get(number)
        }  # fmt: skip
        action.phases = [
            {name: float(seconds) for name, seconds in map(str.split, found[1].split(", "))}
            for line in self._lines()
            if (found := REBALANCED.search(line))
        ]
        rebalances = [f"{sum(one.values()):.2f} {one}" for one in action.phases]
        print(f"{action.name}: moved {sorted(action.moved)}", *rebalances, sep="\n  ", flush=True)

    def take_away(self, name: str, number: int) -> None:
        """Kill, stop or freeze a worker, and wait until the others have its partitions."""
        worker = self._workers.one(number)
        action = self.begin(name)
        if name == "kill":
            worker.send_signal(signal.SIGKILL)
            time.sleep(SESSION_SECONDS + CALM_SECONDS)
        elif name in AT_ONCE:
            worker.send_signal(signal.SIGKILL)
            worker.wait(STOP_SECONDS)
            if name == "wipe":
                shutil.rmtree(self._workers.settings[number].data_dir)
            self._workers.start(number)
            time.sleep(SESSION_SECONDS)
            self.calm()
        elif name == "term":
            worker.send_signal(signal.SIGTERM)
            worker.wait(STOP_SECONDS)
            time.sleep(CALM_SECONDS)
        else:
            worker.send_signal(signal.SIGSTOP)
            time.sleep(FROZEN_SECONDS)
            worker.send_signal(signal.SIGCONT)
            try:
                worker.wait(CALM_SECONDS)  # it finds that it was replaced
            except ProcessError:
                worker.send_signal(signal.SIGKILL)
                worker.wait(STOP_SECONDS)
        self.end(action)

    def bring_back(self, number: int) -> None:
        """Start a worker again on its disk."""
        action = self.begin("join")
        self._workers.start(number)
        self.calm()
        self.end(action)

    def _lines(self) -> list[str]:
        """Return the lines of all logs since the last call."""
        found: list[str] = []
        for number in range(WORKERS):
            with (self._workers.folder / f"worker-{number}.log").open("rb") as log:
                log.seek(self._read[number])
                text = log.read()
            self._read[number] += len(text)
            found += text.decode("utf-8", "replace").splitlines()
        return found


def answered(events: Iterable[Stored], lists: Iterable[Stored]) -> dict[Place, float | None]:
    """Return the milliseconds from each event to the first list of it or a later one of the user.

    >>> event, answer = Stored(5, 0, 7, b"ada", b""), Stored(9, 0, 1, b"ada", b'{"id": "t-0-8"}')
    >>> answered([event], [answer])
    {(0, 7): 4.0}
    """
    of_user: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
    for one in lists:
        offset = json.loads(one.value)["id"].rsplit("-", 1)[1]
        of_user[one.key].append((int(offset), one.ms))
    firsts: dict[bytes, tuple[list[int], list[int]]] = {}
    for user, some in of_user.items():
        some.sort()
        first = list(itertools.accumulate((ms for _, ms in reversed(some)), min))[::-1]
        firsts[user] = [offset for offset, _ in some], first
    found: dict[Place, float | None] = {}
    for one in events:
        offsets, first = firsts.get(one.key, ([], []))
        at = bisect_left(offsets, one.offset)
        found[one.partition, one.offset] = float(first[at] - one.ms) if at < len(offsets) else None
    return found


def pauses(
    events: Sequence[Stored], late: Mapping[Place, float | None], begun: float, end: float
) -> dict[int, float]:
    """Return the longest milliseconds to a list, by partition, of events of a time.

    Args:
        events: of the topic.
        late: milliseconds to the list of each.
        begun: in milliseconds since the epoch.
        end: the same.
    """
    found: dict[int, float] = defaultdict(float)
    for one in events:
        milliseconds = late[one.partition, one.offset]
        if begun <= one.ms < end and milliseconds is not None:
            found[one.partition] = max(found[one.partition], milliseconds)
    return found


def measure(
    systems: Systems, times: int, rate: float, only: Sequence[str], standbys: int
) -> dict[str, Any]:
    """Take workers away and bring them back; return the pauses by action."""
    name = f"pauses-{standbys}"
    settings = load_settings(
        {}, brokers=systems.broker, name=name, artifacts=str(systems.folder / "artifacts"),
        event_partitions=PARTITIONS, item_partitions=ITEM_PARTITIONS, standbys=standbys,
        session_timeout_seconds=SESSION_SECONDS,
    )  # fmt: skip
    asyncio.run(ensure_topics(settings))
    topics = topics_of(settings)
    systems.send(topics.events, EACH * systems.users, False, 1, None)
    stream = Stream(systems, topics.events, rate)
    with crew(settings, WORKERS, systems.states / name) as workers:
        stage = Stage(systems, settings, workers)
        systems.committed(workers.one(0), name, EACH * systems.users, PARTITIONS)
        started = 1000.0 * time.time()
        stream.start()
        stage.calm()
        for turn in range(times):
            for place, action in enumerate(only):
                number = (turn + place) % WORKERS
                stage.take_away(action, number)
                if action not in AT_ONCE:
                    stage.bring_back(number)
        ended = 1000.0 * time.time()
        stream.stop()
        time.sleep(CALM_SECONDS)
        hung = workers.stop()
    if hung:
        raise SystemExit("\n".join(hung))
    events = [one for one in systems.records(topics.events, PARTITIONS) if one.ms >= started]
    late = answered(events, systems.read(topics.recommendations, PARTITIONS))
    ends = [action.begun - EARLIER_MS for action in stage.actions[1:]] + [ended]
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for done, end in zip(stage.actions, ends, strict=True):
        longest = pauses(events, late, done.begun - EARLIER_MS, end)
        found[done.name].append(
            {
                "moved": [longest[one] for one in sorted(longest) if one in done.moved],
                "stayed": [longest[one] for one in sorted(longest) if one not in done.moved],
                "phases": done.phases,
                "recovery": max((one.get("recovery", 0.0) for one in done.phases), default=0.0),
            }
        )
    return {
        "actions": found,
        "events": len(events),
        "without_list": sum(one is None for one in late.values()),
        "usual_ms": statistics.median(one for one in late.values() if one is not None),
    }


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--times", type=int, default=5, help="of each action")
    parser.add_argument("--only", nargs="+", choices=ACTIONS, default=ACTIONS)
    parser.add_argument("--wiped", action="store_true", help="workers lose their disks instead")
    parser.add_argument("--rate", type=float, default=200.0, help="events a second")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, help="kept, its artifact taken again; a new one")
    add_option(parser)
    given = parser.parse_args()
    with open_systems(given.folder, given.items, given.users, build) as systems:
        only = ["wipe"] if given.wiped else given.only
        figures = measure(systems, given.times, given.rate, only, STANDBYS)
        if given.wiped:
            alone = measure(systems, given.times, given.rate, only, 0)
            figures["actions"]["wipe_alone"] = alone["actions"]["wipe"]
            for name in ("events", "without_list"):
                figures[name] += alone[name]
    for name, runs in figures["actions"].items():
        for part in ("moved", "stayed"):
            some = sorted(one for run in runs for one in run[part])
            if some:
                print(
                    f"{name}, partitions that {part}: {some[0]:.0f} {statistics.median(some):.0f}"
                    f" {some[-1]:.0f} ms"
                )
    for name in ("wipe", "wipe_alone"):
        for run in figures["actions"].get(name, []):
            pause = max(run["moved"] + run["stayed"]) / 1000.0
            rest = pause - SESSION_SECONDS - run["recovery"]
            print(
                f"{name}: pause {pause:.2f} s = session timeout {SESSION_SECONDS:g} s + recovery"
                f" {run['recovery']:.2f} s {'+' if rest > 0 else '-'} {abs(rest):.2f} s"
            )
    print(f"{figures['without_list']} of {figures['events']} events without a list")
    plan = {
        "workers": WORKERS, "partitions": PARTITIONS, "standbys": STANDBYS, "rate": given.rate,
        "session_timeout": SESSION_SECONDS, "users": given.users, "items": given.items,
        "events_before": EACH * given.users,
    }  # fmt: skip
    store(given.result, {"plan": plan, **figures})
    if figures["without_list"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
