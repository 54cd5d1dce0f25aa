"""Adding one event to one user's row: sums, counts, interests and ring."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.items.vectors import row_of_hash
from tracker.kernels.arithmetic import add_scaled, decay, scale_in_place, square, whole
from tracker.kernels.native import native
from tracker.users.columns import Content, EventColumns, RowColumns, Rules, SeenColumns
from tracker.users.interests import add_to_interests
from tracker.users.seen import bloom_add, event_key
from tracker.users.states import RING_IN_SUMS, RING_RETRACTED, RING_UNKNOWN

Array = NDArray[Any]

_NOTHING = 1e-20
"""A mass below it becomes 0, and its sum with it; denormal numbers are slow."""


@native
def _move_time(rows: RowColumns, user: int, rules: Rules, time: float) -> None:
    """Decay masses and sums to a time, if it is later than theirs."""
    head = rows.head[user]
    age = time - head["ref_time"]
    if age <= 0.0:
        return
    head["ref_time"] = time
    for h in range(rows.masses.shape[1]):
        mass = rows.masses[user, h]
        if mass == 0.0:
            continue
        factor = decay(age, rules.half_lives[h])
        if mass * factor < _NOTHING:
            rows.masses[user, h] = 0.0
            rows.sums[user, h, :] = 0.0
        else:
            rows.masses[user, h] = mass * factor
            scale_in_place(rows.sums[user, h], factor)
    mass = head["negative_mass"]
    if mass != 0.0:
        factor = decay(age, rules.negative_half_life)
        if mass * factor < _NOTHING:
            head["negative_mass"] = 0.0
            rows.negative[user, :] = 0.0
        else:
            head["negative_mass"] = mass * factor
            scale_in_place(rows.negative[user], factor)


@native
def add_to_sums(
    rows: RowColumns,
    user: int,
    rules: Rules,
    time: float,
    weight: float,
    sign: float,
    vector: Array,
) -> None:
    """Add an event not later than the row's time to masses and sums; sign -1 takes it out."""
    head = rows.head[user]
    age = head["ref_time"] - time
    if weight > 0.0:
        for h in range(rows.masses.shape[1]):
            added = sign * weight * decay(age, rules.half_lives[h])
            if added != 0.0:
                rows.masses[user, h] = max(rows.masses[user, h] + added, 0.0)
                add_scaled(rows.sums[user, h], vector, added)
    else:
        added = -sign * weight * decay(age, rules.negative_half_life)
        if added != 0.0:
            head["negative_mass"] = max(head["negative_mass"] + added, 0.0)
            add_scaled(rows.negative[user], vector, added)


@native
def _clear_sums(rows: RowColumns, user: int) -> None:
    rows.masses[user, :] = 0.0
    rows.sums[user, :, :] = 0.0
    rows.negative[user, :] = 0.0
    rows.head[user]["negative_mass"] = 0.0


@native
def refill(
    rows: RowColumns, user: int, rules: Rules, content: Content, scratch: Array, with_sums: bool
) -> None:
    """Rebuild the interests, and the sums if `with_sums`, from the events in the ring."""
    head = rows.head[user]
    if with_sums:
        _clear_sums(rows, user)
    n_interests = 0
    for r in range(whole(head["n_ring"])):
        entry = rows.ring[user, r]
        if (entry["flags"] & (RING_IN_SUMS | RING_RETRACTED)) != RING_IN_SUMS:
            continue
        row = row_of_hash(content.table_hash, content.table_row, entry["item"])
        if row < 0:
            continue
        vector = content.vectors[row]
        weight = float(entry["weight"])
        if with_sums:
            add_to_sums(rows, user, rules, entry["time"], weight, 1.0, vector)
        if weight > 0.0:
            n_interests = add_to_interests(
                rows.interest_heads[user],
                rows.interest_means[user],
                n_interests,
                entry["item"],
                entry["time"],
                weight,
                vector,
                scratch,
                rules.interest_half_life,
                rules.interest_threshold,
            )
    head["n_slots"] = n_interests


@native
def find_event(rows: RowColumns, user: int, event_id: np.uint64) -> int:
    """Return the place of an event id in the ring, or -1."""
    for r in range(whole(rows.head[user]["n_ring"]) - 1, -1, -1):
        if rows.ring[user, r]["event_id"] == event_id:
            return r
    return -1


@native
def recent_items(ring: Array, place: int, out: Array) -> int:
    """Write the distinct positive items before a place, latest first, and return their number.

    An entry counts if it was not retracted when the event at `place` arrived.
    """
    n = 0
    for r in range(place - 1, -1, -1):
        flags = whole(ring[r]["flags"])
        if not ring[r]["weight"] > 0.0:
            continue
        if flags & RING_RETRACTED and place - r > flags >> 8:
            continue
        item = ring[r]["item"]
        is_repeat = False
        for k in range(n):
            if out[k] == item:
                is_repeat = True
                break
        if is_repeat:
            continue
        out[n] = item
        n += 1
        if n == out.shape[0]:
            break
    return n


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
    """Append event i to the ring; when it is full, the oldest entries move to the seen set."""
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


@native
def take_in(
    rows: RowColumns,
    user: int,
    events: EventColumns,
    i: int,
    rules: Rules,
    content: Content,
    scratch: Array,
) -> int:
    """Apply event i to time, counts, sums and interests, and return the flags of its entry."""
    head = rows.head[user]
    time = events.times[i]
    weight = float(events.weights[i])
    row = events.rows[i]
    if head["n_ring"] == 0:
        head["first_time"] = time
        head["last_time"] = time
    else:
        head["first_time"] = min(head["first_time"], time)
        head["last_time"] = max(head["last_time"], time)
    _move_time(rows, user, rules, time)
    head["events"] += 1
    head["last_scene"] = events.scenes[i]
    if weight > 0.0:
        head["positives"] += 1
    elif weight < 0.0:
        head["negatives"] += 1
    if row < 0:
        head["unknown"] += 1
        return RING_UNKNOWN
    if weight == 0.0:
        return 0
    vector = content.vectors[row]
    if not 0.0 < square(vector) < 1e6:  # NaN never enters, nor an item without text
        return 0
    add_to_sums(rows, user, rules, time, weight, 1.0, vector)
    if weight > 0.0:
        head["known_positives"] += 1
        head["n_slots"] = add_to_interests(
            rows.interest_heads[user],
            rows.interest_means[user],
            whole(head["n_slots"]),
            events.items[i],
            time,
            weight,
            vector,
            scratch,
            rules.interest_half_life,
            rules.interest_threshold,
        )
    return RING_IN_SUMS
