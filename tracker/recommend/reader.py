"""Reader: the histories, queries and search results of a batch of requests, and their logits."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracker.artifact.artifact import Artifact
from tracker.encoder.interests import SceneQueries
from tracker.encoder.online_attention import OnlineAttention
from tracker.items.view import ItemView
from tracker.recommend.carry_over import carry_over
from tracker.recommend.interest_search import search_interests
from tracker.recommend.options import RecommendOptions
from tracker.scoring.item_weights import find_by_weights, weight_columns
from tracker.users.readings import Histories, read_histories
from tracker.users.rows import RequestBatch


@dataclass(frozen=True, slots=True)
class SearchResults:
    """The results of both indexes for B users, with the queries behind them.

    `owners` and `masses` (B, searches), and `rows` (Q, K) int64 of each query, of
    `search_interests`; `encoder_queries` (B, E) float32 of the user encoder, and `encoder_rows`
    (B, K) int64 theirs; `weighed_rows` (B, K) int32 are those of the largest sums of item weights;
    `scene_queries` are those of scene attention, None without it or if they
    are not needed.
    """

    histories: Histories
    owners: NDArray[np.int64]
    masses: NDArray[np.float32]
    rows: NDArray[np.int64]
    encoder_queries: NDArray[np.float32]
    encoder_rows: NDArray[np.int64]
    weighed_rows: NDArray[np.int32]
    scene_queries: SceneQueries | None

    def part(self, users: slice) -> "SearchResults":
        """Return some of the users."""
        return SearchResults(
            self.histories.part(users),
            self.owners[users],
            self.masses[users],
            self.rows,
            self.encoder_queries[users],
            self.encoder_rows[users],
            self.weighed_rows[users],
            None,
        )


class Reader:
    """Reads what lists are made of, for a batch of requests at a time.

    This is the seam of `Recommender`: all that depends on users' rows alone goes through it. A
    reader may remember its answers until `forget`, for then rows are about to change. This one
    remembers nothing, so many threads may use it at once.

    Args:
        artifact: vectors, index and models.
        view: the live statistics of the artifact's items.
        options: how many searches, and how many rows of each.
    """

    def __init__(self, artifact: Artifact, view: ItemView, options: RecommendOptions) -> None:
        self.artifact = artifact
        self.view = view
        self.options = options
        self.tower = artifact.models.tower
        self._full = artifact.vectors.columns.full
        self._item_weights = weight_columns(artifact.models.item_weights, artifact.vectors)

    def forget(self) -> None:
        """Drop remembered answers: users' rows are about to change."""

    def histories(self, requests: RequestBatch) -> Histories:
        """Read the users' rows; those of another artifact are carried over first."""
        carry_over(requests.states, requests.slots, self.artifact)
        return read_histories(requests, self.artifact.vectors)

    def scene_queries(self, requests: RequestBatch) -> SceneQueries | None:
        """Return the queries of scene attention, None without it or without users."""
        if self.tower is None or not len(requests):
            return None
        return self.tower.scene_queries(requests)

    def encoder_queries(self, requests: RequestBatch) -> NDArray[np.float32]:
        """Return the queries of the user encoder (B, E); E is 0 without one."""
        if self.tower is None:
            return np.zeros((len(requests), 0), np.float32)
        return np.ascontiguousarray(self.tower.queries(requests))

    def search(
        self,
        requests: RequestBatch,
        attention: OnlineAttention | None = None,
        keeps_scene_queries: bool = False,
    ) -> SearchResults:
        """Find items for the interests and by the user encoder, each index searched once at most.

        Args:
            requests: the B users.
            attention: corrects scene attention; None for the published one.
            keeps_scene_queries: the results are to have them.
        """
        histories = self.histories(requests)
        retrieval = self.options.retrieval
        searches = self.options.searches if retrieval.content else 0
        scene_queries = None
        if keeps_scene_queries or attention is not None:
            scene_queries = self.scene_queries(requests)
        if scene_queries is None:
            queries = self.encoder_queries(requests)
        elif attention is None:
            queries = scene_queries.queries
        else:
            queries = attention.queries(scene_queries, requests.scenes)
        owners, masses, rows = search_interests(
            histories, requests, searches, self.options.per_search, self.artifact
        )
        encoder_rows = np.full((len(requests), 0), -1, np.int64)
        if self.tower is not None and len(requests) and retrieval.encoder:
            encoder_rows, _ = self.tower.index.search(queries, self.options.per_search)
        return SearchResults(
            histories, owners, masses, rows, queries, encoder_rows, self._weighed_rows(histories),
            scene_queries,
        )  # fmt: skip

    def _weighed_rows(self, histories: Histories) -> NDArray[np.int32]:
        """Return the rows of the largest sums of item weights (B, K); K is 0 without any."""
        users = len(histories.n_history)
        if not (len(self._item_weights.rows) and self.options.retrieval.item_weights):
            return np.full((users, 0), -1, np.int32)
        rows = np.empty((users, self.options.per_search), np.int32)
        find_by_weights(
            histories, self._item_weights, self.artifact.vectors.live,
            self.options.seen == "keep", rows,
        )  # fmt: skip
        return rows

    def logits(
        self, histories: Histories, requests: RequestBatch, rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the logits (B, C) of rows (B, C), NaN for a row of -1 and without a prediction."""
        prediction = self.artifact.models.prediction
        if prediction is None:
            return np.full(rows.shape, np.nan, np.float32)
        return prediction.logits(histories, requests, rows, self.view, self._full)
