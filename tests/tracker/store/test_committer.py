"""Committer and fenced producers, on a broker without transactions and on Apache Kafka."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    NotEnoughReplicasError,
    ProducerFenced,
)
from faust.types import TP
from rocksdict import Options, Rdict

from tests.brokers import KafkaBroker
from tracker.kafka import producers
from tracker.kafka.cluster import (
    BrokerError,
    Cluster,
    TopicInfo,
    client_arguments,
    supports_transactions,
    topics_of,
)
from tracker.kafka.outbox import Outbox, Record, SendError
from tracker.kafka.patience import Patience
from tracker.kafka.producers import fenced_producer, plain_producer
from tracker.kafka.topics import ensure_topics
from tracker.settings import Settings, load_settings
from tracker.store.committer import (
    CommitAbortedError,
    CommitRefusedError,
    Committer,
    CommitUnknownError,
    FencedError,
)
from tracker.store.database import OFFSET_KEY
from tracker.worker.plane import Plane

RECORDS: list[tuple[bytes, bytes | None]] = [
    (b"ua", b"1"),
    (b"ub", b"2"),
    (b"gone", None),
    (b"p", b"3"),
]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Any]:
    found = Rdict(str(tmp_path / "db"), options=Options(raw_mode=True))
    yield found
    found.close()


def made(address: str, name: str) -> Settings:
    return load_settings({}, brokers=address, name=name, event_partitions=2, item_partitions=2)


def run(settings: Settings, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def all_of_it() -> None:
        await ensure_topics(settings)
        await work()

    asyncio.run(all_of_it())


async def read(settings: Settings, topic: str, count: int, *, partition: int = 0) -> list[Any]:
    consumer = AIOKafkaConsumer(
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
        **client_arguments(settings),
    )
    await consumer.start()
    try:
        part = TopicPartition(topic, partition)
        consumer.assign([part])
        found: list[Any] = []
        async with asyncio.timeout(60.0):
            while len(found) < count:
                batches = await consumer.getmany(timeout_ms=200)
                found += batches.get(part, [])
        return found
    finally:
        await consumer.stop()


async def committer(settings: Settings, *, transactions: bool) -> Committer:
    producer = await fenced_producer(settings, "users", 0, transactions)
    return Committer(producer, transactions, f"{settings.name}-users-changelog", 0)


def check_commit(settings: Settings, database: Any, *, transactions: bool) -> None:
    async def work() -> None:
        database.put(b"gone", b"old")
        one = await committer(settings, transactions=transactions)
        try:
            block = Record(f"{settings.name}-items", 1, None, b"block")
            await one.write(database, RECORDS, [block])
            await one.write(database, [(b"p", b"4")], [])
        finally:
            await one.stop()
        rows = await read(settings, f"{settings.name}-users-changelog", 5)
        assert [(row.key, row.value) for row in rows] == [*RECORDS, (b"p", b"4")]
        blocks = await read(settings, f"{settings.name}-items", 1, partition=1)
        assert [row.value for row in blocks] == [b"block"]
        assert database.get(b"ua") == b"1"
        assert database.get(b"gone") is None
        assert database.get(b"p") == b"4"
        assert int(database.get(OFFSET_KEY)) == rows[-1].offset

    run(settings, work)


def test_commit_without_transactions_brings_rows_to_changelog_and_database(
    tansu: str, prefix: str, database: Any
) -> None:
    check_commit(made(tansu, prefix), database, transactions=False)


@pytest.mark.kafka
def test_commit_brings_rows_and_item_events_to_where_they_belong(
    kafka: KafkaBroker, prefix: str, database: Any
) -> None:
    check_commit(made(kafka.address, prefix), database, transactions=True)


@pytest.mark.kafka
def test_commit_of_more_than_one_batch_knows_the_offset_of_its_last_row(
    kafka: KafkaBroker, prefix: str, database: Any
) -> None:
    settings = made(kafka.address, prefix)

    async def work() -> None:
        one = await committer(settings, transactions=True)
        try:
            rows = [(f"u{n}".encode(), bytes(3000)) for n in range(400)]
            await one.write(database, [*rows, (b"p", b"1")], [])
        finally:
            await one.stop()
        found = await read(settings, f"{settings.name}-users-changelog", 401)
        assert int(database.get(OFFSET_KEY)) == found[-1].offset

    run(settings, work)


@pytest.mark.kafka
def test_owner_that_was_replaced_can_commit_nothing_more(
    kafka: KafkaBroker, prefix: str, database: Any
) -> None:
    settings = made(kafka.address, prefix)

    async def work() -> None:
        old = await committer(settings, transactions=True)
        await old.write(database, RECORDS, [])
        new = await committer(settings, transactions=True)
        try:
            with pytest.raises(FencedError, match=r"another worker owns .*-0 now"):
                await old.write(database, [(b"ua", b"late"), (b"p", b"9")], [])
            await new.write(database, [(b"p", b"5")], [])
        finally:
            await old.stop()
            await new.stop()
        rows = await read(settings, f"{settings.name}-users-changelog", 5)
        assert [row.value for row in rows if row.key == b"ua"] == [b"1"]
        assert database.get(b"ua") == b"1"

    run(settings, work)


@pytest.mark.kafka
def test_owner_that_learns_in_the_middle_of_a_commit_that_it_was_replaced_says_so(
    kafka: KafkaBroker, prefix: str, database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = made(kafka.address, prefix)

    async def work() -> None:
        former = await committer(settings, transactions=True)
        owner = await committer(settings, transactions=True)
        send = former._send

        async def answered(records: list[Record]) -> None:
            await send(records)
            while former._producer._txn_manager.is_in_transaction():
                await asyncio.sleep(0.01)

        monkeypatch.setattr(former, "_send", answered)
        block = Record(f"{settings.name}-items", 1, None, b"block")
        try:
            with pytest.raises(FencedError):
                await former.write(database, RECORDS, [block])
        finally:
            await former.stop()
            await owner.stop()

    run(settings, work)
    assert database.get(b"ua") is None


@pytest.mark.kafka
def test_transaction_that_fails_is_aborted_leaves_nothing_and_can_be_tried_again(
    kafka: KafkaBroker, prefix: str, database: Any
) -> None:
    settings = made(kafka.address, prefix)

    async def work() -> None:
        one = await committer(settings, transactions=True)
        send = one._producer.send_batch

        failures: list[KafkaError] = [NotEnoughReplicasError(), MessageSizeTooLargeError()]

        async def fail(batch: Any, topic: str, *, partition: int) -> Any:
            future = await send(batch, topic, partition=partition)
            if topic.endswith("items"):
                await future
                failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                failed.set_exception(failures.pop(0))
                return failed
            return future

        one._producer.send_batch = fail
        block = Record(f"{settings.name}-items", 0, None, b"block")
        try:
            with pytest.raises(CommitAbortedError, match="NotEnoughReplicasError"):
                await one.write(database, RECORDS, [block])
            with pytest.raises(CommitRefusedError, match=r"max\.message\.bytes"):
                await one.write(database, RECORDS, [block])
            assert database.get(b"ua") is None
            one._producer.send_batch = send
            await one.write(database, [(b"p", b"6")], [])
        finally:
            await one.stop()
        rows = await read(settings, f"{settings.name}-users-changelog", 1)
        assert [row.value for row in rows] == [b"6"]

    run(settings, work)


class Lost:
    """A producer whose connection is lost at the commit."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def begin_transaction(self) -> None:
        pass

    async def commit_transaction(self) -> None:
        raise KafkaConnectionError("lost")


def test_commit_whose_outcome_nobody_knows_is_named(tansu: str, prefix: str, database: Any) -> None:
    settings = made(tansu, prefix)

    async def work() -> None:
        producer = await fenced_producer(settings, "users", 0, False)
        one = Committer(
            Lost(producer),
            True,
            f"{prefix}-users-changelog",
            0,
        )
        try:
            with pytest.raises(
                CommitUnknownError,
                match=r"a commit of .*-users-changelog-0 \(.*lost\), so it may or may not",
            ):
                await one.write(database, RECORDS, [])
        finally:
            await one.stop()
        assert database.get(b"ua") is None

    run(settings, work)


def test_embedded_broker_has_no_transactions(
    tansu: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert asyncio.run(supports_transactions(made(tansu, prefix))) is False
    assert "InitProducerId" not in caplog.text


@pytest.mark.kafka
def test_kafka_has_transactions(kafka: KafkaBroker, prefix: str) -> None:
    assert asyncio.run(supports_transactions(made(kafka.address, prefix))) is True


def test_producer_without_a_broker_gives_up_after_a_while(
    prefix: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(producers, "UNREACHABLE_SECONDS", 1.0)
    monkeypatch.setattr(producers, "RETRY_SECONDS", 1.1)
    with pytest.raises(BrokerError, match="the producer of recommendations cannot start"):
        asyncio.run(plain_producer(made("127.0.0.1:1", prefix), True))
    assert "cannot start yet, retrying in 1.1 s" in caplog.text


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """Apache Kafka that forgets transactional ids after a second."""
    extra = (
        "transactional.id.expiration.ms=1000\n"
        "transaction.remove.expired.transaction.cleanup.interval.ms=300\n"
    )
    with KafkaBroker(tmp_path_factory.mktemp("forgetful"), extra=extra) as broker:
        yield broker


def short_transactions(address: str, name: str) -> Settings:
    return load_settings(
        {}, brokers=address, name=name, event_partitions=2, item_partitions=2,
        transaction_timeout_seconds=2.0,
    )  # fmt: skip


def plane_of(settings: Settings) -> Plane:
    topics = topics_of(settings)
    info = {topics.events: TopicInfo(topics.events, 2, "")}
    context = SimpleNamespace(settings=settings, cluster=Cluster(topics, info, True))
    return Plane(context)  # type: ignore[arg-type]


@pytest.mark.kafka
def test_owner_whose_transactional_id_has_expired_begins_a_new_producer_and_tries_again(
    forgetful: KafkaBroker, prefix: str, database: Any
) -> None:
    settings = made(forgetful.address, prefix)
    before: list[float] = []  # commits before which the brokers had not forgotten the id yet

    async def commit_seldom(one: Committer) -> None:
        for seconds in (2.5, 5.0, 10.0, 20.0):
            await asyncio.sleep(seconds)  # nothing changes
            await one.write(database, [(b"p", b"6")], [])
            before.append(seconds)

    async def work() -> None:
        one = await plane_of(settings)._committer(TP(f"{prefix}-events", 0))
        try:
            await one.write(database, RECORDS, [])
            with pytest.raises(CommitAbortedError, match=r"forgotten.*a new producer has begun"):
                await commit_seldom(one)
            await one.write(database, [(b"ua", b"2"), (b"p", b"7")], [])
        finally:
            await one.stop()
        rows = await read(settings, f"{prefix}-users-changelog", 6 + len(before))
        assert [row.value for row in rows if row.key == b"ua"] == [b"1", b"2"]
        assert database.get(b"p") == b"7"

    run(settings, work)


@pytest.mark.kafka
def test_frozen_owner_does_not_begin_again_where_another_has_committed_since(
    forgetful: KafkaBroker, prefix: str, database: Any, tmp_path: Path
) -> None:
    settings = made(forgetful.address, prefix)
    other_database = Rdict(str(tmp_path / "other"), options=Options(raw_mode=True))

    async def work() -> None:
        place = TP(f"{prefix}-events", 0)
        frozen = await plane_of(settings)._committer(place)
        await frozen.write(database, RECORDS, [])
        await asyncio.sleep(2.5)
        owner = await plane_of(settings)._committer(place)  # begins the id that was forgotten
        try:
            await owner.write(other_database, [(b"p", b"8")], [])
            with pytest.raises(FencedError, match="another worker owns"):
                await frozen.write(database, [(b"ua", b"late"), (b"p", b"7")], [])
        finally:
            await owner.stop()
            await frozen.stop()
        rows = await read(settings, f"{prefix}-users-changelog", 5)
        assert [row.value for row in rows if row.key == b"ua"] == [b"1"]

    run(settings, work)
    other_database.close()


async def is_ended(settings: Settings) -> None:
    """Wait until the brokers have ended the transaction whose rows are in the changelog."""
    consumer = AIOKafkaConsumer(isolation_level="read_committed", **client_arguments(settings))
    await consumer.start()
    try:
        part = TopicPartition(f"{settings.name}-users-changelog", 0)
        consumer.assign([part])
        end = None
        while end is None or consumer.last_stable_offset(part) != end:
            await consumer.getmany(timeout_ms=100)
            end = consumer.highwater(part)
    finally:
        await consumer.stop()


async def outlasted(
    settings: Settings, patience: Patience, database: Any, until: Callable[[], Awaitable[object]]
) -> Committer:
    """Return a committer whose next commit lasts longer than something else.

    With `lambda: 1.0` the brokers have answered for a second only, with `lambda: 0.0` they do not
    answer: there was a silence.
    """
    plane = plane_of(settings)
    plane._patience = patience
    found = await plane._committer(TP(f"{settings.name}-events", 0))
    await found.write(database, RECORDS, [])
    send, slow = found._producer.send_batch, [True]

    async def late(batch: Any, topic: str, *, partition: int) -> Any:
        answer = await send(batch, topic, partition=partition)
        if slow.pop() if slow else False:
            await asyncio.shield(answer)  # the transaction has begun
            await until()
        return answer

    found._producer.send_batch = late
    return found


@pytest.mark.kafka
def test_owner_whose_transaction_ended_while_no_broker_answered_tries_again(
    kafka: KafkaBroker, prefix: str, database: Any
) -> None:
    settings = short_transactions(kafka.address, prefix)

    async def work() -> None:
        over = partial(is_ended, settings)
        one = await outlasted(settings, Patience(60.0, lambda: 1.0), database, over)
        try:
            with pytest.raises(CommitAbortedError, match=r"no broker answered.*new producer"):
                await one.write(database, [(b"ua", b"2"), (b"p", b"7")], [])
            await one.write(database, [(b"ua", b"2"), (b"p", b"7")], [])
        finally:
            await one.stop()
        rows = await read(settings, f"{prefix}-users-changelog", 6)
        assert [row.value for row in rows if row.key == b"ua"] == [b"1", b"2"]

    run(settings, work)


@pytest.mark.kafka
def test_owner_whose_transaction_ended_ends_where_the_brokers_had_answered(
    kafka: KafkaBroker, prefix: str, database: Any
) -> None:
    settings = short_transactions(kafka.address, prefix)

    async def work() -> None:
        one = await outlasted(settings, Patience(60.0), database, partial(is_ended, settings))
        try:
            with pytest.raises(FencedError):
                await one.write(database, [(b"ua", b"2"), (b"p", b"7")], [])
        finally:
            await one.stop()

    run(settings, work)


@pytest.mark.kafka
def test_owner_after_a_silence_does_not_go_on_where_another_has_committed_since(
    kafka: KafkaBroker, prefix: str, database: Any, tmp_path: Path
) -> None:
    settings = made(kafka.address, prefix)
    begun, written = asyncio.Event(), asyncio.Event()
    other_database = Rdict(str(tmp_path / "other"), options=Options(raw_mode=True))

    async def work() -> None:
        async def until() -> None:
            begun.set()
            await written.wait()

        one = await outlasted(settings, Patience(60.0, lambda: 0.0), database, until)
        late = asyncio.create_task(one.write(database, [(b"ua", b"late"), (b"p", b"7")], []))
        await begun.wait()
        owner = await plane_of(settings)._committer(TP(f"{prefix}-events", 0))
        try:
            await owner.write(other_database, [(b"p", b"8")], [])
            written.set()
            with pytest.raises(FencedError, match="another worker owns"):
                await late
        finally:
            await owner.stop()
            await one.stop()
        rows = await read(settings, f"{prefix}-users-changelog", 5)
        assert [row.value for row in rows if row.key == b"ua"] == [b"1"]

    run(settings, work)
    other_database.close()


async def end(producer: Any) -> None:
    """Close a producer that would try without end to send what it has."""
    producer._closed = True
    await producer._sender.close()
    producer._message_accumulator.fail_all(KafkaError("closed"))
    await producer.client.close()


@asynccontextmanager
async def topic_that_goes(settings: Settings, topic: str) -> AsyncIterator[Callable[[], Any]]:
    """Create a topic, and yield how to delete it, after which it cannot be written."""
    admin = AIOKafkaAdminClient(**client_arguments(settings))
    await admin.start()

    async def delete() -> None:
        await admin.delete_topics([topic])
        while topic in await admin.list_topics():  # meanwhile it can be written still
            await asyncio.sleep(0.05)

    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
        yield delete
    finally:
        await admin.close()


@pytest.mark.kafka
def test_commit_that_waits_for_a_topic_that_cannot_be_written_names_topic_and_time(
    kafka: KafkaBroker, prefix: str, database: Any
) -> None:
    settings = load_settings({}, brokers=kafka.address, name=prefix, send_seconds=3.0)
    block = Record(f"{prefix}-block", 0, None, b"block")

    async def work() -> None:
        one = await plane_of(settings)._committer(TP(f"{prefix}-events", 0))
        async with topic_that_goes(settings, block.topic) as delete:
            await one.write(database, RECORDS, [block])
            await delete()
            with pytest.raises(CommitUnknownError, match=r"-block.* cannot be written for 3 s"):
                await one.write(database, RECORDS, [block])
        await end(one._producer)

    run(settings, work)


@pytest.mark.kafka
def test_transaction_that_was_ended_because_of_a_topic_does_not_blame_another_worker_alone(
    kafka: KafkaBroker, prefix: str, database: Any
) -> None:
    settings = made(kafka.address, prefix)

    async def work() -> None:
        one = await committer(settings, transactions=True)
        send = one._producer.send_batch

        async def fail(batch: Any, topic: str, *, partition: int) -> Any:
            if topic.endswith("items"):
                ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
                ended.set_exception(ProducerFenced())
                return ended
            return await send(batch, topic, partition=partition)

        one._producer.send_batch = fail
        block = Record(f"{prefix}-items", 0, None, b"block")
        try:
            with pytest.raises(
                FencedError,
                match=r"-items could not be .*TRANSACTION_TIMEOUT.*brokers answer.*enough replicas",
            ):
                await one.write(database, RECORDS, [block])
        finally:
            await one.stop()

    run(settings, work)


@pytest.mark.kafka
def test_lists_that_wait_for_a_topic_that_cannot_be_written_name_topic_and_time(
    kafka: KafkaBroker, prefix: str
) -> None:
    settings = made(kafka.address, prefix)
    gone, here = Record(f"{prefix}-gone", 0, b"k", b"v"), Record(f"{prefix}-rejected", 0, b"k", b"")

    async def work() -> None:
        producer = await plain_producer(settings, True)
        async with topic_that_goes(settings, gone.topic) as delete:
            outbox = Outbox(producer, lambda *_: None, Patience(2.5))
            outbox.put([here, gone])
            await outbox.wait(outbox.mark())
            await delete()
            outbox.put([here, gone])
            with pytest.raises(SendError, match=rf"^{gone.topic} cannot be written for . s .*2\.5"):
                await outbox.wait(outbox.mark())
        await end(producer)

    run(settings, work)
