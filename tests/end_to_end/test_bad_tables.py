"""Made-up records in the tracker's own topics of items: named, passed over, and nothing stops."""

import asyncio
import json
import re
import shutil
import time
from collections.abc import Callable
from contextlib import aclosing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.shop import START, build_shop, shop_items, shop_settings
from tests.tracker.worker.test_web import get
from tracker.demo.local import own_topics, until_ready, worker_process
from tracker.events.item_events import ITEM_EVENT, encode_block
from tracker.events.wire import Event, encode_event, hash_id
from tracker.items.layout import FORMAT
from tracker.items.states import ItemStates
from tracker.kafka.client import read_topic
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import producer
from tracker.kernels.row_bytes import item_key, seal
from tracker.settings import Settings

Page = dict[str, Any]

HOLES = 60
"""Offsets of partition 1 of the events topic that bring no item event."""


def made_up(n: int, /, **fields: Any) -> np.ndarray:
    events = np.zeros(n, ITEM_EVENT)
    events["item"] = np.arange(1, n + 1)
    events["time"], events["weight"], events["sign"] = START, 1.0, 1
    for field, value in fields.items():
        events[field] = value
    return events


@cache
def bad_blocks() -> list[bytes]:
    """Return blocks of item events that cannot be read."""
    return [
        b"garbage!",
        b"",
        *(
            encode_block(made_up(1, **{field: value}), version)
            for version in (1, 2)
            for field, value in [
                ("time", np.nan),
                ("time", np.inf),
                ("weight", np.nan),
                ("sign", 0),
                ("source_offset", 2**63 - 1),
                ("source_offset", 10_000),
                ("source_partition", 99),
            ]
        ),
        encode_block(made_up(1), 2)[:-1] + b"\1",
    ]


def newer_row(item: int) -> bytes:
    states = ItemStates(1)
    states.head["item"][0] = item
    words = np.frombuffer(states.pack(np.zeros(1, np.int64))[0], np.uint64).copy()
    words[0] = (words[0] & np.uint64(0xFFFF0000)) | np.uint64(FORMAT + 1)
    seal(words, 0, len(words))
    return words.tobytes()


async def until(settings: Settings, path: str, is_so: Callable[[int, str], bool]) -> str:
    """Ask for a page until it is as expected."""
    deadline = time.monotonic() + 90.0
    while True:
        status, body = await asyncio.to_thread(get, settings, path)
        if is_so(status, body.decode()):
            return body.decode()
        assert time.monotonic() < deadline, (path, status, body.decode()[:500])
        await asyncio.sleep(0.1)


async def until_likes(settings: Settings, item: str, count: int) -> None:
    await until(
        settings,
        f"/v1/items/{item}",
        lambda status, body: status == 200 and json.loads(body)["positives"] == count,
    )


async def send(settings: Settings, topic: str, partition: int, *rows: Any) -> None:
    async with producer(settings) as client:
        for key, value in rows:
            await client.send_and_wait(topic, value, key=key, partition=partition)


@pytest.mark.timeout(600)
def test_no_record_of_the_items_topics_stops_a_worker_or_hides_an_event(
    tansu: str, prefix: str, tmp_path: Path
) -> None:
    root = tmp_path / "artifacts"
    build_shop(root, shop_items(60))
    settings = shop_settings(
        tansu,
        prefix,
        tmp_path,
        item_state_rows=1000,  # the least: 10,000 rows in memory
        session_timeout_seconds=6.0,
    )
    names = topics_of(settings)
    key = item_key(hash_id("i7"))
    like = (b"u", encode_event(Event("u", "i7", "like", START)))
    log = tmp_path / "worker.log"

    async def bad_records() -> None:
        await send(settings, names.events, 1, *[(b"u", b"no event")] * HOLES)
        await send(settings, names.items, 0, *[(None, block) for block in bad_blocks()])
        many = made_up(20_001, source_partition=1)
        many["item"] += np.uint64(10**6)
        many["source_offset"] = np.arange(len(many)) * HOLES // len(many)
        await send(settings, names.items, 0, (None, encode_block(many)))
        other = item_key(5)
        await send(
            settings, names.items_changelog, 0,
            (other, b"garbage!"), (other + b"9", b"garbage!"), (None, b"garbage!"),
            (other, newer_row(5)), (b"", b"x"),
        )  # fmt: skip

    async def first_life() -> None:
        with worker_process(settings, log) as worker:
            await until_ready(worker, settings)
            await send(settings, names.events, 0, like)
            await until_likes(settings, "i7", 1)
            await bad_records()
            await send(settings, names.events, 0, like)
            await until_likes(settings, "i7", 2)  # no true event was taken for replayed
            bad, applied = len(bad_blocks()), 20_003
            rejected = f'tracker_rejected_total{{reason="item_block"}} {bad}.0'
            await until(
                settings,
                "/metrics",
                lambda _, body: rejected in body and f"item_events_total {applied}.0" in body,
            )
            version = build_shop(root, shop_items(61)).version
            metrics = await until(
                settings, "/metrics", lambda _, body: "tracker_artifact_sequence 2.0" in body
            )
            for problem in ("damaged", "newer", "key"):
                assert f'unreadable_rows_total{{problem="{problem}",table="items"}}' in metrics
            assert get(settings, "/readyz")[0] == get(settings, "/healthz")[0] == 200
            assert worker.stop(30) == 0
        text = log.read_text()
        assert f"using artifact {version}" in text
        lines = [line for line in text.splitlines() if "passed over the row" in line]
        assert len(lines) + sum(map(int, re.findall(r"\((\d+) more times\)", "".join(lines)))) == 5
        assert "Traceback" not in text

    async def second_life() -> None:
        """Recover from the changelog alone; then meet a row of a newer version."""
        shutil.rmtree(settings.data_dir)
        with worker_process(settings, log) as worker:
            await until_ready(worker, settings)
            await until_likes(settings, "i7", 2)
            assert worker.stop(30) == 0
        await send(settings, names.items_changelog, 0, (key, newer_row(hash_id("i7"))))
        shutil.rmtree(settings.data_dir)
        with worker_process(settings, log) as worker:
            await until_ready(worker, settings)
            await send(settings, names.events, 0, like)
            reasons = await until(settings, "/readyz", lambda status, _: status == 503)
            assert f"has format {FORMAT + 1}, and this version reads {FORMAT}" in reasons
            assert get(settings, "/v1/items/i7")[0] == 200  # of what is known
            assert get(settings, "/healthz")[0] == 200
            assert worker.stop(30) == 0
        assert log.read_text().count("waiting, not to write over it") == 1

    async def go() -> None:
        async with own_topics(settings, delete=False):
            await first_life()
            await second_life()
            async with aclosing(read_topic(settings, names.items_changelog)) as records:
                rows = [record.value async for record in records if record.key == key]
            assert rows[-1] == newer_row(hash_id("i7"))

    asyncio.run(go())
