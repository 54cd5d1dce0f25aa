"""Two producers with different partitioners: every user has one state, and lists of all events."""

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp

from tests.end_to_end.steps import IN_TWO_PLACES, lists_of
from tests.shop import START, build_shop, shop_settings
from tests.states import read_rows
from tracker.demo.local import own_topics, until_ready, worker_process
from tracker.events.wire import Event, Recommendation, encode_event
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import producer
from tracker.kafka.partitioner import HASHES
from tracker.settings import Settings

PARTITIONS = 4


async def send(settings: Settings, partitioner: str, *events: Event) -> None:
    """Send events as a producer with a partitioner does."""
    topic = topics_of(settings).events
    async with producer(settings) as client:
        for event in events:
            key = event.user_id.encode()
            place = HASHES[partitioner](key) % PARTITIONS  # type: ignore[index]
            await client.send_and_wait(topic, encode_event(event), key=key, partition=place)


async def counts(settings: Settings) -> dict[str, float]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{settings.web_port}/metrics") as answer,
    ):
        lines = (await answer.text()).splitlines()
    return {line.split()[0]: float(line.split()[1]) for line in lines if not line.startswith("#")}


async def run(settings: Settings, log: Path) -> tuple[dict[str, float], list[Recommendation]]:
    user = IN_TWO_PLACES[0]
    likes = [Event(user, f"i{n}", "like", START + n, event_id=f"e{n}") for n in range(6)]
    async with own_topics(settings, delete=False):
        with worker_process(settings, log) as worker:
            await until_ready(worker, settings)
            await send(settings, "murmur2", *likes[:3])
            await send(settings, "crc32", *likes[3:], Event(user, retracts="e0"))
            async with asyncio.timeout(60):
                while True:
                    found = await counts(settings)
                    retracted = found.get('tracker_outcomes_total{outcome="retracted"}', 0)
                    if retracted and found.get("tracker_item_events_total", 0) >= len(likes) + 1:
                        break  # a commit has told the items of the last
                    await asyncio.sleep(0.1)
            assert worker.stop(30) == 0
    return found, await lists_of(settings)


def test_user_of_two_partitioners_has_one_state_and_lists_of_all_events(
    tansu: str, prefix: str, tmp_path: Path
) -> None:
    build_shop(tmp_path / "artifacts")
    settings = shop_settings(
        tansu, prefix, tmp_path, event_partitions=PARTITIONS, commit_interval_seconds=0.2
    )
    found, lists = asyncio.run(run(settings, tmp_path / "worker.log"))
    assert found["tracker_handed_on_total"] == 4
    assert found['tracker_key_mismatch_total{cause="other_partition"}'] == 4
    assert found["tracker_item_events_total"] == 7
    assert not [name for name in found if name.startswith("tracker_rejected_total{")]
    rows = asyncio.run(read_rows(settings))
    assert Counter(place for place, _ in rows.users) == {3: 1}
    newest = max(lists, key=lambda one: one.version)
    assert newest == lists[-1]
    assert newest.id == f"{prefix}-events-1-3"
    assert lists[0].id.startswith(f"{prefix}-events-3-")
    assert "two states" not in (tmp_path / "worker.log").read_text()
