"""Intake: decodes the records of a chunk into events; rejects and counts those it cannot take.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracker.events.arrivals import Arrivals
from tracker.events.batch import EventBatch, EventReader
from tracker.events.wire import Rejection
from tracker.kafka.outbox import Record, rejected_record
from tracker.stream.serving import Context

log = logging.getLogger(__name__)

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
        self._topic = context.cluster.topics.events
        self._partition = partition
        self._rejected_topic = context.cluster.topics.rejected
        self._target = partition % context.cluster.partitions(self._rejected_topic)
        self._reader = EventReader(context.kinds)

    @property
    def scene_names(self) -> dict[int, str]:
        """Names by code of the scenes that the records had."""
        return self._reader.scene_names

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
        if not rejected:
            return batch, rejected, arrivals.is_open(slice(None), batch.times, 0)
        by_clock = sum(
            rejection.reason == "future_timestamp" and not arrivals.by_broker[index]
            for index, rejection in rejected
        )
        accepted = np.ones(len(records), np.bool_)
        accepted[[index for index, _ in rejected]] = False
        return batch, rejected, arrivals.is_open(accepted, batch.times, by_clock)

    def count(self, records: Sequence[Any], batch: EventBatch, rejected: Rejected) -> list[Record]:
        """Count rejected records and foreign keys; return the records for the rejected topic."""
        if len(batch):
            self._check_keys(records, batch, rejected)
        for _, rejection in rejected:
            self._metrics.rejected.labels(rejection.reason).inc()
        return [
            rejected_record(
                self._rejected_topic,
                self._target,
                records[index].key,
                records[index].value,
                rejection,
            )
            for index, rejection in rejected
        ]

    def _check_keys(self, records: Sequence[Any], batch: EventBatch, rejected: Rejected) -> None:
        """Count records whose key is not their user: such a user may have two states."""
        if rejected:
            indices = {index for index, _ in rejected}
            records = [record for index, record in enumerate(records) if index not in indices]
        wrong = [
            record
            for record, user in zip(records, batch.users, strict=True)
            if record.key != user.encode()
        ]
        if wrong:
            self._metrics.key_mismatch.inc(len(wrong))
            log.warning(
                "%s-%d: %d events have a key that is not their user, the first at offset %d;"
                " states are kept per partition, so set the key to the user_id",
                self._topic, self._partition, len(wrong), wrong[0].offset,
            )  # fmt: skip
