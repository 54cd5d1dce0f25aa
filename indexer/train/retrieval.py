"""Retrieval: the quotas of candidates, the first cut and diversity, chosen for a trained ranker.

They are chosen on pools: for a validation event, all rows that any source of candidates offers. The
ranker scores a whole pool, so it is known what a list would show if every row were ranked.
"""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer.replay.pools import PER_SEARCH, Costs, Pools
from indexer.train.linear_fit import fit_linear
from tracker.recommend.selection import select
from tracker.recommend.source_places import SOURCES
from tracker.scoring.context import COLUMNS
from tracker.scoring.network import Network, RankerInfo
from tracker.scoring.retrieval import (
    ITEM_FEATURES,
    LISTS,
    NEW,
    ChannelRecall,
    Recall,
    Retrieval,
)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

MIN_POOLS = 60
"""With fewer pools nothing is chosen."""

MAX_SCORED = 4000
"""Maximum number of examples that the item score is fitted on, the latest ones."""

CHEAP_COLUMNS: dict[str, tuple[str, ...]] = {
    "content": ("content_60", "content_95"),
    **{
        name: (name,)
        for name in (
            "negative", "repeats", "repeat_recency", "encoder", "scene_short", "scene_long",
            "neighbours_60", "neighbours_95", "neighbours_long", "next", "neighbours_live",
            "item_weights",
        )
    },
    **{name: (name,) for name in ITEM_FEATURES},
}  # fmt: skip
"""Columns whose mean stands for each feature of the first cut."""

CUTS = (24, 32, 40, 48, 64, 80, 96, 128, 160, 200)
"""Sizes of the cut that are tried."""

STEPS = (1, 2, 4, 8, 16, 32, 64)
"""Rows by which a quota grows at a time."""

LEAST_NEW, RESERVE = 4, 1
"""Least quota of new items, and rows of each channel that pass the first cut with any score."""

ENOUGH = 0.001
"""A gain of this share or less is not worth a costlier size of the cut."""

OPENED: tuple[tuple[str, ...], ...] = ((), ("encoder",), ("content",), ("content", "encoder"))
"""Searches that are paid before any row: one by one, no row of theirs may be worth that much."""

DIVERSITIES, DIVERSITY_COST = (0.1, 0.07, 0.05, 0.03, 0.02, 0.01), 0.003
"""Diversities that are tried, the largest first, and the share of worth that one may cost."""

RANKED_MICROSECONDS = 0.2
"""Usual time of a trained ranker for one candidate."""

WEIGHED_MICROSECONDS = 20.0
"""Usual time of the search by item weights."""

LATEST_SHARE = 0.3
"""Share of the pools, the latest, that the size of the cut is chosen on."""

_NOWHERE = 1 << 14
_OWN = SOURCES.index("own")
_LISTS = SOURCES.index(LISTS[0])


class Choice(NamedTuple):
    """The retrieval that was chosen, with the numbers of candidates and of rows after the cut."""

    retrieval: Retrieval
    candidates: int
    cut: int


class _Plan(NamedTuple):
    """Quotas (SOURCES,) and the processor time of a list with them, without the rows of the cut."""

    quotas: NDArray[np.int64]
    microseconds: float


class _Cut(NamedTuple):
    """The cheap features of the first cut, and their weights (D,)."""

    names: list[str]
    weights: Floats


def fit_score(features: NDArray[np.float16], offsets: NDArray[np.float32]) -> dict[str, float]:
    """Fit the weighted sum of item features that puts targets highest, by cross-entropy.

    Args:
        features: (Q, C, F) of examples, the target first.
        offsets: (Q, C), see `Examples`.
    """
    places = [COLUMNS.index(name) for name in ITEM_FEATURES]
    some = features[-MAX_SCORED:, :, places].astype(np.float32)
    own = offsets[-MAX_SCORED:]
    target = np.zeros_like(own)
    target[:, 0] = 1.0
    weights = _fit(some, own, target)
    return {name: float(w) for name, w in zip(ITEM_FEATURES, weights, strict=True) if w != 0.0}


def _fit(
    inputs: NDArray[np.float32], offsets: NDArray[np.float32], shares: NDArray[np.float32]
) -> Floats:
    """Return the weights (D,) of inputs (Q, C, D) of least cross-entropy with a distribution.

    A convex problem, over standardised inputs with a small ridge. An input that is the same
    everywhere weighs 0. Offsets (Q, C) are added to logits, -inf for an empty place; `shares`
    (Q, C) sums to 1.
    """
    filled = np.isfinite(offsets)
    if not len(inputs):
        return np.zeros(inputs.shape[2])
    scale = inputs[filled].std(axis=0, dtype=np.float64)
    differs = scale > 1e-4
    factor = np.where(differs, 1.0 / np.where(differs, scale, 1.0), 0.0).astype(np.float32)
    start = np.zeros(inputs.shape[2])
    weights = fit_linear(
        lambda part: (inputs[part] * factor, offsets[part]), len(inputs), start, 1e-4, shares
    )
    return np.asarray(weights * factor, np.float64)


def choose_retrieval(
    pools: Pools,
    network: Network,
    vectors: NDArray[np.float32],
) -> Choice | None:
    """Choose quotas, the first cut and their sizes for a ranker, within what the defaults cost.

    1. Score the pools by the ranker: its first ten of a pool are what a list should show, each
       worth the probability that the ranker gives it.
    2. Fit the first cut, a weighted sum of cheap features, to the ranker's probabilities.
    3. For each size of the cut, give rows to the source that finds most worth for its time, until
       the time that the default quotas take is used up: without a search, unless one pays at once,
       and with one that is paid first.
    4. Take the size whose lists keep most worth on the latest pools; of sizes that are alike, the
       cheapest. As a reserve for other days, take the next larger size if it is alike too, and
       up to half more candidates, if there is time left.
    5. Take the most diversity that costs next to none of that worth.

    Args:
        pools: of validation events.
        network: the ranker.
        vectors: (N, D) unit, by which diversity goes.

    Returns:
        None if there are too few pools.
    """
    if len(pools) < MIN_POOLS:
        return None
    # 1. Score the pools.
    filled = pools.rows >= 0
    scores = _scores(pools, network)
    worth = _worth(scores, filled)
    # 2. Fit the first cut.
    late = max(1, round(LATEST_SHARE * len(pools)))
    cheap = _cheap(pools)
    early = _fit_cut(cheap[:-late], scores[:-late], filled[:-late])
    values = cheap[-late:] @ early.weights.astype(np.float32)
    # 3. Give rows to the sources.
    costs = Costs(*pools.costs.tolist())
    row = costs.row + RANKED_MICROSECONDS
    usual, sizes = Retrieval(), RankerInfo([], (0, 0))
    budget = costs.search + costs.encoder
    budget += sizes.candidates * costs.candidate + sizes.cut * row
    places = np.where(pools.places < 0, _NOWHERE, pools.places).astype(np.int64)
    tried = []
    for size, opened in product(CUTS, OPENED):
        plan = _plan(places, worth, costs, budget - size * row, opened)
        if plan is None:
            continue
        survives = _survivors(values, filled[-late:] & _offers(places[-late:], plan.quotas), size)
        tried.append((float((worth[-late:] * survives).sum()), plan, size))
    if not tried:
        return None
    # 4. Take the size that keeps most, and the next one if there is time for it.
    best = max(share for share, _, _ in tried)
    good = [one for one in tried if one[0] >= best * (1.0 - ENOUGH)]
    _, plan, size = min(good, key=lambda one: one[1].microseconds + one[2] * row)
    larger = [one for one in good if one[2] == min((s for s in CUTS if s > size), default=size)]
    if larger:
        _, plan, size = max(larger, key=lambda one: one[0])
    room = budget - plan.microseconds - size * row
    rows = int(plan.quotas.sum())
    spare = max(0, min(rows // 2, int(room / costs.candidate)))
    cut = _fit_cut(cheap, scores, filled)
    # 5. Take the most diversity that costs next to nothing.
    after_cut = filled[-late:] & _offers(places[-late:], plan.quotas)
    after_cut &= _survivors(values, after_cut, size)
    diversity = _diversity(pools.rows[-late:], scores[-late:], worth[-late:], after_cut, vectors)
    recall = _recall(pools, places, plan, cheap @ cut.weights.astype(np.float32), size, worth)
    own = dict(zip(SOURCES, plan.quotas.tolist(), strict=True))
    retrieval = Retrieval(
        content=own["content"],
        recent=own["recent"],
        neighbours=own["neighbours"],
        scene=own["scene"],
        encoder=own["encoder"],
        item_weights=own["item_weights"],
        lists={name: own[name] for name in LISTS if own[name]},
        per_search=usual.per_search
        if max(own["content"], own["encoder"], own["item_weights"]) <= usual.per_search
        else PER_SEARCH,
        reserve=RESERVE,
        diversity=diversity,
        score=_named(ITEM_FEATURES, pools.score),
        cut=_named(cut.names, cut.weights),
        recall=recall,
        microseconds=round(plan.microseconds + spare * costs.candidate + size * row, 2),
        before=round(budget, 2),
    )
    return Choice(retrieval, max(retrieval.rows + spare, size), size)


def with_retrieval(network: Network, choice: Choice | None) -> Network:
    """Return the ranker with a retrieval as its own."""
    if choice is None:
        return network
    info = msgspec.structs.replace(
        network.info,
        candidates=choice.candidates,
        cut=choice.cut,
        retrieval=choice.retrieval,
    )
    return Network(network.info.columns, network.weights, info)


def _named(names: Sequence[str], weights: Floats) -> dict[str, float]:
    return {n: round(float(w), 6) for n, w in zip(names, weights, strict=True) if w != 0.0}


def _scores(pools: Pools, network: Network) -> NDArray[np.float32]:
    """Return the ranker's scores (M, P) of the pools; -inf for an empty place."""
    scores = np.full(pools.rows.shape, -np.inf, np.float32)
    for start in range(0, len(pools), 64):
        part = slice(start, start + 64)
        n_rows = (pools.rows[part] >= 0).sum(axis=1)
        values = network.score(pools.features[part].astype(np.float32), n_rows)
        scores[part] = np.where(pools.rows[part] >= 0, values, -np.inf)
    return scores


def _softmax(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)


def _worth(scores: NDArray[np.float32], filled: Flags) -> NDArray[np.float32]:
    """Return the probabilities (M, P) of the ranker's first ten, 0 for others."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    first = np.zeros(scores.shape, np.bool_)
    np.put_along_axis(first, order, True, axis=1)
    return np.asarray(_softmax(scores) * (first & filled), np.float32)


def _cheap(pools: Pools) -> NDArray[np.float32]:
    """Return the features of the first cut (M, P, D)."""
    out = np.empty((*pools.rows.shape, len(CHEAP_COLUMNS)), np.float32)
    for d, names in enumerate(CHEAP_COLUMNS.values()):
        columns = [COLUMNS.index(name) for name in names]
        out[:, :, d] = pools.features[:, :, columns].mean(axis=2, dtype=np.float32)
    return out


def _fit_cut(cheap: NDArray[np.float32], scores: NDArray[np.float32], filled: Flags) -> _Cut:
    """Fit the weighted sum of cheap features that comes nearest to the ranker's probabilities."""
    offsets = np.where(filled, np.float32(0.0), np.float32(-np.inf))
    return _Cut(list(CHEAP_COLUMNS), _fit(cheap, offsets, _softmax(scores)))


def _plan(
    places: NDArray[np.int64],
    worth: NDArray[np.float32],
    costs: Costs,
    budget: float,
    opened: Sequence[str] = (),
) -> _Plan | None:
    """Share rows out to sources, the one with the most new worth for its time first.

    Args:
        places: (M, P, S).
        worth: (M, P).
        costs: of sources and rows.
        budget: microseconds for all of it.
        opened: sources whose search is paid first.

    Returns:
        quotas (S,) and what they take; None if the budget is too small for any, or a source that
        was paid first has no row.
    """
    valued = worth > 0.0
    entries, values = places[valued], worth[valued].astype(np.float64)
    quotas = np.zeros(len(SOURCES), np.int64)
    quotas[SOURCES.index(NEW)] = LEAST_NEW
    open_cost = {
        SOURCES.index("content"): costs.search,
        SOURCES.index("encoder"): costs.encoder,
        SOURCES.index("item_weights"): WEIGHED_MICROSECONDS,
    }
    paid = [SOURCES.index(name) for name in opened]
    spent = LEAST_NEW * costs.candidate + sum(open_cost.pop(source) for source in paid)
    if spent > budget:
        return None
    free = ~((entries < quotas).any(axis=1) | (entries[:, _OWN] < _NOWHERE))
    total = float(values.sum())
    while True:
        entries, values = entries[free], values[free]
        best, move = 0.0, None
        for source in range(len(SOURCES)):
            if source == _OWN:
                continue
            opening = open_cost.get(source, 0.0) if quotas[source] == 0 else 0.0
            own = entries[:, source]
            for step in STEPS:
                cost = opening + step * costs.candidate
                if spent + cost > budget:
                    break
                gain = float(values[own < quotas[source] + step].sum()) / cost
                if gain > best:
                    best, move = gain, (source, step, cost)
        if move is None or not len(entries) or float(values.sum()) <= 1e-5 * total:
            return _Plan(quotas, spent) if quotas[paid].all() else None
        source, step, cost = move
        quotas[source] += step
        spent += cost
        free = entries[:, source] >= quotas[source]


def _offers(places: NDArray[np.int64], quotas: NDArray[np.int64]) -> Flags:
    """Return which rows (M, P) the sources offer within their quotas, and the user's own."""
    return np.asarray((places < quotas).any(axis=2) | (places[:, :, _OWN] < _NOWHERE))


def _survivors(values: NDArray[np.float32], offered: Flags, size: int) -> Flags:
    """Return which candidates (M, P) survive the cut to a size; `values` are its sums (M, P)."""
    room = max(1, size - 5 * RESERVE)
    own = np.where(offered, values, -np.inf)
    if room >= own.shape[1]:
        return offered
    least = np.partition(own, own.shape[1] - room, axis=1)[:, own.shape[1] - room]
    return np.asarray(offered & (own >= least[:, None]))


def _diversity(
    rows: NDArray[np.int32],
    scores: NDArray[np.float32],
    worth: NDArray[np.float32],
    after_cut: Flags,
    vectors: NDArray[np.float32],
) -> float:
    """Return the largest of DIVERSITIES that leaves the worth of lists of ten, by their places."""
    size = int(after_cut.sum(axis=1).max(initial=1))
    order = np.argsort(~after_cut, axis=1, kind="stable")[:, :size]
    count = np.minimum(after_cut.sum(axis=1), size)
    own_rows = np.take_along_axis(rows, order, axis=1)
    own_scores = np.nan_to_num(np.take_along_axis(scores, order, axis=1), neginf=-1e9)
    own_worth = np.take_along_axis(worth, order, axis=1)
    discounts = 1.0 / np.log2(np.arange(10) + 2.0)

    def gain(diversity: float) -> float:
        picks = np.full((len(rows), 10), -1, np.int64)
        select(10, diversity, True, vectors, own_rows, own_scores, count, count, picks)
        picked = np.take_along_axis(own_worth, np.maximum(picks, 0), axis=1) * (picks >= 0)
        return float((picked * discounts).sum())

    least = gain(0.0) * (1.0 - DIVERSITY_COST)
    return next((d for d in DIVERSITIES if gain(d) >= least), 0.0)


def _recall(
    pools: Pools,
    places: NDArray[np.int64],
    plan: _Plan,
    values: NDArray[np.float32],
    size: int,
    worth: NDArray[np.float32],
) -> Recall:
    """Measure a plan: what the candidates hold, as a whole and by channel."""
    offered = _offers(places, plan.quotas)
    survives = _survivors(values, offered, size)
    target, count = places[:, 0], len(pools)
    sources = []
    for source, name in enumerate(SOURCES):
        rows = int(plan.quotas[source])
        if name == "own" or not rows:
            continue
        alone = target[:, source] < rows
        others = np.delete(np.arange(len(SOURCES)), source)
        beyond = alone & ~(target[:, others] < plan.quotas[others]).any(axis=1)
        sources.append(ChannelRecall(name, rows, _share(alone), _share(beyond)))
    total = float(worth.sum())
    return Recall(
        targets=count,
        candidates=_share(offered[:, 0]),
        cut=_share(survives[:, 0]),
        served=round(float((worth * survives).sum()) / total, 4) if total else 1.0,
        slices={
            name: _share(offered[which, 0])
            for name, which in _slices(pools).items()
            if which.sum() >= MIN_POOLS // 3
        },
        sources=sources,
    )


def _slices(pools: Pools) -> dict[str, Flags]:
    """Return which targets are of a length of history, and of an age of the item."""
    target = pools.features[:, 0].astype(np.float64)
    events = np.exp2(target[:, COLUMNS.index("events")]) - 1.0
    hours = np.exp2(target[:, COLUMNS.index("age")]) - 1.0
    fresh = target[:, COLUMNS.index("no_event")] > 0.5
    return {
        "history:1-3": events < 3.5,
        "history:4-10": (events >= 3.5) & (events < 10.5),
        "history:11-30": (events >= 10.5) & (events < 30.5),
        "history:31+": events >= 30.5,
        "item:not chosen yet": fresh,
        "item:first hour": ~fresh & (hours < 1.0),
        "item:first day": ~fresh & (hours >= 1.0) & (hours < 24.0),
        "item:first month": ~fresh & (hours >= 24.0) & (hours < 720.0),
        "item:older": ~fresh & (hours >= 720.0),
    }


def _share(which: Flags) -> float:
    return round(float(which.mean()), 4)
