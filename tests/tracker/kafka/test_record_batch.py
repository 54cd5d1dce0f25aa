"""Record batches are those that Kafka's own clients write and read."""

from typing import Any

import hypothesis.strategies as st
import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given, settings

from tracker.kafka.record_batch import Headers, RecordBatch, record_bytes
from tracker.kafka.record_format import HEADER

PARTS = st.none() | st.binary(max_size=300)
HEADERS = st.lists(st.tuples(st.text(max_size=20), st.binary(max_size=200)), max_size=3)
RECORDS = st.lists(st.tuples(PARTS, PARTS, HEADERS), min_size=1, max_size=150)


Written = tuple[bytes | None, bytes | None, Headers]


def made(records: list[Written], transactional: bool = False) -> RecordBatch:
    keys, values, headers = zip(*records, strict=True)
    with_headers = headers if any(headers) else None
    batch = RecordBatch(keys, values, with_headers, transactional=transactional)
    batch._set_producer_state(7, 3, 1000)
    return batch


@settings(deadline=None)  # the first call compiles
@given(RECORDS, st.booleans())
def test_aiokafka_reads_what_was_written(records: list[Any], transactional: bool) -> None:
    batch = made(records, transactional)
    read = DefaultRecordBatch(bytearray(batch._build()))
    assert read.validate_crc()
    assert read.is_transactional == transactional
    assert (read.producer_id, read.next_offset) == (7, len(records))
    found = list(read)
    assert [(r.offset, r.key, r.value, r.headers) for r in found] == [
        (n, key, value, headers) for n, (key, value, headers) in enumerate(records)
    ]
    assert {r.timestamp for r in found} == {batch._time}


@pytest.mark.parametrize("transactional", [False, True])
def test_bytes_are_those_of_aiokafka_s_builder(transactional: bool) -> None:
    records: list[Written] = [(b"user%d" % n, b"x" * (n * 37 % 9000), []) for n in range(300)]
    ours = made(records, transactional)
    theirs = DefaultRecordBatchBuilder(2, 0, transactional, 7, 3, 1000, 1 << 24)
    for n, (key, value, _) in enumerate(records):
        theirs.append(n, timestamp=ours._time, key=key, value=value, headers=[])
    assert bytes(ours._build()) == bytes(theirs.build())


@settings(deadline=None)  # the first call compiles
@given(RECORDS)
def test_sizes_without_headers_are_a_bound(records: list[Any]) -> None:
    records = [(key, value, []) for key, value, _ in records]
    keys, values, _ = zip(*records, strict=True)
    assert made(records).size() <= HEADER.size + record_bytes(keys, values).sum()


def test_a_batch_that_is_sent_again_has_the_same_bytes() -> None:
    batch = made([(b"k", b"v", [])])
    first = bytes(batch._build())
    batch._set_producer_state(9, 9, 9)
    assert bytes(batch._build()) == first
