"""ItemIndex: FAISS search on CPU or GPU, a query vector to the k best rows."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from tracker.explained import first_line
from tracker.files import sync_file
from tracker.items.search_memory import SearchMemory
from tracker.items.vectors import Rows, Vectors
from tracker.kernels.device import Device, pick_device

if TYPE_CHECKING:  # torch takes seconds to import, and only tensors need it
    import torch

Scores = NDArray[np.float32]

Kind = Literal["flat", "pq_fastscan", "ivf_pq_fastscan"]

MAX_GPU_K = 2048
"""FAISS on a GPU returns no more than this."""

_MIN_FETCHED = 64
"""An approximate index ranks at least this many exactly, also where fewer are asked for."""

_SEARCHED_NUMBERS = 1 << 16
"""Components of the queries that are searched for at once where rows must not depend on the batch.
From 128,000 on FAISS multiplies matrices, which rounds in another way."""

_FLOAT_BYTES = 4

_MAPPED_BYTES = 1 << 26
"""Bytes of a file from which on it is mapped. Mapped vectors lie at odd places, at which a scan of
all is slower."""

_BLOCK = 32
"""Vectors in a block of fast-scan codes."""


_SCAN = 15
"""FAISS's way of scanning the codes of all items. It finds the same as the way that FAISS takes by
itself, from three queries on in nine tenths of the time; by lists it would take longer."""


class IndexFileError(ValueError):
    """The file is not an index of ours; the message names it."""


class ItemIndex:
    """The k items with the highest inner product with a query vector.

    Kinds: `flat` compares with every item. `pq_fastscan` scans 4-bit codes of all items, and
    `ivf_pq_fastscan` those of the nearest lists only; both then rank the best exactly, so that
    scores are exact in every kind. On a GPU every kind searches all items exactly.

    Many threads may search at once: FAISS releases the interpreter's lock, and on a GPU they
    take turns. `remembered_rows` is for queries that come again.
    """

    def __init__(self, index: Any, device: Device = "cpu", *, float16: bool = False) -> None:
        """Take a FAISS index of one of our kinds.

        Args:
            index: `IndexFlatIP`, or `IndexRefineFlat` over one of the fast-scan indexes.
            device: `auto` is the GPU when FAISS has one.
            float16: keep the vectors on the GPU in half precision.

        Raises:
            IndexFileError: the index is of another kind.
            DeviceError: `cuda` without a GPU.
        """
        self._cpu = index
        self.kind = _kind_of(index)
        if self.kind == "pq_fastscan":
            codes: Any = faiss.downcast_index(index.base_index)
            codes.implem = _SCAN
        self.dim = int(index.d)
        self.size = int(index.ntotal)
        self.device = pick_device(
            device,
            gpu_count() > 0,
            "FAISS has no GPU: install the extra `gpu` in place of `cpu` on a machine with one, or"
            " set the device to auto or cpu",
        )
        self._gpu: Any = None
        self._turn = Lock()
        self._memory = SearchMemory()
        if self.device == "cuda":
            self._gpu = _to_gpu(index if self.kind == "flat" else index.refine_index, float16)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return how a copy in another process is made: on its CPU."""
        return type(self), (self._cpu,)

    @classmethod
    def flat(cls, vectors: Vectors) -> "ItemIndex":
        """Return an exact index of vectors (N, D) on the CPU."""
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(np.ascontiguousarray(vectors, np.float32))
        return cls(index)

    @classmethod
    def load(
        cls,
        path: Path,
        device: Device = "cpu",
        *,
        float16: bool = False,
        checked: bool = False,
    ) -> "ItemIndex":
        """Read an index from its file, and check sizes, rows and numbers.

        1. Read and check it.
        2. Map the vectors and codes of a large file in place of what was read. That takes a
           hundredth of the time, and no memory that the system cannot take back.

        Args:
            path: the file.
            device: as for the constructor.
            float16: as for the constructor.
            checked: whether the file was read and checked before. FAISS ends the process if a file
                that it maps is damaged.

        Raises:
            IndexFileError: the file cannot be read as an index of our kinds, or a vector in it is
                not finite.
            DeviceError: `cuda` without a GPU.
        """
        is_mapped = path.stat().st_size >= _MAPPED_BYTES
        try:
            # 1. Read and check it.
            if not (checked and is_mapped):
                index = _read(path, 0)
            if not checked:
                _check(index, _kind_of(index))
            # 2. Map it.
            if is_mapped:
                index = _read(path, faiss.IO_FLAG_MMAP_IFC)
            return cls(index, device, float16=float16)
        except (IndexFileError, RuntimeError) as error:
            raise IndexFileError(f"{path}: {first_line(error)}") from error

    def save(self, path: Path) -> None:
        """Write the index to a file and wait until it is on disk.

        Raises:
            OSError: it cannot be written.
        """
        try:
            faiss.write_index(self._cpu, str(path))
        except RuntimeError as error:
            raise OSError(f"{path}: cannot be written: {first_line(error)}") from error
        sync_file(path)

    def search(self, queries: Vectors, k: int, threads: int = 1) -> tuple[Rows, Scores]:
        """Find the k items with the highest inner product with each query.

        Args:
            queries: (B, D) float32, unit length.
            k: items to return; where there are fewer, rows end in -1 and scores in -inf.
            threads: threads of the CPU to search with; ignored on a GPU.

        Returns:
            rows (B, K) int64 and scores (B, K) float32, best first.

        Raises:
            ValueError: the queries' D is not the index's, or k is not positive.
        """
        self._check(queries.shape, k)
        fetched = self._fetched(k)
        ready = np.ascontiguousarray(queries, np.float32)
        if len(ready) == 0:
            return np.full((0, k), -1, np.int64), np.full((0, k), -np.inf, np.float32)
        if self._gpu is not None:
            with self._turn:
                scores, rows = self._gpu.search(ready, fetched)
        else:
            faiss.omp_set_num_threads(threads)  # holds for the calling thread alone
            scores, rows = self._cpu.search(ready, fetched)
        return _cut(rows, k, -1), _cut(_no_score(scores, rows), k, -np.inf)

    def remembered_rows(self, queries: Vectors, k: int) -> Rows:
        """Find the rows of `search`, without a search for queries that were searched for before.

        On the CPU the rows of a query are the same in every batch, remembered or not. On a GPU
        nothing is remembered.

        Args:
            queries: (B, D) float32, unit length.
            k: items to return; where there are fewer, rows end in -1.

        Returns:
            rows (B, K) int64, best first.

        Raises:
            ValueError: as in `search`.
        """
        if self._gpu is not None:
            return self.search(queries, k)[0]
        self._check(queries.shape, k)
        keys, rows, unknown = self._memory.find(queries, k)
        size = max(1, _SEARCHED_NUMBERS // self.dim)
        for start in range(0, len(unknown), size):
            part = unknown[start : start + size]
            rows[part], _ = self.search(queries[part], k)
        if len(unknown):
            self._memory.keep(keys, rows, unknown)
        return rows

    def search_tensor(self, queries: "torch.Tensor", k: int) -> "tuple[torch.Tensor, torch.Tensor]":
        """Find the k best items of each query, from tensor to tensor.

        On a GPU neither queries nor results pass through the host's memory.

        Args:
            queries: (B, D) float32, unit length, on the index's device.
            k: as in `search`.

        Returns:
            rows (B, K) int64 and scores (B, K) float32 on the queries' device, best first.

        Raises:
            ValueError: as in `search`, or the queries are on another device than the index.
        """
        import torch

        self._check(tuple(queries.shape), k)
        if queries.device.type != self.device:
            raise ValueError(f"queries are on {queries.device.type}, the index is on {self.device}")
        if self._gpu is None:
            rows, scores = self.search(queries.detach().numpy(), k)
            return torch.from_numpy(rows), torch.from_numpy(scores)
        fetched = self._fetched(k)
        with self._turn:
            found_scores, found_rows = self._gpu.search(queries.detach().contiguous(), fetched)
        missing = k - fetched
        return (
            torch.nn.functional.pad(found_rows, (0, missing), value=-1),
            torch.nn.functional.pad(found_scores, (0, missing), value=-torch.inf),
        )

    def _check(self, shape: tuple[int, ...], k: int) -> None:
        if len(shape) != 2 or shape[1] != self.dim:
            raise ValueError(f"queries have shape {shape}; (B, {self.dim}) expected")
        most = MAX_GPU_K if self._gpu is not None else 2**31
        if not 1 <= k <= most:
            raise ValueError(f"k is {k}; 1 to {most} expected")

    def _fetched(self, k: int) -> int:
        n = k if self._gpu is not None or self.kind == "flat" else max(k, _MIN_FETCHED)
        return min(n, self.size)


def stored_vectors(index: ItemIndex) -> NDArray[np.float32]:
    """Return the vectors in an index on the CPU, flat (N * D,), as a view of its memory."""
    return _flat_vectors(index._cpu, index.kind)


def _flat_vectors(index: Any, kind: Kind) -> NDArray[np.float32]:
    flat: Any = index if kind == "flat" else faiss.downcast_index(index.refine_index)
    if index.ntotal == 0:
        return np.zeros(0, np.float32)
    view: NDArray[np.float32] = faiss.rev_swig_ptr(flat.get_xb(), index.ntotal * index.d)
    return view


def _read(path: Path, flags: int) -> Any:
    """Read a file with FAISS.

    Raises:
        IndexFileError: it cannot.
    """
    try:
        with _bounded_reading(path.stat().st_size):
            return faiss.read_index(str(path), flags)
    except (RuntimeError, MemoryError) as error:
        raise IndexFileError(f"not a FAISS index: {first_line(error)}") from error


@contextmanager
def _bounded_reading(file_bytes: int) -> Iterator[None]:
    """Bound what FAISS allocates for a file by what the file can hold; then as it was before."""
    before = (
        faiss.get_deserialization_vector_byte_limit(),
        faiss.get_deserialization_loop_limit(),
    )
    faiss.set_deserialization_vector_byte_limit(max(1, file_bytes))
    faiss.set_deserialization_loop_limit(max(1, file_bytes))
    try:
        yield
    finally:
        faiss.set_deserialization_vector_byte_limit(before[0])
        faiss.set_deserialization_loop_limit(before[1])


def _check(index: Any, kind: Kind) -> None:
    """Check an index that was read from a file.

    Raises:
        IndexFileError: sizes within it do not agree, or a vector is not finite.
        RuntimeError: FAISS refuses a search.
    """
    if problem := _problem_of(index, kind):
        raise IndexFileError(f"{problem}; build it again with `indexer build`")
    if not np.isfinite(_flat_vectors(index, kind)).all():
        raise IndexFileError("vectors of the index are not all finite")
    _search_once(index, kind)


def _problem_of(index: Any, kind: Kind) -> str | None:
    """Return which sizes within an index do not agree; None if it can be searched.

    FAISS believes what a file says of its own sizes, and reads past its memory if they are wrong.
    """
    sizes = _flat_sizes("", index) if kind == "flat" else _refine_sizes(index, kind)
    for name, (value, expected) in sizes.items():
        if value != expected:
            return f"{name} of the index is {value}; {expected} expected"
    return None


Sizes = dict[str, tuple[object, object]]
"""What was found and what is expected, by name."""


def _flat_sizes(name: str, flat: Any) -> Sizes:
    return {
        f"{name}metric": (flat.metric_type, faiss.METRIC_INNER_PRODUCT),
        f"{name}dim above 0": (flat.d > 0 and flat.ntotal >= 0, True),
        f"{name}bytes": (flat.codes.size(), flat.ntotal * flat.d * _FLOAT_BYTES),
    }


def _refine_sizes(index: Any, kind: Kind) -> Sizes:
    flat: Any = faiss.downcast_index(index.refine_index)
    base: Any = faiss.downcast_index(index.base_index)
    if not isinstance(flat, faiss.IndexFlat):
        return {"exact part": (type(flat).__name__, "IndexFlat")}
    pq = base.pq
    sizes: Sizes = {
        "dim": (index.d, flat.d),
        "size": (index.ntotal, flat.ntotal),
        "metric": (index.metric_type, faiss.METRIC_INNER_PRODUCT),
        **_flat_sizes("exact ", flat),
        "coded dim": (base.d, flat.d),
        "coded size": (base.ntotal, flat.ntotal),
        "coded metric": (base.metric_type, faiss.METRIC_INNER_PRODUCT),
        "trained": (bool(index.is_trained and base.is_trained), True),
        "subspaces from 1 to dim": (1 <= base.M <= flat.d, True),
        "subspaces": (pq.M, base.M),
        "even subspaces": (base.M2, -(-base.M // 2) * 2),
        "bits": ((base.nbits, base.ksub, pq.nbits, pq.ksub), (4, 16, 4, 16)),
        "subspace dim": ((pq.d, pq.dsub * base.M), (flat.d, flat.d)),
        "code bytes": ((base.code_size, pq.code_size), ((base.M + 1) // 2,) * 2),
        "centroids": (pq.centroids.size(), flat.d * 16),
        "block": (base.bbs, _BLOCK),
    }
    if any(value != expected for value, expected in sizes.values()):
        return sizes
    if kind == "pq_fastscan":
        padded = -(-base.ntotal // _BLOCK) * _BLOCK
        return sizes | {
            "padded size": (base.ntotal2, padded),
            "codes": (base.codes.size(), padded * base.M2 // 2),
        }
    return sizes | _list_sizes(base)


def _list_sizes(base: Any) -> Sizes:
    quantizer: Any = faiss.downcast_index(base.quantizer)
    lists = base.invlists
    if not isinstance(quantizer, faiss.IndexFlat):
        return {"lists' quantizer": (type(quantizer).__name__, "IndexFlat")}
    sizes: Sizes = {
        **_flat_sizes("lists' ", quantizer),
        "lists' dim": (quantizer.d, base.d),
        "lists": ((quantizer.ntotal, lists.nlist), (base.nlist, base.nlist)),
        "searched lists": (1 <= base.nprobe <= base.nlist, True),
        "residuals": (bool(base.by_residual), False),
    }
    if any(value != expected for value, expected in sizes.values()):
        return sizes
    rows = [
        faiss.rev_swig_ptr(lists.get_ids(number), lists.list_size(number)).copy()
        for number in range(base.nlist)
        if lists.list_size(number)
    ]
    together = np.sort(np.concatenate(rows)) if rows else np.zeros(0, np.int64)
    every = np.array_equal(together, np.arange(base.ntotal))
    return sizes | {"rows of the lists": ("others" if not every else "each once", "each once")}


def _search_once(index: Any, kind: Kind) -> None:
    """Search for the first vector.

    Raises:
        RuntimeError: FAISS refuses; so it would at every search.
    """
    if index.ntotal:
        first = _flat_vectors(index, kind)[: index.d].reshape(1, -1)
        index.search(first, min(_MIN_FETCHED, index.ntotal))


def gpu_count() -> int:
    """Return how many GPUs this FAISS can use; 0 for a build without GPU support."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def _to_gpu(flat: Any, float16: bool) -> Any:
    import faiss.contrib.torch_utils  # teaches FAISS to take tensors

    options = faiss.GpuClonerOptions()
    options.useFloat16 = float16
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, flat, options)


def _kind_of(index: Any) -> Kind:
    if isinstance(index, faiss.IndexFlat) and index.metric_type == faiss.METRIC_INNER_PRODUCT:
        return "flat"
    if isinstance(index, faiss.IndexRefineFlat):
        base = faiss.downcast_index(index.base_index)
        if isinstance(base, faiss.IndexIVFPQFastScan):
            return "ivf_pq_fastscan"
        if isinstance(base, faiss.IndexPQFastScan):
            return "pq_fastscan"
    raise IndexFileError(
        f"a FAISS index of class {type(index).__name__}; flat, pq_fastscan or ivf_pq_fastscan"
        " expected; build it again with `indexer build`"
    )


def _no_score(scores: Scores, rows: Rows) -> Scores:
    scores[rows < 0] = -np.inf  # FAISS pads with the lowest float
    return scores


def _cut(results: NDArray[Any], k: int, fill: float) -> NDArray[Any]:
    if results.shape[1] >= k:
        return np.ascontiguousarray(results[:, :k])
    padded = np.full((results.shape[0], k), fill, results.dtype)
    padded[:, : results.shape[1]] = results
    return padded
