"""Deletion of a tracker's states at the broker: all, or only the models learned online."""

import asyncio

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError, for_code

from tracker.explained import Explained
from tracker.kafka.cluster import TopicError, describe_topics, group_of, topics_of
from tracker.kafka.connect import admin_client, producer
from tracker.kafka.topics import ensure_topics
from tracker.kernels.row_bytes import LEARNED_KEY
from tracker.settings import Settings

GONE_SECONDS = 20.0


class ResetError(Explained):
    """A worker uses the states, or the broker does not delete them."""


async def reset_topics(settings: Settings) -> list[str]:
    """Delete changelogs and item events; after that workers start from the earliest event.

    1. Check that no worker runs: the group must have no member.
    2. Delete the changelogs and the topics of item events and of handed-on events, and create them
       again. Workers write both when they read the events again: what is there would count twice.

    Returns:
        one line per topic that was deleted or created.

    Raises:
        BrokerError: the broker cannot be used.
        ResetError: a worker runs, or the broker does not delete a topic.
        TopicError: the events topic does not exist.
    """
    names = topics_of(settings)
    await check_reset(settings)  # 1. Check that no worker runs.
    report: list[str] = []
    async with admin_client(settings) as admin:  # 2. Delete and create.
        topics = await describe_topics(settings)
        doomed = [
            name
            for name in (names.users_changelog, names.items_changelog, names.items, names.hand_over)
            if name in topics
        ]
        if doomed:
            answer = await admin.delete_topics(doomed)
            for name, code, *_ in answer.topic_error_codes:
                kind = for_code(code)
                if code != 0 and kind is not UnknownTopicOrPartitionError:
                    raise ResetError(f"the broker does not delete {name}: {kind.__name__}")
    await _until_gone(settings, doomed)
    report += [f"{name}: deleted" for name in doomed]
    reports = await ensure_topics(settings)
    report += [f"{topic.name}: created" for topic in reports if topic.state == "created"]
    return report


async def check_reset(settings: Settings) -> None:
    """Check that the states can be deleted.

    Raises:
        BrokerError: the broker cannot be used.
        ResetError: a worker runs.
        TopicError: the events topic does not exist.
    """
    events = topics_of(settings).events
    if events not in await describe_topics(settings):
        raise TopicError(f"topic {events} does not exist: run 'tracker topics'")
    async with admin_client(settings) as admin:
        await _check_stopped(admin, settings)


async def reset_learning(settings: Settings) -> str:
    """Delete the models learned online: the next workers use the artifact's.

    No worker may run: it has its learned models in memory, and would write them again.

    Returns:
        one line on the deletion.

    Raises:
        BrokerError: the broker cannot be used.
        ResetError: a worker runs.
        TopicError: the changelog of users does not exist.
    """
    changelog = topics_of(settings).users_changelog
    topics = await describe_topics(settings)
    if changelog not in topics:
        raise TopicError(f"topic {changelog} does not exist: run 'tracker topics'")
    async with admin_client(settings) as admin:
        await _check_stopped(admin, settings)
    partitions = topics[changelog].partitions
    async with producer(settings) as client:
        for partition in range(partitions):
            await client.send_and_wait(changelog, None, LEARNED_KEY, partition)
    return f"{changelog}: deleted the models learned online in {partitions} partitions"


async def _check_stopped(admin: AIOKafkaAdminClient, settings: Settings) -> None:
    members = await _members(admin, group_of(settings))
    if members:
        workers, it = (
            ("1 worker", "runs: stop it")
            if members == 1
            else (f"{members} workers", "run: stop them")
        )
        raise ResetError(f"{workers} of group {group_of(settings)} {it} first")


async def _members(admin: AIOKafkaAdminClient, group: str) -> int:
    try:
        answers = await admin.describe_consumer_groups([group])
    except KafkaError:  # brokers without groups of that name say so in different ways
        return 0
    return sum(len(group[5]) for answer in answers for group in answer.groups)


async def _until_gone(settings: Settings, names: list[str]) -> None:
    deadline = asyncio.get_running_loop().time() + GONE_SECONDS
    while remaining := [name for name in names if name in await describe_topics(settings)]:
        if asyncio.get_running_loop().time() > deadline:
            raise ResetError(
                f"still there {GONE_SECONDS:g} s after the deletion: {', '.join(remaining)}"
            )
        await asyncio.sleep(0.2)
