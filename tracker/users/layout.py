"""User rows as bytes: the layout of a row, and the kernels that write, check and read it."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.arithmetic import whole
from tracker.kernels.native import native
from tracker.kernels.row_bytes import (
    DAMAGED,
    NEWER_ARTIFACT,
    OTHER_FORMAT,
    OTHER_LAYOUT,
    Slots,
    format_of,
    is_sealed,
    seal,
)
from tracker.users.interests import INTEREST

Array = NDArray[Any]

FORMAT = 1

HEAD = np.dtype(
    [
        ("basis", "<u8"),  # hash of the whitening and projection the sums are in, 0 for none yet
        ("ref_time", "<f8"),  # seconds: the time masses, sums and negative are valid for
        ("first_time", "<f8"),  # seconds: the earliest event (a retraction does not move it)
        ("last_time", "<f8"),  # seconds: the latest event (the same)
        ("last_offset", "<i8"),  # of the user's latest record, -1 for none
        ("emitted_offset", "<i8"),  # last_offset when a list was last sent, -1 for none
        ("emitted_at", "<f8"),  # seconds: when that was
        ("list_hash", "<u8"),  # of that list
        ("artifact", "<u4"),  # sequence number of the artifact last applied
        ("encoder", "<u4"),  # code of the user encoder that `hidden` is of, 0 for none
        ("events", "<u4"),  # counted now: applied and not retracted
        ("positives", "<u4"),  # of these: positive weight
        ("negatives", "<u4"),  # of these: negative weight
        ("unknown", "<u4"),  # of these: item not in the catalogue when it came
        ("known_positives", "<u4"),  # of these: positive and in the sums
        ("retracted", "<u4"),  # events taken out, or retracted on arrival
        ("too_old", "<u4"),  # retractions of events that had left the ring, or never came
        ("duplicates", "<u4"),  # repeats of an event id in the ring
        ("evicted", "<u4"),  # ring entries that moved to the seen set
        ("last_scene", "<u4"),  # scene code of the latest event to arrive
        ("negative_mass", "<f4"),  # sum of decayed |weight| of negative events
        ("n_ring", "u1"),  # ring entries in use
        ("n_slots", "u1"),  # interests in use
        ("n_pending", "u1"),  # retractions that wait for their events
        ("spare", "u1"),
    ]
)
"""The scalars of a row."""

RING = np.dtype(
    [
        ("item", "<u8"),  # hash of the item
        ("event_id", "<u8"),  # hash of the event id, 0 for none
        ("time", "<f8"),  # seconds
        ("weight", "<f4"),  # signed, as applied
        ("value", "<f4"),  # quantity, rating, dwell seconds; NaN for none
        ("scene", "<u4"),  # scene code, 0 for none
        ("kind", "<u2"),  # kind code
        ("flags", "<u2"),  # RING_*; bits 3-7: newer events that came before it; 8-14: from it to
        # its retraction
    ]
)
"""One recent event; in the order of their times, the latest last."""

HEADER = np.dtype(
    [
        ("format", "<u2"),
        ("dim", "<u2"),
        ("checksum", "<u4"),  # of all the rest
        ("hidden", "<u2"),
        ("n_sums", "u1"),
        ("n_pending", "u1"),
        ("n_slots", "u1"),
        ("n_ring", "u1"),
        ("spare", "<u2"),
    ]
)
# As plain numbers: a kernel cannot ask a dtype.
HEADER_BYTES = HEADER.itemsize
_ARTIFACT_WORD = (HEADER_BYTES + 64) // 8  # its lower half; eight fields of 8 bytes come first
_HEAD_BYTES = HEAD.itemsize
_INTEREST_BYTES = INTEREST.itemsize
_RING_BYTES = RING.itemsize


def offset_of(row: bytes) -> int:
    """Return `last_offset` of a row that can be read."""
    return int(np.frombuffer(row, HEAD, 1, HEADER_BYTES)["last_offset"][0])


def last_time_of(row: bytes) -> float:
    """Return `last_time` of a row that can be read."""
    return float(np.frombuffer(row, HEAD, 1, HEADER_BYTES)["last_time"][0])


def is_whole(row: bytes) -> bool:
    """Return whether a row has the format that is written now, and is as it was sealed."""
    if len(row) % 8 or len(row) < HEADER_BYTES + _HEAD_BYTES or format_of(row) != FORMAT:
        return False
    return bool(is_sealed(np.frombuffer(row, np.uint64), 0, len(row) // 8))


def in_new_partition(row: bytes) -> bytes:
    """Return a row whose offsets are of no partition any more: every later event is a new one."""
    moved = bytearray(row)
    head = np.frombuffer(moved, HEAD, 1, HEADER_BYTES)
    head["last_offset"] = np.minimum(head["last_offset"], 0)
    head["emitted_offset"] = np.minimum(head["emitted_offset"], 0)
    moved[4:8] = bytes(4)  # the checksum
    words = np.frombuffer(moved, np.uint64)
    seal(words, 0, len(words))
    return bytes(moved)


class ByteColumns(NamedTuple):
    """The columns of a UserStates as bytes, each (C, size) uint8."""

    head: Array
    masses: Array
    sums: Array
    negative: Array
    hidden: Array
    pending: Array
    interest_heads: Array
    interest_means: Array
    ring: Array


@native
def clear_rows(slots: Slots, columns: ByteColumns) -> None:
    """Set every byte of rows to 0."""
    for slot in slots:
        columns.head[slot, :] = 0
        columns.masses[slot, :] = 0
        columns.sums[slot, :] = 0
        columns.negative[slot, :] = 0
        columns.hidden[slot, :] = 0
        columns.pending[slot, :] = 0
        columns.interest_heads[slot, :] = 0
        columns.interest_means[slot, :] = 0
        columns.ring[slot, :] = 0


@native
def _row_bytes(
    sizes: Array, hidden_width: int, n_interests: int, n_pending: int, n_ring: int, mean_bytes: int
) -> int:
    """Return the bytes of a row; `sizes` are those of head, masses, sums, negative."""
    total = (
        HEADER_BYTES
        + hidden_width * 2
        + n_pending * 8
        + n_interests * (_INTEREST_BYTES + mean_bytes)
    )
    for part in sizes:
        total += part
    return (total + n_ring * _RING_BYTES + 7) // 8 * 8


@native
def _copy_in(data: Array, at: int, source: Array, n: int) -> int:
    # A loop from 0 becomes wide moves; assigning slices does not.
    part = data[at : at + n]
    for b in range(n):
        part[b] = source[b]
    return at + n


@native
def _copy_out(data: Array, at: int, target: Array, n: int) -> int:
    part = data[at : at + n]
    for b in range(n):
        target[b] = part[b]
    return at + n


@native
def pack_rows(
    words: Array, slots: Slots, numbers: Array, dim: int, n_sums: int, columns: ByteColumns
) -> Array:
    """Write rows one after another, and return their offsets in words.

    Args:
        words: uint64, large enough for rows with everything in use.
        slots: (n,) of the rows.
        numbers: (C,) HEAD, the same bytes as `columns.head`.
        dim: width of the vectors.
        n_sums: number of half-lives.
        columns: the arena.
    """
    hidden_width = columns.hidden.shape[1] // 2
    offsets = np.zeros(slots.shape[0] + 1, np.int64)
    data = words.view(np.uint8)
    at = 0
    for i in range(slots.shape[0]):
        slot = slots[i]
        n_ring = whole(numbers[slot]["n_ring"])
        n_interests = whole(numbers[slot]["n_slots"])
        n_pending = whole(numbers[slot]["n_pending"])
        start = at
        words[at >> 3] = np.uint64(FORMAT) | (np.uint64(dim) << np.uint64(16))
        words[(at >> 3) + 1] = (
            np.uint64(hidden_width)
            | (np.uint64(n_sums) << np.uint64(16))
            | (np.uint64(n_pending) << np.uint64(24))
            | (np.uint64(n_interests) << np.uint64(32))
            | (np.uint64(n_ring) << np.uint64(40))
        )
        at += HEADER_BYTES
        at = _copy_in(data, at, columns.head[slot], columns.head.shape[1])
        at = _copy_in(data, at, columns.masses[slot], columns.masses.shape[1])
        at = _copy_in(data, at, columns.sums[slot], columns.sums.shape[1])
        at = _copy_in(data, at, columns.negative[slot], columns.negative.shape[1])
        at = _copy_in(data, at, columns.hidden[slot], columns.hidden.shape[1])
        at = _copy_in(data, at, columns.pending[slot], n_pending * 8)
        at = _copy_in(data, at, columns.interest_heads[slot], n_interests * _INTEREST_BYTES)
        at = _copy_in(data, at, columns.interest_means[slot], n_interests * dim * 2)
        at = _copy_in(data, at, columns.ring[slot], n_ring * _RING_BYTES)
        while at % 8:
            data[at] = 0
            at += 1
        seal(words, start >> 3, at >> 3)
        offsets[i + 1] = at >> 3
    return offsets


@native
def _is_finite(row: Array, hidden_width: int, n_numbers: int, n_pending: int) -> bool:
    """Return whether the numbers of a row are finite, but for values of events, which may be NaN.

    Args:
        row: its words, uint64; its length and layout are right.
        hidden_width: numbers of the encoder's state.
        n_numbers: numbers of masses, sums and negative.
        n_pending: entries of `pending`.
    """
    halves, singles, doubles = row.view(np.uint16), row.view(np.float32), row.view(np.float64)
    for field in (3, 4, 5, 8):  # ref_time, first_time, last_time, emitted_at
        if not np.isfinite(doubles[field]):
            return False
    first = (HEADER_BYTES + _HEAD_BYTES) // 4
    if not np.isfinite(singles[first - 2]):  # negative_mass
        return False
    for at in range(first, first + n_numbers):
        if not np.isfinite(singles[at]):
            return False
    first = (first + n_numbers) * 2
    for at in range(first, first + hidden_width):
        if halves[at] & 0x7C00 == 0x7C00:
            return False
    data = row.view(np.uint8)
    at = first * 2 + hidden_width * 2 + n_pending * 8
    for _ in range(whole(data[12])):
        for field in (0, 8):  # ref_time, born
            if _is_odd_double(data, at + field):
                return False
        for field in (24, 28, 36):  # mass, medoid_score, strength_before
            if _is_odd_single(data, at + field):
                return False
        at += _INTEREST_BYTES
    at += whole(data[12]) * 2 * whole((row[0] >> np.uint64(16)) & np.uint64(0xFFFF))
    for _ in range(whole(data[13])):
        if _is_odd_double(data, at + 16) or _is_odd_single(data, at + 24):  # time, weight
            return False
        at += _RING_BYTES
    return True


@native
def _is_odd_double(data: Array, at: int) -> bool:
    return bool(data[at + 7] & 0x7F == 0x7F and data[at + 6] >= 0xF0)


@native
def _is_odd_single(data: Array, at: int) -> bool:
    return bool(data[at + 3] & 0x7F == 0x7F and data[at + 2] >= 0x80)


@native
def check_rows(
    words: Array,
    offsets: Array,
    sizes: Array,
    dim: int,
    n_sums: int,
    most_interests: int,
    most_pending: int,
    most_ring: int,
    newest: int,
) -> tuple[int, int]:
    """Return (position, code) of the first row that cannot be read, or (-1, 0).

    The codes: OTHER_FORMAT, DAMAGED (also for numbers that are not finite), OTHER_LAYOUT,
    NEWER_ARTIFACT for one after `newest`.
    """
    data = words.view(np.uint8)
    counts_at = HEADER_BYTES + _HEAD_BYTES - 4
    for i in range(offsets.shape[0] - 1):
        start = offsets[i]
        end = offsets[i + 1]
        if start == end:
            continue
        if (words[start] & np.uint64(0xFFFF)) != np.uint64(FORMAT):
            return i, OTHER_FORMAT
        if (end - start) * 8 < HEADER_BYTES + _HEAD_BYTES or not is_sealed(words, start, end):
            return i, DAMAGED
        byte = start * 8
        n_pending = whole(data[byte + 11])
        n_interests = whole(data[byte + 12])
        n_ring = whole(data[byte + 13])
        if (
            whole((words[start] >> np.uint64(16)) & np.uint64(0xFFFF)) != dim
            or whole(data[byte + 10]) != n_sums
            or n_pending > most_pending
            or n_interests > most_interests
            or n_ring > most_ring
        ):
            return i, OTHER_LAYOUT
        width = whole(words[start + 1] & np.uint64(0xFFFF))
        expected = _row_bytes(sizes, width, n_interests, n_pending, n_ring, dim * 2)
        if (
            expected != (end - start) * 8
            or whole(data[byte + counts_at]) != n_ring
            or whole(data[byte + counts_at + 1]) != n_interests
            or whole(data[byte + counts_at + 2]) != n_pending
        ):
            return i, DAMAGED
        if not _is_finite(words[start:end], width, n_sums * (dim + 1) + dim, n_pending):
            return i, DAMAGED
        if whole(words[start + _ARTIFACT_WORD] & np.uint64(0xFFFFFFFF)) > newest:
            return i, NEWER_ARTIFACT
    return -1, 0


@native
def unpack_rows(
    slots: Slots,
    words: Array,
    offsets: Array,
    numbers: Array,
    dim: int,
    columns: ByteColumns,
) -> None:
    """Read rows that `check_rows` has passed.

    An encoder's vector of another width is skipped: the row gets zeros, of no encoder.

    Args:
        slots: (n,) target of each row.
        words: uint64, the rows one after another.
        offsets: (n + 1,) in words; an empty row is skipped.
        numbers: (C,) HEAD, the same bytes as `columns.head`.
        dim: width of the vectors.
        columns: the arena, written to.
    """
    data = words.view(np.uint8)
    for i in range(slots.shape[0]):
        if offsets[i] == offsets[i + 1]:
            continue
        slot = slots[i]
        at = offsets[i] * 8
        n_pending = whole(data[at + 11])
        n_interests = whole(data[at + 12])
        n_ring = whole(data[at + 13])
        at += HEADER_BYTES
        at = _copy_out(data, at, columns.head[slot], columns.head.shape[1])
        at = _copy_out(data, at, columns.masses[slot], columns.masses.shape[1])
        at = _copy_out(data, at, columns.sums[slot], columns.sums.shape[1])
        at = _copy_out(data, at, columns.negative[slot], columns.negative.shape[1])
        width = whole(words[offsets[i] + 1] & np.uint64(0xFFFF)) * 2
        if width == columns.hidden.shape[1]:
            at = _copy_out(data, at, columns.hidden[slot], width)
        else:
            at += width
            columns.hidden[slot, :] = 0
            numbers[slot]["encoder"] = 0
        at = _copy_out(data, at, columns.pending[slot], n_pending * 8)
        at = _copy_out(data, at, columns.interest_heads[slot], n_interests * _INTEREST_BYTES)
        at = _copy_out(data, at, columns.interest_means[slot], n_interests * dim * 2)
        at = _copy_out(data, at, columns.ring[slot], n_ring * _RING_BYTES)
