"""Reaching Kafka: names, client arguments, and what the brokers say of topics."""

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import UnknownError

from tests.brokers import KafkaBroker
from tracker.kafka import cluster
from tracker.kafka.cluster import (
    BrokerError,
    TopicError,
    check_topics,
    client_arguments,
    describe_topics,
    fetched_ends,
    group_of,
    ssl_context_of,
    topics_of,
)
from tracker.kafka.connect import admin_client
from tracker.kafka.topics import ensure_topics
from tracker.settings import Settings, load_settings


def made(address: str, name: str) -> Settings:
    return load_settings({}, brokers=address, name=name, event_partitions=3, item_partitions=2)


def test_topics_and_group_share_the_name() -> None:
    topics = topics_of(load_settings({}, name="shop"))
    assert topics.all() == (
        "shop-events",
        "shop-recommendations",
        "shop-rejected",
        "shop-items",
        "shop-users-changelog",
        "shop-items-changelog",
        "shop-handover",
        "shop-forget",
    )
    assert group_of(load_settings({}, name="shop")) == "shop"


def test_keys_of_users_have_a_topic_if_the_settings_ask_for_them(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 32)
    topics = topics_of(
        load_settings({}, name="shop", pseudonym_key_file=tmp_path / "key", user_keys=True)
    )
    assert topics.all()[-1] == topics.user_keys == "shop-user-keys"


def test_keys_of_users_are_refused_without_transactions_and_in_other_partitions(
    tansu: str, prefix: str, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("k" * 32)
    more = {"pseudonym_key_file": tmp_path / "key", "user_keys": True}
    settings = load_settings({}, brokers=tansu, name=prefix, event_partitions=3, **more)
    plain = settings.model_copy(update={"user_keys": False})
    asyncio.run(ensure_topics(plain))
    with pytest.raises(TopicError, match=rf"lack the topics {prefix}-user-keys; `tracker topics`"):
        asyncio.run(check_topics(settings))
    reports = {report.role: report for report in asyncio.run(ensure_topics(settings))}
    made = reports["key changelog"]
    assert (made.state, made.partitions, made.cleanup) == ("created", 3, "compact")
    with pytest.raises(TopicError, match=r"TRACKER_USER_KEYS is true, and .* have no transactions"):
        asyncio.run(check_topics(settings))
    asyncio.run(check_topics(plain))

    async def other() -> None:
        await _delete(settings, f"{prefix}-user-keys")
        async with admin_client(settings) as admin:
            await admin.create_topics([NewTopic(f"{prefix}-user-keys", 2, 1)])

    asyncio.run(other())
    with pytest.raises(TopicError, match=r"events has 3 partitions and .*user-keys has 2"):
        asyncio.run(check_topics(settings))


def test_clients_get_what_the_protocol_needs() -> None:
    plain = client_arguments(load_settings({}, brokers="a:1,b:2"))
    assert plain == {"bootstrap_servers": ["a:1", "b:2"], "security_protocol": "PLAINTEXT"}
    secured = client_arguments(
        load_settings(
            {},
            security_protocol="SASL_SSL",
            sasl_mechanism="SCRAM-SHA-512",
            sasl_username="u",
            sasl_password="p",
        )
    )
    assert isinstance(secured.pop("ssl_context"), ssl.SSLContext)
    assert secured["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (secured["sasl_plain_username"], secured["sasl_plain_password"]) == ("u", "p")


def test_tls_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    missing = load_settings({}, security_protocol="SSL", tls_ca_file=tmp_path / "none.pem")
    with pytest.raises(BrokerError, match="TRACKER_TLS_CA_FILE"):
        ssl_context_of(missing)
    junk = tmp_path / "junk.pem"
    junk.write_text("no certificate")
    broken = load_settings({}, security_protocol="SSL", tls_cert_file=junk, tls_key_file=junk)
    with pytest.raises(BrokerError, match="TRACKER_TLS_KEY_FILE"):
        ssl_context_of(broken)


def test_missing_topics_are_named_with_the_remedy(tansu: str, prefix: str) -> None:
    with pytest.raises(TopicError) as error:
        asyncio.run(check_topics(made(tansu, prefix)))
    assert f"{prefix}-events" in str(error.value)
    assert "`tracker topics` creates them" in str(error.value)


def test_topic_of_handed_on_events_may_be_missing_and_the_log_says_what_that_means(
    tansu: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = made(tansu, prefix)
    asyncio.run(ensure_topics(settings))
    assert asyncio.run(check_topics(settings)).hands_over
    asyncio.run(_delete(settings, f"{prefix}-handover"))
    assert not asyncio.run(check_topics(settings)).hands_over
    assert f"topic {prefix}-handover does not exist" in caplog.text
    caplog.clear()
    asyncio.run(check_topics(settings.model_copy(update={"hand_over": "off"})))
    assert caplog.text == ""


def test_topic_of_handed_on_events_has_the_partitions_of_the_events(
    tansu: str, prefix: str
) -> None:
    settings = made(tansu, prefix)
    asyncio.run(ensure_topics(settings))

    async def other() -> None:
        await _delete(settings, f"{prefix}-handover")
        async with admin_client(settings) as admin:
            await admin.create_topics([NewTopic(f"{prefix}-handover", 2, 1)])

    asyncio.run(other())
    with pytest.raises(TopicError, match=r"events has 3 partitions and .*handover has 2"):
        asyncio.run(check_topics(settings))


async def _delete(settings: Settings, topic: str) -> None:
    async with admin_client(settings) as admin:
        await admin.delete_topics([topic])


def test_topics_are_described_with_partitions_and_ids(tansu: str, prefix: str) -> None:
    settings = made(tansu, prefix)
    asyncio.run(ensure_topics(settings))
    found = asyncio.run(check_topics(settings))
    assert found.partitions(f"{prefix}-events") == 3
    assert found.partitions(f"{prefix}-items-changelog") == 2
    assert found.info[f"{prefix}-events"].topic_id != found.info[f"{prefix}-items"].topic_id
    assert not found.transactions


@pytest.mark.kafka
def test_changed_partition_count_is_refused_with_both_numbers(
    kafka: KafkaBroker, prefix: str
) -> None:
    settings = made(kafka.address, prefix)

    async def grow() -> None:
        await ensure_topics(settings)
        admin = AIOKafkaAdminClient(**client_arguments(settings))
        await admin.start()
        try:
            await admin.create_partitions({f"{prefix}-events": NewPartitions(5)})
        finally:
            await admin.close()
        async with asyncio.timeout(60.0):
            while (await describe_topics(settings))[f"{prefix}-events"].partitions != 5:
                await asyncio.sleep(0.1)

    asyncio.run(grow())
    with pytest.raises(TopicError, match=r"has 5 partitions and its changelog.*has 3"):
        asyncio.run(check_topics(settings))


def test_broker_that_is_away_is_one_line_with_what_to_check(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "REQUEST_SECONDS", 2.0)
    settings = made("127.0.0.1:1", prefix)
    with pytest.raises(BrokerError) as error:
        asyncio.run(describe_topics(settings))
    assert "127.0.0.1:1" in str(error.value)
    assert "TRACKER_BROKERS" in str(error.value)
    with pytest.raises(BrokerError, match="TRACKER_BROKERS"):
        asyncio.run(cluster.supports_transactions(settings))
    with pytest.raises(BrokerError, match="TRACKER_BROKERS"):
        asyncio.run(fetched_ends(settings, [TopicPartition("x", 0)]))


def test_ends_of_logs_are_right_where_the_brokers_answer_is_not(tansu: str, prefix: str) -> None:
    settings = made(tansu, prefix)

    async def work() -> dict[TopicPartition, int]:
        await ensure_topics(settings)
        producer = AIOKafkaProducer(**client_arguments(settings))
        await producer.start()
        try:
            batch = producer.create_batch()
            for _ in range(50):
                batch.append(timestamp=None, key=b"k", value=b"v")
            await (await producer.send_batch(batch, f"{prefix}-events", partition=1))
        finally:
            await producer.stop()
        parts = [TopicPartition(f"{prefix}-events", number) for number in range(3)]
        return await fetched_ends(settings, parts)

    ends = asyncio.run(work())
    assert [ends[TopicPartition(f"{prefix}-events", number)] for number in range(3)] == [0, 50, 0]


def test_check_takes_no_longer_than_a_moment(tansu: str, prefix: str) -> None:
    begun = datetime.datetime.now(datetime.UTC)
    asyncio.run(describe_topics(made(tansu, prefix)))
    assert datetime.datetime.now(datetime.UTC) - begun < datetime.timedelta(seconds=20)


class NeverStarts(AIOKafkaProducer):
    """A transactional producer that has a moment's trouble, as while a broker starts."""

    async def start(self) -> None:
        raise UnknownError


@pytest.mark.kafka
def test_trouble_is_not_taken_for_a_broker_without_transactions(
    kafka: KafkaBroker, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "AIOKafkaProducer", NeverStarts)
    with pytest.raises(BrokerError, match=r"have transactions, and give no producer.*try again"):
        asyncio.run(cluster.supports_transactions(made(kafka.address, prefix)))
