"""What is asked at held-out events: the targets, what may be ranked, and the past of each."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import VALIDATION, EventLog, Split
from tracker.kernels.native import native

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]
Rows = NDArray[np.int64]

AT_ONCE, PART_BYTES = 256, 16 << 20
"""Targets that are scored together at most, and about how much memory their table may take."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What is asked: Q targets, ascending positions in the log, and what may be ranked.

    `ranked` (N,) bool are the catalogue rows that may stand in a list; `fitted` (E,) bool the
    events that baselines are fitted on; `repeats` whether items seen before are ranked.
    """

    events: Integers
    ranked: Flags
    fitted: Flags
    repeats: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """Some targets in time order, as a model meets them.

    `events` (B,) are positions in the log, `rows` (B,) what was chosen (-1 for an item that is not
    ranked). `past[starts[b] : starts[b + 1]]` are the rows of what the user of target b did before,
    the latest first.
    """

    events: Integers
    rows: Rows
    past: Rows
    starts: Integers

    def __len__(self) -> int:
        """Return the number of targets."""
        return len(self.events)


def targets_of(
    log: EventLog,
    split: Split,
    rows: Rows,
    live: int,
    items: int,
    repeats: bool,
    met_only: bool = False,
) -> Targets:
    """Return the targets of a protocol: what is ranked are live items of the log's catalogue.

    With `met_only` it is only those that the log has, as for a core of the events. Baselines are
    fitted on all that is before the 90 % cut with `gts`, on the training part with `loo`.
    """
    ranked = np.zeros(items, np.bool_)
    ranked[:live] = True
    if met_only:
        met = np.zeros(items, np.bool_)
        met[rows[rows >= 0]] = True
        ranked &= met
    last = VALIDATION if split.protocol == "gts" else 0
    return Targets(split.test, ranked, (split.parts <= last) & (rows >= 0), repeats)


def asked_in_parts(log: EventLog, rows: Rows, targets: Targets, bytes_each: int) -> Iterator[Asked]:
    """Yield the targets in time order, some at a time, of which each takes so much memory."""
    size = max(1, min(AT_ONCE, PART_BYTES // max(bytes_each, 1)))
    order, first = by_user(log, rows)
    for start in range(0, len(targets.events), size):
        events = targets.events[start : start + size]
        chosen = rows[events]
        chosen = np.where((chosen >= 0) & targets.ranked[chosen], chosen, -1)
        starts = np.zeros(len(events) + 1, np.int64)
        _count_past(events, log.users, order, first, starts)
        past = np.empty(starts[-1], np.int64)
        _fill_past(events, log.users, order, first, rows, starts, past)
        yield Asked(events, chosen, past, starts)


def by_user(log: EventLog, rows: Rows) -> tuple[Integers, Integers]:
    """Return the positions of events of catalogue items by user, and where each user's start."""
    known = np.flatnonzero(rows >= 0)
    order = known[np.argsort(log.users[known], kind="stable")]
    return order, np.searchsorted(log.users[order], np.arange(len(log.user_ids) + 1))


@native
def _count_past(
    events: Integers, users: Integers, order: Integers, first: Integers, starts: Integers
) -> None:
    for b in range(len(events)):
        user = users[events[b]]
        own = order[first[user] : first[user + 1]]
        starts[b + 1] = starts[b] + np.searchsorted(own, events[b])


@native
def _fill_past(
    events: Integers, users: Integers, order: Integers, first: Integers, rows: Rows,
    starts: Integers, past: Rows,
) -> None:  # fmt: skip
    for b in range(len(events)):
        end = first[users[events[b]]] + starts[b + 1] - starts[b]
        for i in range(starts[b + 1] - starts[b]):
            past[starts[b] + i] = rows[order[end - 1 - i]]
