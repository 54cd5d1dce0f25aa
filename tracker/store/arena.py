"""Arena: an LRU cache from key to array row, with dirty and pinned flags."""

from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar, cast

import numpy as np

from tracker.kernels.row_bytes import Slots

Key = TypeVar("Key", bound=Hashable)

FIRST_SLOTS = 4096
"""Slots that an arena begins with; it doubles up to its capacity."""


class ArenaFullError(RuntimeError):
    """No slot can be evicted: all are dirty, or pinned by a commit under way."""


class Arena(Generic[Key]):
    """An LRU cache from key to slot, the place of a row in arrays that the caller owns.

    A slot is dirty from the first change of its row until a snapshot takes it, then pinned until
    that commit is in the database. Neither a dirty nor a pinned slot is evicted; of the others the
    least recently used go first.

    Not thread-safe.

    Args:
        capacity: maximum number of slots.
        on_grow: called with the new number of slots before any of them is used.
        on_evict: called with the slots that lose their keys.

    Raises:
        ValueError: the capacity is below 1.
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
        self._last_use = np.zeros(0, np.int64)
        self._tick = 0

    def __len__(self) -> int:
        """Return the number of keys that have a slot."""
        return len(self._slots)

    def __contains__(self, key: object) -> bool:
        """Return whether a key has a slot."""
        return key in self._slots

    @property
    def size(self) -> int:
        """Number of slots, in use or free; the length of the arrays."""
        return len(self._keys)

    def slot(self, key: Key) -> int:
        """Return the slot of a key, -1 if it has none."""
        return self._slots.get(key, -1)

    def keys(self, slots: Slots) -> list[Key]:
        """Return the keys of slots in use."""
        keys = self._keys
        return [cast(Key, keys[slot]) for slot in slots.tolist()]

    def slots_of(self, keys: Sequence[Key]) -> tuple[Slots, list[Key], Slots]:
        """Return a slot for every key, allocating slots for new keys.

        Args:
            keys: N keys; they may repeat.

        Returns:
            slots (N,) int64; the M new keys, each once; and their slots (M,), whose rows the
            caller has to load.

        Raises:
            ArenaFullError: too few slots can be evicted; nothing has changed, except that clean
                rows may have been evicted.
        """
        self._tick += 1
        get = self._slots.get
        places = [get(key, -1) for key in keys]
        slots = np.array(places, np.int64)
        if -1 not in places:
            self._last_use[slots] = self._tick
            return slots, [], np.zeros(0, np.int64)
        self._last_use[slots[slots >= 0]] = self._tick
        absent = np.flatnonzero(slots < 0).tolist()
        new = list(dict.fromkeys(keys[index] for index in absent))
        if len(self._free) < len(new):
            self._make_room(len(new))
        allocated = self._free[: -len(new) - 1 : -1]
        del self._free[-len(new) :]
        self._slots.update(zip(new, allocated, strict=True))
        for key, slot in zip(new, allocated, strict=True):
            self._keys[slot] = key
        if len(new) < len(absent):
            slots[absent] = [self._slots[keys[index]] for index in absent]
        else:
            slots[absent] = allocated
        new_slots = np.array(allocated, np.int64)
        self._last_use[new_slots] = self._tick
        return slots, new, new_slots

    def evict(self, slots: Slots) -> None:
        """Free slots, whatever state they are in."""
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
        """Return the dirty slots; from now on they are clean and pinned."""
        slots = np.flatnonzero(self.dirty)
        self.dirty[slots] = False
        self.pinned[slots] = True
        return slots

    def unpin(self, slots: Slots) -> None:
        """Unpin slots after a successful commit."""
        self.pinned[slots] = False

    def restore(self, slots: Slots) -> None:
        """Unpin slots after a failed commit, and mark them as dirty again."""
        self.pinned[slots] = False
        self.dirty[slots] = True

    def _make_room(self, needed: int) -> None:
        size = self.size
        if size < self.capacity:
            larger = min(self.capacity, max(2 * size, FIRST_SLOTS, size + needed))
            more = larger - size
            self._on_grow(larger)
            self._keys.extend([None] * more)
            self._free.extend(range(larger - 1, size - 1, -1))
            self.dirty = np.concatenate([self.dirty, np.zeros(more, np.bool_)])
            self.pinned = np.concatenate([self.pinned, np.zeros(more, np.bool_)])
            self._last_use = np.concatenate([self._last_use, np.zeros(more, np.int64)])
        short = needed - len(self._free)
        if short <= 0:
            return
        evictable = ~self.dirty & ~self.pinned & (self._last_use < self._tick)
        evictable[self._free] = False
        candidates = np.flatnonzero(evictable)
        if len(candidates) < short:
            raise ArenaFullError(
                f"{needed} new rows need a slot; {len(self._free)} of {self.size} slots are free"
                f" and {len(candidates)} can be evicted"
            )
        # More than needed are evicted at once, so that the search is rare.
        count = min(len(candidates), max(short, self.capacity // 16))
        oldest = np.argpartition(self._last_use[candidates], count - 1)[:count]
        self.evict(candidates[oldest])
