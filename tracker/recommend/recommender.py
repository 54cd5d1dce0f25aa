"""Recommender: events into states, states into lists. The same code serves and is evaluated.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tracker.artifact.artifact import Artifact
from tracker.encoder.interests import SceneQueries
from tracker.encoder.online_attention import OnlineAttention
from tracker.events.batch import EventBatch
from tracker.events.wire import hash_id
from tracker.items.view import ItemView
from tracker.recommend.candidates import Candidates
from tracker.recommend.carry_over import carry_over
from tracker.recommend.columns import Columns
from tracker.recommend.lists import RecommendedBatch, describe
from tracker.recommend.options import LearnedModels, RecommendOptions, trained_with
from tracker.recommend.reader import SearchResults
from tracker.recommend.selection import select
from tracker.recommend.shortlist import shortlist
from tracker.scoring.blend import Blend, Ranker
from tracker.scoring.calibration import Calibration
from tracker.scoring.context import C_ENCODER, COLUMNS
from tracker.users.apply import Applied, apply_events, joined
from tracker.users.readings import Histories, interest_queries, read_histories
from tracker.users.rows import RequestBatch, UserRows
from tracker.users.states import UserStates

_PART = 256
"""Users whose lists are made at a time, so that memory for candidates is bounded."""


@dataclass(frozen=True, slots=True)
class Examples:
    """What would be ranked for B users, of C candidates at most, to be learned from.

    `rows` (B, C) int32 catalogue rows after the cut, of which the first `n_unseen` (B,) are of
    items that the user has not seen; `columns` (B, C, F) float32 what the ranker reads of them;
    `attended` is what scene attention makes of their interests, None without it.
    """

    rows: NDArray[np.int32]
    n_unseen: NDArray[np.int64]
    columns: NDArray[np.float32]
    attended: SceneQueries | None


class Recommender:
    """Applies events to states and makes lists of them, with one artifact and one item view.

    It keeps nothing between calls, so many threads may use one at once, each on states of its
    own; the kernels run without the interpreter's lock.

    Args:
        artifact: vectors, index and what shapes the state.
        view: the live statistics of the artifact's items.
        options: how lists are made. With the artifact's ranker, what the ranker was trained with
            (`RankerInfo`) comes from there.
        ranker: what scores candidates; the artifact's by default, or else the fixed blend.
    """

    def __init__(
        self,
        artifact: Artifact,
        view: ItemView,
        options: RecommendOptions | None = None,
        ranker: Ranker | None = None,
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
        self._basis = hash_id(artifact.manifest.basis)
        self._vectors = artifact.vectors.columns
        self.tower = artifact.models.tower
        self._columns = Columns(artifact, view, self.options)

    def carry_over(self, states: UserStates, slots: NDArray[np.int64]) -> int:
        """Rebuild rows of another artifact from their rings; return how many there were."""
        return carry_over(states, slots, self.artifact)

    def update(self, users: UserRows, events: EventBatch) -> Applied:
        """Apply N events to the rows at `events.slots`, strictly in order.

        `events.rows` is filled from the catalogue; rows of another basis or encoder are rebuilt
        first. The user encoder takes the events in ordered waves.

        Returns:
            what became of each event, and the item events that follow from them.
        """
        events.rows[:] = self.artifact.vectors.row_of(events.items)
        states = users.states
        self.carry_over(states, events.slots)
        if self.tower is None:
            return self._apply(users, events)
        parts = []
        for part in self.tower.stretches(events):
            some = events if len(part) == len(events) else events.take(part)
            head = states.head[some.slots]
            last_times = np.where(head["n_ring"] > 0, head["last_time"], np.nan)
            applied = self._apply(users, some)
            self.tower.update(states, some, applied.outcomes, last_times, self.artifact.vectors)
            parts.append(applied)
        return parts[0] if len(parts) == 1 else joined(parts)

    def _apply(self, users: UserRows, events: EventBatch) -> Applied:
        return apply_events(
            users.states,
            users.seen,
            users.seen_slots,
            events,
            self.artifact.vectors,
            self._basis,
            self.artifact.manifest.sequence,
        )

    def recommend(
        self, requests: RequestBatch, k: int, learned: LearnedModels | None = None
    ) -> RecommendedBatch:
        """Make a list of k items for each of B users.

        1. Rings, slots and searches are read from the rows, and what the user encoder looks for.
        2. One search of each index for the whole batch.
        3. Candidates are merged from the channels, each with its quota.
        4. A first cut by cheap features, then the streaming features of the rest.
        5. The ranker scores them.
        6. Lists by score and diversity, the unseen before the seen.
        7. Reasons of items, and the users' interests.

        Nobody gets an empty list while there is a live item: without history it is the trend,
        without trend the catalogue's order, and with everything seen the best seen. `learned` takes
        the place of what the artifact has.

        Raises:
            ValueError: k is below 1, or the states have another dim.
        """
        self._check(requests, k)
        learned = LearnedModels() if learned is None else learned
        results = self._searched(requests, learned.attention)  # 1, 2
        lists = [
            self._lists(results.part(part), requests.part(part), k, learned)
            for part in _parts(len(requests))
        ]
        return RecommendedBatch(
            *(
                np.concatenate([getattr(made, name) for made in lists])
                for name in RecommendedBatch.__dataclass_fields__
            )
        )

    def rows(self, requests: RequestBatch, k: int) -> NDArray[np.int64]:
        """Return the catalogue rows (B, k) of the lists that `recommend` makes, -1 padded.

        For evaluation and training, which ask for nothing else of them.

        Raises:
            ValueError: as `recommend`.
        """
        self._check(requests, k)
        results = self._searched(requests)
        found = np.full((len(requests), k), -1, np.int64)
        for part in _parts(len(requests)):
            cut, _, picks = self._ranked(results.part(part), requests.part(part), k, self.ranker)
            taken = np.take_along_axis(cut.rows, np.maximum(picks, 0), axis=1)
            found[part] = np.where(picks >= 0, taken, -1)
        return found

    def examples(
        self, requests: RequestBatch, k: int, attention: OnlineAttention | None = None
    ) -> Examples:
        """Give what `recommend` would have the ranker score, for learning; arguments as there."""
        self._check(requests)
        results = self._searched(requests, attention, attends=True)
        cut, columns = self._shortlist(results, requests, k)
        return Examples(cut.rows, cut.n_unseen, columns, results.attended)

    def columns(
        self,
        requests: RequestBatch,
        rows: NDArray[np.int64],
        wanted: NDArray[np.bool_] | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Compute COLUMNS of given rows (B, C), by the code that serves, for training.

        Args:
            requests: the users, each at a time and in a scene.
            rows: -1 may only stand at the end.
            wanted: (F,) which of them, as `Ranker.wanted`; all by default.
            out: (B, C, F) float32 to write them into, instead of zeros.

        Returns:
            (B, C, F) float32; as it was where the row is -1, and where a column is not wanted.
        """
        wanted = np.ones(len(COLUMNS), np.bool_) if wanted is None else wanted
        if out is None:
            out = np.zeros((*rows.shape, len(wanted)), np.float32)
        wishes = self._wishes(requests) if wanted[C_ENCODER : C_ENCODER + 1].any() else None
        self._columns.of_rows(self._read(requests), requests, wishes, rows, wanted, out)
        return out

    def probabilities(
        self,
        requests: RequestBatch,
        rows: NDArray[np.int64],
        calibration: Calibration | None = None,
    ) -> NDArray[np.float32]:
        """Return the probability that each of B users takes to items, in a scene at a time.

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
        return self._logits(self._read(requests), requests, rows)

    def _read(self, requests: RequestBatch) -> Histories:
        """Return what is read of the users' rows, those of another artifact carried over."""
        self._check(requests)
        self.carry_over(requests.states, requests.slots)
        return read_histories(requests, self.artifact.vectors)

    def _probabilities(
        self,
        histories: Histories,
        requests: RequestBatch,
        rows: NDArray[np.int64],
        calibration: Calibration | None,
    ) -> NDArray[np.float32]:
        prediction = self.artifact.models.prediction
        logits = self._logits(histories, requests, rows)
        if prediction is None:
            return logits
        return (calibration or prediction.calibration).probability(logits)

    def _logits(
        self, histories: Histories, requests: RequestBatch, rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        prediction = self.artifact.models.prediction
        if prediction is None:
            return np.full(rows.shape, np.nan, np.float32)
        return prediction.logits(histories, requests, rows, self.view, self._vectors.full)

    def _wishes(self, requests: RequestBatch) -> NDArray[np.float32]:
        """Return what the user encoder looks for, (B, E); E is 0 without one."""
        if self.tower is None:
            return np.zeros((len(requests), 0), np.float32)
        return np.ascontiguousarray(self.tower.queries(requests))

    def attended(self, requests: RequestBatch) -> SceneQueries | None:
        """Return what scene attention makes of B users' interests, None without it or users."""
        if self.tower is None or not len(requests):
            return None
        return self.tower.scene_queries(requests)

    def _searched(
        self,
        requests: RequestBatch,
        attention: OnlineAttention | None = None,
        attends: bool = False,
    ) -> SearchResults:
        """Steps 1 and 2 of `recommend`; with `attends` what attention makes of it is kept too."""
        histories = self._read(requests)
        vectors, owners, masses = interest_queries(histories, self.options.searches)
        attended = self.attended(requests) if attends or attention is not None else None
        if attended is None:
            encoder_queries = self._wishes(requests)
        elif attention is None:
            encoder_queries = attended.queries
        else:
            encoder_queries = attention.queries(attended, requests.scenes)
        rows = np.full((0, 1), -1, np.int64)
        if len(vectors):
            rows, _ = self.artifact.index.search(vectors, self.options.per_search)
        encoder_rows = np.full((len(requests), 0), -1, np.int64)
        if self.tower is not None and len(requests):
            encoder_rows, _ = self.tower.index.search(encoder_queries, self.options.per_search)
        return SearchResults(
            histories, owners, masses, rows, encoder_queries, encoder_rows, attended
        )

    def _lists(
        self, results: SearchResults, requests: RequestBatch, k: int, learned: LearnedModels
    ) -> RecommendedBatch:
        """Steps 3 to 7 of `recommend`, for a part of the users at a time."""
        ranker = self.ranker if learned.ranker is None else learned.ranker
        cut, scores, picks = self._ranked(results, requests, k, ranker)
        # 7
        histories, items = results.histories, self.artifact.vectors
        made = describe(histories, requests, self.options, items, cut, scores, picks)
        found = self._probabilities(histories, requests, made.rows, learned.calibration)
        return replace(made, probabilities=found)

    def _ranked(
        self, results: SearchResults, requests: RequestBatch, k: int, ranker: Ranker
    ) -> tuple[Candidates, NDArray[np.float32], NDArray[np.int64]]:
        """Steps 3 to 6: candidates after the cut, their scores, and what is picked of them."""
        options = self.options
        cut, features = self._shortlist(results, requests, k)
        # 5
        scores = ranker.score(features, cut.n_rows)
        # 6
        picks = np.empty((len(requests), k), np.int64)
        select(
            k, options.diversity, options.seen != "exclude", self._vectors.vectors,
            cut.rows, scores, cut.n_rows, cut.n_unseen, picks,
        )  # fmt: skip
        return cut, scores, picks

    def _shortlist(
        self, results: SearchResults, requests: RequestBatch, k: int
    ) -> tuple[Candidates, NDArray[np.float32]]:
        """Steps 3 and 4 of `recommend`, by the published ranker: candidates, and their columns."""
        items, options = self.artifact.vectors, self.options
        return shortlist(
            results, requests, k, options, self.ranker, self._columns, items, self.view
        )

    def _check(self, requests: RequestBatch, k: int = 1) -> None:
        found, dim = requests.states.config.dim, self.artifact.vectors.dim
        if found != dim:
            raise ValueError(f"states of dim {found}, items of {dim}; equal expected")
        if k < 1:
            raise ValueError(f"k is {k}; at least 1 is expected")


def _parts(users: int) -> list[slice]:
    """Return slices of a batch; one, empty, of an empty batch."""
    return [slice(start, start + _PART) for start in range(0, max(users, 1), _PART)]
