"""Ranker: from features of candidates to scores; and the fixed blend, until one is trained."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.native import native
from tracker.scoring.features import FEATURE, FEATURES, TREND_KNEE

Array = NDArray[Any]

BLEND: Mapping[str, float] = MappingProxyType(
    {
        "trend_short": 1.0,
        "content_60": 2.0,
        "content_95": 2.0,
        "negative": -6.0,
        "neighbours_95": 0.5,
        "repeats": 1.0,
    }
)
"""Weights of the untrained blend; columns not named count nothing, and are not computed.

Trends count above TREND_KNEE only, so: 1 for one event of today, 2 for two, 3 for four; a cosine
of 1 with all of a user's recent events counts 4. Chosen on the replay of two public data sets,
film ratings (a live stream, where the trend leads) and groceries (where it does not): on both it is
above each of its parts alone.
"""


class _CutColumns(NamedTuple):
    content: int = 0
    trend: int = 1
    neighbours: int = 2
    negative: int = 3
    repeats: int = 4
    encoder: int = 5


CUT = _CutColumns()
"""Positions in the weights of the recommender's first cut, see `Ranker.cut_weights`."""


class Ranker(Protocol):
    """A function from features to scores: a network trained on them, or the blend.

    `column_mask` (F,) bool marks the columns that it reads; the others may be left out and are
    zero. Those beyond FEATURES, if any, are the user's context (`context.COLUMNS`).
    `cut_weights` (6,) float32 weigh the features of the first cut, in the order of CUT: content
    cosine, trend by the short half-life, neighbours at .95, the negative sum, repeats and the
    encoder, each on the scale of its feature.
    """

    column_mask: NDArray[np.bool_]
    cut_weights: NDArray[np.float32]

    def score(
        self, features: NDArray[np.float32], n_rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return scores (B, C), higher is better, of features (B, C, F).

        Only the first n_rows[b] candidates of a user are filled; what is returned for the others
        is not read. A user's scores must not depend on the other users of the batch.
        """
        ...


@native
def _blend(features: Array, n_rows: Array, columns: Array, weights: Array, scores: Array) -> None:
    """Write the sums (B, C) of features (B, C, F) at `columns`, each times its weight."""
    for b in range(len(n_rows)):
        for c in range(n_rows[b]):
            total = np.float32(0.0)
            for i in range(len(columns)):
                value = features[b, c, columns[i]]
                if columns[i] < FEATURE.age:
                    value = max(value - np.float32(TREND_KNEE), np.float32(0.0))
                total += weights[i] * value
            scores[b, c] = total


class Blend:
    """A fixed weighted sum of features, trends above their knee: the ranker until one is trained.

    Raises:
        ValueError: a weight names no feature.
    """

    def __init__(self, weights: Mapping[str, float] = BLEND) -> None:
        unknown = sorted(set(weights) - set(FEATURES))
        if unknown:
            raise ValueError(f"no feature {unknown[0]!r}; expected are {', '.join(FEATURES)}")
        self.columns = np.array([FEATURES.index(name) for name in weights], np.int64)
        self.weights = np.array(list(weights.values()), np.float32)
        self.column_mask = np.zeros(len(FEATURES), np.bool_)
        self.column_mask[self.columns] = True
        self.cut_weights = np.array(
            [
                sum(w for name, w in weights.items() if name.startswith("content")),
                sum(w for name, w in weights.items() if name.startswith("trend")),
                sum(w for name, w in weights.items() if name.startswith("neighbours")),
                weights.get("negative", 0.0),
                weights.get("repeats", 0.0),
                0.0,
            ],
            np.float32,
        )

    def score(
        self, features: NDArray[np.float32], n_rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the weighted sums (B, C) of features (B, C, F)."""
        scores = np.zeros(features.shape[:2], np.float32)
        _blend(features, n_rows, self.columns, self.weights, scores)
        return scores
