"""EventBatch: accepted events of one partition as columns; EventReader makes it from records.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from tracker.events.arrivals import Arrivals
from tracker.events.dialect import Dialect, PassedOver, decode_record
from tracker.events.foreign import SeveralEvents
from tracker.events.kinds import Kinds, QuantityError, UnknownKindError
from tracker.events.text_caches import TextCaches
from tracker.events.times import MAX_SECONDS, Unit, number_in, seconds, unit_of
from tracker.events.wire import (
    Event,
    OtherEvent,
    RejectedEventError,
    Rejection,
    decode_event,
    hash_id,
    kind_code,
    scene_code,
)

Decode = Callable[..., Event]
"""Reads the event of a record, as `decode_event` does."""

LATEST_OF_KIND = 2**64 - 1
"""In the column `retracts`: the user's latest event of this kind on this item is taken back."""

JOINS = 2**64 - 2
"""In the column `retracts`: another user's state joins that of this one."""


@dataclass(slots=True)
class EventBatch:
    """Accepted events of one partition in offset order, as columns of length N.

    `slots` (arena slot) is filled by the store, `rows` (catalogue row) by the recommender; both
    are -1 before. `retracts` is 0 for an action, else the hash of an event id, LATEST_OF_KIND or
    JOINS. `items` is 0 for those without an item, `values` NaN for none, `event_ids` and `scenes` 0
    for none. Times are float seconds. Events of one record have its offset. `joined` are the
    places of those with JOINS, each with the id of the user who joins.

    Events that another partition has handed on have origins: the partition and offset where they
    were. Their `offsets` are those of the topic of handed-on events, and their `partition` is
    counted on from the number of partitions.
    """

    topic: str
    partition: int
    users: list[str]
    slots: NDArray[np.int64]
    items: NDArray[np.uint64]
    rows: NDArray[np.int64]
    times: NDArray[np.float64]
    appended: NDArray[np.float64]
    weights: NDArray[np.float32]
    values: NDArray[np.float32]
    kinds: NDArray[np.uint16]
    scenes: NDArray[np.uint32]
    event_ids: NDArray[np.uint64]
    retracts: NDArray[np.uint64]
    offsets: NDArray[np.int64]
    joined: dict[int, str] = field(default_factory=dict)
    origin_partitions: NDArray[np.int64] | None = None
    origin_offsets: NDArray[np.int64] | None = None

    @property
    def is_handed(self) -> bool:
        """True if another partition has handed the events on."""
        return self.origin_offsets is not None

    def origin(self, place: int) -> tuple[int, int]:
        """Return partition and offset of an event in the events topic."""
        if self.origin_partitions is None or self.origin_offsets is None:
            return self.partition, int(self.offsets[place])
        return int(self.origin_partitions[place]), int(self.origin_offsets[place])

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.users)

    def take(self, positions: NDArray[np.int64]) -> "EventBatch":
        """Return the events at some positions, in that order; columns are copies."""
        columns = {
            column.name: getattr(self, column.name)[positions]
            for column in fields(self)
            if isinstance(getattr(self, column.name), np.ndarray)
        }
        users = [self.users[position] for position in positions.tolist()]
        batch = EventBatch(topic=self.topic, partition=self.partition, users=users, **columns)
        if self.joined:
            batch.joined = {
                place: self.joined[position]
                for place, position in enumerate(positions.tolist())
                if position in self.joined
            }
        return batch


class EventReader:
    """Turns records of one partition into an EventBatch and the rejections among them.

    It keeps the hashes of ids, kinds and scenes met before, and the names of scenes, for
    recommendations carry them. It has no clock: the times at which records came are given.

    Args:
        kinds: the weights in force.
        timestamps: unit of timestamps that are numbers.
        reject_unknown_fields: refuse events with a field that events do not have.
        dialect: the format of the records; None for our own.
        caches: of the texts met before, which readers of the same kinds may share.

    Attributes:
        unknown_fields: how often the last chunk had which field that events do not have.
        units: how many timestamps of the last chunk were numbers of another unit than seconds, or
            digits in quotes.
        unknown_kinds: how often the last chunk had which kind without a weight.
        passed_over: how many records of the last chunk the dialect leaves out, by their word.
        places: of each event of the last chunk, the index of its record.
    """

    def __init__(
        self,
        kinds: Kinds,
        timestamps: Unit = "auto",
        reject_unknown_fields: bool = False,
        dialect: Dialect | None = None,
        caches: TextCaches | None = None,
    ) -> None:
        self.dialect = dialect
        self._decode: Decode | None = None
        if dialect is not None:
            self._decode = lambda value, unknown, reject: decode_record(value, dialect)
        self._kinds = kinds
        self._timestamps = timestamps
        self._max_seconds = MAX_SECONDS if timestamps in ("auto", "seconds") else -1.0
        self._reject_unknown = reject_unknown_fields
        self.unknown_fields: Counter[str] = Counter()
        self.units: Counter[Unit] = Counter()
        self.unknown_kinds: Counter[str] = Counter()
        self.passed_over: Counter[str] = Counter()
        self.places: list[int] = []
        self._caches = TextCaches() if caches is None else caches
        self._weights = self._caches.weights
        self._items = self._caches.items
        self._scene_codes = self._caches.scenes
        self.scene_names = self._caches.scene_names

    def read(
        self,
        topic: str,
        partition: int,
        values: Sequence[bytes | None],
        offsets: Sequence[int],
        arrivals: Arrivals,
    ) -> tuple[EventBatch, list[tuple[int, Rejection]]]:
        """Decode and check the records of a chunk.

        Args:
            topic: source topic.
            partition: partition of the topic.
            values: the records' bytes.
            offsets: their offsets.
            arrivals: when they came, and the latest times that their events may have.

        Returns:
            the batch, and (index in `values`, rejection) for each record that was rejected, and
            for each reason for which events of a record with several were.
        """
        for counter in (self.units, self.unknown_fields, self.unknown_kinds, self.passed_over):
            counter.clear()
        self.parts_refused: dict[tuple[int, str], bytes] = {}
        batch, rejected, self.places = self._read(
            topic, partition, values, offsets, arrivals, self._decode
        )
        return batch, rejected

    def _read(
        self,
        topic: str,
        partition: int,
        values: Sequence[bytes | None],
        offsets: Sequence[int],
        arrivals: Arrivals,
        decode: Decode | None,
    ) -> tuple[EventBatch, list[tuple[int, Rejection]], list[int]]:
        """Decode and check records; `decode` reads one, None for our own format."""
        users: list[str] = []
        items: list[int] = []
        times: list[float] = []
        weights: list[float] = []
        event_values: list[float] = []
        kinds: list[int] = []
        scenes: list[int] = []
        event_ids: list[int] = []
        retracts: list[int] = []
        indices: list[int] = []
        rejected: list[tuple[int, Rejection]] = []
        joined: dict[int, str] = {}
        item_codes = self._items
        unknown = self.unknown_fields
        reject_unknown = self._reject_unknown
        if decode is None:
            decode = decode_event
        for position, value in enumerate(values):
            try:
                event = decode(value, unknown, reject_unknown)
                time = self._time(event, arrivals, position)
                if event.retracts is None:
                    weight, kind, event_value = self._weight(event)
                    item_id = event.item_id
                    assert item_id is not None
                    item = item_codes.get(item_id)
                    if item is None:
                        item = self._new_item(item_id)
                    retracted = 0
                else:
                    weight, item, kind, retracted = 0.0, 0, 0, hash_id(event.retracts)
                    event_value = math.nan if event.value is None else event.value
                    if isinstance(event, OtherEvent):
                        item, kind, retracted = self._other(event)
                        event_value = math.nan
                        if event.was is not None:
                            joined[len(users)] = event.was
            except SeveralEvents as several:
                part, refused = self._read_several(
                    topic, partition, several, offsets[position], arrivals, position
                )
                rejected += [(position, rejection) for rejection in refused]
                joined |= {len(users) + place: was for place, was in part.joined.items()}
                users += part.users
                items += part.items.tolist()
                times += part.times.tolist()
                weights += part.weights.tolist()
                event_values += part.values.tolist()
                kinds += part.kinds.tolist()
                scenes += part.scenes.tolist()
                event_ids += part.event_ids.tolist()
                retracts += part.retracts.tolist()
                indices += [position] * len(part)
                continue
            except PassedOver as passed:
                self.passed_over[passed.word[:64]] += 1
                continue
            except RejectedEventError as error:
                rejected.append(
                    (
                        position,
                        Rejection(error.reason, str(error), topic, partition, offsets[position]),
                    )
                )
                continue
            scene = self._scene_codes.get(event.scene)
            users.append(event.user_id)
            items.append(item)
            times.append(time)
            weights.append(weight)
            event_values.append(event_value)
            kinds.append(kind)
            scenes.append(self._new_scene(event.scene) if scene is None else scene)
            event_ids.append(0 if event.event_id is None else hash_id(event.event_id))
            retracts.append(retracted)
            indices.append(position)
        slots, rows = np.full((2, len(users)), -1, np.int64)
        batch = EventBatch(
            topic=topic,
            partition=partition,
            users=users,
            slots=slots,
            items=np.array(items, np.uint64),
            rows=rows,
            times=np.array(times, np.float64),
            appended=np.array([arrivals.times[index] for index in indices], np.float64),
            weights=np.array(weights, np.float32),
            values=np.array(event_values, np.float32),
            kinds=np.array(kinds, np.uint16),
            scenes=np.array(scenes, np.uint32),
            event_ids=np.array(event_ids, np.uint64),
            retracts=np.array(retracts, np.uint64),
            offsets=np.array([offsets[index] for index in indices], np.int64),
            joined=joined,
        )
        return batch, rejected, indices

    def _read_several(
        self,
        topic: str,
        partition: int,
        several: SeveralEvents,
        offset: int,
        arrivals: Arrivals,
        position: int,
    ) -> tuple[EventBatch, list[Rejection]]:
        """Decode and check the events of one record; one rejection is returned for each reason."""
        n = len(several.parts)
        batch, rejected, _ = self._read(
            topic,
            partition,
            several.parts,
            [offset] * n,
            arrivals.of_one(position, n),
            _decode_part,
        )
        by_reason: dict[str, list[int]] = {}
        for place, rejection in rejected:
            by_reason.setdefault(rejection.reason, []).append(place)
        messages = {rejection.reason: rejection.message for _, rejection in reversed(rejected)}
        refused = []
        for reason, places in by_reason.items():
            named = ", ".join(str(place + 1) for place in places[:10])
            more = ", ..." if len(places) > 10 else ""
            message = f"event {named}{more} of {n} in the record: {messages[reason]}"
            refused.append(Rejection(reason, message, topic, partition, offset, len(places)))
            self.parts_refused[position, reason] = several.record_of(places)
        return batch, refused

    def check(self, value: bytes | None, arrivals: Arrivals) -> str | None:
        """Return the user of a record if `read` would accept all of its events.

        Args:
            value: the record's bytes.
            arrivals: when it came; its first place is used.

        Returns:
            the user of the first event; None if the dialect passes the record over.

        Raises:
            RejectedEventError: with the reason code and the message of the rejection.
        """
        try:
            event = self._one(value)
        except PassedOver as passed:
            self.passed_over[passed.word[:64]] += 1
            return None
        except SeveralEvents as several:
            users = []
            for number, part in enumerate(several.parts, 1):
                try:
                    users.append(self._checked(_decode_part(part), arrivals))
                except RejectedEventError as error:
                    raise RejectedEventError(
                        error.reason,
                        f"event {number} of {len(several.parts)} in the record: {error}",
                    ) from error
            return users[0]
        return self._checked(event, arrivals)

    def _one(self, value: bytes | None) -> Event:
        if self.dialect is not None:
            return decode_record(value, self.dialect)
        return decode_event(value, self.unknown_fields, self._reject_unknown)

    def _checked(self, event: Event, arrivals: Arrivals) -> str:
        """Return the user of an event that is accepted."""
        self._time(event, arrivals, 0)
        if event.retracts is None:
            self._weight(event)
        elif isinstance(event, OtherEvent):
            self._other(event)
        return event.user_id

    def _other(self, event: OtherEvent) -> tuple[int, int, int]:
        """Return item, kind and retraction of an event that is neither action nor has an id."""
        if event.takes_back is None:
            return 0, 0, JOINS
        assert event.item_id is not None
        self._weight_of(event.takes_back, None)  # an unknown kind is refused
        item = self._items.get(event.item_id)
        return (
            self._new_item(event.item_id) if item is None else item,
            kind_code(event.takes_back),
            LATEST_OF_KIND,
        )

    def _time(self, event: Event, arrivals: Arrivals, position: int) -> float:
        if event.timestamp is None:
            return arrivals.times[position]
        time = event.timestamp
        if not isinstance(time, float) or not 0.0 <= time < self._max_seconds:
            time = self._other_time(time)
        if time > arrivals.latest[position]:
            raise RejectedEventError("future_timestamp", arrivals.refusal(position, time))
        return time

    def _other_time(self, timestamp: float | str) -> float:
        """Return the seconds of a timestamp that is a text, or a number of another unit."""
        try:
            time = seconds(timestamp, self._timestamps)
        except (ValueError, OverflowError) as error:
            raise RejectedEventError("bad_timestamp", str(error)) from error
        number = number_in(timestamp)
        if number is not None:
            self.units[unit_of(number) if self._timestamps == "auto" else self._timestamps] += 1
        return time

    def _weight(self, event: Event) -> tuple[float, int, float]:
        """Return the weight of an action, and the code of its kind and the value as they count."""
        key = (event.kind, event.value)
        line = self._weights.get(key)  # type: ignore[arg-type]
        if line is not None:
            return line
        assert event.kind is not None
        return self._weight_of(event.kind, event.value)

    def _weight_of(self, kind: str, value: float | None) -> tuple[float, int, float]:
        if value is not None and not abs(value) < 1e30:
            raise RejectedEventError(
                "bad_value", f"value {value} is too large; a number below 1e30 is expected"
            )
        try:
            weight = self._kinds.weight(kind, value)
            counts_as, number = self._kinds.effective(kind, value)
        except UnknownKindError as error:
            self.unknown_kinds[kind] += 1
            raise RejectedEventError("unknown_kind", str(error)) from error
        except QuantityError as error:
            raise RejectedEventError("bad_value", str(error)) from error
        line = (weight, kind_code(counts_as), math.nan if number is None else number)
        self._caches.add_weight(kind, value, line)
        return line

    def _new_item(self, item_id: str) -> int:
        code = hash_id(item_id)
        self._caches.add_item(item_id, code)
        return code

    def _new_scene(self, scene: str | None) -> int:
        code = scene_code(scene)
        self._caches.add_scene(scene, code)
        return code


def _decode_part(
    value: bytes | None, unknown: "Counter[str] | None" = None, reject_unknown: bool = False
) -> Event:
    """Read an event of a record with several, as JSON in our format.

    Raises:
        RejectedEventError: it is none.
    """
    try:
        return decode_event(value, unknown, reject_unknown)
    except SeveralEvents as again:
        raise RejectedEventError(
            "wrong_type", f"an array of {len(again.parts)} within an array; an event is expected"
        ) from again


def events_in(value: bytes | None, dialect: Dialect | None = None) -> list[Event]:
    """Return the events of a record, as far as they can be read.

    Raises:
        RejectedEventError: the record as a whole is none.
    """
    try:
        return [decode_event(value) if dialect is None else decode_record(value, dialect)]
    except PassedOver:
        return []
    except SeveralEvents as several:
        events = []
        for part in several.parts:
            try:
                events.append(_decode_part(part))
            except RejectedEventError:
                continue
        return events


def can_be_target(batch: EventBatch, kinds: Kinds) -> NDArray[np.bool_]:
    """Return which events choose an item: actions of kinds with a weight above 0.

    A low rating is still a film that was chosen. A purchase of quantity 0 chooses nothing, nor does
    a dwell of negative seconds. Rankers are trained and judged on these events.
    """
    weights = {kind_code(name): line.weight for name, line in kinds.table.items()}
    codes, inverse = np.unique(batch.kinds, return_inverse=True)
    default = kinds.unknown or 0.0
    positive = np.array([weights.get(int(code), default) > 0.0 for code in codes], np.bool_)
    choices: NDArray[np.bool_] = (batch.retracts == 0) & positive[inverse]
    for curve, nothing in (("quantity", batch.values <= 0.0), ("dwell", batch.values < 0.0)):
        names = [kind_code(name) for name, line in kinds.table.items() if line.curve == curve]
        choices &= ~(nothing & np.isin(batch.kinds, np.array(names, np.uint16)))
    return choices


def waves(
    slots: NDArray[np.int64], records: NDArray[np.int64] | None = None
) -> list[NDArray[np.int64]]:
    """Divide the events of a chunk into waves that hold each user once.

    The first wave holds the first event of each user, the second wave the second ones, and so on.
    Run one after another, waves keep the order of each user's events.

    Args:
        slots: (N,) of the events' users.
        records: (N,) offsets of the events' records; the events of a user in one record then come
            in one wave.

    Returns:
        indices into `slots`, ascending in each wave.

    >>> [wave.tolist() for wave in waves(np.array([4, 9, 4, 4, 9]))]
    [[0, 1], [2, 4], [3]]
    >>> [wave.tolist() for wave in waves(np.array([4, 4, 4]), np.array([7, 7, 8]))]
    [[0, 1], [2]]
    """
    if not len(slots):
        return []
    by_user = np.argsort(slots, kind="stable")
    ordered = slots[by_user]
    is_first = np.r_[True, ordered[1:] != ordered[:-1]]
    if records is None:
        indices = np.arange(len(slots))
    else:
        of_record = records[by_user]
        indices = np.cumsum(is_first | np.r_[True, of_record[1:] != of_record[:-1]])
    turns = np.empty(len(slots), np.int64)
    turns[by_user] = indices - np.maximum.accumulate(np.where(is_first, indices, 0))
    return np.split(np.argsort(turns, kind="stable"), np.cumsum(np.bincount(turns))[:-1])
