"""ListMaker: users to the records of their lists."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracker.events.wire import hash_id
from tracker.kafka.outbox import Record
from tracker.kernels.row_bytes import Slots
from tracker.recommend.options import LearnedModels
from tracker.stream.emission import Emission
from tracker.stream.serving import Context, Serving
from tracker.users.rows import RequestBatch, UserRows


@dataclass(slots=True)
class Lists:
    """Users that a list is to be made for, as columns of length B."""

    users: list[str]
    slots: Slots
    times: NDArray[np.float64]
    scenes: NDArray[np.uint32]
    scene_names: list[str | None]
    offsets: list[int]
    appended: NDArray[np.float64]


def user_hashes(serving: Serving, users: list[str]) -> NDArray[np.uint64] | None:
    """Return the hashes of user ids (B,) where attributes of users are known, else None."""
    tower = serving.artifact.models.tower
    if tower is None or not len(tower.attributes.hashes):
        return None
    return np.array([hash_id(user) for user in users], np.uint64)


class ListMaker:
    """Makes the lists of users of one partition, and takes note that they went out.

    Args:
        context: what the partitions share.
        partition: of the events; a list goes to the partition of the same number.
        rows: the users' arrays.
        emission: who is owed a list.
    """

    def __init__(
        self, context: Context, partition: int, rows: UserRows, emission: Emission
    ) -> None:
        self._context = context
        self._rows = rows
        self._emission = emission
        topics = context.cluster.topics
        self._target = topics.recommendations
        self._target_partition = partition % context.cluster.partitions(self._target)
        self._prefix = f"{topics.events}-{partition}-"

    def make(
        self, lists: Lists, serving: Serving, now: float, learned: LearnedModels
    ) -> list[Record]:
        """Make lists, encode them, and stamp the users' rows.

        Args:
            lists: of whom.
            serving: with what.
            now: wall time, seconds.
            learned: in place of what the artifact has.

        Returns:
            the records to send, keyed by user; fewer where only changed lists are wanted.
        """
        rows, settings, metrics = self._rows, self._context.settings, self._context.metrics
        asked = RequestBatch(
            rows, lists.slots, lists.times, lists.scenes, user_hashes(serving, lists.users)
        )
        found = serving.recommender.recommend(asked, settings.k, learned)
        waited = np.maximum(self._context.clock() - lists.appended, 0.0)
        values = serving.encoder.encode(
            found,
            serving.version,
            [f"{self._prefix}{offset}" for offset in lists.offsets],
            lists.users,
            lists.times.tolist(),
            lists.scene_names,
            np.round(waited * 1000.0, 3).tolist(),
        )
        head = rows.states.head
        wanted = list(range(len(values)))
        if settings.emit == "changed":
            changed = head["list_hash"][lists.slots] != found.list_hash
            wanted = np.flatnonzero(changed).tolist()
            waited = waited[changed]
        head["list_hash"][lists.slots] = found.list_hash
        head["emitted_at"][lists.slots] = now
        head["emitted_offset"][lists.slots] = lists.offsets
        self._emission.sent(lists.users)
        metrics.latency.observe(waited)
        metrics.recommendations.inc(len(wanted))
        return [
            Record(self._target, self._target_partition, lists.users[at].encode(), values[at])
            for at in wanted
        ]
