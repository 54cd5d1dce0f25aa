"""Neighbours by catalogue row, both ways: whom an item names, and who names it.

Every worker makes the reverse lists from the item rows that it reads; they are not stored.
"""

from typing import Any

from numpy.typing import NDArray

from tracker.items.counts import PAIR
from tracker.items.vectors import row_of_hash
from tracker.kernels.arithmetic import whole
from tracker.kernels.native import native

Array = NDArray[Any]

STALE_SECONDS = 8640.0
"""How old the decayed counts in reverse lists may get: 0.7 % of them, at a half-life of 10 d."""


@native
def _settle(rows: Array, counts: Array, place: int, n: int) -> None:
    """Move one of n entries to where its count belongs: most together first, ties by row."""
    row = rows[place]
    together, faded = counts[place, PAIR.together], counts[place, PAIR.together_10d]
    after = counts[place, PAIR.next]
    while place > 0 and (
        counts[place - 1, PAIR.together] < together
        or (counts[place - 1, PAIR.together] == together and rows[place - 1] > row)
    ):
        rows[place] = rows[place - 1]
        counts[place] = counts[place - 1]
        place -= 1
    while place + 1 < n and (
        counts[place + 1, PAIR.together] > together
        or (counts[place + 1, PAIR.together] == together and rows[place + 1] < row)
    ):
        rows[place] = rows[place + 1]
        counts[place] = counts[place + 1]
        place += 1
    rows[place] = row
    counts[place, PAIR.together] = together
    counts[place, PAIR.together_10d] = faded
    counts[place, PAIR.next] = after


@native
def _drop(back_rows: Array, back_counts: Array, back_n: Array, row: int, other: int) -> None:
    """Take `other` out of the reverse list of `row`."""
    n = whole(back_n[row])
    for k in range(n):
        if back_rows[row, k] == other:
            for later in range(k, n - 1):
                back_rows[row, later] = back_rows[row, later + 1]
                back_counts[row, later] = back_counts[row, later + 1]
            back_n[row] = n - 1
            return


@native
def _put(
    back_rows: Array, back_counts: Array, back_n: Array, row: int, other: int, counts: Array
) -> None:
    """Put `other` into the reverse list of `row`, or its new counts; when full, for the weakest."""
    n = whole(back_n[row])
    place = -1
    for k in range(n):
        if back_rows[row, k] == other:
            place = k
            break
    if place < 0:
        if n < back_rows.shape[1]:
            place = n
        elif counts[PAIR.together] > back_counts[row, n - 1, PAIR.together]:
            place = n - 1
        else:
            return
        back_rows[row, place] = other
    back_counts[row, place] = counts
    if place == n:
        n += 1
        back_n[row] = n
    _settle(back_rows[row], back_counts[row], place, n)


@native
def place_neighbours(
    row: int,
    ref_time: float,
    neighbours: Array,
    n_kept: int,
    table_hash: Array,
    table_row: Array,
    near_rows: Array,
    near_counts: Array,
    near_n: Array,
    back_rows: Array,
    back_counts: Array,
    back_n: Array,
    back_times: Array,
    old_rows: Array,
    anew: Array,
) -> None:
    """Write the neighbours of an item to its catalogue row, and it to their reverse lists.

    Neighbours that are not in the catalogue are left out; those that left the list leave the
    reverse lists as well. The places of a list seldom change: of those that stay, only new counts
    are written to the reverse lists, but all when decay has taken 0.7 %.

    Args:
        row: of the item.
        ref_time: seconds, the time its decayed counts are valid for.
        neighbours: (64,) NEIGHBOUR.
        n_kept: how many are in use.
        table_hash: of the catalogue, as `table_row`.
        table_row: see `row_of_hash`.
        near_rows: of `ItemView`, as the following; changed in place.
        near_counts: see there.
        near_n: see there.
        back_rows: see there.
        back_counts: see there.
        back_n: see there.
        back_times: (N,) when all of an item's counts were last written to the reverse lists.
        old_rows: (64,) int64, anything.
        anew: (64,) bool, anything.
    """
    n_old = whole(near_n[row])
    for k in range(n_old):
        old_rows[k] = near_rows[row, k]
    all_anew = not abs(ref_time - back_times[row]) <= STALE_SECONDS
    if all_anew:
        back_times[row] = ref_time
    n = 0
    for k in range(n_kept):
        entry = neighbours[k]
        other = row_of_hash(table_hash, table_row, entry["item"])
        if other < 0:
            continue
        known = n < n_old and old_rows[n] == other
        same = (
            known
            and near_counts[row, n, PAIR.together] == entry["together"]
            and near_counts[row, n, PAIR.next] == entry["next"]
        )
        near_rows[row, n] = other
        near_counts[row, n, PAIR.together] = entry["together"]
        near_counts[row, n, PAIR.together_10d] = entry["together_10d"]
        near_counts[row, n, PAIR.next] = entry["next"]
        if known:
            old_rows[n] = -1
        anew[n] = all_anew or not same
        n += 1
    near_n[row] = n
    for old in range(n_old):
        if old_rows[old] < 0:
            continue
        stays = False
        for k in range(n):
            if near_rows[row, k] == old_rows[old]:
                stays = True
                break
        if not stays:
            _drop(back_rows, back_counts, back_n, old_rows[old], row)
    for k in range(n):
        if anew[k]:
            other = near_rows[row, k]
            _put(back_rows, back_counts, back_n, other, row, near_counts[row, k])
