"""A broker, a catalogue, and the systems that are measured on them: one job, written several ways.

One Apache Kafka broker; each system in turn is a process of its own, and reads the same topic of
events. The rivals search the same index as the tracker, or a faster one of the same recall, with
the same k.
"""

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from numpy.typing import NDArray

from indexer.data.catalog import Catalog, Item
from indexer.items.assemble import build_artifact
from indexer.items.item_encoder import Progress
from indexer.items.options import BuildOptions
from tests.brokers import KafkaBroker
from tracker.artifact.artifact import Artifact
from tracker.artifact.manifest import EncoderInfo
from tracker.demo.processes import ChildProcess

TRACKER = "tracker"
RIVALS = {
    "Quix Streams": "quix_pipeline",
    "Bytewax": "bytewax_flow",
    "textbook Faust": "textbook_faust",
    "bare loop": "bare_loop",
    "echo": "bare_echo",
}
"""Modules in benchmarks/rivals by the name of a system."""

TEXT_WIDTH = 384
TOPICS_OF_TEXT = 400
PARTITIONS = 4
ITEM_PARTITIONS = 4
K = 10


class SyntheticEncoder:
    """Vectors that look like encoded product texts: topics and noise, seeded."""

    info = EncoderInfo("synthetic", "synthetic-1", TEXT_WIDTH, 32, "mean")

    def __init__(self) -> None:
        """Draw the topics."""
        generator = np.random.default_rng(7)
        decay = 1.0 / np.sqrt(1.0 + np.arange(TEXT_WIDTH))
        self._topics = generator.normal(size=(TOPICS_OF_TEXT, TEXT_WIDTH)) * decay
        self._mean = generator.normal(size=TEXT_WIDTH) * 0.5

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> NDArray[np.float16]:
        """Return (N, 384) float16."""
        decay = 1.0 / np.sqrt(1.0 + np.arange(TEXT_WIDTH))
        generator = np.random.default_rng(len(texts))
        topics = generator.integers(0, TOPICS_OF_TEXT, len(texts))
        noise = generator.normal(size=(len(texts), TEXT_WIDTH)) * decay
        vectors = self._mean + self._topics[topics] + 0.7 * noise
        return np.asarray(vectors, np.float16)


@dataclass(frozen=True)
class Rate:
    """What one system did with a topic: events, seconds, lists, processor time, bytes a list."""

    events: int
    seconds: float
    outputs: int
    cpu_microseconds: float
    output_bytes: float

    @property
    def events_per_second(self) -> float:
        """The rate that is compared."""
        return self.events / self.seconds


class Stored(NamedTuple):
    """A record of a topic, and when the broker appended it."""

    ms: int
    partition: int
    offset: int
    key: bytes
    value: bytes


class Systems:
    """A broker, a catalogue and the systems that are run on them."""

    def __init__(self, folder: Path, broker: str, items: int, users: int) -> None:
        """Connect; `folder` holds the artifact and the rivals' copy of its index."""
        self.folder = folder
        self.states = folder / "states"
        # Those of an earlier broker do not fit this one's topics.
        shutil.rmtree(self.states, ignore_errors=True)
        self.states.mkdir(parents=True)
        self.broker = broker
        self.items = items
        self.item_ids: Sequence[str] = [f"item{row:07d}" for row in range(items)]
        self.users = users
        self.admin = AdminClient({"bootstrap.servers": broker})
        self.runs = 0

    def prepare(self) -> None:
        """Build the artifact with the product's own indexer, and the rivals' copy of its index."""
        build(self.folder / "artifacts", self.items)
        artifact = Artifact.load(self.folder / "artifacts")
        info = artifact.manifest.index
        print(
            f"# the tracker's index: {info.kind} {info.parameters}, recall@10"
            f" {info.recall_at_10:.3f}, {info.microseconds:.0f} us a query in batches"
        )
        vectors = np.array(artifact.vectors.vectors)
        ours = faiss.read_index(str(artifact.path / "index.faiss"))
        rivals = {info.kind: ours, "ivf_sq8": scalar_index(vectors, info.recall_at_10)}
        times = {kind: single_query_microseconds(index, vectors) for kind, index in rivals.items()}
        fastest = min(times, key=lambda kind: times[kind])
        print(f"# one query at a time: {times}; the rivals search {fastest}")
        faiss.write_index(rivals[fastest], str(self.folder / "index.faiss"))
        np.save(self.folder / "vectors.npy", vectors)
        (self.folder / "ids.json").write_text(json.dumps(list(artifact.vectors.ids)))

    def create(self, topic: str, partitions: int = PARTITIONS) -> None:
        """Create a topic whose records bear the broker's append time."""
        new = NewTopic(topic, partitions, 1, config={"message.timestamp.type": "LogAppendTime"})
        self.admin.create_topics([new])[topic].result()

    def events(
        self, count: int, zipf: bool, seed: int, ago: float = 3600.0, step: float = 0.001
    ) -> Iterator[tuple[str, bytes]]:
        """Yield (user, JSON) with users uniform or Zipf, items always Zipf.

        The first event is of `ago` seconds before now, each of `step` seconds after the one before.
        """
        generator = np.random.default_rng(seed)
        users = ranks(generator, self.users, count, 1.0 if zipf else 0.0)
        items = ranks(generator, self.items, count, 0.8)
        chooser = random.Random(seed)
        start = time.time() - ago
        for n in range(count):
            user = f"user{users[n]:07d}"
            kind = chooser.choice(("view", "view", "click", "like", "cart"))
            yield (
                user,
                json.dumps(
                    {
                        "user_id": user,
                        "item_id": self.item_ids[items[n]],
                        "kind": kind,
                        "timestamp": round(start + n * step, 3),
                        "scene": "home",
                    }
                ).encode(),
            )

    def send(
        self,
        topic: str,
        count: int,
        zipf: bool,
        seed: int,
        rate: float | None,
        more: Mapping[str, str | int | bool] | None = None,
        ago: float = 3600.0,
        step: float = 0.001,
    ) -> None:
        """Produce events keyed by user, at a rate (open loop) or as fast as it goes.

        Args:
            topic: of the events.
            count: of events.
            zipf: whether few users send most events.
            seed: of the events.
            rate: events a second; None for as many as possible.
            more: settings of the producer.
            ago: as for `events`.
            step: as for `events`.
        """
        producer = Producer(
            {
                "bootstrap.servers": self.broker,
                "partitioner": "murmur2_random",
                "linger.ms": 5 if rate is None else 2,
                "queue.buffering.max.messages": 1_000_000,
                **(more or {}),
            }
        )
        begin = time.perf_counter()
        for n, (user, value) in enumerate(self.events(count, zipf, seed, ago, step)):
            if rate is not None:
                ahead = n / rate - (time.perf_counter() - begin)
                if ahead > 0.002:
                    time.sleep(ahead)
            producer.produce(topic, value, key=user.encode())
            if n % 1000 == 0:
                producer.poll(0)
        producer.flush()

    def ends(self, topic: str) -> int:
        """Return the number of records appended to a topic so far."""
        consumer = Consumer({"bootstrap.servers": self.broker, "group.id": "bench-ends"})
        try:
            return sum(
                consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1]
                for p in range(PARTITIONS)
            )
        except KafkaException:
            return 0  # the topic is so new that it has no leader yet
        finally:
            consumer.close()

    def read(self, topic: str, partitions: int = PARTITIONS) -> list["Stored"]:
        """Return every record of a topic."""
        return list(self.records(topic, partitions))

    def records(self, topic: str, partitions: int = PARTITIONS) -> Iterator["Stored"]:
        """Yield every record of a topic, of each partition in order."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.broker,
                "group.id": "bench-read",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.message.max.bytes": 8_000_000,
            }
        )
        consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
        ended = 0
        while ended < partitions:
            for message in consumer.consume(10_000, 1.0):
                if message.error():
                    ended += 1
                else:
                    yield Stored(
                        message.timestamp()[1],
                        message.partition(),
                        message.offset(),
                        message.key(),
                        message.value(),
                    )
        consumer.close()

    @contextmanager
    def running(self, command: list[str], env: Mapping[str, str]) -> Iterator[ChildProcess]:
        """Run a system, and end it."""
        self.runs += 1
        log = self.folder / f"run-{self.runs}.log"
        log.unlink(missing_ok=True)  # of an earlier measurement in a kept folder
        with ChildProcess(command[-1], command, log, {**os.environ, **env}) as process:
            yield process

    def wait(self, process: ChildProcess, done: str, count: int, seconds: float) -> None:
        """Wait until a topic has so many records, or has stood still for so many seconds.

        Raises:
            ProcessError: the process ended.
        """
        last, still = -1, time.monotonic()
        while last < count:
            process.check()
            now = self.ends(done)
            if now != last:
                last, still = now, time.monotonic()
            if time.monotonic() - still > seconds:
                raise SystemExit(f"{process.name} stands at {last} of {count}: {process.tail()}")
            time.sleep(0.5)

    @contextmanager
    def rival(self, system: str, events: str) -> Iterator[tuple[ChildProcess, str]]:
        """Run a rival on a topic of events; yield it and its topic of lists."""
        run = f"{RIVALS[system]}-{self.runs}"
        output = f"{run}-out"
        self.create(output)
        env = {
            "BENCH_FOLDER": str(self.folder),
            "BENCH_BROKERS": self.broker,
            "BENCH_NAME": run,
            "BENCH_DATA": str(self.states / run),
            "BENCH_EVENTS": events,
            "BENCH_OUTPUT": output,
            "BENCH_PARTITIONS": str(PARTITIONS),
        }
        command = [sys.executable, "-m", f"benchmarks.rivals.{RIVALS[system]}"]
        if system == "textbook Faust":
            command += ["worker"]
        with self.running(command, env) as process:
            yield process, output

    def rate_of(self, system: str, events: str, count: int) -> Rate:
        """Run a rival until it has answered `count` events; return its rate."""
        with self.rival(system, events) as (process, output):
            self.wait(process, output, 1, 300)
            begun, cpu = self.ends(output), cpu_seconds(process.pid)
            self.wait(process, output, count, 60)
            spent = cpu_seconds(process.pid) - cpu
            done = max(1, self.ends(output) - begun)
        records = sorted(self.read(output))[:count]
        return Rate(
            count, (records[-1].ms - records[0].ms) / 1000, count, 1e6 * spent / done,
            statistics.fmean(len(one.value) for one in records),
        )  # fmt: skip

    def tracker_env(self, name: str) -> dict[str, str]:
        """Return the settings of a tracker run: the defaults but for names and places."""
        return {
            "TRACKER_NAME": name,
            "TRACKER_BROKERS": self.broker,
            "TRACKER_ARTIFACTS": str(self.folder / "artifacts"),
            "TRACKER_DATA_DIR": str(self.states / name),
            "TRACKER_EVENT_PARTITIONS": str(PARTITIONS),
            "TRACKER_ITEM_PARTITIONS": str(ITEM_PARTITIONS),
            "TRACKER_WEB_PORT": "0",
        }

    def topics(self, name: str) -> None:
        """Create the tracker's topics with its own command."""
        env = {**os.environ, **self.tracker_env(name)}
        subprocess.run(
            [sys.executable, "-m", "tracker", "topics"],
            env=env,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    @contextmanager
    def tracker(self, name: str, **settings: str) -> Iterator[ChildProcess]:
        """Run a worker of the tracker."""
        env = self.tracker_env(name) | settings
        with self.running([sys.executable, "-m", "tracker", "worker"], env) as process:
            yield process

    def rate_of_tracker(self, name: str, count: int, **settings: str) -> Rate:
        """Run the tracker until it has committed all its events; return its rate."""
        output = f"{name}-recommendations"
        with self.tracker(name, **settings) as p:
            self.wait(p, output, 1, 300)
            cpu = cpu_seconds(p.pid)
            self.committed(p, name, count)
            spent = cpu_seconds(p.pid) - cpu
        records = self.read(output)
        times = [record.ms for record in records]
        seconds = (max(times) - min(times)) / 1000
        size = statistics.fmean(len(record.value) for record in records)
        return Rate(count, seconds, len(records), 1e6 * spent / count, size)

    def committed(
        self, process: ChildProcess, name: str, count: int, partitions: int = PARTITIONS
    ) -> None:
        """Wait until the tracker's group has committed `count` events."""
        consumer = Consumer({"bootstrap.servers": self.broker, "group.id": name})
        places = [TopicPartition(f"{name}-events", p) for p in range(partitions)]
        last, still = -1, time.monotonic()
        while last < count:
            process.check()
            try:
                now = sum(max(0, place.offset) for place in consumer.committed(places, timeout=10))
            except KafkaException:
                now = last  # the group has no coordinator yet
            if now != last:
                last, still = now, time.monotonic()
            if time.monotonic() - still > 300:
                raise SystemExit(f"the tracker stands at {last} of {count}: {process.tail()}")
            time.sleep(0.5)
        consumer.close()


def build(root: Path, items: int) -> None:
    """Build one version of a made-up catalogue with the product's own indexer, unless one is there.

    Args:
        root: folder of the artifacts.
        items: of the catalogue.
    """
    if not (root / "LATEST").exists():
        catalog = Catalog(
            [
                Item(
                    item_id=f"item{row:07d}",
                    title=f"Product {row}",
                    categories=[f"Dept {row % 40}"],
                )
                for row in range(items)
            ]
        )
        build_artifact(catalog, SyntheticEncoder(), root, BuildOptions())


def cpu_seconds(pid: int) -> float:
    """Return the processor time a process has used, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ranks(
    generator: np.random.Generator, size: int, count: int, exponent: float
) -> NDArray[np.int64]:
    """Draw `count` of `size` with probability ~ 1 / rank^exponent, ranks shuffled."""
    weights = 1.0 / np.arange(1, size + 1) ** exponent
    order = np.random.default_rng(3).permutation(size)
    cumulative = np.cumsum(weights) / weights.sum()
    drawn = np.searchsorted(cumulative, generator.random(count))
    return np.asarray(order[np.minimum(drawn, size - 1)], np.int64)


def scalar_index(vectors: NDArray[np.float32], recall: float) -> faiss.Index:
    """Return the index the rivals would take: IVF with 8-bit scalars, as good as ours."""
    dim = vectors.shape[1]
    quantizer = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, dim, 1024, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    index.train(vectors[:50_000])
    index.add(vectors)
    generator = np.random.default_rng(1)
    queries = vectors[generator.integers(0, len(vectors), 500)]
    queries = queries + vectors[generator.integers(0, len(vectors), 500)]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    exact = np.argsort(-(queries @ vectors.T), axis=1)[:, :K]
    for probes in (4, 8, 12, 16, 24, 32, 48, 64, 96, 128):
        index.nprobe = probes
        found = index.search(queries, K)[1]
        hits = np.mean([len(set(a) & set(b)) for a, b in zip(exact, found, strict=True)]) / K
        if hits >= min(recall, 0.98):
            break
    return index


def single_query_microseconds(index: faiss.Index, vectors: NDArray[np.float32]) -> float:
    """Return the median time of a search with one query on one thread."""
    faiss.omp_set_num_threads(1)
    times = []
    for query in vectors[:: len(vectors) // 300]:
        begin = time.perf_counter()
        index.search(query[None], K)
        times.append(time.perf_counter() - begin)
    return round(1e6 * statistics.median(times), 1)


@contextmanager
def open_systems(
    folder: Path | None,
    items: int,
    users: int,
    publish: Callable[[Path, int], None] | None = None,
) -> Iterator[Systems]:
    """Start a broker and prepare a catalogue, in a folder that is kept or in a temporary one.

    Args:
        folder: None for a temporary one.
        items: of the catalogue.
        users: of which events are.
        publish: called with the folder of artifacts and the number of items; by default one version
            is built, and the rivals' copy of it.
    """
    with tempfile.TemporaryDirectory(prefix="tracker-bench-") as place:
        home = folder or Path(place)
        with KafkaBroker(home / f"kafka-{os.getpid()}") as broker:
            systems = Systems(home, broker.address, items, users)
            if publish is None:
                systems.prepare()
            else:
                publish(home / "artifacts", items)
            yield systems


def until(ready: Callable[[], bool], process: ChildProcess, seconds: float) -> float:
    """Wait until something is so; return the seconds that it took.

    Raises:
        ProcessError: the process ended.
        TimeoutError: it took too long.
    """
    begun = time.monotonic()
    while not ready():
        process.check()
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"{process.name}: {process.tail()}")
        time.sleep(0.02)
    return time.monotonic() - begun
