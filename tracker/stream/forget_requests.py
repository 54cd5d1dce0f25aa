"""ForgetRequests: applies the requests to forget users of one partition, between two chunks."""

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.events.batch import EventBatch
from tracker.kafka.forget import (
    BEAT_KEY,
    Audit,
    PendingForget,
    audit_record,
    relays,
    request_id,
    tombstone,
)
from tracker.kafka.outbox import Record
from tracker.kernels.row_bytes import FORGOTTEN_PREFIX, keys_of_user
from tracker.store.partition_store import PartitionStore
from tracker.stream.forgotten import Forgotten
from tracker.stream.serving import DAY_SECONDS, Context
from tracker.users.forget import item_events_back
from tracker.users.rows import UserRows

log = logging.getLogger(__name__)

BEAT_SECONDS = 3600.0
"""Interval of records to the quiet topics of states while a forgotten user's id may lie in them."""


class ForgetRequests:
    """Deletes what is kept of users who are to be forgotten, and knows them by hashes afterwards.

    Args:
        context: what the partitions of a worker share.
        partition: partition of the events topic.
        rows: the users' arrays.
        store: caches and commits those rows.
        drop_user: called with a user and the keys of the user's rows: drops what else is kept.

    Attributes:
        emptied: forgotten users whose empty rows are still in memory.
    """

    def __init__(
        self,
        context: Context,
        partition: int,
        rows: UserRows,
        store: PartitionStore[str],
        drop_user: Callable[[str, Sequence[bytes]], object],
    ) -> None:
        self.emptied: set[str] = set()
        self._context = context
        self._partition = partition
        self._rows = rows
        self._store = store
        self._drop_user = drop_user
        self._pseudonyms = context.pseudonyms
        self._source_partitions = context.cluster.partitions(context.cluster.topics.events)
        self._forgotten = Forgotten(
            store, context.settings.forget_hash_days * DAY_SECONDS, context.pseudonyms
        )
        self._items_back: list[NDArray[Any]] = []  # item events of users who were forgotten
        self._records: list[Record] = []  # for the forget topic, in the next commit
        self._tombstones: list[Record] = []  # for the commit after it, without transactions
        self._beat_at = context.clock()

    def opened(self) -> list[tuple[bytes, bytes]]:
        """Restore the hashes; return those that are damaged. The store is open now."""
        return self._forgotten.restore(self._store.scan(FORGOTTEN_PREFIX))

    def late(self, batch: EventBatch) -> NDArray[np.bool_] | None:
        """Return which events (N,) are of before their users were forgotten; None if none is."""
        return self._forgotten.late(batch)

    def are_due(self) -> bool:
        """Return whether a user is to be forgotten.

        While the hash of one is kept, the quiet topics get a record now and then: Kafka compacts
        only what is written to.
        """
        if self._forgotten or self._records:
            now = self._context.clock()
            if now >= self._beat_at + BEAT_SECONDS:
                self._beat_at = now
                topics = self._context.cluster.topics
                self._records += [
                    Record(topic, self._partition, BEAT_KEY, None)
                    for topic in (topics.forget, topics.user_keys)
                    if topic
                ]
            if self._records and not self._store.needs_commit:
                self._store.advance(self._store.progress.position)
        feed = self._context.forget_feed
        if feed is None:
            return False
        return bool(feed.pending(self._partition, self._store.progress.forgotten))

    def apply_next(self) -> None:
        """Forget the user of the next request; what belongs to it goes with the next commit.

        1. Take out of items what the events in the ring have added.
        2. Delete the rows, what is owed, lists that are held for the commit, and the user's key.
        3. Keep a salted hash, by which late events are dropped.
        4. End the request, and leave an audit record without the id.

        Raises:
            ArenaFullError, NewerArtifactError, NewerRowError: as `UserSide.process`.
        """
        feed = self._context.forget_feed
        assert feed is not None
        requests = feed.pending(self._partition, self._store.progress.forgotten)
        if requests:
            self._apply(requests[0])

    def take_item_events(self) -> list[NDArray[Any]]:
        """Return the item events that take back what was added; they are handed over once."""
        events, self._items_back = self._items_back, []
        return events

    def take_records(self) -> list[Record]:
        """Return the records of the next commit; they are handed over once."""
        records, self._records, self._tombstones = self._records, self._tombstones, []
        return records

    def sweep(self) -> None:
        """Delete the hashes whose time is over, and take ids out of memory that are not needed."""
        if self._forgotten:
            self._forgotten.expire(self._context.clock())
        self._evict_emptied()

    def _apply(self, pending: PendingForget) -> None:
        """Apply one request; see `apply_next`."""
        store, partitions = self._store, self._source_partitions
        user, now = self._pseudonyms.of_any(pending.user), self._context.clock()
        self._context.serving_for(self._rows)
        keys = keys_of_user(user)
        is_known = user in store.arena or any(row is not None for row in store.read(keys))
        n_back = n_older = 0
        if is_known:
            # 1. Take the user's events out of items.
            slot = int(store.slots_of([user])[0])
            states = self._rows.states
            source = 2 * partitions + self._partition
            back = item_events_back(states, slot, source, pending.offset)
            n_back, n_older = len(back), int(states.head["evicted"][slot])
            if n_back:
                self._items_back.append(back)
            # 2. Delete the rows, and what is owed.
            self._rows.erase(np.array([slot]))
            store.mark_dirty(np.array([slot]))
            self.emptied.add(user)
            for key in keys:
                store.note(key, None)
            self._drop_user(user, keys)
        if store.cipher is not None:
            store.cipher.keys.delete(user.encode())
        self._drop_rejections(pending)
        # 3. Keep a hash.
        at = min(pending.before, now)
        self._forgotten.add(user, at, now)
        # 4. End the request.
        audit = Audit(
            request_id(pending, self._partition),
            self._partition,
            at,
            now,
            n_back,
            n_older,
            is_known,
        )
        topics = self._context.cluster.topics
        end = tombstone(topics.forget, self._partition, pending)
        is_safe = self._context.cluster.transactions  # else the end comes after the deletion
        (self._records if is_safe else self._tombstones).append(end)
        self._records.append(audit_record(topics.forget, audit))
        named = pending._replace(key=user.encode()) if self._pseudonyms else pending
        self._records += relays(topics.forget, named, self._partition, partitions)
        store.progress.forgotten = pending.offset
        store.advance(store.progress.position)
        self._context.metrics.forgotten.inc()
        log.info(
            "%s-%d: forgot a user, request %s: %d events taken out of items, %d older ones left in"
            " their counts without a name",
            topics.events, self._partition, audit.request, n_back, n_older,
        )  # fmt: skip

    def _drop_rejections(self, pending: PendingForget) -> None:
        """Drop the rejected records that are kept for people who look, if they have the id."""
        rejections = self._context.rejections
        if self._pseudonyms:  # what was rejected has ids, and the request need not have one
            rejections.clear()
        for entry in list(rejections):
            if pending.key in entry.value:
                with contextlib.suppress(ValueError):  # it has just left
                    rejections.remove(entry)

    def _evict_emptied(self) -> None:
        """Take the ids of forgotten users out of memory, once their deletion is committed."""
        arena = self._store.arena
        for user in list(self.emptied):
            slot = arena.slot(user)
            if slot >= 0:
                if arena.dirty[slot] or arena.pinned[slot]:
                    continue
                if self._rows.is_empty(np.array([slot]))[0]:
                    arena.evict(np.array([slot]))
            self.emptied.discard(user)
