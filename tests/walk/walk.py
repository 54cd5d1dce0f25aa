"""A random walk: actions drawn by a seed, done to workers and brokers while events come.

`python -m tests.faults --seed 3 --actions 100` walks; with `--folder` an interrupted walk goes on
where it was. Each action has a generator of chance of its own, so that one seed decides all.
"""

import asyncio
import contextlib
import json
import logging
import random
import shutil
import signal
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from indexer.data.catalog import Catalog
from indexer.items.assemble import build_artifact
from indexer.items.options import BuildOptions
from indexer.items.publish import rollback
from tests.faults import HANG_SECONDS, SESSION_SECONDS, until_done
from tests.shop import LetterEncoder, shop_items
from tests.states import Rows
from tests.walk.brokers import Brokers
from tests.walk.crew import BUG, End, WatchedCrew
from tests.walk.events import SECONDS_AN_EVENT, START, Sent, burst, stream
from tracker.artifact.versions import latest_version, sequence_of
from tracker.kafka.cluster import client_arguments, describe_topics, group_of, topics_of
from tracker.kafka.connect import admin_client, consumer, producer
from tracker.kafka.partitioner import ProducerPartitioner
from tracker.kafka.topics import ensure_topics
from tracker.settings import Settings, load_settings

logger = logging.getLogger(__name__)

READY_SECONDS = 120.0
FROZEN_SECONDS = SESSION_SECONDS + 2.0
FULL_SECONDS = 8.0
CALM = 0.25
"""Share of the actions, but for the quick ones, that wait until all workers are ready."""
K = 10
ITEMS_AT_FIRST = 300
CODECS = ("gzip", "snappy", "lz4", "zstd")
UNFINISHED_SECONDS = 8.0

ONE_BROKER = {
    "kill": 10, "term": 6, "freeze": 4, "wipe": 4, "broker killed": 3, "broker slow": 3,
    "broker silent": 2, "broker resets": 4, "storm": 3, "full disk": 2, "damage": 4,
    "publish": 5, "roll back": 3, "refit": 2, "shrink": 3, "late": 5, "repeated": 5,
    "retracted": 6, "rubbish": 5, "unfinished": 3, "compressed": 5,
}  # fmt: skip
"""Actions with one broker, and their weights."""

THREE_BROKERS = {
    "leader killed": 10, "leader stopped": 5, "kill": 5, "term": 3, "wipe": 2, "freeze": 2,
    "publish": 2, "late": 2, "repeated": 2, "retracted": 2, "unfinished": 2, "compressed": 2,
}  # fmt: skip
"""Actions with three brokers, and their weights."""

ON_THE_INDEX = ("publish", "roll back", "refit", "shrink")

QUICK = {"late", "repeated", "retracted", "rubbish", "compressed"}
"""Actions after which nobody waits."""


@dataclass(frozen=True)
class Plan:
    """Numbers of a walk."""

    seed: int = 1
    actions: int = 100
    workers: int = 2
    brokers: int = 1
    rate: float = 40.0
    users: int = 400
    partitions: int = 4
    item_partitions: int = 2
    minutes: float = 0.0
    """Time after which no further action begins; 0 for no limit."""
    plain: bool = False
    """Whether lists depend on their user alone, so that an undisturbed worker's are the same."""
    only: tuple[str, ...] = ()
    """The actions to draw from, each when all workers are ready again; empty for all of them."""

    @property
    def table(self) -> dict[str, int]:
        """The actions, and their weights."""
        table = ONE_BROKER if self.brokers == 1 else THREE_BROKERS
        unlike = ON_THE_INDEX if self.plain else ()
        return {
            name: weight
            for name, weight in table.items()
            if name not in unlike and name in (self.only or table)
        }

    @property
    def calm(self) -> float:
        """The share of the actions that wait until all workers are ready."""
        return 1.0 if self.only else CALM


@dataclass
class Step:
    """One change of LATEST: the version, and from where to where it may or may not be in use.

    `low` and `high` are offsets by partition: events before `low` were applied with earlier
    versions, events from `high` on with this one or later ones; None while that is not known.
    """

    version: str
    low: dict[int, int]
    high: dict[int, int] | None = None
    word: str = "thing"
    """Of the texts of the items: those of one basis stay as they are."""
    earlier: bool = False
    """Whether the workers are of an earlier commit; see `tests.walk.model.Content`."""


@dataclass
class Done:
    """One action that was done; times are those of the clock, in seconds."""

    number: int
    action: str
    began: float
    calm: bool
    text: str = ""
    back: float = 0.0
    """When the only broker listened again that the action had killed; 0 if it killed none."""


@dataclass
class Journal:
    """All that the judgement needs of a walk, kept in a file, so that it can be taken up again."""

    path: Path
    done: list[Done] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    sent: int = 0
    hung: list[str] = field(default_factory=list)
    ends: list[dict[str, Any]] = field(default_factory=list)
    ended: float = 0.0
    breaks: list[float] = field(default_factory=list)
    """When an interrupted walk went on: the time before it is nobody's pause."""

    @classmethod
    def of(cls, path: Path) -> "Journal":
        """Read the journal, or begin one."""
        journal = cls(path)
        if path.exists():
            kept = json.loads(path.read_text())
            journal.done = [Done(**one) for one in kept["done"]]
            for one in kept["steps"]:
                for name in ("low", "high"):
                    if one[name] is not None:
                        one[name] = {int(p): at for p, at in one[name].items()}
                journal.steps.append(Step(**one))
            journal.sent, journal.hung, journal.ends = kept["sent"], kept["hung"], kept["ends"]
            journal.breaks = [*kept["breaks"], time.time()]
        return journal

    def note(self, ends: list[End]) -> None:
        """Move the ends of workers into the journal."""
        self.ends += [{**asdict(end), "wrong": end.is_wrong, "text": end.text} for end in ends]
        ends.clear()

    def keep(self) -> None:
        """Write the journal."""
        fields = {name: value for name, value in asdict(self).items() if name != "path"}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(fields))
        part.replace(self.path)


class Walk:
    """One walk: its brokers, its workers, the load and the actions."""

    def __init__(self, folder: Path, plan: Plan, brokers: Brokers) -> None:
        self.folder, self.plan, self.brokers = folder, plan, brokers
        self.journal = Journal.of(folder / "walk.json")
        self.artifacts = folder / "artifacts"
        base: dict[str, Any] = {
            "name": f"walk{plan.seed}",
            "artifacts": str(self.artifacts),
            "event_partitions": plan.partitions,
            "item_partitions": plan.item_partitions,
            "session_timeout_seconds": SESSION_SECONDS,
            "transaction_timeout_seconds": SESSION_SECONDS,
            "commit_interval_seconds": 0.5,
            "replication_factor": min(3, plan.brokers),
            "k": K,
        }
        self.base = base
        self.settings = load_settings({}, brokers=brokers.address, **base)
        theirs = load_settings({}, brokers=brokers.workers_address, **base)
        self.crew = WatchedCrew(theirs, plan.workers, folder / "workers", plan.plain)
        self.topics = topics_of(self.settings)
        self.confirmed: list[tuple[int, int, str]] = []
        self.stop_load = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._producer: AIOKafkaProducer | None = None
        self._back = 0.0

    async def run(self) -> Rows:
        """Walk, and return the rows that are there in the end."""
        await self._until_brokers()
        await ensure_topics(self.settings)
        if not self.journal.steps:
            await self._build(range(ITEMS_AT_FIRST))
            self.journal.steps[0].high = dict.fromkeys(range(self.plan.partitions), 0)
            self.journal.keep()
        (self.folder / "workers").mkdir(exist_ok=True)
        for number in range(self.plan.workers):
            self.crew.start(number)
        watching = asyncio.create_task(self.crew.watch())
        try:
            if not await self.crew.all_ready(300.0):
                raise TimeoutError(f"workers are not ready: {self.crew.one(0).tail()}")
            async with self.sender() as client:
                self._producer = client
                load = asyncio.create_task(self.load(client))
                await self._actions()
                for task in list(self._tasks):
                    await task
                await self._no_wounds()
                await asyncio.sleep(2.0)
                self.stop_load.set()
                await load
            self.journal.ended = time.time()
            rows = await until_done(self.settings, self.crew)
            await self.crew.all_ready(READY_SECONDS)
            watching.cancel()
            self.journal.hung += self.crew.stop()
        finally:
            watching.cancel()
            self.crew.kill_all()
            self.journal.note(self.crew.ends)
            self.journal.keep()
        return rows

    async def _until_brokers(self) -> None:
        """Wait until all brokers of a cluster are there."""
        for _ in range(60):
            with contextlib.suppress(Exception):
                async with admin_client(self.settings) as admin:
                    described = await admin.describe_cluster()
                    if len(described["brokers"]) == len(self.brokers.all):
                        return
            await asyncio.sleep(0.5)
        raise TimeoutError("the brokers do not answer")

    async def _actions(self) -> None:
        table = self.plan.table
        deadline = time.monotonic() + (self.plan.minutes * 60.0 or float("inf"))
        for number in range(len(self.journal.done), self.plan.actions):
            if time.monotonic() > deadline:
                break
            chance = random.Random(f"action {self.plan.seed} {number}")
            action = chance.choices(list(table), list(table.values()))[0]
            calm = False
            if action not in QUICK:
                await asyncio.sleep(chance.uniform(0.2, 1.6))
                if chance.random() < self.plan.calm:
                    calm = await self.crew.all_ready(READY_SECONDS)
                    await asyncio.sleep(chance.uniform(1.0, 1.5))
            done = Done(number, action, time.time(), calm)
            logger.info("%d %s%s", number, action, "" if calm else " at once")
            work: Callable[[random.Random], Awaitable[str | None]] = getattr(
                self, "do_" + action.replace(" ", "_"), self._burst(action)
            )
            self._back = 0.0
            done.text = await work(chance) or ""
            done.back = self._back
            self.journal.done.append(done)
            self.journal.note(self.crew.ends)
            self.journal.keep()

    # The load: events that the seed decides, at an even rate.

    @contextlib.asynccontextmanager
    async def sender(self, **more: Any) -> AsyncIterator[AIOKafkaProducer]:
        partitioner = ProducerPartitioner(self.settings.partitioner)
        async with producer(self.settings, partitioner=partitioner, linger_ms=0, **more) as client:
            yield client

    async def load(self, client: AIOKafkaProducer) -> None:
        events = stream(self.plan.seed, self.plan.users)
        for _ in range(self.journal.sent):
            next(events)
        began, count = time.monotonic(), 0
        while not self.stop_load.is_set():
            await self._send(client, next(events))
            count += 1
            self.journal.sent += 1
            wait = began + count / self.plan.rate - time.monotonic()
            if wait > 0.002:
                await asyncio.sleep(wait)
            elif wait < -1.0:  # the broker was away: go on from here, not in a rush
                began, count = time.monotonic(), 0
        await client.flush()

    async def _send(self, client: AIOKafkaProducer, sent: Sent) -> None:
        user, value = sent
        key = None if user is None else user.encode()
        try:
            future = await client.send(self.topics.events, value, key=key)
        except KafkaError as error:
            logger.info("not sent: %s", error)
            return

        def confirm(done: "asyncio.Future[Any]") -> None:
            if not done.cancelled() and done.exception() is None:
                stored = done.result()
                text = "" if value is None else value.hex()
                self.confirmed.append((stored.partition, stored.offset, text))

        future.add_done_callback(confirm)

    def _now(self) -> float:
        """The time of the stream."""
        return START + self.journal.sent * SECONDS_AN_EVENT

    def _burst(self, kind: str) -> Callable[[random.Random], Awaitable[str]]:
        async def send(chance: random.Random) -> str:
            sent = self._events(kind, chance)
            assert self._producer is not None
            for one in sent:
                await self._send(self._producer, one)
            return f"{len(sent)} records"

        return send

    def _events(self, kind: str, chance: random.Random) -> list[Sent]:
        name = f"{kind} {self.plan.seed} {len(self.journal.done)}"
        chance.random()
        return burst(kind, name, self.plan.users, self._now())

    # Actions on workers.

    def _one(self, chance: random.Random) -> int:
        return chance.randrange(self.plan.workers)

    async def do_kill(self, chance: random.Random, wipe: bool = False) -> str:
        number = self._one(chance)
        await self.crew.kill(number)
        if wipe:
            shutil.rmtree(self.crew.settings[number].data_dir, ignore_errors=True)
        await asyncio.sleep(chance.uniform(0.0, 2.0))
        self.crew.start(number)
        return f"worker {number}"

    async def do_wipe(self, chance: random.Random) -> str:
        return await self.do_kill(chance, wipe=True)

    async def do_term(self, chance: random.Random) -> str:
        number = self._one(chance)
        began = time.monotonic()
        problem = await self.crew.end(number)
        if problem:
            self.journal.hung.append(problem)
        self.crew.start(number)
        return f"worker {number} in {time.monotonic() - began:.1f} s"

    async def do_freeze(self, chance: random.Random) -> str:
        number = self._one(chance)
        worker = self.crew.one(number)
        worker.send_signal(signal.SIGSTOP)
        await asyncio.sleep(FROZEN_SECONDS)
        worker.send_signal(signal.SIGCONT)
        return f"worker {number}"

    async def do_storm(self, chance: random.Random) -> str:
        times = chance.randrange(3, 6)
        for _ in range(times):
            number = self._one(chance)
            if chance.random() < 0.5:
                await self.crew.kill(number)
            elif problem := await self.crew.end(number):
                self.journal.hung.append(problem)
            self.crew.start(number)
            await asyncio.sleep(chance.uniform(1.0, 3.0))
        return f"{times} times"

    async def do_full_disk(self, chance: random.Random) -> str:
        number = self._one(chance)
        await self.crew.kill(number)
        self.crew.start(number, file_bytes=chance.choice((4, 16, 64)) * 1024)
        self.crew.held.add(number)
        full = self.crew.one(number)
        until = time.monotonic() + FULL_SECONDS
        while full.returncode is None and time.monotonic() < until:
            await asyncio.sleep(0.1)
        how = "it ended by itself"
        if full.returncode is None:  # at the latest on its end it writes what it has in memory
            await asyncio.to_thread(full.stop, HANG_SECONDS)
            how = "it was told to stop"
        code = full.returncode
        if code not in (0, 1, -signal.SIGTERM) or BUG in full.tail(30):
            self.journal.hung.append(f"on a full disk a worker ended with {code}: {full.tail(30)}")
        self.crew.start(number)
        return f"worker {number}, {how}, {code}"

    async def do_damage(self, chance: random.Random) -> str:
        number = self._one(chance)
        await self.crew.kill(number)
        files = [
            path
            for path in sorted(self.crew.settings[number].data_dir.rglob("*"))
            if path.is_file() and path.suffix in (".sst", ".log", "") and path.stat().st_size > 100
            and path.name.startswith(("0", "MANIFEST", "CURRENT"))
        ]  # fmt: skip
        if not files:
            self.crew.start(number)
            return "no file yet"
        path = chance.choice(files)
        data = bytearray(path.read_bytes())
        for _ in range(chance.randrange(1, 30)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(data))
        self.crew.start(number)
        return f"worker {number}, {path.suffix or path.name.split('-')[0]}"

    # Actions on brokers.

    async def do_broker_killed(self, chance: random.Random) -> str:
        number = self.brokers.kill_one(chance)
        away = chance.uniform(0.5, 6.0)
        await asyncio.sleep(away)
        await asyncio.to_thread(self.brokers.restart, number)
        if len(self.brokers.all) == 1:
            self._back = time.time()
        return f"away for {away:.1f} s"

    async def do_broker_slow(self, chance: random.Random) -> str:
        assert self.brokers.proxy is not None
        self.brokers.proxy.delay = 1.0
        seconds = chance.uniform(3.0, 7.0)
        await asyncio.sleep(seconds)
        self.brokers.proxy.delay = 0.0
        return f"1 s a request for {seconds:.1f} s"

    async def do_broker_silent(self, chance: random.Random) -> str:
        assert self.brokers.proxy is not None
        return f"{self.brokers.proxy.forget()} connections"

    async def do_broker_resets(self, chance: random.Random) -> str:
        assert self.brokers.proxy is not None
        times = chance.randrange(1, 4)
        for _ in range(times):
            await asyncio.to_thread(self.brokers.proxy.reset)
            await asyncio.sleep(chance.uniform(0.1, 1.0))
        return f"{times} times"

    async def do_leader_killed(self, chance: random.Random) -> str:
        return await self.do_broker_killed(chance)

    async def do_leader_stopped(self, chance: random.Random) -> str:
        number = chance.randrange(len(self.brokers.all))
        await asyncio.to_thread(self.brokers.all[number].stop)
        await asyncio.sleep(chance.uniform(0.5, 4.0))
        await asyncio.to_thread(self.brokers.restart, number)
        return f"broker {number + 1}"

    async def _no_wounds(self) -> None:
        for number in list(self.brokers.wounded):
            await asyncio.to_thread(self.brokers.restart, number)

    # Actions on the index.

    @property
    def _word(self) -> str:
        return self.journal.steps[-1].word if self.journal.steps else "thing"

    async def do_publish(self, chance: random.Random) -> str:
        return await self._build(range(ITEMS_AT_FIRST + chance.randrange(1, 20)))

    async def do_shrink(self, chance: random.Random) -> str:
        kept = chance.sample(range(ITEMS_AT_FIRST), chance.randrange(150, 290))
        return await self._build(sorted(kept))

    async def do_refit(self, chance: random.Random) -> str:
        return await self._build(range(ITEMS_AT_FIRST), f"word{chance.randrange(1000)}")

    async def do_roll_back(self, chance: random.Random) -> str:
        if sequence_of(latest_version(self.artifacts)) < 2:
            return await self.do_publish(chance)
        low = await self.committed()
        version = await asyncio.to_thread(lambda: rollback(self.artifacts).version)
        words = {step.version: step.word for step in self.journal.steps}
        return self._note(version, low, words[version])

    async def _build(self, numbers: Sequence[int], word: str | None = None) -> str:
        """Build and publish a version with some items; another word makes another basis."""
        items = shop_items(max(numbers) + 1, word or self._word)
        low = await self.committed() if self.journal.steps else {}
        options = BuildOptions(dim=32, refit=word is not None, index="flat")

        def build() -> str:
            catalog = Catalog(items=[items[number] for number in numbers])
            return build_artifact(catalog, LetterEncoder(), self.artifacts, options).version

        return self._note(await asyncio.to_thread(build), low, word or self._word)

    def _note(self, version: str, low: dict[int, int], word: str) -> str:
        every = range(self.plan.partitions)
        step = Step(version, {number: low.get(number, 0) for number in every}, word=word)
        self.journal.steps.append(step)
        if len(self.journal.steps) > 1:
            task = asyncio.create_task(self._taken_up(len(self.journal.steps) - 1))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return version

    async def _taken_up(self, number: int) -> None:
        """Wait until all workers have a version or a later one, and note up to where events are."""
        for _ in range(600):
            wanted = {sequence_of(step.version) for step in self.journal.steps[number:]}
            running = [n for n in range(self.plan.workers) if n not in self.crew.held]
            found = [
                await asyncio.to_thread(_sequence, self.crew.settings[n].web_port) for n in running
            ]
            if len(running) == self.plan.workers and all(one in wanted for one in found):
                break
            await asyncio.sleep(0.3)
        else:
            return
        with contextlib.suppress(KafkaError, TimeoutError):
            ends = await ends_of(self.settings, self.topics.events)
            self.journal.steps[number].high = ends
            self.journal.keep()

    async def committed(self) -> dict[int, int]:
        """Return the offsets of the group, up to which events are in committed states surely."""
        try:
            async with asyncio.timeout(10.0), admin_client(self.settings) as admin:
                offsets = await admin.list_consumer_group_offsets(group_of(self.settings))
        except Exception as error:  # the broker is away: nothing is known
            logger.info("offsets are not known: %s", error)
            return {}
        return {
            tp.partition: max(0, found.offset)
            for tp, found in offsets.items()
            if tp.topic == self.topics.events
        }

    # Actions of another producer.

    async def do_unfinished(self, chance: random.Random) -> str:
        sent = self._events("unfinished", chance)
        client = AIOKafkaProducer(
            **client_arguments(self.settings),
            transactional_id=f"other-{self.plan.seed}-{len(self.journal.done)}",
            transaction_timeout_ms=int(UNFINISHED_SECONDS * 1000),
            partitioner=ProducerPartitioner(self.settings.partitioner),
        )
        end = chance.choice(("commit", "abort", "leave"))
        await client.start()
        try:
            await client.begin_transaction()
            for user, value in sent:
                await client.send(self.topics.events, value, key=(user or "").encode())
            await client.flush()
            await asyncio.sleep(chance.uniform(1.0, 5.0))
            if end == "commit":
                await client.commit_transaction()
            elif end == "abort":
                await client.abort_transaction()
        finally:
            await _leave(client)
        return f"{len(sent)} records, {end}"

    async def do_compressed(self, chance: random.Random) -> str:
        codec = chance.choice(CODECS)
        sent = self._events("compressed", chance)
        async with self.sender(compression_type=codec) as client:
            for one in sent:
                await self._send(client, one)
            await client.flush()
        return f"{len(sent)} records, {codec}"


async def _leave(client: AIOKafkaProducer) -> None:
    """Close a producer without ending its transaction, as a crash does."""
    client._closed = True
    client._sender.sender_task.cancel()
    with contextlib.suppress(Exception):
        await client.client.close()


def _sequence(port: int) -> int:
    """Return the number of the version that a worker has in use; -1 if it does not say."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2.0) as answer:
            text = answer.read().decode()
    except OSError:
        return -1
    for line in text.splitlines():
        if line.startswith("tracker_artifact_sequence"):
            return int(float(line.split()[-1]))
    return -1


async def ends_of(settings: Settings, topic: str) -> dict[int, int]:
    """Return the offset after the last record of each partition, committed or not."""
    count = (await describe_topics(settings))[topic].partitions
    async with consumer(settings, isolation_level="read_uncommitted") as client:
        ends = await client.end_offsets([TopicPartition(topic, number) for number in range(count)])
    return {part.partition: end for part, end in ends.items()}
