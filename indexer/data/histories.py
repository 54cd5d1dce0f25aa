"""Histories from logged events: one stream in time order, its k-core, its splits by time."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from indexer.data.bad_lines import BadLines
from indexer.data.settle import join_users, name_retracted
from tracker.events.arrivals import Arrivals
from tracker.events.batch import EventBatch, EventReader, can_be_target
from tracker.events.entries import EVENT_FIELDS, Reading, as_json, entries, event_reading, place_of
from tracker.events.kinds import Kinds
from tracker.events.opening import InputError
from tracker.events.times import EARLY, early
from tracker.explained import Explained

Protocol = Literal["gts", "loo"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

VALIDATION_QUANTILE, TEST_QUANTILE = 0.8, 0.9
"""Cuts of `gts`, as quantiles of the times of the events that can be targets."""

TRAIN, VALIDATION, TEST = 0, 1, 2
"""The parts of a split."""

NAMED_KINDS = 5
"""Maximum number of unknown kinds named in a message."""

_CHUNK = 65536


class EventFileError(Explained, ValueError):
    """An events file cannot be used; the message names the file, what is wrong and the remedy."""


@dataclass(frozen=True, slots=True)
class EventLog:
    """All users' histories as one stream of E events in time order, ties in file order.

    Attributes:
        batch: the events as columns.
        users: (E,) positions in `user_ids`.
        items: (E,) positions in `item_hashes`, -1 for a retraction.
        positive: (E,) bool, events that can be targets: actions of kinds with a positive weight,
            whatever their value, because a film with a low rating was chosen too.
        user_ids: ids of the users, in order of first appearance.
        item_hashes: (I,) uint64, hashes of the items' ids, ascending.
        rejected: number of lines left out, by reason.
        bad_lines: the first of them; repeated event ids are not among them.
        notes: other facts about the files, one a line, such as fields that are not used.
        unknown_kinds: number of events of each kind without a weight.
        scene_names: name of each scene, by its code.
    """

    batch: EventBatch
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    positive: NDArray[np.bool_]
    user_ids: list[str]
    item_hashes: NDArray[np.uint64]
    rejected: dict[str, int] = field(default_factory=dict)
    bad_lines: BadLines = field(default_factory=BadLines)
    notes: list[str] = field(default_factory=list)
    unknown_kinds: dict[str, int] = field(default_factory=dict)
    scene_names: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.users)

    def lengths(self) -> NDArray[np.int64]:
        """Return the number of actions of its user before each event, (E,) int64."""
        return _ranks_within(self.users, self.items >= 0)

    def take(self, events: NDArray[np.int64]) -> "EventLog":
        """Return the log of some events, given by ascending positions (M,); codes are new ones."""
        part = _event_log(self.batch.take(events), self.positive[events])
        return replace(
            part,
            rejected=self.rejected,
            bad_lines=self.bad_lines,
            notes=self.notes,
            unknown_kinds=self.unknown_kinds,
            scene_names=self.scene_names,
        )


@dataclass(frozen=True, slots=True)
class Split:
    """The division of E events into parts, and the targets in them.

    A target is an event that can be one (`EventLog.positive`), of a user with an earlier action.

    Attributes:
        protocol: the rule of the division.
        parts: (E,) uint8, TRAIN, VALIDATION or TEST.
        validation: (V,) positions of the validation targets, ascending.
        test: (Q,) positions of the test targets, ascending.
        cuts: the two times of `gts`, NaN for `loo`; a time on a cut belongs to the later part.
    """

    protocol: Protocol
    parts: NDArray[np.uint8]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    cuts: tuple[float, float]


def read_event_log(
    paths: Sequence[Path], kinds: Kinds, not_after: float, reading: Reading | None = None
) -> EventLog:
    """Read logged events with the checks of the stream, and sort them by time.

    Lines that the stream would reject are left out and counted. A repeated `event_id` of a user is
    left out and counted as `duplicate`. A user who joins another one is that one up to there. What
    takes back without an id takes the latest event of its kind, see `name_retracted`. A retraction
    without a timestamp takes that of the line before it. Fields that an event does not have are
    ignored, and named in the notes.

    Args:
        paths: files, or folders of part files, of any format; `-` is standard input.
        kinds: the weights in force.
        not_after: float seconds; later timestamps are taken for mistakes, as on the stream.
        reading: the names of columns, from `event_reading`; None if they are ours.

    Raises:
        EventFileError: a file does not exist or cannot be read, or no event is left.
    """
    reading = reading or event_reading()
    reader = EventReader(kinds, reading.timestamps, dialect=reading.dialect)
    passed_over: Counter[str] = Counter()
    batches: list[EventBatch] = []
    ids: dict[str, str] = {}  # one string a user, not one an event
    bad = BadLines()
    unknown_kinds: Counter[str] = Counter()
    for path in paths:
        for source, lines, values in event_lines(path, reading):
            arrivals = Arrivals.of_file(len(values), not_after)
            batch, refused = reader.read(source, 0, values, lines, arrivals)
            reading.notes.unused.update(dict.fromkeys(reader.unknown_fields))
            unknown_kinds.update(reader.unknown_kinds)
            passed_over.update(reader.passed_over)
            batch.users[:] = [ids.setdefault(user, user) for user in batch.users]
            batches.append(batch)
            reading.notes.remarks.update(
                dict.fromkeys(f"timestamps are taken as {unit}" for unit in reader.units)
            )
            for _, rejection in refused:
                bad.add(rejection.reason, place_of(source, rejection.offset), rejection.message)
    if not batches or not sum(map(len, batches)):
        names = ", ".join(map(str, paths)) or "no file"
        why = f"; {counted(len(bad), 'line')} left out" if len(bad) else ""
        if unknown_kinds:
            why += f"; {name_kinds(unknown_kinds)}"
        raise EventFileError(f"{names}: no event that can be used{why}{bad.text()}")
    batch = _join(batches)
    batches.clear()  # each column is there once again
    unknown_time = (batch.retracts != 0) & (batch.times == not_after)
    timed = np.maximum.accumulate(np.where(unknown_time, 0, np.arange(len(batch))))
    batch.times[:] = batch.times[timed]
    if (np.diff(batch.times) < 0.0).any():
        batch = batch.take(np.argsort(batch.times, kind="stable"))
    batch = join_users(batch)
    first = _first_of_its_id(batch)
    rejected = dict(bad.counts)
    if len(first) < len(batch):
        rejected["duplicate"] = len(batch) - len(first)
        batch = batch.take(first)
    if old := early(batch.times[batch.times < EARLY].tolist()):
        reading.notes.remarks[f"{old} (--timestamps)"] = None
    batch, in_vain = name_retracted(batch)
    if in_vain:
        remark = f"{counted(in_vain, 'event')} taken back that {_IS[in_vain == 1]} not there"
        reading.notes.remarks[remark] = None
    if passed_over:
        reading.notes.remarks[_passed_over(passed_over)] = None
    return replace(
        _event_log(batch, can_be_target(batch, kinds)),
        rejected=rejected,
        bad_lines=bad,
        notes=reading.notes.lines(EVENT_FIELDS),
        unknown_kinds=dict(unknown_kinds),
        scene_names=dict(reader.scene_names),
    )


_IS = {True: "is", False: "are"}


def _passed_over(words: Counter[str]) -> str:
    """Return a line that names the records that a dialect leaves out."""
    named = [f"{word} ({count:,})" for word, count in words.most_common(NAMED_KINDS)]
    more = f" and {len(words) - NAMED_KINDS} more" if len(words) > NAMED_KINDS else ""
    return f"{counted(words.total(), 'record')} without items left out: {', '.join(named)}{more}"


def name_kinds(unknown: Mapping[str, int]) -> str:
    """Return a message that names the most frequent kinds without a weight, and the remedy.

    >>> name_kinds({"veiw": 12})
    "unknown kinds: 'veiw' (12 events); name them in a file of weights for --kinds"
    """
    most = sorted(unknown.items(), key=lambda pair: (-pair[1], pair[0]))
    names = [f"{kind[:64]!r} ({counted(count, 'event')})" for kind, count in most[:NAMED_KINDS]]
    if len(most) > NAMED_KINDS:
        names.append(f"{len(most) - NAMED_KINDS} more")
    return f"unknown kinds: {', '.join(names)}; name them in a file of weights for --kinds"


def counted(number: int, what: str) -> str:
    """Return a number and its noun, in the plural if needed.

    >>> counted(1, "line"), counted(1009, "line")
    ('1 line', '1,009 lines')
    """
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def core(histories: EventLog, minimum: int) -> EventLog:
    """Return the events of users and items with at least `minimum` actions each (the k-core).

    Users and items are left out until no more have to be. A retraction stays if the event that it
    takes back stays. The result may be empty.
    """
    action = histories.items >= 0
    keep = action.copy()
    while minimum > 1:
        of_user = np.bincount(histories.users[keep], minlength=len(histories.user_ids))
        of_item = np.bincount(histories.items[keep], minlength=len(histories.item_hashes))
        enough = keep.copy()
        enough[keep] = (of_user[histories.users[keep]] >= minimum) & (
            of_item[histories.items[keep]] >= minimum
        )
        if enough.sum() == keep.sum():
            break
        keep = enough
    batch = histories.batch
    named = keep & (batch.event_ids != 0)
    kept_ids = set(
        zip(histories.users[named].tolist(), batch.event_ids[named].tolist(), strict=True)
    )
    for position in np.flatnonzero(~action).tolist():
        keep[position] = (
            int(histories.users[position]),
            int(batch.retracts[position]),
        ) in kept_ids
    return histories if keep.all() else histories.take(np.flatnonzero(keep))


def split(histories: EventLog, protocol: Protocol) -> Split:
    """Divide events into training, validation and test.

    `gts` (global temporal split) cuts the events of all users at two times, the 80 % and 90 %
    quantiles. `loo` (leave one out) takes the last event of each user that can be a target as test,
    and the one before it as validation; later events of the user, which are not targets, belong to
    the test part too.
    """
    lengths = histories.lengths()
    eligible = histories.positive & (lengths > 0)
    times = histories.batch.times
    parts = np.zeros(len(histories), np.uint8)
    if protocol == "gts":
        target_times = times[histories.positive]
        cuts = (
            (
                float(np.quantile(target_times, VALIDATION_QUANTILE)),
                float(np.quantile(target_times, TEST_QUANTILE)),
            )
            if len(target_times)
            else (float("inf"), float("inf"))
        )
        parts[times >= cuts[0]] = VALIDATION
        parts[times >= cuts[1]] = TEST
        return Split(
            protocol,
            parts,
            np.flatnonzero(eligible & (parts == VALIDATION)),
            np.flatnonzero(eligible & (parts == TEST)),
            cuts,
        )
    test = _last_of_each_user(histories.users, eligible)
    earlier = eligible.copy()
    earlier[test] = False
    validation = _last_of_each_user(histories.users, earlier)
    test_of_user = np.full(len(histories.user_ids), len(histories), np.int64)
    test_of_user[histories.users[test]] = test
    parts[validation] = VALIDATION
    parts[np.arange(len(histories)) >= test_of_user[histories.users]] = TEST
    return Split(protocol, parts, np.sort(validation), np.sort(test), (np.nan, np.nan))


_COLUMNS = (
    "slots", "items", "rows", "times", "appended", "weights", "values", "kinds", "scenes",
    "event_ids", "retracts", "offsets",
)  # fmt: skip


def _event_log(
    batch: EventBatch,
    positive: NDArray[np.bool_],
) -> EventLog:
    codes: dict[str, int] = {}
    users = np.fromiter(
        (codes.setdefault(user, len(codes)) for user in batch.users), np.int64, len(batch)
    )
    action = batch.retracts == 0
    item_hashes, inverse = np.unique(batch.items[action], return_inverse=True)
    items = np.full(len(batch), -1, np.int64)
    items[action] = inverse
    return EventLog(batch, users, items, positive, list(codes), item_hashes)


def _first_of_its_id(batch: EventBatch) -> NDArray[np.int64]:
    """Return the positions without those whose user and id an earlier event has."""
    named = np.flatnonzero(batch.event_ids)
    codes: dict[str, int] = {}
    users = np.fromiter(
        (codes.setdefault(batch.users[place], len(codes)) for place in named.tolist()),
        np.int64, len(named),
    )  # fmt: skip
    ids = batch.event_ids[named]
    order = np.lexsort((ids, users))  # stable: equal ones stay in the order of time
    again = (np.diff(ids[order]) == 0) & (np.diff(users[order]) == 0)
    first = np.ones(len(batch), np.bool_)
    first[named[order[1:][again]]] = False
    return np.flatnonzero(first)


def _ranks_within(groups: NDArray[np.int64], counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    order = np.argsort(groups, kind="stable")
    before: NDArray[np.int64] = np.cumsum(counted[order]) - counted[order]
    starts = np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0]) if len(groups) else order
    sizes = np.diff(np.r_[starts, len(groups)])
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = before - np.repeat(before[starts], sizes)
    return ranks


def _last_of_each_user(users: NDArray[np.int64], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    positions = np.flatnonzero(mask)
    _, from_the_end = np.unique(users[positions][::-1], return_index=True)
    return positions[::-1][from_the_end]


def _join(batches: list[EventBatch]) -> EventBatch:
    columns = {
        name: np.concatenate([getattr(batch, name) for batch in batches]) for name in _COLUMNS
    }
    starts = np.cumsum([0, *map(len, batches)]).tolist()
    return EventBatch(
        topic=batches[0].topic,
        partition=0,
        users=[user for batch in batches for user in batch.users],
        joined={
            start + place: was
            for start, batch in zip(starts, batches, strict=False)
            for place, was in batch.joined.items()
        },
        **columns,
    )


def event_lines(
    path: Path, reading: Reading | None = None
) -> Iterator[tuple[str, list[int], list[bytes]]]:
    """Yield the file, and numbers, from 1, and lines of events as JSON, many at a time.

    Args:
        path: a file, or a folder of part files, of any format; `-` is standard input.
        reading: the names of columns, from `event_reading`; None if they are ours.

    Raises:
        EventFileError: the file does not exist, or it is damaged or of another format.
    """
    lines = entries(str(path), reading or event_reading())
    try:
        for source, part in groupby(lines, lambda entry: entry[0]):
            while chunk := list(islice(part, _CHUNK)):
                yield (
                    source,
                    [number for _, number, _ in chunk],
                    [as_json(entry) for _, _, entry in chunk],
                )
    except InputError as error:
        raise EventFileError(str(error)) from error
