"""One user's state into another one's: a visitor who turned out to be a known user."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.items.vectors import row_of_hash
from tracker.kernels.arithmetic import copy_row, forward_decay_merge, whole
from tracker.kernels.native import native
from tracker.users.add_event import all_known, refill
from tracker.users.columns import (
    Catalogue,
    Content,
    RowColumns,
    Rules,
    SeenColumns,
    content_of,
    rows_of,
    rules_of,
    seen_of,
)
from tracker.users.interests import add_to_interests
from tracker.users.retract_event import take_out
from tracker.users.ring import find_event, forget_arrivals, sort_ring
from tracker.users.rows import UserRows
from tracker.users.seen import bloom_add, event_key
from tracker.users.states import RING_IN_SUMS, RING_RETRACTED

Array = NDArray[Any]


@native
def _drop_repeats(rows: RowColumns, user: int, other: int, rules: Rules, content: Content) -> None:
    """Take out of the other user's ring what the user's ring has under the same event id."""
    scratch = np.empty(rows.interest_means.shape[1:], np.float32)
    n = whole(rows.head[other]["n_ring"])
    for r in range(n):
        entry = rows.ring[other, r]
        if entry["event_id"] == 0 or find_event(rows, user, entry["event_id"]) < 0:
            continue
        if not entry["flags"] & RING_RETRACTED:
            take_out(rows, other, r, rules, content, scratch)
    place = 0
    for r in range(n):
        entry = rows.ring[other, r]
        if entry["event_id"] == 0 or find_event(rows, user, entry["event_id"]) < 0:
            rows.ring[other, place] = rows.ring[other, r]
            place += 1
    rows.head[other]["n_ring"] = place


@native
def _is_before(one: Any, other: Any) -> bool:
    earlier = one["time"] < other["time"]
    same = one["time"] == other["time"]
    return bool(earlier or (same and one["event_id"] <= other["event_id"]))


@native
def _merge_rings(rows: RowColumns, user: int, other: int, seen: SeenColumns, capacity: int) -> int:
    """Merge two rings in the order of times; the oldest leave. Returns how many left."""
    mine = rows.ring[user]
    theirs = rows.ring[other]
    n = whole(rows.head[user]["n_ring"])
    m = whole(rows.head[other]["n_ring"])
    merged = np.empty(n + m, mine.dtype)
    a = 0
    b = 0
    for at in range(n + m):
        if b == m or (a < n and _is_before(mine[a], theirs[b])):
            merged[at] = mine[a]
            a += 1
        else:
            merged[at] = theirs[b]
            b += 1
    most = mine.shape[0]
    out: int = max(0, n + m - most)
    for r in range(out):
        entry = merged[r]
        slot = seen.slots[user]
        if not entry["flags"] & RING_RETRACTED:
            bloom_add(seen.bits, seen.counts, seen.active, slot, entry["item"], capacity)
        if entry["event_id"] != 0:
            key = np.uint64(event_key(entry["event_id"]))
            bloom_add(seen.bits, seen.counts, seen.active, slot, key, capacity)
    for r in range(out, n + m):
        mine[r - out] = merged[r]
    forget_arrivals(mine, n + m - out)
    return out


@native
def _join_interests(
    rows: RowColumns, user: int, other: int, rules: Rules, content: Content, scratch: Array
) -> None:
    """Put the other user's interests in the place of none, or its events of the ring into them."""
    head = rows.head[user]
    if head["n_slots"] == 0:
        for s in range(rows.interest_heads.shape[1]):
            rows.interest_heads[user, s] = rows.interest_heads[other, s]
            copy_row(rows.interest_means[user, s], rows.interest_means[other, s])
        head["n_slots"] = rows.head[other]["n_slots"]
        return
    for r in range(whole(rows.head[other]["n_ring"])):
        entry = rows.ring[other, r]
        if (entry["flags"] & (RING_IN_SUMS | RING_RETRACTED)) != RING_IN_SUMS:
            continue
        row = row_of_hash(content.table_hash, content.table_row, entry["item"])
        if row < 0 or not entry["weight"] > 0.0:
            continue
        head["n_slots"] = add_to_interests(
            rows.interest_heads[user],
            rows.interest_means[user],
            whole(head["n_slots"]),
            entry["item"],
            entry["time"],
            float(entry["weight"]),
            content.vectors[row],
            scratch,
            rules.interest_half_life,
            rules.interest_threshold,
        )


@native
def _join(
    rows: RowColumns,
    user: int,
    other: int,
    rules: Rules,
    content: Content,
    seen: SeenColumns,
    waiting: Array,
) -> int:
    """Join the other user's row to the user's; return how many retractions waited in both."""
    head = rows.head[user]
    theirs = rows.head[other]
    scratch = np.empty(rows.interest_means.shape[1:], np.float32)
    sort_ring(rows.ring[user], whole(head["n_ring"]))
    sort_ring(rows.ring[other], whole(theirs["n_ring"]))
    _drop_repeats(rows, user, other, rules, content)
    n = whole(head["n_ring"]) + whole(theirs["n_ring"])
    fits = (
        n <= rows.ring.shape[1]
        and all_known(rows, user, content)
        and all_known(rows, other, content)
    )
    if not fits:
        _join_interests(rows, user, other, rules, content, scratch)
    # Masses and sums, at the later time of both.
    for h in range(rows.masses.shape[1]):
        rows.masses[user, h], _ = forward_decay_merge(
            rows.sums[user, h],
            rows.masses[user, h],
            head["ref_time"],
            rows.sums[other, h],
            rows.masses[other, h],
            theirs["ref_time"],
            rules.half_lives[h],
        )
    head["negative_mass"], head["ref_time"] = forward_decay_merge(
        rows.negative[user],
        head["negative_mass"],
        head["ref_time"],
        rows.negative[other],
        theirs["negative_mass"],
        theirs["ref_time"],
        rules.negative_half_life,
    )
    # Times and counts.
    is_new = head["n_ring"] == 0 and head["evicted"] == 0
    if is_new or theirs["last_time"] > head["last_time"]:
        head["last_scene"] = theirs["last_scene"]
    if is_new:
        head["first_time"] = theirs["first_time"]
        head["last_time"] = theirs["last_time"]
    else:
        head["first_time"] = min(head["first_time"], theirs["first_time"])
        head["last_time"] = max(head["last_time"], theirs["last_time"])
    head["events"] += theirs["events"]
    head["positives"] += theirs["positives"]
    head["negatives"] += theirs["negatives"]
    head["unknown"] += theirs["unknown"]
    head["known_positives"] += theirs["known_positives"]
    head["retracted"] += theirs["retracted"]
    head["too_old"] += theirs["too_old"]
    head["duplicates"] += theirs["duplicates"]
    # The ring; interests and sums are made of it while it holds every event of both.
    surplus = _merge_rings(rows, user, other, seen, rules.seen_capacity)
    head["n_ring"] = n - surplus
    head["evicted"] += theirs["evicted"] + np.uint32(surplus)
    if fits:
        refill(rows, user, rules, content, scratch, True)
    head["basis"] = rules.basis
    head["artifact"] = rules.sequence
    # Retractions that waited for their events.
    count = 0
    for p in range(whole(head["n_pending"])):
        waiting[count] = rows.pending[user, p]
        count += 1
    for p in range(whole(theirs["n_pending"])):
        waiting[count] = rows.pending[other, p]
        count += 1
    head["n_pending"] = 0
    return count


def join_users(
    users: UserRows,
    user: int,
    other: int,
    catalogue: Catalogue,
    basis: int,
    sequence: int,
) -> NDArray[np.uint64] | None:
    """Join the state of one user to another's, and leave the row of the one empty.

    1. Events that both have under the same id count once.
    2. The rings are merged in the order of times; what does not fit moves to the seen set.
    3. Counts, masses and sums are added, as decayed to the later time of both. While the ring
       holds every event of both, sums and interests are made of it, as if all had come from one
       user. Later the events of the one's ring join the other's interests.
    4. The seen sets are united.

    Args:
        users: the rows, both of the basis.
        user: slot of the user who stays.
        other: slot of the user who joins.
        catalogue: vectors and the table from hash to row.
        basis: hash of the vectors' basis, stamped on the row.
        sequence: of the artifact, stamped on the row.

    Returns:
        ids of the retractions that waited for their events, to be applied again; None if nothing
        is kept of the other user.
    """
    states, seen = users.states, users.seen
    theirs = states.head[other]
    if user == other or not (theirs["n_ring"] or theirs["evicted"] or theirs["n_pending"]):
        return None
    n = int(states.head["n_ring"][user]) + int(theirs["n_ring"])
    other_seen = users.seen_slots[other]
    if users.seen_slots[user] < 0 and (other_seen >= 0 or n > states.config.ring):
        users.seen_slots[user] = seen.allocate(1)[0]
    if other_seen >= 0:
        mine = users.seen_slots[user]
        # The filled generations of both in one, and the older ones of both in the other.
        for age in (0, 1):
            to, of = seen.active[mine] ^ age, seen.active[other_seen] ^ age
            seen.bits[mine, to] |= seen.bits[other_seen, of]
            seen.counts[mine, to] += seen.counts[other_seen, of]
    waiting = np.zeros(2 * states.config.pending, np.uint64)
    count = _join(
        rows_of(states),
        user,
        other,
        rules_of(states, basis, sequence),
        content_of(states, catalogue),
        seen_of(seen, users.seen_slots),
        waiting,
    )
    users.forget(other)
    return waiting[:count]
