"""ItemSide: applies blocks of item events to the items' states."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracker.events.item_events import ItemEventFormatError, decode_block
from tracker.events.wire import Rejection
from tracker.items.rows import ItemRows
from tracker.items.states import ItemStates
from tracker.kafka.outbox import Record, rejected_record
from tracker.kernels.row_bytes import ITEM_PREFIX, item_key, item_of
from tracker.store.idle import IdleSweep
from tracker.store.partition_store import PartitionStore
from tracker.stream.serving import Context
from tracker.stream.side import Side

log = logging.getLogger(__name__)


class ItemSide(Side[int]):
    """Processes the item events of one partition.

    Item events are deltas, so each has to be applied once. The position record keeps the last
    offset of each partition of the events topic; item events up to it were applied before. (A
    commit of unknown outcome, or a broker without transactions, may send a block twice.)

    Args:
        context: what the partitions of a worker share.
        partition: partition of the topic of item events.
        rows: the items' arrays.
        store: caches and commits those rows.
    """

    table = "items"

    def __init__(
        self, context: Context, partition: int, rows: ItemRows, store: PartitionStore[int]
    ) -> None:
        idle = IdleSweep(
            store,
            ITEM_PREFIX,
            context.idle_seconds,
            item_of,
            rows.last_times,
            lambda slot: float(rows.states.head["last_time"][slot]),
        )
        super().__init__(context, partition, store, idle)
        self._topic = context.cluster.topics.items
        self._rows = rows

    def process(self, records: Sequence[Any], end: int) -> list[Record]:
        """Apply the blocks of a chunk.

        Args:
            records: of the source, in order.
            end: the position after them.

        Returns:
            records that are not blocks, for the rejected topic.

        Raises:
            ArenaFullError: commit, and call again with the same records; nothing has changed.
        """
        sources = dict(self.store.progress.sources)
        fresh: list[Any] = []
        out: list[Record] = []
        first_bad = -1
        replayed = 0
        for record in records:
            try:
                block = decode_block(record.value or b"")
            except ItemEventFormatError as error:
                if not out:
                    first_bad = int(record.offset)
                out.append(self._reject(record, str(error)))
                continue
            new = self._past(block, sources)
            replayed += len(block) - len(new)
            fresh.append(new)
        item_events = np.concatenate(fresh) if fresh else None
        if item_events is not None and len(item_events):
            slots = self.store.slots_of(item_events["item"].tolist())
            self._rows.apply(slots, item_events)
            self.store.mark_dirty(slots)
            latest = float(item_events["time"].max())
            progress = self.store.progress
            progress.stream_time = max(progress.stream_time, latest)
            self._metrics.item_events.inc(len(item_events))
        if out:
            self._metrics.rejected.labels("item_block").inc(len(out))
            log.error(
                "%s-%d: skipped %d records that are not item-event blocks, the first at offset %d;"
                " they are in the rejected topic",
                self._topic, self._partition, len(out), first_bad,
            )  # fmt: skip
        if replayed:
            self._metrics.replayed.inc(replayed)
        self.store.progress.sources = sources
        self.store.advance(end)
        return out

    def find_item(self, item: int) -> tuple[ItemStates, int] | None:
        """Return the arrays and the slot of an item's row; None if nothing is kept of the item."""
        if item not in self.store.arena and self.store.read([item_key(item)]) == [None]:
            return None
        return self._rows.states, int(self.store.slots_of([item])[0])

    def _past(self, block: Any, sources: dict[int, int]) -> Any:
        """Return the events of a block that were not applied before, and advance their sources."""
        keep = np.zeros(len(block), np.bool_)
        for source in np.unique(block["source_partition"]).tolist():
            mine = block["source_partition"] == source
            offsets = block["source_offset"]
            keep |= mine & (offsets > sources.get(source, -1))
            sources[source] = max(sources.get(source, -1), int(offsets[mine].max()))
        return block[keep]

    def _reject(self, record: Any, message: str) -> Record:
        topic = self._context.cluster.topics.rejected
        rejection = Rejection(
            "item_block", message, self._topic, self._partition, int(record.offset)
        )
        target = self._partition % self._context.cluster.partitions(topic)
        return rejected_record(topic, target, record.key, record.value, rejection)
