"""Mending of item rows that have times of the future: from item events, as far as they are kept."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.items.counts import COUNT, apply_item_events
from tracker.items.states import ItemStates
from tracker.kernels.row_bytes import Slots

Array = NDArray[Any]

TIMES = ("ref_time", "first_time", "last_time")


def items_of_the_future(states: ItemStates, latest: float) -> Slots:
    """Return the rows of an arena that have any time past `latest`, in seconds."""
    late = np.zeros(states.capacity, np.bool_)
    for field in TIMES:
        late |= states.head[field] > latest  # not for NaN
    return np.flatnonzero(late)


def mend_items(states: ItemStates, slots: Slots, events: Array, now: float, latest: float) -> Slots:
    """Set times of rows back to the clock, and make all that decays anew from events.

    Numbers that do not decay stay: counts of all time, tallies, pairs of neighbours. What decays
    is counted again from the item events that are kept; an event of the future counts as of now.

    Args:
        states: the arena; each row names its item.
        slots: (B,) rows to mend.
        events: (M,) ITEM_EVENT of any items, in order, each once.
        now: the clock, in seconds.
        latest: latest time that may stay.

    Returns:
        those of `slots` of which no event was kept: what decays in them is cut back to now.
    """
    places = {int(item): place for place, item in enumerate(states.head["item"][slots].tolist())}
    mine = np.array([places.get(item, -1) for item in events["item"].tolist()], np.int64)
    events, mine = events[mine >= 0].copy(), mine[mine >= 0]
    events["time"] = np.where(events["time"] > latest, now, events["time"])
    again = ItemStates(len(slots), states.scales)
    apply_item_events(again, mine, events)
    for place, slot in enumerate(slots.tolist()):
        _mend_row(states, slot, again, place, now, latest)
    return slots[np.setdiff1d(np.arange(len(slots)), mine)]


def _mend_row(
    states: ItemStates, slot: int, again: ItemStates, place: int, now: float, latest: float
) -> None:
    head, new = states.head[slot], again.head[place]
    for field in TIMES:
        if head[field] > latest:
            head[field] = new[field] if new["ref_time"] > 0.0 and new[field] <= latest else now
    if not new["ref_time"] > 0.0:
        return
    head["ref_time"] = new["ref_time"]
    never = states.counted[slot, COUNT.never]["count"]
    states.counted[slot] = again.counted[place]
    states.counted[slot, COUNT.never]["count"] = never
    head["weight_sum"] = new["weight_sum"]
    head["n_scenes"] = new["n_scenes"]
    states.scenes[slot] = again.scenes[place]
    fresh = again.neighbours[place][: int(new["n_neighbours"])]
    lately = dict(zip(fresh["item"].tolist(), fresh["together_lately"].tolist(), strict=True))
    for neighbour in states.neighbours[slot][: int(head["n_neighbours"])]:
        neighbour["together_lately"] = lately.get(int(neighbour["item"]), 0.0)
