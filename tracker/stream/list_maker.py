"""ListMaker: makes the recommendation records of users.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.events.batch import EventBatch
from tracker.events.wire import hash_id
from tracker.kafka.outbox import Record
from tracker.kernels.row_bytes import Slots
from tracker.recommend.channels import CHANNELS
from tracker.recommend.lists import RecommendedBatch
from tracker.recommend.options import LearnedModels
from tracker.stream.emission import EmitPolicy
from tracker.stream.live_quality import LastLists, count_channels
from tracker.stream.serving import Context, Serving
from tracker.users.rows import RequestBatch, UserRows


@dataclass(slots=True)
class Lists:
    """Lists to make, as columns of length B: users, and the events that the lists answer.

    `slots` int64 are rows of the users' arrays, `times` float64 the time of each list in seconds,
    `scenes` uint32 and `scene_names` where it is shown, `origins` partition and offset of the
    event in the events topic, `appended` float64 the time at which the broker stored the event, in
    seconds, `versions` the version of each list.
    """

    users: list[str]
    slots: Slots
    times: NDArray[np.float64]
    scenes: NDArray[np.uint32]
    scene_names: list[str | None]
    origins: list[tuple[int, int]]
    appended: NDArray[np.float64]
    versions: list[int]


def user_hashes(serving: Serving, users: list[str]) -> NDArray[np.uint64] | None:
    """Return the hashes (B,) of user ids; None if the artifact knows no attributes of users."""
    tower = serving.artifact.models.tower
    if tower is None or not len(tower.attributes.hashes):
        return None
    return np.array([hash_id(user) for user in users], np.uint64)


_BATCH_COLUMNS = [field.name for field in fields(RecommendedBatch) if field.name != "explanation"]


class MadeLists(NamedTuple):
    """Lists of B users: as arrays, their latencies (B,) float64 in seconds, and their JSON."""

    batch: RecommendedBatch
    latencies: NDArray[np.float64]
    values: list[bytes]

    def part(self, users: slice) -> "MadeLists":
        """Return the lists of some of the users; what explains them is in their JSON alone."""
        columns = [getattr(self.batch, name)[users] for name in _BATCH_COLUMNS]
        return MadeLists(RecommendedBatch(*columns), self.latencies[users], self.values[users])


def make_lists(
    context: Context, rows: UserRows, lists: Lists, serving: Serving, learned: LearnedModels
) -> MadeLists:
    """Make and encode lists of users whose rows are at `lists.slots` of `rows`."""
    requests = RequestBatch(
        rows, lists.slots, lists.times, lists.scenes, user_hashes(serving, lists.users)
    )
    k = context.settings.k
    recommended = serving.recommender.recommend(requests, k, learned, context.trace)
    latencies = np.maximum(context.clock() - lists.appended, 0.0)
    events = context.cluster.topics.events
    with context.trace("encode"):
        values = serving.encoder.encode(
            recommended,
            serving.version,
            [f"{events}-{partition}-{offset}" for partition, offset in lists.origins],
            lists.users,
            lists.times.tolist(),
            lists.scene_names,
            np.round(latencies * 1000.0, 3).tolist(),
            lists.versions,
        )
    return MadeLists(recommended, latencies, values)


def count_items(context: Context, batch: RecommendedBatch, serving: Serving) -> None:
    """Count the items of lists by channel, and what share of the catalogue they are."""
    metrics = context.metrics
    counts, impersonal = count_channels(batch.channels, batch.rows)
    for name, count in zip(CHANNELS, counts.tolist(), strict=True):
        if count:
            metrics.items_from(name).inc(count)
    metrics.impersonal_lists.inc(impersonal)
    metrics.coverage.add(batch.rows, serving.sequence, len(serving.artifact.vectors))


class ListMaker:
    """Makes the recommendation records of one partition, and stamps the users' rows.

    Args:
        context: what the partitions of a worker share.
        partition: partition of the events topic; a list goes to the partition of that number.
        rows: the users' arrays.
        policy: clears the pending list of each user who gets one.
    """

    def __init__(
        self, context: Context, partition: int, rows: UserRows, policy: EmitPolicy
    ) -> None:
        self._context = context
        self._rows = rows
        self._policy = policy
        topics = context.cluster.topics
        self._target = topics.recommendations
        self._target_partition = partition % context.cluster.partitions(self._target)
        self._partition = str(partition)
        self._last = LastLists()

    def make(
        self, lists: Lists, serving: Serving, now: float, learned: LearnedModels
    ) -> list[Record]:
        """Make lists, encode them, and stamp the users' rows.

        Args:
            lists: users, and the events that the lists answer.
            serving: artifact and recommender in use.
            now: wall time, in seconds.
            learned: models learned online, in place of the artifact's.

        Returns:
            the records to send, keyed by user; without unchanged lists if `emit` is `changed`.
        """
        answers = make_lists(self._context, self._rows, lists, serving, learned)
        count_items(self._context, answers.batch, serving)
        return self.finish(lists, serving, now, answers)

    def finish(
        self, lists: Lists, serving: Serving, now: float, answers: "MadeLists"
    ) -> list[Record]:
        """Stamp the users' rows with the lists made for them, and return the records as `make`."""
        settings, metrics = self._context.settings, self._context.metrics
        recommended, latencies, values = answers.batch, answers.latencies, answers.values
        head = self._rows.states.head
        to_send = list(range(len(values)))
        if settings.emit == "changed":
            changed = head["list_hash"][lists.slots] != recommended.list_hash
            to_send = np.flatnonzero(changed).tolist()
            latencies = latencies[changed]
        head["list_hash"][lists.slots] = recommended.list_hash
        head["emitted_at"][lists.slots] = now
        head["emitted_offset"][lists.slots] = head["last_offset"][lists.slots]
        self._policy.mark_sent(lists.users)
        metrics.latency.observe(self._partition, latencies)
        changes = np.abs(recommended.changes).sum(axis=1) / 2.0
        metrics.interest_drift.observe(self._partition, changes)
        self._last.keep(self._rows.states, lists.slots, recommended, serving.sequence)
        metrics.recommendations.inc(len(to_send))
        return [
            Record(self._target, self._target_partition, lists.users[index].encode(), values[index])
            for index in to_send
        ]

    def judge_lists(
        self, events: EventBatch, outcomes: NDArray[np.uint8], serving: Serving
    ) -> None:
        """Count whether users' next positive events were of their last lists.

        Args:
            events: N events, applied.
            outcomes: (N,) of the events.
            serving: artifact and recommender in use.
        """
        states, sequence = self._rows.states, serving.sequence
        missed, hit = self._last.judge(states, events, outcomes, sequence).tolist()
        if missed:
            self._context.metrics.next_events.labels("no").inc(missed)
        if hit:
            self._context.metrics.next_events.labels("yes").inc(hit)


class ListJob(NamedTuple):
    """Lists of one partition that are still to be made, with the artifact's own models.

    `rows` are the arrays of the slots in `lists`, and `now` the wall time in seconds.
    """

    maker: ListMaker
    rows: UserRows
    lists: Lists
    serving: Serving
    now: float

    def make(self) -> list[Record]:
        """Make them alone."""
        return self.maker.make(self.lists, self.serving, self.now, LearnedModels())
