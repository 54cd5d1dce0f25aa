"""Rows of a report agree with each metric by itself, and differences with their targets."""

import numpy as np
import pytest

from indexer.evaluate import metrics
from indexer.evaluate.answers import Answers
from indexer.evaluate.intervals import paired_interval
from indexer.evaluate.measure import differences, measure_model, measure_slice

RANDOM = np.random.default_rng(0)
TARGETS, ITEMS = 300, 25


def answers(seed: int) -> Answers:
    random = np.random.default_rng(seed)
    ranks = random.integers(1, 60, TARGETS).astype(np.float64)
    ranks[::17] = np.inf
    lists = np.stack([random.permutation(ITEMS)[:10] for _ in range(TARGETS)])
    lists[::5, 7:] = -1
    lists[3, 1:] = -1  # no pair
    return Answers(ranks, lists)


def test_a_row_is_what_each_metric_says_of_its_slice() -> None:
    users, items = RANDOM.integers(0, 40, TARGETS), RANDOM.integers(0, ITEMS, TARGETS)
    counts = RANDOM.integers(0, 9, ITEMS).astype(np.float64)
    full = RANDOM.normal(size=(ITEMS, 8)).astype(np.float32)
    full /= np.linalg.norm(full, axis=1, keepdims=True)
    which = RANDOM.random(TARGETS) < 0.6
    found = {"tracker": answers(1), "popularity": answers(2)}
    models = {name: measure_model(said, counts, full) for name, said in found.items()}
    rows = measure_slice("some", models, which, users, items, ITEMS, 0)
    assert [(row.model, row.slice, row.n) for row in rows] == [
        ("tracker", "some", which.sum()), ("popularity", "some", which.sum()),
    ]  # fmt: skip
    for row in rows:
        ranks, lists = found[row.model].ranks[which], found[row.model].lists[which]
        expected = {
            "hit_rate_at_10": metrics.hit_rate_at_k(ranks, 10),
            "hit_rate_at_20": metrics.hit_rate_at_k(ranks, 20),
            "ndcg_at_10": metrics.ndcg_at_k(ranks, 10),
            "ndcg_at_20": metrics.ndcg_at_k(ranks, 20),
            "mrr": metrics.mrr(ranks),
            "recall_at_10": metrics.recall_at_k(ranks, 10),
            "debiased_hit_rate_at_10": metrics.debiased_hit_rate_at_k(ranks, items[which], 10),
            "novelty": metrics.novelty_at_k(lists, counts),
            "diversity": metrics.diversity_at_k(lists, full),
        }
        assert row.coverage == metrics.coverage_at_k(lists, ITEMS)
        assert set(row.ci) == set(expected)
        for metric, value in expected.items():
            assert getattr(row, metric) == pytest.approx(value), metric
            low, high = row.ci[metric]
            assert low < value < high


def test_differences_that_are_drawn_together_have_the_intervals_of_each_alone() -> None:
    users = RANDOM.integers(0, 40, TARGETS)
    found = {name: answers(seed) for seed, name in enumerate(("tracker", "popularity", "ease"))}
    for one in differences(found, users, 3):
        value = metrics.hits_at_k if one.metric == "hit_rate_at_10" else metrics.gains_at_k
        own, other = (value(found[name].ranks, 10) for name in (one.model, one.against))
        assert one.mean == pytest.approx((own - other).mean())
        assert one.ci == pytest.approx(paired_interval(own, other, users, 3))


def test_the_tracker_is_compared_with_all_and_its_variants_with_the_baselines() -> None:
    names = ("tracker", "tracker_served", "popularity", "ease")
    found = {name: answers(seed) for seed, name in enumerate(names)}
    users = RANDOM.integers(0, 40, TARGETS)
    compared = differences(found, users, 0)
    assert {(d.model, d.against) for d in compared} == {
        ("tracker", "tracker_served"), ("tracker_served", "tracker"),
        ("tracker", "popularity"), ("tracker", "ease"),
        ("tracker_served", "popularity"), ("tracker_served", "ease"),
    }  # fmt: skip
    for difference in compared:
        if difference.metric == "hit_rate_at_10":
            ours, theirs = found[difference.model].ranks, found[difference.against].ranks
            assert difference.mean == pytest.approx(
                metrics.hit_rate_at_k(ours, 10) - metrics.hit_rate_at_k(theirs, 10)
            )
            assert difference.ci is not None
            assert difference.ci[0] <= difference.mean <= difference.ci[1]
