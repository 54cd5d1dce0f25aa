"""RecommendedBatch: lists of a batch of users as arrays, with reasons, interests, explanations."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.arithmetic import copy_row, decay, dot
from tracker.kernels.native import native
from tracker.kernels.row_lists import keep_best
from tracker.recommend.candidates import Candidates
from tracker.recommend.channels import CHANNEL
from tracker.scoring.parts import GroupParts
from tracker.users.columns import RequestColumns
from tracker.users.readings import Histories

Array = NDArray[Any]

BECAUSE = 3
"""Most of the user's own items named as reasons of one recommended item."""

_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Explanations of the lists of B users: of K items each, and of S interests, strongest first.

    Attributes:
        labels: (B, S) int32 into the label table, -1 padded.
        medoids: (B, S) int64 catalogue rows of the most typical items, -1 for none.
        births: (B, S) int64 order in which the interests began, 0 for the oldest, -1 padded.
        interests: (B, K) int64 the interest that an item is nearest to, -1 for none.
        shares: (B, K, 3) float32 of the user's events on the items of `because_rows`, in what all
            of the user's events say for the item, by a decayed sum.
        others: (B, K) float32 the share of the other events of the ring.
        earlier: (B, K) float32 the share of events that have left the ring; all shares of an item
            add up to 1, or to 0 where no event speaks for it.
        latest: (B, K, 3) float64 seconds, times of the latest of the events of `shares`; -inf for
            none.
        parts: of the scores, if they were asked for.
    """

    labels: NDArray[np.int32]
    medoids: NDArray[np.int64]
    births: NDArray[np.int64]
    interests: NDArray[np.int64]
    shares: NDArray[np.float32]
    others: NDArray[np.float32]
    earlier: NDArray[np.float32]
    latest: NDArray[np.float64]
    parts: GroupParts | None = None


@dataclass(frozen=True, slots=True)
class RecommendedBatch:
    """Lists of B users, best first, as arrays; a list that is shorter than K ends in -1.

    `rows` (B, K) int64 catalogue rows; `scores` (B, K) float32, not always falling, for the order
    is also by diversity; `channels` (B, K) uint8, positions in CHANNELS; `because` (B, K, 3)
    uint64 item hashes, 0 padded, and `because_rows` (B, K, 3) int64 their rows, -1 padded;
    `labels` (B, 3) int32 into the label table, -1 padded, of the strongest interests, `strengths`
    and `changes` (B, 3) float32; `list_hash` (B,) uint64, equal for equal lists in equal order;
    `probabilities` (B, K) float32 of a positive event on the item, NaN where none was trained;
    `explanation` is None if none was asked for, and then there are no reasons either.
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
    explanation: Explanation | None = None

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self.rows)


def joined_batches(batches: Sequence[RecommendedBatch]) -> RecommendedBatch:
    """Return lists of several batches as one."""
    whole: RecommendedBatch = _joined(batches)
    return whole


def _joined(parts: Sequence[Any]) -> Any:
    """Return arrays, one after the other; or objects that have such arrays as their fields."""
    first = parts[0]
    if first is None:
        return None
    if isinstance(first, np.ndarray):
        return np.concatenate(parts)
    names = [field.name for field in fields(first)]
    return type(first)(*(_joined([getattr(part, name) for part in parts]) for name in names))


class ListColumns(NamedTuple):
    """The lists of B users with their reasons; see `RecommendedBatch`."""

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    channels: NDArray[np.uint8]
    because: NDArray[np.uint64]
    because_rows: NDArray[np.int64]
    list_hash: NDArray[np.uint64]

    @staticmethod
    def of_size(users: int, k: int) -> "ListColumns":
        """Return arrays for so many users and items, to be filled."""
        return ListColumns(
            np.empty((users, k), np.int64),
            np.empty((users, k), np.float32),
            np.zeros((users, k), np.uint8),
            np.empty((users, k, BECAUSE), np.uint64),
            np.empty((users, k, BECAUSE), np.int64),
            np.empty(users, np.uint64),
        )


@native
def sum_up(picks: Array, scores: Array, hashes: Array, lists: ListColumns) -> None:
    """Write the scores of lists (B, K), 0 where they end, and the hash of each list."""
    rows = lists.rows
    for b in range(len(rows)):
        mixed = np.uint64(0)
        for i in range(rows.shape[1]):
            item = np.uint64(0)
            if rows[b, i] >= 0:
                item = hashes[rows[b, i]]
            mixed = (mixed ^ item) * _MIX + _MIX
            score = scores[b, picks[b, i]] if picks[b, i] >= 0 else np.float32(0.0)
            lists.scores[b, i] = score
        lists.list_hash[b] = mixed


@native
def explain(
    requests: RequestColumns,
    half_life: float,
    threshold: float,
    vectors: Array,
    ring: Array,
    histories: Histories,
    candidates: Candidates,
    picks: Array,
    lists: ListColumns,
) -> None:
    """Write rows and channels of lists, and up to three of the user's own items that explain each.

    A reason is an item of a positive event that the ring holds and that was not retracted. First,
    of an item that came from neighbours, the item it was most chosen with; then those of largest
    weight * decay * cosine among the cosines above the threshold. Each item once.

    Args:
        requests: the B users.
        half_life: of the decay, seconds.
        threshold: least cosine of a reason.
        vectors: (N, D) unit.
        ring: (C, R) RING of the arena.
        histories: of the users.
        candidates: of the users.
        picks: (B, k) of `select`.
        lists: filled.
    """
    ring_rows, history = histories.ring_rows, histories.history
    width = ring_rows.shape[1]
    dim = vectors.shape[1]
    past = np.empty((width, dim), np.float32)
    past_rows = np.empty(width, np.int32)
    gains = np.empty(width, np.float32)
    best_gains = np.empty(BECAUSE, np.float32)
    best = np.empty(BECAUSE, np.int64)
    for b in range(len(picks)):
        u = requests.slots[b]
        n_past = histories.n_history[b]
        for j in range(n_past):
            entry = ring[u, history[b, j]]
            past_rows[j] = ring_rows[b, history[b, j]]
            copy_row(past[j], vectors[past_rows[j]])
            gains[j] = entry["weight"] * decay(requests.now[b] - entry["time"], half_life)
        for i in range(picks.shape[1]):
            lists.rows[b, i] = -1
            for r in range(BECAUSE):
                lists.because[b, i, r] = 0
                lists.because_rows[b, i, r] = -1
            c = picks[b, i]
            if c < 0:
                continue
            row = candidates.rows[b, c]
            channel = candidates.channels[b, c]
            via = candidates.via[b, c]
            lists.rows[b, i] = row
            lists.channels[b, i] = channel if c < candidates.n_unseen[b] else CHANNEL.seen
            n = 0
            if channel == CHANNEL.neighbours and via >= 0:
                n = keep_best(best_gains, best, n, np.float32(np.inf), via)
            for j in range(n_past):
                if n == BECAUSE and gains[j] <= best_gains[n - 1]:
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
                    if best_gains[twin] >= gain:
                        continue
                    for p in range(twin, n - 1):
                        best[p] = best[p + 1]
                        best_gains[p] = best_gains[p + 1]
                    n -= 1
                n = keep_best(best_gains, best, n, gain, j)
            for p in range(n):
                lists.because[b, i, p] = ring[u, history[b, best[p]]]["item"]
                lists.because_rows[b, i, p] = past_rows[best[p]]
