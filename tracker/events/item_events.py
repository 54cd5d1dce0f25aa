"""Item events: one per event applied to a user, sent to the item's partition in blocks.

An item event is a delta. It goes into the topic of its item's partition, many to a record; the
source's partition and offset in it let an item partition skip what it has had.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.native import copy_bytes, native
from tracker.kernels.row_bytes import checksum

Array = NDArray[Any]

RECENTS = 20
"""How many of the user's recent items travel with an item event."""

ITEM_EVENT = np.dtype(
    [
        ("item", "<u8"),  # hash of the item
        ("time", "<f8"),  # seconds, of the event (for a retraction: of the event retracted)
        ("source_offset", "<i8"),  # offset of the user's event in the events topic
        ("weight", "<f4"),  # signed, as applied to the user
        ("scene", "<u4"),  # scene code, 0 for none
        ("source_partition", "<i4"),
        ("kind", "<u2"),  # kind code
        ("sign", "i1"),  # 1 for an event, -1 for one taken out again
        ("n_recent", "u1"),  # of `recent`
        ("recent", "<u8", (RECENTS,)),  # the user's items before it: distinct, positive, latest
        # first; hash 0 beyond n_recent
    ]
)

FORMATS = (1, 2)
"""Formats that are read; 2 has a checksum. `TRACKER_ITEM_BLOCK_FORMAT` says which one is written.

Both have a header of 8 or 16 bytes. Format 1: the format (uint8), 3 bytes of zero, the number of
item events (uint32). Format 2: the format (uint16), 2 bytes of zero, the checksum of all else as
that of a row (uint32), the number of item events (uint64).
"""

MOST_OF_ONE_OFFSET = 500
"""Maximum number of item events with the same source offset: items of one record of the source."""

MOST_WEIGHT = 1e9
"""Maximum size of a weight; true ones are a few units."""

LATEST_TIME = 253402300799.0
"""The last second of the year 9999."""

_HEADERS = {1: struct.Struct("<BxxxI"), 2: struct.Struct("<HxxIQ")}
_FIXED = ITEM_EVENT.fields["recent"][1]  # type: ignore[index]

_NO_ITEM, _TIME, _WEIGHT, _SIGN, _SOURCE, _MIXED, _OFFSET, _ORDER, _CROWD = range(1, 10)
_FAULTS = {
    _NO_ITEM: ("item", "the hash of an item, which is not 0, also among its recent ones"),
    _TIME: ("time", f"seconds from 0 to {LATEST_TIME:.0f}"),
    _WEIGHT: ("weight", f"a number from -{MOST_WEIGHT:g} to {MOST_WEIGHT:g}"),
    _SIGN: ("sign", "1 or -1"),
    _SOURCE: ("source_partition", "a partition of the events topic"),
    _MIXED: ("source_partition", "the same one in the whole block"),
    _OFFSET: ("source_offset", "an offset of the events topic"),
    _ORDER: ("source_offset", "at least that of the item event before"),
    _CROWD: ("source_offset", f"at most {MOST_OF_ONE_OFFSET} item events of one offset"),
}


class ItemEventFormatError(ValueError):
    """The bytes are no block of item events, are damaged, or hold values that cannot be true."""


@native
def _trim(rows: Array, fixed: int, out: Array) -> int:
    """Write rows (M, bytes) one after another without unused recents; the bytes written."""
    at = 0
    for i in range(rows.shape[0]):
        n = fixed + 8 * int(rows[i, fixed - 1])
        copy_bytes(out, at, rows[i], 0, n)
        at += n
    return at


@native
def _expand(data: Array, at: int, fixed: int, rows: Array) -> int:
    """Read rows (M, bytes) of zeros from `data`; return the end, or -1 if they do not fit."""
    for i in range(rows.shape[0]):
        if at + fixed > data.shape[0]:
            return -1
        recents = int(data[at + fixed - 1])
        n = fixed + 8 * recents
        if n > rows.shape[1] or at + n > data.shape[0]:
            return -1
        copy_bytes(rows[i], 0, data, at, n)
        at += n
    return at


@native
def _first_fault(events: Array, partitions: int) -> tuple[int, int]:
    """Return (position, fault) of the first item event that no worker wrote, or (-1, 0)."""
    crowd = 0
    for i in range(events.shape[0]):
        event = events[i]
        if event["item"] == 0:
            return i, _NO_ITEM
        for k in range(event["n_recent"]):
            if event["recent"][k] == 0:
                return i, _NO_ITEM
        if not 0.0 <= event["time"] <= LATEST_TIME:  # also for NaN
            return i, _TIME
        if not abs(event["weight"]) <= MOST_WEIGHT:
            return i, _WEIGHT
        if event["sign"] != 1 and event["sign"] != -1:
            return i, _SIGN
        if not 0 <= event["source_partition"] < partitions:
            return i, _SOURCE
        if not 0 <= event["source_offset"] < 2**63 - 1:
            return i, _OFFSET
        if i > 0 and event["source_partition"] != events[i - 1]["source_partition"]:
            return i, _MIXED
        if i == 0 or event["source_offset"] > events[i - 1]["source_offset"]:
            crowd = 0
        elif event["source_offset"] < events[i - 1]["source_offset"]:
            return i, _ORDER
        crowd += 1
        if crowd > MOST_OF_ONE_OFFSET:
            return i, _CROWD
    return -1, 0


def item_partition(items: NDArray[np.uint64], partitions: int) -> NDArray[np.int64]:
    """Return the partition of each item hash: hash modulo the number of partitions."""
    return (items % np.uint64(partitions)).astype(np.int64)


def encode_block(item_events: Array, version: int = 1) -> bytes:
    """Return item events (M,) ITEM_EVENT as the value of one record.

    The header of the format; then each event's fields in the order of ITEM_EVENT, little-endian, of
    `recent` only the first `n_recent`.

    Args:
        item_events: of one source partition, by source offset.
        version: format that is written, one of FORMATS.

    Raises:
        ValueError: an `n_recent` above RECENTS.
    """
    if len(item_events) and int(item_events["n_recent"].max()) > RECENTS:
        raise ValueError(f"n_recent is {item_events['n_recent'].max()}; at most {RECENTS} expected")
    rows = np.ascontiguousarray(item_events).view(np.uint8).reshape(-1, ITEM_EVENT.itemsize)
    out = np.empty(rows.size, np.uint8)
    size = _trim(rows, _FIXED, out) if len(rows) else 0
    body = out[:size].tobytes()
    if version == 1:
        return _HEADERS[1].pack(1, len(rows)) + body
    block = _HEADERS[2].pack(2, 0, len(rows)) + body
    return _HEADERS[2].pack(2, _checksum(block), len(rows)) + body


def split_events(item_events: Array, most: int, *, distinct: bool = False) -> list[Array]:
    """Cut item events into parts of limited size, in their order.

    Events of one source offset stay together: an item partition takes an offset for applied once
    it has applied one event of it.

    Args:
        item_events: of each source partition, by source offset.
        most: maximum size of a part; one that is larger has a single source offset.
        distinct: whether the size of a part is its number of items, not of events.
    """
    n = len(item_events)
    if n <= most:
        return [item_events] if n else []
    sources, offsets = item_events["source_partition"], item_events["source_offset"]
    is_end = (offsets[1:] != offsets[:-1]) | (sources[1:] != sources[:-1])
    ends = np.append(np.flatnonzero(is_end) + 1, n)
    parts = []
    start = 0
    while start < n:
        ends = ends[ends > start]
        sizes = ends - start
        if distinct:
            is_first = np.zeros(n - start, np.bool_)
            is_first[np.unique(item_events["item"][start:], return_index=True)[1]] = True
            sizes = np.cumsum(is_first)[sizes - 1]
        end = int(ends[max(0, int(np.searchsorted(sizes, most, side="right")) - 1)])
        parts.append(item_events[start:end])
        start = end
    return parts


def decode_block(block: bytes, partitions: int = 2**31 - 1) -> Array:
    """Read what `encode_block` wrote: item events (M,) ITEM_EVENT.

    Args:
        block: value of a record.
        partitions: number of partitions of the events topic.

    Raises:
        ItemEventFormatError: another format number, bytes missing, left over or altered, or a
            value out of its bounds.
    """
    version, count, size = _header(block)
    if size + count * _FIXED > len(block):
        raise ItemEventFormatError(
            f"a block of {len(block)} bytes names {count} item events, which need at least"
            f" {size + count * _FIXED}"
        )
    if version == 2 and _checksum(block) != int.from_bytes(block[4:8], "little"):
        raise ItemEventFormatError(
            f"a block of {len(block)} bytes is damaged: its checksum does not agree"
        )
    item_events = np.zeros(count, ITEM_EVENT)
    rows = item_events.view(np.uint8).reshape(count, ITEM_EVENT.itemsize)
    end = _expand(np.frombuffer(block, np.uint8), size, _FIXED, rows)
    if end != len(block):
        raise ItemEventFormatError(
            f"a block of {count} item events ends at byte {end} of {len(block)}: it is damaged"
        )
    at, fault = _first_fault(item_events, partitions)
    if fault:
        field, expected = _FAULTS[fault]
        raise ItemEventFormatError(
            f"item event {at} of a block of {count} has {field} {item_events[field][at]};"
            f" {expected} is expected"
        )
    return item_events


def decode_blocks(blocks: Sequence[bytes]) -> Array:
    """Read several blocks into one array, in their order.

    Raises:
        ItemEventFormatError: as `decode_block`.
    """
    if not blocks:
        return np.zeros(0, ITEM_EVENT)
    return np.concatenate([decode_block(block) for block in blocks])


def _header(block: bytes) -> tuple[int, int, int]:
    """Return a block's format, its number of item events, and the size of its header.

    Raises:
        ItemEventFormatError: too few bytes, or another format number.
    """
    if len(block) < _HEADERS[1].size:
        raise ItemEventFormatError(
            f"a block of item events has {len(block)} bytes; at least {_HEADERS[1].size} are"
            " expected"
        )
    version = block[0]
    header = _HEADERS.get(version)
    if header is None:
        raise ItemEventFormatError(
            f"a block of item events has format {version}; format 1 or 2 is expected"
            " (was it written by a newer version?)"
        )
    if len(block) < header.size or (version == 2 and len(block) % 8):
        raise ItemEventFormatError(
            f"a block of format {version} has {len(block)} bytes; at least {header.size} are"
            " expected, and whole words of 8: it is damaged"
        )
    return version, header.unpack_from(block)[-1], header.size


def _checksum(block: bytes) -> int:
    """Return the checksum of a block of format 2."""
    return int(checksum(np.frombuffer(block, np.uint64), 0, len(block) // 8))
