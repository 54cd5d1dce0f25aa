"""The live neighbours of an item: what the same users had chosen shortly before it, bounded.

A pair counts .8 for each item that the user chose between the two, so that the places go to what
was chosen near together and not to all of a user's last 20 alike. When all places are taken, the
entry of the least decayed count gives way to a pair that counts as much, and the newcomer starts
from nothing. That differs from "space-saving" (Metwally, Agrawal, El Abbadi, ICDT 2005), where it
inherits the other's count: with decay the least is soon next to nothing, so the list follows by
itself, and inherited counts kept out what was new.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.native import native

Array = NDArray[Any]

NEIGHBOURS = 64

POSITION_DECAY = 0.8
"""What a pair counts less for each item that the user chose in between."""

NEIGHBOUR = np.dtype(
    [
        ("item", "<u8"),  # hash of an item that users had chosen before this one
        ("together", "<f4"),  # how often, among their last 20: .8 ** position each
        ("together_10d", "<f4"),  # the same, decayed with 10 d
        ("next", "<f4"),  # how often it was the very item before
        ("pairs", "<u4"),  # how many are counted; without one the entry leaves
    ]
)
"""One item chosen before this one by the same users."""

_LEAST = 1e-20


@native
def fade_neighbours(neighbours: Array, n: int, left: float) -> None:
    """Multiply the decayed counts of n entries by what decay leaves; next to nothing becomes 0."""
    part = np.float32(left)
    for k in range(n):
        entry = neighbours[k]
        entry["together_10d"] *= part
        if entry["together_10d"] < _LEAST:  # denormal numbers are slow
            entry["together_10d"] = 0.0


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
    least = neighbours[0]["together_10d"]
    for k in range(1, n):
        if neighbours[k]["together_10d"] < least:
            least = neighbours[k]["together_10d"]
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
    ten_days: float,
) -> int:
    """Count the items a user had chosen before this one; sign -1 takes the same pairs out again.

    Args:
        neighbours: (NEIGHBOURS,) of the item, changed in place.
        n: how many are in use.
        item: the item's own hash, which is passed over in `recent`.
        recent: hashes of the user's items before, latest first.
        n_recent: how many.
        sign: 1 or -1.
        ten_days: what decay with 10 d has left of the event at the time of the row.

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
                if counted * ten_days < neighbours[place]["together_10d"]:
                    continue
            entry = neighbours[place]
            entry["item"] = other
            entry["together"] = 0.0
            entry["together_10d"] = 0.0
            entry["next"] = 0.0
            entry["pairs"] = 0
        entry = neighbours[place]
        entry["together"] = max(entry["together"] + counted, 0.0)
        entry["together_10d"] = max(entry["together_10d"] + counted * ten_days, 0.0)
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
