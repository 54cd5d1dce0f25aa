"""Item events that take out of items what a user has added, when the user is forgotten."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.events.item_events import ITEM_EVENT, RECENTS
from tracker.kernels.arithmetic import whole
from tracker.kernels.native import native
from tracker.users.ring import recent_items_then
from tracker.users.states import RING_NOT_OF_ITEM, RING_RETRACTED, UserStates

Array = NDArray[Any]


@native
def _take_out(ring: Array, n_ring: int, out: Array, recents: Array) -> int:
    """Write an item event of sign -1 for each entry that counts; return their number."""
    written = 0
    for place in range(n_ring):
        entry = ring[place]
        if whole(entry["flags"]) & (RING_RETRACTED | RING_NOT_OF_ITEM):
            continue
        item_event = out[written]
        item_event["item"] = entry["item"]
        item_event["time"] = entry["time"]
        item_event["weight"] = entry["weight"]
        item_event["scene"] = entry["scene"]
        item_event["kind"] = entry["kind"]
        item_event["sign"] = -1
        item_event["n_recent"] = recent_items_then(ring, n_ring, place, recents[written])
        written += 1
    return written


def item_events_back(states: UserStates, slot: int, source: int, offset: int) -> Array:
    """Return the item events that take out of items what the events in a user's ring have added.

    They are those of a retraction of each event that is not retracted: the same weight at the same
    time, and the same pairs of neighbours.

    Args:
        states: the users' arrays, which stay as they are.
        slot: slot of the user.
        source: `source_partition` of the item events.
        offset: `source_offset` of all of them.

    Returns:
        (M,) ITEM_EVENT.
    """
    n_ring = int(states.head["n_ring"][slot])
    out = np.zeros(n_ring, ITEM_EVENT)
    recents = np.zeros((n_ring, RECENTS), np.uint64)
    written = _take_out(states.ring[slot], n_ring, out, recents)
    out["recent"] = recents
    out["source_partition"] = source
    out["source_offset"] = offset
    return out[:written]
