"""Indexes of every kind, tuned to a recall and measured."""

import numpy as np
import pytest

from indexer.items.index import (
    FASTSCAN_ITEMS,
    FLAT_ITEMS,
    build_index,
    choose_kind,
    queries_like,
    recall_at_10,
    searched_rows,
    similar_rows,
)
from tracker.items.index import ItemIndex
from tracker.items.vectors import nearest_rows, unit

RANDOM = np.random.default_rng(11)
VECTORS = unit(RANDOM.standard_normal((3000, 16)).astype(np.float32))


def test_the_kind_is_chosen_by_size() -> None:
    assert choose_kind(FLAT_ITEMS, 64) == "flat"
    assert choose_kind(FLAT_ITEMS + 1, 64) == "pq_fastscan"
    assert choose_kind(FASTSCAN_ITEMS + 1, 64) == "ivf_pq_fastscan"
    assert choose_kind(FASTSCAN_ITEMS + 1, 63) == "flat"


@pytest.mark.parametrize("items", [1, 3, 300])
def test_a_small_catalogue_is_searched_exactly(items: int) -> None:
    index, info = build_index(VECTORS[:items], 0.95)
    assert (info.kind, info.recall_at_10, info.parameters) == ("flat", 1.0, {})
    assert info.microseconds > 0
    assert index.size == items


@pytest.mark.parametrize("kind", ["pq_fastscan", "ivf_pq_fastscan"])
def test_an_approximate_index_is_tuned_to_the_recall_asked_for(kind: str) -> None:
    index, info = build_index(VECTORS, 0.95, kind)  # type: ignore[arg-type]
    assert info.kind == kind
    assert info.recall_at_10 >= 0.95
    assert info.queries == 1000
    exact = ItemIndex.flat(VECTORS)
    other = queries_like(VECTORS, 500, np.random.default_rng(99))
    assert recall_at_10(index, other, exact, VECTORS) >= 0.94
    again, same = build_index(VECTORS, 0.95, kind)  # type: ignore[arg-type]
    assert same.parameters == info.parameters
    np.testing.assert_array_equal(again.search(other, 10)[0], index.search(other, 10)[0])


def test_more_effort_than_usual_is_spent_where_codes_tell_little_apart() -> None:
    random = np.random.default_rng(5)
    centres = random.normal(size=(20, 16))
    vectors = centres[random.integers(0, 20, 4000)] + 0.1 * random.normal(size=(4000, 16))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    _, usual = build_index(vectors, 0.95, "pq_fastscan")
    _, more = build_index(vectors, 0.997, "pq_fastscan")
    assert usual.parameters["ranked_times_k"] <= 4
    assert more.parameters["ranked_times_k"] > 4
    assert more.recall_at_10 >= 0.997


def test_less_effort_is_spent_on_a_lower_recall() -> None:
    _, low = build_index(VECTORS, 0.3, "ivf_pq_fastscan")
    _, high = build_index(VECTORS, 0.99, "ivf_pq_fastscan")
    assert low.parameters["probes"] < high.parameters["probes"]
    assert low.recall_at_10 < high.recall_at_10


def test_items_with_the_same_vector_are_as_good_as_each_other() -> None:
    same = np.repeat(VECTORS[:2], 600, axis=0)
    index, info = build_index(same, 0.95, "pq_fastscan")
    assert info.recall_at_10 == 1.0
    assert index.size == 1200


def test_missing_rows_are_missed() -> None:
    few = ItemIndex.flat(VECTORS[:5])
    recall = recall_at_10(few, VECTORS[:50], ItemIndex.flat(VECTORS), VECTORS)
    assert recall < 0.1


def test_a_kind_that_cannot_be_built_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="needs 1320 items, 1100 found"):
        build_index(VECTORS[:1100], 0.9, "ivf_pq_fastscan")
    with pytest.raises(ValueError, match="needs 1000 items, 10 found; flat takes any number"):
        build_index(VECTORS[:10], 0.9, "pq_fastscan")
    with pytest.raises(ValueError, match="needs an even dim, 15 found"):
        build_index(unit(VECTORS[:, :15]), 0.9, "pq_fastscan")


def test_wide_vectors_get_codes_that_fit() -> None:
    wide = unit(RANDOM.standard_normal((1200, 320)).astype(np.float32))
    _, info = build_index(wide, 0.5, "pq_fastscan")
    assert info.recall_at_10 >= 0.5


def test_similar_items_of_a_large_catalogue_are_nearly_the_exact_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    full = unit(RANDOM.standard_normal((3000, 24)).astype(np.float32))
    vectors = unit(np.ascontiguousarray(full[:, :16]))
    live = 2800
    index, _ = build_index(vectors[:live], 0.95, "pq_fastscan")
    exact = similar_rows(full, searched_rows(vectors, index), index.size)
    np.testing.assert_array_equal(exact, nearest_rows(full, live))
    monkeypatch.setattr("indexer.items.index.EXACT_SIMILAR_ITEMS", 100)
    found = similar_rows(full, searched_rows(vectors, index), index.size)
    assert found.shape == (3000, 16)
    assert (found < live).all()
    assert (found != np.arange(3000)[:, None]).all()
    shared = np.mean([len(set(a) & set(b)) / 16 for a, b in zip(found, exact, strict=True)])
    assert shared > 0.5  # candidates come from 16 of 24 random dims here
