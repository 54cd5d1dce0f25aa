"""Held-out events that models are asked for: the targets, their slices, and each one's past."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import TEST, VALIDATION, EventLog, Split
from tracker.kernels.native import native

Integers = NDArray[np.int64]

Flags = NDArray[np.bool_]

Rows = NDArray[np.int64]

AT_ONCE, PART_BYTES = 256, 16 << 20
"""Targets that are scored together at most, and the bytes of their table, about."""


class Share(NamedTuple):
    """The part of one of several workers: each `of`-th of the batches, from `number` on."""

    number: int
    of: int

    def has(self, place: int) -> bool:
        """Return whether a place is of this share."""
        return place % self.of == self.number


WHOLE_LOG = Share(0, 1)
"""The share of the only worker."""


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of an evaluation, and the items that are ranked for them.

    Attributes:
        events: (Q,) ascending positions of the targets in the log.
        ranked: (N,) bool, the catalogue rows that may stand in a list.
        fitted: (E,) bool, the events that baselines are fitted on.
        repeats: items seen before are ranked.
        ends: for `gts`, the positions of each user's first target after the cut, and of the last,
            sampled or not.
    """

    events: Integers
    ranked: Flags
    fitted: Flags
    repeats: bool
    ends: tuple[Integers, Integers] | None = None


@dataclass(frozen=True, slots=True)
class TargetBatch:
    """Some targets in time order, with their users' past.

    Attributes:
        events: (B,) positions in the log.
        rows: (B,) catalogue rows of the targets, -1 for an item that is not ranked.
        past: `past[starts[b] : starts[b + 1]]` are the rows of the events of target b's user
            before it, the latest first.
        starts: (B + 1,).
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
    """Return the targets of a protocol: live items of the catalogue are ranked.

    With `met_only` only those of them that the log has, as for a core of the events. Baselines are
    fitted on all that is before the 90 % cut with `gts`, on the training part with `loo`.
    """
    ranked = np.zeros(items, np.bool_)
    ranked[:live] = True
    if met_only:
        in_log = np.zeros(items, np.bool_)
        in_log[rows[rows >= 0]] = True
        ranked &= in_log
    last = VALIDATION if split.protocol == "gts" else 0
    fitted = (split.parts <= last) & (rows >= 0)
    ends = None
    if split.protocol == "gts":
        after = np.flatnonzero((split.parts == TEST) & log.positive & (log.lengths() > 0))
        users = log.users[after]
        ends = (
            after[np.unique(users, return_index=True)[1]],
            after[len(after) - 1 - np.unique(users[::-1], return_index=True)[1]],
        )
    return Targets(split.test, ranked, fitted, repeats, ends)


def target_batches(
    log: EventLog, rows: Rows, targets: Targets, bytes_each: int
) -> Iterator[TargetBatch]:
    """Yield the targets in time order, in batches; `bytes_each` is the memory of one target."""
    size = max(1, min(AT_ONCE, PART_BYTES // max(bytes_each, 1)))
    order, first = by_user(log, rows)
    for start in range(0, len(targets.events), size):
        events = targets.events[start : start + size]
        target_rows = rows[events]
        target_rows = np.where((target_rows >= 0) & targets.ranked[target_rows], target_rows, -1)
        starts = np.zeros(len(events) + 1, np.int64)
        _count_past(events, log.users, order, first, starts)
        past = np.empty(starts[-1], np.int64)
        _fill_past(events, log.users, order, first, rows, starts, past)
        yield TargetBatch(events, target_rows, past, starts)


def by_user(log: EventLog, rows: Rows) -> tuple[Integers, Integers]:
    """Return the positions of events of catalogue items by user, and each user's first place."""
    positions = np.flatnonzero(rows >= 0)
    order = positions[np.argsort(log.users[positions], kind="stable")]
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


HISTORY_SLICES = ((1, 3), (4, 10), (11, 30), (31, None))
"""Lengths of the history before a target, as reported."""

MAX_SCENES, MIN_SCENE_TARGETS = 20, 30
"""Scenes with a slice of their own: the most frequent, and none with fewer targets."""

TAIL_SHARE = 0.1
"""`tail_items` are targets outside this share of the items, the most popular in training."""


def slices(
    log: EventLog,
    events: Integers,
    targets: Targets,
    rows: Rows,
    scene_names: dict[int, str],
    with_attributes: Flags | None = None,
) -> Iterator[tuple[str, Flags]]:
    """Yield the name of each slice and which of some events (Q,) are in it, if any are.

    `cold_users` and `cold_items` have no event among those that baselines are fitted on;
    `tail_items` are outside the most popular tenth of the items there; `history:A-B` are targets
    with A to B events of the user before. `scene:NAME` are the most frequent scenes.
    `first_of_user` and `last_of_user`, with `gts`, are each user's first and last target after the
    cut: means over users, of which the last is what leave-one-out asks for.
    `attribute_users` are users with known attributes, and `attribute_users:history:1-3` their first
    events.

    Args:
        log: the events.
        events: (Q,) positions of targets or of other events.
        targets: the targets.
        rows: (E,) catalogue rows of the events.
        scene_names: by code.
        with_attributes: (U,) bool, the users of the log with known attributes.
    """
    yield "all", np.ones(len(events), np.bool_)
    users = np.bincount(log.users[targets.fitted], minlength=len(log.user_ids))
    counts = np.bincount(rows[targets.fitted], minlength=len(targets.ranked))
    target = rows[events]
    in_catalogue = target >= 0
    of_target = np.where(in_catalogue, counts[np.maximum(target, 0)], 0)
    popular = np.zeros(len(counts), np.bool_)
    ranked = np.flatnonzero(targets.ranked)
    top = ranked[np.argsort(-counts[ranked], kind="stable")]
    popular[top[: math.ceil(TAIL_SHARE * len(top))]] = True
    lengths = log.lengths()[events]
    masks = {
        "cold_users": users[log.users[events]] == 0,
        "cold_items": of_target == 0,
        "tail_items": ~(in_catalogue & popular[np.maximum(target, 0)]),
    }
    if targets.ends is not None:
        first_of_user, last_of_user = targets.ends
        masks["first_of_user"] = np.isin(events, first_of_user)
        masks["last_of_user"] = np.isin(events, last_of_user)
    for low, high in HISTORY_SLICES:
        name = f"history:{low}+" if high is None else f"history:{low}-{high}"
        masks[name] = (lengths >= low) & (lengths <= (high or np.inf))
    if with_attributes is not None and with_attributes.any():
        masks["attribute_users"] = with_attributes[log.users[events]]
        low, high = HISTORY_SLICES[0]
        first = (lengths >= low) & (lengths <= (high or np.inf))
        masks[f"attribute_users:history:{low}-{high}"] = masks["attribute_users"] & first
    scenes, sizes = np.unique(log.batch.scenes[events], return_counts=True)
    for place in np.argsort(-sizes, kind="stable")[:MAX_SCENES].tolist():
        scene = scene_names.get(int(scenes[place]))
        if scene is not None and sizes[place] >= MIN_SCENE_TARGETS and len(scenes) > 1:
            masks[f"scene:{scene}"] = log.batch.scenes[events] == scenes[place]
    for name, which in masks.items():
        if which.any():
            yield name, which
