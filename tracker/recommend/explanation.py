"""describe: lists with what speaks for their items: interests, own events, parts of scores."""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.items.vectors import ItemVectors
from tracker.kernels.arithmetic import add_scaled, decay, dot
from tracker.kernels.native import native
from tracker.recommend.candidates import Candidates
from tracker.recommend.lists import Explanation, ListColumns, RecommendedBatch, explain, sum_up
from tracker.recommend.options import RecommendOptions
from tracker.recommend.shortlist import Shortlist
from tracker.scoring.blend import Ranker
from tracker.scoring.parts import list_parts
from tracker.users.columns import RequestColumns, RowColumns, rows_of
from tracker.users.readings import Histories, describe_interests
from tracker.users.rows import RequestBatch
from tracker.users.states import RING_IN_SUMS

Array = NDArray[Any]


class _Rule(NamedTuple):
    """Rule of what counts as a reason.

    `half_life` in seconds is that of a reason's weight, `threshold` its least cosine; `which` is
    the decayed sum that shares are of, and `sum_half_life` its half-life. `explains`: reasons are
    wanted at all.
    """

    half_life: float
    threshold: float
    which: int
    sum_half_life: float
    explains: bool


class _Picks(NamedTuple):
    """The candidates after the cut, their scores (B, C), and which of them were picked (B, K)."""

    cut: Candidates
    scores: Array
    picks: Array


class _Weighed(NamedTuple):
    """The arrays of an `Explanation` that the kernel fills."""

    interests: Array
    shares: Array
    others: Array
    earlier: Array
    latest: Array


def sum_for_shares(requests: RequestBatch, options: RecommendOptions) -> tuple[int, float]:
    """Return the decayed sum that shares are of, and its half-life in seconds.

    It is the one whose half-life is nearest to that of reasons.
    """
    half_lives = requests.states.config.half_lives_seconds
    which = _nearest(half_lives, options.because_half_life_seconds)
    return which, float(half_lives[which])


@cache
def _nearest(half_lives: tuple[float, ...], half_life: float) -> int:
    """Return the place of the half-life nearest to another one."""
    return int(np.argmin(np.abs(np.log(np.array(half_lives) / half_life))))


def describe(
    histories: Histories,
    requests: RequestBatch,
    options: RecommendOptions,
    items: ItemVectors,
    short: Shortlist,
    scores: NDArray[np.float32],
    picks: NDArray[np.int64],
    ranker: Ranker,
) -> RecommendedBatch:
    """Return the lists of B users, but for the probabilities, which are NaN.

    Args:
        histories: of the users.
        requests: the B users.
        options: how reasons are found, and whether parts of scores are wanted.
        items: of the artifact.
        short: the candidates with their features, C per user.
        scores: (B, C) of the candidates.
        picks: (B, K) of `select`: positions among the candidates, -1 padded.
        ranker: made the scores.
    """
    users, k = picks.shape
    explains = options.explain != "off"
    rule = _Rule(
        options.because_half_life_seconds, options.because_cosine,
        *sum_for_shares(requests, options), explains,
    )  # fmt: skip
    lists = ListColumns.of_size(users, k)
    interests = np.empty((users, k), np.int64)
    interests.fill(-1)
    latest = np.empty(lists.because.shape, np.float64)
    latest.fill(-np.inf)
    weighed = _Weighed(
        interests,
        np.zeros(lists.because.shape, np.float32),
        np.zeros((users, k), np.float32),
        np.zeros((users, k), np.float32),
        latest,
    )
    _describe(
        requests.columns, rule, rows_of(requests.states), histories, items.vectors, items.hashes,
        _Picks(short.cut, scores, picks), lists, weighed,
    )  # fmt: skip
    every, strongest = describe_interests(histories, requests, items)
    explanation = None
    if explains:
        parts = None
        if options.explain == "parts":
            parts = list_parts(
                ranker, short.columns, short.cut.n_rows, scores, picks, short.cut.rows,
                items.vectors, options.diversity_weight,
            )  # fmt: skip
        explanation = Explanation(every.labels, every.medoids, every.births, *weighed, parts)
    probabilities = np.empty((users, k), np.float32)
    probabilities.fill(np.nan)
    return RecommendedBatch(
        lists.rows, lists.scores, lists.channels, lists.because, lists.because_rows,
        *strongest, lists.list_hash, probabilities, explanation,
    )  # fmt: skip


@native
def _describe(
    requests: RequestColumns, rule: _Rule, users: RowColumns, histories: Histories, vectors: Array,
    hashes: Array, best: _Picks, lists: ListColumns, weighed: _Weighed,
) -> None:  # fmt: skip
    """Fill the lists, and the columns of their explanation."""
    half_life, threshold = rule.half_life, rule.threshold
    cut, scores, picks = best
    explain(requests, half_life, threshold, vectors, users.ring, histories, cut, picks, lists)
    sum_up(picks, scores, hashes, lists)
    if rule.explains:
        _weigh_reasons(
            requests, rule, users, histories, vectors, lists.rows, lists.because_rows, weighed
        )
    else:
        lists.because[:] = 0
        lists.because_rows[:] = -1


@native
def _weigh_reasons(
    requests: RequestColumns, rule: _Rule, users: RowColumns, histories: Histories, vectors: Array,
    rows: Array, because_rows: Array, weighed: _Weighed,
) -> None:  # fmt: skip
    """Fill shares and interests of an `Explanation`.

    A decayed sum is linear in the events, so the match of an item with it is the sum of the matches
    with the events of the ring, and with what is left of the sum without them.
    """
    head, ring, sums = users.head, users.ring, users.sums
    _, threshold, which, half_life, _ = rule
    interests, shares, others, earlier, latest = weighed
    width = histories.history.shape[1]
    dim = vectors.shape[1]
    weights = np.empty(width, np.float32)
    in_ring = np.empty(dim, np.float32)
    beyond = np.empty(dim, np.float32)
    for b in range(len(requests.slots)):
        u = requests.slots[b]
        if u < 0:
            continue
        time = max(requests.now[b], head[u]["ref_time"])
        in_ring[:] = 0.0
        mass = 0.0
        n_past = histories.n_history[b]
        for j in range(n_past):
            entry = ring[u, histories.history[b, j]]
            weights[j] = 0.0
            if entry["flags"] & RING_IN_SUMS != 0:
                weights[j] = entry["weight"] * decay(time - entry["time"], half_life)
                mass += weights[j]
                row = histories.ring_rows[b, histories.history[b, j]]
                add_scaled(in_ring, vectors[row], weights[j])
        fade = np.float32(decay(time - head[u]["ref_time"], half_life))
        for d in range(dim):
            beyond[d] = fade * sums[u, which, d] - in_ring[d]
        # Sums are stored as float32, and are rounded at each event.
        noise = (1e-4 if head[u]["evicted"] != 0 else 1e-3) * mass
        for i in range(rows.shape[1]):
            if rows[b, i] < 0:
                break
            vector = vectors[rows[b, i]]
            best = threshold
            for s in range(histories.order.shape[1]):
                interest = histories.order[b, s]
                if not histories.strengths[b, interest] > 0.0:
                    break
                near = float(dot(histories.interests[b, interest], vector))
                if near > best or (near == best and interests[b, i] < 0):
                    best = near
                    interests[b, i] = s
            before = float(dot(beyond, vector))
            if before <= noise:
                before = 0.0
            rest = float(dot(in_ring, vector))
            whole = before
            for r in range(because_rows.shape[2]):
                reason = because_rows[b, i, r]
                if reason < 0:
                    break
                weight = 0.0
                for j in range(n_past):
                    place = histories.history[b, j]
                    if histories.ring_rows[b, place] == reason:
                        weight += weights[j]
                        latest[b, i, r] = max(latest[b, i, r], ring[u, place]["time"])
                part = max(weight * float(dot(vectors[reason], vector)), 0.0)
                shares[b, i, r] = part
                rest -= part
                whole += part
            if rest <= noise:
                rest = 0.0
            whole += rest
            if not whole > 0.0:
                continue
            for r in range(because_rows.shape[2]):
                shares[b, i, r] /= np.float32(whole)
            others[b, i] = rest / whole
            earlier[b, i] = before / whole
