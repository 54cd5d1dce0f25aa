"""The live neighbours of a user's latest items: what was chosen with them, by many users."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.history import Histories
from tracker.item_view import ItemView
from tracker.native import native

Array = NDArray[Any]

WALK_SLOTS = 4096
"""Size of the hash table of a walk; it fits the nearest cache."""

WALK_ROWS = 3072
"""Most rows a walk holds; 20 items with 64 neighbours each way have 2,560."""

WALKED = 5
"""Sums of a walk."""

TOGETHER_HALF_LIFE_SECONDS = 864000.0
"""Half-life of the decayed co-occurrence counts of an item state."""

_TEN_DAYS = 4  # the column of the counts of positive events that has the same half-life


@native
def walk_neighbours(
    ring_rows: Array, history: Array, n_history: int,
    events: int, width: int, now: float, whole: bool,
    near_rows: Array, near_counts: Array, near_n: Array,
    back_rows: Array, back_counts: Array, back_n: Array,
    ref_times: Array, popularity: Array,
    keys: Array, sums: Array, via: Array, touched: Array,
) -> int:  # fmt: skip
    """Sum the live co-occurrences of one user's latest items over what was chosen with them.

    Args:
        ring_rows: (R,) rows of the user's ring.
        history: (R,) positions of positive events in the ring, latest first.
        n_history: how many.
        events: only the latest so many are walked.
        width: of each of an item's two lists, the strongest so many are taken.
        now: seconds.
        whole: all sums are wanted, and not only that of .95 an event.
        near_rows: (N, 64) int32, what the item states keep: chosen before the item.
        near_counts: (N, 64, 3) together, together decayed, transitions into the item.
        near_n: (N,) entries of each list.
        back_rows: (N, 64) int32, the reverse: items that keep this one in their list.
        back_counts: (N, 64, 3), the same counts.
        back_n: (N,) entries.
        ref_times: (N,) time to which the decayed counts of an item state refer.
        popularity: (N, 7) counts of positive events, the last column not decayed.
        keys: (WALK_SLOTS,) int32, all -1; filled with rows.
        sums: (WALKED, WALK_SLOTS) float32, filled with the sums: .6 and .95 an event, .95 of the
            decayed counts, transitions from the last item, and the decayed counts once more over
            the item's decayed popularity. Not yet divided by the candidate's own sqrt(n + 5), of
            the last its sqrt(n + 1), n decayed.
        via: (WALK_SLOTS,) int8, filled with the position in `history` that gave most.
        touched: (WALK_SLOTS,) int32, filled with the places used.

    Returns:
        the number of places used; `clear_walk` empties them again.
    """
    mask = WALK_SLOTS - 1
    n = 0
    weight_6 = np.float32(1.0)
    weight_95 = np.float32(1.0)
    for j in range(min(n_history, events)):
        item = ring_rows[history[j]]
        scale = np.float32(1.0 / math.sqrt(popularity[item, 6] + 5.0))
        decay = np.float32(0.0)
        live = np.float32(0.0)
        if whole:
            age = max(now - ref_times[item], 0.0)
            decay = np.float32(math.pow(2.0, -age / TOGETHER_HALF_LIFE_SECONDS))
            live = np.float32(1.0 / math.sqrt(popularity[item, _TEN_DAYS] * decay + 1.0))
        for way in range(2):
            others = near_rows[item] if way == 0 else back_rows[item]
            counts = near_counts[item] if way == 0 else back_counts[item]
            for e in range(min(near_n[item] if way == 0 else back_n[item], width)):
                row = others[e]
                gain = counts[e, 0] * scale * weight_95
                place = ((np.int64(row) * 2654435761) >> 15) & mask
                while keys[place] != row and keys[place] != -1:
                    place = (place + 1) & mask
                if keys[place] == -1:
                    if n >= WALK_ROWS:
                        continue
                    keys[place] = row
                    touched[n] = place
                    n += 1
                    sums[1, place] = gain
                    via[place] = j
                    if whole:
                        sums[0, place] = 0.0
                        sums[2, place] = 0.0
                        sums[3, place] = 0.0
                        sums[4, place] = 0.0
                else:
                    if gain > sums[1, place]:
                        via[place] = j
                    sums[1, place] += gain
                if not whole:
                    continue
                sums[0, place] += counts[e, 0] * scale * weight_6
                if way == 0:
                    faded = counts[e, 1] * decay * weight_95
                else:
                    age = max(now - ref_times[row], 0.0)
                    fade = np.float32(math.pow(2.0, -age / TOGETHER_HALF_LIFE_SECONDS))
                    faded = counts[e, 1] * fade * weight_95
                    if j == 0:
                        sums[3, place] = counts[e, 2] * scale
                sums[2, place] += faded * scale
                sums[4, place] += faded * live
        weight_6 *= np.float32(0.6)
        weight_95 *= np.float32(0.95)
    return n


@native
def clear_walk(keys: Array, touched: Array, n: int) -> None:
    """Empty the places of a walk."""
    for i in range(n):
        keys[touched[i]] = -1


@native
def find_in_walk(keys: Array, row: int) -> int:
    """Return the place of a row in a walk, -1 where it has none."""
    mask = WALK_SLOTS - 1
    place = ((np.int64(row) * 2654435761) >> 15) & mask
    while keys[place] != -1:
        if keys[place] == row:
            return int(place)
        place = (place + 1) & mask
    return -1


@native
def read_walk(
    keys: Array, sums: Array, walk_via: Array, now: float, whole: bool,
    ref_times: Array, popularity: Array, rows: Array, n_rows: int, walked: Array, via: Array,
) -> None:  # fmt: skip
    """Write what a walk found for rows: normalised sums (C, WALKED), and the best neighbour."""
    for i in range(n_rows):
        place = find_in_walk(keys, rows[i])
        if place < 0:
            via[i] = -1
            walked[i, :] = 0.0
            continue
        norm = np.float32(1.0 / math.sqrt(popularity[rows[i], 6] + 5.0))
        via[i] = walk_via[place]
        for c in range(WALKED - 1):
            walked[i, c] = sums[c, place] * norm
        if whole:
            age = max(now - ref_times[rows[i]], 0.0)
            left = math.pow(2.0, -age / TOGETHER_HALF_LIFE_SECONDS)
            live = np.float32(1.0 / math.sqrt(popularity[rows[i], _TEN_DAYS] * left + 1.0))
            walked[i, WALKED - 1] = sums[WALKED - 1, place] * live


@native
def _walk_rows(
    ring_rows: Array, history: Array, n_history: Array, events: int, width: int, now: Array,
    near_rows: Array, near_counts: Array, near_n: Array,
    back_rows: Array, back_counts: Array, back_n: Array, ref_times: Array, popularity: Array,
    rows: Array, n_rows: Array, walked: Array,
) -> None:  # fmt: skip
    keys = np.full(WALK_SLOTS, -1, np.int32)
    sums = np.empty((WALKED, WALK_SLOTS), np.float32)
    walk_via = np.empty(WALK_SLOTS, np.int8)
    touched = np.empty(WALK_SLOTS, np.int32)
    via = np.empty(rows.shape[1], np.int8)
    for b in range(len(rows)):
        n = walk_neighbours(
            ring_rows[b], history[b], n_history[b], events, width, now[b], True,
            near_rows, near_counts, near_n, back_rows, back_counts, back_n, ref_times, popularity,
            keys, sums, walk_via, touched,
        )  # fmt: skip
        read_walk(
            keys, sums, walk_via, now[b], True, ref_times, popularity,
            rows[b], n_rows[b], walked[b], via,
        )  # fmt: skip
        clear_walk(keys, touched, n)


def walk_rows(
    read: Histories,
    now: NDArray[np.float64],
    events: int,
    width: int,
    view: ItemView,
    rows: NDArray[np.int32],
    n_rows: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Return the neighbour sums (B, C, WALKED) of rows (B, C), the first n_rows of each user."""
    walked = np.zeros((*rows.shape, WALKED), np.float32)
    _walk_rows(
        read.ring_rows, read.history, read.n_history, events, width, now,
        view.near_rows, view.near_counts, view.near_n,
        view.back_rows, view.back_counts, view.back_n, view.ref_times, view.counts,
        rows, n_rows, walked,
    )  # fmt: skip
    return walked
