"""Throughput and latency of the whole job on Apache Kafka, beside two rivals, in one run.

One broker, one worker of each system in turn, the same prefilled topic of events: JSON in, durable
state a user, a search of 100,000 items, ten items out as JSON. Rates are events by the span from
the first to the last output's append time at the broker. The tracker runs with everything on: item
side, ring, slots, reasons, trend, at most two searches a user, default settings.

Run: make bench, or python -m benchmarks.throughput --json FILE
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import faiss
import numpy as np
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from numpy.typing import NDArray

from benchmarks.results import add_option, store
from indexer.data.catalog import Catalog, Item
from indexer.items.assemble import build_artifact
from indexer.items.item_encoder import Progress
from indexer.items.options import BuildOptions
from tests.brokers import KafkaBroker
from tracker.artifact.artifact import Artifact
from tracker.artifact.manifest import EncoderInfo
from tracker.demo.processes import ChildProcess

TEXT_WIDTH = 384
TOPICS_OF_TEXT = 400
FAUST, QUIX, TRACKER = "textbook Faust", "Quix Streams", "tracker"
LATENCY_SECONDS = 20.0
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
    """What one system did with a topic: events, seconds, lists sent, processor time an event."""

    events: int
    seconds: float
    outputs: int
    cpu_microseconds: float

    @property
    def events_per_second(self) -> float:
        """The rate that is compared."""
        return self.events / self.seconds


class Bench:
    """A broker, a catalogue and the systems that are run on them."""

    def __init__(self, folder: Path, broker: str, arguments: argparse.Namespace) -> None:
        """Connect; `folder` holds the artifact and the rivals' copy of its index."""
        self.folder = folder
        self.broker = broker
        self.arguments = arguments
        self.admin = AdminClient({"bootstrap.servers": broker})
        self.runs = 0

    def prepare(self) -> None:
        """Build the artifact with the product's own indexer, and the rivals' copy of its index."""
        n = self.arguments.items
        items = [
            Item(item_id=f"item{row:07d}", title=f"Product {row}", categories=[f"Dept {row % 40}"])
            for row in range(n)
        ]
        if not (self.folder / "artifacts" / "LATEST").exists():
            build_artifact(
                Catalog(items), SyntheticEncoder(), self.folder / "artifacts", BuildOptions()
            )
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
        (self.folder / "ids.json").write_text(json.dumps(artifact.vectors.ids))

    def create(self, topic: str, partitions: int = PARTITIONS) -> None:
        """Create a topic whose records bear the broker's append time."""
        new = NewTopic(topic, partitions, 1, config={"message.timestamp.type": "LogAppendTime"})
        self.admin.create_topics([new])[topic].result()

    def events(self, count: int, zipf: bool, seed: int) -> Iterator[tuple[str, bytes]]:
        """Yield (user, JSON) with users uniform or Zipf, items always Zipf."""
        generator = np.random.default_rng(seed)
        users = ranks(generator, self.arguments.users, count, 1.0 if zipf else 0.0)
        items = ranks(generator, self.arguments.items, count, 0.8)
        chooser = random.Random(seed)
        start = time.time() - 3600
        for n in range(count):
            user = f"user{users[n]:07d}"
            kind = chooser.choice(("view", "view", "click", "like", "cart"))
            yield (
                user,
                json.dumps(
                    {
                        "user_id": user,
                        "item_id": f"item{items[n]:07d}",
                        "kind": kind,
                        "timestamp": round(start + n * 0.001, 3),
                        "scene": "home",
                    }
                ).encode(),
            )

    def send(self, topic: str, count: int, zipf: bool, seed: int, rate: float | None) -> None:
        """Produce events keyed by user, at a rate (open loop) or as fast as it goes."""
        producer = Producer(
            {
                "bootstrap.servers": self.broker,
                "partitioner": "murmur2_random",
                "linger.ms": 5 if rate is None else 2,
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        begin = time.perf_counter()
        for n, (user, value) in enumerate(self.events(count, zipf, seed)):
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

    def read(self, topic: str) -> list[tuple[int, int, int, bytes]]:
        """Return (append ms, partition, offset, value) of every record of a topic."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.broker,
                "group.id": "bench-read",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.message.max.bytes": 8_000_000,
            }
        )
        consumer.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
        found, ended = [], 0
        while ended < PARTITIONS:
            for message in consumer.consume(10_000, 1.0):
                if message.error():
                    ended += 1
                else:
                    place = (message.partition(), message.offset())
                    found.append((message.timestamp()[1], *place, message.value()))
        consumer.close()
        return found

    @contextmanager
    def running(self, command: list[str], env: Mapping[str, str]) -> Iterator[ChildProcess]:
        """Run a system, and end it."""
        self.runs += 1
        log = self.folder / f"run-{self.runs}.log"
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

    def rival(self, name: str, events: str, count: int) -> Rate:
        """Run a rival until it has answered `count` events."""
        run = f"{name}-{self.runs}"
        output = f"{run}-out"
        self.create(output)
        env = {
            "BENCH_FOLDER": str(self.folder),
            "BENCH_BROKERS": self.broker,
            "BENCH_NAME": run,
            "BENCH_DATA": str(self.folder / run),
            "BENCH_EVENTS": events,
            "BENCH_OUTPUT": output,
            "BENCH_PARTITIONS": str(PARTITIONS),
        }
        command = [sys.executable, "-m", f"benchmarks.rivals.{name}"]
        if name == "textbook_faust":
            command += ["worker"]
        with self.running(command, env) as process:
            self.wait(process, output, 1, 120)
            begun, cpu = self.ends(output), cpu_seconds(process.pid)
            self.wait(process, output, count, 60)
            spent = cpu_seconds(process.pid) - cpu
            done = self.ends(output) - begun
        times = sorted(record[0] for record in self.read(output))[:count]
        return Rate(count, (times[-1] - times[0]) / 1000, count, 1e6 * spent / done)

    def tracker_env(self, name: str) -> dict[str, str]:
        """Return the settings of a tracker run: the defaults but for names and places."""
        return {
            "TRACKER_NAME": name,
            "TRACKER_BROKERS": self.broker,
            "TRACKER_ARTIFACTS": str(self.folder / "artifacts"),
            "TRACKER_DATA_DIR": str(self.folder / name),
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

    def tracker(self, name: str, count: int) -> Rate:
        """Run the tracker until it has committed all its events."""
        output = f"{name}-recommendations"
        with self.running([sys.executable, "-m", "tracker", "worker"], self.tracker_env(name)) as p:
            self.wait(p, output, 1, 120)
            cpu = cpu_seconds(p.pid)
            self.committed(p, name, count)
            spent = cpu_seconds(p.pid) - cpu
        records = self.read(output)
        times = [record[0] for record in records]
        seconds = (max(times) - min(times)) / 1000
        return Rate(count, seconds, len(records), 1e6 * spent / count)

    def committed(self, process: ChildProcess, name: str, count: int) -> None:
        """Wait until the tracker's group has committed `count` events."""
        consumer = Consumer({"bootstrap.servers": self.broker, "group.id": name})
        places = [TopicPartition(f"{name}-events", p) for p in range(PARTITIONS)]
        last, still = -1, time.monotonic()
        while last < count:
            process.check()
            try:
                now = sum(max(0, place.offset) for place in consumer.committed(places, timeout=10))
            except KafkaException:
                now = last  # the group has no coordinator yet
            if now != last:
                last, still = now, time.monotonic()
            if time.monotonic() - still > 120:
                raise SystemExit(f"the tracker stands at {last} of {count}: {process.tail()}")
            time.sleep(0.5)
        consumer.close()

    def latency(self, rate: float, seconds: float) -> dict[str, float]:
        """Return quantiles (ms) from an event's append to its recommendation's, at a rate."""
        name = f"paced{self.runs}"
        self.topics(name)
        count = int(rate * seconds)
        with self.running([sys.executable, "-m", "tracker", "worker"], self.tracker_env(name)) as p:
            self.send(f"{name}-events", 2000, False, 1, 1000.0)
            self.committed(p, name, 2000)
            self.send(f"{name}-events", count, False, 2, rate)
            self.committed(p, name, count + 2000)
        appended = {(part, off): ms for ms, part, off, _ in self.read(f"{name}-events")}
        warm = min(ms for ms in appended.values()) + 3000
        latencies = []
        for ms, _, _, value in self.read(f"{name}-recommendations"):
            _, partition, offset = json.loads(value)["id"].rsplit("-", 2)
            begin = appended[int(partition), int(offset)]
            if begin > warm:
                latencies.append(ms - begin)
        quantiles = np.percentile(latencies, [50, 95, 99])
        return dict(zip(("p50", "p95", "p99"), map(float, quantiles), strict=True))


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


def compare(bench: Bench, law: str, only: Sequence[str]) -> dict[str, list[Rate]]:
    """Run the systems in turn on the same topic of events, several times."""
    arguments = bench.arguments
    rates: dict[str, list[Rate]] = {}
    for turn in range(arguments.repeat):
        name = f"bench-{law}-{turn}"
        bench.topics(name)
        topic = f"{name}-events"
        bench.send(topic, arguments.events, law == "zipf", turn, None)
        found: dict[str, Rate] = {}
        if "faust" in only:
            found[FAUST] = bench.rival("textbook_faust", topic, arguments.faust_events)
        if "quix" in only:
            found[QUIX] = bench.rival("quix_pipeline", topic, arguments.events)
        if "tracker" in only:
            found[TRACKER] = bench.tracker(name, arguments.events)
            print(f"# tracker: {found[TRACKER].outputs} lists for {arguments.events} events")
        for system, rate in found.items():
            rates.setdefault(system, []).append(rate)
        latest = {
            system: f"{rate.events_per_second:,.0f} events/s,"
            f" {rate.cpu_microseconds:.0f} us of CPU each"
            for system, rate in found.items()
        }
        print(f"# {law} users, run {turn + 1}: {latest}", flush=True)
    return rates


def median_rate(rates: Sequence[Rate]) -> float:
    """Return the median of the events per second, 0 without a run."""
    return statistics.median([rate.events_per_second for rate in rates] or [0.0])


def main() -> None:
    """Run all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--events", type=int, default=400_000, help="for the tracker and Quix")
    parser.add_argument("--faust-events", type=int, default=40_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--rate", type=float, action="append", help="for latency; half of the tracker's by default"
    )
    parser.add_argument("--latency-runs", type=int, default=1, help="for each rate")
    parser.add_argument("--only", default="faust,quix,tracker,latency")
    parser.add_argument("--users-law", default="uniform,zipf")
    parser.add_argument("--folder", type=Path, help="kept, its artifact taken again; a new one")
    parser.add_argument("--json", type=Path)
    add_option(parser)
    arguments = parser.parse_args()
    only = arguments.only.split(",")
    throughput: dict[str, dict[str, list[Rate]]] = {}
    latency: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory(prefix="tracker-bench-") as place:
        folder = arguments.folder or Path(place)
        with KafkaBroker(folder / "kafka") as broker:
            bench = Bench(folder, broker.address, arguments)
            bench.prepare()
            for law in arguments.users_law.split(","):
                throughput[law] = compare(bench, law, only)
                ours = median_rate(throughput[law].get(TRACKER, []))
                for system, runs in throughput[law].items():
                    middle = median_rate(runs)
                    print(
                        f"{law:8} {system:15} {middle:9,.0f} events/s"
                        f"   tracker / it = {ours / middle:.2f}",
                        flush=True,
                    )
                if "latency" in only and law == "uniform":
                    for rate in (arguments.rate or [ours / 2]) * arguments.latency_runs:
                        if rate:
                            found = bench.latency(rate, LATENCY_SECONDS)
                            latency.append({"rate": rate, **found})
                            print(f"latency at {rate:,.0f} events/s: {found} ms", flush=True)
    figures: dict[str, object] = {
        law: {
            system: [asdict(run) | {"events_per_second": run.events_per_second} for run in runs]
            for system, runs in rates.items()
        }
        for law, rates in throughput.items()
        if rates
    }
    figures |= {"items": arguments.items, "users": arguments.users, "latency_ms": latency}
    store(arguments.result, figures)
    if arguments.json is not None:
        date = datetime.now(UTC).isoformat(timespec="seconds")
        arguments.json.write_text(json.dumps({"date": date, **figures}, indent=2))


if __name__ == "__main__":
    main()
