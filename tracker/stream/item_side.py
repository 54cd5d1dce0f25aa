"""ItemSide: applies blocks of item events to the items' states.

On the path of one commit: see docs/design/one-event-one-commit.md.
"""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.events.item_events import ItemEventFormatError, decode_block, split_events
from tracker.events.wire import Rejection
from tracker.feeds.source_ends import SourceEnds, UnknownOffsetError
from tracker.items.counts import COUNT
from tracker.items.rows import ItemRows
from tracker.items.states import ItemStates, problem_of
from tracker.items.vectors import ItemVectors
from tracker.kafka.outbox import Record, rejected_record
from tracker.kafka.unreadable import UnreadableRows
from tracker.kernels.row_bytes import (
    ASIDE_PREFIX,
    ITEM_PREFIX,
    DamagedRowError,
    Slots,
    item_key,
    item_of,
    key_text,
)
from tracker.store.idle import IdleSweep
from tracker.store.partition_store import PartitionStore
from tracker.stream.serving import Context
from tracker.stream.side import Side
from tracker.stream.waiting_items import WaitingItems

log = logging.getLogger(__name__)

WARM_HALF_LIVES = 7.0
"""Half-lives after which less than 1 % of an estimate is left in a count."""

FADED_COUNT = 1.0
"""A row of an item that no catalogue has is deleted once less than this is left of its count by the
long half-life, and it has had no event for `FADED_SECONDS`."""
FADED_SECONDS = 604800.0
FADED_RECORDS = 100
"""Records of a partition that are checked for this with each commit."""


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
        ends: end offsets of the events topic; without them, offsets past its end are not told.
    """

    table = "items"

    def __init__(
        self,
        context: Context,
        partition: int,
        rows: ItemRows,
        store: PartitionStore[int],
        ends: SourceEnds | None = None,
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
        events = context.cluster.partitions(context.cluster.topics.events)
        # Item events of handed-on events are counted on from the partitions of the events topic,
        # and those of users who were forgotten after these.
        sources = 3 if context.cluster.forgets else 2 if context.cluster.hands_over else 1
        self._source_partitions = events * sources
        self._rows = rows
        self._waiting = WaitingItems(store, self._has_row)
        self._faded = IdleSweep(
            store,
            ITEM_PREFIX,
            FADED_SECONDS,
            item_of,
            self._last_times_of_faded,
            lambda slot: float(self._last_if_faded(rows.states, np.array([slot]))[0]),
            at_once=FADED_RECORDS,
        )
        self._vectors: ItemVectors | None = None  # of the catalogue when it was looked at last
        rows.on_unreadable = self.keep_aside
        rows.on_damaged = self.on_damaged
        self._unreadable = UnreadableRows(self.table, context.metrics.count_unreadable)
        self._ends = ends
        self._needed_read: int | None = None  # the read of `ends` before an offset is refused
        self._already_applied = 0  # events of this chunk, before a commit made room

    def process(
        self, records: Sequence[Any], end: int, handed: bool = False, together: bool = False
    ) -> list[Record]:
        """Apply the blocks of a chunk.

        1. Decode and check the blocks; those that no worker wrote are rejected.
        2. Leave out the events that were applied before.
        3. Apply the rest, in parts if they are of more items than there are rows in memory.
        4. Advance the position.

        Args:
            records: of the source, in order.
            end: the position after them.
            handed: unused; item events are handed on with their users' events.
            together: unused; there are no lists.

        Returns:
            records that are not blocks, for the rejected topic.

        Raises:
            ArenaFullError: commit, and call again with the same records. A part may be applied
                then; its source offsets are, too, so that it is applied once.
            NewerRowError: a newer version wrote a row; nothing of its part is applied.
            UnknownOffsetError: read the ends of the events topic, and call again; nothing has
                changed.
        """
        self._rows.follow(self._context.keeper.current.artifact.manifest.item_counts)
        self._begin_rows()
        # 1. Decode and check the blocks.
        blocks: list[Any] = []
        out: list[Record] = []
        first_bad = -1, ""
        for record in records:
            try:
                block = decode_block(record.value or b"", self._source_partitions)
                self._check_ends(block)
            except ItemEventFormatError as error:
                if not out:
                    first_bad = int(record.offset), str(error)
                out.append(self._reject(record, str(error)))
            else:
                blocks.append(block)
        # 2. Leave out what was applied before.
        sources = dict(self.store.progress.sources)
        fresh = [self._past(block, sources) for block in blocks]
        replayed = sum(map(len, blocks)) - sum(map(len, fresh)) - self._already_applied
        # 3. Apply the rest.
        if fresh:
            for part in split_events(
                np.concatenate(fresh), self.store.arena.capacity, distinct=True
            ):
                self._apply(part)
        # 4. Advance the position.
        if out:
            self._metrics.rejected.labels("item_block").inc(len(out))
            log.error(
                "%s-%d: rejected %d records that are not item-event blocks, the first at offset"
                " %d: %s; they are in the rejected topic",
                self._topic, self._partition, len(out), *first_bad,
            )  # fmt: skip
        if replayed:
            self._metrics.replayed.inc(replayed)
        self._already_applied, self._needed_read = 0, None
        self.store.advance(end)
        return out

    def opened(self) -> None:
        """Restore what waits."""
        super().opened()
        self._waiting.open()

    def sweep(self) -> None:
        """Delete idle rows, and those of items of no catalogue whose counts have faded."""
        super().sweep()
        if faded := self._faded.run(self._context.clock()):
            self._metrics.deleted.labels(self.table).inc(faded)

    def _has_row(self, items: list[int]) -> list[bool]:
        arena = self.store.arena
        away = [item for item in items if item not in arena]
        rows = dict(zip(away, self.store.read([item_key(item) for item in away]), strict=True))
        return [rows.get(item, b"") is not None for item in items]

    def _last_times_of_faded(self, rows: list[bytes]) -> NDArray[np.float64]:
        """Return the last times of rows that may be deleted as faded, infinity for others."""
        return self._last_if_faded(self._rows.read(rows)[0], np.arange(len(rows)))

    def _last_if_faded(self, states: ItemStates, slots: Slots) -> NDArray[np.float64]:
        head = states.head[slots]
        vectors = self._context.keeper.current.artifact.vectors
        now = min(self.store.progress.stream_time, self._context.clock())
        age = np.maximum(now - head["ref_time"], 0.0)
        share = np.exp2(-age / states.half_lives[COUNT.long])
        is_left = states.counted["count"][slots, COUNT.long] * share >= FADED_COUNT
        items = np.ascontiguousarray(head["item"])
        stays = is_left | (items == 0) | (vectors.row_of(items) >= 0)
        return np.where(stays, np.inf, head["last_time"])

    def _begin_rows(self) -> None:
        """Begin the rows of items that waited, and that a new catalogue has."""
        vectors = self._context.keeper.current.artifact.vectors
        if vectors is self._vectors:
            return
        events, waits = self._waiting.known(vectors.row_of)
        if len(events):
            slots = self.store.slots_of(events["item"].tolist())
            self._rows.apply(slots, events)
            self.store.mark_dirty(slots)
            self._waiting.keep(waits)
        self._vectors = vectors

    def find_item(self, item: int) -> tuple[ItemStates, int] | None:
        """Return the arrays and the slot of an item's row; None if nothing is kept of the item.

        Raises:
            ArenaFullError, NewerRowError: as `process`.
        """
        if item not in self.store.arena and self.store.read([item_key(item)]) == [None]:
            return None
        return self._rows.states, int(self.store.slots_of([item])[0])

    def warming(self, item: int, now: float) -> list[float] | None:
        """Return the half-lives, in seconds, whose counts are estimates for the most part yet.

        They are new: see `ItemCounts`. For the time between two chunks; None for an item that is
        not in memory.
        """
        slot = self.store.arena.slot(item)
        if slot < 0:
            return None
        states = self._rows.states
        seeded = states.counted["seeded"][slot]
        ages = now - seeded
        new = (seeded > 0.0) & (ages < WARM_HALF_LIVES * states.half_lives)
        return sorted(states.half_lives[new].tolist())

    def _apply(self, item_events: Any) -> None:
        """Apply item events, and advance their sources.

        Raises:
            ArenaFullError: commit, and try again; nothing has changed.
        """
        latest = float(item_events["time"].max())
        most = self._context.latest_time
        if latest > most:  # of an event that was accepted before this was checked
            latest = most
            item_events["time"] = np.minimum(item_events["time"], latest)
        vectors = self._context.keeper.current.artifact.vectors
        in_catalogue = vectors.row_of(np.ascontiguousarray(item_events["item"])) >= 0
        to_apply, waits = self._waiting.divide(item_events, in_catalogue)
        slots = self.store.slots_of(to_apply["item"].tolist())
        self._waiting.keep(waits)
        self._rows.apply(slots, to_apply)
        self.store.mark_dirty(slots)
        progress = self.store.progress
        progress.stream_time = max(progress.stream_time, latest)
        for source in np.unique(item_events["source_partition"]).tolist():
            mine = item_events["source_partition"] == source
            progress.sources[source] = int(item_events["source_offset"][mine].max())
        self._already_applied += len(item_events)
        self._metrics.item_events.inc(len(item_events))

    def _past(self, block: Any, sources: dict[int, int]) -> Any:
        """Return the events of a block that were not applied before, and advance their source."""
        if not len(block):
            return block
        source = int(block["source_partition"][0])
        offsets = block["source_offset"]
        new = block[np.searchsorted(offsets, sources.get(source, -1), side="right") :]
        sources[source] = max(sources.get(source, -1), int(offsets[-1]))
        return new

    def _check_ends(self, block: Any) -> None:
        """Check that the source of a block has the offsets that the block names.

        Raises:
            ItemEventFormatError: it has not: true events up to there would count as applied.
            UnknownOffsetError: its end has to be read first.
        """
        if self._ends is None or not len(block):
            return
        source, offset = int(block["source_partition"][-1]), int(block["source_offset"][-1])
        if self._ends.reaches(source, offset):
            return
        if self._needed_read is None:
            self._needed_read = self._ends.reads_begun + 1
        if self._ends.last_read < self._needed_read:
            raise UnknownOffsetError(self._ends)
        raise ItemEventFormatError(
            f"a block has source_offset {offset}; partition {source} of the events topic ends at"
            f" {self._ends.end(source)}, and an offset before that is expected"
        )

    def keep_aside(self, key: bytes, row: bytes, problem: str) -> None:
        """Keep a row that cannot be read under a key of its own; its item begins anew."""
        topic = self._context.cluster.topics.items_changelog
        if self._context.settings.damaged_rows == "stop":
            raise DamagedRowError(f"{topic}-{self._partition}: row {key_text(key)}", problem)
        self._unreadable.report(topic, self._partition, None, key, problem)
        self.store.note(ASIDE_PREFIX + key, row)

    def is_readable(self, key: bytes, row: bytes) -> bool:
        """Return whether the row of an item can be read."""
        return problem_of(row) is None

    def _reject(self, record: Any, message: str) -> Record:
        topic = self._context.cluster.topics.rejected
        rejection = Rejection(
            "item_block", message, self._topic, self._partition, int(record.offset)
        )
        target = self._partition % self._context.cluster.partitions(topic)
        return rejected_record(topic, target, record.key, record.value, rejection)
