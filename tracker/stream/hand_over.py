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
from tracker.events.wire import OtherEvent, OwnFormat, Rejection, encode_event
from tracker.feeds.source_ends import SourceEnds, UnknownOffsetError
from tracker.kafka.hand_over_records import (
    SOURCES,
    JoiningState,
    Origin,
    headers_of,
    origin_of,
    readdressed_of,
    state_record,
)
from tracker.kafka.outbox import Record
from tracker.kafka.partitioner import fitting, partition_of, remedy
from tracker.kernels.row_bytes import HIDDEN, USER_PREFIX, user_of
from tracker.settings import Partitioner
from tracker.store.partition_store import PartitionStore
from tracker.stream.key_check import KeyCheck
from tracker.stream.serving import Context

log = logging.getLogger(__name__)

SAMPLE_ROWS = 2000
"""Users read when a partition begins to hand on, to tell whose states lie elsewhere."""

SURE_ROWS = 20
"""Users from which on it is no accident that all lie where another partitioner puts them."""

NO_ORIGIN = "no_origin"
HANDED_TWICE = "handed_twice"
HAND_OVER_REASONS = (NO_ORIGIN, HANDED_TWICE)
"""Reasons for which a record of the topic of handed-on events is rejected."""


@dataclass(frozen=True, slots=True)
class HandedRecord:
    """A record of the topic of handed-on events, with the time at which it came first."""

    offset: int
    value: bytes | None
    key: bytes | None
    timestamp: int | None
    timestamp_type: int
    origin: Origin
    place: tuple[int, int]  # of the event in the events topic
    state: "JoiningState | None" = None
    homes: tuple[tuple[int, int], ...] = ()  # see `Readdressed`


JOINING = "\0joining"
"""Begins the key under which a handed-on state is in memory until it has joined."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """A user of this partition whose state goes to that of another one.

    `place` is that of the event, `time` its time in seconds, `source` the number of the topic and
    partition that it came from (see `HandOver.leaving`), `offset` its offset there.
    """

    user: str
    was: str
    target: int
    time: float
    place: tuple[int, int]
    source: int
    offset: int


class Misplaced(NamedTuple):
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
        self._user_ids = context.settings.log_user_ids
        self._has_pseudonyms = bool(context.pseudonyms)
        self._may_hand_on = (
            context.settings.hand_over == "on" and context.cluster.hands_over and keys.knows_places
        )
        self.hands_on = False

    def opened(self) -> None:
        """Begin to hand on, unless the states say that all producers have another partitioner.

        Users whose states lie elsewhere are looked for once, and counted: their new events go to
        their own partition, where their states begin anew. A pseudonym does not tell where its user
        belongs, so with pseudonyms nobody is looked for.
        """
        reached = self._store.progress.hand_over
        if not self._may_hand_on or reached is None:
            return
        self.hands_on = True
        if reached.partitioner == self._partitioner:
            return
        rows = [] if self._has_pseudonyms else self._store.scan(USER_PREFIX, most=SAMPLE_ROWS)
        users = [key[len(USER_PREFIX) :] for key, _ in rows]
        away = self._keys.targets_of(users) if users else np.zeros(0, np.int64)
        places = np.flatnonzero(away != self._partition)
        if len(places):
            here = {(user, self._partition) for user in users}
            fit = fitting(here, self._partitions, self._partitioner)
            first = user_of(rows[int(places[0])][0]) if self._user_ids else HIDDEN
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
                " events go to the user's own partition, and the states here stay as they are until"
                " `tracker merge-states` moves them, while all workers are stopped",
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
        joined = misplaced.every.joined
        if not self.hands_on or not (len(misplaced.places) or joined):
            return []
        self._metrics.handed_on.inc(len(misplaced.places))
        offsets = misplaced.every.offsets[misplaced.places].tolist()
        by_offset = {record.offset: record for record in records}
        targets = misplaced.targets.tolist()
        pairs = dict.fromkeys(
            sorted([*zip(offsets, targets, strict=True), *self._of_joining(misplaced.every)])
        )
        return [self._handed(by_offset[offset], target) for offset, target in pairs]

    def _of_joining(self, batch: EventBatch) -> list[tuple[int, int]]:
        """Return offset and target of joins whose one user is of another partition than here."""
        if not batch.joined:
            return []
        homes = self._keys.targets_of([was.encode() for was in batch.joined.values()]).tolist()
        return [
            (int(batch.offsets[place]), home)
            for place, home in zip(batch.joined, homes, strict=True)
            if home != self._partition
        ]

    def leaving(self, batch: EventBatch, records: Sequence[Any] | None) -> list[Leaving]:
        """Return the users of this partition whose states go to users of others.

        Each source has numbers of its own, see `SOURCES`.

        Args:
            batch: all events of a chunk, before any is left out.
            records: the handed-on records of the chunk; None if they lie in the events topic.
        """
        if not self.hands_on or not batch.joined:
            return []
        names = list(batch.joined.values())
        homes = self._keys.targets_of([was.encode() for was in names]).tolist()
        by_offset = {record.offset: record for record in records or ()}
        for number, (at, was) in enumerate(batch.joined.items()):
            record = by_offset.get(int(batch.offsets[at]))
            if record is not None and (
                record.state is not None or not self._was_at_home(record, was)
            ):
                homes[number] = -1  # a state that was handed on is where it belongs
        users = [batch.users[place] for place in batch.joined]
        targets = self._keys.targets_of([user.encode() for user in users]).tolist()
        places = {} if records is None else {record.offset: record.place for record in records}
        source = (2 if records is None else 1) * self._partitions + self._partition
        return [
            Leaving(
                user,
                was,
                target,
                float(batch.times[at]),
                places.get(offset, (self._partition, offset)),
                source,
                offset,
            )
            for at, was, home, user, target in zip(
                batch.joined, names, homes, users, targets, strict=True
            )
            for offset in [int(batch.offsets[at])]
            if home == self._partition != target
        ]

    def state_record(self, leaving: Leaving, row: bytes, seen: bytes | None) -> Record:
        """Return the record that hands a state on."""
        state = JoiningState(leaving.user, leaving.was, leaving.time, *leaving.place, row, seen)
        origin = Origin(leaving.source, leaving.offset, None, 0, self._partitioner)
        return state_record(self._topic, leaving.target, origin, state)

    def is_home(self, user: str) -> bool:
        """Return whether a user's state is here, as far as is known."""
        return (
            not self.hands_on or int(self._keys.targets_of([user.encode()])[0]) == self._partition
        )

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
            again = readdressed_of(record.headers)
            holds_state = dict(record.headers or ()).get("holds") == b"state"
            if origin.partition < self._partitions or (again is not None and not holds_state):
                restored.append(
                    HandedRecord(
                        record.offset,
                        record.value,
                        record.key,
                        origin.time,
                        origin.time_type,
                        origin,
                        origin[:2] if again is None else again.place,
                        homes=() if again is None else again.homes,
                    )
                )
                continue
            try:
                restored.append(_with_state(record, origin, self._partitions))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError) as error:
                why = f"it is to hold the state of a user, and does not: {error}"
                refused.append((record, self._rejection(record.offset, NO_ORIGIN, why)))
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
        if self._has_pseudonyms:  # a state that was handed on names its user by a pseudonym
            own |= np.array([record.state is not None for record in records], np.bool_)[index]
        if any(record.homes for record in records):
            for at in np.flatnonzero(own).tolist():
                own[at] = self._was_at_home(records[int(index[at])], batch.users[at])
        with_events = set(index.tolist())
        # Of a record with several events, those that cannot be taken were rejected where it lies.
        refused = [
            (place, _at_origin(rejection, self._events, records[place].place))
            for place, rejection in rejected
            if place not in with_events or rejection.reason == "future_timestamp"
        ]
        # One that was handed on again went to all partitions that may have a user of it.
        with_events = {place for place in with_events if not records[place].homes}
        with_events -= {int(index[at]) for at, was in batch.joined.items() if self.is_home(was)}
        for place in sorted(with_events - set(index[own].tolist())):
            refused.append(
                (
                    place,
                    Rejection(
                        HANDED_TWICE,
                        f"it was handed on to partition {self._partition}, and by"
                        f" {self._partitioner} its user belongs to another one: give all workers"
                        " the same TRACKER_PARTITIONER, and send it again",
                        self._events,
                        *records[place].place,
                    ),
                )
            )
        if not own.all():
            places = np.flatnonzero(own)
            batch, index = batch.take(places), index[places]
        batch.partition += self._partitions
        batch.origin_partitions = np.array(
            [records[place].place[0] for place in index.tolist()], np.int64
        )
        batch.origin_offsets = np.array(
            [records[place].place[1] for place in index.tolist()], np.int64
        )
        return batch, sorted(refused, key=lambda pair: pair[0])

    def taken(self, records: Sequence[HandedRecord]) -> None:
        """Keep with the position that records were taken; they are not taken again."""
        origins = self._reached.origins
        for record in records:
            origin = record.origin
            origins[origin.partition] = max(origins.get(origin.partition, -1), origin.offset)

    def _was_at_home(self, record: HandedRecord, user: str) -> bool:
        """Return whether a user was at home wherever a record had been handed to before."""
        return all(
            partition_of(user, count, self._partitioner) == home for home, count in record.homes
        )

    @property
    def _reached(self) -> Any:
        return self._store.reached(True)

    def _handed(self, record: Any, target: int) -> Record:
        origin = Origin(
            self._partition,
            record.offset,
            record.timestamp,
            record.timestamp_type or 0,
            self._partitioner,
        )
        return Record(self._topic, target, record.key, record.value, headers_of(origin))

    def _problem_of(self, origin: Origin | None) -> tuple[str, str] | None:
        """Return reason and message of a record that cannot be taken; None if it can.

        Raises:
            UnknownOffsetError: read the ends of the events topic first.
        """
        most = SOURCES * self._partitions
        if origin is None or not 0 <= origin.partition < most:
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
        if origin.partition // self._partitions in (1, 3, 4):
            return None  # an offset of this topic, or of the changelog, in another partition
        origin = origin._replace(partition=origin.partition % self._partitions)
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


def _with_state(record: Any, origin: Origin, partitions: int) -> HandedRecord:
    """Return the record of a handed-on state as an event that joins it.

    Raises:
        msgspec.DecodeError: it holds none.
    """
    state = msgspec.json.decode(record.value or b"", type=JoiningState)
    if state.partition >= partitions:
        raise msgspec.ValidationError(
            f"partition {state.partition} of {partitions}, counted from 0 - at `$.partition`"
        )
    key = f"{JOINING} {origin.partition} {origin.offset}"
    event = OtherEvent(state.user, timestamp=state.time, retracts="", was=key)
    value = OwnFormat(encode_event(event))
    place = (state.partition, state.offset)
    return HandedRecord(record.offset, value, record.key, None, 0, origin, place, state)


def _at_origin(rejection: Rejection, topic: str, place: tuple[int, int]) -> Rejection:
    return msgspec.structs.replace(rejection, topic=topic, partition=place[0], offset=place[1])
