"""UserJoins: users of one partition who turn out to be others, here or in another partition."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tracker.events.batch import EventBatch
from tracker.kafka.outbox import Record
from tracker.kafka.partitioner import partition_of
from tracker.kernels.row_bytes import HIDDEN, Get, Slots, seen_key, user_key
from tracker.store.partition_store import PartitionStore
from tracker.stream.emission import EmitPolicy
from tracker.stream.hand_over import JOINING, HandOver, Leaving
from tracker.stream.metrics import OUTCOMES
from tracker.stream.serving import Context, Serving
from tracker.users.apply import Applied
from tracker.users.columns import JOINED, NOTHING_TO_JOIN
from tracker.users.rows import UserRows
from tracker.users.states import NewerArtifactError

log = logging.getLogger(__name__)


class UserJoins:
    """Joins the state of one user to another's, and hands on states that belong elsewhere.

    What it knows is of one chunk; `begin` starts the next.

    Args:
        context: what the partitions of a worker share.
        partition: partition of the events topic.
        rows: the users' arrays.
        store: caches and commits those rows.
        hand_over: tells which users leave, and writes their states.
        policy: forgets the pending list of each user who joins.
    """

    def __init__(
        self,
        context: Context,
        partition: int,
        rows: UserRows,
        store: PartitionStore[str],
        hand_over: HandOver,
        policy: EmitPolicy,
    ) -> None:
        self._context = context
        self._metrics = context.metrics
        self._pseudonyms = context.pseudonyms
        self._partition = partition
        self._rows = rows
        self._store = store
        self._hand_over = hand_over
        self._policy = policy
        self._slots: dict[str, int] = {}  # of the users who join others in this chunk
        self._joined_before: set[str] = set()  # of these, those whose row is from after the join
        self._ids: dict[str, str] = {}  # ids by pseudonym of the users who join in this chunk

    def renamed(
        self, batch: EventBatch, leaving: Sequence[Leaving], records: Sequence[Any]
    ) -> tuple[EventBatch, list[Leaving]]:
        """Return events and users who leave, with pseudonyms in the place of ids.

        Args:
            batch: events of users of this partition.
            leaving: users whose states go elsewhere.
            records: of the chunk, if they were handed on. States among them name their users by
                pseudonyms already, and what joins by a key that is no user's.
        """
        of = self._pseudonyms.of
        states = {record.offset for record in records if record.state is not None}
        users = self._pseudonyms.of_all(batch.users)
        joined: dict[int, str] = {}
        self._ids = {}
        for place, was in batch.joined.items():
            if int(batch.offsets[place]) in states:
                users[place], joined[place] = batch.users[place], was
            else:
                joined[place] = of(was)
                self._ids[joined[place]] = was
        return replace(batch, users=users, joined=joined), [
            replace(one, user=of(one.user), was=of(one.was)) for one in leaving
        ]

    def begin(self, joining: Sequence[str], slots: Slots) -> None:
        """Note the users who join others in a chunk, and their slots."""
        self._slots = dict(zip(joining, slots.tolist(), strict=True))

    def load_states(self, records: Sequence[Any]) -> None:
        """Load the states that were handed on under the keys by which they join.

        Raises:
            NewerArtifactError: a state was written with a newer artifact; nothing has changed.
        """
        for record in records:
            state = record.state
            key = f"{JOINING} {record.origin.partition} {record.origin.offset}"
            slot = self._slots.get(key)
            if state is None or slot is None:
                continue
            try:
                self._rows.load([key], np.array([slot]), _rows_of(key, state.row, state.seen))
            except NewerArtifactError:
                self.forget_keys()
                raise

    def forget_keys(self) -> None:
        """Free the slots of states that were handed on, and have joined."""
        slots = [slot for key, slot in self._slots.items() if key.startswith(JOINING)]
        self._slots = {}  # from now on others may have them
        if slots:
            self._store.arena.evict(np.array(slots))

    def hand_on_states(self, leaving: Sequence[Leaving], handed: bool) -> list[Record]:
        """Return the records of users' states on whom users of other partitions turned out to be.

        Args:
            leaving: users whose states go elsewhere; their rows are empty then.
            handed: whether their events were handed on themselves.
        """
        head = self._rows.states.head
        out = []
        for one in leaving:
            slot = self._slots[one.was]
            row = head[slot]
            before = not self._context.cluster.transactions and not handed
            if before and row["last_offset"] >= one.offset:
                continue
            if row["n_ring"] or row["evicted"] or row["n_pending"]:
                packed = self._rows.states.pack(np.array([slot]))[0]
                seen_slot = self._rows.seen_slots[slot]
                seen = self._rows.seen.pack(np.array([seen_slot]))[0] if seen_slot >= 0 else None
                out.append(self._hand_over.state_record(one, packed, seen))
                self._rows.forget(slot)
                self._policy.mark_sent([one.was])
                self._metrics.outcomes.labels("handed_on").inc()
            if not handed:
                head["last_offset"][slot] = max(int(head["last_offset"][slot]), one.offset)
        return out

    def note_rows_ahead(self, batch: EventBatch) -> None:
        """Note who has joined before in the changelog: rows may be there without their position."""
        last = self._rows.states.head["last_offset"]
        self._joined_before = {
            was
            for place, was in batch.joined.items()
            if last[self._slots[was]] >= batch.offsets[place]
        }

    def join(self, join: EventBatch, is_fresh: bool, serving: Serving) -> Applied | None:
        """Join a user's state to another's, once, however often the event comes.

        The row of the one who joined stays, empty, with the offset. If a commit without a
        transaction was cut off, the row of the other one may alone have been written: then nothing
        joins, and the row of the one who joined is emptied.

        Args:
            join: the event that joins them, alone.
            is_fresh: whether the rows do not have it yet.
            serving: artifact in use.

        Returns:
            the outcome of the retractions that had waited; None if nothing has joined.
        """
        (was,) = join.joined.values()
        slot, other, offset = int(join.slots[0]), self._slots[was], int(join.offsets[0])
        if slot == other:
            return None
        head = self._rows.states.head
        applied = None
        if is_fresh:
            applied = serving.recommender.join(self._rows, slot, other, join)
        elif was not in self._joined_before:
            self._rows.forget(other)
        if not join.is_handed:  # offsets of another topic
            for row in (slot, other):
                head["last_offset"][row] = max(int(head["last_offset"][row]), offset)
        self._policy.mark_sent([was])
        outcome = NOTHING_TO_JOIN if applied is None else JOINED
        self._metrics.outcomes.labels(OUTCOMES[outcome]).inc()
        if applied is None and is_fresh:
            self._check_place(was, join.users[0], offset)
        return applied

    def _check_place(self, was: str, user: str, offset: int) -> None:
        """Count a join of a user of whom nothing is kept here, if another partition may do."""
        topic = self._context.cluster.topics.events
        partitions = self._context.cluster.partitions(topic)
        settings = self._context.settings
        if settings.partitioner == "given" or self._hand_over.hands_on:
            return
        was_id = self._ids.get(was, was)
        home = partition_of(was_id, partitions, settings.partitioner)
        if home == self._partition:
            return
        self._metrics.joins_elsewhere.inc()
        if "joins elsewhere" not in self._context.log_once:
            self._context.log_once.add("joins elsewhere")
            if not settings.log_user_ids:
                was = user = HIDDEN
            log.warning(
                "%s-%d, offset %d: user %s was %s, whose events are in partition %d: that state"
                " stays there, and does not join, since nothing is handed on. Set"
                " TRACKER_HAND_OVER=on and run `tracker topics`, or key the events of a visitor by"
                " an id that stays after the login. tracker_joins_elsewhere_total counts"
                " such joins; this is said once",
                topic, self._partition, offset, user, was, home,
            )  # fmt: skip


def _rows_of(key: str, row: bytes, seen: bytes | None) -> Get:
    """Return what reads the rows of one user."""
    rows = {user_key(key): row, seen_key(key): seen}
    return lambda keys: [rows[one] for one in keys]
