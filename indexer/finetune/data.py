"""What a text encoder learns from: items chosen near each other, and events by time."""

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
"""Two choices further apart in time than this are no pair."""

NEAR_EVENTS = 4
"""A choice is paired with so many after it, at most."""

PAIR_DECAY = 0.8
"""Weight of a pair against one that is an event nearer, as in the content channel."""

RUN_EVENTS = 16
"""Events of one user that come into a batch together, at most."""


@dataclass(frozen=True, slots=True)
class Texts:
    """The distinct texts of a catalogue: items of the same text are one to an encoder.

    `texts` has U; `of_item` (I,) says which one each item has.
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
    """Which events may be learned from, and which are asked for to choose the best weights.

    `train` and `validation` (E,) bool; the latter are targets. What is in neither part and not
    `seen` (E,) is left alone by everything here.
    """

    train: Flags
    validation: Flags
    seen: Flags


def part(log: EventLog, until: Until) -> Parts:
    """Divide events by time, as `indexer train` does with the same protocol.

    `gts` learns from what is before the 80 % quantile and is judged by what is before that of 90 %;
    `all` leaves nothing out: it learns up to 90 % and is judged by the rest. `loo` leaves the last
    event of each user out, and is judged by the one before it.
    """
    protocol: Protocol = "loo" if until == "loo" else "gts"
    found = split(log, protocol)
    validation = np.zeros(len(log), np.bool_)
    if until == "all":
        validation[found.test] = True
        return Parts(found.parts != TEST, validation, np.ones(len(log), np.bool_))
    validation[found.validation] = True
    return Parts(found.parts == TRAIN, validation, found.parts <= VALIDATION)


def rows_of(log: EventLog, items: Sequence[Item]) -> Integers:
    """Return (E,) the position in the catalogue of each event's item, -1 for none."""
    places = {hash_id(item.item_id): place for place, item in enumerate(items)}
    known = np.array([places.get(item, -1) for item in log.item_hashes.tolist()], np.int64)
    return np.where(log.items >= 0, known[log.items] if len(known) else -1, -1)


@dataclass(frozen=True, slots=True)
class Choices:
    """What users chose, in the order of users and, of each, of time: C choices.

    `users`, `texts` (C,) are codes, `times` (C,) float seconds. `frequency` (U,) is the share of
    each text in the choices.
    """

    users: Integers
    texts: Integers
    times: NDArray[np.float64]
    frequency: NDArray[np.float64]

    @classmethod
    def of(cls, log: EventLog, texts: Integers, count: int, chosen: Flags) -> "Choices":
        """Take events of positive weight with a text.

        Args:
            log: all events.
            texts: (E,) each event's text, -1 for none.
            count: U.
            chosen: (E,) which events may be taken.
        """
        kept = np.flatnonzero(chosen & (texts >= 0) & (log.batch.weights > 0.0))
        kept = kept[np.argsort(log.users[kept], kind="stable")]
        counts = np.bincount(texts[kept], minlength=count)
        frequency = counts / max(len(kept), 1)
        return cls(log.users[kept], texts[kept], log.batch.times[kept], frequency)

    def pairs(self, places: Integers) -> tuple[Integers, Integers, NDArray[np.float64]]:
        """Return the pairs among some choices: first and second (P,) by position in `places`.

        A pair is two choices of one user that are near each other, of different texts; its weight
        is .8 for each event that lies between them. `places` are in ascending order.
        """
        firsts, seconds, weights = [], [], []
        for distance in range(1, NEAR_EVENTS + 1):
            if len(places) <= distance:
                break
            one, other = places[:-distance], places[distance:]
            near = self.users[one] == self.users[other]
            near &= self.times[other] - self.times[one] <= NEAR_SECONDS
            near &= self.texts[one] != self.texts[other]
            found = np.flatnonzero(near)
            firsts.append(found)
            seconds.append(found + distance)
            weights.append(np.full(len(found), PAIR_DECAY ** (distance - 1)))
        if not firsts:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(weights)

    def batches(self, size: int, random: np.random.Generator) -> Iterator[Integers]:
        """Yield ascending places of about `size` choices for ever, epoch by epoch.

        A user's choices come in runs of at most 16 from a start drawn anew in each epoch; runs of a
        single choice, which have no pair, are left out.
        """
        while True:
            yield from shuffled_runs(runs_of(self.users, random, 2), size, random)


def runs_of(users: Integers, random: np.random.Generator, least: int) -> list[tuple[int, int]]:
    """Cut the events of each user, which stand together, into runs of `least` to 16: from, to."""
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
    """Yield the ascending places of runs, drawn without replacement, `size` and more at once."""
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
    """Return the codes of the events of its user before each target, latest first.

    Args:
        log: all events.
        codes: (E,) each event's text or row, -1 for none; those are passed over.
        targets: ascending positions in the log.
        seen: (E,) which events may stand in a past.
        longest: events that are kept of a past.
    """
    of_user: dict[int, list[int]] = {}
    found = []
    position = 0
    users, there = log.users.tolist(), (seen & (codes >= 0)).tolist()
    for target in targets.tolist():
        for event in range(position, target):
            if there[event]:
                of_user.setdefault(users[event], []).append(int(codes[event]))
        position = target
        past = of_user.get(users[target], [])
        found.append(np.array(past[: -longest - 1 : -1], np.int64))
    return found
