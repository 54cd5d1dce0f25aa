"""Topics are created as a worker needs them, and what is wrong with existing ones is said."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.admin import NewTopic

from tests.brokers import KafkaBroker
from tracker.demo.processes import free_port
from tracker.kafka.cluster import BrokerError, describe_topics, topics_of
from tracker.kafka.connect import admin_client
from tracker.kafka.topics import (
    TopicReport,
    TopicsError,
    _create,
    check_changelogs,
    configs_of,
    ensure_topics,
    wanted_topics,
)
from tracker.settings import Settings, load_settings


def settings_of(address: str, name: str, **more: object) -> Settings:
    return load_settings({}, brokers=address, name=name, **more)


def ensure(settings: Settings, create: bool = True) -> dict[str, TopicReport]:
    return {report.role: report for report in asyncio.run(ensure_topics(settings, create))}


def make(settings: Settings, *topics: NewTopic) -> None:
    async def create() -> None:
        async with admin_client(settings) as admin:
            await admin.create_topics(list(topics))

    asyncio.run(create())


def test_missing_topics_are_created_with_matching_counts_and_found_the_next_time(
    tansu: str, prefix: str
) -> None:
    settings = settings_of(tansu, prefix, event_partitions=3, item_partitions=2)
    assert {report.state for report in ensure(settings).values()} == {"created"}
    again = ensure(settings)
    assert {report.state for report in again.values()} == {"ok"}
    assert {role: report.partitions for role, report in again.items()} == {
        "events": 3,
        "recommendations": 3,
        "rejected": 3,
        "items": 2,
        "user changelog": 3,
        "item changelog": 2,
        "hand-over": 3,
        "requests to forget": 3,
    }
    assert again["user changelog"].cleanup == "compact"
    assert again["item changelog"].cleanup == "compact"
    assert again["events"].cleanup == "delete"


def test_check_only_creates_nothing_and_names_what_is_missing(tansu: str, prefix: str) -> None:
    settings = settings_of(tansu, prefix)
    reports = ensure(settings, create=False)
    assert {report.state for report in reports.values()} == {"missing"}
    assert "run 'tracker topics'" in reports["events"].problems[0]
    assert asyncio.run(describe_topics(settings)) == {}


def test_changelog_takes_the_count_of_the_events_that_exist(tansu: str, prefix: str) -> None:
    settings = settings_of(tansu, prefix, event_partitions=4)
    make(settings, NewTopic(topics_of(settings).events, 7, 1))
    reports = ensure(settings)
    assert reports["user changelog"].partitions == 7
    assert reports["user changelog"].problems == []
    assert reports["events"].notes[0] == "has 7 partitions, the settings say 4"


def test_changelog_of_another_count_is_a_problem_with_a_remedy(tansu: str, prefix: str) -> None:
    settings = settings_of(tansu, prefix, event_partitions=4)
    make(settings, NewTopic(topics_of(settings).users_changelog, 3, 1))
    report = ensure(settings)["user changelog"]
    assert report.state == "wrong"
    assert f"has 3 partitions and {prefix}-events has 4" in report.problems[0]


def test_changelog_that_ages_is_a_problem_and_compacted_events_too(tansu: str, prefix: str) -> None:
    settings = settings_of(tansu, prefix, event_partitions=2)
    names = topics_of(settings)
    make(
        settings,
        NewTopic(names.users_changelog, 2, 1, topic_configs={"cleanup.policy": "delete"}),
        NewTopic(names.events, 2, 1, topic_configs={"cleanup.policy": "compact"}),
    )
    reports = ensure(settings)
    assert "states would be deleted with age" in reports["user changelog"].problems[0]
    assert "cleanup.policy=compact, expected delete" in reports["events"].problems[0]


@pytest.mark.usefixtures("no_settling")
def test_broker_that_is_away_is_one_clear_line() -> None:
    settings = settings_of(f"127.0.0.1:{free_port()}", "away")
    with pytest.raises(BrokerError, match="TRACKER_BROKERS") as caught:
        ensure(settings)
    assert "\n" not in str(caught.value)


def test_wanted_topics_name_the_source_before_its_changelog() -> None:
    wanted = wanted_topics(settings_of("localhost:1", "shop"))
    names = [topic.name for topic in wanted]
    for topic in wanted:
        if topic.like is not None:
            assert names.index(topic.like) < names.index(topic.name)


DAY_MS = str(24 * 3600 * 1000)
BOUNDS = {
    "cleanup.policy": "compact",
    "max.compaction.lag.ms": DAY_MS,
    "delete.retention.ms": DAY_MS,
}
"""A deleted row leaves the log in one compaction, the mark of its deletion in a later one: three
days, as docs/how-to/personal-data.md promises."""


def compacted(settings: Settings) -> list[str]:
    names = topics_of(settings)
    assert names.user_keys is not None
    return [names.users_changelog, names.items_changelog, names.forget, names.user_keys]


class FakeAdmin:
    """Keeps what it is asked to create."""

    def __init__(self) -> None:
        self.configs: dict[str, dict[str, str]] = {}

    async def create_topics(self, topics: list[NewTopic]) -> Any:
        self.configs = {topic.name: topic.topic_configs for topic in topics}
        return SimpleNamespace(topic_errors=[])


def test_every_compacted_topic_is_asked_for_with_bounds_of_three_days_in_all() -> None:
    settings = settings_of("localhost:1", "shop", user_keys=True, pseudonym_key_file="key")
    admin = FakeAdmin()
    asyncio.run(_create(admin, settings, wanted_topics(settings), {}))
    asked = admin.configs
    kept = [name for name, config in asked.items() if "compact" in config["cleanup.policy"]]
    assert sorted(kept) == sorted(compacted(settings))
    for name in kept:
        assert {key: asked[name].get(key) for key in BOUNDS} == BOUNDS


@pytest.mark.kafka
def test_kafka_stamps_events_itself_and_keeps_what_is_deleted_for_three_days_at_most(
    kafka: KafkaBroker, prefix: str
) -> None:
    settings = settings_of(
        kafka.address, prefix, event_partitions=2, item_partitions=1,
        user_keys=True, pseudonym_key_file="key",
    )  # fmt: skip
    ensure(settings)
    configs = asyncio.run(configs_of(settings, compacted(settings)))
    for name, config in configs.items():
        assert (name, {key: config.get(key) for key in BOUNDS}) == (name, BOUNDS)
    reports = ensure(settings, create=False)
    assert reports["events"].timestamps == "LogAppendTime"
    assert reports["recommendations"].timestamps == "LogAppendTime"
    assert reports["user changelog"].cleanup == "compact"
    assert all(not report.problems and not report.notes for report in reports.values())


@pytest.mark.kafka
def test_more_copies_than_brokers_are_refused_with_the_setting_to_change(
    kafka: KafkaBroker, prefix: str
) -> None:
    settings = settings_of(kafka.address, prefix, replication_factor=3)
    with pytest.raises(TopicsError, match="TRACKER_REPLICATION_FACTOR"):
        ensure(settings)


@pytest.mark.kafka
def test_events_with_the_senders_clock_are_noted(kafka: KafkaBroker, prefix: str) -> None:
    settings = settings_of(kafka.address, prefix, event_partitions=2, item_partitions=1)
    make(settings, NewTopic(topics_of(settings).events, 2, 1))
    (note,) = ensure(settings)["events"].notes
    assert "message.timestamp.type=CreateTime: records carry the senders' clocks" in note
    assert f"--alter --topic {prefix}-events --add-config message.timestamp.type=LogApp" in note


@pytest.mark.kafka
@pytest.mark.parametrize("policy", ["compact", "compact,delete", "delete"])
def test_a_changelog_that_deletes_rows_with_age_is_refused(
    kafka: KafkaBroker, prefix: str, policy: str
) -> None:
    settings = settings_of(kafka.address, prefix, event_partitions=1)
    configs = {"cleanup.policy": policy, "delete.retention.ms": "7200000"}
    make(settings, NewTopic(f"{prefix}-users-changelog", 1, 1, topic_configs=configs))
    ensure(settings)
    if policy == "compact":
        assert asyncio.run(check_changelogs(settings)) == 7200.0
    else:
        with pytest.raises(TopicsError, match=rf"cleanup\.policy={policy}, .*kafka-configs"):
            asyncio.run(check_changelogs(settings))
