"""The doctor says OK, or what to do, for everything a worker needs."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic
from confluent_kafka import Producer

from tests.brokers import KafkaBroker
from tests.shop import build_shop
from tracker.cli.doctor import (
    Check,
    check_all,
    check_artifact,
    check_clock,
    check_codec,
    check_data_dir,
    check_device,
    check_format,
    check_kinds,
    check_latest,
    check_settings,
    check_topics,
)
from tracker.demo.processes import free_port
from tracker.kafka.client import Received, read_topic
from tracker.kafka.cluster import topics_of
from tracker.kafka.connect import admin_client, producer
from tracker.kafka.topics import TopicReport, ensure_topics
from tracker.settings import Settings, load_settings


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artifacts")
    build_shop(root)
    return root


def settings(**values: object) -> Settings:
    return load_settings({}, **values)


def examine(environ: dict[str, str], **overrides: Any) -> dict[str, Check]:
    return {check.name: check for check in asyncio.run(check_all(environ, **overrides))}


def test_all_is_well_where_all_is_there_and_missing_guarantees_are_noted(
    tansu: str, prefix: str, artifacts: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"brokers": tansu, "name": prefix, "artifacts": str(artifacts)}
    asyncio.run(ensure_topics(settings(**given)))
    told: list[str] = []
    found = asyncio.run(
        check_all({}, lambda check: told.append(check.name), data_dir=tmp_path, **given)
    )
    by_name = {check.name: check for check in found}
    assert [check for check in found if check.failed] == []
    assert told == [check.name for check in found]
    assert by_name["transactions"].state == "note"
    assert "count them twice" in by_name["transactions"].text
    assert "no transactions" in by_name["clock"].text
    assert "300 items" in by_name["artifact"].text
    assert {name for name in by_name if name.startswith("topic ")} == {
        "topic events",
        "topic recommendations",
        "topic rejected",
        "topic items",
        "topic user changelog",
        "topic item changelog",
        "topic hand-over",
        "topic requests to forget",
    }


def test_keys_of_users_are_told_and_fail_without_transactions(
    tansu: str, prefix: str, artifacts: Path, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("k" * 32)
    given: dict[str, Any] = {
        "brokers": tansu,
        "name": prefix,
        "artifacts": str(artifacts),
        "pseudonym_key_file": tmp_path / "key",
        "user_keys": True,
    }
    asyncio.run(ensure_topics(settings(**given)))
    found = examine({}, **given)
    assert "each user has a key" in found["pseudonyms"].text
    assert "TRACKER_USER_KEYS needs" in found["transactions"].text
    assert found["transactions"].failed
    assert found["topic key changelog"].state == "ok"


def test_missing_topics_fail_with_the_command_that_creates_them(
    tansu: str, prefix: str, artifacts: Path
) -> None:
    found = examine({}, brokers=tansu, name=prefix, artifacts=str(artifacts))
    assert "run 'tracker topics'" in found["topic events"].text
    assert found["topic events"].failed


@pytest.mark.usefixtures("no_settling")
def test_broker_that_is_away_keeps_nothing_else_from_being_checked(artifacts: Path) -> None:
    found = examine({}, brokers=f"127.0.0.1:{free_port()}", artifacts=str(artifacts))
    assert found["broker"].failed
    assert "TRACKER_BROKERS" in found["broker"].text
    assert found["artifact"].state == "ok"
    assert "transactions" not in found


def test_unknown_setting_is_the_only_line() -> None:
    found = examine({"TRACKER_KAY": "5"})
    assert list(found) == ["settings"]
    assert found["settings"].failed
    assert "TRACKER_KAY" in found["settings"].text


def test_more_copies_than_brokers_fail(tansu: str, prefix: str, artifacts: Path) -> None:
    found = examine({}, brokers=tansu, name=prefix, artifacts=str(artifacts), replication_factor=3)
    assert found["broker"].failed
    assert "TRACKER_REPLICATION_FACTOR=3" in found["broker"].text


def test_settings_are_told_without_the_password() -> None:
    found = check_settings(
        settings(
            k=20,
            security_protocol="SASL_PLAINTEXT",
            sasl_username="me",
            sasl_password="not-for-your-eyes",
        )
    )
    assert "TRACKER_K=20" in found.text
    assert "not-for-your-eyes" not in found.text
    assert check_settings(settings()).text == "all at their defaults"


def test_table_of_weights_is_read(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text("replace = true\n[kinds]\nwave = 1.5\n")
    bad.write_text("[kinds]\nwave = 'much'\n")
    assert "built-in" in check_kinds(settings()).text
    assert check_kinds(settings(kinds_file=good)).text == f"1 kinds from {good}"
    found = check_kinds(settings(kinds_file=bad))
    assert found.failed
    assert "TRACKER_KINDS_FILE" in found.text


def test_a_format_of_events_that_is_not_known_fails_in_one_line(tmp_path: Path) -> None:
    assert check_format(settings()).state == "ok"
    assert check_format(settings(events_format="ga4")).state == "ok"
    (tmp_path / "bad.toml").write_text("user = [")
    for name, named in (("segmnt", "Did you mean segment?"), (f"{tmp_path}/bad.toml", "not TOML")):
        found = check_format(settings(events_format=name))
        assert found.failed
        assert named in found.text
        assert "TRACKER_EVENTS_FORMAT" in found.text
        assert "\n" not in found.text


def test_data_directory_below_a_file_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert check_data_dir(settings(data_dir=tmp_path / "new" / "one")).state == "ok"
    found = check_data_dir(settings(data_dir=tmp_path / "file" / "data"))
    assert found.failed
    assert "TRACKER_DATA_DIR" in found.text


def test_artifacts_that_are_not_there_fail_in_one_line(tmp_path: Path) -> None:
    found = check_artifact(settings(artifacts=str(tmp_path / "none")))
    assert found[0].failed
    assert "\n" not in found[0].text


def test_gpu_that_is_asked_for_and_missing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    found = check_device(settings(device="cuda"))
    assert found.failed
    assert "TRACKER_DEVICE" in found.text
    assert check_device(settings(device="auto")).state == "ok"


def test_problems_of_a_topic_fail_and_notes_do_not() -> None:
    wrong = TopicReport("events", "t-events", "wrong", 2, "compact", "", ["is wrong"])
    noted = TopicReport("items", "t-items", "ok", 3, "delete", "", [], ["is odd"])
    first, second = check_topics([wrong, noted])
    assert (first.state, first.text) == ("fail", "t-events is wrong")
    assert (second.state, second.text) == ("note", "t-items: 3 partitions; is odd")


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("shift", "state", "text"),
    [
        (0.0, "ok", "give or take"),
        (60.0, "note", "s behind this machine's; let NTP"),
        (-3600.0, "fail", "ahead of this machine's: events of now can be rejected"),
    ],
)
def test_the_brokers_clock_is_compared(
    kafka: KafkaBroker, prefix: str, shift: float, state: str, text: str
) -> None:
    given = settings(brokers=kafka.address, name=prefix, event_partitions=1, item_partitions=1)

    async def compare() -> tuple[Check, list[Received]]:
        reports = await ensure_topics(given)
        found = await check_clock(given, reports, True, lambda: time.time() + shift)
        return found, [one async for one in read_topic(given, topics_of(given).rejected)]

    found, rejected = asyncio.run(compare())
    assert found.state == state
    assert text in found.text
    assert rejected == []  # the probe is in no committed record


@pytest.mark.kafka
def test_a_clock_that_cannot_be_compared_is_noted_with_the_reason(
    kafka: KafkaBroker, prefix: str
) -> None:
    given = settings(brokers=kafka.address, name=prefix, event_partitions=1, item_partitions=1)

    async def compare() -> tuple[Check, Check]:
        before = await check_clock(given, await ensure_topics(given, create=False), True)
        async with admin_client(given) as admin:
            await admin.create_topics([NewTopic(topics_of(given).rejected, 1, 1)])
        return before, await check_clock(given, await ensure_topics(given), True)

    missing, created = asyncio.run(compare())
    assert (missing.state, created.state) == ("note", "note")
    assert "does not exist" in missing.text
    assert "CreateTime" in created.text


def test_missing_codec_fails_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_codec().state == "ok"
    monkeypatch.setattr("aiokafka.codec.cramjam", None)
    check = check_codec()
    assert check.failed
    assert "snappy cannot be read" in check.text
    assert "pip install cramjam" in check.text


def test_the_latest_events_are_checked_as_the_worker_does(tansu: str, prefix: str) -> None:
    given = settings(brokers=tansu, name=prefix, event_partitions=2)
    fields = '{"user_id":"u","item_id":1,"kind":"%s","timestamp":1700000000%s}'

    async def check(*values: str) -> Check:
        async with producer(given, compression_type="lz4") as client:
            for value in values:
                await client.send_and_wait(topics_of(given).events, value.encode(), key=b"u")
        return (await check_latest(given, await ensure_topics(given, create=False)))[-1]

    asyncio.run(ensure_topics(given))
    assert asyncio.run(check()).text == "no record yet"
    fine = asyncio.run(check(fields % ("view", ""), fields % ("view", ',"colour":"red"')))
    assert fine.state == "ok"
    assert "the latest 2 records: 2 are events" in fine.text
    assert "1 unknown fields are ignored: colour" in fine.text
    odd = asyncio.run(check(fields % ("clcik", ""), fields % ("view", '000,"scen":"home"'), "u,i"))
    assert odd.state == "note"
    assert "the latest 5 records: 3 are events" in odd.text
    assert "`scen` looks like `scene`" in odd.text
    assert "timestamps are taken as ms" in odd.text
    assert "1 unknown_kind, 1 not_json; for example unknown_kind: kind 'clcik'" in odd.text
    assert "did you mean click?" in odd.text


def looked_at(given: Settings) -> Check:
    return asyncio.run(look_at(given))


async def look_at(given: Settings) -> Check:
    return (await check_latest(given, await ensure_topics(given, create=False)))[0]


EVENT = b'{"user_id":"%s","item_id":"i1","kind":"click","timestamp":1000}'


def written(address: str, topic: str, keys: list[str | None], **options: str) -> None:
    """Write events as clients on librdkafka do."""
    client = Producer({"bootstrap.servers": address, **options})
    for number, key in enumerate(keys):
        client.produce(topic, EVENT % (key or f"user-{number}").encode(), key=key)
    assert client.flush(20) == 0


def test_the_partitioner_that_put_the_events_where_they_are_is_found(
    tansu: str, prefix: str
) -> None:
    given = settings(brokers=tansu, name=prefix, event_partitions=5)
    assert looked_at(given).text == "there is no events topic to look at"
    asyncio.run(ensure_topics(given))
    assert looked_at(given).text == "murmur2; there are no events to look at yet"
    users: list[str | None] = [f"user-{number}" for number in range(50)]
    topic = topics_of(given).events
    written(tansu, topic, users, partitioner="murmur2_random")
    assert looked_at(given) == Check(
        "partitioner", "ok", "murmur2 puts the latest 50 events where they are"
    )
    own = settings(brokers=tansu, name=prefix, partitioner="given")
    assert looked_at(own).state == "ok"
    assert "murmur2 fits" in looked_at(own).text
    written(tansu, topic, users)
    found = looked_at(given)
    assert found.state == "note"
    assert "of the latest 100 events" in found.text
    assert "of 100 that are keyed by their user are not where murmur2 puts them" in found.text
    assert "(crc32 puts them there, user user-" in found.text
    assert "is in several partitions" in found.text
    assert "set TRACKER_PARTITIONER=crc32 if it is that of all your producers" in found.text
    assert "\n" not in found.text
    assert "is in several partitions" in looked_at(own).text


def test_where_all_events_are_of_another_partitioner_its_setting_is_named(
    tansu: str, prefix: str
) -> None:
    given = settings(brokers=tansu, name=prefix, event_partitions=5)
    asyncio.run(ensure_topics(given))
    users: list[str | None] = [f"user-{number}" for number in range(50)]
    written(tansu, topics_of(given).events, users, partitioner="fnv1a_random")
    assert "(fnv1a puts them there)" in looked_at(given).text
    assert "fnv1a is the rule of Sarama" in looked_at(given).text
    right = settings(brokers=tansu, name=prefix, partitioner="fnv1a")
    assert looked_at(right).state == "ok"


def test_events_without_a_key_or_with_another_are_noted(tansu: str, prefix: str) -> None:
    given = settings(brokers=tansu, name=prefix, event_partitions=1)
    asyncio.run(ensure_topics(given))
    topic = topics_of(given).events
    written(tansu, topic, [None, None, "ann"])
    client = Producer({"bootstrap.servers": tansu})
    client.produce(topic, EVENT % b"ann", key='"ann"')
    client.produce(topic, b"{", key="not an event")
    assert client.flush(20) == 0
    assert looked_at(given) == Check(
        "partitioner",
        "note",
        "of the latest 5 events, 2 have no key: set it to the user_id; 1 have a key that is not"
        " their user: set it to that; events in the wrong partition are handed on, which takes up"
        " to a second more; `tracker merge-states` joins states that lie in two",
    )
    off = settings(brokers=tansu, name=prefix, hand_over="off")
    assert looked_at(off).text.endswith("a user in two partitions has two states")


@pytest.mark.kafka
def test_unfinished_transaction_of_a_producer_is_named(kafka: KafkaBroker, prefix: str) -> None:
    given = settings(brokers=kafka.address, name=prefix, event_partitions=1)
    asyncio.run(ensure_topics(given))
    topic = topics_of(given).events

    async def look() -> tuple[Check, Check]:
        async with AIOKafkaProducer(
            bootstrap_servers=kafka.address, transactional_id=f"{prefix}-other"
        ) as client:
            await client.begin_transaction()
            for _ in range(3):
                await client.send_and_wait(topic, EVENT % b"u", key=b"u", partition=0)
            open_one = (await check_latest(given, await ensure_topics(given, create=False)))[1]
            await client.commit_transaction()
        done = (await check_latest(given, await ensure_topics(given, create=False)))[1]
        return open_one, done

    unfinished, done = asyncio.run(look())
    assert unfinished.name == done.name == "unfinished transactions"
    assert unfinished.state == "note"
    assert f"{topic}-0 has 3 records from offset 0 on, the first of " in unfinished.text
    assert "commits or aborts" in unfinished.text
    assert done == Check(done.name, "ok", f"no record of {topic} waits for one")
