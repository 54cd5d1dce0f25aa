"""Ring of a user's recent events: order by event time, places, recent items, what leaves it.

Events lie in the order of their times; of one time, in the order of their event ids; without ids,
as they came. An event that is not the newest is late. Its entry keeps how many newer events were
there before it (an inversion table), so that the order of arrival can be found again: a retraction
takes the same pairs of neighbours out as its event had counted.
Source of the way back: Knuth, The Art of Computer Programming, vol. 3, section 5.1.1.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.events.batch import EventBatch
from tracker.kernels.arithmetic import whole
from tracker.kernels.native import inlined, native
from tracker.users.columns import (
    EventColumns,
    RowColumns,
    Rules,
    SeenColumns,
    events_of,
    rows_of,
)
from tracker.users.seen import bloom_add, event_key
from tracker.users.states import (
    RING_BEFORE_BITS,
    RING_BEFORE_MOST,
    RING_NOT_OF_ITEM,
    RING_RETRACTED,
    UserStates,
)

Array = NDArray[Any]

_SINCE_SHIFT = 8
_SINCE_MOST = 127
_BEFORE_SHIFT = _SINCE_SHIFT - RING_BEFORE_BITS

MOST_FOR_AN_ITEM = 5
"""Number of positive events on an item, and of others, in a ring and a time, from which on no more
are told to the item: as many as a view, a click, a like, a cart and a purchase."""
ITEM_SECONDS = 3600.0
"""That time, in seconds."""


@native
def find_event(rows: RowColumns, user: int, event_id: np.uint64) -> int:
    """Return the place of an event id in the ring, or -1."""
    for r in range(whole(rows.head[user]["n_ring"]) - 1, -1, -1):
        if rows.ring[user, r]["event_id"] == event_id:
            return r
    return -1


@inlined
def is_late(rows: RowColumns, user: int, n_ring: int, time: float, event_id: np.uint64) -> bool:
    """Return whether an event that comes now is not the newest of the user."""
    is_older = n_ring > 0 and (
        time < rows.head[user]["last_time"]
        or time < rows.ring[user, n_ring - 1]["time"]
        or (
            time == rows.ring[user, n_ring - 1]["time"]
            and event_id < rows.ring[user, n_ring - 1]["event_id"]
        )
    )
    return is_older


@native
def _mark_late(rows: RowColumns, events: EventColumns, order: Array, out: Array) -> None:
    user = -1
    is_first = True
    time = 0.0
    event_id = np.uint64(0)
    for i in order:
        if events.slots[i] != user:
            user = events.slots[i]
            n = whole(rows.head[user]["n_ring"])
            is_first = n == 0
            if n > 0:
                newest = rows.ring[user, n - 1]
                time = newest["time"]
                event_id = newest["event_id"]
                if rows.head[user]["last_time"] > time:
                    time = rows.head[user]["last_time"]
                    event_id = np.uint64(0)
        if events.retracts[i] != 0:
            continue
        own_time = events.times[i]
        own_id = events.event_ids[i]
        if not is_first and (own_time < time or (own_time == time and own_id < event_id)):
            out[i] = True
            continue
        is_first = False
        time = own_time
        event_id = own_id


def late_if_applied(states: UserStates, events: EventBatch) -> NDArray[np.bool_]:
    """Return which events (N,) will be late if a batch is applied, and none of it is a repeat."""
    out = np.zeros(len(events), np.bool_)
    order = np.argsort(events.slots, kind="stable")
    _mark_late(rows_of(states), events_of(events), order, out)
    return out


@native
def place_in_ring(ring: Array, n: int, time: float, event_id: np.uint64) -> int:
    """Return the place that an event takes among the n first entries, which are in order."""
    place = n
    while place > 0:
        before = ring[place - 1]
        if before["time"] < time or (before["time"] == time and before["event_id"] <= event_id):
            break
        place -= 1
    return place


@native
def sort_ring(ring: Array, n: int) -> None:
    """Sort the n first entries, in place.

    Entries that move note how many they passed. Rings of releases that kept the order of arrival
    are sorted too; of a ring in order but for its last entry, only that one moves.
    """
    one = np.empty(1, ring.dtype)
    for r in range(1, n):
        entry = ring[r]
        place = place_in_ring(ring, r, entry["time"], entry["event_id"])
        if place == r:
            continue
        one[0] = entry
        for q in range(r, place, -1):
            ring[q] = ring[q - 1]
        passed = min(r - place, RING_BEFORE_MOST)
        one[0]["flags"] = whole(one[0]["flags"]) | (passed << _BEFORE_SHIFT)
        ring[place] = one[0]


@native
def arrivals(ring: Array, n: int, out: Array) -> None:
    """Write the rank of each of the n first entries in the order in which they came."""
    for r in range(n - 1, -1, -1):
        before = (whole(ring[r]["flags"]) >> _BEFORE_SHIFT) & RING_BEFORE_MOST
        rank = min(before, n - 1 - r)
        out[r] = rank
        for q in range(r + 1, n):
            if out[q] >= rank:
                out[q] += 1


def in_order_of_arrival(ring: Array) -> Array:
    """Return a copy of entries in the order in which they came, as if none had been late."""
    ranks = np.empty(len(ring), np.int64)
    arrivals(ring, len(ring), ranks)
    entries = ring[np.argsort(ranks)]
    flags = entries["flags"]
    flags &= ~flags.dtype.type(RING_BEFORE_MOST << _BEFORE_SHIFT)
    return entries


@native
def forget_arrivals(ring: Array, n: int) -> None:
    """Reset the order of arrival of the n first entries to that in which they lie."""
    for r in range(n):
        ring[r]["flags"] = whole(ring[r]["flags"]) & ~(RING_BEFORE_MOST << _BEFORE_SHIFT)


@native
def _is_repeat(items: Array, n: int, item: np.uint64) -> bool:
    repeats = 0
    for k in range(n):
        repeats += items[k] == item
    return repeats > 0


@native
def recent_items(ring: Array, place: int, out: Array) -> int:
    """Write the distinct positive items before the place of an event that comes now.

    Latest first; those of retracted events are left out. Returns their number.
    """
    n = 0
    for r in range(place - 1, -1, -1):
        entry = ring[r]
        if not entry["weight"] > 0.0 or whole(entry["flags"]) & RING_RETRACTED:
            continue
        item = entry["item"]
        if _is_repeat(out, n, item):
            continue
        out[n] = item
        n += 1
        if n == out.shape[0]:
            break
    return n


@native
def recent_items_then(ring: Array, n_ring: int, place: int, out: Array) -> int:
    """Write what `recent_items` wrote when the event at a place came, as far as the ring holds it.

    That is without events that came after it, and with those that were retracted after it came.
    """
    ranks = np.empty(n_ring, np.int64)
    arrivals(ring, n_ring, ranks)
    n = 0
    for r in range(place - 1, -1, -1):
        entry = ring[r]
        flags = whole(entry["flags"])
        since = ranks[place] - ranks[r]
        if not entry["weight"] > 0.0 or since < 0:
            continue
        if flags & RING_RETRACTED and since > (flags >> _SINCE_SHIFT) & _SINCE_MOST:
            continue
        item = entry["item"]
        if _is_repeat(out, n, item):
            continue
        out[n] = item
        n += 1
        if n == out.shape[0]:
            break
    return n


@native
def flag_of_item(
    ring: Array, n: int, place: int, unknown: int, item: np.uint64, time: float, weight: float
) -> int:
    """Return RING_NOT_OF_ITEM if the user has added enough to an item in the hour, else 0.

    What the n entries of the ring have of the item within `ITEM_SECONDS` is counted, whether its
    item was told or not, so that one user cannot lead a trend by repeating an event. What has left
    the ring is not known: of events that are hidden between others more are told.

    Args:
        ring: entries in order, of one user.
        n: entries in use.
        place: of the event among them.
        unknown: up to this place nobody knows what the user has added: a late event there leaves
            the ring at once, so it would never be counted, and is not told. -1 for none.
        item: hash of the item.
        time: of the event.
        weight: of the event.
    """
    if place <= unknown:
        return RING_NOT_OF_ITEM
    same = 0
    for r in range(n):
        entry = ring[r]
        if entry["item"] != item or whole(entry["flags"]) & RING_RETRACTED:
            continue
        if (entry["weight"] > 0.0) == (weight > 0.0) and abs(entry["time"] - time) < ITEM_SECONDS:
            same += 1
    return RING_NOT_OF_ITEM if same >= MOST_FOR_AN_ITEM else 0


@native
def mark_retracted(ring: Array, n_ring: int, place: int) -> None:
    """Mark an entry as retracted, and note how many events came between it and that."""
    ranks = np.empty(n_ring, np.int64)
    arrivals(ring, n_ring, ranks)
    since = min(n_ring - 1 - ranks[place], _SINCE_MOST)
    ring[place]["flags"] = whole(ring[place]["flags"]) | RING_RETRACTED | (since << _SINCE_SHIFT)


@native
def append_to_ring(
    rows: RowColumns,
    user: int,
    rules: Rules,
    seen: SeenColumns,
    events: EventColumns,
    i: int,
    flags: int,
) -> None:
    """Append event i to the ring; when it is full, the oldest entries move to the seen set.

    A late event has to be brought to its place by `sort_ring` then.
    """
    head = rows.head[user]
    n = whole(head["n_ring"])
    if n == rows.ring.shape[1]:
        n_evicted = rules.ring_evict
        slot = seen.slots[user]
        for r in range(n_evicted):
            entry = rows.ring[user, r]
            if not entry["flags"] & RING_RETRACTED:
                bloom_add(
                    seen.bits, seen.counts, seen.active, slot, entry["item"], rules.seen_capacity
                )
            if entry["event_id"] != 0:
                key = np.uint64(event_key(entry["event_id"]))
                bloom_add(seen.bits, seen.counts, seen.active, slot, key, rules.seen_capacity)
        for r in range(n - n_evicted):
            rows.ring[user, r] = rows.ring[user, r + n_evicted]
        n -= n_evicted
        head["evicted"] += n_evicted
    entry = rows.ring[user, n]
    entry["item"] = events.items[i]
    entry["event_id"] = events.event_ids[i]
    entry["time"] = events.times[i]
    entry["weight"] = events.weights[i]
    entry["value"] = events.values[i]
    entry["scene"] = events.scenes[i]
    entry["kind"] = events.kinds[i]
    entry["flags"] = flags
    head["n_ring"] = n + 1
