"""Neighbours by catalogue row, both ways: whom an item names, and who names it.

Every worker makes the reverse lists from the item rows that it reads; they are not stored.
"""

import contextlib
import math
import mmap
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.items.counts import PAIR
from tracker.items.layout import NEIGHBOURS
from tracker.items.vectors import row_of_hash
from tracker.kernels.arithmetic import copy_row, whole
from tracker.kernels.native import native

Array = NDArray[Any]

STALE_SHARE = 0.01
"""How old the decayed counts in reverse lists may get, in half-lives: decay takes 0.7 %."""

SPARE = 32
"""Places of a reverse list beyond those that are read. An item that others have crowded out of the
list comes back when one of them leaves it. So nearly the same is read of a view that was filled by
single events as of one that was just filled from the changelog."""

_LARGE_BYTES = 1 << 26


class NearList(NamedTuple):
    """A list of neighbours for each of N items, in arrays.

    `rows` (N, W) int32 and `counts` (N, W, 3) float32, by PAIR, of which the first `n` (N,) uint8
    are in use, W of them at most. At most 64 are read.
    """

    rows: Array
    counts: Array
    n: Array

    @staticmethod
    def of_size(items: int, width: int) -> "NearList":
        """Return empty lists of so many places."""
        return NearList(
            _sparse((items, width), np.int32),
            _sparse((items, width, len(PAIR)), np.float32),
            np.zeros(items, np.uint8),
        )


class NearLists(NamedTuple):
    """The neighbours of N items, both ways.

    `before`: items that users had chosen before this one, as the item states keep them. `after`:
    the reverse, the strongest items that name this one in their lists, strongest first; their
    counts are valid for *their* `ref_times` (decayed: to 0.7 %). `written` (N,) float64: when all
    of an item's counts were last written to reverse lists, seconds.
    """

    before: NearList
    after: NearList
    written: Array

    @staticmethod
    def of_size(items: int) -> "NearLists":
        """Return empty lists."""
        return NearLists(
            NearList.of_size(items, NEIGHBOURS),
            NearList.of_size(items, NEIGHBOURS + SPARE),
            np.full(items, -np.inf),
        )


def _sparse(shape: tuple[int, ...], dtype: type) -> Array:
    """Return zeros; of a large catalogue their memory is taken as rows come into use.

    numpy asks for pages of 2 MiB, each taken and cleared at its first row. With one row in fifty in
    use that is all of them: ten times the memory, and seconds of a core while a view is filled. A
    full array is read a third slower from pages of 4 KiB, so small ones stay numpy's.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < _LARGE_BYTES:
        return np.zeros(shape, dtype)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without large pages
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype).reshape(shape)


@native
def _settle(rows: Array, counts: Array, place: int, n: int) -> None:
    """Move one of n entries to where its count belongs: most together first, ties by row."""
    row = rows[place]
    together, faded = counts[place, PAIR.together], counts[place, PAIR.together_lately]
    after = counts[place, PAIR.next]
    while place > 0 and (
        counts[place - 1, PAIR.together] < together
        or (counts[place - 1, PAIR.together] == together and rows[place - 1] > row)
    ):
        rows[place] = rows[place - 1]
        copy_row(counts[place], counts[place - 1])
        place -= 1
    while place + 1 < n and (
        counts[place + 1, PAIR.together] > together
        or (counts[place + 1, PAIR.together] == together and rows[place + 1] < row)
    ):
        rows[place] = rows[place + 1]
        copy_row(counts[place], counts[place + 1])
        place += 1
    rows[place] = row
    counts[place, PAIR.together] = together
    counts[place, PAIR.together_lately] = faded
    counts[place, PAIR.next] = after


@native
def _drop(lists: NearList, row: int, other: int) -> None:
    """Take `other` out of the list of `row`."""
    rows, counts = lists.rows[row], lists.counts[row]
    n = whole(lists.n[row])
    for k in range(n):
        if rows[k] == other:
            for later in range(k, n - 1):
                rows[later] = rows[later + 1]
                copy_row(counts[later], counts[later + 1])
            lists.n[row] = n - 1
            return


@native
def _put(lists: NearList, row: int, other: int, pair: Array) -> None:
    """Put `other` into the list of `row`, or its new counts; when full, for the weakest."""
    rows, counts = lists.rows[row], lists.counts[row]
    n = whole(lists.n[row])
    place = -1
    for k in range(n):
        if rows[k] == other:
            place = k
            break
    if place < 0:
        if n < len(rows):
            place = n
        elif pair[PAIR.together] > counts[n - 1, PAIR.together]:
            place = n - 1
        else:
            return
        rows[place] = other
    copy_row(counts[place], pair)
    if place == n:
        n += 1
        lists.n[row] = n
    _settle(rows, counts, place, n)


@native
def place_neighbours(
    row: int,
    ref_time: float,
    neighbours: Array,
    n_kept: int,
    table_hash: Array,
    table_row: Array,
    near: NearLists,
    stale_seconds: float,
    old_rows: Array,
    is_new: Array,
) -> None:
    """Write the neighbours of an item to its catalogue row, and it to their reverse lists.

    Neighbours that are not in the catalogue are left out; those that left the list leave the
    reverse lists as well. The places of a list seldom change: of those that stay, only new counts
    are written to the reverse lists, but all when decay has taken 0.7 %.

    Args:
        row: catalogue row of the item.
        ref_time: seconds, the time its decayed counts are valid for.
        neighbours: (64,) NEIGHBOUR.
        n_kept: the number of them in use.
        table_hash: hashes of the catalogue's table, see `row_of_hash`.
        table_row: rows of the catalogue's table.
        near: changed in place.
        stale_seconds: age at which all counts are written again.
        old_rows: (64,) int64, anything.
        is_new: (64,) bool, anything.
    """
    rows, counts = near.before.rows[row], near.before.counts[row]
    n_old = whole(near.before.n[row])
    for k in range(n_old):
        old_rows[k] = rows[k]
    is_stale = not abs(ref_time - near.written[row]) <= stale_seconds
    if is_stale:
        near.written[row] = ref_time
    n = 0
    for k in range(n_kept):
        entry = neighbours[k]
        other = row_of_hash(table_hash, table_row, entry["item"])
        if other < 0:
            continue
        stays = n < n_old and old_rows[n] == other
        same = (
            stays
            and counts[n, PAIR.together] == entry["together"]
            and counts[n, PAIR.next] == entry["next"]
        )
        rows[n] = other
        counts[n, PAIR.together] = entry["together"]
        counts[n, PAIR.together_lately] = entry["together_lately"]
        counts[n, PAIR.next] = entry["next"]
        if stays:
            old_rows[n] = -1
        is_new[n] = is_stale or not same
        n += 1
    near.before.n[row] = n
    for old in range(n_old):
        if old_rows[old] < 0:
            continue
        stays = False
        for k in range(n):
            if rows[k] == old_rows[old]:
                stays = True
                break
        if not stays:
            _drop(near.after, old_rows[old], row)
    for k in range(n):
        if is_new[k]:
            _put(near.after, rows[k], row, counts[k])
