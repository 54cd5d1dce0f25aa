"""Replay: logged events through the Recommender that serves, on a virtual clock, without Kafka."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.histories import EventLog
from tracker.apply import Applied
from tracker.artifact import Artifact
from tracker.event_batch import EventBatch
from tracker.events import hash_id
from tracker.history import Histories
from tracker.item_counts import apply_item_events
from tracker.item_state import ItemStates
from tracker.item_view import ItemView
from tracker.learner import Learner
from tracker.online_attention import OnlineAttention
from tracker.ranker import Ranker
from tracker.recommend_options import RecommendOptions
from tracker.recommender import Recommender
from tracker.request_batch import RequestBatch
from tracker.user_rows import UserRows

Rows = NDArray[np.int64]

K = 10
"""Length of the lists whose candidates are learned from."""


class Remembering(Recommender):
    """A recommender that is asked several times in a row of the same users at the same moment.

    What the rows say of them, and what the indexes find, is then computed once; what is answered is
    the same. Users' rows may only change by `update`.
    """

    def __init__(
        self,
        artifact: Artifact,
        view: ItemView,
        options: RecommendOptions | None = None,
        ranker: Ranker | None = None,
    ) -> None:
        super().__init__(artifact, view, options, ranker)
        self._were: tuple[Any, Histories] | None = None
        self._wished: tuple[Any, NDArray[np.float32]] | None = None
        self._found: tuple[Any, Any] | None = None

    def update(self, users: UserRows, events: EventBatch) -> Applied:
        """Apply events as `Recommender.update` does, and forget what was asked before."""
        self._were = self._wished = self._found = None
        return super().update(users, events)

    def _read(self, asked: RequestBatch) -> Histories:
        key = id(asked.users), asked.slots.tobytes(), asked.now.tobytes()
        if self._were is None or self._were[0] != key:
            self._were = key, super()._read(asked)
        return self._were[1]

    def _wishes(self, asked: RequestBatch) -> NDArray[np.float32]:
        key = _key(asked)
        if self._wished is None or self._wished[0] != key:
            self._wished = key, super()._wishes(asked)
        return self._wished[1].copy()

    def _searched(
        self,
        asked: RequestBatch,
        attention: OnlineAttention | None = None,
        attends: bool = False,
    ) -> Any:
        if attention is not None or attends:  # what is learned may change between two questions
            return super()._searched(asked, attention, attends)
        key = _key(asked)
        if self._found is None or self._found[0] != key:
            self._found = key, super()._searched(asked)
        return self._found[1]


def _key(asked: RequestBatch) -> tuple[Any, ...]:
    """Return what stands for a question."""
    told = (asked.slots, asked.now, asked.scenes, asked.hashes)
    return id(asked.users), *(None if array is None else array.tobytes() for array in told)


class Replay:
    """One partition that holds every user and item, fed from a log in time order.

    User states, item states and the item view are those of a worker, and events go through
    `Recommender.update`; only Kafka and the stores are missing. What is asked for before an event
    is answered from the states before it. A user's arena slot is its position in `log.user_ids`.

    Args:
        artifact: vectors, index and what shapes the state.
        log: the events; their weights were made with the artifact's rating scale.
        options: how lists are made.
        ranker: what scores candidates.
        skip: (E,) bool, events that are left out of the states, if any.
        learner: learns from what is applied, as a worker's does; None for frozen weights.
    """

    def __init__(
        self,
        artifact: Artifact,
        log: EventLog,
        options: RecommendOptions | None = None,
        ranker: Ranker | None = None,
        skip: NDArray[np.bool_] | None = None,
        learner: Learner | None = None,
    ) -> None:
        self.log = log
        self.position = 0
        self.view = ItemView(artifact.vectors)
        self.recommender: Recommender = Remembering(artifact, self.view, options, ranker)
        self.users = UserRows(artifact.manifest.interest)
        self.users.grow(max(1, len(log.user_ids)))
        self.rows = artifact.vectors.row_of(log.batch.items)
        self.user_hashes = np.array([hash_id(user) for user in log.user_ids], np.uint64)
        self._items = ItemStates(len(log.item_hashes) + 1)
        self._skip = skip
        self.learner = learner
        if learner is not None:
            learner.follow(artifact.models)

    def advance(self, stop: int) -> None:
        """Apply the events from `position` up to `stop`, not included, in their order.

        For the learner they are one chunk: the fewer at a time, the more of them teach. What it
        learned is given by `online_ranker`; the recommender's own ranker stays as published.
        Item states are brought up once for all of them: exact for what is asked at `stop`.
        """
        if stop <= self.position:
            return
        events = np.arange(self.position, stop)
        self.position = stop
        if self._skip is not None:
            events = events[~self._skip[events]]
        if not len(events):
            return
        batch = self.log.batch.take(events)
        batch.slots[:] = self.log.users[events]
        batch.offsets[:] = events
        if self.learner is not None:
            self.learner.learn(self.recommender, self.users, batch, batch.times, K)
        applied = self.recommender.update(self.users, batch)
        item_events = applied.item_events
        hashes = item_events["item"]
        slots = np.searchsorted(self.log.item_hashes, hashes)
        apply_item_events(self._items, slots, item_events)
        changed = np.unique(slots)
        self.view.update_from(self._items.copy_rows(changed), self.log.item_hashes[changed])

    def swap(self, artifact: Artifact, options: RecommendOptions | None = None) -> None:
        """Take another artifact into use between events, as a worker does.

        The states stay: a user's row is rebuilt from its ring at the next event or question.
        """
        self.view = ItemView(artifact.vectors)
        slots = np.arange(len(self.log.item_hashes))
        self.view.update_from(self._items.copy_rows(slots), self.log.item_hashes)
        self.recommender = Remembering(artifact, self.view, options)
        self.rows = artifact.vectors.row_of(self.log.batch.items)
        if self.learner is not None:
            self.learner.follow(artifact.models)

    def online_ranker(self) -> Ranker:
        """Return what a worker would rank by now, as it is now: it does not change with `advance`.

        Without a learner, and while what was learned is behind, that is the recommender's own.
        """
        learned = None if self.learner is None else self.learner.served.ranker
        return self.recommender.ranker if learned is None else learned.copy()

    def online_attention(self, event: int, rows: Rows) -> NDArray[np.float32]:
        """Return what attention as learned so far adds to the encoder's score of rows.

        Args:
            event: position of a coming event in the log.
            rows: (C,) of the catalogue.
        """
        tower = self.recommender.tower
        learned = None if self.learner is None else self.learner.served.attention
        if tower is None or learned is None:
            return np.zeros(len(rows), np.float32)
        asked = self.asked(np.array([event]))
        attended = tower.attended(asked.states, asked.slots, asked.now, asked.scenes, asked.hashes)
        if attended is None:
            return np.zeros(len(rows), np.float32)
        added = learned.wishes(attended, asked.scenes) - attended.wishes
        return np.asarray(tower.personal[rows] @ added[0], np.float32)

    def probability(self, event: int, learned: bool = False) -> float:
        """Return the probability that a coming event is positive; NaN if its item is not known.

        Args:
            event: position in the log.
            learned: by the calibration as learned so far, where there is one and it is ahead.
        """
        calibration = None
        if learned and self.learner is not None:
            calibration = self.learner.served.calibration
        one = np.array([event])
        found = self.recommender.probabilities(
            self.asked(one), self.rows[one][:, None], calibration
        )
        return float(found[0, 0])

    def asked(
        self, events: NDArray[np.int64], scenes: bool = True, attributes: bool = True
    ) -> RequestBatch:
        """Return the users of coming events (B,), each at the event's time and in its scene.

        Without `scenes` they are asked as if there were none, and without `attributes` as if
        nothing were known of them but their events.
        """
        users, batch = self.log.users[events], self.log.batch
        where = batch.scenes[events] if scenes else np.zeros(len(events), np.uint32)
        hashes = self.user_hashes[users] if attributes else None
        return RequestBatch(self.users, users, batch.times[events], where, hashes)

    def asked_of(
        self, users: NDArray[np.int64], now: float, scenes: NDArray[np.uint32] | None = None
    ) -> RequestBatch:
        """Return users by their positions in `log.user_ids` (B,), at a time, in scenes (B,)."""
        where = np.zeros(len(users), np.uint32) if scenes is None else scenes
        times = np.full(len(users), now)
        return RequestBatch(self.users, users, times, where, self.user_hashes[users])

    def columns(
        self,
        events: NDArray[np.int64],
        rows: Rows,
        scenes: bool = True,
        attributes: bool = True,
        wanted: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.float32]:
        """Compute what a ranker reads of given rows (B, C) for the users of B coming events.

        Each is seen from its own time and scene, but all from the states as they are now.

        Args:
            events: (B,) positions in the log.
            rows: (B, C) catalogue rows, -1 only at the end.
            scenes: see `asked`.
            attributes: see `asked`.
            wanted: (F,) which columns; all by default.

        Returns:
            (B, C, F) float32; zero where the row is -1, and where a column is not wanted.
        """
        return self.recommender.columns(self.asked(events, scenes, attributes), rows, wanted)
