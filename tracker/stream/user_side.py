"""UserSide: applies chunks of events to users' states, and makes their lists.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

import logging
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.events.arrivals import MAX_FUTURE_SECONDS
from tracker.events.batch import EventBatch, waves
from tracker.events.item_events import encode_block, item_partition, split_events
from tracker.events.wire import Rejection
from tracker.feeds.source_ends import SourceEnds
from tracker.kafka.outbox import MAX_RECORD_BYTES, Record
from tracker.kafka.unreadable import REMEDIES, UnreadableRows
from tracker.kernels.row_bytes import (
    ASIDE_PREFIX,
    OWED_PREFIX,
    SEEN_PREFIX,
    USER_PREFIX,
    DamagedRowError,
    key_text,
    user_of,
)
from tracker.recommend.options import LearnedModels
from tracker.store.idle import IdleSweep
from tracker.store.partition_store import PartitionStore
from tracker.stream.emission import EmitPolicy, last_of_each
from tracker.stream.forget_requests import ForgetRequests
from tracker.stream.hand_over import HandOver, Misplaced
from tracker.stream.intake import Intake
from tracker.stream.list_maker import ListJob, ListMaker, Lists
from tracker.stream.metrics import OUTCOMES
from tracker.stream.partition_learning import PartitionLearning
from tracker.stream.serving import Context, Serving
from tracker.stream.side import OpenVerdictError, Side
from tracker.stream.user_joins import UserJoins
from tracker.stream.user_lookup import UserLookup
from tracker.users.apply import Applied
from tracker.users.columns import (
    DUPLICATE,
    TOO_OLD,
)
from tracker.users.layout import offset_of
from tracker.users.rows import UserRows
from tracker.users.states import UserStates

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

LOOK_ROWS = 5000
"""Rows read at once where all of a partition are looked at."""

SAMPLE_ROWS = 100
"""Rows read at the start, to tell a wrong artifact or version from single rows."""


class UserSide(Side[str]):
    """Processes the events of one partition.

    Args:
        context: what the partitions of a worker share.
        partition: partition of the events topic.
        rows: the users' arrays.
        store: caches and commits those rows.
        ends: end offsets of the events topic; without them, made-up origins are not told.

    Attributes:
        lookup: copies of what is kept, for people and the API.
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
        self._joins = UserJoins(context, partition, rows, store, self._hand_over, self._policy)
        self._held_records: list[Record] = []  # recommendations that belong into the next commit
        self._forgets = ForgetRequests(context, partition, rows, store, self._drop_user)
        self.lookup = UserLookup(
            context,
            rows,
            store,
            self._learning,
            self._intake.scene_names,
            self._forgets.emptied,
            self._aside,
        )

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
        for key, row in self._forgets.opened():
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
        serving = self._context.serving_for(self._rows)
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
        late = self._forgets.late(batch)
        if late is not None:
            batch = self._intake.keep(batch, np.flatnonzero(~late))
        misplaced: Misplaced | None = None
        leaving = self._hand_over.leaving(batch, records if handed else None)
        if handed:
            batch, rejected = self._hand_over.keep_own(records, batch, rejected)
        else:
            batch, misplaced = self._hand_over.split(batch)
        if self._context.pseudonyms:
            batch, leaving = self._joins.renamed(batch, leaving, records if handed else ())
        # 2. Find the users' rows. Nothing is counted or changed before this has succeeded.
        slots = np.zeros(0, np.int64)
        if len(batch) or leaving:
            joining = [*batch.joined.values(), *(one.was for one in leaving)]
            with self._context.trace("load"):
                slots = self.store.slots_of([*batch.users, *joining])
            batch.slots[:] = slots[: len(batch)]
            self._joins.begin(joining, slots[len(batch) :])
            if handed:
                self._joins.load_states(records)
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
            self._handed_on += self._joins.hand_on_states(leaving, handed)
            self.store.mark_dirty(slots[len(batch) :])
        if handed:
            self._joins.forget_keys()
        # 4. Advance the position.
        self.store.advance(end, handed)
        self.lookup.moved(batch.users, now)
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
        serving = self._context.serving_for(self._rows)
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
        parts = [*self._item_events, *self._forgets.take_item_events()]
        parts = [part for part in parts if len(part)]
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
        self._item_events = []
        return out + self._forgets.take_records()

    def sweep(self) -> None:
        """Delete some idle rows and the hashes whose time is over, with the coming commit."""
        super().sweep()
        self._forgets.sweep()

    def has_requests(self) -> bool:
        """Return whether a user is to be forgotten; see `ForgetRequests.are_due`."""
        return self._forgets.are_due()

    def apply_request(self) -> list[Record]:
        """Forget the user of the next request; see `ForgetRequests.apply_next`."""
        self._forgets.apply_next()
        return []

    def _drop_user(self, user: str, keys: Sequence[bytes]) -> None:
        """Drop what memory and the next commit have of a user who is forgotten, but for the row."""
        self._aside.difference_update(keys)
        self._policy.forget(user)
        self.lookup.forget(user)
        self._held_records = [r for r in self._held_records if r.key != user.encode()]

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
        self._context.serving_for(self._rows)
        rows = [row for _, row in self.store.scan(USER_PREFIX, most=SAMPLE_ROWS)]
        states = self._rows.states
        foreign = [row for row in rows if states.problem_of(row) in ("layout", "older")]
        if len(foreign) * 2 > len(rows):
            UserStates(states.config, 1, states.hidden.shape[1]).unpack(
                np.zeros(1, int), foreign[:1]
            )

    def _fresh(self, batch: EventBatch) -> NDArray[np.bool_]:
        """Return which events of a chunk are not in their users' rows yet.

        Without a transaction rows may have reached the changelog without their position.
        """
        if self._context.cluster.transactions or batch.is_handed:
            return np.ones(len(batch), np.bool_)
        new: NDArray[np.bool_] = batch.offsets > self._rows.states.head["last_offset"][batch.slots]
        self._metrics.replayed.inc(len(batch) - int(new.sum()))
        self._joins.note_rows_ahead(batch)
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
            join = batch.take(np.array([place]))
            joined = self._joins.join(join, bool(fresh[place]), serving)
            if joined is not None:
                self._item_events.append(joined.item_events)
                self._count(joined)
            start = place + 1
        if start:
            rest = np.arange(start, len(batch))
            self._change(batch.take(rest), fresh[rest], serving)
        else:
            self._change(batch, fresh, serving)
        latest = last_of_each(batch.slots)
        names = self._intake.scene_names
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
