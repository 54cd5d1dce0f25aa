"""HandOver: events outside their user's partition go to the owner of that, and are taken there.

The owner of the partition in which an event lies puts the record into the topic of handed-on
events, in the transaction of its own states. There it is read by the owner of the user.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from tracker.events.batch import EventBatch
from tracker.events.wire import Rejection
from tracker.kafka.outbox import Record
from tracker.kafka.partitioner import fitting, remedy
from tracker.kernels.row_bytes import USER_PREFIX, user_of
from tracker.settings import Partitioner
from tracker.store.partition_store import PartitionStore
from tracker.stream.key_check import KeyCheck
from tracker.stream.serving import Context
from tracker.stream.source_ends import SourceEnds, UnknownOffsetError

log = logging.getLogger(__name__)

SAMPLE_ROWS = 2000
"""Users read when a partition begins to hand on, to tell whose states lie elsewhere."""

SURE_ROWS = 20
"""Users from which on it is no accident that all lie where another partitioner puts them."""

NO_ORIGIN = "no_origin"
HANDED_TWICE = "handed_twice"
HAND_OVER_REASONS = (NO_ORIGIN, HANDED_TWICE)
"""Reasons for which a record of the topic of handed-on events is rejected."""

MOST_DIGITS = 19


class Origin(NamedTuple):
    """Place of a handed-on record in the events topic, and the time at which it came.

    `time` is the record's own in milliseconds, None for none; `time_type` is Kafka's type of it.
    """

    partition: int
    offset: int
    time: int | None
    time_type: int
    partitioner: str


@dataclass(frozen=True, slots=True)
class HandedRecord:
    """A record of the topic of handed-on events, with the time at which it came first."""

    offset: int
    value: bytes | None
    key: bytes | None
    timestamp: int | None
    timestamp_type: int
    origin: Origin


@dataclass(frozen=True, slots=True)
class Misplaced:
    """The events of a chunk that another partition's owner takes.

    `every` are all events of the chunk and `users` their users' ids, `places` (M,) those that lie
    elsewhere among them, and `targets` (M,) the partitions of their users.
    """

    every: EventBatch
    users: list[bytes]
    places: NDArray[np.int64]
    targets: NDArray[np.int64]


class HandOver:
    """Hands the events of one partition on, and restores those that come from others.

    Args:
        context: what the partitions of a worker share.
        partition: partition of the events topic.
        keys: tells which events lie elsewhere.
        store: states and position of the partition.
        ends: end offsets of the events topic; without them, made-up offsets are not told.
    """

    def __init__(
        self,
        context: Context,
        partition: int,
        keys: KeyCheck,
        store: PartitionStore[str],
        ends: SourceEnds | None = None,
    ) -> None:
        topics = context.cluster.topics
        self._metrics = context.metrics
        self._events, self._topic = topics.events, topics.hand_over
        self._partitions = context.cluster.partitions(topics.events)
        self._partition = partition
        self._partitioner: Partitioner = context.settings.partitioner
        self._keys = keys
        self._store = store
        self._ends = ends
        self._needed_read: int | None = None
        self._may_hand_on = (
            context.settings.hand_over == "on" and context.cluster.hands_over and keys.knows_places
        )
        self.hands_on = False

    def opened(self) -> None:
        """Begin to hand on, unless the states say that all producers have another partitioner.

        Users whose states lie elsewhere are looked for once, and named: their new events go to
        their own partition, where their states begin anew.
        """
        reached = self._store.progress.hand_over
        if not self._may_hand_on or reached is None:
            return
        self.hands_on = True
        if reached.partitioner == self._partitioner:
            return
        rows = self._store.scan(USER_PREFIX, most=SAMPLE_ROWS)
        users = [key[len(USER_PREFIX) :] for key, _ in rows]
        away = self._keys.targets_of(users) if users else np.zeros(0, np.int64)
        places = np.flatnonzero(away != self._partition)
        if len(places):
            here = {(user, self._partition) for user in users}
            fit = fitting(here, self._partitions, self._partitioner)
            first = user_of(rows[int(places[0])][0])
            if fit is not None and len(users) >= SURE_ROWS:
                self.hands_on = False
                log.warning(
                    "%s-%d: events are not handed on, since all users of the partition lie where %s"
                    " puts them, and TRACKER_PARTITIONER is %s. %s. Or delete the states with"
                    " `tracker reset-state --everything`",
                    self._events, self._partition, fit, self._partitioner,
                    remedy(self._partitioner, fit),
                )  # fmt: skip
                return
            log.warning(
                "%s-%d: %d of %d users looked at belong to other partitions, the first is %s; new"
                " events go to the user's own partition, and the states here stay as they are."
                " `tracker reset-state --everything` rebuilds all states from the events that are"
                " still kept",
                self._events, self._partition, len(places), len(users), first,
            )  # fmt: skip
        reached.partitioner = self._partitioner
        self._store.advance(self._store.progress.position)

    def split(self, batch: EventBatch) -> tuple[EventBatch, Misplaced]:
        """Return the events to apply here, and those that lie elsewhere.

        If the partition hands nothing on, the second are applied here too.
        """
        users = [user.encode() for user in batch.users]
        places, targets = self._keys.away(users)
        misplaced = Misplaced(batch, users, places, targets)
        if not len(places) or not self.hands_on:
            return batch, misplaced
        stays = np.ones(len(batch), np.bool_)
        stays[places] = False
        return batch.take(np.flatnonzero(stays)), misplaced

    def hand_on(self, records: Sequence[Any], misplaced: Misplaced) -> list[Record]:
        """Return the records that hand events on: one for each record and partition it goes to.

        Args:
            records: of the chunk, in the order of their offsets.
            misplaced: the events among them that lie elsewhere.
        """
        if not self.hands_on or not len(misplaced.places):
            return []
        self._metrics.handed_on.inc(len(misplaced.places))
        offsets = misplaced.every.offsets[misplaced.places].tolist()
        by_offset = {record.offset: record for record in records}
        pairs = dict.fromkeys(zip(offsets, misplaced.targets.tolist(), strict=True))
        return [self._handed(by_offset[offset], target) for offset, target in pairs]

    def restore(
        self, records: Sequence[Any]
    ) -> tuple[list[HandedRecord], list[tuple[Any, Rejection]], int]:
        """Return handed-on records that were not taken before, as they were where they came from.

        Args:
            records: of the topic of handed-on events, in order.

        Returns:
            the records; those without an origin or handed on by another rule, with why; and how
            many came before.

        Raises:
            UnknownOffsetError: read the ends of the events topic, and call again.
        """
        origins = dict(self._reached.origins)
        restored: list[HandedRecord] = []
        refused: list[tuple[Any, Rejection]] = []
        repeated = 0
        for record in records:
            origin = origin_of(record.headers)
            problem = self._problem_of(origin)
            if origin is None or problem is not None:
                refused.append((record, self._rejection(record.offset, *(problem or ("", "")))))
                continue
            if origin.offset <= origins.get(origin.partition, -1):
                repeated += 1
                continue
            origins[origin.partition] = origin.offset
            restored.append(
                HandedRecord(
                    record.offset,
                    record.value,
                    record.key,
                    origin.time,
                    origin.time_type,
                    origin,
                )
            )
        self._needed_read = None
        return restored, refused, repeated

    def keep_own(
        self,
        records: Sequence[HandedRecord],
        batch: EventBatch,
        rejected: list[tuple[int, Rejection]],
    ) -> tuple[EventBatch, list[tuple[int, Rejection]]]:
        """Return the events of users of this partition, with their origins, and the rejections.

        A record may hold events of several partitions; each owner gets a copy and takes its own.
        One without any event of this partition is rejected: it is never handed on again.
        """
        offsets = np.array([record.offset for record in records], np.int64)
        index = np.searchsorted(offsets, batch.offsets)
        away, _ = self._keys.away([user.encode() for user in batch.users])
        own = np.ones(len(batch), np.bool_)
        own[away] = False
        with_events = set(index.tolist())
        # Of a record with several events, those that cannot be taken were rejected where it lies.
        refused = [
            (place, _at_origin(rejection, self._events, records[place].origin))
            for place, rejection in rejected
            if place not in with_events or rejection.reason == "future_timestamp"
        ]
        for place in sorted(with_events - set(index[own].tolist())):
            origin = records[place].origin
            refused.append(
                (
                    place,
                    Rejection(
                        HANDED_TWICE,
                        f"it was handed on to partition {self._partition}, and by"
                        f" {self._partitioner} its user belongs to another one: give all workers"
                        " the same TRACKER_PARTITIONER, and send it again",
                        self._events,
                        origin.partition,
                        origin.offset,
                    ),
                )
            )
        if not own.all():
            places = np.flatnonzero(own)
            batch, index = batch.take(places), index[places]
        batch.partition += self._partitions
        batch.origin_partitions = np.array(
            [records[place].origin.partition for place in index.tolist()], np.int64
        )
        batch.origin_offsets = np.array(
            [records[place].origin.offset for place in index.tolist()], np.int64
        )
        return batch, sorted(refused, key=lambda pair: pair[0])

    def taken(self, records: Sequence[HandedRecord]) -> None:
        """Keep with the position that records were taken; they are not taken again."""
        origins = self._reached.origins
        for record in records:
            origin = record.origin
            origins[origin.partition] = max(origins.get(origin.partition, -1), origin.offset)

    @property
    def _reached(self) -> Any:
        return self._store.reached(True)

    def _handed(self, record: Any, target: int) -> Record:
        headers = (
            ("partition", str(self._partition).encode()),
            ("offset", str(record.offset).encode()),
            ("time", b"" if record.timestamp is None else str(record.timestamp).encode()),
            ("time_type", str(record.timestamp_type or 0).encode()),
            ("partitioner", self._partitioner.encode()),
        )
        return Record(self._topic, target, record.key, record.value, headers)

    def _problem_of(self, origin: Origin | None) -> tuple[str, str] | None:
        """Return reason and message of a record that cannot be taken; None if it can.

        Raises:
            UnknownOffsetError: read the ends of the events topic first.
        """
        if origin is None or not 0 <= origin.partition < self._partitions:
            return NO_ORIGIN, (
                "a record of the topic of handed-on events has the headers partition, offset,"
                " time, time_type and partitioner of a worker, and this one has not: write nothing"
                " to that topic"
            )
        if origin.partitioner != self._partitioner:
            return HANDED_TWICE, (
                f"it was handed on by {origin.partitioner}, and TRACKER_PARTITIONER of this worker"
                f" is {self._partitioner}: give all workers the same one, and send it again"
            )
        if self._ends is None or self._ends.reaches(origin.partition, origin.offset):
            return None
        if self._needed_read is None:
            self._needed_read = self._ends.reads_begun + 1
        if self._ends.last_read < self._needed_read:
            raise UnknownOffsetError(self._ends)
        return NO_ORIGIN, (
            f"it names offset {origin.offset} of partition {origin.partition} of the events topic,"
            f" which ends at {self._ends.end(origin.partition)}: no worker has handed it on"
        )

    def _rejection(self, offset: int, reason: str, message: str) -> Rejection:
        return Rejection(reason, message, self._topic, self._partition, offset)


def _at_origin(rejection: Rejection, topic: str, origin: Origin) -> Rejection:
    return msgspec.structs.replace(
        rejection, topic=topic, partition=origin.partition, offset=origin.offset
    )


def origin_of(headers: Sequence[tuple[str, bytes]] | None) -> Origin | None:
    """Return the origin in the headers of a handed-on record; None if they are no worker's.

    >>> origin_of([("partition", b"3"), ("offset", b"12"), ("time", b""), ("time_type", b"1"),
    ...     ("partitioner", b"murmur2")])
    Origin(partition=3, offset=12, time=None, time_type=1, partitioner='murmur2')
    """
    fields = dict(headers or ())
    numbers = [fields.get(name, b"-") for name in ("partition", "offset", "time_type")]
    time = fields.get("time", b"-")
    if not all(_is_number(number) for number in numbers) or not (time == b"" or _is_number(time)):
        return None
    partition, offset, time_type = map(int, numbers)
    rule = fields.get("partitioner", b"").decode(errors="replace")
    return Origin(partition, offset, int(time) if time else None, time_type, rule)


def _is_number(text: bytes) -> bool:
    return text.isdigit() and len(text) <= MOST_DIGITS and int(text) < 2**63
