"""Events of other systems on Apache Kafka, from producers with two partitioners.

Run it by make test ARGS='-m long -k formats_on_kafka'.
"""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaProducer

from tests.brokers import KafkaBroker
from tests.end_to_end.steps import IN_TWO_PLACES, output_of, rejected
from tests.end_to_end.test_bad_tables import until
from tests.shop import build_shop, shop_items, shop_settings
from tests.states import read_rows
from tracker.demo.local import own_topics, until_ready, worker_process
from tracker.kafka.cluster import topics_of
from tracker.kafka.partitioner import HASHES
from tracker.settings import Settings

PARTITIONS = 4
ADA, VISITOR = IN_TWO_PLACES[:2]
CODECS = ("lz4", "zstd", "snappy", "gzip")

Fields = dict[str, Any]


async def send(settings: Settings, partitioner: str, user: str, *records: Fields) -> None:
    """Send records as a producer with a partitioner does, one a codec, in transactions.

    Each transaction follows one with the same records that is given up.
    """
    key = user.encode()
    place = HASHES[partitioner](key) % PARTITIONS  # type: ignore[index]
    for record, codec in zip(records, CODECS * len(records), strict=False):
        async with AIOKafkaProducer(
            bootstrap_servers=settings.brokers,
            compression_type=codec,
            transactional_id=f"{settings.name}-{partitioner}",
        ) as client:
            for is_kept in (False, True):
                await client.begin_transaction()
                await client.send_and_wait(
                    topics_of(settings).events,
                    msgspec.json.encode(record),
                    key=key,
                    partition=place,
                    headers=[("ce_type", b"\xff"), ("traceparent", b""), ("", b"x")],
                )
                await (client.commit_transaction() if is_kept else client.abort_transaction())


def settings_of(kafka: KafkaBroker, name: str, folder: Path, **more: Any) -> Settings:
    build_shop(folder / "artifacts", [*shop_items(60)])
    return shop_settings(
        kafka.address,
        name,
        folder,
        event_partitions=PARTITIONS,
        commit_interval_seconds=0.2,
        **more,
    )


async def events_of(settings: Settings, user: str, expected: int) -> list[tuple[str, str, bool]]:
    """Return item, kind and retraction of a user's events, once as many as expected are there."""
    body = await until(
        settings,
        f"/v1/users/{user}/history",
        lambda status, body: status == 200 and len(json.loads(body)["history"]) == expected,
    )
    history = json.loads(body)["history"]
    return sorted((one["item_id"], one["kind"], one["retracted"]) for one in history)


def segment(event: str, number: int, **fields: Any) -> Fields:
    properties = fields.pop("properties", {"product_id": f"i{number}"})
    return {
        "type": "track", "event": event, "messageId": f"m{number}",
        "timestamp": f"2026-05-10T09:{number:02}:00.000Z", "properties": properties, **fields,
    }  # fmt: skip


@pytest.mark.long
@pytest.mark.kafka
@pytest.mark.timeout(400)
def test_the_halves_of_a_user_of_segment_become_one_state_that_a_visitor_joins(
    kafka: KafkaBroker, prefix: str, tmp_path: Path
) -> None:
    settings = settings_of(kafka, prefix, tmp_path, events_format="segment")
    apart = settings.model_copy(update={"hand_over": "off"})

    async def go() -> None:
        async with own_topics(settings, delete=False):
            with worker_process(apart, tmp_path / "apart.log") as worker:
                await until_ready(worker, apart)
                views = [segment("Product Viewed", n, userId=ADA) for n in range(5)]
                await send(settings, "murmur2", ADA, *views[:3])
                await send(settings, "crc32", ADA, *views[3:])
                await events_of(apart, ADA, 3)
                await until(apart, "/metrics", lambda _, body: "tracker_events_total 5.0" in body)
                await asyncio.sleep(1)  # a last commit
                assert worker.stop(30) == 0
            rows = await read_rows(settings)
            assert Counter(place for place, user in rows.users if user == ADA.encode()) == {
                3: 1,
                1: 1,
            }
            assert "1 of these users" in await asyncio.to_thread(
                output_of, settings, "merge-states", "--yes"
            )
            with worker_process(settings, tmp_path / "worker.log") as worker:
                await until_ready(worker, settings)
                assert len(await events_of(settings, ADA, 5)) == 5
                added = {"products": [{"product_id": "i7", "quantity": "2"}, {"product_id": "i8"}]}
                await send(
                    settings, "crc32", VISITOR,
                    segment("Order Completed", 10, anonymousId=VISITOR, properties=added),
                    segment("Product Added", 11, anonymousId=VISITOR),
                )  # fmt: skip
                await events_of(settings, VISITOR, 3)
                joined = {"type": "identify", "userId": ADA, "anonymousId": VISITOR}
                await send(settings, "murmur2", ADA, joined, joined)
                await events_of(settings, ADA, 8)
                back = {"products": [{"product_id": "i7"}]}
                await send(
                    settings, "crc32", ADA,
                    segment("Order Refunded", 12, userId=ADA, properties=back),
                    segment("Product Removed", 11, userId=ADA, messageId="m13"),
                )  # fmt: skip
                await until(
                    settings,
                    "/metrics",
                    lambda _, body: 'tracker_outcomes_total{outcome="retracted"} 2.0' in body,
                )
                # What takes back has an event id, so it is listed too.
                assert await events_of(settings, ADA, 10) == [
                    *((f"i{n}", "view", False) for n in range(2)),
                    *[("i11", "cart", True)] * 2,
                    *((f"i{n}", "view", False) for n in range(2, 5)),
                    *[("i7", "purchase", True)] * 2,
                    ("i8", "purchase", False),
                ]
                assert worker.stop(30) == 0
            rows = await read_rows(settings)
            assert [place for place, user in rows.users if user == ADA.encode()] == [3]
            assert not await rejected(settings)

    asyncio.run(go())


def row(name: str, number: int, *items: Fields, **fields: Any) -> Fields:
    return {
        "event_timestamp": str((1_778_403_600 + number) * 10**6), "event_name": name,
        "user_id": None, "user_pseudo_id": VISITOR, "items": items, **fields,
    }  # fmt: skip


@pytest.mark.long
@pytest.mark.kafka
def test_rows_of_ga4_are_their_events_whichever_partition_they_come_in(
    kafka: KafkaBroker, prefix: str, tmp_path: Path
) -> None:
    settings = settings_of(kafka, prefix, tmp_path, events_format="ga4")
    bought = [{"item_id": "i1", "quantity": "1"}, {"item_id": "i2", "quantity": "2"}]

    async def go() -> None:
        async with own_topics(settings, delete=False):
            with worker_process(settings, tmp_path / "worker.log") as worker:
                await until_ready(worker, settings)
                await send(
                    settings, "murmur2", VISITOR,
                    row("view_item", 1, {"item_id": "i1", "item_list_name": "(not set)"}),
                    row("session_start", 2),
                    row("view_item", 3, {"item_id": "(not set)"}),
                )  # fmt: skip
                await send(
                    settings, "crc32", VISITOR,
                    row("purchase", 4, *bought),
                    row("refund", 5, bought[1]),
                    row("purchase", 6, *bought[:1] * 501),
                )  # fmt: skip
                await until(
                    settings,
                    "/metrics",
                    lambda _, body: (
                        'tracker_outcomes_total{outcome="retracted"} 1.0' in body
                        and 'tracker_rejected_total{reason="too_many_events"} 1.0' in body
                    ),
                )
                assert await events_of(settings, VISITOR, 3) == [
                    ("i1", "purchase", False), ("i1", "view", False), ("i2", "purchase", True),
                ]  # fmt: skip
                assert worker.stop(30) == 0
            rows = await read_rows(settings)
            assert [place for place, user in rows.users if user == VISITOR.encode()] == [3]
            reasons = Counter(
                value.decode()
                for record in await rejected(settings)
                for name, value in record.headers
                if name == "reason"
            )
            assert reasons == {"missing_field": 1, "too_many_events": 1}

    asyncio.run(go())
    log = (tmp_path / "worker.log").read_text()
    assert "rejected as missing_field" in log
    assert "Traceback" not in log
