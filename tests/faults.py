"""Faults: kill, stop and freeze workers under load, and compare their states with a calm run.

python -m tests.faults --workers 3 --kills 10 --terms 3 --freezes 3 --events 100000 --seed 1

With `--actions` it is a random walk that a model of the rules judges, see tests/walk:

python -m tests.faults --seed 1 --actions 1000
"""

import argparse
import asyncio
import contextlib
import json
import logging
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.results import add_option, store
from tests.brokers import KafkaBroker
from tests.neighbour_counts import Uncapped
from tests.shop import build_shop, shop_events, train_shop
from tests.states import (
    EMISSION,
    PLACE,
    Rows,
    item_differences,
    neighbours_kept,
    read_item_events,
    read_rows,
    sum_differences,
    user_differences,
    without_list,
)
from tracker.artifact.artifact import Artifact
from tracker.demo.audit import read_events
from tracker.demo.local import answers_ok, worker_process
from tracker.demo.processes import ChildProcess, free_port
from tracker.events.lines import Line
from tracker.events.wire import decode_event, hash_id
from tracker.kafka.client import read_topic, send_events
from tracker.kafka.cluster import describe_topics, topics_of
from tracker.kafka.topics import ensure_topics
from tracker.settings import Settings, load_settings

logger = logging.getLogger(__name__)

SESSION_SECONDS = 6.0
FROZEN_SECONDS = SESSION_SECONDS + 5.0
STALL_SECONDS = 300.0
HANG_SECONDS = 40.0
READY_SECONDS = 300.0

NEIGHBOURS_KEPT = 0.95
"""Share of the strength of the 20 strongest neighbours that must still be there."""

ENDS_AT_SIGTERM = (0, -signal.SIGTERM)
"""Exit codes of an orderly end; the second one before the worker has set up its signals."""


@dataclass(frozen=True)
class Plan:
    """Numbers of workers, faults, events and users of a run."""

    workers: int = 2
    kills: int = 2
    terms: int = 1
    freezes: int = 1
    events: int = 10_000
    users: int = 2_000
    seed: int = 1
    partitions: int = 4
    item_partitions: int = 2
    pause_seconds: float = 6.0
    trained: bool = False
    partitioners: int = 1

    @property
    def faults(self) -> list[str]:
        """The faults in their seeded order."""
        faults = ["kill"] * self.kills + ["term"] * self.terms + ["freeze"] * self.freezes
        random.Random(self.seed).shuffle(faults)
        return faults

    @property
    def rate(self) -> float:
        """Events per second, such that the events last a little longer than the faults."""
        seconds = len(self.faults) * (self.pause_seconds + 3.0) + self.freezes * FROZEN_SECONDS
        return self.events / max(seconds, 1.0)


@dataclass
class Outcome:
    """The result of a run: if every list is empty, nothing was lost, counted twice or hung."""

    seconds: float = 0.0
    users: int = 0
    items: int = 0
    faults: list[str] = field(default_factory=list)
    wrong_users: list[str] = field(default_factory=list)
    wrong_items: list[str] = field(default_factory=list)
    without_list: list[str] = field(default_factory=list)
    died_by_themselves: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    neighbours: dict[str, float] = field(default_factory=dict)
    neighbours_undisturbed: dict[str, float] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """True if the states are those of the undisturbed run.

        Of neighbours, whose lists are bounded, nearly all that an uncapped count of the
        undisturbed run says is strongest: near ties change places with the order of arrival.
        """
        return self.neighbours.get("strength_at_20", 0.0) >= NEIGHBOURS_KEPT and not (
            self.wrong_users
            or self.wrong_items
            or self.without_list
            or self.died_by_themselves
            or self.hung
        )


class Crew:
    """Workers, each with its own data directory and web server."""

    def __init__(self, base: Settings, count: int, folder: Path) -> None:
        """Prepare the workers; `start` starts one."""
        self.settings = [
            base.model_copy(update={"data_dir": folder / f"data-{n}", "web_port": free_port()})
            for n in range(count)
        ]
        self.folder = folder
        self.workers: list[ChildProcess | None] = [None] * count
        self.frozen_once: set[int] = set()
        self.died: list[str] = []

    def start(self, number: int) -> None:
        """Start a worker."""
        log = self.folder / f"worker-{number}.log"
        worker = worker_process(self.settings[number], log)
        self.workers[number] = worker

    def one(self, number: int) -> ChildProcess:
        """Return a worker that was started."""
        worker = self.workers[number]
        assert worker is not None
        return worker

    def revive(self) -> None:
        """Restart workers that ended by themselves; only one that was frozen may do so."""
        for number in range(len(self.workers)):
            worker = self.one(number)
            if worker.returncode is None:
                continue
            if worker.pid not in self.frozen_once:
                self.died.append(
                    f"worker {number} ended with {worker.returncode} by itself:\n{worker.tail()}"
                )
            self.start(number)

    async def ready(self) -> None:
        """Wait until all workers are ready."""
        deadline = time.monotonic() + READY_SECONDS
        for number, settings in enumerate(self.settings):
            url = f"http://127.0.0.1:{settings.web_port}/readyz"
            while not await asyncio.to_thread(answers_ok, url):
                self.one(number).check()
                if time.monotonic() > deadline:
                    raise TimeoutError(f"worker {number} is not ready: {self.one(number).tail()}")
                await asyncio.sleep(0.2)

    def stop(self) -> list[str]:
        """Stop all with SIGTERM; name those that had to be killed or failed."""
        hung = []
        for worker in self.workers:
            if worker is not None:
                worker.send_signal(signal.SIGTERM)
        for number, worker in enumerate(self.workers):
            if worker is None:
                continue
            code = worker.stop(HANG_SECONDS)
            if code not in ENDS_AT_SIGTERM:
                hung.append(f"worker {number} ended with {code} at SIGTERM:\n{worker.tail()}")
        return hung


@contextlib.contextmanager
def crew(base: Settings, count: int, folder: Path) -> Iterator[Crew]:
    """Yield a crew whose processes end with the block, whatever happens."""
    folder.mkdir(parents=True, exist_ok=True)
    workers = Crew(base, count, folder)
    try:
        for number in range(count):
            workers.start(number)
        yield workers
    finally:
        for worker in workers.workers:
            if worker is not None and worker.returncode is None:
                worker.send_signal(signal.SIGKILL)
                worker.stop(1.0)


async def until_done(settings: Settings, workers: Crew) -> Rows:
    """Wait until all events and item events are in committed states, and return the rows."""
    names = topics_of(settings)
    ends = {topic: await last_offsets(settings, topic) for topic in (names.events,)}
    progress, since = -1, time.monotonic()
    while True:
        workers.revive()
        rows = await read_rows(settings)
        reached = [
            rows.positions.get((names.users_changelog, partition), -1) > last
            for partition, last in ends[names.events].items()
        ]
        if all(reached):
            has_topic = names.hand_over in await describe_topics(settings)
            handed = await last_offsets(settings, names.hand_over) if has_topic else {}
            if any(
                rows.positions.get((names.hand_over, partition), -1) <= last
                for partition, last in handed.items()
            ):
                await asyncio.sleep(1.0)
                continue
            item_ends = await last_offsets(settings, names.items)
            if all(
                rows.positions.get((names.items_changelog, partition), -1) > last
                for partition, last in item_ends.items()
            ):
                return rows
        total = sum(rows.positions.values())
        if total != progress:
            progress, since = total, time.monotonic()
        elif time.monotonic() - since > STALL_SECONDS:
            raise TimeoutError(
                f"no progress for {STALL_SECONDS:g} s: positions {rows.positions}, ends {ends}"
            )
        await asyncio.sleep(1.0)


async def last_offsets(settings: Settings, topic: str) -> dict[int, int]:
    """Return the offset of the last record of each partition that has one."""
    offsets: dict[int, int] = {}
    async with aclosing(read_topic(settings, topic)) as records:
        async for record in records:
            offsets[record.partition] = record.offset
    return offsets


async def undisturbed(
    settings: Settings, send_all: Callable[[], Awaitable[object]], folder: Path
) -> Rows:
    """Run one worker over all events, and return its rows.

    Args:
        settings: of the worker; topics that are missing are created.
        send_all: sends the events.
        folder: for the worker's data and its log.
    """
    await ensure_topics(settings)
    with crew(settings, 1, folder) as workers:
        await workers.ready()
        await send_all()
        rows = await until_done(settings, workers)
        assert not workers.stop()
        assert "Traceback" not in (folder / "worker-0.log").read_text()
    return rows


async def disturbed(
    settings: Settings, lines: list[Line], folder: Path, plan: Plan, outcome: Outcome
) -> Rows:
    """Run workers, disturb them while events come, and return their rows."""
    await ensure_topics(settings)
    chance = random.Random(plan.seed)
    kills = 0
    with crew(settings, plan.workers, folder) as workers:
        await workers.ready()
        sending = asyncio.create_task(send(settings, lines, plan))
        for fault in plan.faults:
            await asyncio.sleep(plan.pause_seconds * (0.5 + chance.random()))
            workers.revive()
            number = chance.randrange(plan.workers)
            worker = workers.one(number)
            text = f"{fault} worker {number}"
            if fault == "freeze":
                workers.frozen_once.add(worker.pid)
                worker.send_signal(signal.SIGSTOP)
                await asyncio.sleep(FROZEN_SECONDS)
                worker.send_signal(signal.SIGCONT)
            elif fault == "kill":
                worker.send_signal(signal.SIGKILL)
                await asyncio.to_thread(worker.wait, 10.0)
                kills += 1
                if kills % 2:
                    shutil.rmtree(workers.settings[number].data_dir, ignore_errors=True)
                    text += ", data directory wiped"
                await asyncio.sleep(2 * chance.random())
                workers.start(number)
            else:
                code = await asyncio.to_thread(worker.stop, HANG_SECONDS)
                if code not in ENDS_AT_SIGTERM:
                    outcome.hung.append(f"worker {number} ended with {code}:\n{worker.tail()}")
                workers.start(number)
            outcome.faults.append(text)
            logger.info("%s", text)
        assert await sending == len(lines)
        rows = await until_done(settings, workers)
        await workers.ready()
        outcome.hung += workers.stop()
        outcome.died_by_themselves += workers.died
    return rows


def two_ways(lines: list[Line]) -> tuple[list[Line], list[Line], set[bytes]]:
    """Divide events between two producers of different partitioners.

    A third of the users is sent by the first, a third by the second, and a third by both in turn.
    Of the last, repeats and retractions are left out: between two producers there is no order.

    Returns:
        the events of each, and the users of both.
    """
    first: list[Line] = []
    second: list[Line] = []
    both: set[bytes] = set()
    known: set[str] = set()
    for line in lines:
        event = decode_event(line.value)
        sort = hash_id(event.user_id) % 3
        if sort == 2:
            if event.retracts is not None or event.event_id in known:
                continue
            both.add(event.user_id.encode())
        known.add(event.event_id or "")
        (first if sort == 0 or (sort == 2 and len(first) % 2) else second).append(line)
    return first, second, both


async def send(settings: Settings, lines: list[Line], plan: Plan) -> int:
    """Send events with one producer, or with two of different partitioners; count confirmed."""
    parts = [(settings, lines)]
    if plan.partitioners == 2:
        first, second, _ = two_ways(lines)
        parts = [
            (settings, first),
            (settings.model_copy(update={"partitioner": "crc32"}), second),
        ]
    sent = await asyncio.gather(
        *(
            send_events(one, iter(part), rate=plan.rate * len(part) / len(lines))
            for one, part in parts
        )
    )
    assert not any(result.errors for result in sent), [result.errors for result in sent]
    return sum(result.confirmed for result in sent)


async def run_faults(address: str, prefix: str, folder: Path, plan: Plan) -> Outcome:
    """Run calm, then with faults, and compare the rows user by user and item by item."""
    started_at = time.monotonic()
    artifacts = folder / "artifacts"
    if plan.trained:
        train_shop(artifacts, folder / "history.jsonl")
    else:
        build_shop(artifacts)
    lines = shop_events(plan.events, plan.users, seed=plan.seed)
    both: set[bytes] = set()
    unlike: tuple[str, ...] = EMISSION
    if plan.partitioners == 2:
        first, second, both = two_ways(lines)
        places = {line.place: number for number, line in enumerate(lines)}
        lines = sorted(first + second, key=lambda line: places[line.place])
        unlike += PLACE
    base: dict[str, Any] = {
        "brokers": address,
        "artifacts": str(artifacts),
        "event_partitions": plan.partitions,
        "item_partitions": plan.item_partitions,
        "session_timeout_seconds": SESSION_SECONDS,
        "transaction_timeout_seconds": SESSION_SECONDS,
        "commit_interval_seconds": 0.5,
    }
    calm = load_settings({}, name=f"{prefix}-calm", **base)
    hurt = load_settings({}, name=f"{prefix}-hurt", **base)
    expected = await undisturbed(calm, lambda: send_events(calm, iter(lines)), folder / "calm")
    logger.info("undisturbed: %d users, %d items", len(expected.users), len(expected.items))
    outcome = Outcome()
    actual = await disturbed(hurt, lines, folder / "hurt", plan, outcome)
    artifact = Artifact.load(artifacts, device="cpu")
    config, hidden = artifact.manifest.interest, artifact.models.hidden
    outcome.users, outcome.items = len(expected.users), len(expected.items)
    outcome.wrong_users = user_differences(expected, actual, config, hidden, both, unlike)
    outcome.wrong_users += sum_differences(expected, actual, config, both)
    outcome.wrong_items = item_differences(expected, actual)
    counted = Uncapped().add(await read_item_events(calm))
    outcome.neighbours = neighbours_kept(counted, actual)
    outcome.neighbours_undisturbed = neighbours_kept(counted, expected)
    outcome.without_list = await without_list(hurt, await read_events(hurt))
    outcome.wrong_users += [f"user {name!r} is still owed a list" for name in actual.owed]
    outcome.seconds = round(time.monotonic() - started_at, 1)
    return outcome


def main() -> int:
    """Start Apache Kafka, run, print one JSON object, and return the exit code."""
    if any(word.startswith("--actions") for word in sys.argv):
        from tests.walk.run import main as walk

        return walk(sys.argv[1:])
    parser = argparse.ArgumentParser(description=__doc__)
    defaults = Plan()
    for name in ("workers", "kills", "terms", "freezes", "events", "users", "seed", "partitioners"):
        parser.add_argument(f"--{name}", type=int, default=getattr(defaults, name))
    parser.add_argument("--trained", action="store_true", help="encoder, ranker, online learning")
    parser.add_argument("--folder", type=Path, help="keep logs and data here")
    add_option(parser)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="tracker-faults-"))
    values = {key: value for key, value in vars(options).items() if key not in ("folder", "result")}
    plan = Plan(**values)
    with KafkaBroker(folder / "kafka") as broker:
        outcome = asyncio.run(run_faults(broker.address, "faults", folder, plan))
    summary = {
        key: value[:5] if key != "faults" and isinstance(value, list) else value
        for key, value in asdict(outcome).items()
    }
    summary["numbers"] = {
        key: len(value) for key, value in asdict(outcome).items() if isinstance(value, list)
    }
    summary |= {"clean": outcome.clean}
    sys.stdout.write(json.dumps(summary, indent=1) + "\n")
    store(options.result, {"plan": asdict(plan), "outcome": summary})
    if outcome.clean and options.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if outcome.clean else 1


if __name__ == "__main__":
    sys.exit(main())
