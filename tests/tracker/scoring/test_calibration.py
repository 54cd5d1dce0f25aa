"""Calibration: monotone, within (0, 1), follows the stream in bounded steps, goes back exactly."""

import numpy as np
import pytest

from tracker.scoring.calibration import MOST_SCALE, MOST_SHIFT, STEP, Calibration

LOGITS = np.linspace(-30.0, 30.0, 601, dtype=np.float32)


def test_a_higher_logit_is_a_higher_probability_between_zero_and_one() -> None:
    found = Calibration.published(0.7, -0.2).probability(LOGITS)
    assert found.dtype == np.float32
    assert (np.diff(found) >= 0.0).all()
    assert (np.diff(found[250:350]) > 0.0).all()
    assert 0.0 < found[0] < found[-1] < 1.0
    assert np.isnan(Calibration.published(1.0, 0.0).probability(np.array([np.nan], np.float32)))[0]


def test_it_is_the_logistic_function_of_scale_and_shift() -> None:
    found = Calibration.published(2.0, -1.0).probability(np.array([0.5, 1.0], np.float32))
    np.testing.assert_allclose(found, [0.5, 1.0 / (1.0 + np.exp(-1.0))], rtol=1e-6)


def test_it_follows_a_stream_that_is_more_often_positive_than_was_said() -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=20_000).astype(np.float32)
    labels = random.random(len(logits)) < 1.0 / (1.0 + np.exp(-(0.6 * logits + 0.8)))
    found = Calibration.published(1.0, 0.0).learn(logits, labels)
    assert (found.scale, found.shift) == pytest.approx((0.6, 0.8), abs=0.15)
    assert found.reset() == Calibration.published(1.0, 0.0)


def test_an_event_moves_it_by_a_small_step_and_all_of_them_not_without_end() -> None:
    start = Calibration.published(1.0, 0.0)
    one = start.learn(np.array([3.0], np.float32), np.array([False]))
    assert 0.0 < start.shift - one.shift <= STEP
    assert 0.0 < start.scale - one.scale <= 4.0 * STEP
    for label in (True, False):
        far = start.learn(np.full(20_000, 9.0, np.float32), np.full(20_000, label))
        assert abs(far.shift) <= MOST_SHIFT
        assert 1.0 / MOST_SCALE <= far.scale <= MOST_SCALE


def test_learning_at_once_or_event_by_event_is_the_same_and_nan_is_passed_over() -> None:
    logits = np.array([0.5, np.nan, -2.0, 1.0], np.float32)
    labels = np.array([True, True, False, False])
    start = at_once = Calibration.published(1.2, 0.1)
    at_once = start.learn(logits, labels)
    for logit, label in zip(logits[[0, 2, 3]], labels[[0, 2, 3]], strict=True):
        start = start.learn(np.array([logit]), np.array([label]))
    assert start == at_once


def test_bytes_give_it_back_exactly() -> None:
    learned = Calibration.published(1.2, 0.1).learn(LOGITS, LOGITS > 1.0)
    assert Calibration.from_bytes(learned.to_bytes()) == learned


def test_what_is_no_calibration_is_refused() -> None:
    with pytest.raises(ValueError, match="of 5 bytes; 32 are expected"):
        Calibration.from_bytes(b"12345")
    with pytest.raises(ValueError, match=r"scale -1\.0 and shift 0\.0"):
        Calibration.published(-1.0, 0.0)
    with pytest.raises(ValueError, match=r"scale 1\.0 and shift nan"):
        Calibration.from_bytes(Calibration(1.0, float("nan"), 1.0, 0.0).to_bytes())
