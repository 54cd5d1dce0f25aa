"""Records that cannot be decoded are passed on, and nothing else is lost with them."""

import struct
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder, _DefaultRecordBatchBuilderPy
from aiokafka.record.util import calc_crc32c
from aiokafka.structs import TopicPartition

from tracker.events.wire import RejectedEventError, Undecodable, decode_event
from tracker.kafka.records import CHECKSUM_FETCHES, CODECS, check_codecs, read_every_record

EVENTS = TopicPartition("events-of-this-test", 0)
OTHERS = TopicPartition("other", 0)


@pytest.fixture(autouse=True)
def every_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put aiokafka's own classes back afterwards."""
    monkeypatch.setattr(fetcher, "MemoryRecords", fetcher.MemoryRecords)
    monkeypatch.setattr(fetcher, "PartitionRecords", fetcher.PartitionRecords)
    monkeypatch.setattr("tracker.kafka.records._SourceRecords.fetches", {})
    read_every_record([EVENTS.topic])


class Latin(str):
    """A text that is one byte, which is not UTF-8, on the wire."""

    def encode(self, *given: object) -> bytes:
        return b"\xff"


def batch(base: int, values: list[bytes], codec: int = 0, headers: Any = ()) -> bytearray:
    builder: Any = _DefaultRecordBatchBuilderPy if headers else DefaultRecordBatchBuilder
    made = builder(2, codec, False, -1, -1, -1, 1 << 20)
    for n, value in enumerate(values):
        of_record = headers if headers and n == 1 else []
        made.append(n, timestamp=1000 + n, key=b"u", value=value, headers=of_record)
    data = bytearray(made.build())
    struct.pack_into(">q", data, 0, base)
    return data


def seal(data: bytearray) -> bytearray:
    """Make the checksum right again."""
    struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    return data


def read(
    data: bytes | bytearray, offset: int = 0, tp: TopicPartition = EVENTS
) -> tuple[list[Any], int]:
    records = fetcher.PartitionRecords(
        tp, fetcher.MemoryRecords(bytes(data)), [], offset, None, None, True, 1
    )
    return list(records), records.next_fetch_offset


def shown(records: list[Any]) -> list[tuple[int, bytes | str]]:
    return [(r.offset, "broken" if isinstance(r.value, Undecodable) else r.value) for r in records]


VALUES = [b"a", b"b", b"c"]


@pytest.mark.parametrize("codec", range(5))
def test_records_of_each_codec_are_read(codec: int) -> None:
    records, after = read(batch(5, VALUES, codec), 6)
    assert shown(records) == [(6, b"b"), (7, b"c")]
    assert after == 8
    assert set(CODECS) == {"gzip", "snappy", "lz4", "zstd"}
    check_codecs()


@pytest.mark.parametrize("codec", range(1, 5))
def test_a_batch_that_cannot_be_decompressed_is_one_rejection_and_passed(codec: int) -> None:
    damaged = batch(3, VALUES, codec)
    damaged[61:] = b"\x05" * (len(damaged) - 61)
    data = batch(0, VALUES) + seal(damaged) + batch(6, VALUES)
    records, after = read(data)
    assert shown(records) == [
        (0, b"a"), (1, b"b"), (2, b"c"), (5, "broken"), (6, b"a"), (7, b"b"), (8, b"c"),
    ]  # fmt: skip
    assert after == 9
    with pytest.raises(RejectedEventError, match="offsets 3 to 5 cannot be read") as rejected:
        decode_event(records[3].value)
    assert rejected.value.reason == "undecodable"


def test_a_codec_that_nobody_knows_is_one_rejection() -> None:
    unknown = batch(3, VALUES)
    unknown[22] = 7
    records, after = read(seal(unknown), 3)
    assert shown(records) == [(5, "broken")]
    assert after == 6


def test_a_record_whose_headers_alone_are_broken_is_taken() -> None:
    records, after = read(batch(3, VALUES, headers=[(Latin("x"), b"1")]), 3)
    assert shown(records) == [(3, b"a"), (4, b"b"), (5, b"c")]
    assert [record.timestamp for record in records] == [1000, 1001, 1002]
    assert after == 6


def test_a_record_with_a_broken_value_is_rejected_and_its_neighbours_are_taken() -> None:
    data = batch(3, [b"a" * 9, b"b" * 9, b"c" * 9])
    data[data.index(b"b" * 9) - 1] = 0x7E  # its length: more than the record has
    records, after = read(seal(data), 3)
    assert shown(records) == [(3, b"a" * 9), (4, "broken"), (5, b"c" * 9)]
    assert after == 6


def test_a_wrong_checksum_is_fetched_again_and_then_passed() -> None:
    damaged = batch(3, VALUES)
    damaged[-2] ^= 1
    data = batch(0, VALUES) + damaged + batch(6, VALUES)
    records, after = read(data)
    assert shown(records) == [(0, b"a"), (1, b"b"), (2, b"c")]
    for _ in range(CHECKSUM_FETCHES - 2):
        assert read(data, after) == ([], 3)
    records, after = read(data, after)
    assert shown(records) == [(5, "broken"), (6, b"a"), (7, b"b"), (8, b"c")]
    assert after == 9


def test_a_fetch_of_rubbish_ends_and_moves_on() -> None:
    rubbish = struct.pack(">qi", 3, 20) + b"\x02" * 20
    for _ in range(CHECKSUM_FETCHES - 1):
        assert read(rubbish, 3) == ([], 3)
    records, after = read(rubbish, 3)
    assert shown(records) == [(3, "broken")]
    assert after == 4


def test_other_topics_still_raise() -> None:
    damaged = batch(3, VALUES, 1)
    damaged[61:] = b"\x05" * (len(damaged) - 61)
    with pytest.raises(Exception, match=r".+"):
        read(seal(damaged), 3, OTHERS)
