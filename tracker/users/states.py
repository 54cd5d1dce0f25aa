"""States of users as rows of arrays, to and from bytes.

The arena holds the stored types, so that a restart changes nothing. In memory a row has its full
size; as bytes, what is not in use is left out.
"""

from collections.abc import Sequence
from copy import copy as shallow_copy
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.explained import Explained
from tracker.kernels.room import Room
from tracker.kernels.row_bytes import (
    DAMAGED,
    NEWER_ARTIFACT,
    OTHER_LAYOUT,
    Slots,
    join_rows,
    problem_with,
    refusal,
    split_rows,
)
from tracker.users.config import InterestConfig
from tracker.users.interests import INTEREST
from tracker.users.layout import (
    FORMAT,
    HEAD,
    HEADER,
    RING,
    ByteColumns,
    check_rows,
    clear_rows,
    pack_rows,
    unpack_rows,
)

Array = NDArray[Any]

RING_IN_SUMS = 1
"""Flag of a ring entry: its item was known, and its content is in the sums."""
RING_RETRACTED = 2
"""Flag of a ring entry: it was taken out again, and is kept so that its id is recognised."""
RING_UNKNOWN = 4
"""Flag of a ring entry: its item was not in the catalogue when it came."""
RING_BEFORE_BITS = 5
"""Bits of a ring entry's flags, above the three flags, with a number: the newer events of the ring
that had come before it."""
RING_BEFORE_MOST = (1 << RING_BEFORE_BITS) - 1
"""The largest such number; it stands for larger ones too, which only rings of over 32 can have."""
RING_NOT_OF_ITEM = 1 << 15
"""Flag of a ring entry: its item was not told, since the user had added enough to it."""


class StateFormatError(Explained, ValueError):
    """The bytes are not a user row, are damaged, or of a format or layout unknown here."""


class NewerArtifactError(Explained):
    """A row was written with a newer artifact than it may be read with; that is `sequence`.

    Read with an older one, it would lose what the newer one's user encoder and basis hold.
    """

    def __init__(self, what: str, sequence: int, newest: int) -> None:
        super().__init__(
            f"{what} was written with artifact {sequence}; at most {newest}, which is in use, is"
            f" expected. Nothing was changed: ask again once artifact {sequence} is in use"
            " (`indexer list` shows which one LATEST names)"
        )
        self.sequence = sequence


ANY_ARTIFACT = 2**32 - 1
"""No artifact is newer than that."""


def row_dtype(config: InterestConfig, hidden: int = 0) -> np.dtype[np.void]:
    """Return the layout of a row with everything in use, field by field.

    Stored rows leave out interests and ring entries that are not in use, and end on 8 bytes.
    `hidden` is the width of the user encoder's state, which an artifact has that was trained.
    """
    h, d = len(config.half_lives_seconds), config.dim
    fields: list[tuple[str, Any, Any]] = [
        ("header", HEADER, ()),
        ("head", HEAD, ()),
        ("masses", "<f4", (h,)),
        ("sums", "<f4", (h, d)),
        ("negative", "<f4", (d,)),
        ("hidden", "<f2", (hidden,)),
        ("pending", "<u8", (config.pending,)),
        ("slots", INTEREST, (config.slots,)),
        ("slot_means", "<i2", (config.slots, d)),
        ("ring", RING, (config.ring,)),
    ]
    return np.dtype(fields)


def row_bytes_max(config: InterestConfig, hidden: int = 0) -> int:
    """Return the bytes of a row with everything in use."""
    return -(-row_dtype(config, hidden).itemsize // 8) * 8


_COLUMNS = ByteColumns._fields


class UserStates:
    """The arena of users: a row per user, a column per field. The caller knows whose each row is.

    `head` (C,) HEAD; `masses` (C, H) and `sums` (C, H, D) float32, one a half-life; `negative`
    (C, D) float32; `hidden` (C, E) float16, a user encoder's states; `pending` (C, P) uint64, ids
    of events whose retraction came first, oldest first; `interest_heads` (C, S) INTEREST;
    `interest_means` (C, S, D) int16 in units of 1 / FIXED_ONE; `ring` (C, R) RING. What lies beyond
    `n_ring`, `n_slots` (interests) and `n_pending` of the head means nothing. A cleared row is
    zero, with offsets of -1.

    Args:
        config: of the artifact.
        capacity: rows at the beginning.
        hidden: width of the user encoder's states.
        most: rows up to which growth copies nothing.
    """

    head: Array
    masses: Array
    sums: Array
    negative: Array
    hidden: Array
    pending: Array
    interest_heads: Array
    interest_means: Array
    ring: Array

    def __init__(
        self, config: InterestConfig, capacity: int, hidden: int = 0, most: int = 0
    ) -> None:
        h, d, s = len(config.half_lives_seconds), config.dim, config.slots
        self.config = config
        self.head = np.zeros(capacity, HEAD)
        self.head["last_offset"] = -1
        self.head["emitted_offset"] = -1
        self.masses = np.zeros((capacity, h), np.float32)
        self.sums = np.zeros((capacity, h, d), np.float32)
        self.negative = np.zeros((capacity, d), np.float32)
        self.hidden = np.zeros((capacity, hidden), np.float16)
        self.pending = np.zeros((capacity, config.pending), np.uint64)
        self.interest_heads = np.zeros((capacity, s), INTEREST)
        self.interest_means = np.zeros((capacity, s, d), np.int16)
        self.ring = np.zeros((capacity, config.ring), RING)
        self._room = Room(most)
        self._bytes: ByteColumns | None = None  # of the arrays there are now

    @property
    def capacity(self) -> int:
        """Return the number of rows."""
        return len(self.head)

    def grow(self, capacity: int) -> None:
        """Make room for at least `capacity` rows; those there keep their places."""
        old = self.capacity
        if capacity <= old:
            return
        for name in _COLUMNS:
            setattr(self, name, self._room.longer(name, getattr(self, name), capacity))
        self._bytes = None
        self.head["last_offset"][old:] = -1
        self.head["emitted_offset"][old:] = -1

    def set_hidden(self, width: int) -> None:
        """Set the width of the encoder's states; if it changes they are zeros until rebuilt."""
        if width != self.hidden.shape[1]:
            self.hidden = np.zeros((self.capacity, width), np.float16)
            self.head["encoder"] = 0
            self._bytes = None

    def clear(self, slots: Slots) -> None:
        """Reset rows to those of users without events."""
        clear_rows(slots, self._as_bytes())
        self.head["last_offset"][slots] = -1
        self.head["emitted_offset"][slots] = -1

    def copy_rows(self, slots: Slots | slice) -> "UserStates":
        """Return rows (n,) as an arena of their own, which later events do not change."""
        copy = shallow_copy(self)
        copy._room, copy._bytes = Room(), None
        for name in _COLUMNS:
            setattr(copy, name, np.array(getattr(self, name)[slots]))
        return copy

    def put_rows(self, start: int, states: "UserStates", slots: Slots) -> None:
        """Copy B rows of the same layout into those from `start` on."""
        end = start + len(slots)
        for mine, theirs in zip(self._as_bytes(), states._as_bytes(), strict=True):
            theirs.take(slots, 0, mine[start:end], "clip")  # "raise" would copy twice

    def _as_bytes(self) -> ByteColumns:
        if self._bytes is None:
            columns = [getattr(self, name) for name in _COLUMNS]
            self._bytes = ByteColumns(
                *(
                    column.reshape(len(column), prod(column.shape[1:])).view(np.uint8)
                    for column in columns
                )
            )
        return self._bytes

    def pack_buffer(self, slots: Slots) -> tuple[Array, NDArray[np.int64]]:
        """Write rows one after another; without Python's lock, so it can run in a worker thread.

        Returns:
            words uint64 and offsets (n + 1,) int64 in words, for `split_rows`.
        """
        words = np.empty(
            len(slots) * row_bytes_max(self.config, self.hidden.shape[1]) // 8, np.uint64
        )
        config = self.config
        offsets = pack_rows(
            words,
            slots,
            self.head,
            config.dim,
            len(config.half_lives_seconds),
            self._as_bytes(),
        )
        return words, offsets

    def pack(self, slots: Slots) -> list[bytes]:
        """Return rows as bytes; see `row_dtype` for their layout."""
        return split_rows(*self.pack_buffer(slots))

    def unpack(
        self, slots: Slots, rows: Sequence[bytes | None], newest: int = ANY_ARTIFACT
    ) -> None:
        """Read rows into slots; None clears one. Nothing is written if one is refused.

        Args:
            slots: (n,) target of each row.
            rows: n rows as `pack` gave them.
            newest: number of the newest artifact that a row may have been written with.

        Raises:
            StateFormatError: another format number or layout, or a damaged row; its position in
                `rows`, found and expected are named.
            NewerArtifactError: a row was written with an artifact after `newest`.
        """
        words, offsets, bad = join_rows(rows)
        config = self.config
        code = DAMAGED
        if bad < 0:
            bad, code = self._check(words, offsets, newest)
        if code == NEWER_ARTIFACT:
            head = np.frombuffer(rows[bad] or b"", HEAD, 1, HEADER.itemsize)
            raise NewerArtifactError(
                f"user row {bad} of {len(rows)}", int(head["artifact"][0]), newest
            )
        if bad >= 0:
            where, row = f"user row {bad} of {len(rows)}", rows[bad] or b""
            if code == OTHER_LAYOUT:
                raise StateFormatError(self._other_layout(where, row))
            raise StateFormatError(refusal(where, row, code, FORMAT))
        empty = offsets[1:] == offsets[:-1]
        if empty.any():
            self.clear(slots[empty])
        unpack_rows(slots, words, offsets, self.head, config.dim, self._as_bytes())

    def problem_of(self, row: bytes) -> str | None:
        """Return why a row cannot be read: damaged, newer, older, layout; None if it can."""
        words, offsets, bad = join_rows([row])
        code = DAMAGED
        if bad < 0:
            bad, code = self._check(words, offsets, ANY_ARTIFACT)
        if bad < 0:
            return None
        return "layout" if code == OTHER_LAYOUT else problem_with(row, FORMAT)

    def _check(self, words: Array, offsets: NDArray[np.int64], newest: int) -> tuple[int, int]:
        config = self.config
        return check_rows(
            words,
            offsets,
            np.array([column.shape[1] for column in self._as_bytes()[:4]], np.int64),
            config.dim,
            len(config.half_lives_seconds),
            config.slots,
            config.pending,
            config.ring,
            newest,
        )

    def _other_layout(self, where: str, row: bytes) -> str:
        header, config = np.frombuffer(row, HEADER, 1)[0], self.config
        return (
            f"{where} is laid out for dim {header['dim']}, {header['n_sums']} half-lives,"
            f" {header['n_slots']} interests, {header['n_ring']} ring entries,"
            f" {header['n_pending']} pending; dim {config.dim},"
            f" {len(config.half_lives_seconds)} half-lives, at most {config.slots},"
            f" {config.ring} and {config.pending} are expected"
            " (is this the artifact it was made with?)"
        )
