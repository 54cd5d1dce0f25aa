"""The shortlist of each user: candidates after the first cut, with the columns of a ranker."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.items.counts import COUNT
from tracker.items.vectors import ItemVectors, VectorColumns
from tracker.items.view import ItemColumns, ItemView
from tracker.kernels.arithmetic import add_scaled, dot, to_unit
from tracker.kernels.native import native, prefetch
from tracker.recommend.candidates import CHANNELS, Candidates, find_candidates
from tracker.recommend.columns import Columns
from tracker.recommend.options import RecommendOptions
from tracker.recommend.reader import SearchResults
from tracker.scoring.blend import CUT, Ranker
from tracker.scoring.features import (
    FEATURE,
    TREND_KNEE,
    confident_unit,
    neighbour_value,
    trend_value,
)
from tracker.users.columns import (
    HalfLives,
    RequestColumns,
    RowColumns,
    half_lives_of,
    rows_of,
)
from tracker.users.readings import Histories
from tracker.users.rows import RequestBatch

Array = NDArray[Any]

_AHEAD = 8  # candidates whose rows are asked for before their turn
_TASTE_EVENTS = 10


class CutRule(NamedTuple):
    """Rule of the first cut.

    `weights` (6,) float32 in the order of CUT; `reserve` candidates of each channel are kept in any
    case; with `keep_seen` seen items are candidates like others, and only then repeats are counted.
    """

    weights: Array
    reserve: int
    keep_seen: bool


class Shortlist(NamedTuple):
    """The candidates of B users, those after the first `cut`, and the columns of these.

    `columns` (B, K, F) float32 are what the ranker reads, zero if it does not want one.
    """

    candidates: Candidates
    cut: Candidates
    columns: NDArray[np.float32]


class EncoderColumns(NamedTuple):
    """The queries (B, E) of the user encoder, and the items' vectors (N, E); E is 0 without one."""

    queries: Array
    items: Array


@native
def cut_candidates(
    requests: RequestColumns,
    histories: Histories,
    users: RowColumns,
    half_lives: HalfLives,
    vectors: VectorColumns,
    items: ItemColumns,
    encoder: EncoderColumns,
    rule: CutRule,
    candidates: Candidates,
    cut: Candidates,
) -> None:
    """Keep the best candidates by six cheap features, for the costly ones to be computed.

    Cheap are: cosine at the index's width with the last positive events (.8 an event), trend by
    the short half-life above its knee, neighbours at .95, the negative sum, repeats and the
    encoder's score. The first `reserve` of each channel are kept whatever their score, so that an
    item which nobody has chosen yet keeps its way in.

    Args:
        requests: the B users.
        histories: of the users.
        users: the arena.
        half_lives: of the arena's sums.
        vectors: of the N items.
        items: their live statistics.
        encoder: the users' queries and the items' vectors.
        rule: of the cut.
        candidates: of the users, C per user.
        cut: filled with the candidates that are kept, K per user, -1 padded.
    """
    weights, keep_seen = rule.weights, rule.keep_seen
    short = vectors.vectors
    log2_counts, ref_times = items.log2_counts, items.ref_times
    short_half_life = items.half_lives[COUNT.short]
    ring_rows, history = histories.ring_rows, histories.history
    rows, channels = candidates.rows, candidates.channels
    queries, encoded = encoder
    limit = cut.rows.shape[1]
    taste = np.empty(short.shape[1], np.float32)
    dislike = np.empty(short.shape[1], np.float32)
    scores = np.empty(rows.shape[1], np.float32)
    counts = np.empty(len(CHANNELS), np.int64)
    for b in range(len(rows)):
        n = candidates.n_rows[b]
        now = requests.now[b]
        n_unseen = candidates.n_unseen[b]
        n_past = histories.n_history[b]
        threshold = np.float32(-np.inf)
        if n > limit:
            taste[:] = 0.0
            weight = 1.0
            for j in range(min(n_past, _TASTE_EVENTS)):
                add_scaled(taste, short[ring_rows[b, history[b, j]]], weight)
                weight *= 0.8
            to_unit(taste)
            taste *= weights[CUT.content]
            u = requests.slots[b]
            if u >= 0 and users.head[u]["negative_mass"] > 0.0:
                age = max(now - users.head[u]["ref_time"], 0.0)
                mass = users.head[u]["negative_mass"] * math.pow(2.0, -age / half_lives.negative)
                confident_unit(users.negative[u], mass, dislike)
                add_scaled(taste, dislike, weights[CUT.negative])
            own = n_past if keep_seen else 0
            counts[:] = 0
            for c in range(n):
                if c + _AHEAD < n:
                    ahead = rows[b, c + _AHEAD]
                    prefetch(log2_counts, ahead)
                    prefetch(ref_times, ahead)
                    prefetch(short, ahead)
                    prefetch(encoded, ahead)
                row = rows[b, c]
                trend = trend_value(
                    log2_counts[row, COUNT.short], now - ref_times[row], short_half_life
                )
                neighbours = neighbour_value(candidates.walk_sums[b, c, 1])
                score = weights[CUT.trend] * np.float32(max(trend - TREND_KNEE, 0.0))
                score += weights[CUT.neighbours] * np.float32(neighbours)
                score += np.float32(dot(taste, short[row]))
                if weights[CUT.encoder] != 0.0:
                    score += weights[CUT.encoder] * np.float32(dot(queries[b], encoded[row]))
                if own > 0:
                    repeats = 0
                    for j in range(own):
                        repeats += ring_rows[b, history[b, j]] == row
                    if repeats > 0:
                        score += weights[CUT.repeats] * np.float32(math.log2(1.0 + repeats))
                if counts[channels[b, c]] < rule.reserve:
                    score += np.float32(1e4)
                if c < n_unseen:
                    score += np.float32(1e5)
                counts[channels[b, c]] += 1
                scores[c] = score
            threshold = np.partition(scores[:n], n - limit)[n - limit]
        above = 0
        if n > limit:
            for c in range(n):
                above += scores[c] > threshold
        level = limit - above
        n_cut = 0
        n_cut_unseen = 0
        for c in range(n):
            if n > limit:
                if scores[c] < threshold:
                    continue
                if scores[c] == threshold:
                    if level == 0:
                        continue
                    level -= 1
            n_cut_unseen += c < n_unseen
            cut.rows[b, n_cut] = rows[b, c]
            cut.channels[b, n_cut] = channels[b, c]
            cut.via[b, n_cut] = candidates.via[b, c]
            for i in range(cut.walk_sums.shape[2]):
                cut.walk_sums[b, n_cut, i] = candidates.walk_sums[b, c, i]
            n_cut += 1
        cut.n_rows[b] = n_cut
        cut.n_unseen[b] = n_cut_unseen
        for c in range(n_cut, limit):
            cut.rows[b, c] = -1
            cut.via[b, c] = -1


_WHOLE_WALK = [
    FEATURE.neighbours_60, FEATURE.neighbours_long, FEATURE.next, FEATURE.neighbours_live,
]  # fmt: skip


def shortlist(
    results: SearchResults,
    requests: RequestBatch,
    k: int,
    options: RecommendOptions,
    ranker: Ranker,
    columns: Columns,
    items: ItemVectors,
    view: ItemView,
) -> Shortlist:
    """Gather candidates and cut them: steps 3 and 4 of `Recommender.recommend`.

    Args:
        results: steps 1 and 2, of B users.
        requests: the same users.
        k: items wanted: the shortlist has room for more.
        options: how many candidates, from where.
        ranker: by what weights the cut is made, and which columns are wanted.
        columns: computes them.
        items: the catalogue.
        view: the live statistics of the items.
    """
    candidates = gather(results, requests, k, options, ranker, items, view)
    return cut_and_fill(candidates, results, requests, k, options, ranker, columns, items, view)


def gather(
    results: SearchResults,
    requests: RequestBatch,
    k: int,
    options: RecommendOptions,
    ranker: Ranker,
    items: ItemVectors,
    view: ItemView,
) -> Candidates:
    """Gather candidates from all channels: step 3 of `Recommender.recommend`; see `shortlist`."""
    whole_walk = bool(ranker.column_mask[_WHOLE_WALK].any())
    return find_candidates(results, requests, k, options, whole_walk, items, view)


def cut_and_fill(
    candidates: Candidates,
    results: SearchResults,
    requests: RequestBatch,
    k: int,
    options: RecommendOptions,
    ranker: Ranker,
    columns: Columns,
    items: ItemVectors,
    view: ItemView,
) -> Shortlist:
    """Keep the best candidates by cheap features, and compute the columns of these: step 4.

    Arguments and result are as of `shortlist`.
    """
    states = requests.states
    capacity = candidates.rows.shape[1]
    cut = Candidates.of_size(
        len(requests), max(options.cut, min(k + 5 * options.reserve, capacity))
    )
    cut_candidates(
        requests.columns,
        results.histories,
        rows_of(states),
        half_lives_of(states),
        items.columns,
        view.columns,
        EncoderColumns(results.encoder_queries, columns.encoded),
        CutRule(ranker.cut_weights, options.reserve, options.seen == "keep"),
        candidates,
        cut,
    )
    features = np.zeros((*cut.rows.shape, len(ranker.column_mask)), np.float32)
    columns.fill(
        results.histories, requests, ranker.column_mask, results.encoder_queries,
        cut.rows, cut.n_rows, cut.walk_sums, features,
    )  # fmt: skip
    return Shortlist(candidates, cut, features)
