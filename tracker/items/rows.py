"""The item rows of one partition, as the store keeps them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.items.counts import apply_item_events
from tracker.items.states import ItemStates
from tracker.kernels.row_bytes import Get, Slots, item_key


class ItemRows:
    """The items' arrays of one partition, and their rows."""

    def __init__(self) -> None:
        self.states = ItemStates(0)

    def grow(self, rows: int) -> None:
        """Have at least so many rows."""
        self.states.grow(rows)

    def clear(self, slots: Slots) -> None:
        """Do nothing: `load` fills the states anew."""

    def apply(self, slots: Slots, item_events: NDArray[Any]) -> None:
        """Apply item events to the rows at `slots`, in order."""
        apply_item_events(self.states, slots, item_events)

    def load(self, keys: Sequence[int], slots: Slots, get: Get) -> None:
        """Read states."""
        self.states.unpack(slots, get([item_key(key) for key in keys]))

    def dump(self, keys: Sequence[int], slots: Slots) -> list[tuple[bytes, bytes | None]]:
        """Pack states."""
        packed = self.states.pack(slots)
        return [(item_key(key), row) for key, row in zip(keys, packed, strict=True)]

    def last_times(self, rows: list[bytes]) -> NDArray[np.float64]:
        """Return the time of the latest event of states as bytes."""
        states = ItemStates(len(rows))
        states.unpack(np.arange(len(rows)), rows)
        times: NDArray[np.float64] = states.head["last_time"]
        return times

    def restore(self, slots: Slots) -> None:
        """Do nothing: all of a row is packed every time."""
