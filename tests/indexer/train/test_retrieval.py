"""The choice of candidates: rows go to what finds what the ranker would show, within the time."""

from dataclasses import replace

import numpy as np
import pytest

from indexer.replay.pools import Costs, Pools
from indexer.train.retrieval import (
    _NOWHERE,
    OPENED,
    Choice,
    _plan,
    choose_retrieval,
    fit_score,
    with_retrieval,
)
from tracker.recommend.source_places import SOURCES
from tracker.scoring.context import COLUMNS
from tracker.scoring.network import Network, Weights
from tracker.scoring.retrieval import CHEAP, ITEM_FEATURES, Retrieval, recall_lines

POOLS, ROWS = 150, 120
COSTS = Costs(search=40.0, encoder=30.0, candidate=0.1, row=0.2)
VECTORS = np.eye(ROWS, 16, dtype=np.float32) + np.eye(ROWS, 16, -16, dtype=np.float32)


def ranker_of(column: str) -> Network:
    """Return a ranker that reads one column, three times."""
    zeros = np.zeros(2, np.float32)
    weights = Weights(
        np.zeros((1, 2), np.float32), zeros, np.zeros((2, 2), np.float32), zeros, zeros,
        np.full(1, 3.0, np.float32), np.zeros(6, np.float32),
    )  # fmt: skip
    return Network([column], weights)


def pools_where(source: str, column: str, costs: Costs = COSTS, count: int = POOLS) -> Pools:
    """Return pools in which one source offers all by a column, others a quarter by chance."""
    random = np.random.default_rng(1)
    features = np.zeros((count, ROWS, len(COLUMNS)), np.float16)
    value = random.normal(size=(count, ROWS)).astype(np.float16)
    features[:, :, COLUMNS.index(column)] = value
    features[:, :, COLUMNS.index("age")] = random.normal(5.0, 1.0, (count, ROWS))
    places = np.full((count, ROWS, len(SOURCES)), -1, np.int16)
    for name in ("content", "neighbours", "trend_short", "new"):
        chance = random.permuted(np.tile(np.arange(ROWS), (count, 1)), axis=1)
        places[:, :, SOURCES.index(name)] = np.where(chance < 30, chance, -1)
    order = np.argsort(np.argsort(-value, axis=1), axis=1)
    places[:, :, SOURCES.index(source)] = order
    rows = np.tile(np.arange(ROWS, dtype=np.int32), (count, 1))
    return Pools(rows, places, features, np.zeros(len(ITEM_FEATURES)), np.array(costs))


def chosen_of(pools: Pools, column: str) -> Choice:
    chosen = choose_retrieval(pools, ranker_of(column), VECTORS)
    assert chosen is not None
    return chosen


def test_rows_go_to_the_source_that_finds_what_the_ranker_would_show() -> None:
    chosen = chosen_of(pools_where("neighbours", "neighbours_95"), "neighbours_95")
    retrieval = chosen.retrieval
    assert retrieval.neighbours >= 10
    assert retrieval.content == retrieval.encoder == retrieval.recent == 0
    assert "trend_short" not in retrieval.lists
    recall = retrieval.recall
    assert recall is not None
    assert recall.served > 0.99
    by_source = {one.source: one for one in recall.sources}
    assert by_source["neighbours"].alone >= by_source["neighbours"].beyond > 0.0


def test_a_search_is_paid_for_only_where_it_finds_enough() -> None:
    pools = pools_where("content", "content_60")
    assert chosen_of(pools, "content_60").retrieval.content >= 10
    dear = COSTS._replace(search=10_000.0, encoder=-10_000.0 + 30.0)
    assert chosen_of(replace(pools, costs=np.array(dear)), "content_60").retrieval.content == 0


def test_what_was_chosen_takes_no_longer_than_the_fixed_quotas() -> None:
    for name, column in (("neighbours", "neighbours_95"), ("content", "content_60")):
        retrieval = chosen_of(pools_where(name, column), column).retrieval
        assert retrieval.microseconds is not None
        assert retrieval.before is not None
        assert retrieval.microseconds <= retrieval.before


def test_the_first_cut_leaves_what_the_ranker_would_show() -> None:
    chosen = chosen_of(pools_where("trend_1", "trend_1"), "trend_1")
    assert chosen.cut < ROWS
    assert chosen.retrieval.cut["trend_1"] > 1.0
    assert abs(chosen.retrieval.cut.get("age", 0.0)) < 0.3
    assert set(chosen.retrieval.cut) <= {*CHEAP._fields, *ITEM_FEATURES}


def test_what_is_new_keeps_a_way_in_even_where_it_finds_nothing() -> None:
    chosen = chosen_of(pools_where("neighbours", "neighbours_95"), "neighbours_95")
    assert chosen.retrieval.lists["new"] >= 4
    assert chosen.retrieval.reserve >= 1


@pytest.mark.parametrize(("alike", "least", "most"), [(0, 0.1, 0.1), (6, 0.0, 0.05)])
def test_diversity_is_taken_only_as_far_as_it_costs_no_hits(
    alike: int, least: float, most: float
) -> None:
    pools = pools_where("trend_1", "trend_1")
    order = np.argsort(-pools.features[:, :, COLUMNS.index("trend_1")], axis=1)
    pools.rows[:] = np.argsort(order, axis=1)  # row 0 is the best of each pool
    vectors = np.eye(16, dtype=np.float32)[np.arange(ROWS) % 16]
    vectors[:alike] = vectors[0]
    chosen = choose_retrieval(pools, ranker_of("trend_1"), vectors)
    assert chosen is not None
    assert least <= chosen.retrieval.diversity <= most


def test_too_few_validation_events_choose_nothing() -> None:
    pools = pools_where("content", "content_60", count=20)
    assert choose_retrieval(pools, ranker_of("content_60"), VECTORS) is None
    network = ranker_of("content_60")
    assert with_retrieval(network, None).info.retrieval == Retrieval()
    assert recall_lines(network.info.retrieval) == []


def test_the_ranker_carries_what_was_chosen() -> None:
    chosen = chosen_of(pools_where("neighbours", "neighbours_95"), "neighbours_95")
    info = with_retrieval(ranker_of("neighbours_95"), chosen).info
    assert (info.candidates, info.cut) == (chosen.candidates, chosen.cut)
    assert info.retrieval == chosen.retrieval
    lines = recall_lines(info.retrieval)
    assert lines[0].startswith("by source, ")
    assert f"neighbours {chosen.retrieval.neighbours} (" in lines[0]


def test_the_item_score_is_fitted_to_what_is_chosen() -> None:
    random = np.random.default_rng(2)
    features = random.normal(size=(600, 30, len(COLUMNS))).astype(np.float16)
    column = COLUMNS.index("trend_2")
    features[np.arange(600), 0, column] = features[:, :, column].max(axis=1)
    score = fit_score(features, np.zeros((600, 30), np.float32))
    assert set(score) <= set(ITEM_FEATURES)
    assert score["trend_2"] > 1.0 > 3 * max(abs(w) for n, w in score.items() if n != "trend_2")
    assert fit_score(features[:0], np.zeros((0, 30), np.float32)) == {}


def test_a_search_that_is_paid_first_has_rows_and_its_time_is_counted() -> None:
    encoder, neighbours = SOURCES.index("encoder"), SOURCES.index("neighbours")
    places = np.full((50, 40, len(SOURCES)), _NOWHERE, np.int64)
    places[:, :20, neighbours] = np.arange(20)
    places[:, 20:, encoder] = np.arange(20)  # as much worth as the neighbours, for a search more
    worth = np.full((50, 40), 0.01, np.float32)
    budget = COSTS.encoder + 60 * COSTS.candidate
    alone = _plan(places[:, :20], worth[:, :20], COSTS, budget)
    paid = _plan(places, worth, COSTS, budget, ("encoder",))
    assert alone is not None
    assert paid is not None
    assert alone.microseconds < COSTS.encoder < paid.microseconds <= budget
    assert paid.quotas[encoder] >= 20
    assert paid.quotas[neighbours] >= 20
    assert _plan(places[:, :20], worth[:, :20], COSTS, budget, ("encoder",)) is None
    assert _plan(places, worth, COSTS, COSTS.encoder / 2, ("encoder",)) is None
    assert OPENED[0] == ()
