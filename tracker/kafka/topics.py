"""The topics of a tracker: created, and checked if they exist."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    KafkaError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from tracker.explained import Explained
from tracker.kafka.cluster import describe_topics, topics_of, unreachable
from tracker.kafka.connect import admin_client
from tracker.settings import Settings

TIMEOUT_SECONDS = 14.0
"""Time limit of all requests to the broker together."""

SEEN_AFTER_SECONDS = 10.0
"""Time that new topics may take until every broker knows them."""

LOG_APPEND_TIME = {"message.timestamp.type": "LogAppendTime"}
EVENT_LOG = {"cleanup.policy": "delete", **LOG_APPEND_TIME}
DAY_MS = str(24 * 3600 * 1000)
CHANGELOG = {
    "cleanup.policy": "compact",
    "max.compaction.lag.ms": DAY_MS,  # what was deleted or replaced leaves the log after it
    "delete.retention.ms": DAY_MS,  # and the mark of the deletion, with its key, after this
}
MOST_COMPACTION_LAG_MS = 365 * 24 * 3600 * 1000
FORGET_LOG = {**CHANGELOG, **LOG_APPEND_TIME}

CREATE_TIME = {
    "events": "records carry the senders' clocks, so events of the future are told by the worker's "
    "clock alone, an event near that limit waits for a commit, and latency and retractions without "
    "a timestamp go by the senders' clocks as far as these are not ahead",
    "recommendations": "records carry the worker's clock; nothing depends on it",
    "rejected": "records carry the worker's clock, and doctor cannot compare the broker's with it",
}
"""Differences that CreateTime makes, by role of the topic; it makes none for the other topics."""


class TopicsError(Explained):
    """The broker did not create a topic, or does not show it."""


@dataclass(frozen=True)
class WantedTopic:
    """A topic that must exist; if `like` is given, with as many partitions as that topic."""

    role: str
    name: str
    partitions: int
    config: Mapping[str, str]
    like: str | None = None


@dataclass(frozen=True)
class TopicReport:
    """A topic as it is; `state` is ok, created, missing or wrong.

    `problems` must be corrected before a worker starts, `notes` need not.
    """

    role: str
    name: str
    state: str
    partitions: int
    cleanup: str
    timestamps: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def wanted_topics(settings: Settings) -> list[WantedTopic]:
    """Return the topics of a tracker, each source before its changelog."""
    names = topics_of(settings)
    events, items = settings.event_partitions, settings.item_partitions
    topics = [
        WantedTopic("events", names.events, events, EVENT_LOG),
        WantedTopic("recommendations", names.recommendations, events, EVENT_LOG),
        WantedTopic("rejected", names.rejected, events, EVENT_LOG),
        WantedTopic("items", names.items, items, EVENT_LOG),
        WantedTopic("user changelog", names.users_changelog, events, CHANGELOG, names.events),
        WantedTopic("item changelog", names.items_changelog, items, CHANGELOG, names.items),
        WantedTopic("hand-over", names.hand_over, events, EVENT_LOG, names.events),
        WantedTopic("requests to forget", names.forget, events, FORGET_LOG, names.events),
    ]
    if names.user_keys:  # what applies to a changelog applies to it too
        topics.append(
            WantedTopic("key changelog", names.user_keys, events, CHANGELOG, names.events)
        )
    return topics


async def ensure_topics(
    settings: Settings, create: bool = True, configs: bool = True
) -> list[TopicReport]:
    """Create missing topics, and report on every topic.

    1. List the topics. Never describe one that may not exist: some brokers create it then.
    2. Create the missing ones. A changelog gets as many partitions as its source, even if that
       has another number than the settings say.
    3. Compare partitions, cleanup policy and timestamps of all.

    Args:
        settings: names, counts, replication and how to reach the broker.
        create: False creates nothing.
        configs: False compares partitions alone, which needs no right to read configurations.

    Returns:
        one report per topic, in the order of `wanted_topics`.

    Raises:
        BrokerError: the broker cannot be reached, or does not allow something.
        TopicsError: the broker refused to create a topic.
    """
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS), admin_client(settings) as admin:
            return await _ensure(admin, settings, create, configs)
    except TimeoutError as error:
        raise unreachable(settings, f"no answer within {TIMEOUT_SECONDS:g} s") from error


async def check_changelogs(settings: Settings) -> float:
    """Check that the changelogs are compacted; return how long they keep the mark of a deletion.

    Returns:
        the shorter time of both, in seconds; Kafka's default if the broker does not tell.

    Raises:
        BrokerError: the broker cannot be reached.
        TopicsError: a changelog deletes rows with age, and with them states.
    """
    seconds = []
    async with admin_client(settings) as admin:
        for topic in wanted_topics(settings):
            if topic.role.endswith("changelog"):
                config = await _config(admin, topic.name)
                cleanup = config.get("cleanup.policy", "") or "compact"
                if cleanup != "compact":
                    raise TopicsError(
                        f"topic {topic.name} has cleanup.policy={cleanup}, which deletes states"
                        " with age, and compact is expected; change it with: kafka-configs"
                        f" --alter --topic {topic.name} --add-config cleanup.policy=compact"
                    )
                kept_ms = config.get("delete.retention.ms") or DAY_MS
                seconds.append(float(kept_ms) / 1000.0)
    return min(seconds)


async def _ensure(
    admin: AIOKafkaAdminClient, settings: Settings, create: bool, with_configs: bool
) -> list[TopicReport]:
    topics = wanted_topics(settings)
    # 1. List the topics.
    counts = await _partition_counts(settings)
    # 2. Create the missing ones.
    missing = [topic for topic in topics if topic.name not in counts]
    if create and missing:
        await _create(admin, settings, missing, counts)
        counts = await _counts_once_seen(settings, topics)
    # 3. Compare partitions, cleanup policy and timestamps.
    configs = {
        topic.name: await _config(admin, topic.name)
        for topic in topics
        if topic.name in counts and with_configs
    }
    created = {topic.name for topic in missing} if create else set()
    return [
        _report(topic, counts, configs.get(topic.name, {}), topic.name in created)
        for topic in topics
    ]


async def _partition_counts(settings: Settings) -> dict[str, int]:
    return {name: info.partitions for name, info in (await describe_topics(settings)).items()}


async def _counts_once_seen(settings: Settings, topics: list[WantedTopic]) -> dict[str, int]:
    deadline = asyncio.get_running_loop().time() + SEEN_AFTER_SECONDS
    while True:
        counts = await _partition_counts(settings)
        absent = [topic.name for topic in topics if topic.name not in counts]
        if not absent:
            return counts
        if asyncio.get_running_loop().time() > deadline:
            raise TopicsError(
                f"created, but not visible after {SEEN_AFTER_SECONDS:g} s: {', '.join(absent)}"
            )
        await asyncio.sleep(0.1)


async def _create(
    admin: AIOKafkaAdminClient,
    settings: Settings,
    missing: list[WantedTopic],
    counts: Mapping[str, int],
) -> None:
    new = [
        NewTopic(
            topic.name,
            num_partitions=counts.get(topic.like or "", topic.partitions),
            replication_factor=settings.replication_factor,
            topic_configs=dict(topic.config),
        )
        for topic in missing
    ]
    answer = await admin.create_topics(new)
    for name, code, *message in answer.topic_errors:
        kind = for_code(code)
        if code == 0 or kind is TopicAlreadyExistsError:  # another process was faster
            continue
        if kind is TopicAuthorizationFailedError:
            raise kind(f"Create on topic {name}")
        reason = (message[0] if message else None) or kind.description or kind.__name__
        raise TopicsError(
            f"the broker at {settings.brokers} did not create {name}: {reason} "
            "(check TRACKER_REPLICATION_FACTOR, TRACKER_EVENT_PARTITIONS and "
            "TRACKER_ITEM_PARTITIONS)"
        )


async def configs_of(settings: Settings, names: list[str]) -> dict[str, dict[str, str]]:
    """Return the configurations of topics by name; one is empty if the broker knows none.

    Raises:
        BrokerError: the broker cannot be reached, or does not allow it.
    """
    async with admin_client(settings) as admin:
        return {name: await _config(admin, name) for name in names}


async def _config(admin: AIOKafkaAdminClient, name: str) -> dict[str, str]:
    """Return the configuration of a topic; empty if the broker knows none.

    Raises:
        TopicAuthorizationFailedError: it does not tell it to us.
    """
    try:
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    except KafkaError:
        return {}
    resources = [resource for answer in answers for resource in answer.resources]
    if any(resource[0] == TopicAuthorizationFailedError.errno for resource in resources):
        raise TopicAuthorizationFailedError(f"DescribeConfigs on topic {name}")
    return {
        entry[0]: entry[1] for resource in resources if resource[0] == 0 for entry in resource[4]
    }


def _report(
    topic: WantedTopic, counts: Mapping[str, int], config: Mapping[str, str], created: bool
) -> TopicReport:
    if topic.name not in counts and topic.role == "hand-over":
        return TopicReport(
            topic.role, topic.name, "missing", 0, "", "", [],
            ["does not exist, so events in the wrong partition are taken where they are, and a user"
             " may have two states: run 'tracker topics'"],
        )  # fmt: skip
    if topic.name not in counts:
        return TopicReport(
            topic.role, topic.name, "missing", 0, "", "", ["does not exist: run 'tracker topics'"]
        )
    partitions = counts[topic.name]
    problems, notes = [], []
    if topic.like is not None and topic.like in counts and partitions != counts[topic.like]:
        problems.append(
            f"has {partitions} partitions and {topic.like} has {counts[topic.like]}: the counts "
            "must be equal; "
            + (
                "stop all workers, and run `tracker move-states`"
                if topic.role != "item changelog" and partitions < counts[topic.like]
                else "delete it, and run 'tracker topics'"
                if topic.role in ("hand-over", "requests to forget")
                else "delete the changelog and run 'tracker topics', with the states then "
                "rebuilt from the events that are still kept, or choose another TRACKER_NAME"
            )
        )
    elif topic.like is None and partitions != topic.partitions:
        notes.append(f"has {partitions} partitions, the settings say {topic.partitions}")
    cleanup = config.get("cleanup.policy", "")
    if cleanup and cleanup != topic.config["cleanup.policy"]:
        policy = topic.config["cleanup.policy"]
        loses = topic.role.endswith("changelog")
        text = f"has cleanup.policy={cleanup}, expected {policy}" + (
            ": states would be deleted with age" if loses else ""
        )
        (problems if loses or "compact" in cleanup else notes).append(
            f"{text}; change it with: kafka-configs --alter --topic {topic.name} "
            f"--add-config cleanup.policy={policy}"
        )
    timestamps = config.get("message.timestamp.type", "")
    if timestamps == "CreateTime" and topic.role in CREATE_TIME:
        notes.append(
            f"has message.timestamp.type=CreateTime: {CREATE_TIME[topic.role]}; change it with: "
            f"kafka-configs --alter --topic {topic.name} "
            "--add-config message.timestamp.type=LogAppendTime"
        )
    if "max.compaction.lag.ms" in topic.config:
        lag = config.get("max.compaction.lag.ms", "")
        if lag.isdigit() and int(lag) > MOST_COMPACTION_LAG_MS:
            notes.append(
                "has no bound on compaction, so that the id of a forgotten user may stay in it for"
                f" ever; set one with: kafka-configs --alter --topic {topic.name} --add-config"
                f" max.compaction.lag.ms={DAY_MS}"
            )
    state = "wrong" if problems else "created" if created else "ok"
    return TopicReport(
        topic.role, topic.name, state, partitions, cleanup, timestamps, problems, notes
    )
