"""ItemFeed: reads the items' changelog of all partitions into an ItemView.

On the path of one commit: see docs/design/one-event-one-commit.md.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tracker.events.arrivals import MAX_FUTURE_SECONDS
from tracker.feeds.background import OnDeath, log_death
from tracker.feeds.topic_feed import TopicFeed
from tracker.items.states import ItemStateFormatError, problem_of
from tracker.kafka.unreadable import UnreadableRows
from tracker.kernels.row_bytes import ASIDE_PREFIX, POSITION_KEY, is_item_key, item_of
from tracker.settings import Settings


class View(Protocol):
    """The view that receives item states."""

    def update(self, rows: Sequence[bytes | None], items: NDArray[np.uint64], latest: float) -> int:
        """Replace the rows of items; None removes one. Times past `latest` are taken for it.

        Raises:
            ItemStateFormatError: a row cannot be read; rows before it may be replaced.
        """


class ItemFeed(TopicFeed):
    """Follows all partitions of the items' changelog, with a consumer outside the group.

    A row that cannot be read is passed over: the view keeps what it has of the item. After an error
    of the brokers the feed begins anew; after any other error it tells `on_death`.

    Args:
        settings: where the brokers are.
        topic: the items' changelog.
        partitions: number of its partitions.
        view: receives the rows.
        on_lag: called with the number of records not yet read.
        unreadable: counts and logs the rows that cannot be read.
        on_death: called if the feed ends by itself.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        partitions: int,
        view: View,
        on_lag: Callable[[int], None] = lambda lag: None,
        unreadable: UnreadableRows | None = None,
        on_death: OnDeath = log_death,
    ) -> None:
        super().__init__(settings, topic, partitions, "items", on_lag, on_death)
        self._view: View | None = view
        self._unreadable = unreadable or UnreadableRows("items")

    async def stop(self) -> None:
        """Stop reading, and let go of the view.

        A stopped task keeps its last error, whose frames keep this feed until Python collects
        garbage; the view of a million items has gigabytes.
        """
        await super().stop()
        self._view = None

    def _place(self, records: Sequence[Any]) -> None:
        """Place the rows of items in the view, but for those that cannot be read."""
        rows = [record for record in records if self._is_item(record)]
        if not rows:
            return
        try:
            self._update(rows)
        except ItemStateFormatError:
            self._update([row for row in rows if self._is_readable(row)])

    def _update(self, rows: Sequence[Any]) -> None:
        items = np.array([item_of(row.key) for row in rows], np.uint64)
        latest = time.time() + MAX_FUTURE_SECONDS
        if (view := self._view) is not None:
            view.update([row.value for row in rows], items, latest)

    def _is_item(self, record: Any) -> bool:
        key = record.key
        if is_item_key(key):
            return True
        if key != POSITION_KEY and (key is None or key[:1] != ASIDE_PREFIX):
            self._report(record, "key")
        return False

    def _is_readable(self, record: Any) -> bool:
        problem = None if record.value is None else problem_of(record.value)
        if problem is not None:
            self._report(record, problem)
        return problem is None

    def _report(self, record: Any, problem: str) -> None:
        self._unreadable.report(record.topic, record.partition, record.offset, record.key, problem)
