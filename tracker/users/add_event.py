"""Adding one event to one user's row: times, sums, counts and interests.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

from typing import Any

from numpy.typing import NDArray

from tracker.items.vectors import row_of_hash
from tracker.kernels.arithmetic import add_scaled, decay, scale_in_place, square, whole
from tracker.kernels.native import native
from tracker.users.columns import Content, EventColumns, RowColumns, Rules
from tracker.users.interests import add_to_interests
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
def all_known(rows: RowColumns, user: int, content: Content) -> bool:
    """Return whether all that is in the sums is in the ring, with its vector."""
    head = rows.head[user]
    if head["evicted"] != 0:
        return False
    for r in range(whole(head["n_ring"])):
        entry = rows.ring[user, r]
        if (entry["flags"] & (RING_IN_SUMS | RING_RETRACTED)) == RING_IN_SUMS and row_of_hash(
            content.table_hash, content.table_row, entry["item"]
        ) < 0:
            return False
    return True


@native
def move_times(rows: RowColumns, user: int, rules: Rules, time: float) -> None:
    """Note an event's time as the user's first and latest, if it is, and decay sums to it."""
    head = rows.head[user]
    if head["n_ring"] == 0:
        head["first_time"] = time
        head["last_time"] = time
    else:
        head["first_time"] = min(head["first_time"], time)
        head["last_time"] = max(head["last_time"], time)
    _move_time(rows, user, rules, time)


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
    move_times(rows, user, rules, time)
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
