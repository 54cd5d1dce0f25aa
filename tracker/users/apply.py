"""Events into user rows, one by one and in their order, whatever the chunk they come in.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.events.batch import LATEST_OF_KIND, EventBatch
from tracker.events.item_events import ITEM_EVENT, RECENTS
from tracker.items.vectors import row_of_hash
from tracker.kernels.arithmetic import square, whole
from tracker.kernels.native import native
from tracker.kernels.row_bytes import Slots
from tracker.users.add_event import all_known, move_times, refill, take_in
from tracker.users.columns import (
    APPLIED,
    DUPLICATE,
    RETRACTED_ON_ARRIVAL,
    Catalogue,
    Content,
    EventColumns,
    RowColumns,
    Rules,
    SeenColumns,
    content_of,
    events_of,
    rows_of,
    rules_of,
    seen_of,
)
from tracker.users.retract_event import retract, take_back, was_retracted
from tracker.users.ring import (
    append_to_ring,
    find_event,
    flag_of_item,
    is_late,
    place_in_ring,
    recent_items,
    recent_items_then,
    sort_ring,
)
from tracker.users.seen import SeenSets
from tracker.users.states import (
    RING_IN_SUMS,
    RING_NOT_OF_ITEM,
    RING_RETRACTED,
    RING_UNKNOWN,
    UserStates,
)

Array = NDArray[Any]


class Applied(NamedTuple):
    """Outcome of a batch.

    `outcomes` (N,) uint8, one of APPLIED .. ALREADY_RETRACTED an event; `item_events` (M,)
    ITEM_EVENT of those that changed a state, in order, but for those of users who had added enough
    to the item, of which there are `not_of_items`; `unknown` events were of items not in the
    catalogue; `late` (N,) bool, the applied ones that were not the newest of their user; `rebuilt`
    rows of another artifact were carried over before.
    """

    outcomes: NDArray[np.uint8]
    item_events: Array
    unknown: int
    late: NDArray[np.bool_]
    rebuilt: int = 0
    not_of_items: int = 0


@native
def _settle(rows: RowColumns, user: int, rules: Rules, content: Content, scratch: Array) -> int:
    """Move the late event at the ring's end to its place, and return that.

    While the ring holds every event of the user, the interests are made anew in event time. Later
    the event has only joined them, since what left the ring could not be made anew.
    """
    n = whole(rows.head[user]["n_ring"])
    last = rows.ring[user, n - 1]
    place = place_in_ring(rows.ring[user], n - 1, last["time"], last["event_id"])
    sort_ring(rows.ring[user], n)
    entry = rows.ring[user, place]
    if entry["flags"] & RING_IN_SUMS and entry["weight"] > 0.0 and all_known(rows, user, content):
        refill(rows, user, rules, content, scratch, False)
    return place


@native
def _note_in_ring(
    rows: RowColumns, user: int, rules: Rules, seen: SeenColumns, events: EventColumns, i: int
) -> None:
    """Keep event i in the ring as retracted, so that a repeat of its id is known."""
    append_to_ring(rows, user, rules, seen, events, i, RING_RETRACTED)
    sort_ring(rows.ring[user], whole(rows.head[user]["n_ring"]))


@native
def _are_whole(events: EventColumns, n_rows: int) -> bool:
    """Return whether rows are in bounds, and times and weights are numbers."""
    for i in range(events.rows.shape[0]):
        if events.rows[i] >= n_rows:
            return False
        is_number = np.isfinite(events.weights[i]) and np.isfinite(events.times[i])
        if not is_number and events.retracts[i] == 0:
            return False
    return True


@native
def _apply(
    rows: RowColumns,
    events: EventColumns,
    rules: Rules,
    content: Content,
    seen: SeenColumns,
    outcomes: Array,
    out: Array,
    recents: Array,
    late: Array,
) -> tuple[int, int, int]:
    """Apply events in order.

    Returns the number of item events in `out`, of unknown items, and of events that were not told
    to their items. The first is -1 if `_are_whole` is false: then nothing is applied.
    """
    if not _are_whole(events, len(content.vectors)):
        return -1, 0, 0
    scratch = np.empty(rows.interest_means.shape[1:], np.float32)
    written = 0
    unknown = 0
    not_of_items = 0
    for i in range(events.slots.shape[0]):
        user = events.slots[i]
        head = rows.head[user]
        head["last_offset"] = events.offsets[i]
        head["basis"] = rules.basis
        head["artifact"] = rules.sequence
        event_id = events.event_ids[i]
        is_named = False
        if events.retracts[i] == LATEST_OF_KIND:
            is_named = event_id != 0
            if is_named and find_event(rows, user, event_id) >= 0:
                outcomes[i] = DUPLICATE
                head["duplicates"] += 1
                continue
            outcome, place = take_back(
                rows,
                user,
                events.items[i],
                events.kinds[i],
                events.times[i],
                rules,
                content,
                scratch,
            )
            outcomes[i] = outcome
            if place < 0:
                if is_named:
                    _note_in_ring(rows, user, rules, seen, events, i)
                continue
            sign = -1
        elif events.retracts[i] != 0:
            outcome, place = retract(rows, user, events.retracts[i], rules, content, seen, scratch)
            outcomes[i] = outcome
            if place < 0:
                continue
            sign = -1
        else:
            if event_id != 0:
                if find_event(rows, user, event_id) >= 0:
                    outcomes[i] = DUPLICATE
                    head["duplicates"] += 1
                    continue
                if was_retracted(rows, user, event_id):
                    outcomes[i] = RETRACTED_ON_ARRIVAL
                    head["retracted"] += 1
                    move_times(rows, user, rules, events.times[i])
                    _note_in_ring(rows, user, rules, seen, events, i)
                    continue
            place = whole(head["n_ring"])
            nothing_known = -1
            if is_late(rows, user, place, events.times[i], event_id):
                late[i] = True
                sort_ring(rows.ring[user], place)
                place = place_in_ring(rows.ring[user], place, events.times[i], event_id)
                if head["evicted"] > 0:
                    nothing_known = rules.ring_evict
            enough = flag_of_item(
                rows.ring[user],
                whole(head["n_ring"]),
                place,
                nothing_known,
                events.items[i],
                events.times[i],
                events.weights[i],
            )
            flags = enough | take_in(rows, user, events, i, rules, content, scratch)
            if flags & RING_UNKNOWN:
                unknown += 1
            n = recent_items(rows.ring[user], place, recents[written])
            append_to_ring(rows, user, rules, seen, events, i, flags)
            place = whole(head["n_ring"]) - 1
            if late[i]:
                place = _settle(rows, user, rules, content, scratch)
            outcomes[i] = APPLIED
            sign = 1
        if sign < 0:
            n_ring = whole(head["n_ring"])
            n = recent_items_then(rows.ring[user], n_ring, place, recents[written])
        entry = rows.ring[user, place]
        if whole(entry["flags"]) & RING_NOT_OF_ITEM:
            not_of_items += sign > 0
            if is_named:
                _note_in_ring(rows, user, rules, seen, events, i)
            continue
        item_event = out[written]
        item_event["item"] = entry["item"]
        item_event["time"] = entry["time"]
        item_event["weight"] = entry["weight"]
        item_event["scene"] = entry["scene"]
        item_event["kind"] = entry["kind"]
        item_event["source_offset"] = events.offsets[i]
        item_event["sign"] = sign
        item_event["n_recent"] = n
        written += 1
        if is_named:
            _note_in_ring(rows, user, rules, seen, events, i)
    return written, unknown, not_of_items


@native
def _look_through(
    slots: Array, head: Array, seen_slots: Array, basis: np.uint64, ring: int, overflow: Array
) -> tuple[int, int, int]:
    """Find the users of sorted slots who need a seen set.

    Args:
        slots: (N,) of the events, in ascending order.
        head: of the arena.
        seen_slots: (C,) by user slot, -1 for none.
        basis: that rows have to be of.
        ring: entries of a ring.
        overflow: filled with the users without a seen set whose ring can overflow now.

    Returns:
        the number of users in `overflow`; the first row of another basis, and the first whose seen
        set was not loaded, each -1 if there is none.
    """
    n_overflow = 0
    foreign = -1
    unloaded = -1
    start = 0
    while start < len(slots):
        user = slots[start]
        end = start + 1
        while end < len(slots) and slots[end] == user:
            end += 1
        row = head[user]
        in_ring = whole(row["n_ring"])
        if foreign < 0 and in_ring > 0 and row["basis"] != basis:
            foreign = user
        if seen_slots[user] < 0:
            if unloaded < 0 and row["evicted"] > 0:
                unloaded = user
            if in_ring + end - start > ring:
                overflow[n_overflow] = user
                n_overflow += 1
        start = end
    return n_overflow, foreign, unloaded


def apply_events(
    states: UserStates,
    seen: SeenSets,
    seen_slots: Slots,
    events: EventBatch,
    catalogue: Catalogue,
    basis: int = 0,
    sequence: int = 0,
) -> Applied:
    """Apply a batch to its users' rows, in place.

    Events are applied strictly in order; how they are divided into batches does not matter:

    1. A retraction takes its event out if the ring holds it: its terms leave sums, masses and
       counts, and the interests are rebuilt from the ring. While the ring holds every event of the
       user, the sums are rebuilt too. If the event is not there: TOO_OLD if it has left the ring,
       else the retraction waits for it. One without an id takes out the latest event of its kind
       on its item, see `take_back`; if it has an id of its own, the ring keeps that.
    2. An event whose id is in the ring is a duplicate; one whose retraction waits is kept in the
       ring as retracted. Of these, only the second's time changes anything else.
    3. Time moves on to the event's, if that is later; its weighted vector joins the sums (positive
       weight) or the negative sum, as decayed by what it is late. An item not in the catalogue is
       counted, and has no content.
    4. A positive event of a known item goes into the interests (`interests.add_to_interests`).
    5. Its item is told, unless the user has added enough to that: see `flag_of_item`.
    6. It joins the ring in the order of times; when that is full, the oldest entries move to the
       seen set. If it is not the newest, and the ring holds every event of the user, the
       interests are made anew in the order of times.

    Args:
        states: the arena.
        seen: seen sets; rows are allocated for users whose ring can overflow now.
        seen_slots: (C,) int64 by user slot, -1 for none; filled in place.
        events: with `slots` and `rows` filled.
        catalogue: vectors and the table from hash to row.
        basis: hash of the vectors' basis, stamped on the rows.
        sequence: of the artifact, stamped on the rows.

    Raises:
        ValueError: a slot or row out of bounds, another dim, a time or weight that is not a
            number, a row in another basis (rebuild it first), or one whose seen set was not loaded.
    """
    n = len(events.slots)
    outcomes = np.zeros(n, np.uint8)
    if n == 0:
        return Applied(outcomes, np.zeros(0, ITEM_EVENT), 0, np.zeros(0, np.bool_))
    content = content_of(states, catalogue)
    slots = np.sort(events.slots)
    if slots[0] < 0 or slots[-1] >= states.capacity:
        raise ValueError(
            f"event slots run from {slots[0]} to {slots[-1]}; the arena has rows 0 to"
            f" {states.capacity - 1}"
        )
    overflow = np.empty(n, np.int64)
    n_overflow, foreign, unloaded = _look_through(
        slots, states.head, seen_slots, np.uint64(basis), states.config.ring, overflow
    )
    if foreign >= 0:
        raise ValueError(
            f"user row {foreign} is in basis {states.head['basis'][foreign]:x}; {basis:x} is"
            " expected: rebuild it from its ring first"
        )
    if unloaded >= 0:
        raise ValueError(f"user row {unloaded} has a seen set that was not loaded: unpack it first")
    if n_overflow:
        seen_slots[overflow[:n_overflow]] = seen.allocate(n_overflow)
    out = np.zeros(n, ITEM_EVENT)
    recents = np.zeros((n, RECENTS), np.uint64)
    late = np.zeros(n, np.bool_)
    written, unknown, not_of_items = _apply(
        rows_of(states),
        events_of(events),
        rules_of(states, basis, sequence),
        content,
        seen_of(seen, seen_slots),
        outcomes,
        out,
        recents,
        late,
    )
    if written < 0:
        raise ValueError(
            f"the rows of events go up to {events.rows.max()}, and the catalogue has"
            f" {len(catalogue.vectors)}; or one has a time or weight that is not a number"
        )
    out = out[:written]
    out["recent"] = recents[:written]
    out["source_partition"] = events.partition
    return Applied(outcomes, out, unknown, late, not_of_items=not_of_items)


def joined(parts: Sequence[Applied]) -> Applied:
    """Return the outcome of consecutive batches as that of one batch."""
    return Applied(
        np.concatenate([part.outcomes for part in parts]),
        np.concatenate([part.item_events for part in parts]),
        sum(part.unknown for part in parts),
        np.concatenate([part.late for part in parts]),
        not_of_items=sum(part.not_of_items for part in parts),
    )


@native
def _rebuild(rows: RowColumns, slots: Slots, rules: Rules, content: Content) -> None:
    scratch = np.empty(rows.interest_means.shape[1:], np.float32)
    for i in range(slots.shape[0]):
        user = slots[i]
        head = rows.head[user]
        known_positives = 0
        sort_ring(rows.ring[user], whole(head["n_ring"]))
        for r in range(whole(head["n_ring"])):
            entry = rows.ring[user, r]
            flags = whole(entry["flags"]) & ~RING_IN_SUMS
            row = row_of_hash(content.table_hash, content.table_row, entry["item"])
            if (
                row >= 0
                and entry["weight"] != 0.0
                and not flags & RING_RETRACTED
                and 0.0 < square(content.vectors[row]) < 1e6
            ):
                flags |= RING_IN_SUMS
                if entry["weight"] > 0.0:
                    known_positives += 1
            entry["flags"] = flags
        head["known_positives"] = known_positives
        head["basis"] = rules.basis
        head["artifact"] = rules.sequence
        refill(rows, user, rules, content, scratch, True)


def rebuild_from_ring(
    states: UserStates, slots: Slots, catalogue: Catalogue, basis: int, sequence: int = 0
) -> None:
    """Rebuild sums, masses, negative and interests in another basis, from the events in the ring.

    Unretracted entries count with their stored weights and times, decayed to the row's time, if
    their items are in the catalogue now. What had left the ring is gone from the sums; counts,
    times and the ring itself stay.

    Args:
        states: the arena.
        slots: (B,) rows.
        catalogue: vectors of the new basis.
        basis: its hash, stamped on the rows.
        sequence: of the artifact, stamped on the rows.

    Raises:
        ValueError: the catalogue's dim is not the states'.
    """
    content = content_of(states, catalogue)
    _rebuild(rows_of(states), slots, rules_of(states, basis, sequence), content)
