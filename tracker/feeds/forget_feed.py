"""ForgetFeed: reads the requests to forget a user that are not complete."""

import threading
from collections.abc import Sequence
from typing import Any

from tracker.feeds.background import OnDeath, log_death
from tracker.feeds.topic_feed import TopicFeed
from tracker.kafka.forget import PendingForget, ended_offset, pending_of
from tracker.settings import Settings


class ForgetFeed(TopicFeed):
    """Knows the requests of all partitions that no tombstone has ended.

    Args:
        settings: where the brokers are.
        topic: the forget topic.
        partitions: number of its partitions.
        on_death: called if the feed ends by itself.
    """

    def __init__(
        self, settings: Settings, topic: str, partitions: int, on_death: OnDeath = log_death
    ) -> None:
        super().__init__(settings, topic, partitions, "requests to forget", on_death=on_death)
        self._pending: dict[int, dict[bytes, PendingForget]] = {}
        self._lock = threading.Lock()

    def pending(self, partition: int, applied: int) -> list[PendingForget]:
        """Return the requests of a partition past an offset, in order; none before it caught up.

        A request may be applied and its tombstone not read: the offset says so.

        Args:
            partition: number of the partition.
            applied: offset of the last request that was applied there.
        """
        if not self._pending.get(partition) or not self.caught_up:
            return []
        with self._lock:
            requests = list(self._pending[partition].values())
        return sorted((r for r in requests if r.offset > applied), key=lambda r: r.offset)

    def _begin(self) -> None:
        self._caught_up.clear()
        with self._lock:
            self._pending.clear()

    def _place(self, records: Sequence[Any]) -> None:
        with self._lock:
            for record in records:
                pending = pending_of(record)
                mine = self._pending.setdefault(record.partition, {})
                if pending is not None:
                    mine[pending.key] = pending
                elif record.key in mine and mine[record.key].offset <= ended_offset(record):
                    del mine[record.key]
