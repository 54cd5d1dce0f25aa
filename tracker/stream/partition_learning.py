"""PartitionLearning: the learner of one partition in a worker, kept beside the states."""

import logging
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tracker.events.batch import EventBatch
from tracker.kernels.row_bytes import LEARNED_KEY
from tracker.recommend.learned_row import LearnedRowError
from tracker.recommend.learner import Learner
from tracker.recommend.options import LearnedModels
from tracker.stream.serving import Context, Serving
from tracker.users.rows import UserRows

log = logging.getLogger(__name__)


class Notes(Protocol):
    """Where the row is kept, so that it is committed with the position: a store."""

    def note(self, key: bytes, value: bytes | None) -> None:
        """Keep a small row, None to delete it."""

    def read(self, keys: list[bytes]) -> list[bytes | None]:
        """Read rows as of the last commit."""


class PartitionLearning:
    """Lets a learner follow the artifact in use and the settings, and keeps its row.

    What was learned is a refinement: a row that cannot be read, or that belongs to another ranker,
    is given up, logged and counted, and learning starts again from what was published.

    Args:
        context: what the partitions share; its settings say `on`, `freeze` or `off`.
        partition: of the events.
        store: keeps the row.
    """

    def __init__(self, context: Context, partition: int, store: Notes) -> None:
        self._settings = context.settings
        self._metrics = context.metrics
        self._name = f"{context.cluster.topics.events}-{partition}"
        self._partition = str(partition)
        self._store = store
        mode = context.settings.online_learning
        self._learner = None if mode == "off" else Learner(context.kinds, mode == "on")

    def opened(self) -> None:
        """Read back what a former owner learned; with `off` it is deleted."""
        (row,) = self._store.read([LEARNED_KEY])
        if self._learner is None:
            if row is not None:
                self._store.note(LEARNED_KEY, None)
                log.info("%s: what was learned online is deleted", self._name)
            return
        try:
            self._learner.restore(row)
        except LearnedRowError as error:
            self._given_up(f"the row of what was learned cannot be read: {error}")

    def learned(self, serving: Serving) -> LearnedModels:
        """Return what lists are to be made with in place of what the artifact has."""
        learner = self._learner
        if learner is None:
            return LearnedModels()
        self._follow(learner, serving)
        return learner.served

    def learn(
        self, serving: Serving, rows: UserRows, events: EventBatch, times: NDArray[np.float64]
    ) -> None:
        """Learn from a chunk that is not applied yet, and note what is to be committed with it."""
        learner = self._learner
        if learner is None:
            return
        self._follow(learner, serving)
        steps = learner.learn(serving.recommender, rows, events, times, self._settings.k)
        if steps:
            self._store.note(LEARNED_KEY, learner.row())
            self._metrics.learning_steps.inc(steps)
        self._metrics.observe_learning(self._partition, learner.progress)

    def _follow(self, learner: Learner, serving: Serving) -> None:
        for name in learner.follow(serving.artifact.models):
            self._given_up(
                f"what {name} learned is of other weights than artifact {serving.version} has, or"
                " of an older version of the tracker"
            )

    def _given_up(self, why: str) -> None:
        self._metrics.learning_restarts.inc()
        log.warning("%s: online learning starts again from what was published: %s", self._name, why)
