"""Item events into item rows: decayed counts, scenes and neighbours.

Counts are sums of decayed ones in float64, so that any order of arrival and every retraction gives
the same numbers to 1e-6. Scenes and neighbours are bounded: the first 4 and 64 are exact, beyond
that the least gives way. A new scene starts from the count of the one it replaces ("space-saving":
Metwally, Agrawal, El Abbadi, ICDT 2005).

A pair of neighbours counts 0.8 for each item that the user chose between the two, so that the
places go to what was chosen near together and not to all of a user's last 20 alike. A new neighbour
starts from nothing. That differs from "space-saving", where it inherits the other's count: with
decay the least is soon next to nothing, so the list follows by itself, and inherited counts kept
out what was new.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.events.item_events import RECENTS
from tracker.items.layout import NEIGHBOURS, SCENES
from tracker.items.states import ItemStates, StateColumns
from tracker.kernels.arithmetic import decay, whole
from tracker.kernels.native import native
from tracker.kernels.row_bytes import Slots

Array = NDArray[Any]


class _CountColumns(NamedTuple):
    short: int = 0
    long: int = 1
    never: int = 2


COUNT = _CountColumns()
"""Columns of decayed counts, the first of `ItemCounts.seconds`: `counts[row, COUNT.short]`."""


class _SumColumns(NamedTuple):
    short: int = 0
    long: int = 1
    never: int = 2


SUM = _SumColumns()
"""Columns of signed weights and, but for the last, of the counts in a scene, by half-life."""


class _TallyColumns(NamedTuple):
    positives: int = 0
    negatives: int = 1
    neutrals: int = 2


TALLY = _TallyColumns()
"""Columns of numbers of events, by the sign of their weights."""


class _PairColumns(NamedTuple):
    together: int = 0
    together_lately: int = 1
    next: int = 2


PAIR = _PairColumns()
"""Columns of the counts of two neighbours, as the fields of NEIGHBOUR."""

PAIR_PRIOR = 5.0
"""Events that each of two items is taken to have besides its own when their pairs are weighed."""


@native
def pair_norm(count: float) -> float:
    """Return sqrt(n + PAIR_PRIOR) of an item's positive events, not decayed.

    Pairs over the norms of both items are a cosine of co-occurrence that few events do not raise.
    """
    return math.sqrt(count + PAIR_PRIOR)


_LEAST = 1e-20

_MOST_EVENTS = 2**32 - 1


@native
def _settle(number: float, factor: float) -> float:
    """Return a number times a factor of decay, 0 for next to nothing: denormals are slow."""
    number *= factor
    return number if abs(number) >= _LEAST else 0.0


@native
def _move_time(
    head: Any,
    counts: Array,
    weights: Array,
    scenes: Array,
    neighbours: Array,
    half_lives: Array,
    time: float,
) -> None:
    """Decay a row up to a time, if it is later than the row's."""
    age = time - head["ref_time"]
    if age <= 0.0:
        return
    head["ref_time"] = time
    short = decay(age, half_lives[COUNT.short])
    long = decay(age, half_lives[COUNT.long])
    counts[COUNT.short] = _settle(counts[COUNT.short], short)
    counts[COUNT.long] = _settle(counts[COUNT.long], long)
    for h in range(COUNT.never + 1, counts.shape[0]):
        if counts[h] != 0.0:
            counts[h] = _settle(counts[h], decay(age, half_lives[h]))
    weights[SUM.short] = _settle(weights[SUM.short], short)
    weights[SUM.long] = _settle(weights[SUM.long], long)
    for s in range(whole(head["n_scenes"])):
        both = scenes[s]["counts"]
        both[SUM.short] = _settle(both[SUM.short], short)
        both[SUM.long] = _settle(both[SUM.long], long)
    fade_neighbours(neighbours, whole(head["n_neighbours"]), long)


@native
def _count_scene(
    head: Any, scenes: Array, scene: np.uint32, sign: float, short: float, long: float
) -> None:
    """Count an event in its scene; a new one takes the place of the least when all are taken."""
    n = whole(head["n_scenes"])
    place = -1
    for s in range(n):
        if scenes[s]["scene"] == scene:
            place = s
            break
    if place < 0:
        if sign < 0.0:
            return
        if n < SCENES:
            place = n
            head["n_scenes"] = n + 1
            scenes[place]["counts"][SUM.short] = 0.0
            scenes[place]["counts"][SUM.long] = 0.0
        else:
            place = 0
            for s in range(1, n):
                least = scenes[place]["counts"][SUM.long]
                if scenes[s]["counts"][SUM.long] < least:
                    place = s
        scenes[place]["scene"] = scene
    counts = scenes[place]["counts"]
    counts[SUM.short] += sign * short
    counts[SUM.long] += sign * long


@native
def _tally(number: np.uint32, sign: np.int8) -> int:
    """Add one event to a number of events, or take one out of it; it stays within its 32 bits."""
    return min(max(whole(number) + whole(sign), 0), _MOST_EVENTS)


@native
def _apply(states: StateColumns, slots: Slots, events: Array, recents: Array) -> None:
    all_heads, all_counts, all_weights, all_scenes, all_neighbours, half_lives = states
    for i in range(slots.shape[0]):
        slot = slots[i]
        event = events[i]
        head = all_heads[slot]
        counts = all_counts[slot]
        scenes = all_scenes[slot]
        neighbours = all_neighbours[slot]
        time = event["time"]
        weight = float(event["weight"])
        sign = float(event["sign"])
        head["item"] = event["item"]
        if sign < 0.0 and not head["first_time"] <= time:
            continue  # of an event before the row began, after one that was deleted as idle
        _move_time(head, counts, all_weights[slot], scenes, neighbours, half_lives, time)
        if sign > 0.0:
            # NaN, for none, is not smaller and not larger than anything.
            if not head["first_time"] <= time:
                head["first_time"] = time
            if not head["last_time"] >= time:
                head["last_time"] = time
        age = head["ref_time"] - time
        short = decay(age, half_lives[COUNT.short])
        long = decay(age, half_lives[COUNT.long])
        all_weights[slot, SUM.short] += sign * weight * short
        all_weights[slot, SUM.long] += sign * weight * long
        head["weight_total"] += sign * weight
        if weight < 0.0:
            head["negatives"] = _tally(head["negatives"], event["sign"])
        elif weight == 0.0:
            head["neutrals"] = _tally(head["neutrals"], event["sign"])
        if not weight > 0.0:
            continue
        head["positives"] = _tally(head["positives"], event["sign"])
        if age > 0.0:
            for h in range(counts.shape[0]):
                counts[h] += sign * decay(age, half_lives[h])
        else:
            for h in range(counts.shape[0]):
                counts[h] += sign
        if sign < 0.0:
            for h in range(counts.shape[0]):
                counts[h] = max(counts[h], 0.0)
        if event["scene"] != 0:
            _count_scene(head, scenes, event["scene"], sign, short, long)
        n_recent = whole(event["n_recent"])
        head["n_neighbours"] = count_neighbours(
            neighbours,
            whole(head["n_neighbours"]),
            event["item"],
            recents[i],
            n_recent,
            sign,
            long,
        )


def apply_item_events(states: ItemStates, slots: Slots, events: Array) -> None:
    """Apply item events, in order, to their items' rows, in place.

    1. Time moves on to the event's, if that is later: everything decayed is brought there.
    2. Its signed weight joins the weight sums and their total, and it is tallied by its sign; a
       positive event adds one, as decayed by what it is late, to the counts and to its scene. A
       retraction (sign -1) subtracts the same terms, unless its event is from before the row began.
    3. The user's recent items are counted as neighbours, by how near before they were, the latest
       also as the one before; of a retraction, the same pairs are taken out where they are kept.

    Args:
        states: the arena.
        slots: (M,) the row of each event's item.
        events: (M,) ITEM_EVENT.

    Raises:
        ValueError: a slot out of bounds, numbers of slots and events that differ, a time or
            weight that is not a number, a sign or number of recents out of bounds.
    """
    if len(slots) != len(events):
        raise ValueError(f"{len(slots)} slots for {len(events)} item events")
    if len(slots) == 0:
        return
    if slots.min() < 0 or slots.max() >= states.capacity:
        raise ValueError(
            f"item slots run from {slots.min()} to {slots.max()}; the arena has rows 0 to"
            f" {states.capacity - 1}"
        )
    if not (np.isfinite(events["time"]) & np.isfinite(events["weight"])).all():
        raise ValueError("an item event has a time or weight that is not a number")
    if (np.abs(events["sign"]) != 1).any() or events["n_recent"].max() > RECENTS:
        raise ValueError(f"an item event has a sign other than 1 and -1, or over {RECENTS} recents")
    recents = np.ascontiguousarray(events["recent"])
    _apply(states.columns, slots, events, recents)


POSITION_DECAY = 0.8
"""What a pair counts less for each item that the user chose in between."""


@native
def fade_neighbours(neighbours: Array, n: int, factor: float) -> None:
    """Multiply the decayed counts of n entries by a factor; next to nothing becomes 0."""
    part = np.float32(factor)
    for k in range(n):
        entry = neighbours[k]
        entry["together_lately"] *= part
        if entry["together_lately"] < _LEAST:  # denormal numbers are slow
            entry["together_lately"] = 0.0


@native
def _find_neighbour(neighbours: Array, n: int, item: np.uint64) -> int:
    """Return the place of an item among n neighbours, or -1."""
    place = -1
    for k in range(n):  # to the end, without a branch: faster than leaving at the first
        if neighbours[k]["item"] == item:
            place = k
    return place


@native
def _least_neighbour(neighbours: Array, n: int) -> int:
    place = 0
    least = neighbours[0]["together_lately"]
    for k in range(1, n):
        if neighbours[k]["together_lately"] < least:
            least = neighbours[k]["together_lately"]
            place = k
    return place


@native
def count_neighbours(
    neighbours: Array,
    n: int,
    item: np.uint64,
    recent: Array,
    n_recent: int,
    sign: float,
    lately: float,
) -> int:
    """Count the items a user had chosen before this one; sign -1 takes the same pairs out again.

    Args:
        neighbours: (NEIGHBOURS,) of the item, changed in place.
        n: how many are in use.
        item: the item's own hash, which is passed over in `recent`.
        recent: hashes of the user's items before, latest first.
        n_recent: how many.
        sign: 1 or -1.
        lately: what decay with the long half-life has left of the event at the time of the row.

    Returns:
        how many are in use now.
    """
    weight = 1.0
    for k in range(n_recent):
        other = recent[k]
        counted = sign * weight
        weight *= POSITION_DECAY
        if other == item:
            continue
        place = _find_neighbour(neighbours, n, other)
        if place < 0:
            if sign < 0.0:
                continue
            if n < NEIGHBOURS:
                place = n
                n += 1
            else:
                place = _least_neighbour(neighbours, n)
                if counted * lately < neighbours[place]["together_lately"]:
                    continue
            entry = neighbours[place]
            entry["item"] = other
            entry["together"] = 0.0
            entry["together_lately"] = 0.0
            entry["next"] = 0.0
            entry["pairs"] = 0
        entry = neighbours[place]
        entry["together"] = max(entry["together"] + counted, 0.0)
        entry["together_lately"] = max(entry["together_lately"] + counted * lately, 0.0)
        if k == 0:
            entry["next"] = max(entry["next"] + sign, 0.0)
        if sign > 0.0:
            entry["pairs"] += 1
        elif entry["pairs"] > 1:
            entry["pairs"] -= 1
        else:
            n -= 1
            neighbours[place] = neighbours[n]
    return n
