"""Intake: the records of a chunk as events; what cannot be taken is rejected, and counted."""

import logging
from collections.abc import Sequence
from typing import Any

from tracker.events.batch import EventBatch, EventReader
from tracker.events.wire import Rejection
from tracker.kafka.outbox import Record, rejected_record
from tracker.stream.serving import Context

log = logging.getLogger(__name__)

Rejected = list[tuple[int, Rejection]]
"""Positions among the records, and why."""


class Intake:
    """Reads the records of one partition.

    Args:
        context: what the partitions share.
        partition: of the events.
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
        """The names of the scenes met, by code."""
        return self._reader.scene_names

    def read(self, records: Sequence[Any]) -> tuple[EventBatch, Rejected]:
        """Decode records, in order; nothing is counted yet, for a chunk may be taken again."""
        return self._reader.read(
            self._topic,
            self._partition,
            [record.value for record in records],
            [record.offset for record in records],
            [record.timestamp for record in records],
        )

    def count(self, records: Sequence[Any], batch: EventBatch, rejected: Rejected) -> list[Record]:
        """Count what was rejected and what has a foreign key; return the rejections to send."""
        if len(batch):
            self._check_keys(records, batch, rejected)
        for _, rejection in rejected:
            self._metrics.rejected.labels(rejection.reason).inc()
        return [
            rejected_record(
                self._rejected_topic, self._target, records[at].key, records[at].value, rejection
            )
            for at, rejection in rejected
        ]

    def _check_keys(self, records: Sequence[Any], batch: EventBatch, rejected: Rejected) -> None:
        """Count records whose key is not their user: such a user may have two states."""
        if rejected:
            gone = {position for position, _ in rejected}
            records = [record for at, record in enumerate(records) if at not in gone]
        wrong = [
            record
            for record, user in zip(records, batch.users, strict=True)
            if record.key != user.encode()
        ]
        if wrong:
            self._metrics.key_mismatch.inc(len(wrong))
            log.warning(
                "%d events of %s-%d have a key that is not their user (the first at offset %d);"
                " states are kept per partition, so key events by user_id",
                len(wrong), self._topic, self._partition, wrong[0].offset,
            )  # fmt: skip
