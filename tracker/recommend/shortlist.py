"""The shortlist of each user: candidates after the first cut, with the columns of a ranker.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.items.vectors import ItemVectors, VectorColumns
from tracker.items.view import ItemColumns, ItemView
from tracker.kernels.arithmetic import add_scaled, decay, dot, to_unit
from tracker.kernels.native import native, prefetch
from tracker.kernels.row_lists import kth_largest
from tracker.recommend.candidates import Candidates, find_candidates
from tracker.recommend.channels import CHANNEL, CHANNELS
from tracker.recommend.columns import Columns
from tracker.recommend.plan import Plan
from tracker.recommend.reader import SearchResults
from tracker.scoring.features import (
    confident_unit,
    neighbour_value,
    recency,
    scene_value,
)
from tracker.scoring.item_score import item_scores
from tracker.scoring.item_weights import find_strongest
from tracker.scoring.retrieval import CHEAP
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


_WALK_COLUMNS = (
    CHEAP.neighbours_60, CHEAP.neighbours_95, CHEAP.neighbours_long, CHEAP.next,
    CHEAP.neighbours_live,
)  # fmt: skip
"""Columns of CHEAP that are sums of the walk, in their order there."""


class CutRule(NamedTuple):
    """Rule of the first cut.

    `weights` (CHEAP,) float32; `item_scores` (N,) float32 of the items now; `reserve` candidates of
    each channel are kept in any case; with `keep_seen` seen items are candidates like others, and
    only then repeats are counted.
    """

    weights: Array
    item_scores: Array
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
    """Keep the best candidates by a weighted sum of cheap features, the costly ones for these.

    The features are those of CHEAP; what weighs 0 is not computed. The first `reserve` of each
    channel are kept whatever their score, so that an item which nobody has chosen yet keeps its way
    in.

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
    ref_times, item_scores = items.ref_times, rule.item_scores
    half_lives_of_items = items.half_lives
    item_scenes, scene_counts = items.scenes, items.scene_counts
    ring, ring_rows, history = users.ring, histories.ring_rows, histories.history
    rows, channels = candidates.rows, candidates.channels
    queries, encoded = encoder
    limit = cut.rows.shape[1]
    taste = np.empty(short.shape[1], np.float32)
    dislike = np.empty(short.shape[1], np.float32)
    scores = np.empty(rows.shape[1], np.float32)
    ordered = np.empty(rows.shape[1], np.float32)
    counts = np.empty(len(CHANNELS), np.int64)
    by_walk = False
    for i in range(len(_WALK_COLUMNS)):
        by_walk = by_walk or weights[_WALK_COLUMNS[i]] != 0.0
    own_scene = weights[CHEAP.scene_short] != 0.0 or weights[CHEAP.scene_long] != 0.0
    repeated = weights[CHEAP.repeats] != 0.0 or weights[CHEAP.repeat_recency] != 0.0
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
            taste *= weights[CHEAP.content]
            u = requests.slots[b]
            if u >= 0 and users.head[u]["negative_mass"] > 0.0:
                age = now - users.head[u]["ref_time"]
                mass = users.head[u]["negative_mass"] * decay(age, half_lives.negative)
                confident_unit(users.negative[u], mass, dislike)
                add_scaled(taste, dislike, weights[CHEAP.negative])
            own = n_past if keep_seen and repeated else 0
            scene = requests.scenes[b] if own_scene else np.uint32(0)
            counts[:] = 0
            for c in range(n):
                if c + _AHEAD < n:
                    ahead = rows[b, c + _AHEAD]
                    prefetch(item_scores, ahead)
                    prefetch(short, ahead)
                    prefetch(encoded, ahead)
                    if scene != 0:
                        prefetch(item_scenes, ahead)
                row = rows[b, c]
                score = weights[CHEAP.item] * item_scores[row]
                if by_walk:
                    for i in range(len(_WALK_COLUMNS)):
                        if weights[_WALK_COLUMNS[i]] != 0.0:
                            near = neighbour_value(candidates.walk_sums[b, c, i])
                            score += weights[_WALK_COLUMNS[i]] * np.float32(near)
                score += weights[CHEAP.item_weights] * candidates.weighed[b, c]
                if weights[CHEAP.content] != 0.0 or weights[CHEAP.negative] != 0.0:
                    score += np.float32(dot(taste, short[row]))
                if weights[CHEAP.encoder] != 0.0:
                    score += weights[CHEAP.encoder] * np.float32(dot(queries[b], encoded[row]))
                if own > 0:
                    repeats = 0
                    last = 0.0
                    for j in range(own):
                        if ring_rows[b, history[b, j]] == row:
                            if repeats == 0:
                                last = ring[u, history[b, j]]["time"]
                            repeats += 1
                    if repeats > 0:
                        score += weights[CHEAP.repeats] * np.float32(math.log2(1.0 + repeats))
                        score += weights[CHEAP.repeat_recency] * np.float32(recency(now - last))
                if scene != 0:
                    for j in range(item_scenes.shape[1]):
                        if item_scenes[row, j] == scene:
                            age = now - ref_times[row]
                            for i in range(2):
                                trend = scene_value(
                                    scene_counts[row, j, i], half_lives_of_items[i], age
                                )
                                score += weights[CHEAP.scene_short + i] * np.float32(trend)
                if counts[channels[b, c]] < rule.reserve:
                    score += np.float32(1e4)
                if c < n_unseen:
                    score += np.float32(1e5)
                counts[channels[b, c]] += 1
                scores[c] = score
            for c in range(n):
                ordered[c] = scores[c]
            threshold = kth_largest(ordered, n, limit)
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
            cut.weighed[b, n_cut] = candidates.weighed[b, c]
            for i in range(cut.walk_sums.shape[2]):
                cut.walk_sums[b, n_cut, i] = candidates.walk_sums[b, c, i]
            n_cut += 1
        cut.n_rows[b] = n_cut
        cut.n_unseen[b] = n_cut_unseen
        for c in range(n_cut, limit):
            cut.rows[b, c] = -1
            cut.via[b, c] = -1


def shortlist(
    results: SearchResults,
    requests: RequestBatch,
    k: int,
    plan: Plan,
    columns: Columns,
    items: ItemVectors,
    view: ItemView,
) -> Shortlist:
    """Gather candidates and cut them: steps 3 and 4 of `Recommender.recommend`.

    Args:
        results: steps 1 and 2, of B users.
        requests: the same users.
        k: items wanted: the shortlist has room for more.
        plan: how many candidates, from where, and how they are cut.
        columns: computes what the ranker reads.
        items: the catalogue.
        view: the live statistics of the items.
    """
    candidates = find_candidates(results, requests, k, plan, items, view)
    return cut_and_fill(candidates, results, requests, k, plan, columns, items, view)


def cut_and_fill(
    candidates: Candidates,
    results: SearchResults,
    requests: RequestBatch,
    k: int,
    plan: Plan,
    columns: Columns,
    items: ItemVectors,
    view: ItemView,
) -> Shortlist:
    """Keep the best candidates by cheap features, and compute the columns of these: step 4.

    Arguments and result are as of `shortlist`.
    """
    states, options = requests.states, plan.options
    weighed = columns.weighed(results.histories, candidates.rows, candidates.n_rows)
    candidates = candidates._replace(weighed=weighed)
    capacity = candidates.rows.shape[1]
    reserve = options.retrieval.reserve
    scores = item_scores(view, plan.cut_score, requests.latest)
    cut = Candidates.of_size(len(requests), max(options.cut, min(k + 5 * reserve, capacity)))
    cut_candidates(
        requests.columns,
        results.histories,
        rows_of(states),
        half_lives_of(states),
        items.columns,
        view.columns,
        EncoderColumns(results.encoder_queries, columns.encoded),
        CutRule(plan.cut_weights, scores, reserve, options.seen == "keep"),
        candidates,
        cut,
    )
    if len(columns.item_weights.rows):
        by_neighbours = (cut.channels == CHANNEL.neighbours) & (cut.rows >= 0)
        find_strongest(results.histories, columns.item_weights, cut.rows, by_neighbours, cut.via)
    features = np.zeros((*cut.rows.shape, plan.columns), np.float32)
    columns.fill(
        results.histories, requests, plan.choice, results.encoder_queries,
        cut.rows, cut.n_rows, cut.walk_sums, cut.weighed, features,
    )  # fmt: skip
    return Shortlist(candidates, cut, features)
