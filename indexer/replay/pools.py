"""Pools: all rows that the sources of candidates offer at a target, to choose their quotas by."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer.data.holdout import evenly_spread
from indexer.replay.replay import Replay
from tracker.recommend.options import RecommendOptions
from tracker.recommend.plan import Plan
from tracker.recommend.recommender import Recommender
from tracker.recommend.shortlist import shortlist
from tracker.recommend.source_places import SOURCES, source_places
from tracker.scoring.context import COLUMNS
from tracker.scoring.features import OPTIONAL
from tracker.scoring.retrieval import CHEAP, ITEM_FEATURES, Retrieval
from tracker.users.readings import interest_queries
from tracker.users.rows import RequestBatch

MAX_POOLS = 1500
"""Targets with a pool, the latest: each takes about 60 KiB of memory."""

WIDTH, CAPACITY = 160, 640
"""Rows of a list at most, and of a pool."""

PER_SEARCH = 96
"""Rows that a search finds when pools are collected."""

_USERS, _REPEATS = 200, 5
"""Users of a list request that is timed, and how often it is timed."""


class Costs(NamedTuple):
    """Microseconds of a recommendation by its parts, of processor time on one thread.

    `search` and `encoder` are the searches by content and by the user encoder, `candidate` is one
    more candidate up to the first cut, `row` one more row after it, but for the ranker's own time.
    """

    search: float
    encoder: float
    candidate: float
    row: float


USUAL = Costs(43.0, 31.0, 0.1, 0.25)
"""Costs where the catalogue is too small to measure them, as on the machine of docs/figures."""


@dataclass(frozen=True, slots=True)
class Pools:
    """Rows that all sources offered at M targets: at most P rows each, the target first.

    Attributes:
        rows: (M, P) int32, -1 padded.
        places: (M, P, SOURCES) int16, see `tracker.recommend.source_places`.
        features: (M, P, len(COLUMNS)) float16.
        score: (ITEM_FEATURES,) weights of the item score that made the list of that name.
        costs: (4,) of `Costs`.
    """

    rows: NDArray[np.int32]
    places: NDArray[np.int16]
    features: NDArray[np.float16]
    score: NDArray[np.float64]
    costs: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of targets."""
        return len(self.rows)


FitScore = Callable[[NDArray[np.float16], NDArray[np.float32]], dict[str, float]]
"""Fits the item score on features (Q, C, F) and offsets (Q, C); returns weights by feature."""


class PoolCollector:
    """Collects pools while a log is replayed, for the latest targets.

    Args:
        fit_score: takes the features (Q, C, F) and offsets (Q, C) of the examples before the first
            of them; returns the weights of the item score.
    """

    def __init__(self, fit_score: FitScore) -> None:
        self.targets = 0
        self._fit_score = fit_score
        self._options: RecommendOptions | None = None
        self._costs = USUAL
        self._count = 0

    def begin(self, targets: int) -> int:
        """Take the number of all targets; return the first with a pool."""
        self.targets = min(MAX_POOLS, targets // 4)
        self._rows = np.full((self.targets, CAPACITY), -1, np.int32)
        self._places = np.full((self.targets, CAPACITY, len(SOURCES)), -1, np.int16)
        self._features = np.zeros((self.targets, CAPACITY, len(COLUMNS)), np.float16)
        return targets - self.targets

    def add(
        self,
        replay: Replay,
        events: NDArray[np.int64],
        named: NDArray[np.bool_],
        features: NDArray[np.float16],
        offsets: NDArray[np.float32],
    ) -> None:
        """Add the pools of coming events (B,), asked from the states as they are now.

        Args:
            replay: moved up to the events.
            events: positions in the log.
            named: (B,) which are asked with their scene.
            features: (Q, C, F) of the examples before them.
            offsets: (Q, C) of these.
        """
        recommender = replay.recommender
        if self._options is None:
            score = self._fit_score(features, offsets)
            self._options = _with_score(recommender.options, score)
        requests = replay.asked(events, named)
        results = recommender.reader.search(requests)
        rows, places = source_places(
            results, requests, self._options, WIDTH, CAPACITY, recommender.artifact.vectors,
            replay.view,
        )  # fmt: skip
        for b, target in enumerate(replay.rows[events].tolist()):
            _put_first(rows[b], places[b], target)
        part = slice(self._count, self._count + len(events))
        self._rows[part], self._places[part] = rows, places
        self._features[part] = replay.columns(events, rows.astype(np.int64), named)
        self._count += len(events)
        if self._count == self.targets:
            self._costs = measure_costs(recommender, replay.asked(events[-1:]), replay)

    def pools(self) -> Pools:
        """Return what was collected."""
        score = {} if self._options is None else self._options.retrieval.score
        weights = np.array([score.get(name, 0.0) for name in ITEM_FEATURES])
        count = self._count
        return Pools(
            self._rows[:count], self._places[:count], self._features[:count], weights,
            np.array(self._costs),
        )  # fmt: skip


def _with_score(options: RecommendOptions, score: dict[str, float]) -> RecommendOptions:
    return replace(options, retrieval=msgspec.structs.replace(options.retrieval, score=score))


def _put_first(rows: NDArray[np.int32], places: NDArray[np.int32], target: int) -> None:
    """Put a target first, in exchange for what stands there, or for the last if none offers it."""
    at = np.flatnonzero(rows == target)
    if not len(at):
        filled = int((rows >= 0).sum())
        at = np.array([min(filled, len(rows) - 1)])
        rows[at[0]] = target
        places[at[0]] = -1
    both, other = [0, int(at[0])], [int(at[0]), 0]
    rows[both], places[both] = rows[other], places[other]


def measure_costs(recommender: Recommender, example: RequestBatch, replay: Replay) -> Costs:
    """Measure what a recommendation costs by its parts: medians over some users."""
    live = recommender.artifact.vectors.live
    if live < 400:
        return USUAL
    users = evenly_spread(replay.slots.present(), _USERS)
    requests = replay.asked_of(users, float(example.now[0]), np.repeat(example.scenes, len(users)))
    results = recommender.reader.search(requests)
    vectors, _, _ = interest_queries(results.histories, recommender.options.searches)
    per_search, tower = recommender.options.per_search, recommender.tower
    search = encoder = 0.0
    if len(vectors):
        search = _microseconds(
            lambda: recommender.artifact.index.search(vectors, per_search), len(users)
        )
    if tower is not None:
        encoder = _microseconds(
            lambda: tower.index.search(results.encoder_queries, per_search), len(users)
        )

    def spent(candidates: int, cut: int) -> float:
        retrieval = Retrieval(reserve=0, cut=dict.fromkeys((*CHEAP._fields, *ITEM_FEATURES), 1.0))
        options = _sized(recommender.options, retrieval, candidates, cut)
        plan = Plan.of(options, _Every())
        return _microseconds(
            lambda: shortlist(
                results, requests, 10, plan, recommender.whole_columns,
                recommender.artifact.vectors, replay.view,
            ),
            len(users),
        )  # fmt: skip

    small, wide, whole = spent(120, 60), spent(320, 60), spent(320, 160)
    return Costs(search, encoder, max(wide - small, 2.0) / 200.0, max(whole - wide, 5.0) / 100.0)


class _Every:
    """Stands for a ranker that reads all columns but the optional ones."""

    column_mask = ~np.isin(COLUMNS, OPTIONAL)
    cut_weights = np.ones(6, np.float32)

    def score(
        self, features: NDArray[np.float32], n_rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the first feature: the network's own time is measured elsewhere."""
        return features[:, :, 0]


def _sized(
    options: RecommendOptions, plan: Retrieval, candidates: int, cut: int
) -> RecommendOptions:
    return replace(options, retrieval=plan, candidates=candidates, cut=cut)


def _microseconds(call: Callable[[], object], users: int) -> float:
    """Return the median processor time of a call by user; the first is for warming up."""
    call()
    times = []
    for _ in range(_REPEATS):
        start = time.thread_time()
        call()
        times.append(time.thread_time() - start)
    return 1e6 * float(np.median(times)) / max(users, 1)
