"""Data of fine-tuning: texts, events divided by time, and items chosen near each other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from indexer.data.catalog import Item
from indexer.data.histories import TEST, TRAIN, VALIDATION, EventLog, Protocol, split
from tracker.events.wire import hash_id

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

Until = Literal["gts", "loo", "all"]
UNTIL: tuple[Until, ...] = get_args(Until)

NEAR_SECONDS = 30 * 86400.0
"""Longest time between the two choices of a pair."""

NEAR_EVENTS = 4
"""Maximum number of later choices that a choice is paired with."""

PAIR_DECAY = 0.8
"""Factor on the weight of a pair per event between its choices, as in the content channel."""

RUN_EVENTS = 16
"""Maximum number of events of one user that come into a batch together."""


@dataclass(frozen=True, slots=True)
class Texts:
    """The U distinct texts of a catalogue; an encoder cannot tell items of the same text apart.

    `of_item` (I,) is the position in `texts` of the text of each item.
    """

    texts: list[str]
    of_item: Integers

    @classmethod
    def of(cls, items: Sequence[Item]) -> "Texts":
        """Return the texts of items, in order of first appearance."""
        places: dict[str, int] = {}
        of_item = [places.setdefault(item.encoded_text(), len(places)) for item in items]
        return cls(list(places), np.array(of_item, np.int64))


@dataclass(frozen=True, slots=True)
class Parts:
    """The division of E events for training and validation.

    Attributes:
        train: (E,) bool, events to learn from.
        validation: (E,) bool, targets that choose the best weights.
        seen: (E,) bool, events that may stand in a history; the others are never read.
    """

    train: Flags
    validation: Flags
    seen: Flags


def part(log: EventLog, until: Until) -> Parts:
    """Divide events by time, as `indexer train` does with the same protocol.

    `gts` learns from the events before the 80 % quantile, and validates by those up to the 90 %
    quantile. `all` leaves nothing out: it learns up to 90 % and validates by the rest. `loo` leaves
    the last event of each user out, and validates by the one before it.
    """
    protocol: Protocol = "loo" if until == "loo" else "gts"
    divided = split(log, protocol)
    validation = np.zeros(len(log), np.bool_)
    if until == "all":
        validation[divided.test] = True
        return Parts(divided.parts != TEST, validation, np.ones(len(log), np.bool_))
    validation[divided.validation] = True
    return Parts(divided.parts == TRAIN, validation, divided.parts <= VALIDATION)


def rows_of(log: EventLog, items: Sequence[Item]) -> Integers:
    """Return the position in the catalogue of each event's item, (E,) int64, -1 for none."""
    places = {hash_id(item.item_id): place for place, item in enumerate(items)}
    rows = np.array([places.get(item, -1) for item in log.item_hashes.tolist()], np.int64)
    return np.where(log.items >= 0, rows[log.items] if len(rows) else -1, -1)


@dataclass(frozen=True, slots=True)
class Choices:
    """C choices of users, ordered by user, and by time for each.

    Attributes:
        users: (C,) positions of users.
        texts: (C,) positions of texts.
        times: (C,) float seconds.
        frequency: (U,) share of each text in the choices.
    """

    users: Integers
    texts: Integers
    times: NDArray[np.float64]
    frequency: NDArray[np.float64]

    @classmethod
    def of(cls, log: EventLog, texts: Integers, count: int, mask: Flags) -> "Choices":
        """Return the events of positive weight that have a text.

        Args:
            log: all events.
            texts: (E,) text of each event, -1 for none.
            count: U.
            mask: (E,) bool, events to choose from.
        """
        events = np.flatnonzero(mask & (texts >= 0) & (log.batch.weights > 0.0))
        events = events[np.argsort(log.users[events], kind="stable")]
        counts = np.bincount(texts[events], minlength=count)
        frequency = counts / max(len(events), 1)
        return cls(log.users[events], texts[events], log.batch.times[events], frequency)

    def pairs(self, places: Integers) -> tuple[Integers, Integers, NDArray[np.float64]]:
        """Return the P pairs among some choices.

        A pair is two choices of one user near each other, of different texts. Its weight is .8 to
        the power of the number of events between them.

        Args:
            places: (C,) positions of choices, ascending.

        Returns:
            the first and second of each pair (P,) int64, by position in `places`, and the weights
            (P,) float64.
        """
        firsts, seconds, weights = [], [], []
        for distance in range(1, NEAR_EVENTS + 1):
            if len(places) <= distance:
                break
            one, other = places[:-distance], places[distance:]
            near = self.users[one] == self.users[other]
            near &= self.times[other] - self.times[one] <= NEAR_SECONDS
            near &= self.texts[one] != self.texts[other]
            pairs = np.flatnonzero(near)
            firsts.append(pairs)
            seconds.append(pairs + distance)
            weights.append(np.full(len(pairs), PAIR_DECAY ** (distance - 1)))
        if not firsts:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(weights)

    def batches(self, size: int, random: np.random.Generator) -> Iterator[Integers]:
        """Yield ascending positions of about `size` choices forever, epoch by epoch.

        A user's choices come in runs of up to 16, from another random start in each epoch; runs of
        a single choice, which have no pair, are left out.
        """
        while True:
            yield from shuffled_runs(runs_of(self.users, random, 2), size, random)


def runs_of(users: Integers, random: np.random.Generator, least: int) -> list[tuple[int, int]]:
    """Cut the adjacent events of each user into runs of `least` to 16, each as (from, to)."""
    starts = np.flatnonzero(np.r_[True, np.diff(users) != 0])
    sizes = np.diff(np.r_[starts, len(users)])
    runs: list[tuple[int, int]] = []
    for start, length in zip(starts.tolist(), sizes.tolist(), strict=True):
        shift = int(random.integers(RUN_EVENTS)) if length > RUN_EVENTS else 0
        edges = [0, *range(shift or RUN_EVENTS, length, RUN_EVENTS), length]
        runs += [(start + a, start + b) for a, b in pairwise(edges) if b - a >= least]
    return runs


def shuffled_runs(
    runs: list[tuple[int, int]], size: int, random: np.random.Generator
) -> Iterator[Integers]:
    """Yield the ascending positions of runs in random order, at least `size` positions at once."""
    batch: list[tuple[int, int]] = []
    filled = 0
    for number in random.permutation(len(runs)).tolist():
        batch.append(runs[number])
        filled += runs[number][1] - runs[number][0]
        if filled >= size:
            yield np.concatenate([np.arange(*run) for run in sorted(batch)])
            batch, filled = [], 0
    if batch:
        yield np.concatenate([np.arange(*run) for run in sorted(batch)])


def pasts(
    log: EventLog, codes: Integers, targets: Integers, seen: Flags, longest: int
) -> list[Integers]:
    """Return the codes of the events before each target, of the same user, latest first.

    Args:
        log: all events.
        codes: (E,) text or catalogue position of each event; events with -1 are skipped.
        targets: ascending positions in the log.
        seen: (E,) bool, events that may stand in a past.
        longest: maximum number of events in a past.
    """
    of_user: dict[int, list[int]] = {}
    pasts_of_targets = []
    position = 0
    users, there = log.users.tolist(), (seen & (codes >= 0)).tolist()
    for target in targets.tolist():
        for event in range(position, target):
            if there[event]:
                of_user.setdefault(users[event], []).append(int(codes[event]))
        position = target
        past = of_user.get(users[target], [])
        pasts_of_targets.append(np.array(past[: -longest - 1 : -1], np.int64))
    return pasts_of_targets
