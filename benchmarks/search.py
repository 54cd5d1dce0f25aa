"""Search at equal recall: the tracker's index beside hnswlib, usearch, ScaNN and exact FAISS.

Item vectors are those of an artifact, and larger catalogues are drawn from a mixture of Gaussians
fitted to them. Queries are what the tracker searches for: the interests of states that a replay of
the events has made. Each library runs on one thread, at the least effort of its own that reaches a
recall@k of .95 and of .99 of these queries, in batches of 256 and one by one. Times are of the
processor.

    OMP_NUM_THREADS=1 python -m benchmarks.search --artifacts ARTIFACTS --events EVENTS
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import hnswlib
import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.results import add_option, store
from indexer.data.histories import core, read_event_log
from indexer.items.index import build_index
from indexer.replay.replay import Replay
from tracker.artifact.artifact import Artifact
from tracker.events.kinds import Kinds
from tracker.users.readings import interest_queries
from tracker.users.rows import RequestBatch

Vectors = NDArray[np.float32]
Search = Callable[[Vectors], NDArray[Any]]

BATCH = 256
QUERIES = 2048
RECALLS = (0.95, 0.99)
CENTRES = 256
EFFORTS = (10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


def drawn(vectors: Vectors, count: int, random: np.random.Generator) -> Vectors:
    """Draw unit vectors from a mixture of Gaussians with diagonal spread, fitted to `vectors`."""
    means: Any = faiss.Kmeans(vectors.shape[1], min(CENTRES, len(vectors) // 40), seed=1)
    means.train(vectors)
    nearest = means.index.search(vectors, 1)[1][:, 0]
    sizes = np.bincount(nearest, minlength=means.k)
    spread = np.stack(
        [
            vectors[nearest == centre].std(axis=0) if sizes[centre] > 1 else vectors.std(axis=0)
            for centre in range(means.k)
        ]
    )
    which = random.choice(means.k, count, p=sizes / sizes.sum())
    found = means.centroids[which]
    found += spread[which] * random.standard_normal(found.shape, np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return np.ascontiguousarray(found, np.float32)


def queries_of(artifact: Artifact, events: list[Path], least: int) -> Vectors:
    """Return what the tracker searches for, for users whose states a replay has made."""
    config = artifact.manifest.interest
    kinds = msgspec.structs.replace(
        Kinds.default(), rating_min=config.rating_min, rating_max=config.rating_max
    )
    log = core(read_event_log(events, kinds, time.time()), least)
    replay = Replay(artifact, log)
    replay.advance(len(log))
    replay.wait()
    slots = np.arange(len(log.user_ids))
    now = np.full(len(slots), float(log.batch.times[-1]))
    requests = RequestBatch(replay.users, slots, now, np.zeros(len(slots), np.uint32))
    histories = replay.recommender.reader.histories(requests)
    vectors, _, _ = interest_queries(histories, replay.recommender.options.searches)
    chosen = np.random.default_rng(1).permutation(len(vectors))[:QUERIES]
    return np.ascontiguousarray(vectors[chosen], np.float32)


def recall(found: NDArray[Any], exact: NDArray[Any]) -> float:
    """Return the mean share of the exact rows that are among those found.

    >>> recall(np.array([[1, 2]]), np.array([[2, 3]]))
    0.5
    """
    hits = [len(set(a) & set(b)) for a, b in zip(found.tolist(), exact.tolist(), strict=True)]
    return sum(hits) / exact.size


def ours(vectors: Vectors, k: int) -> Iterator[tuple[str, Search]]:
    """Yield the tracker's own index under growing effort."""
    built, info = build_index(vectors, 0.95)
    index: Any = faiss.downcast_index(built._cpu)
    if info.kind == "flat":
        yield "flat", lambda queries: index.search(queries, k)[1]
        return
    base: Any = faiss.downcast_index(index.base_index)
    probes = EFFORTS if info.kind == "ivf_pq_fastscan" else (0,)
    settings = [(count, factor) for count in probes for factor in (1, 2, 4, 8, 16, 32)]
    for count, factor in sorted(settings, key=lambda one: (one[0] or 1) * 50 + one[1] * 10):
        if count:
            base.nprobe = count
        index.k_factor = factor
        yield f"{info.kind}, probes {count}, ranked {factor} k", lambda q: index.search(q, k)[1]


def hnsw(vectors: Vectors, k: int) -> Iterator[tuple[str, Search]]:
    """Yield hnswlib under growing effort."""
    index = hnswlib.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), ef_construction=200, M=16)
    index.add_items(vectors, num_threads=os.cpu_count() or 1)
    for effort in EFFORTS:
        index.set_ef(effort)
        yield f"M 16, ef {effort}", lambda queries: index.knn_query(queries, k, num_threads=1)[0]


def usearch(vectors: Vectors, k: int) -> Iterator[tuple[str, Search]]:
    """Yield usearch under growing effort."""
    from usearch.index import Index

    index: Any = Index(ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=16)
    index.add(np.arange(len(vectors)), vectors, threads=os.cpu_count() or 1)

    def search(queries: Vectors) -> NDArray[Any]:
        found = index.search(queries, k, threads=1)
        keys: NDArray[Any] = np.asarray(found.keys).reshape(len(queries), -1)
        return keys

    for effort in EFFORTS:
        index.expansion_search = effort
        yield f"connectivity 16, expansion {effort}", search


def scann(vectors: Vectors, k: int) -> Iterator[tuple[str, Search]]:
    """Yield ScaNN under growing effort: a tree, hashed codes, and exact ranking of the best."""
    from scann.scann_ops.py import scann_ops_pybind

    leaves = max(1, round(len(vectors) ** 0.5))
    builder = scann_ops_pybind.builder(vectors, k, "dot_product")
    sample = min(len(vectors), 250_000)
    builder = builder.tree(leaves, max(1, leaves // 20), training_sample_size=sample)
    searcher = builder.score_ah(2, anisotropic_quantization_threshold=0.2).reorder(100).build()
    for share in (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0):
        for ranked in (40, 100, 200, 400):
            probes = max(1, round(share * leaves))
            yield (
                f"{leaves} leaves, {probes} searched, {ranked} ranked",
                partial(_scann_search, searcher, k, probes, ranked),
            )


def _scann_search(
    searcher: Any, k: int, probes: int, ranked: int, queries: Vectors
) -> NDArray[Any]:
    rows: NDArray[Any] = searcher.search_batched(
        queries, k, pre_reorder_num_neighbors=ranked, leaves_to_search=probes
    )[0]
    return rows


def exactly(vectors: Vectors, k: int) -> Iterator[tuple[str, Search]]:
    """Yield an exact search."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    yield "all items", lambda queries: index.search(queries, k)[1]


LIBRARIES = {"tracker": ours, "hnswlib": hnsw, "usearch": usearch, "ScaNN": scann, "exact": exactly}


def microseconds(search: Search, queries: Vectors, size: int, parts: int) -> float:
    """Return the median processor time of a query, in batches of a size."""
    taken = []
    for begin in range(0, min(len(queries), size * parts), size):
        part = queries[begin : begin + size]
        begun = time.process_time()
        search(part)
        taken.append(1e6 * (time.process_time() - begun) / len(part))
    return statistics.median(taken)


def measure(vectors: Vectors, queries: Vectors, library: str, k: int) -> list[dict[str, Any]]:
    """Return the fastest setting of a library that reaches each recall."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    exact = index.search(queries, k)[1]
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    begun = time.monotonic()
    tried: list[dict[str, Any]] = []
    build = 0.0
    for setting, search in LIBRARIES[library](vectors, k):
        build = build or time.monotonic() - begun
        faiss.omp_set_num_threads(1)
        reached = recall(search(queries), exact)
        if reached >= RECALLS[0]:
            batch = microseconds(search, queries, BATCH, 8)
            alone = microseconds(search, queries, 1, 300)
            tried.append({"setting": setting, "recall": reached, "batch": batch, "single": alone})
        if reached >= 0.998:
            break
    found = []
    for least in RECALLS:
        good = [one for one in tried if one["recall"] >= least]
        if good:
            best = min(good, key=lambda one: float(one["batch"]))
            found.append({"library": library, "at_least": least, "build_seconds": build, **best})
    return found


def main() -> None:
    """Measure each library at each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--artifacts", required=True, help="where the versions are")
    parser.add_argument("--events", type=Path, action="append", required=True)
    parser.add_argument("--core", type=int, default=5)
    parser.add_argument("--items", type=int, nargs="*", default=[0, 100_000, 1_000_000])
    parser.add_argument("--k", type=int, default=10, help="rows of a search")
    parser.add_argument("--only", nargs="*", choices=LIBRARIES, default=list(LIBRARIES))
    add_option(parser)
    given = parser.parse_args()
    artifact = Artifact.load(given.artifacts, None, "cpu")
    queries = queries_of(artifact, given.events, given.core)
    real = np.ascontiguousarray(artifact.vectors.vectors, np.float32)
    real = real[np.linalg.norm(real, axis=1) > 0.5]
    rows = []
    for items in given.items:
        vectors = drawn(real, items, np.random.default_rng(7)) if items else real
        for library in given.only:
            for one in measure(vectors, queries, library, given.k):
                rows.append({"items": len(vectors), "made_up": bool(items), **one})
                print(rows[-1], flush=True)
    store(given.result, {"rows": rows, "queries": len(queries), "dim": real.shape[1], "k": given.k})


if __name__ == "__main__":
    main()
