"""Recommender: events into states, states into lists. The same code serves and is evaluated.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tracker.artifact.artifact import Artifact
from tracker.encoder.interests import SceneQueries
from tracker.encoder.online_attention import OnlineAttention
from tracker.events.batch import EventBatch
from tracker.items.view import ItemView
from tracker.recommend.candidates import find_candidates
from tracker.recommend.carry_over import carry_over, join_users, update_users
from tracker.recommend.columns import Columns
from tracker.recommend.explanation import describe
from tracker.recommend.inspection import Inspection, without
from tracker.recommend.lists import RecommendedBatch, joined_batches
from tracker.recommend.options import LearnedModels, RecommendOptions, trained_with
from tracker.recommend.plan import Plan
from tracker.recommend.reader import Reader, SearchResults
from tracker.recommend.selection import select
from tracker.recommend.shortlist import Shortlist, cut_and_fill, shortlist
from tracker.scoring.blend import Blend, Ranker
from tracker.scoring.calibration import Calibration
from tracker.scoring.context import C_ENCODER, COLUMNS
from tracker.users.apply import Applied
from tracker.users.readings import Histories
from tracker.users.rows import RequestBatch, UserRows
from tracker.users.states import UserStates

Step = Callable[[str], AbstractContextManager[object]]
"""Encloses a step by its name: `search`, or `rank`."""

_PART = 1024
"""Users whose lists are made at a time, so that memory for candidates is bounded: about 10 MB."""


@dataclass(frozen=True, slots=True)
class Examples:
    """The candidates that would be ranked for B users, at most C each, for learning.

    `rows` (B, C) int32 catalogue rows after the cut, of which the first `n_unseen` (B,) are of
    items that the user has not seen; `columns` (B, C, F) float32 what the ranker reads of them;
    `scene_queries` are those of scene attention, None without it.
    """

    rows: NDArray[np.int32]
    n_unseen: NDArray[np.int64]
    columns: NDArray[np.float32]
    scene_queries: SceneQueries | None


@dataclass(frozen=True, slots=True)
class Reached:
    """The lists of B users and the rows on the way to them, -1 padded, for evaluation.

    `rows` (B, k) int64 are the lists, `candidates` (B, C) int32 what the channels gave, `cut`
    (B, K) int32 what the first cut left of that.
    """

    rows: NDArray[np.int64]
    candidates: NDArray[np.int32]
    cut: NDArray[np.int32]


class Recommender:
    """Applies events to states and makes lists of them, with one artifact and one item view.

    It keeps nothing between calls, so many threads may use one at once, each on states of its
    own; the kernels run without the interpreter's lock.

    Args:
        artifact: vectors, index and what shapes the state.
        view: the live statistics of the artifact's items.
        options: how lists are made. With the artifact's ranker, what the ranker was trained with
            (`RankerInfo`) comes from there.
        ranker: scores candidates; the artifact's by default, or else the fixed blend.
        reader: makes what reads the users' rows; `Reader` by default.
    """

    def __init__(
        self,
        artifact: Artifact,
        view: ItemView,
        options: RecommendOptions | None = None,
        ranker: Ranker | None = None,
        reader: Callable[[Artifact, ItemView, RecommendOptions], Reader] = Reader,
    ) -> None:
        self.artifact = artifact
        self.view = view
        self.options = RecommendOptions() if options is None else options
        self.ranker: Ranker
        trained = artifact.models.ranker
        if ranker is None and trained is not None:
            self.ranker = trained
            self.options = trained_with(trained.info, self.options)
        else:
            self.ranker = Blend() if ranker is None else ranker
        self._plan = Plan.of(self.options, self.ranker)
        self._vectors = artifact.vectors.columns
        self.tower = artifact.models.tower
        self.reader = reader(artifact, view, self.options)
        self.whole_columns = Columns(artifact, view, self.options)

    def carry_over(self, states: UserStates, slots: NDArray[np.int64]) -> int:
        """Rebuild rows of another artifact from their rings; return how many there were."""
        return carry_over(states, slots, self.artifact)

    def update(self, users: UserRows, events: EventBatch) -> Applied:
        """Apply N events to the rows at `events.slots`, strictly in order: see `update_users`."""
        self.reader.forget()
        return update_users(users, events, self.artifact)

    def join(self, users: UserRows, slot: int, other: int, join: EventBatch) -> Applied | None:
        """Join one user's state to another's: see `join_users`."""
        self.reader.forget()
        return join_users(users, slot, other, join, self.artifact)

    def recommend(
        self,
        requests: RequestBatch,
        k: int,
        learned: LearnedModels | None = None,
        step: Step = lambda name: nullcontext(),
    ) -> RecommendedBatch:
        """Make a list of k items for each of B users.

        1. Read histories and interests from the rows, and the queries of interests and encoder.
        2. Search each index once for the whole batch.
        3. Merge candidates from the channels, each with its quota.
        4. Cut them by cheap features, then compute the streaming features of the rest.
        5. Score them by the ranker.
        6. Pick by score and diversity, the unseen before the seen.
        7. Add the reasons of items, and the users' interests.

        Nobody gets an empty list while there is a live item: without history it is the trend,
        without trend the catalogue's order, and with everything seen the best seen. `learned` takes
        the place of what the artifact has. `step` encloses the search, and the rest.

        Raises:
            ValueError: k is below 1, or the states have another dim.
        """
        return self.recommend_with_histories(requests, k, learned, step)[0]

    def recommend_with_histories(
        self,
        requests: RequestBatch,
        k: int,
        learned: LearnedModels | None = None,
        step: Step = lambda name: nullcontext(),
    ) -> tuple[RecommendedBatch, Histories]:
        """Make lists as `recommend`, and return with them the histories that they are made of."""
        self._check(requests, k)
        learned = LearnedModels() if learned is None else learned
        with step("search"):  # 1, 2
            results = self.reader.search(requests, learned.attention)
        with step("rank"):
            if len(requests) <= _PART:
                return self._lists(results, requests, k, learned), results.histories
            lists = [
                self._lists(results.part(part), requests.part(part), k, learned)
                for part in _parts(len(requests))
            ]
        return joined_batches(lists), results.histories

    def inspect(
        self,
        requests: RequestBatch,
        k: int,
        learned: LearnedModels | None = None,
        excluded: NDArray[np.int64] | None = None,
    ) -> Inspection:
        """Make the list of one user as `recommend` does, and keep what each step gave.

        Args:
            requests: one user.
            k: items wanted.
            learned: as for `recommend`.
            excluded: catalogue rows that are no candidates; none by default. So many more
                candidates are gathered.

        Raises:
            ValueError: as `recommend`, or there is not one user.
        """
        self._check(requests, k)
        if len(requests) != 1:
            raise ValueError(f"{len(requests)} users; one is expected")
        learned = LearnedModels() if learned is None else learned
        excluded = np.zeros(0, np.int64) if excluded is None else excluded
        items = self.artifact.vectors
        results = self.reader.search(requests, learned.attention)
        merged = find_candidates(results, requests, k + len(excluded), self._plan, items, self.view)
        candidates = without(merged, excluded) if len(excluded) else merged
        short = cut_and_fill(
            candidates,
            results,
            requests,
            k,
            self._plan,
            self.whole_columns,
            items,
            self.view,
        )
        ranker = self.ranker if learned.ranker is None else learned.ranker
        scores, picks = self._picked(short, k, ranker)
        batch = self._described(results.histories, requests, short, scores, picks, ranker)
        probabilities = self._probabilities(
            results.histories, requests, batch.rows, learned.calibration
        )
        return Inspection(
            results, merged, short.cut, short.columns, scores, picks, ranker,
            replace(batch, probabilities=probabilities),
        )  # fmt: skip

    def rows(self, requests: RequestBatch, k: int) -> NDArray[np.int64]:
        """Return the catalogue rows (B, k) of the lists that `recommend` makes, -1 padded.

        For evaluation and training, which ask for nothing else of them.

        Raises:
            ValueError: as `recommend`.
        """
        return self.reached(requests, k).rows

    def reached(self, requests: RequestBatch, k: int) -> Reached:
        """Return the rows of the lists that `recommend` makes, and what they were chosen from.

        Raises:
            ValueError: as `recommend`.
        """
        self._check(requests, k)
        results = self.reader.search(requests)
        parts = []
        for part in _parts(len(requests)):
            some, _, picks = self._ranked(results.part(part), requests.part(part), k, self.ranker)
            pick_rows = np.take_along_axis(some.cut.rows, np.maximum(picks, 0), axis=1)
            rows = np.where(picks >= 0, pick_rows, -1).astype(np.int64)
            parts.append((rows, some.candidates.rows, some.cut.rows))
        return Reached(*(np.concatenate(one) for one in zip(*parts, strict=True)))

    def examples(
        self, requests: RequestBatch, k: int, attention: OnlineAttention | None = None
    ) -> Examples:
        """Return the ranker's inputs for learning; arguments as for `recommend`."""
        self._check(requests)
        results = self.reader.search(requests, attention, keeps_scene_queries=True)
        short = self._shortlist(results, requests, k)
        return Examples(short.cut.rows, short.cut.n_unseen, short.columns, results.scene_queries)

    def columns(
        self,
        requests: RequestBatch,
        rows: NDArray[np.int64],
        column_mask: NDArray[np.bool_] | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Compute COLUMNS of given rows (B, C), by the code that serves, for training.

        Args:
            requests: the users, each at a time and in a scene.
            rows: -1 may only stand at the end.
            column_mask: (F,) the columns to compute, as `Ranker.column_mask`; all by default.
            out: (B, C, F) float32 to write them into, instead of zeros.

        Returns:
            (B, C, F) float32; as it was where the row is -1, and where a column is not wanted.
        """
        column_mask = np.ones(len(COLUMNS), np.bool_) if column_mask is None else column_mask
        if out is None:
            out = np.zeros((*rows.shape, len(column_mask)), np.float32)
        histories = self._read(requests)
        queries = None
        if column_mask[C_ENCODER : C_ENCODER + 1].any():
            queries = self.reader.encoder_queries(requests)
        self.whole_columns.of_rows(histories, requests, queries, rows, column_mask, out)
        return out

    def probabilities(
        self,
        requests: RequestBatch,
        rows: NDArray[np.int64],
        calibration: Calibration | None = None,
    ) -> NDArray[np.float32]:
        """Return the probability of a positive event of each of B users on items, in a scene now.

        Args:
            requests: the users, each at a time and in a scene.
            rows: (B, C) catalogue rows, -1 for none.
            calibration: instead of the artifact's own.

        Returns:
            (B, C) float32 above 0 and below 1; NaN where the row is -1, and all of it where no
            prediction was trained.

        Raises:
            ValueError: the states have another dim.
        """
        return self._probabilities(self._read(requests), requests, rows, calibration)

    def logits(self, requests: RequestBatch, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return what `probabilities` calibrates: (B, C), NaN likewise; arguments as there."""
        return self.reader.logits(self._read(requests), requests, rows)

    def _read(self, requests: RequestBatch) -> Histories:
        self._check(requests)
        return self.reader.histories(requests)

    def _probabilities(
        self,
        histories: Histories,
        requests: RequestBatch,
        rows: NDArray[np.int64],
        calibration: Calibration | None,
    ) -> NDArray[np.float32]:
        prediction = self.artifact.models.prediction
        logits = self.reader.logits(histories, requests, rows)
        if prediction is None:
            return logits
        return (calibration or prediction.calibration).probability(logits)

    def _lists(
        self, results: SearchResults, requests: RequestBatch, k: int, learned: LearnedModels
    ) -> RecommendedBatch:
        """Steps 3 to 7 of `recommend`, for a part of the users at a time."""
        ranker = self.ranker if learned.ranker is None else learned.ranker
        short, scores, picks = self._ranked(results, requests, k, ranker)
        # 7. Add reasons and interests.
        histories = results.histories
        batch = self._described(histories, requests, short, scores, picks, ranker)
        if self.artifact.models.prediction is None:
            return batch
        probabilities = self._probabilities(histories, requests, batch.rows, learned.calibration)
        return replace(batch, probabilities=probabilities)

    def _described(
        self,
        histories: Histories,
        requests: RequestBatch,
        short: Shortlist,
        scores: NDArray[np.float32],
        picks: NDArray[np.int64],
        ranker: Ranker,
    ) -> RecommendedBatch:
        """Step 7 of `recommend`, without the probabilities."""
        items = self.artifact.vectors
        return describe(histories, requests, self.options, items, short, scores, picks, ranker)

    def _ranked(
        self, results: SearchResults, requests: RequestBatch, k: int, ranker: Ranker
    ) -> tuple[Shortlist, NDArray[np.float32], NDArray[np.int64]]:
        """Steps 3 to 6: candidates, scores of those after the cut, and what is picked of them."""
        short = self._shortlist(results, requests, k)
        return short, *self._picked(short, k, ranker)

    def _picked(
        self, short: Shortlist, k: int, ranker: Ranker
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Steps 5 and 6: scores of the candidates, and what is picked of them."""
        options, cut = self.options, short.cut
        # 5. Score the candidates.
        scores = ranker.score(short.columns, cut.n_rows)
        # 6. Pick by score and diversity.
        picks = np.empty((len(cut.n_rows), k), np.int64)
        select(
            k, options.diversity_weight, options.seen != "exclude", self._vectors.vectors,
            cut.rows, scores, cut.n_rows, cut.n_unseen, picks,
        )  # fmt: skip
        return scores, picks

    def _shortlist(self, results: SearchResults, requests: RequestBatch, k: int) -> Shortlist:
        """Steps 3 and 4 of `recommend`, by the published ranker: candidates, and their columns."""
        items = self.artifact.vectors
        return shortlist(results, requests, k, self._plan, self.whole_columns, items, self.view)

    def _check(self, requests: RequestBatch, k: int = 1) -> None:
        states_dim, dim = requests.states.config.dim, self.artifact.vectors.dim
        if states_dim != dim:
            raise ValueError(f"states of dim {states_dim}, items of {dim}; equal expected")
        if k < 1:
            raise ValueError(f"k is {k}; at least 1 is expected")


def _parts(users: int) -> list[slice]:
    """Return slices of a batch; one, empty, of an empty batch."""
    return [slice(start, start + _PART) for start in range(0, max(users, 1), _PART)]
