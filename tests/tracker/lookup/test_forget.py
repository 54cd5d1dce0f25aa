"""A request is sent to every partition, its answers are read, and what is left is named."""

import asyncio

import msgspec
import pytest

from tracker.kafka.client import read_topic
from tracker.kafka.cluster import TopicError, topics_of
from tracker.kafka.connect import producer
from tracker.kafka.forget import (
    Audit,
    ForgetRequest,
    PendingForget,
    audit_record,
    ended_offset,
    pending_of,
    tombstone,
)
from tracker.kafka.reset import reset_topics
from tracker.kafka.topics import ensure_topics
from tracker.kernels.row_bytes import FORGOTTEN_PREFIX
from tracker.lookup.forget import ForgetError, Remainder, forget_user, until
from tracker.settings import Settings, load_settings


def settings_of(address: str, name: str) -> Settings:
    return load_settings({}, brokers=address, name=name, event_partitions=2, item_partitions=1)


async def answer(settings: Settings, partitions: int) -> None:
    """Apply requests as workers do."""
    topic = topics_of(settings).forget
    async with producer(settings) as client:
        async for record in read_topic(settings, topic, follow=True):
            pending = pending_of(FakeRecord(record))
            if pending is None or record.partition >= partitions:
                continue
            audit = Audit(pending.value.request, record.partition, 1.0, 2.0, 3, 4, True)
            for out in (tombstone(topic, record.partition, pending), audit_record(topic, audit)):
                await client.send_and_wait(
                    out.topic, out.value, out.key, out.partition, headers=list(out.headers)
                )


class FakeRecord:
    """A record as the consumer returns it."""

    def __init__(self, record: object) -> None:
        self.key = record.key  # type: ignore[attr-defined]
        self.value = record.value  # type: ignore[attr-defined]
        self.offset = record.offset  # type: ignore[attr-defined]
        self.headers = record.headers  # type: ignore[attr-defined]
        self.timestamp = int(record.appended * 1000)  # type: ignore[attr-defined]


@pytest.mark.parametrize("partitions", [2, 1])
def test_request_is_complete_when_all_partitions_have_answered(
    tansu: str, prefix: str, partitions: int
) -> None:
    settings = settings_of(tansu, prefix)

    async def go() -> object:
        await ensure_topics(settings)
        answering = asyncio.create_task(answer(settings, partitions))
        report = await forget_user(settings, "ada", 20.0 if partitions == 2 else 3.0)
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        return report

    report = asyncio.run(go())
    assert report.waiting == ([] if partitions == 2 else [1])  # type: ignore[attr-defined]
    assert report.events_taken_out == 3 * partitions  # type: ignore[attr-defined]
    assert report.was_known  # type: ignore[attr-defined]
    places = {one.place for one in report.remainders}  # type: ignore[attr-defined]
    assert {f"{prefix}-events", f"{prefix}-users-changelog", "trained weights"} <= places


def test_without_the_topic_or_with_an_id_that_is_none_nothing_is_sent(
    tansu: str, prefix: str
) -> None:
    settings = settings_of(tansu, prefix)
    with pytest.raises(TopicError, match="run 'tracker topics'"):
        asyncio.run(forget_user(settings, "ada", 1.0))
    for text in ("", "\0audit/1"):
        with pytest.raises(ForgetError, match="without a leading NUL"):
            asyncio.run(forget_user(settings, text, 1.0))


def test_tombstone_ends_requests_up_to_its_offset_and_one_of_another_program_all() -> None:
    ended = tombstone("t", 0, PendingForget(b"ada", 7, 1.0, ForgetRequest()))
    assert dict(ended.headers) == {"applied": b"7"}

    class Record:
        value = None
        headers = ended.headers
        offset = 9

    assert ended_offset(Record) == 7
    for of_another in ((), (("applied", None),), (("applied", b"9" * 5000),)):
        Record.headers = of_another  # type: ignore[assignment]
        assert ended_offset(Record) == 9


def test_value_that_is_nested_too_deep_is_an_empty_request() -> None:
    class Record:
        key, offset, timestamp = b"ada", 7, 1000
        value = b'{"x":' + b"[" * 100_000

    assert pending_of(Record) == PendingForget(b"ada", 7, 1.0, ForgetRequest())


def test_time_until_is_told_in_utc_or_as_unbounded() -> None:
    assert until(Remainder("a", "b", 60.0), 0.0) == "until 1970-01-01 00:01 UTC"
    assert until(Remainder("a", "b", None)) == "no time bounds it"


def test_reset_of_everything_keeps_the_hashes_of_forgotten_users(tansu: str, prefix: str) -> None:
    settings = settings_of(tansu, prefix)
    names = topics_of(settings)
    key = FORGOTTEN_PREFIX + bytes(32)

    async def go() -> dict[int, dict[bytes, bytes]]:
        await ensure_topics(settings)
        async with producer(settings) as client:
            await client.send_and_wait(names.users_changelog, b"[1,2]", key, 1)
            await client.send_and_wait(names.users_changelog, b"row", b"uann", 1)
        await reset_topics(settings)
        rows: dict[int, dict[bytes, bytes]] = {}
        async for record in read_topic(settings, names.users_changelog):
            rows.setdefault(record.partition, {})[record.key or b""] = record.value or b""
        return rows

    assert asyncio.run(go()) == {1: {key: b"[1,2]"}}
    assert msgspec.json.decode(b"[1,2]") == [1, 2]
