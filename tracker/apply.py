"""Events into user rows, one by one and in their order, whatever the chunk they come in."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tracker.event_batch import EventBatch
from tracker.interest import add_scaled, add_to_slots, decay, scale_in_place, square, whole
from tracker.item_events import ITEM_EVENT, RECENTS
from tracker.native import native
from tracker.seen import SeenSets, bloom_add, bloom_contains, event_key
from tracker.state import RING_IN_SUMS, RING_RETRACTED, RING_UNKNOWN, Slots, UserStates
from tracker.vectors import row_of_hash

Array = NDArray[Any]

APPLIED = 0
"""The event is in the state."""
DUPLICATE = 1
"""Its event id is in the ring: ignored."""
RETRACTED = 2
"""A retraction that took its event out."""
RETRACTION_WAITS = 3
"""A retraction whose event is not known; it waits for it in a bounded set."""
TOO_OLD = 4
"""A retraction of an event that the ring no longer holds: ignored."""
RETRACTED_ON_ARRIVAL = 5
"""An event whose retraction had come first: kept in the ring, not counted."""
ALREADY_RETRACTED = 6
"""A repeated retraction: ignored."""

_NOTHING = 1e-20
"""A mass below it becomes 0, and its sum with it; denormal numbers are slow."""


class Catalogue(Protocol):
    """What is needed of an ItemVectors: vectors (N, D) float32 and the table from hash to row."""

    @property
    def vectors(self) -> NDArray[np.float32]:
        """Unit vectors by row."""

    @property
    def table_hash(self) -> NDArray[np.uint64]:
        """Hashes of the open-addressing table."""

    @property
    def table_row(self) -> NDArray[np.int32]:
        """Rows of the open-addressing table."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a batch.

    `outcomes` (N,) uint8, one of APPLIED .. ALREADY_RETRACTED an event; `item_events` (M,)
    ITEM_EVENT of those that changed a state, in order; `unknown` of them were of items not in the
    catalogue; `seen_changed` (U,) int64, user slots whose seen set has to be stored.
    """

    outcomes: NDArray[np.uint8]
    item_events: Array
    unknown: int
    seen_changed: Slots


class _Rows(NamedTuple):
    head: Array
    masses: Array
    sums: Array
    negative: Array
    pending: Array
    slot_head: Array
    slot_mean: Array
    ring: Array


class _Rules(NamedTuple):
    half_lives: Array
    negative_half_life: float
    slot_half_life: float
    slot_threshold: float
    ring_evict: int
    seen_capacity: int
    basis: np.uint64
    sequence: int


class _Content(NamedTuple):
    table_hash: Array
    table_row: Array
    vectors: Array


class _Seen(NamedTuple):
    bits: Array
    counts: Array
    active: Array
    slots: Array


class _Events(NamedTuple):
    slots: Array
    items: Array
    rows: Array
    times: Array
    weights: Array
    values: Array
    kinds: Array
    scenes: Array
    event_ids: Array
    retracts: Array
    offsets: Array


@native
def _move_time(rows: _Rows, user: int, rules: _Rules, time: float) -> None:
    """Bring masses and sums to a time, if it is later than theirs."""
    head = rows.head[user]
    age = time - head["ref_time"]
    if age <= 0.0:
        return
    head["ref_time"] = time
    for h in range(rows.masses.shape[1]):
        mass = rows.masses[user, h]
        if mass == 0.0:
            continue
        left = decay(age, rules.half_lives[h])
        if mass * left < _NOTHING:
            rows.masses[user, h] = 0.0
            rows.sums[user, h, :] = 0.0
        else:
            rows.masses[user, h] = mass * left
            scale_in_place(rows.sums[user, h], left)
    mass = head["negative_mass"]
    if mass != 0.0:
        left = decay(age, rules.negative_half_life)
        if mass * left < _NOTHING:
            head["negative_mass"] = 0.0
            rows.negative[user, :] = 0.0
        else:
            head["negative_mass"] = mass * left
            scale_in_place(rows.negative[user], left)


@native
def _add_to_sums(
    rows: _Rows, user: int, rules: _Rules, time: float, weight: float, sign: float, vector: Array
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
def _clear_sums(rows: _Rows, user: int) -> None:
    rows.masses[user, :] = 0.0
    rows.sums[user, :, :] = 0.0
    rows.negative[user, :] = 0.0
    rows.head[user]["negative_mass"] = 0.0


@native
def _refill(
    rows: _Rows, user: int, rules: _Rules, content: _Content, scratch: Array, with_sums: bool
) -> None:
    """Make the slots anew, and the sums if asked, from what the ring holds of the sums."""
    head = rows.head[user]
    if with_sums:
        _clear_sums(rows, user)
    n_slots = 0
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
            _add_to_sums(rows, user, rules, entry["time"], weight, 1.0, vector)
        if weight > 0.0:
            n_slots = add_to_slots(
                rows.slot_head[user],
                rows.slot_mean[user],
                n_slots,
                entry["item"],
                entry["time"],
                weight,
                vector,
                scratch,
                rules.slot_half_life,
                rules.slot_threshold,
            )
    head["n_slots"] = n_slots


@native
def _find(rows: _Rows, user: int, event_id: np.uint64) -> int:
    """Return the place of an event id in the ring, or -1."""
    for r in range(whole(rows.head[user]["n_ring"]) - 1, -1, -1):
        if rows.ring[user, r]["event_id"] == event_id:
            return r
    return -1


@native
def _all_known(rows: _Rows, user: int, content: _Content) -> bool:
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
def _take_out(
    rows: _Rows, user: int, place: int, rules: _Rules, content: _Content, scratch: Array
) -> None:
    """Take the event at a place of the ring out of sums, counts and slots."""
    head = rows.head[user]
    entry = rows.ring[user, place]
    flags = whole(entry["flags"])
    weight = float(entry["weight"])
    since = whole(head["n_ring"]) - 1 - place
    entry["flags"] = flags | RING_RETRACTED | (since << 8)
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
    # While the ring holds all that ever came, adding it up anew leaves no trace of the event;
    # afterwards its terms are subtracted, which leaves their rounding.
    anew = _all_known(rows, user, content)
    if not anew:
        row = row_of_hash(content.table_hash, content.table_row, entry["item"])
        if row >= 0:
            vector = content.vectors[row]
            _add_to_sums(rows, user, rules, entry["time"], weight, -1.0, vector)
        if head["known_positives"] == 0:
            rows.masses[user, :] = 0.0
            rows.sums[user, :, :] = 0.0
        if head["negatives"] == 0:
            head["negative_mass"] = 0.0
            rows.negative[user, :] = 0.0
    if weight > 0.0 or anew:
        _refill(rows, user, rules, content, scratch, anew)


@native
def _recent_items(ring: Array, place: int, out: Array) -> int:
    """Write the distinct positive items that stood before a place, latest first; how many.

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
        known = False
        for k in range(n):
            if out[k] == item:
                known = True
                break
        if known:
            continue
        out[n] = item
        n += 1
        if n == out.shape[0]:
            break
    return n


@native
def _append(
    rows: _Rows, user: int, rules: _Rules, seen: _Seen, events: _Events, i: int, flags: int
) -> None:
    """Append event i to the ring; when it is full, the oldest entries move to the seen set."""
    head = rows.head[user]
    n = whole(head["n_ring"])
    if n == rows.ring.shape[1]:
        gone = rules.ring_evict
        slot = seen.slots[user]
        for r in range(gone):
            entry = rows.ring[user, r]
            if not entry["flags"] & RING_RETRACTED:
                bloom_add(
                    seen.bits, seen.counts, seen.active, slot, entry["item"], rules.seen_capacity
                )
            if entry["event_id"] != 0:
                key = np.uint64(event_key(entry["event_id"]))
                bloom_add(seen.bits, seen.counts, seen.active, slot, key, rules.seen_capacity)
        for r in range(n - gone):
            rows.ring[user, r] = rows.ring[user, r + gone]
        n -= gone
        head["evicted"] += gone
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
def _retract(
    rows: _Rows,
    user: int,
    event_id: np.uint64,
    rules: _Rules,
    content: _Content,
    seen: _Seen,
    scratch: Array,
) -> tuple[int, int]:
    """Do one retraction: its outcome, and the ring's place of the event if it was taken out."""
    head = rows.head[user]
    place = _find(rows, user, event_id)
    if place >= 0:
        if rows.ring[user, place]["flags"] & RING_RETRACTED:
            return ALREADY_RETRACTED, -1
        _take_out(rows, user, place, rules, content, scratch)
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
def _was_retracted(rows: _Rows, user: int, event_id: np.uint64) -> bool:
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


@native
def _take_in(
    rows: _Rows,
    user: int,
    events: _Events,
    i: int,
    rules: _Rules,
    content: _Content,
    scratch: Array,
) -> int:
    """Apply event i to time, counts, sums and slots; the flags of its ring entry."""
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
    if not square(vector) < 1e6:  # NaN never enters
        return 0
    _add_to_sums(rows, user, rules, time, weight, 1.0, vector)
    if weight > 0.0:
        head["known_positives"] += 1
        head["n_slots"] = add_to_slots(
            rows.slot_head[user],
            rows.slot_mean[user],
            whole(head["n_slots"]),
            events.items[i],
            time,
            weight,
            vector,
            scratch,
            rules.slot_half_life,
            rules.slot_threshold,
        )
    return RING_IN_SUMS


@native
def _apply(
    rows: _Rows,
    events: _Events,
    rules: _Rules,
    content: _Content,
    seen: _Seen,
    outcomes: Array,
    out: Array,
    recents: Array,
) -> tuple[int, int]:
    """Apply events in order; the numbers of item events written to `out` and of unknown items."""
    scratch = np.empty(rows.slot_mean.shape[1:], np.float32)
    written = 0
    unknown = 0
    for i in range(events.slots.shape[0]):
        user = events.slots[i]
        head = rows.head[user]
        head["last_offset"] = events.offsets[i]
        head["basis"] = rules.basis
        head["artifact"] = rules.sequence
        if events.retracts[i] != 0:
            outcome, place = _retract(rows, user, events.retracts[i], rules, content, seen, scratch)
            outcomes[i] = outcome
            if place < 0:
                continue
            sign = -1
        else:
            event_id = events.event_ids[i]
            if event_id != 0:
                if _find(rows, user, event_id) >= 0:
                    outcomes[i] = DUPLICATE
                    head["duplicates"] += 1
                    continue
                if _was_retracted(rows, user, event_id):
                    outcomes[i] = RETRACTED_ON_ARRIVAL
                    head["retracted"] += 1
                    _append(rows, user, rules, seen, events, i, RING_RETRACTED)
                    continue
            flags = _take_in(rows, user, events, i, rules, content, scratch)
            if flags & RING_UNKNOWN:
                unknown += 1
            place = whole(head["n_ring"])
            n = _recent_items(rows.ring[user], place, recents[written])
            _append(rows, user, rules, seen, events, i, flags)
            place = whole(head["n_ring"]) - 1
            outcomes[i] = APPLIED
            sign = 1
        if sign < 0:
            n = _recent_items(rows.ring[user], place, recents[written])
        entry = rows.ring[user, place]
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
    return written, unknown


def _rows_of(states: UserStates) -> _Rows:
    return _Rows(
        states.head,
        states.masses,
        states.sums,
        states.negative,
        states.pending,
        states.slot_head,
        states.slot_mean,
        states.ring,
    )


def _rules_of(states: UserStates, basis: int, sequence: int) -> _Rules:
    config = states.config
    return _Rules(
        np.array(config.half_lives_seconds, np.float64),
        float(config.negative_half_life_seconds),
        float(config.slot_half_life_seconds),
        float(config.slot_threshold),
        config.ring_evict,
        config.seen_capacity,
        np.uint64(basis),
        sequence,
    )


def _content_of(states: UserStates, catalogue: Catalogue) -> _Content:
    if catalogue.vectors.shape[1] != states.config.dim:
        raise ValueError(
            f"the catalogue's vectors have dim {catalogue.vectors.shape[1]}, the states"
            f" {states.config.dim}"
        )
    return _Content(catalogue.table_hash, catalogue.table_row, catalogue.vectors)


def _check_events(states: UserStates, events: EventBatch, n_rows: int) -> None:
    if events.slots.min() < 0 or events.slots.max() >= states.capacity:
        raise ValueError(
            f"event slots run from {events.slots.min()} to {events.slots.max()}; the arena has"
            f" rows 0 to {states.capacity - 1}"
        )
    if events.rows.max() >= n_rows:
        raise ValueError(f"an event has row {events.rows.max()}; the catalogue has {n_rows}")
    if not (np.isfinite(events.weights) & np.isfinite(events.times) | (events.retracts != 0)).all():
        raise ValueError("an event has a time or weight that is not a number")


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

    Each event, strictly in order, whatever the batch it stands in:

    1. A retraction takes its event out if the ring holds it: its terms leave sums, masses and
       counts, and the slots are made anew from the ring. While the ring holds all the user ever
       did, the sums are made anew too. If the event is not there: TOO_OLD if it has left the ring,
       else the retraction waits for it.
    2. An event whose id is in the ring is a duplicate; one whose retraction waits is kept in the
       ring as retracted. Neither changes anything else.
    3. Time moves on to the event's, if that is later; its weighted vector joins the sums (positive
       weight) or the negative sum, as decayed by what it is late. An item not in the catalogue is
       counted, and has no content.
    4. A positive event of a known item goes into the slots (`interest.add_to_slots`).
    5. It joins the ring; when that is full, the oldest entries move to the seen set.

    Args:
        states: the arena.
        seen: seen sets; rows are allocated for users whose ring can overflow now.
        seen_slots: (C,) int64 by user slot, -1 for none; filled in place.
        events: with `slots` and `rows` filled.
        catalogue: vectors and the table from hash to row.
        basis: hash of the vectors' basis, stamped on the rows.
        sequence: of the artifact, stamped on the rows.

    Raises:
        ValueError: a slot or row out of bounds, another dim, a time or weight that is no number, a
            row in another basis (rebuild it first), or one whose seen set was not loaded.
    """
    n = len(events.slots)
    outcomes = np.zeros(n, np.uint8)
    if n == 0:
        return Applied(outcomes, np.zeros(0, ITEM_EVENT), 0, np.zeros(0, np.int64))
    content = _content_of(states, catalogue)
    _check_events(states, events, len(catalogue.vectors))
    users, times = np.unique(events.slots, return_counts=True)
    head = states.head[users]
    foreign = (head["n_ring"] > 0) & (head["basis"] != np.uint64(basis))
    if foreign.any():
        raise ValueError(
            f"user row {users[foreign][0]} is in basis {head['basis'][foreign][0]:x}; {basis:x} is"
            " expected: rebuild it from its ring first"
        )
    without = seen_slots[users] < 0
    if (without & (head["evicted"] > 0)).any():
        raise ValueError(
            f"user row {users[without & (head['evicted'] > 0)][0]} has a seen set that was not"
            " loaded: unpack it first"
        )
    overflow = users[without & (head["n_ring"] + times > states.config.ring)]
    seen_slots[overflow] = seen.allocate(len(overflow))
    out = np.zeros(n, ITEM_EVENT)
    recents = np.zeros((n, RECENTS), np.uint64)
    written, unknown = _apply(
        _rows_of(states),
        _Events(
            events.slots,
            events.items,
            events.rows,
            events.times,
            events.weights,
            events.values,
            events.kinds,
            events.scenes,
            events.event_ids,
            events.retracts,
            events.offsets,
        ),
        _rules_of(states, basis, sequence),
        content,
        _Seen(seen.bits, seen.counts, seen.active, seen_slots),
        outcomes,
        out,
        recents,
    )
    out = out[:written]
    out["recent"] = recents[:written]
    out["source_partition"] = events.partition
    changed = users[states.head["evicted"][users] != head["evicted"]]
    return Applied(outcomes, out, unknown, changed)


@native
def _rebuild(rows: _Rows, slots: Slots, rules: _Rules, content: _Content) -> None:
    scratch = np.empty(rows.slot_mean.shape[1:], np.float32)
    for i in range(slots.shape[0]):
        user = slots[i]
        head = rows.head[user]
        known = 0
        for r in range(whole(head["n_ring"])):
            entry = rows.ring[user, r]
            flags = whole(entry["flags"]) & ~RING_IN_SUMS
            row = row_of_hash(content.table_hash, content.table_row, entry["item"])
            if (
                row >= 0
                and entry["weight"] != 0.0
                and not flags & RING_RETRACTED
                and square(content.vectors[row]) < 1e6
            ):
                flags |= RING_IN_SUMS
                if entry["weight"] > 0.0:
                    known += 1
            entry["flags"] = flags
        head["known_positives"] = known
        head["basis"] = rules.basis
        head["artifact"] = rules.sequence
        _refill(rows, user, rules, content, scratch, True)


def rebuild_from_ring(
    states: UserStates, slots: Slots, catalogue: Catalogue, basis: int, sequence: int = 0
) -> None:
    """Make sums, masses, negative and slots anew, in another basis, from what the ring holds.

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
    content = _content_of(states, catalogue)
    _rebuild(_rows_of(states), slots, _rules_of(states, basis, sequence), content)
