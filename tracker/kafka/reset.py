"""Deletion of a tracker's states at the broker: all, or only the models learned online."""

import asyncio
from contextlib import aclosing

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    UnknownTopicOrPartitionError,
    for_code,
)

from tracker.explained import Explained
from tracker.kafka.client import read_topic
from tracker.kafka.cluster import TopicError, describe_topics, group_of, topics_of
from tracker.kafka.connect import admin_client, producer
from tracker.kafka.forget import PARKED_PREFIX
from tracker.kafka.topics import ensure_topics
from tracker.kernels.row_bytes import FORGOTTEN_PREFIX, LEARNED_KEY
from tracker.settings import Settings

GONE_SECONDS = 20.0


class ResetError(Explained):
    """A worker uses the states, or the broker does not delete them."""


async def reset_topics(settings: Settings) -> list[str]:
    """Delete changelogs and item events; after that workers start from the earliest event.

    1. Check that no worker runs: the group must have no member.
    2. Delete the changelogs and the topics of item events and of handed-on events, and create them
       again. Workers write both when they read the events again: what is there would count twice.
       The keys of users go with their rows.
    3. Write the salted hashes of forgotten users to the new changelog: events of theirs that are
       read again are dropped.

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
    hashes = await _hashes(settings)
    if hashes:
        await ensure_topics(settings)
        await _park_hashes(settings, hashes)
    async with admin_client(settings) as admin:  # 2. Delete and create.
        topics = await describe_topics(settings)
        doomed = [
            name
            for name in (
                names.users_changelog,
                names.items_changelog,
                names.items,
                names.hand_over,
                names.user_keys,
            )
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
    if hashes:  # 3. Write the hashes of forgotten users again.
        await _write_hashes(settings, hashes)
        report.append(f"{names.users_changelog}: users who were forgotten stay so")
    return report


Hashes = dict[tuple[int, bytes], bytes]
"""Values of hashes of forgotten users, by partition and key."""


async def _hashes(settings: Settings) -> Hashes:
    """Return the hashes in the changelog, and those of a reset that was interrupted."""
    names = topics_of(settings)
    existing = await describe_topics(settings)
    hashes: Hashes = {}
    for topic, prefix in ((names.forget, PARKED_PREFIX), (names.users_changelog, b"")):
        if topic not in existing:
            continue
        async with aclosing(read_topic(settings, topic)) as records:
            async for record in records:
                if not (record.key or b"").startswith(prefix + FORGOTTEN_PREFIX):
                    continue
                place = record.partition, (record.key or b"").removeprefix(prefix)
                if record.value is None:
                    hashes.pop(place, None)
                else:
                    hashes[place] = record.value
    return hashes


async def _park_hashes(settings: Settings, hashes: Hashes) -> None:
    """Write the hashes to the forget topic: an interrupted reset finds them there."""
    topic = topics_of(settings).forget
    async with producer(settings) as client:
        for (partition, key), value in hashes.items():
            await client.send_and_wait(topic, value, PARKED_PREFIX + key, partition)


async def _write_hashes(settings: Settings, hashes: Hashes) -> None:
    """Write the hashes to the new changelog, to every partition if there is another number."""
    names = topics_of(settings)
    count = (await describe_topics(settings))[names.users_changelog].partitions
    is_same = all(partition < count for partition, _ in hashes)
    async with producer(settings) as client:
        for (partition, key), value in hashes.items():
            for target in [partition] if is_same else range(count):
                await client.send_and_wait(names.users_changelog, value, key, target)
        for partition, key in hashes:
            if partition < count:
                await client.send_and_wait(names.forget, None, PARKED_PREFIX + key, partition)


async def check_reset(settings: Settings) -> None:
    """Check that the states can be deleted.

    Raises:
        BrokerError: the broker cannot be used.
        ResetError: a worker runs.
        TopicError: the events topic does not exist.
    """
    events = topics_of(settings).events
    if events not in await describe_topics(settings, [events]):
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
    topics = await describe_topics(settings, [changelog])
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
    """Return the number of workers in a group.

    Raises:
        GroupAuthorizationFailedError: the brokers do not say it to us.
    """
    try:
        answers = await admin.describe_consumer_groups([group])
    except GroupAuthorizationFailedError:
        raise
    except KafkaError:  # brokers without groups of that name say so in different ways
        return 0
    groups = [one for answer in answers for one in answer.groups]
    if any(one[0] == GroupAuthorizationFailedError.errno for one in groups):
        raise GroupAuthorizationFailedError(group)
    return sum(len(one[5]) for one in groups)


async def _until_gone(settings: Settings, names: list[str]) -> None:
    deadline = asyncio.get_running_loop().time() + GONE_SECONDS
    while remaining := [name for name in names if name in await describe_topics(settings)]:
        if asyncio.get_running_loop().time() > deadline:
            raise ResetError(
                f"still there {GONE_SECONDS:g} s after the deletion: {', '.join(remaining)}"
            )
        await asyncio.sleep(0.2)
