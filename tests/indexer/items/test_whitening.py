"""Whitening of catalogues of any size."""

import msgspec
import numpy as np
import pytest

from indexer.items.whitening import basis_of, fit_whitening
from tracker.artifact.manifest import EncoderInfo
from tracker.users.config import InterestConfig


def clustered(count: int, width: int = 24, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    scales = np.geomspace(3.0, 0.05, width)
    return (2.0 + random.standard_normal((count, width)) * scales).astype(np.float16)


def test_whitened_vectors_spread_evenly_over_all_directions() -> None:
    encodings = clustered(5000)
    full = fit_whitening(encodings).apply(encodings)
    np.testing.assert_allclose(np.linalg.norm(full, axis=1), 1.0, rtol=1e-5)
    variances = np.linalg.eigvalsh(np.cov(full.T))
    assert variances.max() / variances.min() < 2.5
    assert np.abs(full.mean(0)).max() < 0.05


@pytest.mark.parametrize("count", [1, 2, 10, 23, 300])
def test_a_tiny_catalogue_has_finite_and_distinct_vectors(count: int) -> None:
    encodings = clustered(count)
    full = fit_whitening(encodings).apply(encodings)
    assert np.isfinite(full).all()
    np.testing.assert_allclose(np.linalg.norm(full, axis=1), 1.0, rtol=1e-5)
    scores = full @ full.T - 2 * np.eye(count)
    assert scores.max() < 0.999
    new = fit_whitening(encodings).apply(clustered(5, seed=9))
    assert np.isfinite(new).all()


def test_items_with_the_same_text_and_no_text_at_all_are_whitened_too() -> None:
    same = np.ones((4, 8), np.float16)
    assert np.isfinite(fit_whitening(same).apply(same)).all()
    nothing = np.zeros((2, 8), np.float16)
    assert np.isfinite(fit_whitening(nothing).apply(nothing)).all()


def test_the_same_encodings_give_the_same_whitening_and_basis() -> None:
    one, two = fit_whitening(clustered(100)), fit_whitening(clustered(100))
    np.testing.assert_array_equal(one.matrix, two.matrix)
    encoder, interest = EncoderInfo("words", "x", 24, 64), InterestConfig()
    assert basis_of(one, encoder, interest) == basis_of(two, encoder, interest)


def test_the_basis_names_whitening_encoder_and_layout() -> None:
    whitening, encoder = fit_whitening(clustered(100)), EncoderInfo("words", "x", 24, 64)
    interest = InterestConfig()
    names = {
        basis_of(whitening, encoder, interest),
        basis_of(fit_whitening(clustered(101)), encoder, interest),
        basis_of(whitening, msgspec.structs.replace(encoder, fingerprint="y"), interest),
        basis_of(whitening, encoder, InterestConfig(slots=4)),
    }
    assert len(names) == 4
    assert basis_of(whitening, msgspec.structs.replace(encoder, name="other"), interest) in names
