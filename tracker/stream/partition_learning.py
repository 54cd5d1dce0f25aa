"""PartitionLearning: the online learner of one partition, stored with its states.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tracker.events.batch import EventBatch
from tracker.kernels.row_bytes import LEARNED_KEY
from tracker.recommend.learned_row import LearnedRowError, NewerLearnedRowError
from tracker.recommend.learner import Learner
from tracker.recommend.options import LearnedModels
from tracker.stream.serving import Context, Serving
from tracker.users.rows import UserRows

log = logging.getLogger(__name__)


class Notes(Protocol):
    """A store whose small records are committed together with the position."""

    def note(self, key: bytes, value: bytes | None) -> None:
        """Put a small record into the next commit; a value of None deletes it."""

    def read(self, keys: list[bytes]) -> list[bytes | None]:
        """Return the values of records as of the last commit."""


class PartitionLearning:
    """Runs a learner on top of the artifact in use, and stores its learned models.

    Learned models are a refinement: a record that cannot be read, or that belongs to other models,
    is dropped, logged and counted, and learning restarts from the published models.

    Args:
        context: what the partitions of a worker share; its settings say `on`, `freeze` or `off`.
        partition: partition of the events topic.
        store: stores the record.
        set_aside: keeps a record that cannot be read: its key, its bytes, and why.
    """

    def __init__(
        self,
        context: Context,
        partition: int,
        store: Notes,
        set_aside: Callable[[bytes, bytes, str], object] = lambda key, row, problem: None,
    ) -> None:
        self._set_aside = set_aside
        self._settings = context.settings
        self._metrics = context.metrics
        self._name = f"{context.cluster.topics.events}-{partition}"
        self._partition = str(partition)
        self._store = store
        mode = context.settings.online_learning
        self._learner = None if mode == "off" else Learner(context.kinds, mode == "on")

    def opened(self) -> None:
        """Restore the models that the former owner learned; with `off` they are deleted."""
        (row,) = self._store.read([LEARNED_KEY])
        if self._learner is None:
            if row is not None:
                self._store.note(LEARNED_KEY, None)
                log.info("%s: deleting the models learned online", self._name)
            return
        try:
            self._learner.restore(row)
        except NewerLearnedRowError as error:
            self._learner = None  # with it the row would be written over
            log.error(
                "%s: the models learned online were written by a newer version (%s): they are kept,"
                " and the published ones serve; run the newer version",
                self._name, error,
            )  # fmt: skip
        except LearnedRowError as error:
            self._set_aside(LEARNED_KEY, row or b"", "damaged")
            self._restart(f"their record cannot be read: {error}")

    def learned(self, serving: Serving) -> LearnedModels:
        """Return the learned models that replace the artifact's in lists."""
        learner = self._learner
        if learner is None:
            return LearnedModels()
        self._follow(learner, serving)
        return learner.served

    def learn(
        self, serving: Serving, rows: UserRows, events: EventBatch, times: NDArray[np.float64]
    ) -> None:
        """Learn from a chunk that is not applied yet; the next commit stores the result."""
        learner = self._learner
        if learner is None:
            return
        self._follow(learner, serving)
        steps = learner.learn(serving.recommender, rows, events, times, self._settings.k)
        if steps:
            self._store.note(LEARNED_KEY, learner.row())
            self._metrics.learning_steps.inc(steps)
            self._metrics.count_labelled(learner.take_labelled())
            self._metrics.observe_learning(self._partition, learner.progress)

    def _follow(self, learner: Learner, serving: Serving) -> None:
        if serving.artifact.models is learner.models:
            return
        for name in learner.follow(serving.artifact.models):
            self._restart(
                f"the learned {name} belongs to other weights than those of artifact"
                f" {serving.version}, or to an older version of the tracker"
            )
        self._metrics.observe_learning(self._partition, learner.progress)

    def _restart(self, reason: str) -> None:
        self._metrics.learning_restarts.inc()
        log.warning(
            "%s: online learning restarts from the published models: %s", self._name, reason
        )
