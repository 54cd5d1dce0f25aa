"""RecommendedBatch: the lists of a batch of users as arrays, with their reasons and interests."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.items.vectors import ItemVectors
from tracker.kernels.arithmetic import dot
from tracker.kernels.native import native
from tracker.recommend.candidates import CHANNEL, Candidates
from tracker.recommend.options import RecommendOptions
from tracker.users.readings import Histories, strongest_interests
from tracker.users.rows import RequestBatch

Array = NDArray[Any]

_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class RecommendedBatch:
    """Lists of B users, best first, as arrays; a list that is shorter than K ends in -1.

    `rows` (B, K) int64 catalogue rows; `scores` (B, K) float32, not always falling, for the order
    is also by diversity; `channels` (B, K) uint8, positions in CHANNELS; `because` (B, K, 3)
    uint64 item hashes, 0 padded, and `because_rows` (B, K, 3) int64 their rows, -1 padded;
    `labels` (B, 3) int32 into the label table, -1 padded, of the strongest interests, `strengths`
    and `changes` (B, 3) float32; `list_hash` (B,) uint64, equal for equal lists in equal order;
    `probabilities` (B, K) float32 that the user takes to the item, NaN where none was trained.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    channels: NDArray[np.uint8]
    because: NDArray[np.uint64]
    because_rows: NDArray[np.int64]
    labels: NDArray[np.int32]
    strengths: NDArray[np.float32]
    changes: NDArray[np.float32]
    list_hash: NDArray[np.uint64]
    probabilities: NDArray[np.float32]

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self.rows)


def describe(
    histories: Histories,
    requests: RequestBatch,
    options: RecommendOptions,
    items: ItemVectors,
    cut: Candidates,
    scores: NDArray[np.float32],
    picks: NDArray[np.int64],
) -> RecommendedBatch:
    """Return the lists of B users, but for the probabilities, which are NaN.

    Args:
        histories: what was read of the users' rows.
        requests: B users.
        options: how reasons are found.
        items: of the artifact.
        cut: the candidates, C a user.
        scores: (B, C) theirs.
        picks: (B, K) of `select`: positions among the candidates, -1 padded.
    """
    users, k = picks.shape
    rows = np.empty((users, k), np.int64)
    channels = np.zeros((users, k), np.uint8)
    because = np.empty((users, k, BECAUSE), np.uint64)
    because_rows = np.empty((users, k, BECAUSE), np.int64)
    explain(
        requests.now, requests.slots, options.because_half_life_seconds, options.because_cosine,
        np.asarray(items.vectors),
        requests.states.ring, histories.ring_rows, histories.history, histories.n_history,
        cut.rows, cut.via, cut.channels, picks, cut.n_unseen,
        rows, channels, because, because_rows,
    )  # fmt: skip
    taken = np.take_along_axis(scores, np.maximum(picks, 0), axis=1)
    labels, strengths, changes = strongest_interests(histories, requests, items)
    list_hash = np.zeros(users, np.uint64)
    hashes = np.where(rows >= 0, items.hashes[rows], np.uint64(0))
    for i in range(k):
        list_hash = (list_hash ^ hashes[:, i]) * _MIX + _MIX
    return RecommendedBatch(
        rows,
        np.where(picks >= 0, taken, np.float32(0.0)),
        channels,
        because,
        because_rows,
        labels,
        strengths,
        changes,
        list_hash,
        np.full((users, k), np.nan, np.float32),
    )


BECAUSE = 3
"""Most of the user's own items named as reasons of one recommended item."""


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
            out_channels[b, i] = channels[b, c] if c < n_unseen[b] else CHANNEL.seen
            n = 0
            fixed = 0
            if channels[b, c] == CHANNEL.neighbours and via[b, c] >= 0:
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
