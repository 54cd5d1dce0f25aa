"""Arena: which rows of a partition are in memory, which of them are new, and which may go."""

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar, cast

import numpy as np

from tracker.kernels.row_bytes import Slots

Key = TypeVar("Key", bound=Hashable)

FIRST_ROWS = 4096
"""Rows that an arena begins with; it doubles up to its capacity."""


class ArenaFullError(RuntimeError):
    """No row can be freed: all are dirty, or belong to a commit under way."""


class Arena(Generic[Key]):
    """Maps keys to slots 0..capacity of arrays that somebody else owns.

    A dirty slot holds what no commit has; a pinned one belongs to a commit under way, which the
    database does not have yet. Neither is evicted. Of the others those go first that were used
    longest ago.

    Args:
        capacity: slots at most.
        on_grow: called with the new number of slots before slots past the old one are given out.
        on_evict: called with slots that their keys have lost.
    """

    def __init__(
        self,
        capacity: int,
        on_grow: Callable[[int], None],
        on_evict: Callable[[Slots], None],
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}; at least 1 is needed")
        self.capacity = capacity
        self._on_grow = on_grow
        self._on_evict = on_evict
        self._slots: dict[Key, int] = {}
        self._keys: list[Key | None] = []
        self._free: list[int] = []
        self.dirty = np.zeros(0, np.bool_)
        self.pinned = np.zeros(0, np.bool_)
        self._used = np.zeros(0, np.int64)
        self._tick = 0

    def __len__(self) -> int:
        """Return the number of keys that have a slot."""
        return len(self._slots)

    def __contains__(self, key: object) -> bool:
        """Tell whether a key has a slot."""
        return key in self._slots

    @property
    def rows(self) -> int:
        """Slots given out or free; what the arrays hold."""
        return len(self._keys)

    def slot(self, key: Key) -> int:
        """Return a key's slot, -1 where it has none."""
        return self._slots.get(key, -1)

    def keys(self, slots: Slots) -> list[Key]:
        """Return the keys of slots that have one."""
        keys = self._keys
        return [cast(Key, keys[slot]) for slot in slots.tolist()]

    def find(self, keys: Sequence[Key]) -> tuple[Slots, list[Key], Slots]:
        """Give every key a slot; those that had none come out, to be loaded.

        Args:
            keys: may repeat.

        Returns:
            slots (N,), the keys that are new (each once), and their slots.

        Raises:
            ArenaFullError: there are not enough slots; nothing has changed but that clean rows may
                have been evicted.
        """
        self._tick += 1
        get = self._slots.get
        slots = np.array([get(key, -1) for key in keys], np.int64)
        known = slots[slots >= 0]
        self._used[known] = self._tick
        if len(known) == len(slots):
            return slots, [], np.zeros(0, np.int64)
        absent = np.flatnonzero(slots < 0).tolist()
        new = list(dict.fromkeys(keys[position] for position in absent))
        if len(self._free) < len(new):
            self._make_room(len(new))
        given = [self._free.pop() for _ in new]
        for key, slot in zip(new, given, strict=True):
            self._slots[key] = slot
            self._keys[slot] = key
        slots[absent] = [self._slots[keys[position]] for position in absent]
        new_slots = np.array(given, np.int64)
        self._used[new_slots] = self._tick
        return slots, new, new_slots

    def forget(self, slots: Slots) -> None:
        """Take slots from their keys, whatever they hold."""
        for slot in slots.tolist():
            key = self._keys[slot]
            if key is not None:
                del self._slots[key]
                self._keys[slot] = None
                self._free.append(slot)
        self.dirty[slots] = False
        self.pinned[slots] = False
        self._on_evict(slots)

    def take_dirty(self) -> Slots:
        """Return the dirty slots, which are clean and pinned from now on."""
        slots = np.flatnonzero(self.dirty)
        self.dirty[slots] = False
        self.pinned[slots] = True
        return slots

    def unpin(self, slots: Slots) -> None:
        """Let slots go that the database has now."""
        self.pinned[slots] = False

    def restore(self, slots: Slots) -> None:
        """Make slots dirty again whose commit failed."""
        self.pinned[slots] = False
        self.dirty[slots] = True

    def _make_room(self, wanted: int) -> None:
        rows = self.rows
        if rows < self.capacity:
            more = min(self.capacity, max(2 * rows, FIRST_ROWS, rows + wanted))
            self._on_grow(more)
            self._keys.extend([None] * (more - rows))
            self._free.extend(range(more - 1, rows - 1, -1))
            self.dirty = np.concatenate([self.dirty, np.zeros(more - rows, np.bool_)])
            self.pinned = np.concatenate([self.pinned, np.zeros(more - rows, np.bool_)])
            self._used = np.concatenate([self._used, np.zeros(more - rows, np.int64)])
        short = wanted - len(self._free)
        if short <= 0:
            return
        may_go = ~self.dirty & ~self.pinned & (self._used < self._tick)
        may_go[self._free] = False
        victims = np.flatnonzero(may_go)
        if len(victims) < short:
            raise ArenaFullError(
                f"{wanted} rows are needed; {len(self._free)} are free and {len(victims)} of"
                f" {self.rows} can be evicted"
            )
        # More than needed go at once, so that the search is rare.
        count = min(len(victims), max(short, self.capacity // 16))
        oldest = np.argpartition(self._used[victims], count - 1)[:count]
        self.forget(victims[oldest])
