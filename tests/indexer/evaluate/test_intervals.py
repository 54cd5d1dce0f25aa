"""Intervals: how often they hold the truth, and what they are of nothing."""

import math

import numpy as np
import pytest

from indexer.evaluate.intervals import (
    RESAMPLES,
    Interval,
    auc_interval,
    ece_interval,
    mean_interval,
    paired_interval,
    ratio_intervals,
)
from indexer.evaluate.metrics import auc, ece

NOTHING = np.zeros(0)
NO_FLAGS = np.zeros(0, np.bool_)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    covered = 0
    for seed in range(200):
        users = np.repeat(np.arange(60), 4)
        tastes = np.repeat(generator.normal(size=60), 4)  # targets of a user go together
        values = np.asarray(tastes + generator.normal(size=240), np.float64)
        low, high = mean_interval(values, users, seed, 300)
        covered += low <= 0.0 <= high
    assert 182 <= covered <= 197


def test_a_paired_interval_is_narrower_than_what_both_sides_share() -> None:
    generator = np.random.default_rng(4)
    users = np.arange(300)
    hard = generator.normal(size=300)
    ours, theirs = hard + 0.1, hard + generator.normal(scale=0.01, size=300)
    low, high = paired_interval(ours, theirs, users, 0)
    assert 0.09 < low < high < 0.11
    wide = mean_interval(ours, users, 0)
    assert wide.high - wide.low > 0.1


def test_an_interval_does_not_depend_on_how_many_resamples_are_held_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    users, values = np.arange(50) % 7, np.arange(50, dtype=np.float64)
    expected = mean_interval(values, users, 9)
    monkeypatch.setattr("indexer.evaluate.intervals._CHUNK_BYTES", 1)
    assert mean_interval(values, users, 9, RESAMPLES) == expected


def test_the_interval_of_an_auc_holds_it() -> None:
    generator = np.random.default_rng(6)
    values = generator.random(400)
    labels = generator.random(400) < values
    low, high = auc_interval(labels, values, np.arange(400) % 80, 0)
    assert 0.7 < low < auc(labels, values) < high < 0.95


def test_a_ratio_of_sums_has_an_interval_around_it() -> None:
    generator = np.random.default_rng(7)
    values, weights = generator.random(600), generator.integers(0, 3, 600).astype(np.float64)
    parts = np.stack([values, values * weights], axis=1)
    wholes = np.stack([np.ones(600), weights], axis=1)
    users = np.arange(600) % 90
    plain, weighed = ratio_intervals(parts, wholes, users, 0)
    np.testing.assert_allclose(plain, mean_interval(values, users, 0))
    assert weighed.low < np.average(values, weights=weights) < weighed.high


def test_resamples_without_anything_to_divide_by_are_left_out() -> None:
    (found,) = ratio_intervals(np.eye(3)[:, :1], np.eye(3)[:, :1], np.arange(3), 0)
    assert found == (1.0, 1.0)
    (never,) = ratio_intervals(np.zeros((3, 1)), np.zeros((3, 1)), np.arange(3), 0)
    assert all(math.isnan(side) for side in never)


def test_the_interval_of_a_calibration_error_holds_a_large_one() -> None:
    generator = np.random.default_rng(8)
    values = generator.random(3000)
    labels = generator.random(3000) < values / 2
    low, high = ece_interval(labels, values, np.arange(3000) % 400, 0)
    assert low < ece(labels, values) < high
    assert low > 0.2


def test_the_interval_of_an_auc_is_that_of_its_resamples() -> None:
    generator = np.random.default_rng(9)
    values = np.round(generator.random(120), 1)
    labels = generator.random(120) < values
    users = np.arange(120) % 30
    found = auc_interval(labels, values, users, 3, 50)
    random = np.random.default_rng(3)
    areas = []
    for _ in range(50):
        drawn = np.bincount(random.integers(0, 30, 30), minlength=30).astype(np.float64)
        areas.append(auc(labels, values, drawn[users]))
    np.testing.assert_allclose(found, np.quantile(areas, [0.025, 0.975]))


def test_nothing_and_one_class_and_one_user_have_no_interval() -> None:
    no_codes = np.zeros(0, np.int64)
    one = np.zeros(5, np.int64)
    found = [
        mean_interval(NOTHING, no_codes, 0),
        auc_interval(NO_FLAGS, NOTHING, no_codes, 0),
        ece_interval(NO_FLAGS, NOTHING, no_codes, 0),
        auc_interval(np.zeros(4, np.bool_), np.full(4, 0.2), np.arange(4), 0, 20),
        mean_interval(np.ones(5), one, 0),
    ]
    assert all(isinstance(interval, Interval) for interval in found)
    assert all(math.isnan(side) for interval in found for side in interval)
