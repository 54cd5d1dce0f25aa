"""Metrics by hand, against scikit-learn, and their empty cases."""

import math

import numpy as np
import pytest

from indexer.evaluate.metrics import (
    auc,
    aucs_of_users,
    calibration_bins,
    coverage_at_k,
    debiased_hit_rate_at_k,
    diversity_at_k,
    ece,
    ece_noise_floor,
    hit_rate_at_k,
    hits_at_k,
    label_metrics,
    log_loss,
    mrr,
    ndcg_at_k,
    novelty_at_k,
    rank_of,
    recall_at_k,
    user_auc,
)

theirs = pytest.mark.xdist_group("slow to load")  # in one process only

INF = math.inf
NOTHING = np.zeros(0)
NO_FLAGS = np.zeros(0, np.bool_)
NO_ROWS = np.zeros((0, 10), np.int64)


def scores(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array(values, np.float32)


def test_rank_counts_what_is_better_and_half_of_what_ties() -> None:
    assert rank_of(scores(5, 4, 3), 0) == 1.0
    assert rank_of(scores(5, 4, 3), 2) == 3.0
    assert rank_of(scores(5, 4, 4, 4), 2) == 3.0
    assert rank_of(scores(0, 0, 0, 0, 0), 1) == 3.0


def test_masked_items_take_no_place_and_a_masked_target_has_rank_infinity() -> None:
    assert rank_of(scores(5, 4, 3), 2, np.array([0, 0])) == 2.0
    assert rank_of(scores(4, 4, 4), 2, np.array([0])) == 1.5
    assert rank_of(scores(5, 4, 3), 2, np.array([2])) == INF


def test_a_target_outside_what_is_ranked_has_rank_infinity() -> None:
    assert rank_of(scores(5, 4), -1) == INF
    assert rank_of(scores(5, -INF), 1) == INF
    assert rank_of(scores(-INF, 4), 1) == 1.0


def test_a_score_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="score at 1 is NaN"):
        rank_of(scores(5, math.nan), 1)


def test_ranking_metrics_by_hand() -> None:
    ranks = np.array([1.0, 3.0, 10.0, 10.5, INF])
    assert hit_rate_at_k(ranks, 10) == pytest.approx(3 / 5)
    assert recall_at_k(ranks, 10) == pytest.approx(3 / 5)
    assert ndcg_at_k(ranks, 10) == pytest.approx((1 + 0.5 + 1 / math.log2(11)) / 5)
    assert mrr(ranks) == pytest.approx((1 + 1 / 3 + 0.1 + 1 / 10.5) / 5)


@theirs
def test_ranking_metrics_agree_with_scikit_learn() -> None:
    from sklearn import metrics as sklearn_metrics

    generator = np.random.default_rng(5)
    table = generator.permuted(np.tile(np.arange(50, dtype=np.float32), (200, 1)), axis=1)
    targets = generator.integers(0, 50, 200)
    relevant = np.eye(50)[targets]
    ranks = np.array([rank_of(row, int(t)) for row, t in zip(table, targets, strict=True)])
    assert ndcg_at_k(ranks, 10) == pytest.approx(
        sklearn_metrics.ndcg_score(relevant, table, k=10, ignore_ties=True)
    )
    assert hit_rate_at_k(ranks, 10) == pytest.approx(
        sklearn_metrics.top_k_accuracy_score(targets, table, k=10, labels=np.arange(50))
    )
    assert mrr(ranks) == pytest.approx(
        sklearn_metrics.label_ranking_average_precision_score(relevant, table)
    )


def test_debiased_hit_rate_weighs_each_target_item_the_same() -> None:
    ranks = np.array([1.0, 1.0, 1.0, INF])
    items = np.array([7, 7, 7, 9])
    assert hit_rate_at_k(ranks, 10) == 0.75
    assert debiased_hit_rate_at_k(ranks, items, 10) == pytest.approx(0.5)


def test_lists_are_measured_without_their_padding() -> None:
    lists = np.array([[0, 1, -1], [0, 2, -1]])
    assert coverage_at_k(lists, 4) == 0.75
    counts = np.array([5.0, 1.0, 0.0, 0.0])  # + 1 each, of 10
    expected = -(2 * math.log2(0.6) + math.log2(0.2) + math.log2(0.1)) / 4
    assert novelty_at_k(lists, counts) == pytest.approx(expected)


def test_diversity_is_the_mean_distance_of_pairs() -> None:
    vectors = np.array([[1, 0], [0, 1], [-1, 0], [1, 0]], np.float32)
    assert diversity_at_k(np.array([[0, 1, 2]]), vectors) == pytest.approx((1 + 2 + 1) / 3)
    assert diversity_at_k(np.array([[0, 3, -1], [0, -1, -1]]), vectors) == pytest.approx(0.0)


@theirs
def test_auc_log_loss_and_labels_agree_with_scikit_learn() -> None:
    from sklearn import metrics as sklearn_metrics

    generator = np.random.default_rng(1)
    probabilities = np.round(generator.random(500), 1)  # many ties, and 0 and 1 themselves
    labels = generator.random(500) < probabilities * 0.7 + 0.1
    weights = generator.integers(0, 4, 500).astype(np.float64)
    assert auc(labels, probabilities) == pytest.approx(
        sklearn_metrics.roc_auc_score(labels, probabilities)
    )
    assert auc(labels, probabilities, weights) == pytest.approx(
        sklearn_metrics.roc_auc_score(labels, probabilities, sample_weight=weights)
    )
    kept = np.clip(probabilities, 1e-15, 1 - 1e-15)
    assert log_loss(labels, probabilities) == pytest.approx(
        sklearn_metrics.log_loss(labels, kept), rel=1e-9
    )
    found = label_metrics(labels, probabilities)
    said = probabilities >= 0.5
    assert found.accuracy == pytest.approx(sklearn_metrics.accuracy_score(labels, said))
    assert found.precision == pytest.approx(sklearn_metrics.precision_score(labels, said))
    assert found.recall == pytest.approx(sklearn_metrics.recall_score(labels, said))
    assert found.f1 == pytest.approx(sklearn_metrics.f1_score(labels, said))


def test_user_auc_is_over_users_with_both_classes() -> None:
    users = np.array([1, 2, 1, 2, 3])
    labels = np.array([True, True, False, False, True])
    values = np.array([0.9, 0.2, 0.1, 0.8, 0.5])
    who, areas = aucs_of_users(labels, values, users)
    assert (who.tolist(), areas.tolist()) == ([1, 2], [1.0, 0.0])
    assert user_auc(labels, values, users) == 0.5


def test_calibration_bins_have_equal_mass_and_their_error_is_weighed() -> None:
    probabilities = np.array([0.1, 0.1, 0.9, 0.9])
    labels = np.array([False, True, True, True])
    bins = calibration_bins(labels, probabilities, 2)
    np.testing.assert_allclose(bins, [(2, 0.1, 0.5), (2, 0.9, 1.0)])
    assert ece(labels, probabilities, 2) == pytest.approx((0.4 + 0.1) / 2)
    assert len(calibration_bins(labels, probabilities, 10)) == 4


def test_calibrated_probabilities_show_an_error_at_their_noise_floor() -> None:
    generator = np.random.default_rng(2)
    probabilities = generator.random(4000)
    errors = [ece(generator.random(4000) < probabilities, probabilities) for _ in range(200)]
    assert np.mean(errors) == pytest.approx(ece_noise_floor(probabilities), rel=0.05)


def test_every_metric_of_nothing_is_nan() -> None:
    no_codes = np.zeros(0, np.int64)
    vectors = np.eye(3, dtype=np.float32)
    found = [
        hit_rate_at_k(NOTHING, 10),
        ndcg_at_k(NOTHING, 10),
        mrr(NOTHING),
        debiased_hit_rate_at_k(NOTHING, no_codes, 10),
        coverage_at_k(NO_ROWS, 3),
        coverage_at_k(np.zeros((1, 1), np.int64), 0),
        novelty_at_k(NO_ROWS, np.ones(3)),
        diversity_at_k(NO_ROWS, vectors),
        diversity_at_k(np.array([[0, -1]]), vectors),
        auc(NO_FLAGS, NOTHING),
        user_auc(NO_FLAGS, NOTHING, no_codes),
        log_loss(NO_FLAGS, NOTHING),
        ece(NO_FLAGS, NOTHING),
        ece_noise_floor(NOTHING),
        *label_metrics(NO_FLAGS, NOTHING),
    ]
    assert all(math.isnan(value) for value in found)
    assert hits_at_k(NOTHING, 10).tolist() == []


def test_one_class_has_no_auc_and_labels_without_positives_have_no_precision() -> None:
    labels, values = np.zeros(4, np.bool_), np.full(4, 0.2)
    assert math.isnan(auc(labels, values))
    assert math.isnan(user_auc(labels, values, np.zeros(4, np.int64)))
    accuracy, precision, recall, f1 = label_metrics(labels, values)
    assert accuracy == 1.0
    assert all(math.isnan(value) for value in (precision, recall, f1))
