"""RecommendedBatch: the lists of a batch of users as arrays, with their reasons and interests."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracker.items.vectors import ItemVectors
from tracker.recommend.candidates import Candidates
from tracker.recommend.options import RecommendOptions
from tracker.recommend.selection import BECAUSE, explain
from tracker.users.history import Histories, interests
from tracker.users.request_batch import RequestBatch

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
    read: Histories,
    asked: RequestBatch,
    options: RecommendOptions,
    items: ItemVectors,
    cut: Candidates,
    scores: NDArray[np.float32],
    picks: NDArray[np.int64],
) -> RecommendedBatch:
    """Return the lists of B users, but for the probabilities, which are NaN.

    Args:
        read: what was read of the users' rows.
        asked: B users.
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
        asked.now, asked.slots, options.because_half_life_seconds, options.because_cosine,
        np.asarray(items.vectors),
        asked.states.ring, read.ring_rows, read.history, read.n_history,
        cut.rows, cut.via, cut.channels, picks, cut.n_unseen,
        rows, channels, because, because_rows,
    )  # fmt: skip
    taken = np.take_along_axis(scores, np.maximum(picks, 0), axis=1)
    labels, strengths, changes = interests(read, asked.states, asked.slots, items)
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
