"""The lists that an undisturbed worker makes of the events of a plain walk."""

from contextlib import aclosing

from tests.faults import until_done
from tests.walk.crew import WatchedCrew
from tests.walk.judge import Lists, Place, Verdict, read_lists
from tests.walk.walk import READY_SECONDS, Walk
from tracker.kafka.client import read_topic
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import producer
from tracker.kafka.topics import ensure_topics
from tracker.settings import load_settings


async def calm_lists(walk: Walk) -> dict[Place, Lists]:
    """Give all records of a walk to a worker of its own, and read the lists that it makes.

    Raises:
        TimeoutError: the worker is not ready, or does not come to the end.
    """
    name = f"{walk.settings.name}-calm"
    told = {**walk.base, "name": name, "emit": "event"}  # a list of each event: all are compared
    settings = load_settings({}, brokers=walk.brokers.address, **told)
    topics = topics_of(settings)
    await ensure_topics(settings)
    async with (
        producer(settings) as client,
        aclosing(read_topic(walk.settings, walk.topics.events)) as records,
    ):
        async for record in records:
            await client.send(
                topics.events, record.value, key=record.key, partition=record.partition
            )
        await client.flush()
    crew = WatchedCrew(settings, 1, walk.folder / "calm", plain=True)
    crew.folder.mkdir(exist_ok=True)
    crew.start(0)
    try:
        if not await crew.all_ready(READY_SECONDS):
            raise TimeoutError(f"the worker is not ready: {crew.one(0).tail()}")
        await until_done(settings, crew)
        crew.stop()
    finally:
        crew.kill_all()
    return await read_lists(settings, topics.recommendations, Verdict())
