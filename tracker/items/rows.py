"""The item rows of one partition, as the store keeps them.

On the path of one commit: see docs/design/one-event-one-commit.md.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.items.config import ItemCounts
from tracker.items.counts import apply_item_events
from tracker.items.layout import FORMAT
from tracker.items.states import ItemStateFormatError, ItemStates, problem_of
from tracker.kernels.row_bytes import Get, Slots, item_key, readable_rows

OnUnreadable = Callable[[bytes, bytes, str], object]
"""Receives the key of a row that cannot be read, its bytes, and why."""


class ItemRows:
    """The items' arrays of one partition, and their rows.

    Args:
        scales: half-lives of the counts.
        most: rows up to which growth copies nothing.

    Attributes:
        states: the arrays.
        on_unreadable: called with each row that was loaded as an empty one.
        on_damaged: called before with the keys of damaged rows; it may raise, and nothing is read.
    """

    def __init__(self, scales: ItemCounts | None = None, most: int = 0) -> None:
        self.states = ItemStates(0, scales, most)
        self.on_unreadable: OnUnreadable = lambda key, row, problem: None
        self.on_damaged: Callable[[list[bytes]], object] = lambda keys: None

    def grow(self, rows: int) -> None:
        """Have at least so many rows."""
        self.states.grow(rows)

    def clear(self, slots: Slots) -> None:
        """Do nothing: `load` fills the states anew."""

    def follow(self, scales: ItemCounts) -> None:
        """Follow an artifact with other half-lives, before events are applied for it."""
        self.states.follow(scales)

    def apply(self, slots: Slots, item_events: NDArray[Any]) -> None:
        """Apply item events to the rows at `slots`, in order."""
        apply_item_events(self.states, slots, item_events)

    def load(self, keys: Sequence[int], slots: Slots, get: Get) -> None:
        """Read states; one that is damaged is empty.

        Raises:
            NewerRowError: a newer version wrote a row. Nothing was read.
        """
        row_keys = [item_key(key) for key in keys]
        rows = get(row_keys)
        try:
            self.states.unpack(slots, rows)
        except ItemStateFormatError:
            readable = readable_rows(
                row_keys, rows, problem_of, FORMAT, self.on_damaged, self.on_unreadable
            )
            self.states.unpack(slots, readable)

    def dump(self, keys: Sequence[int], slots: Slots) -> list[tuple[bytes, bytes | None]]:
        """Pack states."""
        packed = self.states.pack(slots)
        return [(item_key(key), row) for key, row in zip(keys, packed, strict=True)]

    def last_times(self, rows: list[bytes]) -> NDArray[np.float64]:
        """Return the time of the latest event of rows; infinity for those that cannot be read."""
        states, unreadable = self.read(rows)
        return np.where(unreadable, np.inf, states.head["last_time"])

    def read(self, rows: list[bytes]) -> tuple[ItemStates, NDArray[np.bool_]]:
        """Return rows as an arena, and which of them cannot be read and are empty there."""
        states = ItemStates(len(rows), self.states.scales)
        unreadable = np.zeros(len(rows), np.bool_)
        slots = np.arange(len(rows))
        try:
            states.unpack(slots, rows)
        except ItemStateFormatError:
            unreadable[:] = [problem_of(row) is not None for row in rows]
            states.unpack(slots, [None if problem_of(row) else row for row in rows])
        return states, unreadable

    def restore(self, slots: Slots) -> None:
        """Do nothing: all of a row is packed every time."""
