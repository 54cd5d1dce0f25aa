"""The shortlist of each user: candidates after the first cut, and what a ranker reads of them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.encoder.interests import SceneQueries
from tracker.items.counts import COUNT, DAY
from tracker.items.vectors import ItemVectors
from tracker.items.view import ItemView
from tracker.kernels.arithmetic import add_scaled, dot, to_unit
from tracker.kernels.native import native, prefetch
from tracker.recommend.candidates import Candidates, find_candidates
from tracker.recommend.columns import Columns
from tracker.recommend.options import RecommendOptions
from tracker.scoring.blend import Ranker
from tracker.scoring.features import (
    FEATURES,
    TREND_KNEE,
    confident_unit,
    neighbour_value,
    trend_value,
)
from tracker.users.readings import Histories
from tracker.users.rows import RequestBatch

Array = NDArray[Any]

_AHEAD = 8  # candidates whose rows are asked for before their turn


@native
def cut_candidates(
    now: Array, slots: Array, reserve: int, keep_seen: bool, weights: Array,
    ring_rows: Array, history: Array, n_history: Array,
    head: Array, negative: Array, negative_half_life: float,
    vectors: Array, log2_counts: Array, ref_times: Array, wishes: Array, encoded: Array,
    rows: Array, channels: Array, walked: Array, via: Array, n_rows: Array, n_unseen: Array,
    cut_rows: Array, cut_channels: Array, cut_walked: Array, cut_via: Array,
) -> None:  # fmt: skip
    """Keep the best candidates by six cheap features, for the costly ones to be computed.

    Cheap are: cosine at the index's width with the last positive events (.8 an event), trend of
    a day above its knee, neighbours at .95, the negative sum, repeats and the encoder's score. The
    first `reserve` of each channel are kept whatever their score, so that an item which nobody has
    chosen yet keeps its way in. n_rows and n_unseen are lowered to what was kept.

    Args:
        now: (B,) seconds.
        slots: (B,) arena slots, -1 for none.
        reserve: candidates of each channel that are kept in any case.
        keep_seen: seen items are candidates like others; only then repeats are counted.
        weights: (6,) float32 of content, trend, neighbours, negative, repeats, encoder.
        ring_rows: (B, R) of `read_histories`.
        history: (B, R) of `read_histories`.
        n_history: (B,) of `read_histories`.
        head: (C,) HEAD of the arena.
        negative: (C, D) of the arena.
        negative_half_life: seconds.
        vectors: (N, D) unit.
        log2_counts: (N, 7) of the item view.
        ref_times: (N,) of the item view.
        wishes: (B, E) of `Tower.queries`; E is 0 without a tower, and the score then 0.
        encoded: (N, E) the items' vectors.
        rows: (B, C) of `find_candidates`, as for the following.
        channels: (B, C).
        walked: (B, C, WALKED).
        via: (B, C).
        n_rows: (B,) of `find_candidates`, lowered.
        n_unseen: (B,) of `find_candidates`, lowered.
        cut_rows: (B, K) int32, filled, -1 padded.
        cut_channels: (B, K) uint8, filled.
        cut_walked: (B, K, WALKED) float32, filled.
        cut_via: (B, K) int8, filled.
    """
    limit = cut_rows.shape[1]
    dim = vectors.shape[1]
    taste = np.empty(dim, np.float32)
    dislike = np.empty(dim, np.float32)
    scores = np.empty(rows.shape[1], np.float32)
    counts = np.empty(8, np.int64)
    for b in range(len(slots)):
        n = n_rows[b]
        threshold = np.float32(-np.inf)
        if n > limit:
            taste[:] = 0.0
            weight = 1.0
            for j in range(min(n_history[b], 10)):
                add_scaled(taste, vectors[ring_rows[b, history[b, j]]], weight)
                weight *= 0.8
            to_unit(taste)
            taste *= weights[0]
            u = slots[b]
            if u >= 0 and head[u]["negative_mass"] > 0.0:
                age = max(now[b] - head[u]["ref_time"], 0.0)
                mass = head[u]["negative_mass"] * math.pow(2.0, -age / negative_half_life)
                confident_unit(negative[u], mass, dislike)
                add_scaled(taste, dislike, weights[3])
            own = n_history[b] if keep_seen else 0
            counts[:] = 0
            for c in range(n):
                if c + _AHEAD < n:
                    ahead = rows[b, c + _AHEAD]
                    prefetch(log2_counts, ahead)
                    prefetch(ref_times, ahead)
                    prefetch(vectors, ahead)
                    prefetch(encoded, ahead)
                row = rows[b, c]
                trend = trend_value(log2_counts[row, COUNT.day], now[b] - ref_times[row], DAY)
                score = weights[1] * np.float32(max(trend - TREND_KNEE, 0.0))
                score += weights[2] * np.float32(neighbour_value(walked[b, c, 1]))
                score += np.float32(dot(taste, vectors[row]))
                if weights[5] != 0.0:
                    score += weights[5] * np.float32(dot(wishes[b], encoded[row]))
                if own > 0:
                    repeats = 0
                    for j in range(own):
                        repeats += ring_rows[b, history[b, j]] == row
                    if repeats > 0:
                        score += weights[4] * np.float32(math.log2(1.0 + repeats))
                if counts[channels[b, c]] < reserve:
                    score += np.float32(1e4)
                if c < n_unseen[b]:
                    score += np.float32(1e5)
                counts[channels[b, c]] += 1
                scores[c] = score
            threshold = np.partition(scores[:n], n - limit)[n - limit]
        above = 0
        if n > limit:
            for c in range(n):
                above += scores[c] > threshold
        level = limit - above
        kept = 0
        unseen = 0
        for c in range(n):
            if n > limit:
                if scores[c] < threshold:
                    continue
                if scores[c] == threshold:
                    if level == 0:
                        continue
                    level -= 1
            unseen += c < n_unseen[b]
            cut_rows[b, kept] = rows[b, c]
            cut_channels[b, kept] = channels[b, c]
            cut_via[b, kept] = via[b, c]
            for i in range(cut_walked.shape[2]):
                cut_walked[b, kept, i] = walked[b, c, i]
            kept += 1
        n_rows[b] = kept
        n_unseen[b] = unseen
        for c in range(kept, limit):
            cut_rows[b, c] = -1
            cut_via[b, c] = -1


_WHOLE_WALK = [
    FEATURES.index(n) for n in ("neighbours_60", "neighbours_10d", "next", "neighbours_live")
]


@dataclass(frozen=True, slots=True)
class Searched:
    """What steps 1 and 2 of `Recommender.recommend` give of B users.

    `owners` and `masses` (B, searches) of `queries`, and `found` (Q, K) rows of each query;
    `wishes` (B, E) what the user encoder looks for, and `wished` (B, K) the rows it found;
    `attended` what scene attention makes of them, where that was asked for.
    """

    histories: Histories
    owners: NDArray[np.int64]
    masses: NDArray[np.float32]
    found: NDArray[np.int64]
    wishes: NDArray[np.float32]
    wished: NDArray[np.int64]
    attended: SceneQueries | None

    def part(self, users: slice) -> "Searched":
        """Return some of the users."""
        return Searched(
            self.histories.part(users), self.owners[users], self.masses[users], self.found,
            self.wishes[users], self.wished[users], None,
        )  # fmt: skip


def shortlist(
    searched: Searched,
    requests: RequestBatch,
    k: int,
    options: RecommendOptions,
    ranker: Ranker,
    columns: Columns,
    items: ItemVectors,
    view: ItemView,
) -> tuple[Candidates, NDArray[np.float32]]:
    """Gather candidates and cut them: steps 3 and 4 of `Recommender.recommend`.

    Args:
        searched: steps 1 and 2, of B users.
        requests: the same users.
        k: items wanted: the shortlist has room for more.
        options: how many candidates, from where.
        ranker: by what weights the cut is made, and which columns are wanted.
        columns: computes them.
        items: the catalogue.
        view: the live statistics of the items.

    Returns:
        B users' candidates after the cut, C at most, and the F columns that the ranker reads of
        them (B, C, F) float32, zero where it does not want one.
    """
    histories, states = searched.histories, requests.states
    # 3
    capacity = max(options.candidates, k)
    candidates = find_candidates(
        histories, requests, k, capacity, options.quotas,
        options.seen == "keep", options.recent_events, options.neighbour_events,
        options.neighbour_width,
        bool(ranker.wanted[_WHOLE_WALK].any()),
        searched.owners, searched.masses, searched.found, searched.wished,
        items, view,
    )  # fmt: skip
    # 4
    width = max(options.cut, min(k + 5 * options.reserve, capacity))
    cut = Candidates.of_size(len(requests), width)
    cut.n_rows[:] = candidates.n_rows
    cut.n_unseen[:] = candidates.n_unseen
    cut_candidates(
        requests.now, requests.slots, options.reserve, options.seen == "keep",
        ranker.cut_weights,
        histories.ring_rows, histories.history, histories.n_history,
        states.head, states.negative, states.config.negative_half_life_seconds,
        np.asarray(items.vectors), view.log2_counts, view.ref_times,
        searched.wishes, columns.encoded,
        candidates.rows, candidates.channels, candidates.walked, candidates.via,
        cut.n_rows, cut.n_unseen, cut.rows, cut.channels, cut.walked, cut.via,
    )  # fmt: skip
    features = np.zeros((*cut.rows.shape, len(ranker.wanted)), np.float32)
    columns.fill(
        histories,
        requests,
        ranker.wanted,
        searched.wishes,
        cut.rows,
        cut.n_rows,
        cut.walked,
        features,
    )
    return cut, features
