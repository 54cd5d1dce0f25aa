"""Taking one event out of a user's row; a retraction that came first waits for its event.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.items.vectors import row_of_hash
from tracker.kernels.arithmetic import whole
from tracker.kernels.native import native
from tracker.users.add_event import add_to_sums, all_known, refill
from tracker.users.columns import (
    ALREADY_RETRACTED,
    NOTHING_TO_TAKE_BACK,
    RETRACTED,
    RETRACTION_WAITS,
    TOO_OLD,
    Content,
    RowColumns,
    Rules,
    SeenColumns,
)
from tracker.users.ring import find_event, mark_retracted
from tracker.users.seen import bloom_contains, event_key
from tracker.users.states import RING_IN_SUMS, RING_RETRACTED, RING_UNKNOWN

Array = NDArray[Any]


@native
def take_out(
    rows: RowColumns, user: int, place: int, rules: Rules, content: Content, scratch: Array
) -> None:
    """Take the event at a place of the ring out of sums, counts and interests."""
    head = rows.head[user]
    entry = rows.ring[user, place]
    flags = whole(entry["flags"])
    weight = float(entry["weight"])
    mark_retracted(rows.ring[user], whole(head["n_ring"]), place)
    head["events"] -= 1
    head["retracted"] += 1
    if weight > 0.0:
        head["positives"] -= 1
    elif weight < 0.0:
        head["negatives"] -= 1
    if flags & RING_UNKNOWN:
        head["unknown"] -= 1
    if not flags & RING_IN_SUMS:
        return
    if weight > 0.0:
        head["known_positives"] -= 1
    # While the ring holds every event of the user, a new sum leaves no trace of this one;
    # afterwards its terms are subtracted, which leaves their rounding.
    from_ring = all_known(rows, user, content)
    if not from_ring:
        row = row_of_hash(content.table_hash, content.table_row, entry["item"])
        if row >= 0:
            vector = content.vectors[row]
            add_to_sums(rows, user, rules, entry["time"], weight, -1.0, vector)
        if head["known_positives"] == 0:
            rows.masses[user, :] = 0.0
            rows.sums[user, :, :] = 0.0
        if head["negatives"] == 0:
            head["negative_mass"] = 0.0
            rows.negative[user, :] = 0.0
    if weight > 0.0 or from_ring:
        refill(rows, user, rules, content, scratch, from_ring)


@native
def retract(
    rows: RowColumns,
    user: int,
    event_id: np.uint64,
    rules: Rules,
    content: Content,
    seen: SeenColumns,
    scratch: Array,
) -> tuple[int, int]:
    """Apply one retraction; return its outcome, and the event's place in the ring or -1."""
    head = rows.head[user]
    place = find_event(rows, user, event_id)
    if place >= 0:
        if rows.ring[user, place]["flags"] & RING_RETRACTED:
            return ALREADY_RETRACTED, -1
        take_out(rows, user, place, rules, content, scratch)
        return RETRACTED, place
    key = np.uint64(event_key(event_id))
    if seen.slots[user] >= 0 and bloom_contains(seen.bits[seen.slots[user]], key):
        head["too_old"] += 1
        return TOO_OLD, -1
    n = whole(head["n_pending"])
    for p in range(n):
        if rows.pending[user, p] == event_id:
            return RETRACTION_WAITS, -1
    if n == rows.pending.shape[1]:
        n -= 1
        for p in range(n):
            rows.pending[user, p] = rows.pending[user, p + 1]
        head["too_old"] += 1
    rows.pending[user, n] = event_id
    head["n_pending"] = n + 1
    return RETRACTION_WAITS, -1


@native
def take_back(
    rows: RowColumns,
    user: int,
    item: np.uint64,
    kind: int,
    time: float,
    rules: Rules,
    content: Content,
    scratch: Array,
) -> tuple[int, int]:
    """Take out the latest event of a kind on an item, not newer than a time if there is one.

    Returns its outcome, and the event's place in the ring or -1.
    """
    newest = -1
    for r in range(whole(rows.head[user]["n_ring"]) - 1, -1, -1):
        entry = rows.ring[user, r]
        if entry["item"] != item or entry["kind"] != kind or entry["flags"] & RING_RETRACTED:
            continue
        if entry["time"] <= time:
            newest = r
            break
        if newest < 0:
            newest = r
    if newest < 0:
        return NOTHING_TO_TAKE_BACK, -1
    take_out(rows, user, newest, rules, content, scratch)
    return RETRACTED, newest


@native
def was_retracted(rows: RowColumns, user: int, event_id: np.uint64) -> bool:
    """Return whether a retraction of the event waits, and take it out of those that wait."""
    head = rows.head[user]
    n = whole(head["n_pending"])
    for p in range(n):
        if rows.pending[user, p] == event_id:
            for q in range(p, n - 1):
                rows.pending[user, q] = rows.pending[user, q + 1]
            head["n_pending"] = n - 1
            return True
    return False
