"""Bad records end in the rejected topic with their reason, and the worker goes on."""

import asyncio
import json
import os
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiokafka import AIOKafkaProducer

from tests.brokers import KafkaBroker
from tests.shop import START, build_shop, shop_settings
from tracker.demo.audit import Follower
from tracker.demo.local import own_topics, until_ready, worker_environment, worker_process
from tracker.demo.processes import ChildProcess, ProcessError, free_port
from tracker.events.wire import MAX_ID_BYTES, Event, encode_event
from tracker.kafka.client import Received, read_topic
from tracker.kafka.cluster import Topics, topics_of
from tracker.kafka.connect import producer
from tracker.kafka.records import CODECS
from tracker.settings import Settings


def event(**more: object) -> bytes:
    fields: dict[str, object] = {"user_id": "u", "item_id": "i1", "kind": "click"}
    fields |= {"timestamp": START, **more}
    return str({k: v for k, v in fields.items() if v is not None}).replace("'", '"').encode()


BAD: list[tuple[str, bytes | None]] = [
    ("not_json", b"{oops"),
    ("not_json", b"\xff\xfe\x00"),
    ("not_json", b""),
    ("wrong_type", b"[" * 100_000),
    ("wrong_type", b"[1,2]"),
    ("wrong_type", event(item_id=5.5)),
    ("missing_field", b'{"item_id":"i1","kind":"click","timestamp":1}'),
    ("missing_field", event(item_id=None)),
    ("unknown_field", event(retract="e1")),
    ("not_json", b"\x00\x00\x00\x00\x07\x02u"),
    ("not_json", b"u,i1,click,1700000000"),
    ("bad_id", event(user_id="")),
    ("bad_id", event(item_id="x" * (MAX_ID_BYTES + 1))),
    ("bad_id", event(user_id="x" * 900_000)),
    ("not_json", b'{"user_id":"u","item_id":"i1","kind":"click","timestamp":NaN}'),
    ("bad_timestamp", event(timestamp=-1)),
    ("bad_timestamp", event(timestamp="yesterday")),
    ("future_timestamp", event(timestamp=4_102_444_800)),
    ("unknown_kind", event(kind="teleport")),
    ("tombstone", None),
]


def settings_of(address: str, name: str, folder: Path) -> Settings:
    build_shop(folder / "artifacts")
    return shop_settings(address, name, folder, event_partitions=1, session_timeout_seconds=6.0)


async def records_of(settings: Settings, topic: str) -> list[Received]:
    async with aclosing(read_topic(settings, topic)) as records:
        return [record async for record in records]


async def rejected(settings: Settings, names: Topics, count: int) -> list[Received]:
    """Read the rejections, once there are so many."""
    for _ in range(150):
        found = await records_of(settings, names.rejected)
        if len(found) >= count:
            return found
        await asyncio.sleep(0.2)
    raise TimeoutError(f"{len(found)} of {count} rejections came")


async def run_bad_records(settings: Settings, log: Path) -> tuple[list[Received], list[int]]:
    """Send a good event before and after the bad ones; give rejections and the lists' offsets."""
    names = topics_of(settings)
    async with own_topics(settings, delete=False):
        with worker_process(settings, log) as worker:
            await until_ready(worker, settings)
            follower = Follower(settings)
            following = asyncio.create_task(follower.run())
            await follower.ready.wait()
            good = encode_event(Event("good", "i7", "like", START))
            async with producer(settings) as client:
                await client.send_and_wait(names.events, good, key=b"good")
                for reason, value in BAD:
                    # The embedded broker keeps the record's time, as a topic of CreateTime does.
                    stamp = 4_102_444_800_000 if reason == "future_timestamp" else None
                    await client.send_and_wait(names.events, value, key=b"u", timestamp_ms=stamp)
                # An item nobody knows, and a record under another user's key: taken, and counted.
                unknown = encode_event(Event("good", "nowhere", "like", START + 1))
                await client.send_and_wait(names.events, unknown, key=b"good")
                foreign = encode_event(Event("good", "i19", "like", START + 2))
                await client.send_and_wait(names.events, foreign, key=b"another")
            for codec in CODECS:
                packed = encode_event(Event(codec, "i7", "like", START))
                async with producer(settings, compression_type=codec) as client:
                    await client.send_and_wait(names.events, packed, key=codec.encode())
            last = len(BAD) + 2
            await follower.wait_for([(b"good", 0, last)], 60)
            await follower.wait_for(
                [(codec.encode(), 0, last + n) for n, codec in enumerate(CODECS, 1)], 60
            )
            found = await rejected(settings, names, len(BAD))
            offsets = follower.lists[b"good", 0].offsets
            lists = await records_of(settings, names.recommendations)
            newest = max(json.loads(record.value or b"")["timestamp"] for record in lists)
            assert newest == START + 2  # not of 2100
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            assert worker.stop(30) == 0
    return found, offsets


def check_rejections(found: list[Received], topic: str) -> None:
    assert len(found) == len(BAD)
    by_offset = {}
    for record in found:
        headers = {name: value.decode() for name, value in record.headers}
        assert headers["topic"] == topic
        assert headers["partition"] == "0"
        assert headers["message"]
        by_offset[int(headers["offset"])] = (headers["reason"], record.value)
    for number, (reason, value) in enumerate(BAD, 1):
        assert by_offset[number][0] == reason, (value or b"")[:80]
        if value is not None and len(value) < 1000:
            assert by_offset[number][1] == value


@pytest.mark.timeout(600)
def test_bad_records_are_rejected_and_those_of_each_codec_are_taken(
    tansu: str, prefix: str, tmp_path: Path
) -> None:
    settings = settings_of(tansu, prefix, tmp_path)
    found, offsets = asyncio.run(run_bad_records(settings, tmp_path / "worker.log"))
    check_rejections(found, topics_of(settings).events)
    assert offsets[-1] == len(BAD) + 2


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_bad_records_are_rejected_the_same_way_on_kafka(
    kafka: KafkaBroker, prefix: str, tmp_path: Path
) -> None:
    settings = settings_of(kafka.address, prefix, tmp_path)
    found, offsets = asyncio.run(run_bad_records(settings, tmp_path / "worker.log"))
    check_rejections(found, topics_of(settings).events)
    assert offsets[-1] == len(BAD) + 2


async def answer_of(settings: Settings, page: str) -> tuple[int, dict[str, Any]]:
    async with aiohttp.request("GET", f"http://127.0.0.1:{settings.web_port}{page}") as answer:
        return answer.status, await answer.json()


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_a_transaction_that_a_producer_never_finishes_leaves_a_worker_sound_and_is_named(
    kafka: KafkaBroker, prefix: str, tmp_path: Path
) -> None:
    settings = settings_of(kafka.address, prefix, tmp_path).model_copy(
        update={"health_stall_seconds": 5.0}
    )
    events = topics_of(settings).events

    async def go() -> None:
        async with (
            own_topics(settings, delete=False),
            AIOKafkaProducer(
                bootstrap_servers=kafka.address, transactional_id=f"{prefix}-other"
            ) as other,
        ):
            with worker_process(settings, tmp_path / "worker.log") as worker:
                await until_ready(worker, settings)
                await other.begin_transaction()
                await other.send_and_wait(
                    events, encode_event(Event("u", "i1", "like", START)), key=b"u"
                )
                await asyncio.sleep(6.0)  # longer than the stall that a restart would mend
                status, health = await answer_of(settings, "/healthz")
                assert (status, health["live"], health["reasons"]) == (200, True, [])
                (waiting,) = health["waiting"]
                assert waiting.startswith(f"{events}-0: 1 records from offset 0 on wait for a")
                await other.commit_transaction()
                async with asyncio.timeout(30):
                    while (await answer_of(settings, "/v1/users/u"))[0] != 200:
                        await asyncio.sleep(0.2)
                assert "waiting" not in (await answer_of(settings, "/healthz"))[1]
                assert worker.stop(30) == 0

    asyncio.run(go())


def refusal(settings: Settings, log: Path) -> str:
    """Start a worker that must refuse, and give what it wrote."""
    with worker_process(settings, log) as worker:
        assert worker.wait(250) == 1
        return worker.tail(50)


def test_worker_refuses_topics_that_are_missing_and_says_what_creates_them(
    tansu: str, prefix: str, tmp_path: Path
) -> None:
    told = refusal(settings_of(tansu, prefix, tmp_path), tmp_path / "worker.log")
    assert "tracker topics" in told
    assert "Traceback" not in told


def test_worker_refuses_a_damaged_artifact_by_file_and_checksum(
    tansu: str, prefix: str, tmp_path: Path
) -> None:
    settings = settings_of(tansu, prefix, tmp_path)
    (vectors,) = (tmp_path / "artifacts").glob("*/vectors.safetensors")
    vectors.write_bytes(vectors.read_bytes()[:-7])

    async def go() -> str:
        async with own_topics(settings, delete=False):
            return await asyncio.to_thread(refusal, settings, tmp_path / "worker.log")

    told = asyncio.run(go())
    assert "vectors.safetensors" in told
    assert "Traceback" not in told


@pytest.mark.timeout(600)
def test_second_worker_on_a_data_directory_or_a_port_is_refused_and_the_first_goes_on(
    tansu: str, prefix: str, tmp_path: Path
) -> None:
    settings = settings_of(tansu, prefix, tmp_path)

    async def go() -> tuple[str, str]:
        async with own_topics(settings, delete=False):
            with worker_process(settings, tmp_path / "first.log") as first:
                await until_ready(first, settings)
                second = settings.model_copy(update={"web_port": free_port()})
                told = await asyncio.to_thread(refusal, second, tmp_path / "second.log")
                third = settings.model_copy(update={"data_dir": tmp_path / "other"})
                port = await asyncio.to_thread(refusal, third, tmp_path / "third.log")
                first.check()
                assert first.stop(30) == 0
                return told, port

    told, port = asyncio.run(go())
    assert "in use by process" in told
    assert f"port {settings.web_port} of 127.0.0.1 is in use" in port
    assert "joins group" not in port
    assert "Traceback" not in told + port
    log = (tmp_path / "first.log").read_text()
    assert log.count(f"ready: 1 partition of {prefix}-events, version 000001-") == 1
    assert log.splitlines()[-1].endswith("worker stopped cleanly")


def test_worker_that_finds_no_broker_ends_with_one_line(prefix: str, tmp_path: Path) -> None:
    settings = settings_of(f"127.0.0.1:{free_port()}", prefix, tmp_path)
    impatient = (
        "from tracker.worker import run; run.START_SECONDS = 5.0;"
        " from tracker.cli.main import main; main()"
    )
    command, log = [sys.executable, "-c", impatient, "worker"], tmp_path / "worker.log"
    with ChildProcess("worker", command, log, worker_environment(settings)) as worker:
        assert worker.wait(250) == 1
        told = worker.tail(50)
    assert "retrying every 1 s" in told
    assert "TRACKER_BROKERS" in told
    assert "Traceback" not in told


def test_unknown_setting_is_refused_before_anything_starts(tmp_path: Path) -> None:
    env = {**os.environ, "TRACKER_BROKER": "localhost:9092"}
    log = tmp_path / "worker.log"
    with ChildProcess("worker", [sys.executable, "-m", "tracker", "worker"], log, env) as worker:
        assert worker.wait(250) == 1
        assert "did you mean TRACKER_BROKERS" in worker.tail()
        with pytest.raises(ProcessError, match="ended with code 1"):
            worker.check()
