"""ItemStates: all we keep of each item, as rows of arrays, to and from bytes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.explained import Explained
from tracker.items.config import ItemCounts
from tracker.items.layout import (
    COUNTED,
    COUNTED_WORDS,
    FORMAT,
    HEAD_WORDS,
    ITEM_HEAD,
    NEIGHBOUR,
    NEIGHBOUR_WORDS,
    NEIGHBOURS,
    ROW_BYTES_MAX,
    SCENE,
    SCENE_WORDS,
    SCENES,
    RowArrays,
    check_items,
    clear_items,
    fit_row,
    pack_items,
    unpack_items,
)
from tracker.kernels.native import native
from tracker.kernels.room import Room
from tracker.kernels.row_bytes import (
    DAMAGED,
    Slots,
    join_rows,
    problem_with,
    refusal,
    split_rows,
)

Array = NDArray[Any]


class ItemStateFormatError(Explained, ValueError):
    """The bytes are not an item row, are damaged, or of a format number unknown here."""


def problem_of(row: bytes) -> str | None:
    """Return why a row cannot be read, `damaged`, `newer` or `older`; None if it can."""
    words, offsets, bad = join_rows([row])
    if bad < 0 and check_items(words, offsets)[0] < 0:
        return None
    return problem_with(row, FORMAT)


class StateColumns(NamedTuple):
    """The columns of an ItemStates, with the counts and weights of its rows; see there."""

    head: Array
    counts: Array
    weights: Array
    scenes: Array
    neighbours: Array
    half_lives: Array


class ItemStates:
    """The arena of items. Which item has which row is not known here, but each row names its item.

    `head` (C,) ITEM_HEAD, `counted` (C, H) COUNTED by the half-lives of `scales`, `scenes` (C,
    SCENES) SCENE, `neighbours` (C, NEIGHBOURS) NEIGHBOUR; what lies beyond `n_scenes` and
    `n_neighbours` means nothing. A cleared row is zero, its first and last time NaN.

    Args:
        capacity: number of rows.
        scales: half-lives of the counts.
        most: rows up to which growth copies nothing.
    """

    def __init__(self, capacity: int, scales: ItemCounts | None = None, most: int = 0) -> None:
        self.scales = ItemCounts() if scales is None else scales
        self.half_lives = self.scales.half_lives
        self.head: Array = np.zeros(capacity, ITEM_HEAD)
        self.counted: Array = np.zeros((capacity, len(self.half_lives)), COUNTED)
        self.scenes: Array = np.zeros((capacity, SCENES), SCENE)
        self.neighbours: Array = np.zeros((capacity, NEIGHBOURS), NEIGHBOUR)
        self._room = Room(most)
        self.head["first_time"] = np.nan
        self.head["last_time"] = np.nan

    @property
    def capacity(self) -> int:
        """Return the number of rows."""
        return len(self.head)

    @property
    def columns(self) -> StateColumns:
        """The arena as kernels take it."""
        head = self.head
        return StateColumns(
            head, self.counted["count"], head["weight_sum"], self.scenes, self.neighbours,
            self.half_lives,
        )  # fmt: skip

    def follow(self, scales: ItemCounts) -> None:
        """Go over to other half-lives: counts that both have stay, others are estimated.

        See `tracker.items.layout.fit_row`. It does nothing if the half-lives are the same.
        """
        half_lives = scales.half_lives
        if not np.array_equal(half_lives, self.half_lives):
            counted = np.zeros((self.capacity, len(half_lives)), COUNTED)
            _refit(
                self.head, self.counted, self.half_lives, half_lives, counted, self.scenes,
                self.neighbours,
            )  # fmt: skip
            self.counted = counted
        self.scales, self.half_lives = scales, half_lives

    def grow(self, capacity: int) -> None:
        """Make room for at least `capacity` rows; those there keep their places."""
        old = self.capacity
        if capacity <= old:
            return
        for name in ("head", "counted", "scenes", "neighbours"):
            setattr(self, name, self._room.longer(name, getattr(self, name), capacity))
        self.head["first_time"][old:] = np.nan
        self.head["last_time"][old:] = np.nan

    def clear(self, slots: Slots) -> None:
        """Empty rows."""
        clear_items(slots, self._arrays)

    def copy_rows(self, slots: Slots) -> "ItemStates":
        """Return rows (n,) as an arena of their own, which later events do not change."""
        copy = ItemStates(0, self.scales)
        copy.head = self.head[slots]
        copy.counted = self.counted[slots]
        copy.scenes = self.scenes[slots]
        copy.neighbours = self.neighbours[slots]
        return copy

    @property
    def _arrays(self) -> RowArrays:
        n = self.capacity
        counts = len(self.half_lives)
        return RowArrays(
            self.head,
            self.counted,
            self.scenes,
            self.neighbours,
            self.head.view(np.uint64).reshape(n, HEAD_WORDS),
            self.counted.view(np.uint64).reshape(n, counts * COUNTED_WORDS),
            self.scenes.view(np.uint64).reshape(n, SCENES * SCENE_WORDS),
            self.neighbours.view(np.uint64).reshape(n, NEIGHBOURS * NEIGHBOUR_WORDS),
            self.half_lives,
        )

    def pack_buffer(self, slots: Slots) -> tuple[Array, NDArray[np.int64]]:
        """Write rows one after another; without Python's lock, so it can run in a worker thread.

        Returns:
            words uint64 and offsets (n + 1,) int64 in words, for `split_rows`.
        """
        words = np.empty(len(slots) * ROW_BYTES_MAX // 8, np.uint64)
        return words, pack_items(words, slots, self._arrays)

    def pack(self, slots: Slots) -> list[bytes]:
        """Return rows as bytes: word 0 (format, scenes, neighbours, checksum), head, and lists."""
        return split_rows(*self.pack_buffer(slots))

    def unpack(self, slots: Slots, rows: Sequence[bytes | None]) -> None:
        """Read rows into slots; None clears one. Nothing is written where one is refused.

        Counts by half-lives that a row does not name are estimated: see `fit_row`.

        Raises:
            ItemStateFormatError: another format number, or a damaged row; its position is named.
        """
        words, offsets, bad = join_rows(rows)
        code = DAMAGED
        if bad < 0:
            bad, code = check_items(words, offsets)
        if bad >= 0:
            where = f"item row {bad} of {len(rows)}"
            raise ItemStateFormatError(refusal(where, rows[bad] or b"", code, FORMAT))
        empty = offsets[1:] == offsets[:-1]
        if empty.any():
            self.clear(slots[empty])
        unpack_items(slots, words, offsets, self._arrays)


@native
def _refit(
    head: Array,
    old: Array,
    old_half_lives: Array,
    half_lives: Array,
    new: Array,
    scenes: Array,
    neighbours: Array,
) -> None:
    """Fit all rows of an arena to other half-lives; see `fit_row`."""
    for slot in range(len(head)):
        head[slot]["n_counts"] = len(old_half_lives)
        head[slot]["half_lives"][0] = old_half_lives[0]
        head[slot]["half_lives"][1] = old_half_lives[1]
        for h in range(len(old_half_lives)):
            old[slot, h]["half_life"] = old_half_lives[h]
        fit_row(head[slot], old[slot], half_lives, new[slot], scenes[slot], neighbours[slot])
