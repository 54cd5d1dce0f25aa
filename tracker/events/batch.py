"""EventBatch: accepted events of one partition as columns; EventReader makes it from records."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from tracker.events.arrivals import Arrivals
from tracker.events.kinds import Kinds, QuantityError, UnknownKindError
from tracker.events.times import MAX_SECONDS, Unit, number_in, seconds, unit_of
from tracker.events.wire import (
    Event,
    RejectedEventError,
    Rejection,
    decode_event,
    hash_id,
    kind_code,
    scene_code,
)


@dataclass(slots=True)
class EventBatch:
    """Accepted events of one partition in offset order, as columns of length N.

    `slots` (arena slot) is filled by the store, `rows` (catalogue row) by the recommender; both
    are -1 before. `items` is 0 for a retraction, `retracts` 0 for an action, `values` NaN
    for none, `event_ids` and `scenes` 0 for none. Times are float seconds.

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
            field.name: getattr(self, field.name)[positions]
            for field in fields(self)
            if isinstance(getattr(self, field.name), np.ndarray)
        }
        users = [self.users[position] for position in positions.tolist()]
        return EventBatch(topic=self.topic, partition=self.partition, users=users, **columns)


class EventReader:
    """Turns records of one partition into an EventBatch and the rejections among them.

    It keeps the hashes of ids, kinds and scenes met before (bounded), and the names of scenes, for
    recommendations carry them. It has no clock: the times at which records came are given.

    Args:
        kinds: the weights in force.
        timestamps: unit of timestamps that are numbers.
        reject_unknown_fields: refuse events with a field that events do not have.

    Attributes:
        unknown_fields: how often the last chunk had which field that events do not have.
        units: how many timestamps of the last chunk were numbers of another unit than seconds, or
            digits in quotes.
    """

    MAX_CACHED = 1_000_000

    def __init__(
        self, kinds: Kinds, timestamps: Unit = "auto", reject_unknown_fields: bool = False
    ) -> None:
        self._kinds = kinds
        self._timestamps = timestamps
        self._max_seconds = MAX_SECONDS if timestamps in ("auto", "seconds") else -1.0
        self._reject_unknown = reject_unknown_fields
        self.unknown_fields: Counter[str] = Counter()
        self.units: Counter[Unit] = Counter()
        self._weights: dict[tuple[str, float | None], tuple[float, int, float]] = {}
        self._items: dict[str, int] = {}
        self._scene_codes: dict[str | None, int] = {None: 0, "": 0}
        self.scene_names: dict[int, str] = {}

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
            the batch, and (index in `values`, rejection) for each event that was rejected.
        """
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
        item_codes = self._items
        self.units = Counter()
        unknown = self.unknown_fields = Counter()
        reject_unknown = self._reject_unknown
        for position, value in enumerate(values):
            try:
                event = decode_event(value, unknown, reject_unknown)
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
        appended_seconds = np.array(arrivals.times, np.float64)
        batch = EventBatch(
            topic=topic,
            partition=partition,
            users=users,
            slots=np.full(len(users), -1, np.int64),
            items=np.array(items, np.uint64),
            rows=np.full(len(users), -1, np.int64),
            times=np.array(times, np.float64),
            appended=appended_seconds[indices] if indices else np.zeros(0, np.float64),
            weights=np.array(weights, np.float32),
            values=np.array(event_values, np.float32),
            kinds=np.array(kinds, np.uint16),
            scenes=np.array(scenes, np.uint32),
            event_ids=np.array(event_ids, np.uint64),
            retracts=np.array(retracts, np.uint64),
            offsets=np.asarray(offsets, np.int64)[indices] if indices else np.zeros(0, np.int64),
        )
        return batch, rejected

    def check(self, value: bytes | None, arrivals: Arrivals) -> Event:
        """Return the event of one record if `read` would accept it.

        Args:
            value: the record's bytes.
            arrivals: when it came; its first place is used.

        Raises:
            RejectedEventError: with the reason code and the message of the rejection.
        """
        event = decode_event(value, self.unknown_fields, self._reject_unknown)
        self._time(event, arrivals, 0)
        if event.retracts is None:
            self._weight(event)
        return event

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
        kind, value = event.kind, event.value
        assert kind is not None
        if value is not None and not abs(value) < 1e30:
            raise RejectedEventError("bad_value", f"value {value} is not a finite number")
        try:
            weight = self._kinds.weight(kind, value)
            counts_as, number = self._kinds.effective(kind, value)
        except UnknownKindError as error:
            raise RejectedEventError("unknown_kind", str(error)) from error
        except QuantityError as error:
            raise RejectedEventError("bad_value", str(error)) from error
        if len(self._weights) >= self.MAX_CACHED:
            self._weights.clear()
        line = (weight, kind_code(counts_as), math.nan if number is None else number)
        self._weights[kind, value] = line
        return line

    def _new_item(self, item_id: str) -> int:
        if len(self._items) >= self.MAX_CACHED:
            self._items.clear()
        code = self._items[item_id] = hash_id(item_id)
        return code

    def _new_scene(self, scene: str | None) -> int:
        if len(self._scene_codes) >= self.MAX_CACHED:
            self._scene_codes = {None: 0, "": 0}
        code = self._scene_codes[scene] = scene_code(scene)
        if scene:
            if len(self.scene_names) >= self.MAX_CACHED:
                self.scene_names.clear()
            self.scene_names[code] = scene
        return code


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


def waves(slots: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Divide the events of a chunk into waves that hold each user once.

    The first wave holds the first event of each user, the second wave the second ones, and so on.
    Run one after another, waves keep the order of each user's events.

    Args:
        slots: (N,) of the events' users.

    Returns:
        indices into `slots`, ascending in each wave.

    >>> [wave.tolist() for wave in waves(np.array([4, 9, 4, 4, 9]))]
    [[0, 1], [2, 4], [3]]
    """
    if not len(slots):
        return []
    by_user = np.argsort(slots, kind="stable")
    ordered = slots[by_user]
    indices = np.arange(len(slots))
    is_first = np.r_[True, ordered[1:] != ordered[:-1]]
    turns = np.empty(len(slots), np.int64)
    turns[by_user] = indices - np.maximum.accumulate(np.where(is_first, indices, 0))
    return np.split(np.argsort(turns, kind="stable"), np.cumsum(np.bincount(turns))[:-1])
