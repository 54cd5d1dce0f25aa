"""A new index under load: recommendations carry its version within seconds, and none fails."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from indexer.items.publish import rollback
from tests.brokers import KafkaBroker
from tests.shop import build_shop, shop_events, shop_items, shop_settings
from tests.states import without_list
from tracker.demo.audit import count_records, read_events
from tracker.demo.local import own_topics, until_ready, worker_process
from tracker.events.lines import Line
from tracker.events.wire import Recommendation
from tracker.kafka.client import send_events, watch
from tracker.kafka.cluster import topics_of

RATE = 150.0
WITHIN_SECONDS = 20.0
"""A version is looked for each second; the rest is for a machine that does other things."""


@dataclass
class Seen:
    """The versions on recommendations: when each came first, and how many lists it has."""

    first: dict[str, float] = field(default_factory=dict)
    last: str = ""
    lists: list[Recommendation] = field(default_factory=list)

    async def until(self, version: str, seconds: float) -> float:
        """Wait until lists have a version, and return how long that took, in seconds."""
        started_at = time.monotonic()
        while self.last != version:
            if time.monotonic() - started_at > seconds:
                raise TimeoutError(f"lists carry {self.last} after {seconds} s, not {version}")
            await asyncio.sleep(0.02)
        return time.monotonic() - started_at


@pytest.mark.kafka
@pytest.mark.timeout(600)
def test_two_builds_and_a_rollback_under_load_reach_the_lists_in_seconds_and_none_fails(
    kafka: KafkaBroker, prefix: str, tmp_path: Path
) -> None:
    artifacts = tmp_path / "artifacts"
    first = build_shop(artifacts).version
    settings = shop_settings(kafka.address, prefix, tmp_path)
    seen = Seen()

    async def follow(ready: asyncio.Event) -> None:
        async with aclosing(watch(settings, ready=ready.set)) as records:
            async for record in records:
                recommendation = msgspec.json.decode(record.value or b"", type=Recommendation)
                seen.last = recommendation.artifact
                seen.lists.append(recommendation)

    async def go() -> None:
        async with own_topics(settings, delete=False):
            with worker_process(settings, tmp_path / "worker.log") as worker:
                await until_ready(worker, settings)
                ready = asyncio.Event()
                following = asyncio.create_task(follow(ready))
                await ready.wait()
                lines: list[Line] = []
                enough = asyncio.Event()

                def load() -> Iterator[Line]:
                    """Yield events for as long as the versions change."""
                    for line in shop_events(int(RATE * 240), 300, seed=3):
                        if enough.is_set():
                            return
                        lines.append(line)
                        yield line

                sending = asyncio.create_task(send_events(settings, load(), rate=RATE))
                await seen.until(first, 60)
                # A changed catalogue: some items are gone, some are new, some have another text.
                items = [*shop_items(280)[5:], *shop_items(310)[300:]]
                items[0] = msgspec.structs.replace(items[0], title="something else of group3")
                second = (await asyncio.to_thread(build_shop, artifacts, items)).version
                await seen.until(second, WITHIN_SECONDS)
                third = (await asyncio.to_thread(build_shop, artifacts, shop_items(290))).version
                await seen.until(third, WITHIN_SECONDS)
                await asyncio.to_thread(rollback, artifacts)
                await seen.until(second, WITHIN_SECONDS)
                after = len(seen.lists)
                while len(seen.lists) < after + 100:
                    await asyncio.sleep(0.1)
                gone = {f"i{number}" for number in range(5)}
                # The other partition may still finish a chunk with the third version.
                lists = seen.lists[after:]
                assert {recommendation.artifact for recommendation in lists[-20:]} == {second}
                for recommendation in lists:
                    if recommendation.artifact == second:
                        assert not gone & {item.item_id for item in recommendation.items}
                assert not sending.done()  # there was load all the time
                enough.set()
                sent = await sending
                assert sent.confirmed == len(lines)
                truth = await read_events(settings)
                for _ in range(120):
                    missing = await without_list(settings, truth)
                    if not missing:
                        break
                    await asyncio.sleep(0.5)
                assert missing == []
                assert await count_records(settings, topics_of(settings).rejected) == 0
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                assert worker.stop(30) == 0

    asyncio.run(go())
    assert all(len(one.items) == settings.k for one in seen.lists)
