"""The benchmark of whitening, on vectors whose nearest items are known."""

import numpy as np

from benchmarks.whitening import MEAN_ALONE, Target, hits_of, own_category, part_of, whitening_by
from indexer.items.whitening import EVEN_ITEMS, fit_whitening
from tracker.items.vectors import unit

RANDOM = np.random.default_rng(0)
ENCODINGS = (RANDOM.standard_normal((60, 8)) + 2.0).astype(np.float16)


def groups() -> np.ndarray:
    """Return 18 vectors of three groups at right angles; six of each group are near each other."""
    vectors = np.repeat(np.eye(3, 8, dtype=np.float32), 6, axis=0)
    return unit(vectors + 0.01 * RANDOM.standard_normal((18, 8)).astype(np.float32))


def test_the_share_of_the_own_category_counts_the_five_nearest() -> None:
    assert own_category(groups(), np.repeat(["a", "b", "c"], 6)) == 1.0
    assert own_category(groups(), np.tile(["a", "b", "c", "d", "e", "f"], 3)) == 0.0


def test_a_target_near_the_past_is_hit_and_items_not_to_rank_are_passed_over() -> None:
    near, far = Target(3, [0, 1], []), Target(9, [0, 1], [])
    vectors = np.concatenate([groups()] * 2)
    assert hits_of(vectors, [near, far]) == 1
    others = [row for row in range(36) if row != 9]
    assert hits_of(vectors, [Target(9, [0, 1], others)]) == 1


def test_a_part_keeps_the_targets_whose_item_and_past_it_has() -> None:
    rows = np.array([2, 5, 7])
    targets = [Target(5, [2, 3], [2, 7]), Target(5, [3], []), Target(1, [2], [])]
    assert part_of(targets, rows, 9) == [Target(1, [0], [0, 2])]


def test_the_rules_are_those_that_are_named() -> None:
    served = whitening_by(str(int(EVEN_ITEMS)), ENCODINGS)
    np.testing.assert_array_equal(served.matrix, fit_whitening(ENCODINGS).matrix)
    raw, mean = whitening_by("none", ENCODINGS), whitening_by("mean", ENCODINGS)
    assert not raw.mean.any()
    np.testing.assert_array_equal(mean.matrix, fit_whitening(ENCODINGS, MEAN_ALONE).matrix)
    cosines = raw.apply(ENCODINGS) @ raw.apply(ENCODINGS).T
    plain = unit(ENCODINGS.astype(np.float32))
    np.testing.assert_allclose(cosines, plain @ plain.T, atol=1e-3)
