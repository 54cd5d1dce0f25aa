"""The shortlist of each user: candidates after the first cut, and what a ranker reads of them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracker.encoder.attended import Attended
from tracker.items.vectors import ItemVectors
from tracker.items.view import ItemView
from tracker.recommend.candidates import Candidates, find_candidates
from tracker.recommend.columns import Columns
from tracker.recommend.cut import cut_candidates
from tracker.recommend.options import RecommendOptions
from tracker.scoring.blend import Ranker
from tracker.scoring.features import FEATURES
from tracker.users.history import Histories
from tracker.users.request_batch import RequestBatch

_WHOLE_WALK = [
    FEATURES.index(n) for n in ("neighbours_60", "neighbours_10d", "next", "neighbours_live")
]


@dataclass(frozen=True, slots=True)
class Searched:
    """What steps 1 and 2 of `Recommender.recommend` give of B users.

    `owners` and `masses` (B, searches) of `queries`, and `found` (Q, K) rows of each query;
    `wishes` (B, E) what the user encoder looks for, and `wished` (B, K) the rows it found;
    `attended` what scene attention makes of them, where that was asked for.
    """

    read: Histories
    owners: NDArray[np.int64]
    masses: NDArray[np.float32]
    found: NDArray[np.int64]
    wishes: NDArray[np.float32]
    wished: NDArray[np.int64]
    attended: Attended | None

    def part(self, users: slice) -> "Searched":
        """Return some of the users."""
        return Searched(
            self.read.part(users), self.owners[users], self.masses[users], self.found,
            self.wishes[users], self.wished[users], None,
        )  # fmt: skip


def shortlist(
    searched: Searched,
    asked: RequestBatch,
    k: int,
    options: RecommendOptions,
    ranker: Ranker,
    columns: Columns,
    items: ItemVectors,
    view: ItemView,
) -> tuple[Candidates, NDArray[np.float32]]:
    """Gather candidates and cut them: steps 3 and 4 of `Recommender.recommend`.

    Args:
        searched: steps 1 and 2, of B users.
        asked: the same users.
        k: items wanted: the shortlist has room for more.
        options: how many candidates, from where.
        ranker: by what weights the cut is made, and which columns are wanted.
        columns: computes them.
        items: the catalogue.
        view: the live statistics of the items.

    Returns:
        B users' candidates after the cut, C at most, and the F columns that the ranker reads of
        them (B, C, F) float32, zero where it does not want one.
    """
    read, states = searched.read, asked.states
    # 3
    capacity = max(options.candidates, k)
    candidates = find_candidates(
        read, asked, k, capacity, options.quotas,
        options.seen == "keep", options.recent_events, options.neighbour_events,
        options.neighbour_width,
        bool(ranker.wanted[_WHOLE_WALK].any()),
        searched.owners, searched.masses, searched.found, searched.wished,
        items, view,
    )  # fmt: skip
    # 4
    width = max(options.cut, min(k + 5 * options.reserve, capacity))
    cut = Candidates.of_size(len(asked), width)
    cut.n_rows[:] = candidates.n_rows
    cut.n_unseen[:] = candidates.n_unseen
    cut_candidates(
        asked.now, asked.slots, options.reserve, options.seen == "keep",
        ranker.cut_weights,
        read.ring_rows, read.history, read.n_history,
        states.head, states.negative, states.config.negative_half_life_seconds,
        np.asarray(items.vectors), view.log2_counts, view.ref_times,
        searched.wishes, columns.encoded,
        candidates.rows, candidates.channels, candidates.walked, candidates.via,
        cut.n_rows, cut.n_unseen, cut.rows, cut.channels, cut.walked, cut.via,
    )  # fmt: skip
    features = np.zeros((*cut.rows.shape, len(ranker.wanted)), np.float32)
    columns.fill(
        read, asked, ranker.wanted, searched.wishes, cut.rows, cut.n_rows, cut.walked, features
    )
    return cut, features
