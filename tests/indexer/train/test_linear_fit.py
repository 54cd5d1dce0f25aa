"""Weights of a linear score: found where they are known, and with nothing to find."""

import numpy as np
import pytest

from indexer.train.linear_fit import fit_linear

TRUE = np.array([2.0, -1.0, 0.0])


def candidates(targets: int = 4000, places: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Candidates of which the first is drawn by a softmax of the true weights."""
    random = np.random.default_rng(0)
    values = random.normal(size=(targets, places, len(TRUE))).astype(np.float32)
    scores = values @ TRUE + random.gumbel(size=(targets, places))
    best = scores.argmax(axis=1)
    lines = np.arange(targets)
    values[lines, 0], values[lines, best] = values[lines, best], values[lines, 0].copy()
    return values, np.zeros((targets, places), np.float32)


def test_weights_that_made_the_choices_are_found() -> None:
    values, offsets = candidates()
    found = fit_linear(lambda part: (values[part], offsets[part]), len(values), np.zeros(3))
    assert found == pytest.approx(TRUE, abs=0.1)


def test_empty_places_say_nothing() -> None:
    values, offsets = candidates()
    more = np.concatenate([values, np.full_like(values, 9.0)], axis=1)
    none = np.concatenate([offsets, np.full_like(offsets, -np.inf)], axis=1)
    without = fit_linear(lambda part: (values[part], offsets[part]), len(values), np.zeros(3))
    found = fit_linear(lambda part: (more[part], none[part]), len(values), np.zeros(3))
    assert found == pytest.approx(without, abs=1e-5)


def test_a_distribution_can_be_wanted_instead_of_one_candidate() -> None:
    values, offsets = candidates(1000)
    scores = values @ TRUE
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    found = fit_linear(
        lambda part: (values[part], offsets[part]), len(values), np.zeros(3), shares=shares
    )
    assert found == pytest.approx(TRUE, abs=1e-3)


def test_columns_that_tell_all_or_nothing_end_in_finite_weights() -> None:
    values = np.zeros((300, 5, 3), np.float32)
    values[:, 0, 0] = 1.0  # tells all; the second equals it, the third says nothing
    values[:, :, 1] = values[:, :, 0]
    offsets = np.zeros((300, 5), np.float32)
    found = fit_linear(
        lambda part: (values[part], offsets[part]), len(values), np.zeros(3), penalty=1e-4
    )
    assert np.isfinite(found).all()
    assert found[0] == pytest.approx(found[1])
    assert found[0] > 1.0
    assert found[2] == pytest.approx(0.0)
