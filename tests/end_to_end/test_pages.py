"""The commands that README and docs show, run as a reader would run them, one after the other.

The walk takes minutes, and 20 beside other programs: make test ARGS='-m long -k test_pages'.
"""

import asyncio
import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.brokers import KafkaBroker, library
from tests.paths import ROOT
from tests.project.markdown import PAGES, blocks, name_of
from tracker.artifact.versions import latest_version
from tracker.demo.local import until_ready
from tracker.demo.processes import ChildProcess, free_port
from tracker.settings import PREFIX, load_settings

Place = tuple[str, str]
"""A page, and the beginning of a block of commands on it."""

TRAIN = "docs/how-to/train-and-evaluate.md"
LEARN = "indexer train --items items.jsonl --events events.jsonl --out "

WALK: list[Place] = [
    ("README.md", "export TRACKER_EVENT_PARTITIONS=12"),
    ("README.md", "cp tracker/demo_data"),
    ("README.md", "tracker send events.jsonl"),
    ("README.md", "echo 'ada|"),
    ("docs/start/first-run.md", "tracker worker --data-dir"),
    ("docs/how-to/use-the-lists.md", "echo"),
    ("docs/reference/http.md", "curl -s 'http://127.0.0.1:6066/v1/users"),
    ("docs/how-to/personal-data.md", "tracker export-user"),
    (TRAIN, LEARN + "artifacts"),
    (TRAIN, LEARN + "judged"),
    (TRAIN, "indexer trace"),
    (TRAIN, "tracker export users.parquet"),
    ("docs/how-to/undo.md", "indexer list"),
    ("docs/how-to/upgrade.md", "indexer build"),
    ("docs/how-to/upgrade.md", "indexer list"),
    ("docs/start/own-data.md", "indexer build"),
    ("docs/how-to/deploy.md", "tracker acls"),
    ("docs/how-to/deploy.md", "openssl genpkey"),
    ("docs/how-to/weigh-events.md", "export TRACKER_KINDS_FILE"),
    ("docs/how-to/personal-data.md", "tracker forget"),
    ("docs/start/own-data.md", "TRACKER_MAX_EVENT_AGE_SECONDS"),
    ("docs/start/own-data.md", "tracker send"),
    ("stop", ""),
    ("docs/reference/partitioners.md", "tracker merge-states"),
    ("docs/how-to/undo.md", "tracker mend-times"),
    ("docs/how-to/undo.md", "tracker reset-learning"),
    ("docs/how-to/undo.md", "tracker reset-state\n"),
    ("docs/how-to/undo.md", "tracker reset-state --everything"),
]
"""Blocks in the order in which they are run; `stop` stops the workers."""

INSTALL = ".venv/bin/uv pip install --python .venv/bin/python"

ELSEWHERE = {
    "make demo": "tests/tracker/demo, and whoever sets the project up",
    "python3 -m venv": "whoever sets the project up",
    "UV_TORCH_BACKEND=cpu make demo": "it installs another torch",
    "kafka-console-consumer.sh": "tests/end_to_end/test_readme.py",
    "kafka-topics.sh": "tests/end_to_end/test_move_states.py",
    "tracker send events.jsonl": "README.md has the same",
    "tracker broker": "tests/tracker/demo/test_broker.py",
    "tracker watch": "it ends by Ctrl-C: tests/tracker/cli/test_main.py",
    "tracker score": "it needs a probability: tests/tracker/cli/test_main.py",
    "curl -s http://127.0.0.1:6066/v1/score": "it needs a probability: tests/tracker/api",
    "TRACKER_WEB_TOKEN_FILE": "tests/tracker/test_settings.py",
    "tracker replay": "tests/end_to_end/test_replay.py",
    "ray start": "it needs several machines: tests/indexer/test_shards.py",
    "export TRACKER_NAME=shop2": "tests/end_to_end/test_replay.py",
    "tracker acls worker User:tracker | sh": "tests/end_to_end/test_security.py",
    "export TRACKER_SECURITY_PROTOCOL": "tests/end_to_end/test_security.py",
    "export TRACKER_EVENT_PARTITIONS=12 TRACKER_ITEM_PARTITIONS=6 TRACKER_REPLICATION_FACTOR=3": (
        "it needs three brokers"
    ),
    "cp tracker/demo_data/*.jsonl .\ntracker topics": "README.md has it in two blocks",
    "python -m benchmarks.streams": "tests/project/test_streams_benchmark.py",
    f"{INSTALL} '.[cpu,demo,privacy]'": "tests/indexer/cli/test_train.py",
    "openssl rand -base64 32": "tests/end_to_end/test_pseudonyms.py",
    "export TRACKER_PSEUDONYM_KEY_FILE=pseudonyms.key TRACKER_USER_KEYS=true": (
        "tests/end_to_end/test_user_keys.py"
    ),
    "docker": "it needs Docker: tests/project/test_deploy.py reads the files",
    "kubectl": "it needs Kubernetes: tests/project/test_deploy.py reads the files",
    "indexer finetune": "tests/indexer/finetune",
    f"{INSTALL} '.[cpu,otel]'": "it needs a collector of traces",
    "indexer train --items items.csv": "it is about the reader's own files",
    "export TRACKER_EVENTS_FORMAT": "it is about the reader's own files",
}
"""Blocks that are not run here: where they are, or why they cannot be."""


def shown() -> list[Place]:
    pages = [page for page in PAGES if page.parent != ROOT or page.name == "README.md"]
    return [(name_of(page), block.text) for page in pages for block in blocks(page, "sh")]


def test_every_block_of_commands_is_run_or_says_why_not() -> None:
    for page, text in shown():
        here = any(page == name and text.startswith(start) for name, start in WALK)
        assert here or any(text.startswith(start) for start in ELSEWHERE), (
            f"{page}: give these commands a place in WALK or ELSEWHERE:\n{text}"
        )
    texts = [text for _, text in shown()]
    for start, reason in ELSEWHERE.items():
        assert any(text.startswith(start) for text in texts), start
        for path in re.findall(r"tests/[\w/.]+\w", reason):
            assert (ROOT / path).exists(), path


class Reader:
    """Runs blocks in a folder of its own; what one exports, the next ones have."""

    def __init__(self, folder: Path, brokers: str, name: str) -> None:
        self.folder, self.name = folder, name
        self.settings = load_settings({}, brokers=brokers, name=name, web_port=free_port())
        self.second_port = free_port()
        self.workers: list[ChildProcess] = []
        (folder / "bin").mkdir()
        tool = folder / "bin" / "kafka-console-producer.sh"
        main = "org.apache.kafka.tools.ConsoleProducer"
        tool.write_text(f'#!/bin/sh\nexec java -cp "{library()}/*" {main} "$@"\n')
        tool.chmod(0o755)
        shutil.copytree(ROOT / "tracker" / "demo_data", folder / "tracker" / "demo_data")
        ours = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
        path = f"{Path(sys.executable).parent}:{folder / 'bin'}:{os.environ['PATH']}"
        self.environ = ours | {
            "PATH": path,
            "TRACKER_BROKERS": brokers,
            "TRACKER_NAME": name,
            "TRACKER_WEB_PORT": str(self.settings.web_port),
        }

    def run(self, page: str, start: str) -> None:
        (text,) = [text for name, text in shown() if name == page and text.startswith(start)]
        lines = self.own(text).rstrip().split("\n")
        serves = "tracker worker" in lines[-1]
        kept = self.folder / "environ"
        commands = [*lines[: len(lines) - serves], f"env -0 > {kept}"]
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", "\n".join(commands)],
            cwd=self.folder, env=self.environ, input="y\n" * 3, text=True, capture_output=True,
            timeout=800, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{page}: {text}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        pairs = (pair.partition("=") for pair in kept.read_text().split("\0") if pair)
        self.environ = {key: value for key, _, value in pairs}
        if serves:
            self.serve(lines[-1])

    def own(self, text: str) -> str:
        """Return commands with the broker, the names and the ports of the test."""
        text = text.replace("localhost:9092", self.settings.brokers)
        text = text.replace(":6066", f":{self.settings.web_port}")
        text = text.replace("6067", str(self.second_port))
        if "000001-55c22d87" in text:
            text = text.replace("000001-55c22d87", latest_version(str(self.folder / "artifacts")))
        return re.sub(r"\btracker-(events|rejected|recommendations)", rf"{self.name}-\1", text)

    def serve(self, line: str) -> None:
        """Start a worker, in the place of the one before or beside it, and wait for it."""
        is_second = "--web-port" in line
        if not is_second:
            self.stop()
        log = self.folder / f"worker-{len(self.workers)}.log"
        worker = ChildProcess(
            "worker", ["bash", "-c", f"exec env {line}"], log, self.environ, self.folder
        )
        self.workers.append(worker)
        port = self.second_port if is_second else self.settings.web_port
        asyncio.run(until_ready(worker, self.settings.model_copy(update={"web_port": port})))

    def stop(self) -> None:
        """Stop all workers in order."""
        while self.workers:
            worker = self.workers.pop()
            assert worker.stop(30) == 0, worker.tail()


@pytest.mark.kafka
@pytest.mark.long
@pytest.mark.timeout(2400)
def test_commands_of_the_pages_do_what_they_say_one_after_the_other(
    kafka: KafkaBroker, prefix: str, tmp_path: Path
) -> None:
    reader = Reader(tmp_path, kafka.address, prefix)
    (weights,) = [
        block.text
        for block in blocks(ROOT / "docs" / "how-to" / "weigh-events.md", "toml")
        if block.marker == "example: weights"
    ]
    (tmp_path / "kinds.toml").write_text(weights)
    events = (ROOT / "tracker" / "demo_data" / "events.jsonl").read_bytes()
    (tmp_path / "history.jsonl.gz").write_bytes(gzip.compress(events))
    try:
        for page, start in WALK:
            if page == "stop":
                reader.stop()
            else:
                reader.run(page, start)
    finally:
        for worker in reader.workers:
            worker.stop()
