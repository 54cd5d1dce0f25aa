"""Seen sets: the items of a user's events that have left the ring, in bounded space.

Two Bloom filters ("generations") per user. Ids go into the active one; when it has taken
`seen_capacity` of them, the other one is cleared and becomes active. So the last `seen_capacity`
ids at least are always kept, twice that at most; evicted event ids count as well, because a
retraction of an event that left the ring has to be told from one that came before its event.

The bound: with 7 bits an id, a full generation of 1500 ids in 16384 bits answers "seen" for an id
that was not with probability (1 - e^(-7 * 1500 / 16384))^7 = 0.53 %, both together 1.1 %. An id
that was added and is still kept is never missed.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.explained import Explained
from tracker.kernels.native import copy_bytes, native
from tracker.kernels.row_bytes import (
    DAMAGED,
    OTHER_FORMAT,
    OTHER_LAYOUT,
    is_sealed,
    join_rows,
    problem_with,
    refusal,
    seal,
    split_rows,
)
from tracker.users.config import InterestConfig

Array = NDArray[Any]

PROBES = 7
FORMAT = 1
_HEADER_WORDS = 3
_DENSE = 0xFFFF
_EVENT_SALT = np.uint64(0x9E3779B97F4A7C15)


class SeenFormatError(Explained, ValueError):
    """The bytes are not a seen set, are damaged, or of a format number unknown here."""


@native
def _mix(key: np.uint64) -> np.uint64:
    """Spread a 64-bit key. Source: the finalizer of MurmurHash3 by Austin Appleby."""
    key = (key ^ (key >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    key = (key ^ (key >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return key ^ (key >> np.uint64(33))


@native
def event_key(event_id: np.uint64) -> np.uint64:
    """Return the key of an event id, so that event "1" is not taken for item "1"."""
    return _mix(event_id ^ _EVENT_SALT)


@native
def _generation_contains(bits: Array, key: np.uint64) -> bool:
    size = np.uint64(bits.shape[0] * 8)
    mixed = _mix(key)
    place = mixed & np.uint64(0xFFFFFFFF)
    step = (mixed >> np.uint64(32)) | np.uint64(1)
    for _ in range(PROBES):
        bit = ((place & np.uint64(0xFFFFFFFF)) * size) >> np.uint64(32)
        if not (bits[bit >> np.uint64(3)] >> np.uint8(bit & np.uint64(7))) & 1:
            return False
        place += step
    return True


@native
def bloom_contains(bits: Array, key: np.uint64) -> bool:
    """Return whether one of the two generations (2, bytes) has the key (an item's hash)."""
    return _generation_contains(bits[0], key) or _generation_contains(bits[1], key)


@native
def bloom_add(
    bits: Array, counts: Array, active: Array, slot: int, key: np.uint64, capacity: int
) -> None:
    """Add a key to the active generation of a user's row, unless that has it.

    Args:
        bits: (C, 2, bytes) uint8.
        counts: (C, 2) uint32, ids in each generation.
        active: (C,) uint8, the generation that is filled.
        slot: the user's row.
        key: hash of an item, or `event_key` of an event.
        capacity: ids in a generation.
    """
    now = np.int64(active[slot])
    if _generation_contains(bits[slot, now], key):
        return
    if counts[slot, now] >= capacity:
        now = 1 - now
        active[slot] = now
        counts[slot, now] = 0
        bits[slot, now, :] = 0
    row = bits[slot, now]
    size = np.uint64(row.shape[0] * 8)
    mixed = _mix(key)
    place = mixed & np.uint64(0xFFFFFFFF)
    step = (mixed >> np.uint64(32)) | np.uint64(1)
    for _ in range(PROBES):
        bit = ((place & np.uint64(0xFFFFFFFF)) * size) >> np.uint64(32)
        row[bit >> np.uint64(3)] |= np.uint8(1) << np.uint8(bit & np.uint64(7))
        place += step
    counts[slot, now] += 1


@native
def _contains_many(bits: Array, slots: Array, keys: Array, out: Array) -> None:
    for i in range(slots.shape[0]):
        out[i] = slots[i] >= 0 and bloom_contains(bits[slots[i]], keys[i])


@native
def _pack(bits: Array, counts: Array, active: Array, slots: Array, out: Array) -> Array:
    """Write rows into words `out`; their offsets in words."""
    offsets = np.zeros(slots.shape[0] + 1, np.int64)
    size = bits.shape[2]
    data = out.view(np.uint8)
    at = 0
    for i in range(slots.shape[0]):
        slot = slots[i]
        byte = (at + _HEADER_WORDS) * 8
        sparse = np.zeros(2, np.int64)
        for g in range(2):
            n_set = 0
            start = byte
            for b in range(size):
                value = np.int64(bits[slot, g, b])
                if value == 0 or n_set < 0:
                    continue
                for k in range(8):
                    if (value >> k) & 1:
                        if 2 * (n_set + 1) >= size:
                            n_set = -1
                            break
                        place = b * 8 + k
                        data[byte] = place & 255
                        data[byte + 1] = place >> 8
                        byte += 2
                        n_set += 1
            if n_set < 0:
                byte = start + size
                copy_bytes(data, start, bits[slot, g], 0, size)
                n_set = _DENSE
            sparse[g] = n_set
        while byte % 8:
            data[byte] = 0
            byte += 1
        out[at] = np.uint64(FORMAT) | (np.uint64(size // 8) << np.uint64(16))
        out[at + 1] = np.uint64(counts[slot, 0]) | (np.uint64(counts[slot, 1]) << np.uint64(32))
        out[at + 2] = (
            np.uint64(sparse[0])
            | (np.uint64(sparse[1]) << np.uint64(16))
            | (np.uint64(active[slot]) << np.uint64(32))
        )
        end = byte // 8
        seal(out, at, end)
        at = end
        offsets[i + 1] = at
    return offsets


@native
def _check(words: Array, offsets: Array, size: int) -> tuple[int, int]:
    """Return (position, code) of the first row that cannot be read, or (-1, 0)."""
    low = np.uint64(0xFFFF)
    for i in range(offsets.shape[0] - 1):
        start = offsets[i]
        end = offsets[i + 1]
        if start == end:
            continue
        if (words[start] & low) != np.uint64(FORMAT):
            return i, OTHER_FORMAT
        if end - start < _HEADER_WORDS or not is_sealed(words, start, end):
            return i, DAMAGED
        if np.int64((words[start] >> np.uint64(16)) & low) != size // 8:
            return i, OTHER_LAYOUT
        body = 0
        for g in range(2):
            n = int((words[start + 2] >> np.uint64(16 * g)) & low)
            body += size if n == _DENSE else 2 * n
        if (words[start + 2] >> np.uint64(32)) > np.uint64(1):
            return i, DAMAGED
        if start + _HEADER_WORDS + (body + 7) // 8 != end:
            return i, DAMAGED
    return -1, 0


@native
def _unpack(
    bits: Array, counts: Array, active: Array, slots: Array, words: Array, offsets: Array
) -> None:
    """Read rows that `_check` has passed."""
    size = bits.shape[2]
    data = words.view(np.uint8)
    low = np.uint64(0xFFFF)
    for i in range(slots.shape[0]):
        slot = slots[i]
        bits[slot] = 0
        counts[slot] = 0
        active[slot] = 0
        start = offsets[i]
        if start == offsets[i + 1]:
            continue
        counts[slot, 0] = words[start + 1] & np.uint64(0xFFFFFFFF)
        counts[slot, 1] = words[start + 1] >> np.uint64(32)
        active[slot] = np.uint8(words[start + 2] >> np.uint64(32))
        byte = (start + _HEADER_WORDS) * 8
        for g in range(2):
            n = np.int64((words[start + 2] >> np.uint64(16 * g)) & low)
            if n == _DENSE:
                copy_bytes(bits[slot, g], 0, data, byte, size)
                byte += size
            else:
                for _ in range(n):
                    place = np.int64(data[byte]) | (np.int64(data[byte + 1]) << 8)
                    if place < size * 8:
                        bits[slot, g, place >> 3] |= np.uint8(1 << (place & 7))
                    byte += 2


class SeenSets:
    """Rows of seen sets, for users whose ring has overflowed. The caller knows whose each row is.

    `bits` (C, 2, seen_bits / 8) uint8, `counts` (C, 2) uint32, `active` (C,) uint8.
    """

    def __init__(self, config: InterestConfig, capacity: int) -> None:
        self.config = config
        self.bits = np.zeros((capacity, 2, config.seen_bits // 8), np.uint8)
        self.counts = np.zeros((capacity, 2), np.uint32)
        self.active = np.zeros(capacity, np.uint8)
        self._free = list(range(capacity - 1, -1, -1))

    @property
    def capacity(self) -> int:
        """Return the number of rows, used or free."""
        return len(self.active)

    def grow(self, capacity: int) -> None:
        """Make room for at least `capacity` rows; those there keep their places."""
        old = self.capacity
        if capacity <= old:
            return
        for name in ("bits", "counts", "active"):
            column = getattr(self, name)
            larger = np.zeros((capacity, *column.shape[1:]), column.dtype)
            larger[:old] = column
            setattr(self, name, larger)
        self._free[:0] = range(capacity - 1, old - 1, -1)

    def copy_row(self, slot: int) -> "SeenSets":
        """Return one row as the only one, which later additions do not change."""
        rows = SeenSets(self.config, 0)
        for name in ("bits", "counts", "active"):
            setattr(rows, name, getattr(self, name)[slot : slot + 1].copy())
        return rows

    def allocate(self, n: int) -> NDArray[np.int64]:
        """Return n free rows, cleared, growing if there are too few."""
        if n > len(self._free):
            self.grow(max(2 * self.capacity, self.capacity + n - len(self._free)))
        return np.array([self._free.pop() for _ in range(n)], np.int64)

    def release(self, slots: NDArray[np.int64]) -> None:
        """Release rows and clear them; entries of -1 are skipped."""
        slots = slots[slots >= 0]
        self.clear(slots)
        self._free.extend(slots.tolist())

    def clear(self, slots: NDArray[np.int64]) -> None:
        """Empty rows."""
        self.bits[slots] = 0
        self.counts[slots] = 0
        self.active[slots] = 0

    def add(self, slot: int, key: int) -> None:
        """Add a key: an item's hash, or `event_key` of an event."""
        bloom_add(
            self.bits, self.counts, self.active, slot, np.uint64(key), self.config.seen_capacity
        )

    def contains(self, slot: int, key: int) -> bool:
        """Return whether the row has the key; see the module for how often wrongly so."""
        return slot >= 0 and bool(bloom_contains(self.bits[slot], np.uint64(key)))

    def contains_many(
        self, slots: NDArray[np.int64], keys: NDArray[np.uint64]
    ) -> NDArray[np.bool_]:
        """Return for each (slot, key) pair (M,) whether it is there; False for slot -1."""
        out = np.zeros(len(slots), np.bool_)
        _contains_many(self.bits, slots, keys, out)
        return out

    def pack(self, slots: NDArray[np.int64]) -> list[bytes]:
        """Return rows as bytes: only the places of set bits while these are few.

        Word 0: format, seen_bits / 64, checksum; word 1: ids in each generation; word 2: set bits
        of each (65535: all bits follow), the active one; then places (uint16) or bits.
        """
        words_each = _HEADER_WORDS + 2 * (self.config.seen_bits // 64)
        out = np.zeros(len(slots) * words_each, np.uint64)
        return split_rows(out, _pack(self.bits, self.counts, self.active, slots, out))

    def problem_of(self, row: bytes) -> str | None:
        """Return why a row cannot be read: damaged, newer, older, layout; None if it can."""
        words, offsets, bad = join_rows([row])
        code = DAMAGED
        if bad < 0:
            bad, code = _check(words, offsets, self.bits.shape[2])
        if bad < 0:
            return None
        return "layout" if code == OTHER_LAYOUT else problem_with(row, FORMAT)

    def unpack(self, slots: NDArray[np.int64], rows: Sequence[bytes | None]) -> None:
        """Read rows into slots; None empties one. Nothing is written if one is refused.

        Raises:
            SeenFormatError: another format number or size, or a damaged row; its position named.
        """
        words, offsets, bad = join_rows(rows)
        code = DAMAGED
        if bad < 0:
            bad, code = _check(words, offsets, self.bits.shape[2])
        if bad >= 0:
            where, row = f"seen set {bad} of {len(rows)}", rows[bad] or b""
            if code == OTHER_LAYOUT:
                raise SeenFormatError(
                    f"{where} has {int.from_bytes(row[2:4], 'little') * 64} bits;"
                    f" {self.config.seen_bits} are expected"
                )
            raise SeenFormatError(refusal(where, row, code, FORMAT))
        _unpack(self.bits, self.counts, self.active, slots, words, offsets)
