"""Intake: decodes the records of a chunk into events; rejects and counts those it cannot take.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.events.arrivals import Arrivals
from tracker.events.batch import EventBatch, EventReader
from tracker.events.foreign import MAX_NAMES, OTHER_NAMES, look_alikes
from tracker.events.times import EARLY, Unit, early
from tracker.events.wire import Rejection
from tracker.explained import ONCE
from tracker.kafka.outbox import Record, rejected_record
from tracker.stream.key_check import KeyCheck
from tracker.stream.serving import (
    REJECTED_BYTES,
    Context,
    LastRejection,
)

log = logging.getLogger(__name__)

MAX_SAID = 100
"""Messages that a worker logs once; further ones are not logged."""

Rejected = list[tuple[int, Rejection]]
"""Indices of rejected records, and the reason of each."""


class Intake:
    """Decodes the records of one partition.

    Args:
        context: what the partitions of a worker share.
        partition: partition of the events topic.
    """

    def __init__(self, context: Context, partition: int) -> None:
        self._metrics = context.metrics
        self.keys = KeyCheck(context, partition)
        self._topic = context.cluster.topics.events
        self._partition = partition
        self._rejected_topic = context.cluster.topics.rejected
        self._target = partition % context.cluster.partitions(self._rejected_topic)
        self._log_once = context.log_once
        self._last_rejections = context.rejections
        settings = context.settings
        self._reader = EventReader(
            context.kinds,
            settings.timestamps,
            settings.unknown_fields == "reject",
            context.dialect,
            context.caches,
        )
        self._names: set[str] = set()
        self._words: set[str] = set()
        self._kinds = context.kinds

    @property
    def scene_names(self) -> dict[int, str]:
        """Names by code of the scenes that the records had."""
        return self._reader.scene_names

    @property
    def places(self) -> list[int]:
        """Of each event of the last chunk, the index of its record."""
        return self._reader.places

    def read(self, records: Sequence[Any], clock: float) -> tuple[EventBatch, Rejected, bool]:
        """Decode records, in order. Nothing is counted yet, because a chunk may be read again.

        Args:
            records: of the source, in order.
            clock: time in seconds from which events of the future are told.

        Returns:
            the events; the rejections; whether a reading by another clock may reject others.
        """
        arrivals = Arrivals.of_records(
            [record.timestamp for record in records],
            [record.timestamp_type for record in records],
            clock,
        )
        batch, rejected = self._reader.read(
            self._topic,
            self._partition,
            [record.value for record in records],
            [record.offset for record in records],
            arrivals,
        )
        places = self._reader.places
        if not rejected:
            return batch, rejected, arrivals.is_open(places, batch.times)
        by_clock = any(
            rejection.reason == "future_timestamp" and arrivals.is_by_clock(index)
            for index, rejection in rejected
        )
        return batch, rejected, by_clock or arrivals.is_open(places, batch.times)

    def keep(self, batch: EventBatch, kept_places: NDArray[np.int64]) -> EventBatch:
        """Return the events at some places of the batch that `read` gave, and drop the others."""
        places = self._reader.places
        self._reader.places = [places[at] for at in kept_places.tolist()]
        return batch.take(kept_places)

    def count(self, records: Sequence[Any], batch: EventBatch, rejected: Rejected) -> list[Record]:
        """Count rejected records and what is odd of events; return what the rejected topic gets.

        Fields and units of handed-on events were counted where they came from.
        """
        if len(batch):
            self._check_ratings(batch)
            if np.count_nonzero(batch.times < EARLY) and not batch.is_handed:
                self._say_once("early", f"{early(batch.times.tolist())} (TRACKER_TIMESTAMPS)")
        if self._reader.passed_over and not batch.is_handed:
            self._count_passed_over(self._reader.passed_over)
        if self._reader.unknown_fields and not batch.is_handed:
            self._count_fields(self._reader.unknown_fields)
        if self._reader.units and not batch.is_handed:
            self._say_units(self._reader.units)
        parts = self._reader.parts_refused
        return [
            self.reject(records[index], rejection, parts.get((index, rejection.reason)))
            for index, rejection in rejected
        ]

    def reject(self, record: Any, rejection: Rejection, part: bytes | None = None) -> Record:
        """Count a rejection, and return what the rejected topic gets.

        Args:
            record: the record.
            rejection: why it was not taken.
            part: of a record with several events, those that were not taken.
        """
        self._metrics.rejected.labels(rejection.reason).inc(rejection.events)
        self._say_once(
            f"rejected {rejection.reason}",
            f"partition {rejection.partition}, offset {rejection.offset}: rejected as"
            f" {rejection.reason}; the record and the message are in the topic"
            f" {self._rejected_topic}; further ones of this reason are counted, and not logged",
        )
        value = record.value if part is None else part
        self._last_rejections.append(LastRejection(rejection, bytes(value or b"")[:REJECTED_BYTES]))
        return rejected_record(
            self._rejected_topic, self._target, record.key, value, rejection, part is not None
        )

    def _count_passed_over(self, words: Counter[str]) -> None:
        """Count records that the format passes over, up to MAX_NAMES words."""
        for word, count in words.items():
            if word not in self._words and len(self._words) >= MAX_NAMES:
                word = OTHER_NAMES
            self._words.add(word)
            self._metrics.passed_over.labels(word).inc(count)

    def _count_fields(self, unknown: Counter[str]) -> None:
        """Count fields that are ignored, up to MAX_NAMES names, and name those that look known."""
        for name, count in unknown.items():
            if name not in self._names and len(self._names) >= MAX_NAMES:
                name = OTHER_NAMES
            self._names.add(name)
            self._metrics.unknown_fields.labels(name).inc(count)
        for alike in look_alikes(unknown):
            self._say(
                f"{alike}: an event has no such field, so it is ignored; correct the producer, or"
                " set TRACKER_UNKNOWN_FIELDS=reject"
            )

    def _say_units(self, units: Counter[Unit]) -> None:
        for unit in units:
            self._say(f"timestamps that are numbers or digits are taken as {unit}")

    def _say(self, message: str) -> None:
        """Log a message once in the life of the worker."""
        self._say_once(message, message)

    def _say_once(self, subject: str, message: str) -> None:
        """Log the first message of a subject in the life of the worker."""
        if subject not in self._log_once and len(self._log_once) < MAX_SAID:
            self._log_once.add(subject)
            log.warning("%s: %s", self._topic, message, extra=ONCE)

    def _check_ratings(self, batch: EventBatch) -> None:
        """Count ratings beyond the scale; the first chunk with one is logged."""
        beyond = np.count_nonzero(self._kinds.beyond_scale(batch.kinds, batch.values))
        if not beyond:
            return
        self._metrics.ratings_beyond_scale.inc(int(beyond))
        low, high = self._kinds.rating_min, self._kinds.rating_max
        self._say(
            f"ratings outside the scale of the artifact, {low:g} to {high:g}, are cut and counted;"
            " if ratings have another scale, build or train with --rating-scale"
        )
