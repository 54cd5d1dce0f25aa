"""Construction of an ItemIndex of a suitable kind, its recall measured against exact search."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from tracker.artifact.manifest import IndexInfo
from tracker.items.index import ItemIndex, Kind
from tracker.items.vectors import NEAREST, SIMILAR, Vectors, nearest_rows, unit

IndexChoice = Literal["auto", "flat", "pq_fastscan", "ivf_pq_fastscan"]

FLAT_ITEMS = 5_000
"""Up to this number of items search is exact; measured on whitened titles."""

FASTSCAN_ITEMS = 30_000
"""Up to this number the codes of all items are scanned, above it those of the nearest lists."""

EXACT_SIMILAR_ITEMS = 20_000
"""Up to this number similar items are found by exact search."""

_BATCH = 500
_QUERIES = 1000
_QUERIES_LARGE = 400
_LARGE = 200_000
_TRAINED_ON = 100_000
_FACTORS = (1, 2, 4)
_MORE_FACTORS = (8, 16, 32)  # tried if no smaller one is enough
_PROBES = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_MAX_CODES = 128

# Ranking 64 items exactly takes about the time of scanning the codes of this many.
_RANKED_COST = 6_500.0


@dataclass(frozen=True)
class _Setting:
    """Effort of a search: number of lists probed (0: no lists), and ranked candidates per k."""

    probes: int
    factor: int


def build_index(
    vectors: Vectors,
    min_recall: float,
    choice: IndexChoice = "auto",
    seed: int = 0,
    queries: Callable[[int, np.random.Generator], Vectors] | None = None,
) -> tuple[ItemIndex, IndexInfo]:
    """Build an index, tune it to a recall, and measure it.

    1. Choose the kind by size, train and fill it.
    2. Search with one sample of queries under growing effort; of the settings that reach
       `min_recall` and a fifth of what is left above it, take the cheapest.
    3. Measure recall@10 and time with another sample.

    Queries are like those of the tracker: items with noise, and mixtures of two to eight items.

    Args:
        vectors: (N, D) float32, the rows that can be recommended; unit length, except with
            `queries`.
        min_recall: recall@10 to reach; the caller checks it.
        choice: a kind, or `auto`.
        seed: seed of queries and of the training sample.
        queries: called with a number of queries and a generator; by default `queries_like`.

    Returns:
        the index, and its kind, parameters, recall and time.

    Raises:
        ValueError: the kind needs more items than there are, or an even D.
    """
    kind = choose_kind(len(vectors), vectors.shape[1]) if choice == "auto" else choice
    random = np.random.default_rng(seed)
    # 1. Choose the kind, train and fill it.
    index = _trained(vectors, kind, random)
    exact = ItemIndex.flat(vectors)
    if queries is None:
        queries = partial(queries_like, vectors)
    count = _QUERIES if len(vectors) <= _LARGE else _QUERIES_LARGE
    setting = _Setting(0, 1)
    # 2. Take the cheapest setting that reaches the recall.
    if kind != "flat":
        target = min_recall + (1 - min_recall) * 0.2
        sample = queries(count, random)
        setting = _tuned(index, sample, _best(exact, sample), vectors, target)
        _set(index, setting)
    # 3. Measure recall and time with another sample.
    result = ItemIndex(index)
    sample = queries(count, random)
    recall = recall_at_10(result, sample, exact, vectors)
    parameters = {} if kind == "flat" else {"ranked_times_k": setting.factor}
    if kind == "ivf_pq_fastscan":
        parameters |= {"lists": int(_base(index).nlist), "probes": setting.probes}
    return result, IndexInfo(kind, parameters, recall, len(sample), _microseconds(result, sample))


def choose_kind(items: int, dim: int) -> Kind:
    """Return the kind of index for a number of items; an odd width is always searched exactly."""
    if items <= FLAT_ITEMS or dim % 2:
        return "flat"
    return "pq_fastscan" if items <= FASTSCAN_ITEMS else "ivf_pq_fastscan"


def queries_like(vectors: Vectors, count: int, random: np.random.Generator) -> Vectors:
    """Return unit vectors (count, D) like the queries of states: items with noise, and mixtures."""
    rows = random.integers(0, len(vectors), (count, 8))
    shares = random.exponential(1.0, (count, 8))
    items = np.array([1, 2, 4, 8])[np.arange(count) % 4]
    shares[np.arange(8)[None, :] >= items[:, None]] = 0.0
    mixed = np.einsum("bi,bid->bd", shares, vectors[rows])
    mixed /= np.maximum(np.linalg.norm(mixed, axis=1, keepdims=True), 1e-12)
    noise = random.standard_normal(mixed.shape) * (0.3 / math.sqrt(vectors.shape[1]))
    return unit((mixed + noise).astype(np.float32))


def recall_at_10(index: ItemIndex, queries: Vectors, exact: ItemIndex, vectors: Vectors) -> float:
    """Return the share of the best 10 items that an index finds, or of all if there are fewer.

    An item that scores as well as the tenth best counts as found: items with the same text are
    equally good.

    Args:
        index: the index to measure.
        queries: (Q, D) float32.
        exact: exact index of the same vectors.
        vectors: (N, D) float32.
    """
    return _share_found(index, queries, _best(exact, queries), vectors)


def _best(exact: ItemIndex, queries: Vectors) -> Vectors:
    """Return the scores of the best 10 items of each query, or of all if there are fewer."""
    return exact.search(queries, min(10, exact.size), _threads(exact.size))[1]


def _share_found(index: ItemIndex, queries: Vectors, best: Vectors, vectors: Vectors) -> float:
    """Return the share of the found items that score at least as well as the last of the best."""
    rows, _ = index.search(queries, best.shape[1], _threads(len(vectors)))
    scores = np.einsum("bkd,bd->bk", vectors[rows], queries)
    scores[rows < 0] = -np.inf
    return float((scores >= best[:, -1:] - 1e-5).mean())


def searched_rows(vectors: Vectors, index: ItemIndex) -> NDArray[np.int32]:
    """Search for the vector of every row.

    Args:
        vectors: (N, D) float32, unit length, or zeros without text.
        index: index of the live rows that have a text; they are the first.

    Returns:
        (N, 64) int32 rows, best first; they end in -1 if there are fewer. A row of zeros finds
        nothing.
    """
    rows = np.full((len(vectors), NEAREST), -1, np.int32)
    for start in range(0, len(vectors), _BATCH):
        block = slice(start, start + _BATCH)
        rows[block], _ = index.search(vectors[block], NEAREST, _threads(index.size))
    rows[~vectors.any(1)] = -1
    return rows


def similar_rows(full: Vectors, nearest: NDArray[np.int32], live: int) -> NDArray[np.int32]:
    """Find the most similar live rows of every row.

    Args:
        full: (N, F) float32, unit length, or zeros without text; their inner product is the
            similarity.
        nearest: (N, 64) of `searched_rows`: the candidates in a large catalogue.
        live: rows before this one are live, and have a text.

    Returns:
        (N, 16) int32, best first, without the row itself; rows end in -1 if there are fewer. A row
        of zeros is similar to nothing.
    """
    similar = _similar(full, nearest, live)
    similar[~full.any(1)] = -1
    return similar


def _similar(full: Vectors, nearest: NDArray[np.int32], live: int) -> NDArray[np.int32]:
    if live <= EXACT_SIMILAR_ITEMS:
        return nearest_rows(full, live)
    similar = np.empty((len(full), SIMILAR), np.int32)
    for start in range(0, len(full), _BATCH):
        block = slice(start, start + _BATCH)
        rows = nearest[block]
        scores = np.einsum("bkf,bf->bk", full[rows], full[block])
        own = np.arange(start, start + len(rows))[:, None]
        scores[(rows < 0) | (rows == own)] = -np.inf
        order = np.argsort(-scores, axis=1, kind="stable")[:, :SIMILAR]
        best = np.take_along_axis(rows, order, axis=1)
        best[np.take_along_axis(scores, order, axis=1) == -np.inf] = -1
        similar[block] = best
    return similar


def _trained(vectors: Vectors, kind: Kind, random: np.random.Generator) -> Any:
    count, dim = vectors.shape
    if kind == "flat":
        return _filled("Flat", vectors, vectors)
    if dim % 2:
        raise ValueError(f"index {kind} needs an even dim, {dim} found; flat takes any")
    codes = dim // 2  # 4 bits each
    while codes > _MAX_CODES and codes % 2 == 0:
        codes //= 2
    lists = max(1, round(math.sqrt(count))) if kind == "ivf_pq_fastscan" else 0
    needed = max(1000, 40 * lists)
    if count < needed:
        raise ValueError(f"index {kind} needs {needed} items, {count} found; flat takes any number")
    sample = vectors
    if count > _TRAINED_ON:
        sample = vectors[np.sort(random.choice(count, max(_TRAINED_ON, needed), replace=False))]
    name = f"PQ{codes}x4fs,RFlat" if not lists else f"IVF{lists},PQ{codes}x4fs,RFlat"
    return _filled(name, sample, vectors)


def _filled(name: str, sample: Vectors, vectors: Vectors) -> Any:
    faiss.omp_set_num_threads(_threads(len(vectors)))
    index = faiss.index_factory(vectors.shape[1], name, faiss.METRIC_INNER_PRODUCT)
    index.train(np.ascontiguousarray(sample))
    index.add(np.ascontiguousarray(vectors))
    return index


def _tuned(
    index: Any, queries: Vectors, best_scores: Vectors, vectors: Vectors, target: float
) -> _Setting:
    """Return the cheapest setting that reaches the target recall, or the one with the best recall.

    Cost is counted, not timed: the same catalogue gives the same index on every machine.
    """
    lists = int(getattr(_base(index), "nlist", 0))
    reached: list[_Setting] = []
    best = (-1.0, _Setting(0, 1))
    for factor in _FACTORS + _MORE_FACTORS:
        if reached and factor in _MORE_FACTORS:
            break
        probes = [n for n in _PROBES if n < lists] + [lists] if lists else [0]
        for setting in (_Setting(n, factor) for n in probes):
            _set(index, setting)
            recall = _share_found(ItemIndex(index), queries, best_scores, vectors)
            best = max(best, (recall, setting), key=lambda pair: pair[0])
            if recall >= target:
                reached.append(setting)
                break

    def cost(setting: _Setting) -> float:
        scanned = index.ntotal * setting.probes / lists if lists else index.ntotal
        return float(scanned + _RANKED_COST * setting.factor)

    return min(reached, key=cost) if reached else best[1]


def _set(index: Any, setting: _Setting) -> None:
    index.k_factor = float(setting.factor)
    if setting.probes:
        _base(index).nprobe = setting.probes


def _threads(items: int) -> int:
    """Return the number of threads for an index; on a small one more threads cost more."""
    return 1 if items <= FASTSCAN_ITEMS else len(os.sched_getaffinity(0))


def _base(index: Any) -> Any:
    """Return the inner index, which finds the candidates for the exact ranking."""
    return faiss.downcast_index(index.base_index)


def _microseconds(index: ItemIndex, queries: Vectors) -> float:
    """Return the time of one query on one thread, in batches: the best of three runs."""
    batch = queries[:_BATCH]
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        index.search(batch, 10, 1)
        seconds.append(time.perf_counter() - start)
    return round(min(seconds) / len(batch) * 1e6, 2)
