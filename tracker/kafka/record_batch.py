"""Record batches of Kafka's message format 2, written at once by native code.

aiokafka's builder takes a call a record, and its CRC-32C in software takes 20 times as long as the
processor's own instruction. A finished batch goes to `AIOKafkaProducer.send_batch`, which needs the
few methods that a builder has.
Source of the format: Apache Kafka, protocol guide, "Record Batch".
"""

import struct
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from crc32c import crc32c
from numpy.typing import NDArray

from tracker.kafka.record_format import CHECKED_FROM, HEADER, LENGTH_FROM, MAGIC
from tracker.kernels.native import inlined, native

Array = NDArray[Any]

_TRANSACTIONAL = 0x10
_RECORD_BYTES = 32  # at most, without key, value and headers

Headers = Sequence[tuple[str, bytes]]


@inlined
def _varint_size(number: int) -> int:
    size = 1
    number = (number << 1) ^ (number >> 63)
    while number > 127:
        number >>= 7
        size += 1
    return size


@inlined
def _put_varint(out: Array, at: int, number: int) -> int:
    number = (number << 1) ^ (number >> 63)
    while number > 127:
        out[at] = (number & 127) | 128
        number >>= 7
        at += 1
    out[at] = number
    return at + 1


@inlined
def _copy(source: Array, start: int, size: int, out: Array, at: int) -> None:
    to, since = np.uint64(at), np.uint64(start)  # unsigned: no index counts from the end
    for n in range(np.uint64(size)):
        out[to + n] = source[since + n]


@native
def write_records(
    keys: Array,
    key_sizes: Array,
    values: Array,
    value_sizes: Array,
    headers: Array,
    header_sizes: Array,
    out: Array,
) -> int:
    """Write N records one after the other; return where they end.

    Args:
        keys: uint8, all keys.
        key_sizes: (N,) int64, -1 for no key.
        values: uint8, all values.
        value_sizes: (N,) int64, -1 for no value.
        headers: uint8, all encoded headers with their number, or empty if no record has any.
        header_sizes: (N,) int64, or empty.
        out: uint8, with room for what they hold and 32 bytes a record.
    """
    at = 0
    key_at = 0
    value_at = 0
    header_at = 0
    for n in range(len(key_sizes)):
        key_size = key_sizes[n]
        value_size = value_sizes[n]
        header_size = header_sizes[n] if len(header_sizes) else 1
        size = 2 + _varint_size(n) + header_size
        size += _varint_size(key_size) + max(key_size, 0)
        size += _varint_size(value_size) + max(value_size, 0)
        at = _put_varint(out, at, size)
        out[at] = 0  # attributes
        out[at + 1] = 0  # time, as a difference
        at = _put_varint(out, at + 2, n)
        at = _put_varint(out, at, key_size)
        if key_size > 0:
            _copy(keys, key_at, key_size, out, at)
            key_at += key_size
            at += key_size
        at = _put_varint(out, at, value_size)
        if value_size > 0:
            _copy(values, value_at, value_size, out, at)
            value_at += value_size
            at += value_size
        if len(header_sizes):
            _copy(headers, header_at, header_size, out, at)
            header_at += header_size
        else:
            out[at] = 0
        at += header_size
    return at


class RecordBatch:
    """A batch of records, finished when it is made; the producer adds its state.

    It has the methods of aiokafka's BatchBuilder, and takes no more records.

    Args:
        keys: of the N records.
        values: of the N records; a record has a key or a value.
        headers: of the N records; None if no record has any.
        transactional: whether the producer is.
    """

    def __init__(
        self,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        headers: Sequence[Headers] | None = None,
        *,
        transactional: bool,
    ) -> None:
        self._count = len(keys)
        self._attributes = _TRANSACTIONAL if transactional else 0
        self._state = (-1, -1, -1)  # producer id, epoch, first sequence
        key_sizes, all_keys = _joined(keys)
        value_sizes, all_values = _joined(values)
        no_headers = np.zeros(0, np.int64)
        header_sizes, all_headers = no_headers, np.zeros(0, np.uint8)
        if headers is not None:
            header_sizes, all_headers = _joined([_encoded(one) for one in headers])
        room = len(all_keys) + len(all_values) + len(all_headers) + _RECORD_BYTES * self._count
        out = np.empty(HEADER.size + room, np.uint8)
        end = write_records(
            all_keys, key_sizes, all_values, value_sizes, all_headers, header_sizes,
            out[HEADER.size :],
        )  # fmt: skip
        self._bytes = out[: HEADER.size + end]
        self._time = int(time.time() * 1000)
        self._is_built = False

    def append(self, *, timestamp: Any, key: Any, value: Any, headers: Any = ()) -> None:
        """Take no record: the batch is finished."""

    def close(self) -> None:
        """Do nothing: the batch is finished."""

    def closed(self) -> bool:
        """Return True."""
        return True

    def size(self) -> int:
        """Return the size of the batch, in bytes."""
        return len(self._bytes)

    def record_count(self) -> int:
        """Return the number of records."""
        return self._count

    def _set_producer_state(self, producer_id: int, epoch: int, base_sequence: int) -> None:
        self._state = (producer_id, epoch, base_sequence)

    def _build(self) -> memoryview:
        """Return the bytes; the producer's state is known now, and does not change."""
        data = memoryview(self._bytes.data)
        if not self._is_built:
            HEADER.pack_into(
                data, 0, 0, len(data) - LENGTH_FROM, -1, MAGIC, 0, self._attributes,
                self._count - 1, self._time, self._time, *self._state, self._count,
            )  # fmt: skip
            struct.pack_into(">I", data, CHECKED_FROM - 4, crc32c(data[CHECKED_FROM:]))
            self._is_built = True
        return data


def record_bytes(keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> NDArray[np.int64]:
    """Return the size (N,) of each record in a batch, at most."""
    sizes: NDArray[np.int64] = np.maximum(_sizes(keys), 0) + np.maximum(_sizes(values), 0)
    return sizes + _RECORD_BYTES


def _joined(parts: Sequence[bytes | None]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    return _sizes(parts), np.frombuffer(b"".join(filter(None, parts)), np.uint8)


def _sizes(parts: Sequence[bytes | None]) -> NDArray[np.int64]:
    if None in parts:
        return np.array([-1 if part is None else len(part) for part in parts], np.int64)
    return np.fromiter(map(len, parts), np.int64, len(parts))  # type: ignore[arg-type]


def _encoded(headers: Headers) -> bytes:
    out = bytearray(_varint(len(headers)))
    for name, value in headers:
        text = name.encode()
        out += _varint(len(text)) + text + _varint(len(value)) + value
    return bytes(out)


def _varint(number: int) -> bytes:
    number <<= 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
