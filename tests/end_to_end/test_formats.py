"""Events of another system, sent by the command and over HTTP, and read by a worker as they are.

Run it by make test ARGS='-m long -k segment'.
"""

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import msgspec
import pytest

from tests.end_to_end.steps import output_of
from tests.end_to_end.test_bad_tables import until
from tests.shop import build_shop, shop_items, shop_settings
from tests.tracker.dialects.test_loading import block
from tests.tracker.worker.test_web import get
from tracker.demo.local import own_topics, until_ready, worker_process
from tracker.kafka.client import read_topic
from tracker.kafka.cluster import topics_of
from tracker.settings import Settings

MORE: list[dict[str, Any]] = [
    {"type": "track", "event": "Product Added", "userId": "emi", "messageId": "h1",
     "timestamp": "2026-05-12T09:00:00Z", "properties": {"product_id": "i3", "quantity": "2"}},
    {"type": "track", "event": "Product Removed", "userId": "emi", "messageId": "h2",
     "timestamp": "2026-05-12T09:01:00Z", "properties": {"product_id": "i3"}},
    {"type": "page", "userId": "emi"},
    {"type": "track", "event": "Product Adedd", "userId": "emi", "messageId": "h3"},
    {"type": "track", "event": "Product Viewed", "userId": "emi", "mesageId": "h4",
     "timestamp": "2026-05-12T09:02:00Z", "properties": {"product_id": "i3"}},
]  # fmt: skip


def post(settings: Settings, events: list[dict[str, Any]]) -> dict[str, Any]:
    request = Request(
        f"http://127.0.0.1:{settings.web_port}/v1/events",
        msgspec.json.encode({"events": events}),
        {"Content-Type": "application/json"},
        method="POST",
    )
    with urlopen(request, timeout=60) as answer:
        body: dict[str, Any] = json.load(answer)
    return body


@pytest.mark.long
def test_a_worker_reads_records_of_segment_as_the_command_and_http_send_them(
    tansu: str, prefix: str, tmp_path: Path
) -> None:
    root = tmp_path / "artifacts"
    build_shop(root, [*shop_items(60)])
    settings = shop_settings(tansu, prefix, tmp_path, events_format="segment")
    records = [line.replace(b'"crib"', b'"i1"').replace(b'"mat"', b'"i2"')
               for line in block("format", "segment")]  # fmt: skip
    path = tmp_path / "export.jsonl"
    path.write_bytes(b"\n".join(records))

    async def events(settings: Settings) -> list[bytes | None]:
        return [record.value async for record in read_topic(settings, topics_of(settings).events)]

    async def go() -> None:
        async with own_topics(settings, delete=False):
            with worker_process(settings, tmp_path / "worker.log") as worker:
                await until_ready(worker, settings)
                sent = await asyncio.to_thread(
                    output_of, settings, "send", str(path), "--format", "segment"
                )
                assert f"{len(records)} of {len(records)} events confirmed" in sent
                assert {*await events(settings)} == {*records}  # as they are
                answer = await asyncio.to_thread(post, settings, MORE)
                assert (answer["sent"], answer["refused"]) == (2, 3)
                reasons = [one.get("reason") for one in answer["events"]]
                assert reasons == [None, None, "passed_over", "unknown_kind", "unknown_field"]
                assert "did you mean Product Added?" in answer["events"][3]["message"]
                assert "`mesageId` looks like `messageId`" in answer["events"][4]["message"]
                joined = 'tracker_outcomes_total{outcome="joined"} 1.0'
                metrics = await until(settings, "/metrics", lambda _, body: joined in body)
                assert 'tracker_passed_over_total{word="page"} 1.0' in metrics
                assert "tracker_rejected_total{" not in metrics
                body = await until(
                    settings,
                    "/v1/users/ada/history",
                    lambda status, body: status == 200 and json.loads(body)["retracted"] == 1,
                )
                history = [
                    (one["item_id"], one["kind"], one["retracted"])
                    for one in json.loads(body)["history"]
                ]
                # The refund took back the purchase of the second item; both are still listed.
                assert sorted(history) == [
                    ("i1", "purchase", False), ("i1", "view", False),
                    ("i2", "purchase", True), ("i2", "purchase", True),
                ]  # fmt: skip
                assert json.loads(get(settings, "/v1/users/a-1")[1])["events"] == 0  # they moved
                assert worker.stop(30) == 0

    asyncio.run(go())
