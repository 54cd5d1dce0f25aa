"""The list of each user from scored candidates: diversity, what was seen last, and reasons."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.arithmetic import dot
from tracker.kernels.native import native
from tracker.kernels.prefetch import prefetch

Array = NDArray[Any]

BECAUSE = 3
"""Most of the user's own items named as reasons of one recommended item."""

_AHEAD = 8  # candidates whose vectors are asked for before their turn


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
    dim = vectors.shape[1]
    near = np.empty((capacity, dim), np.float32)
    value = np.empty(capacity, np.float32)
    cosine = np.empty(capacity, np.float32)
    free = np.empty(capacity, np.bool_)
    keep = np.float32(1.0 - diversity)
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
            free[c] = True
            if diversity > 0.0:
                if c + _AHEAD < n:
                    prefetch(vectors, rows[b, c + _AHEAD])
                near[c] = vectors[rows[b, c]]
        last = -1
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
            for c in range(start, end):
                if not free[c]:
                    continue
                gain = value[c]
                if diversity > 0.0 and last >= 0:
                    cosine[c] = max(cosine[c], np.float32(dot(near[last], near[c])))
                    gain -= np.float32(diversity) * cosine[c]
                if best < 0 or gain > best_value:
                    best = c
                    best_value = gain
                elif gain == best_value and rows[b, c] < rows[b, best]:
                    best = c
            if best < 0:
                break
            if diversity > 0.0 and i + 1 == n_unseen[b]:
                # The seen ones were not compared on the way here.
                for c in range(n_unseen[b], n):
                    for p in range(i):
                        cosine[c] = max(cosine[c], np.float32(dot(near[picks[b, p]], near[c])))
            free[best] = False
            picks[b, i] = best
            last = best


@native
def explain(
    now: Array, slots: Array, half_life: float, threshold: float, vectors: Array,
    ring: Array, ring_rows: Array, history: Array, n_history: Array,
    rows: Array, via: Array, channels: Array, picks: Array, n_unseen: Array,
    out_rows: Array, out_channels: Array, because: Array, because_rows: Array,
) -> None:  # fmt: skip
    """Write the lists, and for each item up to three of the user's own items that explain it.

    A reason is an item of a positive event that the ring holds and that was not retracted. First,
    of an item that came from neighbours, the item it was most chosen with; then those of largest
    weight * decay * cosine among the cosines above the threshold. Each item once.

    Args:
        now: (B,) seconds.
        slots: (B,) arena slots.
        half_life: of the decay, seconds.
        threshold: least cosine of a reason.
        vectors: (N, D) unit.
        ring: (C, R) RING of the arena.
        ring_rows: (B, R) of `read_histories`.
        history: (B, R) of `read_histories`.
        n_history: (B,) of `read_histories`.
        rows: (B, C) candidates.
        via: (B, C) position in history of the strongest neighbour, -1 none.
        channels: (B, C).
        picks: (B, k) of `select`.
        n_unseen: (B,).
        out_rows: (B, k) int64, filled, -1 padded.
        out_channels: (B, k) uint8, filled.
        because: (B, k, 3) uint64 item hashes, filled, 0 padded.
        because_rows: (B, k, 3) int64, filled, -1 padded.
    """
    width = ring_rows.shape[1]
    dim = vectors.shape[1]
    past = np.empty((width, dim), np.float32)
    past_rows = np.empty(width, np.int32)
    gains = np.empty(width, np.float32)
    best_gains = np.empty(3, np.float32)
    best = np.empty(3, np.int64)
    for b in range(len(picks)):
        n_past = n_history[b]
        for j in range(n_past):
            entry = ring[slots[b], history[b, j]]
            past_rows[j] = ring_rows[b, history[b, j]]
            past[j] = vectors[past_rows[j]]
            age = max(now[b] - entry["time"], 0.0)
            gains[j] = entry["weight"] * math.pow(2.0, -age / half_life)
        for i in range(picks.shape[1]):
            out_rows[b, i] = -1
            for r in range(3):
                because[b, i, r] = 0
                because_rows[b, i, r] = -1
            c = picks[b, i]
            if c < 0:
                continue
            row = rows[b, c]
            out_rows[b, i] = row
            out_channels[b, i] = channels[b, c] if c < n_unseen[b] else 4
            n = 0
            fixed = 0
            if channels[b, c] == 2 and via[b, c] >= 0:
                best[0] = via[b, c]
                best_gains[0] = np.float32(np.inf)
                n = 1
                fixed = 1
            for j in range(n_past):
                if n == 3 and gains[j] <= best_gains[2]:
                    continue  # cosines are at most 1
                cosine = dot(past[j], vectors[row])
                if cosine < threshold:
                    continue
                gain = np.float32(gains[j] * cosine)
                twin = -1
                for p in range(n):
                    if past_rows[best[p]] == past_rows[j]:
                        twin = p
                if twin >= 0:
                    if twin < fixed or best_gains[twin] >= gain:
                        continue
                    for p in range(twin, n - 1):
                        best[p] = best[p + 1]
                        best_gains[p] = best_gains[p + 1]
                    n -= 1
                elif n == 3:
                    if gain <= best_gains[2]:
                        continue
                    n = 2
                p = n
                while p > fixed and best_gains[p - 1] < gain:
                    best[p] = best[p - 1]
                    best_gains[p] = best_gains[p - 1]
                    p -= 1
                best[p] = j
                best_gains[p] = gain
                n += 1
            for p in range(n):
                because[b, i, p] = ring[slots[b], history[b, best[p]]]["item"]
                because_rows[b, i, p] = past_rows[best[p]]
