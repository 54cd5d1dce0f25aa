"""Small lists and sets of catalogue rows in native code: the k best, and open addressing."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.native import inlined, native

Array = NDArray[Any]


@inlined
def first_place(row: int, places: int) -> int:
    """Return the place at which a row is looked for first, of a power of two of places."""
    return int(((np.int64(row) * 2654435761) >> 15) & (places - 1))


@inlined
def places_for(rows: int) -> int:
    """Return the number of places of a set for `find_place`: at most a quarter will be in use."""
    places = 64
    while places < 4 * rows:
        places *= 2
    return places


@inlined
def find_place(marks: Array, row: int) -> int:
    """Return the place of a row in an open-addressing set, or the free one where it would go.

    Args:
        marks: a power of two of places, more than there are rows; free places hold -1.
        row: not below 0.
    """
    mask = len(marks) - 1
    place = first_place(row, len(marks))
    while marks[place] != -1 and marks[place] != row:
        place = (place + 1) & mask
    return place


@native
def keep_best(scores: Array, rows: Array, n: int, score: float | np.float32, row: int) -> int:
    """Insert a row into lists kept best first, ties by row; return their new length.

    Args:
        scores: (K,) of which n are in use.
        rows: (K,) theirs.
        n: length of the lists; at K the last row gives way, if it is worse.
        score: of the row.
        row: to be inserted.
    """
    if n == len(rows):
        if n == 0 or scores[n - 1] > score or (scores[n - 1] == score and rows[n - 1] <= row):
            return n
        n -= 1
    p = n
    while p > 0 and (scores[p - 1] < score or (scores[p - 1] == score and rows[p - 1] > row)):
        scores[p] = scores[p - 1]
        rows[p] = rows[p - 1]
        p -= 1
    scores[p] = score
    rows[p] = row
    return n + 1


@native
def kth_largest(values: Array, n: int, k: int) -> Any:
    """Return the k-th largest of the first n values, which are reordered; 0 < k <= n, no NaN.

    `np.partition` gives the same, and takes seconds to compile.
    """
    low, high, place = 0, n - 1, k - 1
    while low < high:
        pivot = values[(low + high) >> 1]
        up, down = low, high
        while up <= down:
            while values[up] > pivot:
                up += 1
            while values[down] < pivot:
                down -= 1
            if up <= down:
                values[up], values[down] = values[down], values[up]
                up += 1
                down -= 1
        if place <= down:
            high = down
        elif place >= up:
            low = up
        else:
            break
    return values[place]
