"""The examples of README.md that produce and subscribe, run as a reader would run them."""

import asyncio
import os
import re
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from tests.brokers import KafkaBroker, library
from tests.paths import ROOT
from tests.project.markdown import blocks
from tests.shop import build_shop, shop_settings
from tracker.demo.local import own_topics, until_ready, worker_process
from tracker.events.wire import decode_event
from tracker.kafka.client import read_topic
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import producer
from tracker.settings import Settings, load_settings

PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md"]


def example(page: Path, name: str, settings: Settings) -> str:
    """Return the code of an example, with the broker and topics of a test."""
    (text,) = [block.text for block in blocks(page) if block.marker == f"run: {name}"]
    return own(text, settings)


def command(page: Path, program: str, settings: Settings) -> str:
    """Return the shell block that calls a program, with the broker and topics of a test."""
    (text,) = [block.text for block in blocks(page, "sh") if program in block.text]
    return own(text, settings)


def own(text: str, settings: Settings) -> str:
    assert "localhost:9092" in text
    assert "tracker-" in text
    return text.replace("localhost:9092", settings.brokers).replace("tracker-", f"{settings.name}-")


def run(*words: str, seconds: float = 60.0, **environ: str) -> str:
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=seconds, env=os.environ | environ, check=True
    )
    return done.stdout


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_event_of_the_example_brings_the_list_that_the_other_example_reads(
    kafka: KafkaBroker, prefix: str, tmp_path: Path
) -> None:
    """On Apache Kafka: the embedded broker lets a group of librdkafka wait for half a minute."""
    build_shop(tmp_path / "artifacts")
    settings = shop_settings(kafka.address, prefix, tmp_path, event_partitions=1)
    produce = example(PAGES[0], "produce", settings)
    subscribe = example(PAGES[0], "subscribe", settings)
    assert "\nwhile True:\n" in subscribe
    once = subscribe.replace("\nwhile True:\n", "\nwhile not newest:\n")
    once += "\nconsumer.close()\nprint(newest)\n"

    async def go() -> str:
        async with own_topics(settings, delete=False):
            with worker_process(settings, tmp_path / "worker.log") as worker:
                await until_ready(worker, settings)
                await asyncio.to_thread(run, sys.executable, "-c", produce)
                told = await asyncio.to_thread(run, sys.executable, "-c", once)
                assert worker.stop(30) == 0
        return told

    told = asyncio.run(go())
    assert re.match(r"\{'ada': \(\d+, \['", told)  # the list's version, and its items


def test_both_languages_have_the_same_examples() -> None:
    english, chinese = ([(b.language, code_of(b.text)) for b in blocks(page)] for page in PAGES)
    assert [language for language, _ in english] == [language for language, _ in chinese]
    runs = [
        [c for language, c in found if language in ("python", "sh")] for found in (english, chinese)
    ]
    assert runs[0] == runs[1]


def code_of(text: str) -> list[str]:
    """Return the lines of an example without comments."""
    return [line.split("  #")[0].rstrip() for line in text.splitlines()]


@pytest.mark.kafka
def test_kafkas_own_commands_produce_and_subscribe_as_the_readme_shows(
    kafka: KafkaBroker, prefix: str, tmp_path: Path
) -> None:
    settings = load_settings(
        {}, name=prefix, brokers=kafka.address, event_partitions=1, item_partitions=1
    )
    names = topics_of(settings)
    for program, tool in (
        ("kafka-console-producer.sh", "org.apache.kafka.tools.ConsoleProducer"),
        ("kafka-console-consumer.sh", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
    ):
        script = tmp_path / program
        script.write_text(f'#!/bin/sh\nexec java -cp "{library()}/*" {tool} "$@"\n')
        script.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    produce = command(PAGES[0], "kafka-console-producer.sh", settings)
    consume = command(PAGES[0], "kafka-console-consumer.sh", settings).rstrip()

    async def go() -> tuple[bytes | None, bytes | None, str]:
        async with own_topics(settings, delete=False):
            await asyncio.to_thread(run, "bash", "-c", produce, PATH=path)
            async with aclosing(read_topic(settings, names.events)) as records:
                (event,) = [record async for record in records]
            async with producer(settings) as client:
                await client.send_and_wait(names.recommendations, b"a list", key=b"ada")
            once = f"{consume} --max-messages 1"
            told = await asyncio.to_thread(run, "bash", "-c", once, PATH=path)
        return event.key, event.value, told

    key, value, told = asyncio.run(go())
    assert key == b"ada"
    assert decode_event(value).user_id == "ada"
    assert told == "a list\n"
