"""Outbox: records in order, refused ones dropped by name, a failure raised at the commit."""

import asyncio
import hashlib
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError
from aiokafka.record.default_records import DefaultRecordBatch

from tracker.events.wire import Rejection
from tracker.kafka.outbox import (
    MAX_BATCH_BYTES,
    MAX_RECORD_BYTES,
    MAX_REJECTED_BYTES,
    MAX_WAITING_BYTES,
    Outbox,
    Record,
    SendError,
    rejected_record,
)
from tracker.kafka.record_batch import RecordBatch


def values_of(batch: RecordBatch) -> list[bytes]:
    return [record.value for record in DefaultRecordBatch(bytearray(batch._build()))]


class FakeProducer:
    """Keeps the batches sent, and answers as a test sets it."""

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer or (lambda values: None)
        self.sent: list[tuple[str, int, list[bytes]]] = []

    async def send_batch(
        self, batch: RecordBatch, topic: str, *, partition: int
    ) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        values = values_of(batch)
        error = self.answer(values)
        if error is None:
            self.sent.append((topic, partition, values))
            future.set_result(None)
        else:
            future.set_exception(error)
        return future


def records(*values: bytes) -> list[Record]:
    return [Record("t", 0, b"k", value) for value in values]


def send(producer: FakeProducer, *groups: list[Record]) -> list[tuple[str, str]]:
    dropped: list[tuple[str, str]] = []

    async def run() -> None:
        outbox = Outbox(producer, lambda topic, reason: dropped.append((topic, reason)))
        for group in groups:
            outbox.put(group)
        await outbox.wait(outbox.mark())

    asyncio.run(run())
    return dropped


def test_records_go_out_in_order_in_as_few_batches_as_they_need() -> None:
    producer = FakeProducer()
    large = [bytes([n]) * (MAX_BATCH_BYTES // 2 - 200) for n in range(3)]
    send(producer, records(*large), [], records(b"4"))
    assert [values for _, _, values in producer.sent] == [large[:2], [large[2], b"4"]]


def test_records_that_wait_for_others_go_out_together() -> None:
    async def run() -> list[list[bytes]]:
        producer = FakeProducer()
        outbox = Outbox(producer, lambda topic, reason: None)
        outbox.put(records(b"1"))
        await asyncio.sleep(0)  # it is on its way
        for value in (b"2", b"3", b"4"):
            outbox.put(records(value))
            mark = outbox.mark()
        await outbox.wait(mark)
        outbox.put(records(b"5"))
        await outbox.wait(outbox.mark())
        assert outbox.waiting_bytes == 0
        return [values for _, _, values in producer.sent]

    assert asyncio.run(run()) == [[b"1"], [b"2", b"3", b"4"], [b"5"]]


def test_each_target_has_batches_of_its_own() -> None:
    producer = FakeProducer()
    send(producer, [Record("a", 0, None, b"1"), Record("b", 1, None, b"2"), *records(b"3")])
    assert producer.sent == [("a", 0, [b"1"]), ("b", 1, [b"2"]), ("t", 0, [b"3"])]


def test_record_above_the_bound_is_dropped_and_the_others_go_out() -> None:
    producer = FakeProducer()
    dropped = send(producer, records(b"1", b"x" * (MAX_RECORD_BYTES + 1), b"2"))
    assert producer.sent[0][2] == [b"1", b"2"]
    assert dropped[0][0] == "t"
    assert str(MAX_RECORD_BYTES) in dropped[0][1]


def test_record_that_the_broker_refuses_is_dropped_alone() -> None:
    producer = FakeProducer(lambda values: MessageSizeTooLargeError() if b"big" in values else None)
    dropped = send(producer, records(b"1", b"big", b"2"))
    assert [values for _, _, values in producer.sent] == [[b"1"], [b"2"]]
    assert "MessageSizeTooLargeError" in dropped[0][1]


def test_failure_is_raised_by_the_commit_and_by_every_later_one() -> None:
    async def run() -> None:
        producer = FakeProducer(lambda values: KafkaTimeoutError())
        outbox = Outbox(producer, lambda topic, reason: None)
        outbox.put(records(b"1"))
        mark = outbox.mark()
        with pytest.raises(SendError, match=r"^t cannot be written for 0 s"):
            await outbox.wait(mark)
        producer.answer = lambda values: None
        outbox.put(records(b"2"))
        with pytest.raises(SendError):
            await outbox.wait(outbox.mark())
        assert producer.sent == []

    asyncio.run(run())


def test_batch_waits_for_room_in_the_producer_as_long_as_the_setting_says() -> None:
    class FullProducer(FakeProducer):
        refusals = 3

        async def send_batch(
            self, batch: RecordBatch, topic: str, *, partition: int
        ) -> "asyncio.Future[None]":
            if self.refusals:
                self.refusals -= 1
                raise KafkaTimeoutError
            return await super().send_batch(batch, topic, partition=partition)

    producer = FullProducer()
    send(producer, records(b"1"))
    assert producer.sent == [("t", 0, [b"1"])]


def test_outbox_is_full_with_too_much_unsent() -> None:
    async def run() -> None:
        outbox = Outbox(FakeProducer(), lambda topic, reason: None)
        was_full = [outbox.full]
        outbox.put(records(b"x" * (MAX_RECORD_BYTES - 1)) * (MAX_WAITING_BYTES // 400_000))
        was_full.append(outbox.full)
        assert outbox.waiting_bytes > MAX_WAITING_BYTES
        await outbox.wait(outbox.mark())
        was_full.append(outbox.full)
        assert outbox.waiting_bytes == 0
        await outbox.wait(None)
        assert was_full == [False, True, False]

    asyncio.run(run())


def test_rejected_record_keeps_its_bytes_and_says_why_and_whence() -> None:
    rejection = Rejection("bad_json", "no JSON", "events", 3, 17)
    record = rejected_record("rejected", 1, b"k", b"{", rejection)
    assert record.value == b"{"
    assert dict(record.headers) == {
        "reason": b"bad_json",
        "message": b"no JSON",
        "topic": b"events",
        "partition": b"3",
        "offset": b"17",
    }


def test_huge_rejected_value_is_cut_and_named_by_its_hash() -> None:
    value = b"x" * (MAX_REJECTED_BYTES + 1)
    rejection = Rejection("bad_id", "too long", "events", 0, 1)
    record = rejected_record("rejected", 0, value, value, rejection)
    headers = dict(record.headers)
    assert len(record.value or b"") == MAX_REJECTED_BYTES
    assert len(record.key or b"") == MAX_REJECTED_BYTES
    assert headers["size"] == str(len(value)).encode()
    assert headers["sha256"] == hashlib.sha256(value).hexdigest().encode()


def test_rejected_tombstone_without_a_key_becomes_an_empty_value() -> None:
    rejection = Rejection("tombstone", "no value", "events", 0, 1)
    assert rejected_record("rejected", 0, None, None, rejection).value == b""
    assert rejected_record("rejected", 0, b"k", None, rejection).value is None
