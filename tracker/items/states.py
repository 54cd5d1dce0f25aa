"""ItemStates: all we keep of each item, as rows of arrays, to and from bytes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.explained import Explained
from tracker.items.layout import (
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
    check_items,
    pack_items,
    unpack_items,
)
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
    """The columns of an ItemStates, with the counts and weights of its heads; see there."""

    head: Array
    counts: Array
    weights: Array
    scenes: Array
    neighbours: Array


class ItemStates:
    """The arena of items. Which item has which row is not known here, but each row names its item.

    `head` (C,) ITEM_HEAD, `scenes` (C, SCENES) SCENE, `neighbours` (C, NEIGHBOURS) NEIGHBOUR; what
    lies beyond `n_scenes` and `n_neighbours` means nothing. A cleared row is zero, its first and
    last time NaN.
    """

    def __init__(self, capacity: int) -> None:
        self.head: Array = np.zeros(capacity, ITEM_HEAD)
        self.scenes: Array = np.zeros((capacity, SCENES), SCENE)
        self.neighbours: Array = np.zeros((capacity, NEIGHBOURS), NEIGHBOUR)
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
        return StateColumns(head, head["counts"], head["weight_sum"], self.scenes, self.neighbours)

    def grow(self, capacity: int) -> None:
        """Make room for at least `capacity` rows; those there keep their places."""
        old = self.capacity
        if capacity <= old:
            return
        larger = ItemStates(capacity)
        for name in ("head", "scenes", "neighbours"):
            getattr(larger, name)[:old] = getattr(self, name)
            setattr(self, name, getattr(larger, name))

    def clear(self, slots: Slots) -> None:
        """Empty rows."""
        for column in (self.head, self.scenes, self.neighbours):
            column[slots] = np.zeros((), column.dtype)
        self.head["first_time"][slots] = np.nan
        self.head["last_time"][slots] = np.nan

    def copy_rows(self, slots: Slots) -> "ItemStates":
        """Return rows (n,) as an arena of their own, which later events do not change."""
        copy = ItemStates(0)
        copy.head = self.head[slots]
        copy.scenes = self.scenes[slots]
        copy.neighbours = self.neighbours[slots]
        return copy

    def _columns_as_words(self) -> tuple[Array, Array, Array]:
        n = self.capacity
        return (
            self.head.view(np.uint64).reshape(n, HEAD_WORDS),
            self.scenes.view(np.uint64).reshape(n, SCENES * SCENE_WORDS),
            self.neighbours.view(np.uint64).reshape(n, NEIGHBOURS * NEIGHBOUR_WORDS),
        )

    def pack_buffer(self, slots: Slots) -> tuple[Array, NDArray[np.int64]]:
        """Write rows one after another; without Python's lock, so it can run in a worker thread.

        Returns:
            words uint64 and offsets (n + 1,) int64 in words, for `split_rows`.
        """
        words = np.empty(len(slots) * ROW_BYTES_MAX // 8, np.uint64)
        return words, pack_items(words, slots, self.head, *self._columns_as_words())

    def pack(self, slots: Slots) -> list[bytes]:
        """Return rows as bytes: word 0 (format, scenes, neighbours, checksum), head, the rest."""
        return split_rows(*self.pack_buffer(slots))

    def unpack(self, slots: Slots, rows: Sequence[bytes | None]) -> None:
        """Read rows into slots; None clears one. Nothing is written where one is refused.

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
        unpack_items(slots, words, offsets, *self._columns_as_words())
