"""Items by row, and the table from id hash to row."""

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker.events.wire import hash_id
from tracker.items.vectors import (
    ItemVectors,
    hash_table,
    leading,
    lookup_rows,
    nearest_rows,
    row_of_hash,
    unit,
)

RANDOM = np.random.default_rng(7)


def some_unit(count: int, width: int) -> np.ndarray:
    return unit(RANDOM.standard_normal((count, width)).astype(np.float32))


def test_an_id_finds_its_row_and_an_unknown_one_none() -> None:
    ids = [f"item {n}" for n in range(1000)]
    vectors = ItemVectors.make(ids, some_unit(1000, 8), 4)
    asked = np.array([hash_id(item_id) for item_id in [*ids, "unknown"]] + [0], np.uint64)
    np.testing.assert_array_equal(vectors.row_of(asked), [*range(1000), -1, -1])
    assert vectors.row_of_id("item 17") == 17
    assert vectors.row_of_id("item 1000") == -1
    assert (len(vectors), vectors.dim, vectors.full_dim, vectors.live) == (1000, 4, 8, 1000)


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(1, 2**64 - 1), max_size=60))
def test_the_table_finds_what_was_put_in_also_where_places_collide(values: set[int]) -> None:
    crowded = {value & 0xFF00000000000003 or 1 for value in values}  # few distinct places
    hashes = np.array(sorted(crowded), np.uint64)
    table = hash_table(hashes)
    for kernel in (lookup_rows, cast(Any, lookup_rows).py_func):
        np.testing.assert_array_equal(kernel(*table, hashes), np.arange(len(hashes)))
    for absent in (0, 5 << 8):
        with np.errstate(over="ignore"):
            assert cast(Any, row_of_hash).py_func(*table, np.uint64(absent)) == -1


def test_an_id_that_comes_twice_is_refused_with_both_rows() -> None:
    with pytest.raises(ValueError, match="rows 1 and 3 have the same id hash"):
        ItemVectors.make(["a", "b", "c", "b"], some_unit(4, 4), 2)


def test_vectors_are_of_unit_length_and_one_without_length_is_the_first_axis() -> None:
    vectors = unit(np.array([[3.0, 4.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(vectors, [[0.6, 0.8], [1.0, 0.0]])
    full = some_unit(50, 16)
    np.testing.assert_allclose(np.linalg.norm(leading(full, 5), axis=1), 1.0, rtol=1e-6)


@pytest.mark.parametrize(("items", "live"), [(1, 1), (5, 5), (40, 25), (1100, 1100)])
def test_similar_items_are_the_nearest_live_ones_without_the_item_itself(
    items: int, live: int
) -> None:
    full = some_unit(items, 12)
    found = nearest_rows(full, live)
    scores = full @ full[:live].T
    for row in range(0, items, 7):
        order = [other for other in np.argsort(-scores[row], kind="stable") if other != row]
        expected = (order + [-1] * 16)[:16]
        np.testing.assert_array_equal(found[row], expected)


def test_labels_are_kept_once() -> None:
    vectors = ItemVectors.make(["a", "b", "c"], some_unit(3, 4), 2, labels=["x", "y", "x"])
    assert vectors.labels == ["x", "y"]
    assert [vectors.label(row) for row in range(3)] == ["x", "y", "x"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ids": ["a"]}, r"shape \(3, 4\); \(1, F\) expected"),
        ({"dim": 5}, "dim is 5; 1 to the full width 4"),
        ({"live": 0}, "live is 0; 1 to 3"),
        ({"vectors": np.zeros((3, 3), np.float32)}, r"\(3, 3\); \(3, 2\) expected"),
        ({"similar": np.zeros((3, 3), np.int32)}, r"\(3, 3\); \(3, 16\) expected"),
        ({"labels": ["x"]}, "1 labels for 3 items"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changed: dict[str, Any], message: str) -> None:
    parts: dict[str, Any] = {"ids": ["a", "b", "c"], "full": some_unit(3, 4), "dim": 2} | changed
    with pytest.raises(ValueError, match=message):
        ItemVectors.make(**parts)
