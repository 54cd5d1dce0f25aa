"""Records of source topics, read so that none stops the consumer: what is broken is passed on.

aiokafka raises if a codec is unknown, compressed bytes are damaged or a header is not UTF-8, and
would meet the same record again after each restart.
"""

import logging
import struct
from collections.abc import Collection, Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint
from aiokafka.structs import ConsumerRecord
from crc32c import crc32c

from tracker.events.wire import Undecodable
from tracker.kafka.record_format import CHECKED_FROM, HEADER, LENGTH_FROM, MAGIC

log = logging.getLogger(__name__)

CHECKSUM_FETCHES = 3
"""A batch with a wrong checksum is fetched this often: the network may have damaged it."""

MAX_BATCH_RECORDS = 1_000_000
"""A batch that says that it covers more offsets is not believed."""

CODECS = ("gzip", "snappy", "lz4", "zstd")


_MAGIC_AT = 16
"""Position of a batch's format version."""


class CodecError(RuntimeError):
    """The libraries of a codec are not there."""


class _KeptRecords(MemoryRecords):
    """Fetched records that keep their bytes: `batch` is the last one read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._data = bytes(data)
        self._end = 0
        self.batch = b""

    def next_batch(self) -> Any:
        """Return the next batch, and keep its bytes.

        Raises:
            CorruptRecordException: the checksum is wrong.
        """
        (size,) = struct.unpack_from(">i", self._data, self._end + 8)
        end = self._end + LENGTH_FROM + max(0, size)
        self.batch = self._data[self._end : end]
        self._end = end
        batch = super().next_batch()
        if not _is_sound(self.batch, batch):
            raise CorruptRecordException("Invalid CRC")
        return batch


def _is_sound(data: bytes, batch: Any) -> bool:
    """Return whether the checksum of a batch is right; by aiokafka itself in older formats."""
    if len(data) <= _MAGIC_AT or data[_MAGIC_AT] < MAGIC:
        return bool(batch.validate_crc())
    if len(data) < HEADER.size:
        return False  # aiokafka would read past its end
    checksum: int = HEADER.unpack_from(data)[4]
    return checksum == crc32c(memoryview(data)[CHECKED_FROM:])


class _SourceRecords(fetcher.PartitionRecords):
    """Records of one partition of a fetch; those of `topics` are passed on even if broken."""

    next_fetch_offset: int
    topics: frozenset[str] = frozenset()
    fetches: dict[Any, tuple[int, int]] = {}  # noqa: RUF012 - shared: a fetch makes a new object

    def __init__(self, tp: Any, records: Any, *args: Any) -> None:
        super().__init__(tp, records, *args)
        self._check_crcs = False  # `_KeptRecords` has checked them, by a faster way
        if tp.topic in self.topics:
            self._records_iterator = self._every_record()

    def _every_record(self) -> Iterator[Any]:
        """Yield all records; a batch that raises is read again record by record."""
        while True:
            try:
                yield from self._unpack_records()
                return
            except Exception as error:  # an untrusted source: any of a dozen exceptions
                why = f"{type(error).__name__}: {error}"
                log.debug("%s: a batch cannot be read", self._tp, exc_info=error)
            batch = self._records.batch
            before = self.next_fetch_offset
            damaged = "Invalid CRC" in why
            if damaged and self._fetch_again():
                return
            yield from self._rest_of(batch, why, damaged)
            if self.next_fetch_offset == before:  # or the same fetch would come for ever
                self.next_fetch_offset += 1
                return

    def _consumer_record(self, tp: Any, record: Any) -> Any:
        """Return the record itself for a source topic, whose partition is known."""
        return record if tp.topic in self.topics else super()._consumer_record(tp, record)

    def _fetch_again(self) -> bool:
        """Count a fetch with a wrong checksum; return whether to try once more."""
        offset, count = self.fetches.get(self._tp, (-1, 0))
        count = count + 1 if offset == self.next_fetch_offset else 1
        self.fetches[self._tp] = (self.next_fetch_offset, count)
        return count < CHECKSUM_FETCHES

    def _rest_of(self, batch: bytes, why: str, damaged: bool) -> Iterator[Any]:
        """Yield the records of a batch one by one, or one record that stands for all of them."""
        first, last, time = self._bounds(batch)
        if not damaged and len(batch) >= HEADER.size and batch[_MAGIC_AT] >= 2:
            try:
                reader = _DefaultRecordBatchPy(batch)
                reader._maybe_uncompress()
            except Exception as error:  # the codec's own exceptions
                why = f"{type(error).__name__}: {error}"
            else:
                for offset, record in _each(reader, why):
                    if self.next_fetch_offset <= offset <= last:
                        self.next_fetch_offset = offset + 1
                        yield self._record(offset, reader.timestamp_type, *record)
                self.next_fetch_offset = max(self.next_fetch_offset, last + 1)
                return
        first = max(first, self.next_fetch_offset)
        covers = f"offset {last}" if first >= last else f"offsets {first} to {last}"
        self.next_fetch_offset = last + 1
        yield self._record(
            last, 0, time, None, Undecodable(batch, f"{covers} cannot be read: {why}")
        )

    def _bounds(self, batch: bytes) -> tuple[int, int, int]:
        """Return first and last offset of a batch, and its time in milliseconds."""
        at = self.next_fetch_offset
        if len(batch) < HEADER.size or batch[_MAGIC_AT] < 2:
            return at, at, 0
        fields = HEADER.unpack_from(batch)
        last = fields[0] + fields[6]
        if not at <= last < at + MAX_BATCH_RECORDS:
            last = at
        return fields[0], last, max(0, fields[8])

    def _record(
        self, offset: int, time_type: int, time: int, key: bytes | None, value: bytes | None
    ) -> Any:
        sizes = [-1 if part is None else len(part) for part in (key, value)]
        topic, number = self._tp.topic, self._tp.partition
        return ConsumerRecord(topic, number, offset, time, time_type, key, value, None, *sizes, ())


def _each(batch: Any, why: str) -> Iterator[tuple[int, tuple[int, bytes | None, bytes | None]]]:
    """Yield offset, time, key and value of each record of a batch, whatever its headers are."""
    data = batch._buffer
    at = batch._pos
    append_time = bool(batch.timestamp_type)
    for n in range(batch._num_records):
        offset = batch.base_offset + n
        start = at
        try:
            size, at = decode_varint(data, at)
            end = at + size
            if size < 0 or end > len(data):
                raise ValueError(f"a record of {size} bytes")
        except (ValueError, IndexError):
            offset = batch.next_offset - 1
            yield offset, (0, None, Undecodable(bytes(data[start:]), f"cannot be read: {why}"))
            return
        try:
            _, at = decode_varint(data, at)
            delta, at = decode_varint(data, at)
            number, at = decode_varint(data, at)
            key, at = _part(data, at, end)
            value, at = _part(data, at, end)
            offset = batch.base_offset + number
            time = batch.max_timestamp if append_time else batch.first_timestamp + delta
            yield offset, (time, key, value)
        except (ValueError, IndexError):
            yield offset, (0, None, Undecodable(bytes(data[start:end]), f"cannot be read: {why}"))
        at = end


def _part(data: bytearray, at: int, end: int) -> tuple[bytes | None, int]:
    size, at = decode_varint(data, at)
    if size < 0:
        return None, at
    if at + size > end:
        raise ValueError(f"a field of {size} bytes")
    return bytes(data[at : at + size]), at + size


def read_every_record(topics: Collection[str]) -> None:
    """Make sure that no record of some topics can stop a consumer of this process.

    A record whose headers alone are broken is taken without them. A record or batch that cannot be
    decoded has an `Undecodable` as its value: of a batch, one with its last offset. A batch with a
    wrong checksum is fetched three times first.
    """
    _SourceRecords.topics |= frozenset(topics)
    fetcher.MemoryRecords = _KeptRecords
    fetcher.PartitionRecords = _SourceRecords


def check_codecs() -> None:
    """Compress and decompress with each codec that a producer can choose.

    Raises:
        CodecError: the library is not there or broken; the message names the remedy.
    """
    from aiokafka import codec

    for name in CODECS:
        try:
            encoded = getattr(codec, f"{name}_encode")(b"event")
            if bytes(getattr(codec, f"{name}_decode")(encoded)) != b"event":
                raise ValueError("other bytes came back")
        except Exception as error:  # without the library aiokafka raises an AttributeError
            raise CodecError(
                f"records compressed with {name} cannot be read ({error}): pip install cramjam"
            ) from error
