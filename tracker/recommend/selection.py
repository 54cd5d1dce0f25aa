"""The list of each user from scored candidates: diversity, what was seen last, and reasons.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.arithmetic import dot
from tracker.kernels.native import native, prefetch

Array = NDArray[Any]


@native
def select(
    k: int, diversity: float, show_seen: bool, vectors: Array,
    rows: Array, scores: Array, n_rows: Array, n_unseen: Array, picks: Array,
) -> None:  # fmt: skip
    """Pick up to k candidates a user by maximal marginal relevance, the unseen before the seen.

    A pick has the highest (1 - diversity) * s - diversity * c of those left, s its score brought
    to 0..1 over the user's candidates, c its largest cosine with what was picked before; ties
    go to the lower row. Source: Carbonell and Goldstein 1998, "The Use of MMR".

    Args:
        k: picks wanted.
        diversity: 0 (by score alone) to 1.
        show_seen: seen items follow the unseen ones; otherwise only where none is unseen.
        vectors: (N, D) unit.
        rows: (B, C) int32.
        scores: (B, C) float32, finite.
        n_rows: (B,) candidates; the first n_unseen are unseen, the others seen.
        n_unseen: (B,).
        picks: (B, k) int64, filled with positions in rows, -1 padded.
    """
    capacity = rows.shape[1]
    value = np.empty(capacity, np.float32)
    cosine = np.empty(capacity, np.float32)
    compared = np.empty(capacity, np.int64)
    free = np.empty(capacity, np.bool_)
    order = np.empty(capacity, np.int64)
    keep = np.float32(1.0 - diversity)
    weight, nothing = np.float32(diversity), np.float32(0.0)
    for b in range(len(n_rows)):
        n = n_rows[b]
        picks[b, :] = -1
        if n == 0:
            continue
        low = scores[b, 0]
        high = scores[b, 0]
        for c in range(n):
            low = min(low, scores[b, c])
            high = max(high, scores[b, c])
        span = high - low if high > low else np.float32(1.0)
        for c in range(n):
            value[c] = keep * (scores[b, c] - low) / span
            cosine[c] = np.float32(-1.0)
            compared[c] = 0
            free[c] = True
            # The unseen and the seen ones are ordered by falling value, each by themselves.
            first = 0 if c < n_unseen[b] else n_unseen[b]
            place = c
            while place > first and value[order[place - 1]] < value[c]:
                order[place] = order[place - 1]
                place -= 1
            order[place] = c
            if diversity > 0.0:
                prefetch(vectors, rows[b, c])
        start = 0
        end = n_unseen[b]
        for i in range(k):
            if i == n_unseen[b]:
                if i > 0 and not show_seen:
                    break
                start = n_unseen[b]
                end = n
            best = -1
            best_value = np.float32(0.0)
            for place in range(start, end):
                c = order[place]
                if not free[c]:
                    continue
                gain = value[c]
                # A comparison with a pick can only lower the gain, so that many need none.
                if best >= 0 and gain + (weight if i > 0 else nothing) < best_value:
                    break
                if diversity > 0.0 and i > 0:
                    if best >= 0 and gain - weight * cosine[c] < best_value:
                        continue
                    for p in range(compared[c], i):
                        near = np.float32(dot(vectors[rows[b, picks[b, p]]], vectors[rows[b, c]]))
                        cosine[c] = max(cosine[c], near)
                    compared[c] = i
                    gain -= weight * cosine[c]
                if best < 0 or gain > best_value:
                    best = c
                    best_value = gain
                elif gain == best_value and rows[b, c] < rows[b, best]:
                    best = c
            if best < 0:
                break
            free[best] = False
            picks[b, i] = best
