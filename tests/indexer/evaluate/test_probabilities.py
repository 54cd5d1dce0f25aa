"""Probabilities of labelled events: measured as scikit-learn does, beside streaming means."""

import math
from pathlib import Path

import numpy as np
import pytest

from indexer.data.labels import label_events
from indexer.evaluate.probabilities import (
    ITEM_MEAN,
    USER_MEAN,
    LabelledAnswers,
    calibration_of,
    join_rows,
    mean_before,
    measure_probabilities,
    with_means,
)
from indexer.evaluate.result import Row
from tests.logs import group_events, read_events
from tracker.events.label_rule import LabelRule


def test_a_mean_is_of_what_came_before_and_drawn_towards_everybody() -> None:
    random = np.random.default_rng(0)
    groups, positive = random.integers(0, 9, 200), random.random(200) < 0.4
    found = mean_before(groups, positive)
    for n in (0, 1, 57, 199):
        everybody = (positive[:n].sum() + 1.0) / (n + 2.0)
        own = groups[:n] == groups[n]
        expected = (positive[:n][own].sum() + 5.0 * everybody) / (own.sum() + 5.0)
        assert found[n] == pytest.approx(expected)
    assert len(mean_before(groups[:0], positive[:0])) == 0


def test_means_of_items_and_users_stand_beside_what_was_said(tmp_path: Path) -> None:
    log = read_events(tmp_path, group_events(users=4))
    events = np.arange(0, len(log), 2)
    positive = events % 3 == 0
    asked = events[10:]
    said = np.linspace(0.1, 0.9, len(asked))
    said[4] = math.nan  # an item that is not in the catalogue
    found = with_means(log, events, positive, asked, {"tracker": said})
    assert list(found.models) == ["tracker", ITEM_MEAN, USER_MEAN]
    assert len(found) == len(asked) - 1
    assert asked[4] not in found.events
    expected = mean_before(log.users[events], positive)[10:]
    np.testing.assert_array_equal(found.models[USER_MEAN], np.delete(expected, 4))


def test_a_click_counts_for_its_impression_from_the_click_on_only(tmp_path: Path) -> None:
    log = read_events(
        tmp_path,
        [
            {"user_id": "u", "item_id": item, "kind": kind, "timestamp": 1.7e9 + n}
            for n, (kind, item) in enumerate(
                [("impression", "a"), ("impression", "b"), ("click", "a"), ("impression", "c")]
            )
        ],
    )
    labelled = label_events(log, LabelRule("impressions"))
    assert labelled.events.tolist() == [0, 1, 3]
    assert labelled.positive.tolist() == [True, False, False]
    assert labelled.origins.tolist() == [2, 1, 3]
    said = {"tracker": np.full(3, 0.5)}
    found = with_means(
        log, labelled.events, labelled.positive, labelled.events, said, labelled.origins
    )
    everybody = np.array([1 / 2, 1 / 3, 2 / 4])
    counts, likes = np.arange(3), np.array([0, 0, 1])
    expected = (likes + 5.0 * everybody) / (counts + 5.0)
    assert found.models[USER_MEAN] == pytest.approx(expected)


@pytest.mark.xdist_group("slow to load")  # in one process only
def test_a_row_agrees_with_scikit_learn_and_has_intervals_around_its_metrics() -> None:
    from sklearn import metrics as sklearn_metrics

    random = np.random.default_rng(1)
    users = random.integers(0, 60, 900)
    said = random.random(900)
    positive = random.random(900) < 0.2 + 0.6 * said
    answers = LabelledAnswers(np.arange(900), positive, {"tracker": said})
    (row,) = measure_probabilities("all", answers, users, 0)
    chosen = said >= 0.5
    expected = {
        "auc": sklearn_metrics.roc_auc_score(positive, said),
        "user_auc": np.mean(
            [
                sklearn_metrics.roc_auc_score(positive[users == u], said[users == u])
                for u in np.unique(users)
                if 0 < positive[users == u].mean() < 1
            ]
        ),
        "accuracy": sklearn_metrics.accuracy_score(positive, chosen),
        "precision": sklearn_metrics.precision_score(positive, chosen),
        "recall": sklearn_metrics.recall_score(positive, chosen),
        "f1": sklearn_metrics.f1_score(positive, chosen),
        "log_loss": sklearn_metrics.log_loss(positive, said),
    }
    assert (row.n, row.labelled) == (0, 900)
    for metric, value in expected.items():
        assert getattr(row, metric) == pytest.approx(value), metric
        low, high = row.ci[metric]
        assert low < value < high, metric
    assert row.ece is not None
    assert row.ece_noise_floor is not None
    assert row.ece > row.ece_noise_floor
    assert sum(found.size for found in calibration_of(positive, said)) == 900


def test_one_class_leaves_undefined_what_needs_both() -> None:
    answers = LabelledAnswers(np.arange(6), np.zeros(6, np.bool_), {"tracker": np.full(6, 0.2)})
    (row,) = measure_probabilities("all", answers, np.arange(6), 0)
    assert (row.auc, row.user_auc, row.precision, row.recall) == (None, None, None, None)
    assert row.accuracy == 1.0
    assert not {"auc", "user_auc", "precision"} & set(row.ci)


def test_rows_of_both_kinds_become_one_a_model_and_slice() -> None:
    ranked = [Row("tracker", "all", 5, mrr=0.5, ci={"mrr": (0.4, 0.6)}), Row("ease", "all", 5)]
    labelled = [
        Row("tracker", "all", 0, labelled=9, auc=0.7, ci={"auc": (0.6, 0.8)}),
        Row("item_mean", "all", 0, labelled=9, auc=0.6),
    ]
    one, ease, mean = join_rows(ranked, labelled)
    assert (one.n, one.labelled, one.mrr, one.auc) == (5, 9, 0.5, 0.7)
    assert one.ci == {"mrr": (0.4, 0.6), "auc": (0.6, 0.8)}
    assert (ease.model, ease.auc) == ("ease", None)
    assert (mean.model, mean.auc) == ("item_mean", 0.6)
