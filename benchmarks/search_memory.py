"""What remembering searches saves: the time of a list with it and without it, on one thread.

The catalogue and the users of `benchmarks.recommend`: each chooses from three groups of items. An
event of each user of a chunk is applied, then their lists are made by two recommenders in turn, of
which one remembers nothing. The lists have to be equal to the last bit. Each user had one list
before.

    OMP_NUM_THREADS=1 python -m benchmarks.search_memory --history 3 --history 12 --history 30
"""

import argparse
import time
from dataclasses import replace
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.recommend import DAY, GROUPS, Job, make_network, with_tower
from benchmarks.results import add_option, store
from indexer.items.index import searched_rows
from tracker.artifact.artifact import Artifact
from tracker.items.index import ItemIndex, Scores
from tracker.items.vectors import Rows, Vectors
from tracker.recommend.options import RecommendOptions, trained_with
from tracker.recommend.recommender import Recommender
from tracker.users.rows import RequestBatch

LISTS_BEFORE = 500
"""Users whose first lists are made at a time, before anything is measured."""


class CountingIndex(ItemIndex):
    """Counts the queries that are asked for, and those that are searched for."""

    asked = queries = 0

    def search(self, queries: Vectors, k: int, threads: int = 1) -> tuple[Rows, Scores]:
        """Search, and count."""
        self.queries += len(queries)
        return super().search(queries, k, threads)

    def remembered_rows(self, queries: Vectors, k: int) -> Rows:
        """Look up or search, and count."""
        self.asked += len(queries)
        return super().remembered_rows(queries, k)


class ForgetfulIndex(ItemIndex):
    """Searches each time."""

    def remembered_rows(self, queries: Vectors, k: int) -> Rows:
        """Search."""
        return self.search(queries, k)[0]


def with_index(artifact: Artifact, kind: type[ItemIndex]) -> Artifact:
    """Return the artifact with the same index, of another class."""
    return replace(artifact, index=kind(artifact.index._cpu))


class Pair:
    """A recommender that remembers searches, and one that does not, on the same users."""

    def __init__(self, job: Job, trained: bool) -> None:
        options, ranker = RecommendOptions(), None
        if trained:
            ranker = make_network()
            options = trained_with(ranker.info, options)
        items = replace(job.items, nearest=searched_rows(job.items.vectors, job.artifact.index))
        artifact = replace(job.artifact, vectors=items)
        if trained:
            artifact = with_tower(artifact)
        self._job = job
        self._artifacts = [with_index(artifact, kind) for kind in (CountingIndex, ForgetfulIndex)]
        self._recommenders = [
            Recommender(one, job.view, options, ranker) for one in self._artifacts
        ]
        self._now = job.now
        self._turn = 0
        users = job.users.states.capacity
        self._recommenders[0].carry_over(job.users.states, np.arange(users))
        for part in np.array_split(np.arange(users), max(1, users // LISTS_BEFORE)):
            self._recommenders[0].recommend(self._requests(part), 10)

    def measure(self, chunk: int, chunks: int, random: np.random.Generator) -> dict[str, float]:
        """Return searches a list, the share that is known, and microseconds of both."""
        index: Any = self._artifacts[0].index
        asked, queries, lists = index.asked, index.queries, 0
        taken: tuple[list[float], list[float]] = ([], [])
        for _ in range(chunks):
            requests = self._apply(chunk, random)
            lists += len(requests)
            order = (0, 1) if self._turn % 2 else (1, 0)
            made: dict[int, Any] = {}
            for number in order:
                start = time.thread_time_ns()
                made[number] = self._recommenders[number].recommend(requests, 10)
                taken[number].append((time.thread_time_ns() - start) / 1000 / len(requests))
            for name in ("rows", "scores"):
                if not np.array_equal(getattr(made[0], name), getattr(made[1], name)):
                    raise SystemExit(f"{name} of lists differ")
        asked, queries = index.asked - asked, index.queries - queries
        return {
            "searches_per_list": asked / lists,
            "known": 1.0 - queries / max(1, asked),
            "with": float(np.median(taken[0])),
            "without": float(np.median(taken[1])),
            "ratio": float(np.median(np.array(taken[0]) / np.array(taken[1]))),
        }

    def _requests(self, users: NDArray[np.int64]) -> RequestBatch:
        now = np.full(len(users), self._now)
        return RequestBatch(self._job.users, users, now, np.ones(len(users), np.uint32))

    def _apply(self, chunk: int, random: np.random.Generator) -> RequestBatch:
        """Apply an event of each of some users, and return their requests."""
        job, count = self._job, len(self._job.items)
        self._turn += 1
        self._now += DAY / 1000
        users = np.sort(random.choice(job.users.states.capacity, size=chunk, replace=False))
        group = job.tastes[users, random.integers(0, 3, size=chunk)]
        rank = (random.random(chunk) ** 3 * (count // GROUPS)).astype(np.int64)
        rows = np.minimum(rank * GROUPS + group, count - 1)
        events = job.events_at(rows, np.full(chunk, self._now), 100_000 + self._turn)
        self._recommenders[0].update(job.users, replace(events, slots=users))
        return self._requests(users)


def main() -> None:
    """Print the times, and what is known."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--users", type=int, default=4_000)
    parser.add_argument("--history", type=int, action="append", help="events of a user before")
    parser.add_argument("--chunk", type=int, action="append", help="lists at once")
    parser.add_argument("--lists", type=int, default=6_000, help="of each case")
    add_option(parser)
    given = parser.parse_args()
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    random = np.random.default_rng(11)
    cases = []
    for history in given.history or [3, 12, 30]:
        job = Job(given.items, given.users, history)
        for trained in (False, True):
            pair = Pair(job, trained)
            for chunk in given.chunk or [16, 500]:
                found = pair.measure(chunk, max(20, given.lists // chunk), random)
                cases.append({"history": history, "trained": trained, "chunk": chunk, **found})
                print(cases[-1], flush=True)
    store(given.result, {"items": given.items, "users": given.users, "cases": cases})


if __name__ == "__main__":
    main()
