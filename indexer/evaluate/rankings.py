"""Where a target stands among the scores of the whole catalogue, and the best of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.native import native

Array = NDArray[Any]


@native
def _rank_and_list(
    scores: Array, targets: Array, ranked: Array, masked: Array, starts: Array,
    ranks: Array, lists: Array,
) -> int:  # fmt: skip
    """Fill ranks and lists; return the place of a target whose score is NaN, or -1."""
    k = lists.shape[1]
    best = np.empty(k, scores.dtype)
    offered = ranked.copy()
    for b in range(len(targets)):
        for i in range(starts[b], starts[b + 1]):
            offered[masked[i]] = False
        target = targets[b]
        asked = target >= 0 and offered[target] and scores[b, target] != -np.inf
        own = scores[b, max(target, 0)]
        if asked and own != own:
            return b
        better = 0
        level = 0
        n = 0
        for row in range(scores.shape[1]):
            score = scores[b, row]
            if not offered[row] or not score > -np.inf:
                continue
            better += score > own
            level += score == own
            if n == k and score <= best[k - 1]:
                continue
            place = n if n < k else k - 1
            if n < k:
                n += 1
            while place > 0 and best[place - 1] < score:
                best[place] = best[place - 1]
                lists[b, place] = lists[b, place - 1]
                place -= 1
            best[place] = score
            lists[b, place] = row
        lists[b, n:] = -1
        ranks[b] = 1.0 + better + (level - 1) / 2.0 if asked else np.inf
        for i in range(starts[b], starts[b + 1]):
            offered[masked[i]] = ranked[masked[i]]
    return -1


def rank_and_list(
    scores: NDArray[np.float32],
    targets: NDArray[np.int64],
    ranked: NDArray[np.bool_],
    masked: NDArray[np.int64],
    starts: NDArray[np.int64],
    ranks: NDArray[np.float64],
    lists: NDArray[np.int64],
) -> None:
    """Fill in the rank of each of B targets as `metrics.rank_of` has it, and the list of the best.

    Ties count half in a rank, and stand in the order of rows in a list.

    Args:
        scores: (B, N) higher is better; what is -inf or NaN is not ranked.
        targets: (B,) rows, -1 for an item that is not among what is ranked.
        ranked: (N,) what may be ranked.
        masked: rows that are not ranked for a target, all targets' after each other.
        starts: (B + 1,) where those of each target start in `masked`.
        ranks: (B,) filled; infinity for a target that is not ranked.
        lists: (B, K) filled, -1 padded.

    Raises:
        ValueError: a target's score is NaN.
    """
    bad = _rank_and_list(scores, targets, ranked, masked, starts, ranks, lists)
    if bad >= 0:
        raise ValueError(f"the score at {targets[bad]} is NaN; a number is expected")
