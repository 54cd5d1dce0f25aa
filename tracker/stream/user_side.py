"""UserSide: applies chunks of events to users' states, and makes their lists.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

import contextlib
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.events.arrivals import MAX_FUTURE_SECONDS
from tracker.events.batch import EventBatch, waves
from tracker.events.item_events import encode_block, item_partition, split_events
from tracker.events.wire import Rejection
from tracker.kafka.forget import (
    BEAT_KEY,
    Audit,
    PendingForget,
    audit_record,
    relays,
    request_id,
    tombstone,
)
from tracker.kafka.outbox import MAX_RECORD_BYTES, Record
from tracker.kafka.partitioner import partition_of
from tracker.kafka.unreadable import REMEDIES, UnreadableRows
from tracker.kernels.row_bytes import (
    ASIDE_PREFIX,
    FORGOTTEN_PREFIX,
    HIDDEN,
    OWED_PREFIX,
    SEEN_PREFIX,
    USER_PREFIX,
    DamagedRowError,
    Get,
    key_text,
    keys_of_user,
    seen_key,
    user_key,
    user_of,
)
from tracker.recommend.options import LearnedModels
from tracker.store.idle import IdleSweep
from tracker.store.partition_store import PartitionStore
from tracker.stream.emission import EmitPolicy, last_of_each
from tracker.stream.forgotten import Forgotten
from tracker.stream.hand_over import JOINING, HandOver, Leaving, Misplaced
from tracker.stream.intake import Intake
from tracker.stream.list_maker import ListJob, ListMaker, Lists
from tracker.stream.partition_learning import PartitionLearning
from tracker.stream.serving import DAY_SECONDS, Context, Serving
from tracker.stream.side import OpenVerdictError, Side
from tracker.stream.source_ends import SourceEnds
from tracker.users.apply import Applied
from tracker.users.columns import (
    ALREADY_RETRACTED,
    APPLIED,
    DUPLICATE,
    JOINED,
    NOTHING_TO_JOIN,
    NOTHING_TO_TAKE_BACK,
    RETRACTED,
    RETRACTED_ON_ARRIVAL,
    RETRACTION_WAITS,
    TOO_OLD,
)
from tracker.users.forget import item_events_back
from tracker.users.layout import offset_of
from tracker.users.rows import UserRows
from tracker.users.states import NewerArtifactError, UserStates

log = logging.getLogger(__name__)

BLOCK_EVENTS = 400
"""Item events in one record; up to about 80 KiB."""

VERSIONS_A_COMMIT = 2**24
"""More events than one commit interval can have; versions of lists go on from there."""

SET_ASIDE = "; it is kept under the key x and its own, and its user goes on without it"

USER_REMEDIES = REMEDIES | {
    "damaged": "its checksum or length does not agree" + SET_ASIDE,
    "older": "an older version of the tracker wrote it" + SET_ASIDE,
    "layout": "it has other dimensions than the artifact in use" + SET_ASIDE,
}
"""Problems of a user's row, and what is said of each."""

LATEST_USERS = 200
"""Users of the latest events that are remembered, for people who look."""

LOOK_ROWS = 5000
"""Rows read at once where all of a partition are looked at."""

SAMPLE_ROWS = 100
"""Rows read at the start, to tell a wrong artifact or version from single rows."""

BEAT_SECONDS = 3600.0
"""Interval of records to the quiet topics of states while a forgotten user's id may lie in them."""

OUTCOMES = {
    APPLIED: "applied",
    DUPLICATE: "duplicate",
    RETRACTED: "retracted",
    RETRACTION_WAITS: "retraction_waits",
    TOO_OLD: "too_old",
    RETRACTED_ON_ARRIVAL: "retracted_on_arrival",
    ALREADY_RETRACTED: "already_retracted",
    NOTHING_TO_TAKE_BACK: "nothing_to_take_back",
    JOINED: "joined",
    NOTHING_TO_JOIN: "nothing_to_join",
}


@dataclass(frozen=True, slots=True)
class FoundUser:
    """A copy of a user's row, which later events do not change; see `UserSide.find_user`.

    Attributes:
        rows: arrays of this user alone.
        slot: slot of the user in them, 0; -1 for a user of whom nothing is kept.
        now: latest event time that the partition or the user has seen, in seconds; not much past
            the worker's clock.
        set_aside: whether this copy shows that a row of the user cannot be read;
            `UserSide.is_set_aside` knows of those that were set aside before, too.
    """

    rows: UserRows
    slot: int
    now: float
    set_aside: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """The state of a partition between two chunks, without its rows.

    Attributes:
        serving: artifact in use.
        learned: copies of the models learned online.
        offset: offset of the next event to apply.
        now: stream time, and the wall time since the last chunk: seconds.
        newest: number of the newest artifact that states may name.
        scene_names: names by code of the scenes that came since the partition was opened.
    """

    serving: Serving
    learned: LearnedModels
    offset: int
    now: float
    newest: int
    scene_names: Mapping[int, str]


class UserSide(Side[str]):
    """Processes the events of one partition.

    Args:
        context: what the partitions of a worker share.
        partition: partition of the events topic.
        rows: the users' arrays.
        store: caches and commits those rows.
        ends: end offsets of the events topic; without them, made-up origins are not told.
    """

    table = "users"

    def __init__(
        self,
        context: Context,
        partition: int,
        rows: UserRows,
        store: PartitionStore[str],
        ends: SourceEnds | None = None,
    ) -> None:
        idle = IdleSweep(
            store,
            USER_PREFIX,
            context.idle_seconds,
            user_of,
            rows.last_times,
            lambda slot: float(rows.states.head["last_time"][slot]),
            lambda key: [
                SEEN_PREFIX + key[len(USER_PREFIX) :],
                ASIDE_PREFIX + key,
                ASIDE_PREFIX + SEEN_PREFIX + key[len(USER_PREFIX) :],
            ],
        )
        super().__init__(context, partition, store, idle)
        self._settings = context.settings
        self._source_partitions = context.cluster.partitions(context.cluster.topics.events)
        self._rows = rows
        rows.on_unreadable = self.keep_aside
        rows.on_damaged = self.on_damaged
        self._unreadable = UnreadableRows(
            self.table,
            context.metrics.count_unreadable,
            USER_REMEDIES,
            context.settings.log_user_ids,
        )
        self._aside: set[bytes] = set()  # keys of rows set aside, until they are committed
        self._intake = Intake(context, partition)
        self._hand_over = HandOver(context, partition, self._intake.keys, store, ends)
        self._handed_on: list[Record] = []  # records for other partitions' owners
        self._learning = PartitionLearning(context, partition, store, self.keep_aside)
        self._policy = EmitPolicy(
            store,
            context.settings.emit_min_interval_seconds,
            context.settings.max_event_age_seconds,
        )
        self._lists = ListMaker(context, partition, rows, self._policy)
        self._job: ListJob | None = None  # lists that are not made yet
        self._outcome = cache(self._metrics.outcomes.labels)
        self._item_events: list[NDArray[Any]] = []
        self._joining: dict[str, int] = {}  # slots of the users who join others in this chunk
        self._joined_before: set[str] = set()  # of these, those whose row is from after the join
        self._pseudonyms = context.pseudonyms
        self._ids: dict[str, str] = {}  # ids by pseudonym of the users who join in this chunk
        self._held_records: list[Record] = []  # recommendations that belong into the next commit
        self._moved_at = context.clock()  # wall time of the last chunk
        self._latest_users: deque[str] = deque(maxlen=LATEST_USERS)
        self._forgotten = Forgotten(
            store, context.settings.forget_hash_days * DAY_SECONDS, context.pseudonyms
        )
        self._items_back: list[NDArray[Any]] = []  # item events of users who were forgotten
        self._forget_records: list[Record] = []  # for the forget topic, in the next commit
        self._tombstones: list[Record] = []  # for the commit after it, without transactions
        self._emptied: set[str] = set()  # forgotten users whose empty rows are still in memory
        self._beat_at = context.clock()

    @property
    def scene_names(self) -> dict[int, str]:
        """Names by code of the scenes that came since the partition was opened."""
        return self._intake.scene_names

    def opened(self) -> None:
        """Restore the pending lists and the learned models. The store is open now.

        Versions of lists begin at the clock's microseconds, or past those of the former owner. So
        they are larger than those of lists that it has sent since its last commit.
        """
        super().opened()
        self._check_sample()
        progress = self.store.progress
        progress.version = max(
            int(self._context.clock() * 1e6), progress.version + VERSIONS_A_COMMIT
        )
        self._hand_over.opened()
        rows = self.store.scan(OWED_PREFIX)
        for key, row in self._policy.restore(rows, self._context.clock()):
            self.keep_aside(key, row, "damaged")
        for key, row in self._forgotten.restore(self.store.scan(FORGOTTEN_PREFIX)):
            self.keep_aside(key, row, "damaged")
        self._learning.opened()

    def process(
        self, records: Sequence[Any], end: int, handed: bool = False, together: bool = False
    ) -> list[Record]:
        """Apply a chunk of events, and advance the position.

        1. Decode the records; those that are not events are rejected. If a verdict depends on the
           clock, the clock is committed first. Events of users of other partitions are left out;
           they are handed on with the next commit. From here on users have their pseudonyms, if
           there is a key.
        2. Find the users' rows, and load missing ones.
        3. Learn from some events, apply all in order, and make the lists that the policy wants.
        4. Advance the position.

        Args:
            records: of the source, in order.
            end: the position after them.
            handed: whether other partitions have handed them on.
            together: whether lists may be left for `take_lists`, with those of other partitions.

        Returns:
            the records to send at once.

        Raises:
            ArenaFullError: commit, and call again with the same records; nothing has changed.
            OpenVerdictError: the same; the commit keeps the clock by which they are judged.
            NewerArtifactError: a state was written with a newer artifact; nothing has changed.
            UnknownOffsetError: read the ends of the events topic, and call again.
        """
        now = self._context.clock()
        serving = self._serving()
        # 1. Decode the records.
        progress, reached = self.store.progress, self.store.reached(handed)
        refused: list[tuple[Any, Rejection]] = []
        repeated = 0
        if handed:
            records, refused, repeated = self._hand_over.restore(records)
        was_judged = end <= reached.clock_end
        with self._context.trace("decode"):
            clock = reached.clock if was_judged else now
            batch, rejected, is_open = self._intake.read(records, clock)
        if is_open and not was_judged:
            self.store.keep_clock(now, end, handed)
            raise OpenVerdictError
        late = self._forgotten.late(batch)
        if late is not None:
            batch = self._intake.keep(batch, np.flatnonzero(~late))
        misplaced: Misplaced | None = None
        leaving = self._hand_over.leaving(batch, records if handed else None)
        if handed:
            batch, rejected = self._hand_over.keep_own(records, batch, rejected)
        else:
            batch, misplaced = self._hand_over.split(batch)
        if self._pseudonyms:
            batch, leaving = self._renamed(batch, leaving, records if handed else ())
        # 2. Find the users' rows. Nothing is counted or changed before this has succeeded.
        slots = np.zeros(0, np.int64)
        if len(batch) or leaving:
            joining = [*batch.joined.values(), *(one.was for one in leaving)]
            with self._context.trace("load"):
                slots = self.store.slots_of([*batch.users, *joining])
            batch.slots[:] = slots[: len(batch)]
            self._joining = dict(zip(joining, slots[len(batch) :].tolist(), strict=True))
            if handed:
                self._load_states(records)
        # 3. Learn, apply, recommend.
        out = self._intake.count(records, batch, rejected)
        out += [self._intake.reject(record, rejection) for record, rejection in refused]
        if misplaced is not None:
            self._count_misplaced(records, misplaced)
            self._handed_on += self._hand_over.hand_on(records, misplaced)
        else:
            self._metrics.replayed.inc(repeated)
            self._hand_over.taken(records)
        if late is not None:
            self._metrics.forgotten_events.inc(int(late.sum()))
        if len(batch):
            versions = progress.version + 1 + np.arange(len(batch))
            stream_times = np.maximum.accumulate(np.maximum(batch.times, progress.stream_time))
            np.minimum(stream_times, now + MAX_FUTURE_SECONDS, out=stream_times)
            self._learning.learn(serving, self._rows, batch, stream_times)
            fresh = self._fresh(batch)
            if self._settings.emit == "event" or batch.joined:
                for group in self._groups(batch):
                    out += self._apply(
                        batch.take(group),
                        fresh[group],
                        stream_times[group],
                        versions[group],
                        serving,
                        now,
                    )
                self._sort_item_events()
            else:
                leaves = together and not handed and not leaving and _all(fresh)
                out += self._apply(batch, fresh, stream_times, versions, serving, now, leaves)
            self.store.mark_dirty(slots)
            progress.version = int(versions[-1])
            progress.stream_time = float(stream_times[-1])
            self._metrics.events.inc(len(batch))
            if not self._policy.is_old(float(batch.times[-1]), now):
                self._policy.end_backlog(now)
        if leaving:
            self._hand_on_states(leaving, handed)
            self.store.mark_dirty(slots[len(batch) :])
        if handed:
            self._forget_keys()
        # 4. Advance the position.
        self.store.advance(end, handed)
        self._moved_at = now
        self._latest_users.extend(batch.users[-LATEST_USERS:])
        return self._hold_for_commit(out)

    def take_lists(self) -> ListJob | None:
        """Return the lists that `process` has left; they are made before anything else happens."""
        job, self._job = self._job, None
        return job

    def due_at(self, at_end: bool) -> float | None:
        """Return the wall time in seconds at which the next pending list is due; None if none is.

        Args:
            at_end: whether all events of the log are in the state: a backlog ends there.
        """
        if self._context.replay is not None:
            return None
        if at_end and self._policy.has_backlog:
            self._policy.end_backlog(self._context.clock())
        return self._policy.due_at()

    def emit_due(self) -> list[Record]:
        """Make up to a chunk of the pending lists that are due; return the records to send.

        Raises:
            ArenaFullError, NewerArtifactError: as `process`.
        """
        now = self._context.clock()
        serving = self._serving()
        due = self._policy.due(now, self._settings.chunk_events)
        if not due:
            return []
        users = [entry.user for entry in due]
        slots = self.store.slots_of(users)
        times = np.maximum(
            self._rows.states.head["last_time"][slots], self.store.progress.stream_time
        )
        np.minimum(times, now + MAX_FUTURE_SECONDS, out=times)
        lists = Lists(
            users,
            slots,
            times,
            self._rows.states.head["last_scene"][slots].astype(np.uint32),
            [entry.pending.scene for entry in due],
            [
                (
                    self._partition if entry.pending.partition < 0 else entry.pending.partition,
                    entry.pending.offset,
                )
                for entry in due
            ],
            np.array([entry.pending.appended for entry in due]),
            [entry.pending.version for entry in due],
        )
        out = self._lists.make(lists, serving, now, self._learning.learned(serving))
        self.store.mark_dirty(slots)
        return self._hold_for_commit(out)

    def pending(self) -> int:
        """Return the number of users whose list is postponed."""
        return self._policy.pending

    @property
    def outgoing_bytes(self) -> int:
        """Size of the item events and recommendations that wait for the next commit, in bytes."""
        events = sum(part.nbytes for part in self._item_events)
        return events + sum(record.size for record in self._held_records + self._handed_on)

    def take_outgoing(self) -> list[Record]:
        """Return the records of the next commit: item events, handed-on events, held lists."""
        topic = self._context.cluster.topics.items
        partitions = self._context.cluster.partitions(topic)
        out = self._held_records + self._handed_on
        self._held_records, self._handed_on = [], []
        # A block is of one source: the events topic, that of handed-on events, or the forget topic,
        # whose item events come last: they take back what the others have added.
        parts = [part for part in (*self._item_events, *self._items_back) if len(part)]
        for source in sorted({int(part["source_partition"][0]) for part in parts}):
            item_events = np.concatenate(
                [part for part in parts if part["source_partition"][0] == source]
            )
            targets = item_partition(item_events["item"], partitions)
            version = self._settings.item_block_format
            for target in range(partitions):
                mine = item_events[targets == target]
                out += [
                    Record(topic, target, None, encode_block(part, version))
                    for part in split_events(mine, BLOCK_EVENTS)
                ]
        self._item_events, self._items_back = [], []
        out += self._forget_records
        self._forget_records, self._tombstones = self._tombstones, []
        return out

    def sweep(self) -> None:
        """Delete some idle rows and the hashes whose time is over, with the coming commit."""
        super().sweep()
        if self._forgotten:
            self._forgotten.expire(self._context.clock())
        self._evict_emptied()

    def has_requests(self) -> bool:
        """Return whether a user is to be forgotten.

        While the hash of one is kept, the quiet topics get a record now and then: Kafka compacts
        only what is written to.
        """
        if self._forgotten or self._forget_records:
            now = self._context.clock()
            if now >= self._beat_at + BEAT_SECONDS:
                self._beat_at = now
                topics = self._context.cluster.topics
                self._forget_records += [
                    Record(topic, self._partition, BEAT_KEY, None)
                    for topic in (topics.forget, topics.user_keys)
                    if topic
                ]
            if self._forget_records and not self.store.needs_commit:
                self.store.advance(self.store.progress.position)
        feed = self._context.forget_feed
        if feed is None:
            return False
        return bool(feed.pending(self._partition, self.store.progress.forgotten))

    def apply_request(self) -> list[Record]:
        """Forget the user of the next request; what belongs to it goes with the next commit.

        1. Take out of items what the events in the ring have added.
        2. Delete the rows, what is owed, lists that are held for the commit, and the user's key.
        3. Keep a salted hash, by which late events are dropped.
        4. End the request, and leave an audit record without the id.

        Raises:
            ArenaFullError, NewerArtifactError, NewerRowError: as `process`.
        """
        feed = self._context.forget_feed
        assert feed is not None
        requests = feed.pending(self._partition, self.store.progress.forgotten)
        if requests:
            self._forget(requests[0])
        return []

    def find_user(self, user: str) -> FoundUser | None:
        """Copy a user's row, between two chunks: from memory, or else as of the last commit.

        Nothing is loaded or written, so that reads neither crowd users out of memory nor cost a
        commit. A row that is only in the database has not changed since. None if nothing is kept.

        Raises:
            NewerArtifactError, NewerRowError: as `process`.
        """
        copy = self.cached_user(user)
        return self.stored_user(user) if copy is None else copy

    def is_set_aside(self, user: str) -> bool:
        """Return whether a row of a user was set aside; any thread may ask."""
        key = user_key(user)
        return key in self._aside or self.store.read([ASIDE_PREFIX + key]) != [None]

    def cached_user(self, user: str) -> FoundUser | None:
        """Copy the row of a user who is in memory; None for another."""
        slot = self.store.arena.slot(user)
        if slot < 0 or (user in self._emptied and self._rows.is_empty(np.array([slot]))[0]):
            return None
        return self._found(self._rows.copy_row(slot), user_key(user) in self._aside)

    def last_offset(self, user: str) -> int:
        """Return the offset of the latest record of a user in memory; -1 for none."""
        slot = self.store.arena.slot(user)
        return int(self._rows.states.head["last_offset"][slot]) if slot >= 0 else -1

    def seen_users(self) -> list[tuple[str, float]]:
        """Return the users of the latest events, and the times of these; the latest first."""
        times: dict[str, float] = {}
        for user in reversed(self._latest_users):
            slot = self.store.arena.slot(user)
            if slot >= 0:
                times.setdefault(user, float(self._rows.states.head["last_time"][slot]))
        return list(times.items())

    def stored_user(self, user: str) -> FoundUser | None:
        """Read the row of a user as of the last commit; None if there is none.

        Any thread may call it, while chunks are processed.

        Raises:
            NewerArtifactError: the row was written with a newer artifact.
            NewerRowError: a newer version wrote the row.
        """
        if user in self._emptied:  # forgotten, and perhaps not yet committed
            return None
        key = user_key(user)
        row, aside = self.store.read([key, ASIDE_PREFIX + key])
        if row is None and aside is None:
            return None
        unreadable: list[str] = []
        rows = self._empty_rows()
        rows.on_unreadable = lambda key, row, problem: unreadable.append(problem)
        rows.load([user], np.zeros(1, np.int64), self.store.read)
        return self._found(rows, aside is not None or bool(unreadable))

    def new_user(self) -> FoundUser:
        """Return what stands for a user of whom nothing is kept."""
        return FoundUser(self._empty_rows(), -1, self.store.progress.stream_time)

    def moment(self) -> Moment:
        """Copy what lists are made of besides rows; for the time between two chunks."""
        serving = self._serving()
        learned = self._learning.learned(serving).copy()
        clock = self._context.clock()
        now = self.store.progress.stream_time + max(clock - self._moved_at, 0.0)
        return Moment(
            serving,
            learned,
            self.store.progress.position,
            min(now, self.latest_time()),
            self._context.keeper.newest,
            self.scene_names,
        )

    def _found(self, rows: UserRows, set_aside: bool) -> FoundUser:
        now = max(self.store.progress.stream_time, float(rows.states.head["last_time"][0]))
        return FoundUser(rows, 0, min(now, self.latest_time()), set_aside)

    def _empty_rows(self) -> UserRows:
        """Return arrays with room for one user, for the artifact in use."""
        serving = self._context.keeper.current
        rows = UserRows(serving.config)
        rows.follow(serving.config, serving.artifact.models.hidden, self._context.keeper.newest)
        rows.grow(1)
        return rows

    def _forget(self, pending: PendingForget) -> None:
        """Apply one request; see `apply_request`."""
        user, now = self._pseudonyms.of_any(pending.user), self._context.clock()
        self._serving()
        names, partitions = self._context.cluster.topics, self._source_partitions
        keys = keys_of_user(user)
        is_known = user in self.store.arena or any(row is not None for row in self.store.read(keys))
        n_back = n_older = 0
        if is_known:
            # 1. Take the user's events out of items.
            slot = int(self.store.slots_of([user])[0])
            states = self._rows.states
            source = 2 * partitions + self._partition
            back = item_events_back(states, slot, source, pending.offset)
            n_back, n_older = len(back), int(states.head["evicted"][slot])
            if n_back:
                self._items_back.append(back)
            # 2. Delete the rows, and what is owed.
            self._rows.erase(np.array([slot]))
            self.store.mark_dirty(np.array([slot]))
            self._emptied.add(user)
            for key in keys:
                self.store.note(key, None)
                self._aside.discard(key)
            self._policy.forget(user)
            self._latest_users = deque(
                (name for name in self._latest_users if name != user), LATEST_USERS
            )
            self._held_records = [r for r in self._held_records if r.key != user.encode()]
        if self.store.cipher is not None:
            self.store.cipher.keys.delete(user.encode())
        if self._pseudonyms:  # what was rejected has ids, and the request need not have one
            self._context.rejections.clear()
        for entry in list(self._context.rejections):
            if pending.key in entry.value:
                with contextlib.suppress(ValueError):  # it has just left
                    self._context.rejections.remove(entry)
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
        end = tombstone(names.forget, self._partition, pending)
        is_safe = self._context.cluster.transactions  # else the end comes after the deletion
        (self._forget_records if is_safe else self._tombstones).append(end)
        self._forget_records.append(audit_record(names.forget, audit))
        named = pending._replace(key=user.encode()) if self._pseudonyms else pending
        self._forget_records += relays(names.forget, named, self._partition, partitions)
        self.store.progress.forgotten = pending.offset
        self.store.advance(self.store.progress.position)
        self._metrics.forgotten.inc()
        log.info(
            "%s-%d: forgot a user, request %s: %d events taken out of items, %d older ones left in"
            " their counts without a name",
            names.events, self._partition, audit.request, n_back, n_older,
        )  # fmt: skip

    def _evict_emptied(self) -> None:
        """Take the ids of forgotten users out of memory, once their deletion is committed."""
        arena = self.store.arena
        for user in list(self._emptied):
            slot = arena.slot(user)
            if slot >= 0:
                if arena.dirty[slot] or arena.pinned[slot]:
                    continue
                if self._rows.is_empty(np.array([slot]))[0]:
                    arena.evict(np.array([slot]))
            self._emptied.discard(user)

    def keep_aside(self, key: bytes, row: bytes, problem: str) -> None:
        """Keep a row that cannot be read under a key of its own.

        Raises:
            DamagedRowError: the settings say to stop.
        """
        topic = self._context.cluster.topics.users_changelog
        if self._settings.damaged_rows == "stop":
            name = key_text(key, self._settings.log_user_ids)
            raise DamagedRowError(f"{topic}-{self._partition}: row {name}", problem)
        self._unreadable.report(topic, self._partition, None, key, problem)
        self._aside.add(key)
        self.store.note(ASIDE_PREFIX + key, row)
        self.store.note(key, None)  # a new row, if there is one, is written after it

    def latest_offset(self) -> int | None:
        """Return the offset of the latest own event in the rows of all users; None if unknown."""
        latest = None
        start = USER_PREFIX
        while rows := self.store.scan(USER_PREFIX, start, LOOK_ROWS):
            for _, row in rows:
                if self._rows.states.problem_of(row) is None:
                    latest = max(offset_of(row), -1 if latest is None else latest)
            start = rows[-1][0] + b"\0"
        return latest

    def is_readable(self, key: bytes, row: bytes) -> bool:
        """Return whether the row of a key, a state or a seen set, can be read."""
        if key.startswith(SEEN_PREFIX):
            return self._rows.seen.problem_of(row) is None
        return self._rows.states.problem_of(row) is None

    def _check_sample(self) -> None:
        """Refuse the partition if most of its rows are of another layout or an older version.

        Then the artifact or the version is the wrong one, and no user should lose the state.

        Raises:
            StateFormatError: the artifact or the version is the wrong one.
        """
        self._serving()
        rows = [row for _, row in self.store.scan(USER_PREFIX, most=SAMPLE_ROWS)]
        states = self._rows.states
        foreign = [row for row in rows if states.problem_of(row) in ("layout", "older")]
        if len(foreign) * 2 > len(rows):
            UserStates(states.config, 1, states.hidden.shape[1]).unpack(
                np.zeros(1, int), foreign[:1]
            )

    def _serving(self) -> Serving:
        """Return the artifact in use; the rows follow it before any of them is loaded."""
        serving = self._context.keeper.current
        hidden, newest = serving.artifact.models.hidden, self._context.keeper.newest
        self._rows.follow(serving.config, hidden, newest)
        return serving

    def _load_states(self, records: Sequence[Any]) -> None:
        """Load the states that were handed on under the keys by which they join.

        Raises:
            NewerArtifactError: a state was written with a newer artifact; nothing has changed.
        """
        for record in records:
            state = record.state
            key = f"{JOINING} {record.origin.partition} {record.origin.offset}"
            slot = self._joining.get(key)
            if state is None or slot is None:
                continue
            try:
                self._rows.load([key], np.array([slot]), _rows_of(key, state.row, state.seen))
            except NewerArtifactError:
                self._forget_keys()
                raise

    def _forget_keys(self) -> None:
        """Free the slots of states that were handed on, and have joined."""
        slots = [slot for key, slot in self._joining.items() if key.startswith(JOINING)]
        if slots:
            self.store.arena.evict(np.array(slots))

    def _renamed(
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

    def _hand_on_states(self, leaving: Sequence[Leaving], handed: bool) -> None:
        """Hand the states of users on whom users of other partitions turned out to be."""
        head = self._rows.states.head
        for one in leaving:
            slot = self._joining[one.was]
            row = head[slot]
            before = not self._context.cluster.transactions and not handed
            if before and row["last_offset"] >= one.offset:
                continue
            if row["n_ring"] or row["evicted"] or row["n_pending"]:
                packed = self._rows.states.pack(np.array([slot]))[0]
                seen_slot = self._rows.seen_slots[slot]
                seen = self._rows.seen.pack(np.array([seen_slot]))[0] if seen_slot >= 0 else None
                self._handed_on.append(self._hand_over.state_record(one, packed, seen))
                self._rows.forget(slot)
                self._policy.mark_sent([one.was])
                self._metrics.outcomes.labels("handed_on").inc()
            if not handed:
                head["last_offset"][slot] = max(int(head["last_offset"][slot]), one.offset)

    def _fresh(self, batch: EventBatch) -> NDArray[np.bool_]:
        """Return which events of a chunk are not in their users' rows yet.

        Without a transaction rows may have reached the changelog without their position.
        """
        if self._context.cluster.transactions or batch.is_handed:
            return np.ones(len(batch), np.bool_)
        new: NDArray[np.bool_] = batch.offsets > self._rows.states.head["last_offset"][batch.slots]
        self._metrics.replayed.inc(len(batch) - int(new.sum()))
        last = self._rows.states.head["last_offset"]
        self._joined_before = {
            was
            for place, was in batch.joined.items()
            if last[self._joining[was]] >= batch.offsets[place]
        }
        return new

    def _groups(self, batch: EventBatch) -> list[NDArray[np.int64]]:
        """Divide a chunk into groups after each of which lists are sent."""
        if self._settings.emit != "event":
            return [np.arange(len(batch))]
        if not batch.joined:
            return waves(batch.slots, batch.offsets)
        return np.split(np.arange(len(batch)), np.flatnonzero(np.diff(batch.offsets)) + 1)

    def _change(self, batch: EventBatch, fresh: NDArray[np.bool_], serving: Serving) -> None:
        """Apply the fresh events of a batch without joins."""
        if not _all(fresh):
            batch = batch.take(np.flatnonzero(fresh))
        if len(batch):
            with self._context.trace("state"):
                applied = self._update(serving, batch)
            self._lists.judge_lists(batch, applied.outcomes, serving)
            if applied.rebuilt:
                self._metrics.rebuilt.inc(applied.rebuilt)
            self._item_events.append(applied.item_events)
            self._count(applied)

    def _join(self, join: EventBatch, is_fresh: bool, serving: Serving) -> None:
        """Join a user's state to another's, once, however often the event comes.

        The row of the one who joined stays, empty, with the offset. If a commit without a
        transaction was cut off, the row of the other one may alone have been written: then nothing
        joins, and the row of the one who joined is emptied.
        """
        (was,) = join.joined.values()
        slot, other, offset = int(join.slots[0]), self._joining[was], int(join.offsets[0])
        if slot == other:
            return
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
        if applied is not None:
            self._item_events.append(applied.item_events)
            self._count(applied)
        elif is_fresh:
            self._check_place(was, join.users[0], offset)

    def _check_place(self, was: str, user: str, offset: int) -> None:
        """Count a join of a user of whom nothing is kept here, if another partition may do."""
        topic = self._context.cluster.topics.events
        partitions = self._context.cluster.partitions(topic)
        if self._settings.partitioner == "given" or self._hand_over.hands_on:
            return
        was_id = self._ids.get(was, was)
        home = partition_of(was_id, partitions, self._settings.partitioner)
        if home == self._partition:
            return
        self._metrics.joins_elsewhere.inc()
        if "joins elsewhere" not in self._context.log_once:
            self._context.log_once.add("joins elsewhere")
            if not self._settings.log_user_ids:
                was = user = HIDDEN
            log.warning(
                "%s-%d, offset %d: user %s was %s, whose events are in partition %d: that state"
                " stays there, and does not join, since nothing is handed on. Set"
                " TRACKER_HAND_OVER=on and run `tracker topics`, or key the events of a visitor by"
                " an id that stays after the login. tracker_joins_elsewhere_total counts"
                " such joins; this is said once",
                topic, self._partition, offset, user, was, home,
            )  # fmt: skip

    def _apply(
        self,
        batch: EventBatch,
        fresh: NDArray[np.bool_],
        stream_times: NDArray[np.float64],
        versions: NDArray[np.int64],
        serving: Serving,
        now: float,
        leaves: bool = False,
    ) -> list[Record]:
        """Apply a batch, and make the lists that the policy wants; events not `fresh` are in.

        With `leaves` they are left for `take_lists`, unless models of the partition's own or the
        next commit have a part in them.
        """
        rows = self._rows
        start = 0
        for place in batch.joined:  # in order
            before = np.arange(start, place)
            self._change(batch.take(before), fresh[before], serving)
            self._join(batch.take(np.array([place])), bool(fresh[place]), serving)
            start = place + 1
        if start:
            rest = np.arange(start, len(batch))
            self._change(batch.take(rest), fresh[rest], serving)
        else:
            self._change(batch, fresh, serving)
        latest = last_of_each(batch.slots)
        names = self.scene_names
        scene_names = [names.get(scene) for scene in batch.scenes[latest].tolist()]
        if self._context.replay is not None:
            if batch.is_handed:  # live workers may not have taken it: known at the change-over
                self._policy.owe(batch, latest, scene_names, versions, now)
            return []
        emitted_at = rows.states.head["emitted_at"][batch.slots[latest]]
        events = self._policy.choose(batch, latest, emitted_at, scene_names, now, versions)
        if not len(events):
            return []
        lists = Lists(
            [batch.users[event] for event in events.tolist()],
            batch.slots[events],
            stream_times[events],
            batch.scenes[events],
            [names.get(scene) for scene in batch.scenes[events].tolist()],
            [batch.origin(event) for event in events.tolist()],
            batch.appended[events],
            versions[events].tolist(),
        )
        learned = self._learning.learned(serving)
        if leaves and learned == LearnedModels() and not self._holds_lists:
            self._job = ListJob(self._lists, self._rows, lists, serving, now)
            return []
        return self._lists.make(lists, serving, now, learned)

    def _update(self, serving: Serving, events: EventBatch) -> Applied:
        """Apply events; handed-on ones have offsets of another topic, which rows do not keep."""
        if not events.is_handed:
            return serving.recommender.update(self._rows, events)
        head = self._rows.states.head
        last_offsets = head["last_offset"][events.slots]
        applied = serving.recommender.update(self._rows, events)
        head["last_offset"][events.slots] = last_offsets
        return applied

    def _count_misplaced(self, records: Sequence[Any], misplaced: Misplaced) -> None:
        if len(misplaced.every):
            self._intake.keys.count(
                records,
                misplaced.every,
                misplaced.users,
                misplaced.places,
                self._hand_over.hands_on,
                self._intake.places,
            )

    def _count(self, applied: Applied) -> None:
        counts = np.bincount(applied.outcomes, minlength=len(OUTCOMES)).tolist()
        for code, name in OUTCOMES.items():
            if counts[code]:
                self._outcome(name).inc(counts[code])
        if counts[DUPLICATE]:
            self._metrics.duplicates.inc(counts[DUPLICATE])
        if counts[TOO_OLD]:
            self._metrics.too_old.inc(counts[TOO_OLD])
        if applied.unknown:
            self._metrics.unknown_items.inc(applied.unknown)
        if applied.not_of_items:
            self._metrics.not_of_items.inc(applied.not_of_items)

    def _sort_item_events(self) -> None:
        """Sort item events by source offset: the item side relies on that order."""
        if not self._item_events:  # all events of the chunk were applied before
            return
        item_events = np.concatenate(self._item_events)
        order = np.lexsort((item_events["source_offset"], item_events["source_partition"]))
        item_events = item_events[order]
        sources = item_events["source_partition"]
        self._item_events = np.split(item_events, np.flatnonzero(np.diff(sources)) + 1)

    @property
    def _holds_lists(self) -> bool:
        settings, cluster = self._settings, self._context.cluster
        return settings.transactional_recommendations and cluster.transactions

    def _hold_for_commit(self, out: list[Record]) -> list[Record]:
        """Hold records for the next commit if the settings say so; return those to send at once."""
        if self._context.replay is not None:
            return []  # live workers have sent them
        if self._holds_lists:
            for record in out:
                if record.size > MAX_RECORD_BYTES:  # the transaction would always fail
                    self._metrics.dropped.labels(record.topic).inc()
                else:
                    self._held_records.append(record)
            return []
        return out


def _all(which: NDArray[np.bool_]) -> bool:
    """Return whether all are true, in a fifth of the time that `all` takes for a few."""
    return bool(np.count_nonzero(which) == len(which))


def _rows_of(key: str, row: bytes, seen: bytes | None) -> Get:
    """Return what reads the rows of one user."""
    rows = {user_key(key): row, seen_key(key): seen}
    return lambda keys: [rows[one] for one in keys]
