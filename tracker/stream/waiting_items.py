"""Items that no catalogue has: their events wait until more came than one user tells.

Item ids can be made up without end, and a row is some 600 bytes for ever. So an item that is in no
catalogue has a row only after several users, or one who hides events: a ring tells an item of
`MOST_FOR_AN_ITEM` positive events and as many others, and more than that have to be there.
Until then its events wait, in records of their own that are committed with the position. They go
into the row with the event that begins it, or once the catalogue has the item. A partition keeps
`MOST_WAITING` items; beyond that the oldest of those with one event gives way.
"""

import logging
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from tracker.events.item_events import (
    ITEM_EVENT,
    ItemEventFormatError,
    decode_block,
    encode_block,
)
from tracker.kernels.row_bytes import WAITING_PREFIX
from tracker.store.partition_store import PartitionStore
from tracker.users.ring import MOST_FOR_AN_ITEM

Array = NDArray[Any]

MOST_WAITING = 256
"""Items of a partition that wait at most."""

MOST_EVENTS = 20
"""Events of a waiting item that are kept; if there are more, those taken back leave."""

ITEM_BYTES = 8
"""Bytes of an item's hash in a key."""

log = logging.getLogger(__name__)


class WaitingItems:
    """The items of one partition that have no row yet, and their events.

    Args:
        store: of the partition, in which the events are kept.
        has_row: returns which of some items have a row.
    """

    def __init__(
        self, store: PartitionStore[int], has_row: Callable[[list[int]], list[bool]]
    ) -> None:
        self._store = store
        self._has_row = has_row
        # Oldest first: items with one event, which give way, and those with more.
        self._few: dict[int, Array] = {}
        self._more: dict[int, Array] = {}

    def __len__(self) -> int:
        """Return the number of items that wait."""
        return len(self._few) + len(self._more)

    def open(self) -> None:
        """Read what waits from the store."""
        self._few, self._more = {}, {}
        for key, value in self._store.scan(WAITING_PREFIX):
            try:
                events = decode_waiting(value)
                item = _item_of(key, events)
            except (ItemEventFormatError, msgspec.DecodeError) as error:
                log.error("events of an item that waits for its row are lost: %s", error)
                self._store.note(key, None)
            else:
                self._put(item, events)

    def divide(
        self, events: Array, in_catalogue: NDArray[np.bool_]
    ) -> tuple[Array, dict[int, Array]]:
        """Find which item events go into rows now, and which wait; nothing changes.

        Args:
            events: (M,) ITEM_EVENT, in order.
            in_catalogue: (M,) whether the catalogue has the item.

        Returns:
            the events to apply, those that had waited among them, and what waits from now on, by
            item, empty for an item that no longer waits.
        """
        waits: dict[int, Array] = {}
        if in_catalogue.all() and not len(self):
            return events, waits
        begin = ~in_catalogue
        if len(self):
            waiting = [*self._few, *self._more]
            begin |= np.isin(events["item"], np.array(waiting, np.uint64))
        items = np.unique(events["item"][begin]).tolist()
        rows = dict(zip(items, self._has_row(items), strict=True))
        apply: list[Array] = []
        is_looked_at = np.zeros(len(events), np.bool_)
        for item in items:
            before = self._few.get(item, self._more.get(item))
            if rows[item] and before is None:
                continue
            mine = events["item"] == item
            is_looked_at |= mine
            here = events[mine] if before is None else np.concatenate([before, events[mine]])
            here = _with_their_events(here)
            if rows[item] or in_catalogue[mine].any() or _is_of_several(here):
                apply.append(here)
                here = here[:0]
            waits[item] = here if len(here) <= MOST_EVENTS else _left(here)
        if not is_looked_at.any():
            return events, waits
        return np.concatenate([*apply, events[~is_looked_at]]), waits

    def known(
        self, row_of: Callable[[NDArray[np.uint64]], NDArray[np.int64]]
    ) -> tuple[Array, dict[int, Array]]:
        """Find the waiting items that a catalogue has; return their events, and what `keep` takes.

        Args:
            row_of: returns the catalogue's rows of hashes, -1 for none.
        """
        both = {**self._few, **self._more}
        rows = row_of(np.array(list(both), np.uint64)).tolist()
        on_sale = [item for item, row in zip(both, rows, strict=True) if row >= 0]
        nothing = np.zeros(0, ITEM_EVENT)
        events = [nothing, *(both[item] for item in on_sale)]
        return np.concatenate(events), dict.fromkeys(on_sale, nothing)

    def keep(self, waits: dict[int, Array]) -> None:
        """Keep what `divide` has found to wait, with the coming commit."""
        for item, events in waits.items():
            before = self._few.pop(item, None)
            if before is None:
                before = self._more.pop(item, None)
            if len(events):
                self._put(item, events)
                self._store.note(_key(item), encode_waiting(events))
            elif before is not None:
                self._store.note(_key(item), None)
        while len(self) > MOST_WAITING:
            table = self._few or self._more
            item = next(iter(table))
            del table[item]
            self._store.note(_key(item), None)

    def _put(self, item: int, events: Array) -> None:
        (self._few if len(events) == 1 else self._more)[item] = events


def _key(item: int) -> bytes:
    return WAITING_PREFIX + item.to_bytes(ITEM_BYTES, "big")


def encode_waiting(events: Array) -> bytes:
    """Return the record of an item that waits: a list of blocks of one item event each."""
    return msgspec.msgpack.encode([encode_block(events[n : n + 1], 2) for n in range(len(events))])


def decode_waiting(value: bytes) -> Array:
    """Read the item events of a record that waits.

    Raises:
        ItemEventFormatError, msgspec.DecodeError: it is damaged.
    """
    blocks = [decode_block(block) for block in msgspec.msgpack.decode(value, type=list[bytes])]
    return np.concatenate(blocks) if blocks else np.zeros(0, ITEM_EVENT)


def _item_of(key: bytes, events: Array) -> int:
    """Return the item of a key.

    Raises:
        ItemEventFormatError: it is no key of an item, or not that of these events.
    """
    name = key[len(WAITING_PREFIX) :]
    if len(name) != ITEM_BYTES:
        raise ItemEventFormatError(f"its key has {len(name)} bytes, expected {ITEM_BYTES}")
    item = int.from_bytes(name, "big")
    if (events["item"] != item).any():
        raise ItemEventFormatError(f"its key is of item {item}, its events of another one")
    return item


def _is_of_several(events: Array) -> bool:
    """Return whether there are more events than one ring tells an item of."""
    positives = int(events["sign"][events["weight"] > 0].sum())
    return positives > MOST_FOR_AN_ITEM or int(events["sign"].sum()) > 2 * MOST_FOR_AN_ITEM


def _pairs(events: Array) -> tuple[list[bool], list[bool]]:
    """Return which events are taken back, and which are retractions without their event."""
    undone, alone = [False] * len(events), [False] * len(events)
    open_ones: dict[tuple[Any, ...], list[int]] = {}
    for n, event in enumerate(events):
        what = tuple(event[name].item() for name in ("time", "weight", "scene", "kind"))
        if event["sign"] > 0:
            open_ones.setdefault(what, []).append(n)
        elif open_ones.get(what):
            undone[open_ones[what].pop()] = undone[n] = True
        else:
            alone[n] = True
    return undone, alone


def _with_their_events(events: Array) -> Array:
    """Return events without the retractions of what has given way."""
    if (events["sign"] > 0).all():
        return events
    stays: Array = events[~np.array(_pairs(events)[1])]
    return stays


def _left(events: Array) -> Array:
    """Return events without those that were taken back, and their retractions."""
    stays: Array = events[~np.array(_pairs(events)[0])]
    return stays
