"""Replay: logged events through the Recommender that serves, on a virtual clock, without Kafka."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import EventLog
from indexer.replay.user_slots import UserSlots
from tracker.artifact.artifact import Artifact
from tracker.encoder.interests import SceneQueries
from tracker.encoder.online_attention import OnlineAttention
from tracker.events.wire import hash_id
from tracker.items.counts import apply_item_events
from tracker.items.states import ItemStates
from tracker.items.view import ItemView
from tracker.recommend.learner import Learner
from tracker.recommend.options import RecommendOptions
from tracker.recommend.reader import Reader, SearchResults
from tracker.recommend.recommender import Recommender
from tracker.scoring.blend import Ranker
from tracker.users.readings import Histories
from tracker.users.rows import RequestBatch, UserRows

Rows = NDArray[np.int64]

K = 10
"""Length of the lists whose candidates are learned from."""

AT_ONCE = 16_384
"""Events that are applied together at most, so that memory does not grow with their number."""


class RememberingReader(Reader):
    """A reader that is asked several times about the same users at the same moment.

    Histories, queries, search results and logits are computed once, and remembered until `forget`;
    the answers are those of `Reader`.
    """

    def __init__(self, artifact: Artifact, view: ItemView, options: RecommendOptions) -> None:
        super().__init__(artifact, view, options)
        self._histories: dict[Any, Histories] = {}
        self._queries: dict[Any, _UserQueries] = {}
        self._results: dict[Any, SearchResults] = {}
        self._logits: dict[Any, NDArray[np.float32]] = {}

    def forget(self) -> None:
        """Drop remembered answers."""
        for answers in (self._histories, self._queries, self._results, self._logits):
            answers.clear()

    def histories(self, requests: RequestBatch) -> Histories:
        """Read the users' rows, or remember them."""
        key = requests.slots.tobytes(), requests.now.tobytes()
        histories = self._histories.get(key)
        if histories is None:
            histories = self._histories[key] = super().histories(requests)
        return histories

    def scene_queries(self, requests: RequestBatch) -> SceneQueries | None:
        """Return the queries of scene attention, each user's computed once."""
        answers = self._queries_of(requests)
        by_type = [one[1] for one in answers if one[1] is not None]
        if not by_type:
            return None
        return SceneQueries(np.stack([one[0] for one in answers]), np.stack(by_type))

    def encoder_queries(self, requests: RequestBatch) -> NDArray[np.float32]:
        """Return the queries of the user encoder, each user's computed once."""
        answers = self._queries_of(requests)
        if not answers:
            return super().encoder_queries(requests)
        return np.stack([one[0] for one in answers])

    def search(
        self,
        requests: RequestBatch,
        attention: OnlineAttention | None = None,
        keeps_scene_queries: bool = False,
    ) -> SearchResults:
        """Search both indexes, or remember the results; not if attention is corrected.

        What was learned may change between two calls.
        """
        if attention is not None:
            return super().search(requests, attention, keeps_scene_queries)
        key = tuple(_users_of(requests))
        results = self._results.get(key)
        if results is None:
            results = self._results[key] = super().search(requests)
        if keeps_scene_queries:
            return replace(results, scene_queries=self.scene_queries(requests))
        return results

    def logits(
        self, histories: Histories, requests: RequestBatch, rows: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Return the logits of rows, or remember them."""
        columns = (requests.slots, requests.now, requests.scenes, rows)
        key = tuple(column.tobytes() for column in columns)
        logits = self._logits.get(key)
        if logits is None:
            logits = self._logits[key] = super().logits(histories, requests, rows)
        return logits

    def _queries_of(self, requests: RequestBatch) -> list["_UserQueries"]:
        """Return the queries of each user; if one is new, of all of them at once."""
        keys = _users_of(requests)
        answers = [self._queries[key] for key in keys if key in self._queries]
        if len(answers) == len(keys):
            return answers
        both = super().scene_queries(requests)
        if both is None:
            answers = [(query, None) for query in super().encoder_queries(requests)]
        else:
            answers = list(zip(both.queries, both.by_type, strict=True))
        self._queries.update(zip(keys, answers, strict=True))
        return answers


_UserQueries = tuple[NDArray[np.float32], NDArray[np.float32] | None]
"""Of one user, a row of `SceneQueries.queries` and one of `SceneQueries.by_type`."""


def _users_of(requests: RequestBatch) -> list[Any]:
    """Return for each user what the answer depends on, its row apart."""
    hashes = np.zeros(len(requests), np.uint64) if requests.hashes is None else requests.hashes
    columns = (requests.slots, requests.now, requests.scenes, hashes)
    return list(zip(*(column.tolist() for column in columns), strict=True))


class Replay:
    """One partition that holds every user and item, fed from a log in time order.

    User states, item states and the item view are those of a worker, and events go through
    `Recommender.update`; only Kafka and the stores are missing. What is asked for before an event
    is answered from the states before it.

    Args:
        artifact: vectors, index and what shapes the state.
        log: the events; their weights were made with the artifact's rating scale.
        options: how lists are made.
        ranker: what scores candidates.
        skip: (E,) bool, events that are left out of the states, if any.
        learner: learns from what is applied, as a worker's does; None for frozen weights.
        forgets: the rows of users without further events are used again, which saves memory; else a
            user's slot is its position in `log.user_ids`.
    """

    def __init__(
        self,
        artifact: Artifact,
        log: EventLog,
        options: RecommendOptions | None = None,
        ranker: Ranker | None = None,
        skip: NDArray[np.bool_] | None = None,
        learner: Learner | None = None,
        forgets: bool = False,
    ) -> None:
        self.log = log
        self.position = 0
        self.view = ItemView(artifact.vectors, artifact.manifest.item_counts)
        self.recommender = Recommender(artifact, self.view, options, ranker, RememberingReader)
        self.users = UserRows(artifact.manifest.interest)
        self.slots = UserSlots(log, self.users, forgets)
        self.rows = artifact.vectors.row_of(log.batch.items)
        self.user_hashes = np.array([hash_id(user) for user in log.user_ids], np.uint64)
        self._items = ItemStates(len(log.item_hashes) + 1, artifact.manifest.item_counts)
        self._skip = skip
        self._readers: list[Future[None]] = []
        self.learner = learner
        if learner is not None:
            learner.follow(artifact.models)

    def advance(self, stop: int) -> None:
        """Apply the events from `position` up to `stop`, not included, in their order.

        For the learner they are one chunk, up to AT_ONCE: the fewer at a time, the more of them
        teach. What it learned is given by `online_ranker`; the recommender's own ranker stays as
        published. Item states are brought up once a chunk: exact for what is asked at `stop`.
        """
        while self.position < stop:
            self._advance(min(stop, self.position + AT_ONCE))

    def _advance(self, stop: int) -> None:
        first, self.position = self.position, stop
        events = np.arange(first, stop)
        if self._skip is not None:
            events = events[~self._skip[events]]
        if not len(events):
            return
        batch = self.log.batch.take(events)
        batch.slots[:] = self.slots.of(self.log.users[events], first)
        batch.offsets[:] = events
        if self.learner is not None:
            self.learner.learn(self.recommender, self.users, batch, batch.times, K)
        self.wait()
        applied = self.recommender.update(self.users, batch)
        item_events = applied.item_events
        hashes = item_events["item"]
        slots = np.searchsorted(self.log.item_hashes, hashes)
        apply_item_events(self._items, slots, item_events)
        changed = np.unique(slots)
        self.view.update_from(self._items.copy_rows(changed), self.log.item_hashes[changed])

    def read_beside(self, executor: Executor, task: Callable[[], None]) -> None:
        """Run what reads the states in another thread; they do not change before it is done."""
        self._readers.append(executor.submit(task))

    def wait(self) -> None:
        """Wait for what was begun by `read_beside`; what it raised is raised here."""
        while self._readers:
            self._readers.pop().result()

    def swap(self, artifact: Artifact, options: RecommendOptions | None = None) -> None:
        """Take another artifact into use between events, as a worker does.

        The states stay: a user's row is rebuilt from its ring at the next event or question.
        """
        self.view = ItemView(artifact.vectors, artifact.manifest.item_counts)
        self._items.follow(artifact.manifest.item_counts)
        slots = np.arange(len(self.log.item_hashes))
        self.view.update_from(self._items.copy_rows(slots), self.log.item_hashes)
        self.recommender = Recommender(artifact, self.view, options, reader=RememberingReader)
        self.rows = artifact.vectors.row_of(self.log.batch.items)
        if self.learner is not None:
            self.learner.follow(artifact.models)

    def online_ranker(self) -> Ranker:
        """Return what a worker would rank by now, as it is now: it does not change with `advance`.

        Without a learner, and while what was learned is behind, that is the recommender's own.
        """
        learned = None if self.learner is None else self.learner.served.copy().ranker
        return self.recommender.ranker if learned is None else learned

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
        requests = self.asked(np.array([event]))
        published = self.recommender.reader.scene_queries(requests)
        if published is None:
            return np.zeros(len(rows), np.float32)
        added = learned.queries(published, requests.scenes) - published.queries
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
        probabilities = self.recommender.probabilities(
            self.asked(one), self.rows[one][:, None], calibration
        )
        return float(probabilities[0, 0])

    def asked(
        self,
        events: NDArray[np.int64],
        scenes: NDArray[np.bool_] | bool = True,
        attributes: NDArray[np.bool_] | bool = True,
    ) -> RequestBatch:
        """Return the users of coming events (B,), each at the event's time and in its scene.

        Those without `scenes`, all or (B,), are asked as if there were none, and those without
        `attributes` as if nothing were known of them but their events.
        """
        users, batch = self.log.users[events], self.log.batch
        where = np.where(scenes, batch.scenes[events], np.uint32(0))
        hashes = np.where(attributes, self.user_hashes[users], np.uint64(0))
        slots = self.slots.of(users, self.position)
        return RequestBatch(self.users, slots, batch.times[events], where, hashes)

    def asked_of(
        self, users: NDArray[np.int64], now: float, scenes: NDArray[np.uint32] | None = None
    ) -> RequestBatch:
        """Return users by their positions in `log.user_ids` (B,), at a time, in scenes (B,)."""
        where = np.zeros(len(users), np.uint32) if scenes is None else scenes
        times = np.full(len(users), now)
        slots = self.slots.of(users, self.position)
        return RequestBatch(self.users, slots, times, where, self.user_hashes[users])

    def columns(
        self, events: NDArray[np.int64], rows: Rows, scenes: NDArray[np.bool_] | bool = True
    ) -> NDArray[np.float32]:
        """Compute what a ranker reads of given rows (B, C) for the users of B coming events.

        Each is seen from its own time and scene, but all from the states as they are now.

        Args:
            events: (B,) positions in the log.
            rows: (B, C) catalogue rows, -1 only at the end.
            scenes: which are seen from their scene, see `asked`.

        Returns:
            (B, C, F) float32; zero where the row is -1.
        """
        return self.recommender.columns(self.asked(events, scenes), rows)
