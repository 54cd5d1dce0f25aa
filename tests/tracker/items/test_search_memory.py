"""The memory of searches: a query finds what it would find without it, in every batch."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from indexer.items.index import IndexChoice, build_index
from tracker.items import search_memory
from tracker.items.index import ItemIndex, Scores
from tracker.items.search_memory import MAX_BYTES, SearchMemory
from tracker.items.vectors import Rows, Vectors, unit

RANDOM = np.random.default_rng(3)
VECTORS = unit(RANDOM.standard_normal((2500, 16)).astype(np.float32))
QUERIES = unit(RANDOM.standard_normal((200, 16)).astype(np.float32))
FEW = 2000
"""Bytes for 44 queries of 7 rows."""
KINDS: tuple[IndexChoice, ...] = ("flat", "pq_fastscan", "ivf_pq_fastscan")
BUILT = {kind: build_index(VECTORS, 0.9, kind)[0] for kind in KINDS}


class CountingIndex(ItemIndex):
    """Counts the queries that are searched for, in a memory of a few."""

    def __init__(self, index: ItemIndex, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(index._cpu)
        self._memory = SearchMemory(max_bytes)
        self.queries = 0

    def search(self, queries: Vectors, k: int, threads: int = 1) -> tuple[Rows, Scores]:
        self.queries += len(queries)
        return super().search(queries, k, threads)


def alone(index: ItemIndex, queries: Vectors, k: int) -> Rows:
    """Return what each query finds by a search of its own."""
    return np.concatenate([index.search(queries[i : i + 1], k)[0] for i in range(len(queries))])


@pytest.mark.parametrize("kind", KINDS)
@given(
    batches=st.lists(
        st.tuples(st.lists(st.integers(0, 199), max_size=60), st.sampled_from([7, 7, 7, 3])),
        max_size=12,
    ),
    max_bytes=st.sampled_from([1, FEW, MAX_BYTES]),
)
@settings(max_examples=30, deadline=None)
def test_rows_are_those_of_a_search_whatever_was_searched_for_before(
    kind: IndexChoice, batches: list[tuple[list[int], int]], max_bytes: int
) -> None:
    index = CountingIndex(BUILT[kind], max_bytes)
    expected = {k: BUILT[kind].search(QUERIES, k)[0] for k in (7, 3)}
    for places, k in batches:
        rows = index.remembered_rows(QUERIES[places], k)
        np.testing.assert_array_equal(rows, expected[k][places])
        assert rows.shape == (len(places), k)
        assert rows.dtype == np.int64


def test_a_query_is_searched_for_once() -> None:
    index = CountingIndex(BUILT["flat"])
    for _ in range(3):
        index.remembered_rows(QUERIES[:50], 7)
        assert index.queries == 50
    index.remembered_rows(QUERIES[40:60], 7)
    assert index.queries == 60


def test_a_query_that_differs_in_its_last_bit_is_another_one() -> None:
    index = CountingIndex(BUILT["flat"])
    index.remembered_rows(QUERIES[:1], 7)
    for component in range(16):
        other = QUERIES[:1].copy()
        other[0, component] = np.nextafter(other[0, component], np.float32(2.0))
        index.remembered_rows(other, 7)
        assert index.queries == component + 2


def test_both_halves_of_a_key_tell_queries_apart() -> None:
    keys, _, _ = SearchMemory().find(QUERIES, 7)
    assert [len(np.unique(half)) for half in keys.T] == [200, 200]
    assert keys.all()


def test_rows_of_another_length_are_searched_for_each_time() -> None:
    index = CountingIndex(BUILT["flat"])
    index.remembered_rows(QUERIES[:5], 7)
    for count in (10, 15):
        index.remembered_rows(QUERIES[:5], 8)
        assert index.queries == count
    index.remembered_rows(QUERIES[:5], 7)
    assert index.queries == 15


def test_a_full_set_drops_its_oldest_query() -> None:
    index = CountingIndex(BUILT["flat"], max_bytes=1)  # one set of four
    index.remembered_rows(QUERIES[:4], 7)
    index.remembered_rows(QUERIES[4:5], 7)
    index.remembered_rows(QUERIES[1:5], 7)
    assert index.queries == 5
    index.remembered_rows(QUERIES[:1], 7)
    assert index.queries == 6


def test_two_equal_queries_of_a_batch_take_one_place() -> None:
    index = CountingIndex(BUILT["flat"], max_bytes=1)
    index.remembered_rows(QUERIES[[0, 1, 1, 1]], 7)
    index.remembered_rows(QUERIES[2:4], 7)
    asked = index.queries
    index.remembered_rows(QUERIES[:4], 7)
    assert index.queries == asked


@pytest.mark.parametrize("k", [1, 40, 400, 2048])
def test_a_memory_keeps_within_its_bytes_and_uses_them(k: int) -> None:
    memory = SearchMemory()
    memory.find(QUERIES[:1], k)
    assert memory._table is not None
    used = sum(array.nbytes for array in memory._table)
    assert 0.95 * MAX_BYTES < used <= MAX_BYTES


def test_many_threads_find_what_a_search_finds() -> None:
    index = CountingIndex(BUILT["pq_fastscan"], FEW)
    expected, _ = BUILT["pq_fastscan"].search(QUERIES, 7)

    def find(seed: int) -> bool:
        places = np.random.default_rng(seed).integers(0, 60, 40)
        return np.array_equal(index.remembered_rows(QUERIES[places], 7), expected[places])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(find, range(200)))


@pytest.mark.parametrize("kind", ["flat", "ivf_pq_fastscan"])
def test_rows_do_not_depend_on_the_size_of_the_batch(kind: IndexChoice) -> None:
    # Many items are all but equally good, so a sum that is rounded otherwise changes their order.
    queries = unit(RANDOM.standard_normal((9000, 16)).astype(np.float32))
    near = (VECTORS[0] + 1e-7 * RANDOM.standard_normal((2500, 16))).astype(np.float32)
    index = BUILT[kind] if kind != "flat" else ItemIndex.flat(near)
    few = np.arange(0, 9000, 90)
    rows = CountingIndex(index).remembered_rows(queries, 7)
    np.testing.assert_array_equal(rows[few], alone(index, queries[few], 7))


def test_on_a_gpu_nothing_is_remembered() -> None:
    index = CountingIndex(BUILT["flat"])
    index._gpu = BUILT["flat"]._cpu  # searches as one does, in place of one
    for count in (40, 80):
        rows = index.remembered_rows(QUERIES[:40], 7)
        np.testing.assert_array_equal(rows, BUILT["flat"].search(QUERIES[:40], 7)[0])
        assert index.queries == count


@pytest.mark.parametrize(
    ("queries", "k"),
    [(QUERIES[:, :8], 7), (QUERIES[0], 7), (QUERIES, 0)],
)
def test_a_wrong_call_is_refused_as_by_a_search(queries: Vectors, k: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        BUILT["flat"].remembered_rows(queries, k)


def test_the_kernels_do_in_python_what_they_do_in_native_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def all_of() -> list[tuple[int, bytes]]:
        index, found = CountingIndex(BUILT["flat"], FEW), []
        for start in (0, 20, 10, 60, 0):
            rows = index.remembered_rows(QUERIES[start : start + 30], 7)
            found.append((index.queries, rows.tobytes()))
        return found

    native: Callable[..., object]
    expected = all_of()
    for name, native in list(vars(search_memory).items()):
        if hasattr(native, "py_func"):
            monkeypatch.setattr(search_memory, name, native.py_func)
    with np.errstate(over="ignore"):  # hashing wraps around on purpose
        assert all_of() == expected
