"""UserStates: all we keep of each user, as rows of arrays, to and from bytes.

The arena holds the stored types, so that a restart changes nothing. In memory a row has its full
size; as bytes, what is not in use is left out.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.interest import SLOT, InterestConfig, decay, slot_strength, unit_mean, whole
from tracker.native import native
from tracker.row_bytes import describe_format, is_sealed, join_rows, seal, split_rows

Array = NDArray[Any]
Slots = NDArray[np.int64]

FORMAT = 1

RING_IN_SUMS = 1
"""Flag of a ring entry: its item was known, and its content is in the sums."""
RING_RETRACTED = 2
"""Flag of a ring entry: it was taken out again, and is kept so that its id is recognised."""
RING_UNKNOWN = 4
"""Flag of a ring entry: its item was not in the catalogue when it came."""

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
        ("flags", "<u4"),  # free
        ("events", "<u4"),  # counted now: applied and not retracted
        ("positives", "<u4"),  # of these: positive weight
        ("negatives", "<u4"),  # of these: negative weight
        ("unknown", "<u4"),  # of these: item not in the catalogue when it came
        ("known_positives", "<u4"),  # of these: positive and in the sums
        ("retracted", "<u4"),  # events taken out, or retracted on arrival
        ("too_old", "<u4"),  # retractions of events that had left, or that waited in vain
        ("duplicates", "<u4"),  # repeats of an event id in the ring
        ("evicted", "<u4"),  # ring entries that moved to the seen set
        ("last_scene", "<u4"),  # scene code of the latest event to arrive
        ("negative_mass", "<f4"),  # sum of decayed |weight| of negative events
        ("n_ring", "u1"),  # ring entries in use
        ("n_slots", "u1"),  # slots in use
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
        (
            "flags",
            "<u2",
        ),  # RING_*; bits 8-15: events between it and its retraction
    ]
)
"""One recent event; in order of arrival, the latest last."""

_HEADER = np.dtype(
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
_HEADER_BYTES = _HEADER.itemsize
_HEAD_BYTES = HEAD.itemsize
_SLOT_BYTES = SLOT.itemsize
_RING_BYTES = RING.itemsize


class StateFormatError(ValueError):
    """The bytes are not a user row, are damaged, or of a format or layout unknown here."""


def row_dtype(config: InterestConfig) -> np.dtype[np.void]:
    """Return the layout of a row with everything in use, in the order of its bytes.

    Stored rows leave out slots and ring entries that are not in use, and end on 8 bytes.
    """
    h, d = len(config.half_lives_seconds), config.dim
    fields: list[tuple[str, Any, Any]] = [
        ("header", _HEADER, ()),
        ("head", HEAD, ()),
        ("masses", "<f4", (h,)),
        ("sums", "<f4", (h, d)),
        ("negative", "<f4", (d,)),
        ("hidden", "<f2", (config.hidden,)),
        ("pending", "<u8", (config.pending,)),
        ("slots", SLOT, (config.slots,)),
        ("slot_means", "<i2", (config.slots, d)),
        ("ring", RING, (config.ring,)),
    ]
    return np.dtype(fields)


def row_bytes_max(config: InterestConfig) -> int:
    """Return the bytes of a row with everything in use."""
    return -(-row_dtype(config).itemsize // 8) * 8


@native
def _row_bytes(sizes: Array, n_slots: int, n_pending: int, n_ring: int, mean_bytes: int) -> int:
    """Return the bytes of a row; `sizes` are those of head, masses, sums, negative, hidden."""
    total = _HEADER_BYTES + n_pending * 8 + n_slots * (_SLOT_BYTES + mean_bytes)
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
def _pack(
    words: Array,
    slots: Slots,
    numbers: Array,
    dim: int,
    n_sums: int,
    hidden_width: int,
    head: Array,
    masses: Array,
    sums: Array,
    negative: Array,
    hidden: Array,
    pending: Array,
    slot_head: Array,
    slot_mean: Array,
    ring: Array,
) -> Array:
    """Write rows, given as bytes (C, size), into words; their offsets in words."""
    offsets = np.zeros(slots.shape[0] + 1, np.int64)
    data = words.view(np.uint8)
    at = 0
    for i in range(slots.shape[0]):
        slot = slots[i]
        n_ring = whole(numbers[slot]["n_ring"])
        n_slots = whole(numbers[slot]["n_slots"])
        n_pending = whole(numbers[slot]["n_pending"])
        start = at
        words[at >> 3] = np.uint64(FORMAT) | (np.uint64(dim) << np.uint64(16))
        words[(at >> 3) + 1] = (
            np.uint64(hidden_width)
            | (np.uint64(n_sums) << np.uint64(16))
            | (np.uint64(n_pending) << np.uint64(24))
            | (np.uint64(n_slots) << np.uint64(32))
            | (np.uint64(n_ring) << np.uint64(40))
        )
        at += _HEADER_BYTES
        at = _copy_in(data, at, head[slot], head.shape[1])
        at = _copy_in(data, at, masses[slot], masses.shape[1])
        at = _copy_in(data, at, sums[slot], sums.shape[1])
        at = _copy_in(data, at, negative[slot], negative.shape[1])
        at = _copy_in(data, at, hidden[slot], hidden.shape[1])
        at = _copy_in(data, at, pending[slot], n_pending * 8)
        at = _copy_in(data, at, slot_head[slot], n_slots * _SLOT_BYTES)
        at = _copy_in(data, at, slot_mean[slot], n_slots * dim * 2)
        at = _copy_in(data, at, ring[slot], n_ring * _RING_BYTES)
        while at % 8:
            data[at] = 0
            at += 1
        seal(words, start >> 3, at >> 3)
        offsets[i + 1] = at >> 3
    return offsets


@native
def _check(
    words: Array,
    offsets: Array,
    sizes: Array,
    dim: int,
    n_sums: int,
    hidden_width: int,
    most_slots: int,
    most_pending: int,
    most_ring: int,
) -> tuple[int, int]:
    """Return (position, code) of the first row that cannot be read, or (-1, 0)."""
    data = words.view(np.uint8)
    counts_at = _HEADER_BYTES + _HEAD_BYTES - 4
    for i in range(offsets.shape[0] - 1):
        start = offsets[i]
        end = offsets[i + 1]
        if start == end:
            continue
        if (words[start] & np.uint64(0xFFFF)) != np.uint64(FORMAT):
            return i, 1
        if (end - start) * 8 < _HEADER_BYTES + _HEAD_BYTES or not is_sealed(words, start, end):
            return i, 2
        byte = start * 8
        n_pending = whole(data[byte + 11])
        n_slots = whole(data[byte + 12])
        n_ring = whole(data[byte + 13])
        if (
            whole((words[start] >> np.uint64(16)) & np.uint64(0xFFFF)) != dim
            or whole(words[start + 1] & np.uint64(0xFFFF)) != hidden_width
            or whole(data[byte + 10]) != n_sums
            or n_pending > most_pending
            or n_slots > most_slots
            or n_ring > most_ring
        ):
            return i, 3
        expected = _row_bytes(sizes, n_slots, n_pending, n_ring, dim * 2)
        if (
            expected != (end - start) * 8
            or whole(data[byte + counts_at]) != n_ring
            or whole(data[byte + counts_at + 1]) != n_slots
            or whole(data[byte + counts_at + 2]) != n_pending
        ):
            return i, 2
    return -1, 0


@native
def _unpack(
    slots: Slots,
    words: Array,
    offsets: Array,
    dim: int,
    head: Array,
    masses: Array,
    sums: Array,
    negative: Array,
    hidden: Array,
    pending: Array,
    slot_head: Array,
    slot_mean: Array,
    ring: Array,
) -> None:
    """Read rows that `_check` has passed into arrays given as bytes (C, size)."""
    data = words.view(np.uint8)
    for i in range(slots.shape[0]):
        if offsets[i] == offsets[i + 1]:
            continue
        slot = slots[i]
        at = offsets[i] * 8
        n_pending = whole(data[at + 11])
        n_slots = whole(data[at + 12])
        n_ring = whole(data[at + 13])
        at += _HEADER_BYTES
        at = _copy_out(data, at, head[slot], head.shape[1])
        at = _copy_out(data, at, masses[slot], masses.shape[1])
        at = _copy_out(data, at, sums[slot], sums.shape[1])
        at = _copy_out(data, at, negative[slot], negative.shape[1])
        at = _copy_out(data, at, hidden[slot], hidden.shape[1])
        at = _copy_out(data, at, pending[slot], n_pending * 8)
        at = _copy_out(data, at, slot_head[slot], n_slots * _SLOT_BYTES)
        at = _copy_out(data, at, slot_mean[slot], n_slots * dim * 2)
        at = _copy_out(data, at, ring[slot], n_ring * _RING_BYTES)


_COLUMNS = (
    "head",
    "masses",
    "sums",
    "negative",
    "hidden",
    "pending",
    "slot_head",
    "slot_mean",
    "ring",
)


class UserStates:
    """The arena: one row a user, a column a field. Which user has which row is not known here.

    `head` (C,) HEAD; `masses` (C, H) and `sums` (C, H, D) float32, one a half-life; `negative`
    (C, D) float32; `hidden` (C, Hd) float16; `pending` (C, P) uint64, ids of events whose
    retraction came first, oldest first; `slot_head` (C, S) SLOT; `slot_mean` (C, S, D) int16 in
    units of 1 / FIXED_ONE; `ring` (C, R) RING. What lies beyond `n_ring`, `n_slots` and
    `n_pending` of the head means nothing. A cleared row is zero, with offsets of -1.
    """

    head: Array
    masses: Array
    sums: Array
    negative: Array
    hidden: Array
    pending: Array
    slot_head: Array
    slot_mean: Array
    ring: Array

    def __init__(self, config: InterestConfig, capacity: int) -> None:
        h, d, s = len(config.half_lives_seconds), config.dim, config.slots
        self.config = config
        self.head = np.zeros(capacity, HEAD)
        self.head["last_offset"] = -1
        self.head["emitted_offset"] = -1
        self.masses = np.zeros((capacity, h), np.float32)
        self.sums = np.zeros((capacity, h, d), np.float32)
        self.negative = np.zeros((capacity, d), np.float32)
        self.hidden = np.zeros((capacity, config.hidden), np.float16)
        self.pending = np.zeros((capacity, config.pending), np.uint64)
        self.slot_head = np.zeros((capacity, s), SLOT)
        self.slot_mean = np.zeros((capacity, s, d), np.int16)
        self.ring = np.zeros((capacity, config.ring), RING)

    @property
    def capacity(self) -> int:
        """Return the number of rows."""
        return len(self.head)

    def grow(self, capacity: int) -> None:
        """Make room for at least `capacity` rows; those there keep their places."""
        old = self.capacity
        if capacity <= old:
            return
        larger = UserStates(self.config, capacity)
        for name in _COLUMNS:
            getattr(larger, name)[:old] = getattr(self, name)
            setattr(self, name, getattr(larger, name))

    def clear(self, slots: Slots) -> None:
        """Make rows those of users of whom nothing is known."""
        for name in _COLUMNS:
            getattr(self, name)[slots] = np.zeros((), getattr(self, name).dtype)
        self.head["last_offset"][slots] = -1
        self.head["emitted_offset"][slots] = -1

    def copy_rows(self, slots: Slots) -> "UserStates":
        """Return rows (n,) as an arena of their own, which later events do not change."""
        copy = UserStates(self.config, 0)
        for name in _COLUMNS:
            setattr(copy, name, getattr(self, name)[slots])
        return copy

    def _columns_as_bytes(self) -> list[Array]:
        n = self.capacity
        return [
            np.zeros((n, 0), np.uint8)
            if not getattr(self, name).size
            else getattr(self, name).reshape(n, -1).view(np.uint8).reshape(n, -1)
            for name in _COLUMNS
        ]

    def _sizes(self) -> NDArray[np.int64]:
        names = _COLUMNS[:5]
        return np.array(
            [
                getattr(self, name).dtype.itemsize * int(np.prod(getattr(self, name).shape[1:]))
                for name in names
            ],
            np.int64,
        )

    def pack_buffer(self, slots: Slots) -> tuple[Array, NDArray[np.int64]]:
        """Write rows one after another; without Python's lock, so it can run in a worker thread.

        Returns:
            words uint64 and offsets (n + 1,) int64 in words, for `split_rows`.
        """
        words = np.empty(len(slots) * row_bytes_max(self.config) // 8, np.uint64)
        config = self.config
        offsets = _pack(
            words,
            slots,
            self.head,
            config.dim,
            len(config.half_lives_seconds),
            config.hidden,
            *self._columns_as_bytes(),
        )
        return words, offsets

    def pack(self, slots: Slots) -> list[bytes]:
        """Return rows as bytes; see `row_dtype` for their layout."""
        return split_rows(*self.pack_buffer(slots))

    def unpack(self, slots: Slots, rows: Sequence[bytes | None]) -> None:
        """Read rows into slots; None clears one. Nothing is written where one is refused.

        Raises:
            StateFormatError: another format number or layout, or a damaged row; its position in
                `rows`, found and expected are named.
        """
        words, offsets, bad = join_rows(rows)
        config = self.config
        n_sums = len(config.half_lives_seconds)
        code = 2
        if bad < 0:
            bad, code = _check(
                words,
                offsets,
                self._sizes(),
                config.dim,
                n_sums,
                config.hidden,
                config.slots,
                config.pending,
                config.ring,
            )
        if bad >= 0:
            raise self._refusal(bad, code, rows)
        empty = offsets[1:] == offsets[:-1]
        if empty.any():
            self.clear(slots[empty])
        _unpack(slots, words, offsets, config.dim, *self._columns_as_bytes())

    def _refusal(self, bad: int, code: int, rows: Sequence[bytes | None]) -> StateFormatError:
        row = rows[bad] or b""
        where = f"user row {bad} of {len(rows)}"
        found = describe_format(row)
        if code == 1 or found not in (-1, FORMAT):
            return StateFormatError(
                f"{where} has format {found}; format {FORMAT} is expected"
                " (was it written by a newer version?)"
            )
        if code == 3:
            header = np.frombuffer(row, _HEADER, 1)[0]
            config = self.config
            return StateFormatError(
                f"{where} is laid out for dim {header['dim']}, {header['n_sums']} half-lives,"
                f" hidden {header['hidden']}, {header['n_slots']} slots, {header['n_ring']} ring"
                f" entries, {header['n_pending']} pending; dim {config.dim},"
                f" {len(config.half_lives_seconds)} half-lives, hidden {config.hidden}, at most"
                f" {config.slots}, {config.ring} and {config.pending} are expected"
                " (is this the artifact it was made with?)"
            )
        return StateFormatError(
            f"{where}, {len(row)} bytes, is damaged: its checksum or length does not agree"
        )


@native
def _slot_strengths(
    slots: Slots,
    now: Array,
    head: Array,
    slot_head: Array,
    half_life_seconds: float,
    strengths: Array,
    changes: Array,
) -> None:
    for i in range(slots.shape[0]):
        slot = slots[i]
        for s in range(whole(head[slot]["n_slots"])):
            strength, change = slot_strength(slot_head[slot, s], now[i], half_life_seconds)
            strengths[i, s] = strength
            changes[i, s] = change


def slot_strengths(states: UserStates, slots: Slots, now: Array) -> tuple[Array, Array]:
    """Return the strength of each slot at `now` (B,), and its change since a day before.

    Returns:
        decayed masses (B, S) float32, 0 for slots not in use, and changes (B, S) float32; see
        `interest.slot_strength` for what is taken for the day before.
    """
    strengths = np.zeros((len(slots), states.config.slots), np.float32)
    changes = np.zeros_like(strengths)
    half_life = states.config.slot_half_life_seconds
    _slot_strengths(slots, now, states.head, states.slot_head, half_life, strengths, changes)
    return strengths, changes


@native
def _slot_vectors(slots: Slots, head: Array, slot_mean: Array, out: Array) -> None:
    for i in range(slots.shape[0]):
        for s in range(whole(head[slots[i]]["n_slots"])):
            unit_mean(slot_mean[slots[i], s], out[i, s])


def slot_vectors(states: UserStates, slots: Slots) -> Array:
    """Return the slots' means as unit vectors (B, S, D) float32; zeros where not in use."""
    out = np.zeros((len(slots), *states.slot_mean.shape[1:]), np.float32)
    _slot_vectors(slots, states.head, states.slot_mean, out)
    return out


@native
def _sum_masses(
    slots: Slots, now: Array, head: Array, masses: Array, half_lives: Array, out: Array
) -> None:
    for i in range(slots.shape[0]):
        age = now[i] - head[slots[i]]["ref_time"]
        for h in range(masses.shape[1]):
            out[i, h] = masses[slots[i], h] * decay(age, half_lives[h])


def sum_masses(states: UserStates, slots: Slots, now: Array) -> Array:
    """Return the masses (B, H) float32 as decayed at `now` (B,)."""
    out = np.zeros((len(slots), states.masses.shape[1]), np.float32)
    half_lives = np.array(states.config.half_lives_seconds)
    _sum_masses(slots, now, states.head, states.masses, half_lives, out)
    return out


@native
def _ring_recent(
    slots: Slots, head: Array, ring: Array, items: Array, weights: Array, times: Array, n: Array
) -> None:
    for i in range(slots.shape[0]):
        found = 0
        for r in range(whole(head[slots[i]]["n_ring"]) - 1, -1, -1):
            entry = ring[slots[i], r]
            if entry["flags"] & RING_RETRACTED:
                continue
            items[i, found] = entry["item"]
            weights[i, found] = entry["weight"]
            times[i, found] = entry["time"]
            found += 1
        n[i] = found


def ring_recent(states: UserStates, slots: Slots) -> tuple[Array, Array, Array, Array]:
    """Return what the rings hold and was not retracted, latest arrival first.

    Returns:
        item hashes (B, R) uint64, weights (B, R) float32, times (B, R) float64, zeros beyond the
        numbers of entries (B,) int64.
    """
    shape = (len(slots), states.config.ring)
    items, weights = np.zeros(shape, np.uint64), np.zeros(shape, np.float32)
    times, n = np.zeros(shape), np.zeros(len(slots), np.int64)
    _ring_recent(slots, states.head, states.ring, items, weights, times, n)
    return items, weights, times, n
