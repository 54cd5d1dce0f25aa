"""Events are sent keyed, confirmed and counted; recommendations are watched."""

import asyncio
import socket
import time
import zlib
from contextlib import aclosing

import pytest
from aiokafka.partitioner import DefaultPartitioner

from tests.brokers import KafkaBroker
from tracker.demo.processes import free_port
from tracker.events.lines import Line
from tracker.kafka import cluster
from tracker.kafka.client import Received, Sent, read_topic, send_events, watch
from tracker.kafka.cluster import BrokerError, TopicError, topics_of
from tracker.kafka.connect import producer
from tracker.kafka.partitioner import PartitionerError
from tracker.kafka.topics import ensure_topics
from tracker.settings import Settings, load_settings

GOOD = b'{"user_id":"u%d","item_id":"i1","kind":"click","timestamp":1000}'


def lines(*values: bytes) -> list[Line]:
    return [Line(f"line {number}", value) for number, value in enumerate(values, 1)]


async def prepared(address: str, name: str, partitions: int = 3) -> Settings:
    settings = load_settings({}, brokers=address, name=name, event_partitions=partitions)
    await ensure_topics(settings)
    return settings


async def everything(settings: Settings, topic: str) -> list[Received]:
    async with aclosing(read_topic(settings, topic)) as records:
        return [record async for record in records]


def send(
    address: str, name: str, *values: bytes, check: bool = True
) -> tuple[Sent, list[Received]]:
    async def go() -> tuple[Sent, list[Received]]:
        settings = await prepared(address, name)
        sent = await send_events(settings, iter(lines(*values)), check=check)
        return sent, await everything(settings, topics_of(settings).events)

    return asyncio.run(go())


def test_events_are_keyed_by_their_user_in_the_partition_of_kafkas_own_clients(
    tansu: str, prefix: str
) -> None:
    values = [GOOD % (number % 7) for number in range(50)]
    sent, stored = send(tansu, prefix, *values)
    assert (sent.sent, sent.confirmed, sent.bad) == (50, 50, 0)
    assert sorted(record.value or b"" for record in stored) == sorted(values)
    partitioner = DefaultPartitioner()
    for record in stored:
        assert record.key is not None
        assert record.key.decode() in (record.value or b"").decode()
        assert record.partition == partitioner(record.key, [0, 1, 2], [0, 1, 2])


def test_events_of_a_user_stay_in_order(tansu: str, prefix: str) -> None:
    values = [
        b'{"user_id":"u","item_id":"i%d","kind":"click","timestamp":1}' % n for n in range(300)
    ]
    _, stored = send(tansu, prefix, *values)
    assert [record.value for record in stored] == values


def test_bad_lines_are_named_counted_and_not_sent(tansu: str, prefix: str) -> None:
    async def go() -> tuple[Sent, list[tuple[str, str]], int]:
        settings = await prepared(tansu, prefix)
        bad: list[tuple[str, str]] = []
        sent = await send_events(
            settings,
            iter(lines(GOOD % 1, b"{oops", b'{"user_id":"u"}', GOOD % 2)),
            on_bad=lambda line, why: bad.append((line.place, why.split(":")[0])),
        )
        return sent, bad, len(await everything(settings, topics_of(settings).events))

    sent, bad, stored = asyncio.run(go())
    assert (sent.sent, sent.confirmed, sent.bad, stored) == (2, 2, 2, 2)
    assert bad == [("line 2", "not_json"), ("line 3", "missing_field")]


def test_unchecked_lines_are_sent_as_they_are(tansu: str, prefix: str) -> None:
    sent, stored = send(tansu, prefix, b"{oops", b'{"user_id":"u"}', b"[1]", check=False)
    assert (sent.sent, sent.confirmed, sent.bad) == (3, 3, 3)
    assert sorted((record.key or b"", record.value) for record in stored) == [
        (b"", b"[1]"),
        (b"", b"{oops"),
        (b"u", b'{"user_id":"u"}'),
    ]


def test_rate_spaces_the_events(tansu: str, prefix: str) -> None:
    async def go() -> Sent:
        settings = await prepared(tansu, prefix)
        return await send_events(settings, iter(lines(*[GOOD % 1] * 40)), rate=100)

    sent = asyncio.run(go())
    assert sent.confirmed == 40
    assert 0.35 <= sent.seconds < 30


def test_each_confirmed_event_tells_where_it_is(tansu: str, prefix: str) -> None:
    async def go() -> list[tuple[str, int, float]]:
        settings = await prepared(tansu, prefix, partitions=1)
        found: list[tuple[str, int, float]] = []
        await send_events(
            settings,
            iter(lines(GOOD % 1, GOOD % 2)),
            on_confirmed=lambda line, at: found.append((line.place, at.offset, at.appended)),
        )
        return found

    found = asyncio.run(go())
    assert [entry[:2] for entry in found] == [("line 1", 0), ("line 2", 1)]
    assert all(abs(entry[2] - time.time()) < 60 for entry in found)


def test_topic_that_does_not_exist_is_named_with_the_remedy(tansu: str, prefix: str) -> None:
    settings = load_settings({}, brokers=tansu, name=prefix)
    with pytest.raises(TopicError, match=f"{prefix}-events does not exist.*tracker topics"):
        asyncio.run(send_events(settings, iter(lines(GOOD % 1))))


@pytest.mark.parametrize("work", ["send", "watch"])
def test_broker_that_is_away_is_one_line_within_fifteen_seconds(work: str) -> None:
    settings = load_settings({}, brokers=f"127.0.0.1:{free_port()}", name="away")

    async def go() -> None:
        if work == "send":
            await send_events(settings, iter(lines(GOOD % 1)))
        else:
            await anext(watch(settings))

    started = time.monotonic()
    with pytest.raises(BrokerError, match="TRACKER_BROKERS") as caught:
        asyncio.run(go())
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 15


def recommendation(user_id: str, offset: int) -> bytes:
    return b'{"id":"t-0-%d","user_id":"%s"}' % (offset, user_id.encode())


@pytest.mark.parametrize(
    ("user_id", "from_beginning", "expected"),
    [(None, True, ["a", "b", "a"]), ("a", True, ["a", "a"]), (None, False, ["a"])],
)
def test_watching_gives_the_records_asked_for(
    tansu: str, prefix: str, user_id: str | None, from_beginning: bool, expected: list[str]
) -> None:
    async def go() -> list[str]:
        settings = await prepared(tansu, prefix, partitions=1)
        topic = topics_of(settings).recommendations
        ready = asyncio.Event()

        async def write(users: str) -> None:
            async with producer(settings) as client:
                for offset, user in enumerate(users):
                    value = recommendation(user, offset)
                    await client.send_and_wait(topic, value, key=user.encode())

        await write("ab")
        found: list[str] = []

        async def follow() -> None:
            records = watch(settings, user_id, from_beginning, ready.set)
            async with aclosing(records):
                async for record in records:
                    found.append((record.key or b"").decode())
                    if len(found) == len(expected):
                        return

        following = asyncio.create_task(follow())
        await asyncio.wait_for(ready.wait(), 20)
        await write("a")
        await asyncio.wait_for(following, 20)
        return found

    assert asyncio.run(go()) == expected


@pytest.mark.kafka
def test_records_of_an_aborted_transaction_are_not_read(kafka: KafkaBroker, prefix: str) -> None:
    async def go() -> list[bytes | None]:
        settings = await prepared(kafka.address, prefix, partitions=1)
        topic = topics_of(settings).users_changelog
        from aiokafka import AIOKafkaProducer

        async with AIOKafkaProducer(
            bootstrap_servers=kafka.address, transactional_id=prefix
        ) as client:
            await client.begin_transaction()
            await client.send_and_wait(topic, b"kept", key=b"k")
            await client.commit_transaction()
            await client.begin_transaction()
            await client.send_and_wait(topic, b"aborted", key=b"k")
            await client.abort_transaction()
        return [record.value for record in await everything(settings, topic)]

    assert asyncio.run(go()) == [b"kept"]


def test_broker_that_answers_nothing_is_one_line_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "REQUEST_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as frozen:  # it takes connections, as a broker does
        settings = load_settings({}, brokers=f"127.0.0.1:{frozen.getsockname()[1]}", name="frozen")
        with pytest.raises(BrokerError) as caught:
            asyncio.run(send_events(settings, iter(lines(GOOD % 1))))
    assert "\n" not in str(caught.value)
    assert "TRACKER_BROKERS" in str(caught.value)


def test_events_go_where_the_configured_partitioner_puts_them(tansu: str, prefix: str) -> None:
    values = [GOOD % number for number in range(30)]

    async def go() -> list[Received]:
        settings = await prepared(tansu, prefix)
        crc32 = load_settings({}, brokers=tansu, name=prefix, partitioner="crc32")
        assert (await send_events(crc32, iter(lines(*values)))).confirmed == 30
        return await everything(settings, topics_of(settings).events)

    for record in asyncio.run(go()):
        assert record.partition == zlib.crc32(record.key or b"") % 3


def test_events_are_not_sent_by_a_rule_that_is_not_known(tansu: str, prefix: str) -> None:
    async def go() -> None:
        await prepared(tansu, prefix)
        given = load_settings({}, brokers=tansu, name=prefix, partitioner="given")
        await send_events(given, iter(lines(GOOD % 1)))

    with pytest.raises(PartitionerError, match="TRACKER_PARTITIONER is given"):
        asyncio.run(go())
