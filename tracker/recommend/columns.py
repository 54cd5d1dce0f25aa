"""Columns: the numbers of candidates that a ranker reads, by the code that serves and trains."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.artifact.artifact import Artifact
from tracker.items.view import ItemView
from tracker.kernels.arithmetic import dot
from tracker.kernels.native import native, prefetch
from tracker.recommend.neighbour_walk import WALK_SUMS, WalkOptions, walk_rows
from tracker.recommend.options import RecommendOptions
from tracker.scoring.context import (
    C_CONTEXT,
    C_ENCODER,
    C_ITEM_WEIGHTS,
    C_PROBABILITY,
    read_context,
)
from tracker.scoring.features import FEATURE, CandidateRows, fill_features
from tracker.scoring.item_weights import weigh_rows, weight_columns
from tracker.users.columns import half_lives_of, rows_of
from tracker.users.readings import Histories
from tracker.users.rows import RequestBatch

_AHEAD = 8  # candidates whose vectors are asked for before their turn


class ColumnChoice(NamedTuple):
    """The COLUMNS that a ranker wants: `features` (FEATURES,) bool, and whether any others."""

    features: NDArray[np.bool_]
    context: bool
    encoder: bool
    probability: bool
    item_weights: bool

    @staticmethod
    def of(column_mask: NDArray[np.bool_]) -> "ColumnChoice":
        """Return it by the mask (F,) of a `Ranker`, F at most len(COLUMNS)."""
        return ColumnChoice(
            column_mask[:C_CONTEXT],
            bool(column_mask[C_CONTEXT:C_ENCODER].any()),
            bool(column_mask[C_ENCODER : C_ENCODER + 1].any()),
            bool(column_mask[C_PROBABILITY : C_PROBABILITY + 1].any()),
            bool(column_mask[C_ITEM_WEIGHTS : C_ITEM_WEIGHTS + 1].any()),
        )


class Columns:
    """Computes COLUMNS with one artifact and one item view; it keeps nothing between calls.

    Args:
        artifact: vectors, and the models that were trained.
        view: the live statistics of the artifact's items.
        options: how many events and neighbours are looked at.
    """

    def __init__(self, artifact: Artifact, view: ItemView, options: RecommendOptions) -> None:
        self._view = view
        self._options = options
        self._vectors = artifact.vectors.columns
        self._tower = artifact.models.tower
        self._prediction = artifact.models.prediction
        self.item_weights = weight_columns(artifact.models.item_weights, artifact.vectors)
        self.encoded = (
            np.zeros((len(artifact.vectors), 0), np.float32)
            if self._tower is None
            else self._tower.personal
        )

    def of_rows(
        self,
        histories: Histories,
        requests: RequestBatch,
        queries: NDArray[np.float32] | None,
        rows: NDArray[np.int64],
        column_mask: NDArray[np.bool_],
        out: NDArray[np.float32],
    ) -> None:
        """Write the wanted COLUMNS of rows (B, C) into (B, C, F); see `Recommender.columns`."""
        padded = rows.astype(np.int32)
        n_rows = (padded >= 0).sum(axis=1)
        if column_mask[FEATURE.neighbours_60 : FEATURE.neighbours_60 + WALK_SUMS].any():
            options = WalkOptions(
                self._options.neighbour_events, self._options.neighbour_width, True
            )
            walk_sums = walk_rows(histories, requests.now, options, self._view, padded, n_rows)
        else:
            walk_sums = np.zeros((*rows.shape, WALK_SUMS), np.float32)
        choice = ColumnChoice.of(column_mask)
        weighed = self.weighed(histories, padded, n_rows)
        self.fill(histories, requests, choice, queries, padded, n_rows, walk_sums, weighed, out)

    def weighed(
        self, histories: Histories, rows: NDArray[np.int32], n_rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the column `item_weights` (B, C) of rows (B, C), the first n_rows of each user."""
        out = np.zeros(rows.shape, np.float32)
        if len(self.item_weights.rows):
            weigh_rows(histories, self.item_weights, rows, n_rows, out)
        return out

    def fill(
        self,
        histories: Histories,
        requests: RequestBatch,
        choice: ColumnChoice,
        queries: NDArray[np.float32] | None,
        rows: NDArray[np.int32],
        n_rows: NDArray[np.int64],
        walk_sums: NDArray[np.float32],
        weighed: NDArray[np.float32],
        out: NDArray[np.float32],
    ) -> None:
        """Write the wanted columns of candidates (B, C); the others stay, as does row -1.

        Args:
            histories: of the users.
            requests: the B users.
            choice: which columns.
            queries: (B, E) of `Tower.queries`; None if the encoder's column is not wanted.
            rows: (B, C) catalogue rows.
            n_rows: (B,) candidates of each user; the rows after them are -1.
            walk_sums: (B, C, WALK_SUMS) neighbour sums.
            weighed: (B, C) float32, see `weighed`.
            out: (B, C, F) float32.
        """
        states, view = requests.states, self._view
        fill_features(
            requests.columns, choice.features, self._options.content_events, histories,
            rows_of(states), half_lives_of(states), self._vectors, view.columns,
            CandidateRows(rows, n_rows, walk_sums), out,
        )  # fmt: skip
        if choice.context:
            _spread(read_context(histories, requests, view), n_rows, out, C_CONTEXT)
        if choice.encoder and self._tower is not None and queries is not None:
            _encoder_scores(queries, self.encoded, rows, n_rows, out, C_ENCODER)
        if choice.probability and self._prediction is not None:
            logits = self._prediction.logits(
                histories, requests, rows.astype(np.int64), view, self._vectors.full
            )
            np.copyto(out[:, :, C_PROBABILITY], logits, where=rows >= 0)
        if choice.item_weights:
            np.copyto(out[:, :, C_ITEM_WEIGHTS], weighed, where=rows >= 0)


@native
def _spread(context: Any, n_rows: Any, out: Any, column: int) -> None:
    """Write columns of (B, C, F), from one on: the same of each user's candidates."""
    for b in range(len(n_rows)):
        for c in range(n_rows[b]):
            for i in range(context.shape[1]):
                out[b, c, column + i] = context[b, i]


@native
def _encoder_scores(
    queries: Any, encoded: Any, rows: Any, n_rows: Any, out: Any, column: int
) -> None:
    """Write a column of (B, C, F): the inner product of each user's query with each candidate."""
    for b in range(len(n_rows)):
        for c in range(n_rows[b]):
            if c + _AHEAD < n_rows[b]:
                prefetch(encoded, rows[b, c + _AHEAD])
            out[b, c, column] = dot(queries[b], encoded[rows[b, c]])
