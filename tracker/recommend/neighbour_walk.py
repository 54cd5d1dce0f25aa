"""The live neighbours of a user's latest items: what was chosen with them, by many users."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.items.counts import COUNT, PAIR, pair_norm
from tracker.items.near_lists import NearLists
from tracker.items.view import ItemColumns, ItemView
from tracker.kernels.arithmetic import decay
from tracker.kernels.native import inlined, native, prefetch
from tracker.kernels.row_lists import first_place
from tracker.users.readings import Histories

Array = NDArray[Any]

WALK_SLOTS = 4096
"""Places of the hash table of a walk; it fits the nearest cache."""

WALK_ROWS = 3072
"""Most rows a walk holds; 20 items with 64 neighbours each way have 2,560."""

WALK_SUMS = 5
"""Sums of a walk, as features."""

_RAW = 7
"""Sums of a walk, as they are added up."""

_AHEAD = 8  # rows whose counts are asked for before their turn


class WalkOptions(NamedTuple):
    """Limits of a walk.

    The latest `events` items are walked, of each of their two lists the strongest `width`; `whole`:
    all sums are wanted, and not only that of .95 an event.
    """

    events: int
    width: int
    whole: bool


class Walk(NamedTuple):
    """The n rows that one user's walk met, in the order in which it met them.

    `table` (WALK_SLOTS,) int16 gives a row's place among them by its hash, -1 for none; `rows`
    (WALK_ROWS,) int32; `via` (WALK_ROWS,) int8 the position in the history of the item that gave
    most; `sums` (WALK_ROWS, 7) float32, not yet divided by the row's own sqrt(n + 5), or of the
    `live` ones its sqrt(n + 1), n decayed:

    - .6 and .95 an event, and transitions from the last item in column 3;
    - columns 2 and 4: .95 an event of the decayed counts, and these over the walked item's decayed
      popularity (live), of what was chosen before the item, as they are now;
    - columns 5 and 6: the same of what was chosen after it, as they were at the row's own time.
    """

    table: Array
    rows: Array
    via: Array
    sums: Array


@native
def new_walk() -> Walk:
    """Return room for a walk, to be used for one user after the other."""
    return Walk(
        np.empty(WALK_SLOTS, np.int16),
        np.empty(WALK_ROWS, np.int32),
        np.empty(WALK_ROWS, np.int8),
        np.empty((WALK_ROWS, _RAW), np.float32),
    )


@native
def _find(table: Array, rows: Array, row: int) -> int:
    """Return the slot of the table where a row's place is, or would go."""
    mask = WALK_SLOTS - 1
    slot = first_place(row, WALK_SLOTS)
    while table[slot] >= 0 and rows[table[slot]] != row:
        slot = (slot + 1) & mask
    return slot


@inlined
def prefetch_walk(near: NearLists, items: ItemColumns, item: int) -> None:
    """Ask for what a walk reads of an item."""
    prefetch(near.before.n, item)
    prefetch(near.after.n, item)
    prefetch(near.before.rows, item)
    prefetch(near.before.counts, item)
    prefetch(near.after.rows, item)
    prefetch(near.after.counts, item)
    prefetch(items.counts, item)


@native
def walk_neighbours(
    b: int,
    now: float,
    histories: Histories,
    options: WalkOptions,
    near: NearLists,
    items: ItemColumns,
    walk: Walk,
) -> int:
    """Sum the live co-occurrences of one user's latest items over the items chosen with them.

    Args:
        b: which of the users.
        now: seconds.
        histories: of the users.
        options: its limits.
        near: the neighbours of the items.
        items: their live statistics.
        walk: filled; its earlier contents are forgotten.

    Returns:
        the number of rows found.
    """
    table, rows, via, sums = walk
    before_rows, before_counts, before_n = near.before
    after_rows, after_counts, after_n = near.after
    popularity, ref_times = items.counts, items.ref_times
    long_half_life = items.half_lives[COUNT.long]
    ring_rows, history = histories.ring_rows[b], histories.history[b]
    table[:] = -1
    n = 0
    weight_6 = np.float32(1.0)
    weight_95 = np.float32(1.0)
    n_walked = min(histories.n_history[b], options.events)
    for j in range(n_walked):
        item = ring_rows[history[j]]
        if j + 1 < n_walked:
            prefetch_walk(near, items, ring_rows[history[j + 1]])
        scale = np.float32(1.0 / pair_norm(popularity[item, COUNT.never]))
        share = np.float32(0.0)
        live = np.float32(0.0)
        if options.whole:
            share = np.float32(decay(now - ref_times[item], long_half_life))
            live = np.float32(1.0 / math.sqrt(popularity[item, COUNT.long] * share + 1.0))
        for way in range(2):
            others = before_rows[item] if way == 0 else after_rows[item]
            counts = before_counts[item] if way == 0 else after_counts[item]
            n_others = before_n[item] if way == 0 else after_n[item]
            # The decay of the pairs chosen after the item is the row's own, taken in `read_walk`.
            column = 2 if way == 0 else 5
            beside = 4 if way == 0 else 6
            fade = weight_95 * (share if way == 0 else np.float32(1.0))
            for e in range(min(n_others, options.width)):
                row = others[e]
                gain = counts[e, PAIR.together] * scale * weight_95
                slot = _find(table, rows, row)
                place = table[slot]
                if place < 0:
                    if n >= WALK_ROWS:
                        continue
                    place = n
                    table[slot] = n
                    rows[n] = row
                    via[n] = j
                    sums[n, :] = 0.0
                    n += 1
                elif gain > sums[place, 1]:
                    via[place] = j
                sums[place, 1] += gain
                if options.whole:
                    sums[place, 0] += counts[e, PAIR.together] * scale * weight_6
                    sums[place, column] += counts[e, PAIR.together_lately] * fade * scale
                    sums[place, beside] += counts[e, PAIR.together_lately] * fade * live
                    if way == 1 and j == 0:
                        sums[place, 3] = counts[e, PAIR.next] * scale
        weight_6 *= np.float32(0.6)
        weight_95 *= np.float32(0.95)
    return n


@native
def read_walk(
    walk: Walk,
    n_walked: int,
    now: float,
    whole: bool,
    items: ItemColumns,
    rows: Array,
    n_rows: int,
    walk_sums: Array,
    via: Array,
) -> None:
    """Write the normalised sums of rows (C, WALK_SUMS), and the best neighbour of each (C,).

    Args:
        walk: of the user.
        n_walked: rows that it found.
        now: seconds.
        whole: all sums are wanted.
        items: their live statistics.
        rows: of which the first `n_rows` are read.
        n_rows: of the candidates.
        walk_sums: filled.
        via: filled.
    """
    if n_walked == 0:
        walk_sums[:n_rows] = 0.0
        via[:n_rows] = -1
        return
    table, walk_rows, walk_via, sums = walk
    popularity, ref_times = items.counts, items.ref_times
    long_half_life = items.half_lives[COUNT.long]
    for i in range(n_rows):
        if i + _AHEAD < n_rows:
            ahead = rows[i + _AHEAD]
            if table[_find(table, walk_rows, ahead)] >= 0:
                prefetch(popularity, ahead)
                prefetch(ref_times, ahead)
        place = table[_find(table, walk_rows, rows[i])]
        if place < 0:
            via[i] = -1
            walk_sums[i, :] = 0.0
            continue
        via[i] = walk_via[place]
        norm = np.float32(1.0 / pair_norm(popularity[rows[i], COUNT.never]))
        fade = np.float32(0.0)
        live = np.float32(0.0)
        if whole:
            fade = np.float32(decay(now - ref_times[rows[i]], long_half_life))
            live = np.float32(1.0 / math.sqrt(popularity[rows[i], COUNT.long] * fade + 1.0))
        walk_sums[i, 0] = sums[place, 0] * norm
        walk_sums[i, 1] = sums[place, 1] * norm
        walk_sums[i, 2] = (sums[place, 2] + sums[place, 5] * fade) * norm
        walk_sums[i, 3] = sums[place, 3] * norm
        walk_sums[i, 4] = (sums[place, 4] + sums[place, 6] * fade) * live


@native
def _walk_rows(
    now: Array,
    histories: Histories,
    options: WalkOptions,
    near: NearLists,
    items: ItemColumns,
    rows: Array,
    n_rows: Array,
    walk_sums: Array,
) -> None:
    walk = new_walk()
    via = np.empty(rows.shape[1], np.int8)
    for b in range(len(rows)):
        n = walk_neighbours(b, now[b], histories, options, near, items, walk)
        read_walk(walk, n, now[b], options.whole, items, rows[b], n_rows[b], walk_sums[b], via)


def walk_rows(
    histories: Histories,
    now: NDArray[np.float64],
    options: WalkOptions,
    view: ItemView,
    rows: NDArray[np.int32],
    n_rows: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return the neighbour sums (B, C, WALK_SUMS) of rows (B, C), the first n_rows of each user."""
    walk_sums = np.zeros((*rows.shape, WALK_SUMS), np.float32)
    _walk_rows(now, histories, options, view.neighbours, view.columns, rows, n_rows, walk_sums)
    return walk_sums
