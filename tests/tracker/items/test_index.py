"""FAISS search, exact and approximate, on CPU and, where there is one, GPU."""

import pickle
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch

from indexer.items.index import build_index
from tracker.items import index as index_module
from tracker.items.index import (
    MAX_GPU_K,
    IndexFileError,
    ItemIndex,
    gpu_count,
    stored_vectors,
)
from tracker.items.vectors import unit
from tracker.kernels.device import DeviceError

RANDOM = np.random.default_rng(3)
VECTORS = unit(RANDOM.standard_normal((2500, 16)).astype(np.float32))
QUERIES = unit(RANDOM.standard_normal((40, 16)).astype(np.float32))
KINDS = ("flat", "pq_fastscan", "ivf_pq_fastscan")


@pytest.fixture(scope="module", params=KINDS)
def index(request: pytest.FixtureRequest) -> ItemIndex:
    found, _ = build_index(VECTORS, 0.9, request.param)
    return found


@pytest.fixture(params=["read", "mapped"], autouse=True)
def way_of_loading(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small files be mapped as large ones are."""
    if request.param == "mapped":
        monkeypatch.setattr(index_module, "_MAPPED_BYTES", 0)


def test_the_best_items_come_first_with_their_exact_scores(index: ItemIndex) -> None:
    rows, scores = index.search(QUERIES, 10)
    assert rows.shape == scores.shape == (40, 10)
    assert rows.dtype == np.int64
    assert scores.dtype == np.float32
    assert (np.diff(scores, axis=1) <= 0).all()
    np.testing.assert_allclose(scores, np.einsum("bkd,bd->bk", VECTORS[rows], QUERIES), atol=1e-5)
    exact = np.sort(QUERIES @ VECTORS.T, axis=1)[:, ::-1][:, :10]
    assert (scores >= exact[:, -1:] - 1e-5).mean() >= 0.9


def test_one_query_finds_what_it_finds_in_a_batch(index: ItemIndex) -> None:
    rows, _ = index.search(QUERIES, 10)
    alone = np.concatenate([index.search(QUERIES[i : i + 1], 10)[0] for i in range(40)])
    np.testing.assert_array_equal(rows, alone)


@pytest.mark.parametrize("size", [1, 3, 40])
def test_codes_are_scanned_to_the_same_end_as_by_faiss_itself(size: int) -> None:
    index, _ = build_index(VECTORS, 0.9, "pq_fastscan")
    base: Any = faiss.downcast_index(index._cpu.base_index)
    assert base.implem == 15
    rows = [index.search(QUERIES[i : i + size], 20)[0] for i in range(0, 39, size)]
    base.implem = 0
    expected = [index.search(QUERIES[i : i + size], 20)[0] for i in range(0, 39, size)]
    np.testing.assert_array_equal(np.concatenate(rows), np.concatenate(expected))


def test_threads_may_search_at_once(index: ItemIndex) -> None:
    expected, _ = index.search(QUERIES, 10)
    with ThreadPoolExecutor(4) as pool:
        for rows, _ in pool.map(lambda _: index.search(QUERIES, 10), range(20)):
            np.testing.assert_array_equal(rows, expected)


def test_what_is_saved_is_loaded_with_its_settings(index: ItemIndex, tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    index.save(path)
    again = ItemIndex.load(path)
    assert (again.kind, again.dim, again.size) == (index.kind, 16, 2500)
    for found, expected in zip(again.search(QUERIES, 20), index.search(QUERIES, 20), strict=True):
        np.testing.assert_array_equal(found, expected)
    again.save(tmp_path / "again.faiss")
    assert (tmp_path / "again.faiss").read_bytes() == path.read_bytes()
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(again)).search(QUERIES, 20)[0], index.search(QUERIES, 20)[0]
    )


def test_every_cut_of_a_file_is_refused(index: ItemIndex, tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    index.save(path)
    content = path.read_bytes()
    for size in {*range(0, 400, 13), *range(0, len(content), 4099), len(content) - 1}:
        path.write_bytes(content[:size])
        with pytest.raises(IndexFileError):
            ItemIndex.load(path)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_an_index_with_a_vector_that_is_not_finite_is_refused(
    index: ItemIndex, number: float, tmp_path: Path
) -> None:
    path = tmp_path / "index.faiss"
    index.save(path)
    damaged = ItemIndex(faiss.read_index(str(path)))
    stored_vectors(damaged)[100] = number
    damaged.save(path)
    with pytest.raises(IndexFileError, match="not all finite"):
        ItemIndex.load(path)


def test_where_there_are_fewer_items_rows_end_in_minus_one() -> None:
    index = ItemIndex.flat(VECTORS[:3])
    rows, scores = index.search(QUERIES[:2], 5)
    assert (rows[:, 3:] == -1).all()
    assert np.isneginf(scores[:, 3:]).all()
    assert (rows[:, :3] >= 0).all()


def test_no_query_gives_no_row(index: ItemIndex) -> None:
    rows, scores = index.search(QUERIES[:0], 5)
    assert rows.shape == scores.shape == (0, 5)


def test_a_tensor_is_searched_as_an_array_is(index: ItemIndex) -> None:
    rows, scores = index.search_tensor(torch.from_numpy(QUERIES), 7)
    expected_rows, expected_scores = index.search(QUERIES, 7)
    np.testing.assert_array_equal(rows.numpy(), expected_rows)
    np.testing.assert_array_equal(scores.numpy(), expected_scores)


@pytest.mark.parametrize("shape", [(3, 15), (16,), (1, 2, 16)])
def test_queries_of_another_width_are_refused_with_both_numbers(shape: tuple[int, ...]) -> None:
    index = ItemIndex.flat(VECTORS)
    with pytest.raises(ValueError, match=r"queries have shape .*; \(B, 16\) expected"):
        index.search(np.zeros(shape, np.float32), 3)


def test_k_must_be_positive() -> None:
    with pytest.raises(ValueError, match="k is 0; 1 to"):
        ItemIndex.flat(VECTORS).search(QUERIES, 0)


def test_a_tensor_on_another_device_is_refused() -> None:
    with pytest.raises(ValueError, match="queries are on meta, the index is on cpu"):
        ItemIndex.flat(VECTORS).search_tensor(torch.empty((2, 16), device="meta"), 3)


def test_a_file_that_is_no_index_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    path.write_bytes(b"IxFI and nothing more")
    with pytest.raises(IndexFileError, match=r"index\.faiss: not a FAISS index"):
        ItemIndex.load(path)


def test_bound_of_one_file_is_none_of_what_faiss_reads_later(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    ItemIndex.flat(VECTORS[:2]).save(path)
    larger = faiss.IndexFlatIP(16)
    larger.add(VECTORS)
    ItemIndex.load(path)
    assert faiss.deserialize_index(faiss.serialize_index(larger)).ntotal == len(VECTORS)


def test_an_index_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    faiss.write_index(faiss.IndexHNSWFlat(16, 8), str(path))
    with pytest.raises(IndexFileError, match="class IndexHNSWFlat; flat, pq_fastscan or ivf"):
        ItemIndex.load(path)


def coded(lists: int) -> Any:
    name = f"{f'IVF{lists},' if lists else ''}PQ4x4fs,RFlat"
    index = faiss.index_factory(16, name, faiss.METRIC_INNER_PRODUCT)
    index.train(VECTORS)
    index.add(VECTORS)
    return index


def base_of(index: Any) -> Any:
    return faiss.downcast_index(index.base_index)


def set_row_of_a_list(index: Any, row: int) -> None:
    lists = base_of(index).invlists
    number = next(n for n in range(lists.nlist) if lists.list_size(n))
    faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number))[0] = row


@pytest.mark.parametrize("lists", [0, 4])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: setattr(index, "d", 1 << 20), "dim of the index is 1048576; 16 expected"),
        (lambda index: setattr(index, "ntotal", 10**6), "size of the index is 1000000"),
        (lambda index: setattr(base_of(index), "ntotal", 10**6), "coded size|not a FAISS index"),
    ],
)
def test_an_index_whose_sizes_do_not_agree_is_refused(
    tmp_path: Path, lists: int, change: Callable[[Any], None], message: str
) -> None:
    index = coded(lists)
    change(index)
    path = tmp_path / "index.faiss"
    faiss.write_index(index, str(path))
    with pytest.raises(IndexFileError, match=message):
        ItemIndex.load(path)


@pytest.mark.parametrize("row", [10**6, -1, 1])
def test_rows_of_lists_that_no_item_or_two_have_are_refused(tmp_path: Path, row: int) -> None:
    index = coded(4)
    set_row_of_a_list(index, row)
    path = tmp_path / "index.faiss"
    faiss.write_index(index, str(path))
    with pytest.raises(IndexFileError, match="rows of the lists of the index is others"):
        ItemIndex.load(path)


def test_an_index_allocates_no_more_than_its_file_can_hold(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    ItemIndex.flat(VECTORS).save(path)
    content = bytearray(path.read_bytes())
    size = struct.pack("<Q", VECTORS.size)
    at = content.index(size, 20)
    content[at : at + 8] = struct.pack("<Q", 1 << 35)
    path.write_bytes(content)
    with pytest.raises(IndexFileError, match="not a FAISS index"):
        ItemIndex.load(path)


def test_an_index_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        ItemIndex.flat(VECTORS).save(tmp_path / "absent" / "index.faiss")


def test_a_gpu_that_is_not_there_is_refused_and_auto_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tracker.items.index.gpu_count", lambda: 0)
    flat = faiss.IndexFlatIP(16)
    assert ItemIndex(flat, "auto").device == "cpu"
    with pytest.raises(DeviceError, match="install the extra `gpu`"):
        ItemIndex(flat, "cuda")
    with pytest.raises(DeviceError, match="auto, cpu or cuda expected"):
        ItemIndex(flat, "tpu")  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(gpu_count() == 0, reason="FAISS has no GPU")
@pytest.mark.parametrize("float16", [False, True])
def test_a_gpu_finds_the_exact_best_from_tensor_to_tensor(
    index: ItemIndex, tmp_path: Path, float16: bool
) -> None:
    path = tmp_path / "index.faiss"
    index.save(path)
    on_gpu = ItemIndex.load(path, "cuda", float16=float16)
    exact, best = ItemIndex.flat(VECTORS).search(QUERIES, 10)
    rows, scores = on_gpu.search(QUERIES, 10)
    np.testing.assert_allclose(scores, best, atol=2e-3 if float16 else 1e-5)
    if not float16:
        np.testing.assert_array_equal(rows, exact)
    np.testing.assert_array_equal(on_gpu.remembered_rows(QUERIES, 10), rows)
    tensor_rows, tensor_scores = on_gpu.search_tensor(torch.from_numpy(QUERIES).cuda(), 10)
    assert tensor_rows.is_cuda
    assert tensor_scores.is_cuda
    np.testing.assert_array_equal(tensor_rows.cpu().numpy(), rows)
    with pytest.raises(ValueError, match=f"1 to {MAX_GPU_K}"):
        on_gpu.search(QUERIES, MAX_GPU_K + 1)
