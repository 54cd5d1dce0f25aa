"""The demonstration runs real processes, loses nothing, tells it, and leaves nothing behind."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from tests.brokers import KafkaBroker
from tests.shop import build_shop, shop_events, shop_items
from tracker.cli.demo import print_demo, print_story
from tracker.demo.input import DemoInput, load_input
from tracker.demo.local import worker_environment
from tracker.demo.processes import ProcessError, free_port
from tracker.demo.run import DemoOptions, DemoResult, Step, Story, run_demo
from tracker.events.wire import Interest, Recommendation, RecommendedItem
from tracker.kafka.cluster import BrokerError
from tracker.kafka.connect import admin_client
from tracker.settings import load_settings

KEYS = [
    "events",
    "recommendations",
    "rejected",
    "users",
    "items",
    "seconds",
    "events_per_second",
    "latency_ms",
    "artifact",
    "broker",
]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("artifacts")
    build_shop(root)
    return str(root)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("files")
    items, events = folder / "items.jsonl", folder / "events.jsonl"
    items.write_bytes(b"\n".join(msgspec.json.encode(item) for item in shop_items()))
    lines = shop_events(400, 40, seed=5, unknown=0.0)
    events.write_bytes(b"\n".join(line.value for line in lines))
    return items, events


def loaded(files: tuple[Path, Path]) -> DemoInput:
    return load_input([str(files[0])], [str(files[1])], None, None)


def running(word: str) -> list[str]:
    """Command lines of processes that name a word, but for ours."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if word in text and int(entry.parent.name) != os.getpid():
            found.append(text)
    return found


def check(result: DemoResult, events: int) -> None:
    told = json.loads(msgspec.json.encode(result))
    assert list(told)[: len(KEYS)] == KEYS
    assert list(told["latency_ms"]) == ["p50", "p95", "p99"]
    assert told["events"] == events
    assert told["rejected"] == 0
    assert told["lost"] == 0
    assert told["users_without_recommendation"] == 0
    assert told["users"] == 40
    assert told["recommendations"] >= 40
    assert told["paced_events"] > 0
    assert 0 < told["latency_ms"]["p50"] <= told["latency_ms"]["p99"]


@pytest.mark.timeout(600)
@pytest.mark.broker
def test_run_on_the_embedded_broker_counts_everything_and_tells_a_story(
    files: tuple[Path, Path], artifacts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = loaded(files)
    options = DemoOptions(found, artifacts=artifacts, folder=tmp_path, rate=50, paced_seconds=2)
    stories: list[Story] = []
    steps: set[str] = set()
    result = asyncio.run(run_demo(options, lambda what, *_: steps.add(what), stories.append))
    check(result, 400)
    assert result.broker == "embedded"
    assert "sending events" in steps
    (story,) = stories
    assert len(story.steps) == len(found.story)
    assert story.before is not None
    assert all(step.list.user_id == story.user_id for step in story.steps)
    print_story(story, found)
    print_demo(result)
    text = capsys.readouterr().out
    assert "before" in text
    assert "none lost" in text
    assert not running(str(tmp_path))


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_run_on_kafka_deletes_its_topics(
    files: tuple[Path, Path], artifacts: str, tmp_path: Path, kafka: KafkaBroker
) -> None:
    options = DemoOptions(
        loaded(files), kafka.address, artifacts, folder=tmp_path, rate=50, paced_seconds=2
    )
    result = asyncio.run(run_demo(options))
    check(result, 400)
    assert result.broker == kafka.address

    async def topics() -> list[str]:
        async with admin_client(load_settings({}, brokers=kafka.address)) as admin:
            found: list[str] = await admin.list_topics()
            return found

    assert not [name for name in asyncio.run(topics()) if name.startswith("demo-")]


@pytest.mark.usefixtures("no_settling")
def test_broker_that_is_away_ends_the_run(files: tuple[Path, Path], artifacts: str) -> None:
    options = DemoOptions(loaded(files), f"127.0.0.1:{free_port()}", artifacts)
    with pytest.raises(BrokerError, match="TRACKER_BROKERS"):
        asyncio.run(run_demo(options))


def test_catalogue_that_cannot_be_built_ends_the_run_with_the_indexers_words(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    bad = tmp_path / "items.jsonl"
    bad.write_text("{oops\n")
    found = load_input([str(bad)], [str(files[1])], None, None)
    with pytest.raises(ProcessError, match=r"(?s)indexer build ended with code 4.*items\.jsonl"):
        asyncio.run(run_demo(DemoOptions(found, folder=tmp_path)))
    assert not running(str(tmp_path))


@pytest.mark.broker
def test_artifacts_that_are_not_there_end_the_run_with_the_workers_words(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    options = DemoOptions(loaded(files), artifacts=str(tmp_path / "none"), folder=tmp_path)
    with pytest.raises(ProcessError, match="tracker worker ended with code 1"):
        asyncio.run(run_demo(options))
    assert not running(str(tmp_path))


@pytest.mark.broker
def test_sigterm_ends_every_process_of_the_run(
    files: tuple[Path, Path], artifacts: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tracker", "demo", "--json", "--folder", str(tmp_path)]
    command += ["--items", str(files[0]), "--events", str(files[1]), "--artifacts", artifacts]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        log = tmp_path / "worker.log"
        deadline = time.monotonic() + 100
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert log.exists()
        process.terminate()
        assert process.wait(60) == 130
    left = running("tansu") + running("tracker worker")
    assert not [text for text in left if str(tmp_path) in text]


def test_workers_environment_holds_these_settings_and_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRACKER_K", "99")
    settings = load_settings(
        {},
        k=7,
        security_protocol="SASL_SSL",
        sasl_username="me",
        sasl_password="secret",
    )
    env = worker_environment(settings)
    assert env["TRACKER_K"] == "7"
    assert env["TRACKER_SASL_PASSWORD"] == "secret"
    assert "TRACKER_TLS_CA_FILE" not in env
    ours = {name: value for name, value in env.items() if name.startswith("TRACKER_")}
    assert load_settings(ours) == settings


def test_lists_are_printed_with_titles_and_interests_of_one_label_summed(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = loaded(files)
    items = [RecommendedItem("i1", 0.5, "content", ["i2"]), RecommendedItem("x", 0.1, "trend", [])]
    interests = [Interest("shoes", 0.4, 0.0), Interest("shoes", 0.2, 0.0), Interest("hats", 0.4, 0)]
    list_ = Recommendation("t-0-1", "u", 1.0, None, items, "1", 2.0, interests)
    print_story(Story("u", {"age": "30"}, list_, []), found)
    print_story(Story("u", {}, None, [Step("i1", "like", list_, 3.0)]), found)
    text = capsys.readouterr().out
    assert "thing number1 of group1" in text
    assert "shoes 60%" in text
    assert "u (age 30)" in text
