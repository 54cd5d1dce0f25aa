"""Item events: one per event applied to a user, sent to the item's partition in blocks.

An item event is a delta. It goes into the topic of its item's partition, many to a record; the
source's partition and offset in it let an item partition skip what it has had.
"""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.native import native

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

FORMAT = 1
_HEADER = struct.Struct("<BxxxI")
_FIXED = ITEM_EVENT.fields["recent"][1]  # type: ignore[index]


class ItemEventFormatError(ValueError):
    """The bytes are not a block of item events, or of a format number unknown here."""


@native
def _trim(rows: Array, fixed: int, out: Array) -> int:
    """Write rows (M, bytes) one after another without unused recents; the bytes written."""
    at = 0
    for i in range(rows.shape[0]):
        n = fixed + 8 * int(rows[i, fixed - 1])
        out[at : at + n] = rows[i, :n]
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
        rows[i, :n] = data[at : at + n]
        at += n
    return at


def item_partition(items: NDArray[np.uint64], partitions: int) -> NDArray[np.int64]:
    """Return the partition of each item hash: hash modulo the number of partitions."""
    return (items % np.uint64(partitions)).astype(np.int64)


def encode_block(item_events: Array) -> bytes:
    """Return item events (M,) ITEM_EVENT as the value of one record.

    A format byte, 3 bytes of zero, the count as uint32; then each event's fields in the order of
    ITEM_EVENT, little-endian, of `recent` only the first `n_recent`.

    Raises:
        ValueError: an `n_recent` above RECENTS.
    """
    if len(item_events) and int(item_events["n_recent"].max()) > RECENTS:
        raise ValueError(f"n_recent is {item_events['n_recent'].max()}; at most {RECENTS} expected")
    rows = np.ascontiguousarray(item_events).view(np.uint8).reshape(-1, ITEM_EVENT.itemsize)
    out = np.empty(rows.size, np.uint8)
    size = _trim(rows, _FIXED, out) if len(rows) else 0
    return _HEADER.pack(FORMAT, len(rows)) + out[:size].tobytes()


def decode_block(block: bytes) -> Array:
    """Read what `encode_block` wrote: item events (M,) ITEM_EVENT.

    Raises:
        ItemEventFormatError: another format number, or bytes missing, left over or altered so that
            they cannot be item events.
    """
    if len(block) < _HEADER.size:
        raise ItemEventFormatError(
            f"a block of item events has {len(block)} bytes; at least {_HEADER.size} are expected"
        )
    version, count = _HEADER.unpack_from(block)
    if version != FORMAT:
        raise ItemEventFormatError(
            f"a block of item events has format {version}; format {FORMAT} is expected"
            " (was it written by a newer version?)"
        )
    if _HEADER.size + count * _FIXED > len(block):
        raise ItemEventFormatError(
            f"a block of {len(block)} bytes names {count} item events, which need at least"
            f" {_HEADER.size + count * _FIXED}"
        )
    item_events = np.zeros(count, ITEM_EVENT)
    rows = item_events.view(np.uint8).reshape(count, ITEM_EVENT.itemsize)
    end = _expand(np.frombuffer(block, np.uint8), _HEADER.size, _FIXED, rows)
    if end != len(block):
        raise ItemEventFormatError(
            f"a block of {count} item events ends at byte {end} of {len(block)}: it is damaged"
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
