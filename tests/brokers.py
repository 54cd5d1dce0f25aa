"""Brokers for the tests: Apache Kafka in one process, which can be killed and started again."""

import base64
import fcntl
import os
import re
import shutil
import signal
import subprocess
import uuid
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.paths import ROOT
from tracker.demo.processes import ChildProcess, free_port, wait_for_port

HERE = ROOT / "tests" / "kafka"
FETCH_SECONDS = 600.0
START_SECONDS = 240.0
JAVA_AT_LEAST = 17

PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
group.min.session.timeout.ms=1000
num.network.threads=2
num.io.threads=2
auto.create.topics.enable=false
"""


def library() -> Path:
    """The folder of Kafka's jars: tests/kafka/lib, or what KAFKA_TEST_LIB names."""
    return Path(os.environ.get("KAFKA_TEST_LIB") or HERE / "lib")


def why_no_kafka() -> str | None:
    """Say why Apache Kafka cannot run here, None where it can."""
    java = shutil.which("java")
    if java is None:
        return f"no 'java' in PATH: install Java {JAVA_AT_LEAST} or newer"
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', told)
    if found is None or int(found[1]) < JAVA_AT_LEAST:
        first = (told.splitlines() or ["nothing"])[0]
        return f"'java -version' says {first}: install Java {JAVA_AT_LEAST} or newer"
    if not any(library().glob("kafka_*.jar")) and shutil.which("mvn") is None:
        return (
            "no 'mvn' in PATH to fetch Apache Kafka with: install Maven, "
            "or let KAFKA_TEST_LIB name a folder with its jars"
        )
    return None


def fetch() -> Path:
    """Fetch Apache Kafka once (54 MB) and return the folder of its jars.

    Several test processes may call this at the same time: a lock file lets one of them work. The
    jars are copied into a temporary folder that is renamed, so half a copy is never taken for one.

    Raises:
        RuntimeError: Maven failed; its last lines are in the message.
    """
    folder = library()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(folder.name + ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if any(folder.glob("kafka_*.jar")):
            return folder
        part = folder.with_name(f"{folder.name}.{os.getpid()}")
        command = [
            "mvn",
            "--batch-mode",
            "--quiet",
            f"--file={HERE / 'pom.xml'}",
            "dependency:copy-dependencies",
            f"-DoutputDirectory={part.resolve()}",
        ]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False
            )
            if done.returncode != 0:
                tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
                raise RuntimeError(f"Maven could not fetch Apache Kafka:\n{tail}")
            if folder.exists():
                shutil.rmtree(folder)
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return folder


def new_cluster() -> str:
    """Return an id for a new cluster; one that begins with a dash, Kafka reads as an option."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "0")


class KafkaBroker:
    """One Apache Kafka process, broker and controller in one, its data in a folder.

    Ports and data stay the same from one start to the next, so it can be killed and come back.
    """

    def __init__(
        self,
        folder: Path,
        port: int | None = None,
        extra: str = "",
        cluster: str | None = None,
    ) -> None:
        """Format the data folder, unless it is already; nothing runs yet.

        Args:
            folder: for data, settings and log.
            port: of 127.0.0.1; by default a free one.
            extra: further lines of server.properties.
            cluster: its id, which several brokers share; by default a new one.
        """
        self.jars = fetch()
        self.folder = folder
        self.port = port or free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.log = folder / "kafka.log"
        self._process: ChildProcess | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._properties = folder / "server.properties"
        self._properties.write_text(
            PROPERTIES.format(port=self.port, controller=free_port(), data=folder / "data") + extra
        )
        done = subprocess.run(
            [
                *self._java("kafka.tools.StorageTool"),
                "format",
                "--ignore-formatted",
                "-t",
                cluster or new_cluster(),
                "-c",
                str(self._properties),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            told = done.stdout + done.stderr
            raise RuntimeError(f"Kafka's storage could not be formatted: {told}")

    @property
    def version(self) -> str:
        """The version of Apache Kafka."""
        return next(self.jars.glob("kafka_*.jar")).stem.split("-", 1)[1]

    def features(self) -> dict[str, int]:
        """Return the finalized levels of the features of a running cluster, by name."""
        told = subprocess.run(
            [
                *self._java("org.apache.kafka.tools.FeatureCommand"),
                "--bootstrap-server",
                self.address,
                "describe",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        found = re.findall(r"Feature: (\S+).*FinalizedVersionLevel: (\d+)", told.stdout)
        return {name: int(level) for name, level in found}

    def _java(self, main: str) -> list[str]:
        return [
            "java",
            "-Xmx1g",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            f"{self.jars}/*",
            main,
        ]

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.begin()
        self.wait()

    def begin(self) -> None:
        """Start it; one of several may wait for the others before it listens."""
        if self._process is not None and self._process.returncode is None:
            raise RuntimeError(f"Kafka on port {self.port} already runs")
        command = [*self._java("kafka.Kafka"), str(self._properties)]
        self._process = ChildProcess("Apache Kafka", command, self.log)

    def wait(self) -> None:
        """Wait until it listens."""
        assert self._process is not None
        wait_for_port(self._process, self.port, START_SECONDS)

    def kill(self) -> None:
        """End it as a power failure would: kill -9."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(START_SECONDS)

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None:
            self._process.stop(START_SECONDS)

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self.stop()
