"""Plan: what options and ranker say of all lists, worked out once."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.recommend.columns import ColumnChoice
from tracker.recommend.neighbour_walk import WalkOptions
from tracker.recommend.options import RecommendOptions
from tracker.scoring.blend import Ranker
from tracker.scoring.features import FEATURE
from tracker.scoring.retrieval import ItemScore, cut_of, item_score

Array = NDArray[Any]

TRENDING = 64
"""Rows taken at least of what trends in a scene, and of each common list."""

SEEN_ROOM = 96
"""Rows taken besides where seen items are left out or come last: they may be most of a trend."""

_WHOLE_WALK = [
    FEATURE.neighbours_60, FEATURE.neighbours_long, FEATURE.next, FEATURE.neighbours_live,
]  # fmt: skip


class Quotas(NamedTuple):
    """Rows that each channel may give to a list of candidates before others get its room.

    `lists` (L,) int64 are those of the lists that all users have in common.
    """

    content: int
    recent: int
    neighbours: int
    scene: int
    encoder: int
    item_weights: int
    lists: Array


class Plan(NamedTuple):
    """The way in which candidates are gathered and cut, the same for every list.

    `options` are those of the lists. `quotas` are those of the channels; `lists` names those that
    all users have in common, with at most `long` rows each, and `list_score` makes the one of the
    highest item score. `walk` limits the walk over neighbours. `cut_weights` (CHEAP,) float32 and
    `cut_score` are those of the first cut. Of its rest so many `columns` are made, as by `choice`.
    """

    options: RecommendOptions
    quotas: Quotas
    lists: list[str]
    long: int
    list_score: ItemScore
    walk: WalkOptions
    cut_weights: NDArray[np.float32]
    cut_score: ItemScore
    columns: int
    choice: ColumnChoice

    @staticmethod
    def of(options: RecommendOptions, ranker: Ranker) -> "Plan":
        """Return the plan of lists with these options, ordered by a ranker."""
        retrieval = options.retrieval
        quotas = {name: rows for name, rows in retrieval.lists.items() if rows > 0}
        weights, score = cut_of(retrieval, ranker.cut_weights)
        whole = bool(ranker.column_mask[_WHOLE_WALK].any())
        long = max(TRENDING, 2 * max(retrieval.lists.values(), default=0), 2 * retrieval.scene)
        if options.seen != "keep":
            long += SEEN_ROOM
        return Plan(
            options,
            Quotas(
                retrieval.content,
                retrieval.recent,
                retrieval.neighbours,
                retrieval.scene,
                retrieval.encoder,
                retrieval.item_weights,
                np.array(list(quotas.values()), np.int64),
            ),
            list(quotas),
            long,
            item_score(retrieval.score),
            WalkOptions(options.neighbour_events, options.neighbour_width, whole),
            weights,
            score,
            len(ranker.column_mask),
            ColumnChoice.of(ranker.column_mask),
        )
