"""Examples for the ranker: targets among candidates, with the features as they were then."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import EventLog
from indexer.replay.groups import groups_of
from indexer.replay.replay import Replay, Rows
from tracker.files import new_file
from tracker.scoring.context import COLUMNS

Flags = NDArray[np.bool_]

HARD, UNIFORM = 96, 96
"""Candidates beside a target: the best of the channels, and some of all the others."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Q targets in time order, each among C candidates.

    `features` (Q, C, len(COLUMNS)) float16, the target first. `offsets` (Q, C) float32 is added to
    a candidate's logit: 0, or the logarithm of how many items it stands for, so that the softmax
    over the candidates estimates that over all items; -inf for a place that is empty. `events`
    (Q,) are the targets' positions in the log; `fresh` (Q,) bool those of which the models behind
    the columns of `tracker.scoring.context.LATE` have seen nothing. `rows` (Q, C) int32 are the
    candidates.
    """

    features: NDArray[np.float16]
    offsets: NDArray[np.float32]
    events: NDArray[np.int64]
    fresh: Flags
    rows: NDArray[np.int32]

    def __len__(self) -> int:
        """Return the number of targets."""
        return len(self.events)


def collect_examples(
    replay: Replay,
    targets: NDArray[np.int64],
    repeats: bool,
    seed: int,
    fresh: Flags | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Examples:
    """Replay the log up to the last target and write down what the ranker would see of each.

    1. The states move up to the target.
    2. Hard candidates are what the channels offer, without what the user has seen.
    3. Uniform candidates are drawn from all other live items; each stands for several.
    4. Features of target and candidates, by the code that serves.

    Args:
        replay: at its start; its options decide what the channels offer and whether seen items
            are candidates.
        targets: ascending positions in the log; those of items not in the catalogue are left out.
        repeats: seen items are candidates like others.
        seed: of the uniform candidates.
        fresh: (Q,) bool, see `Examples`; by default all are.
        progress: told the number of targets done.
    """
    live = replay.recommender.artifact.vectors.live
    rows = replay.rows
    fresh = np.ones(len(targets), np.bool_) if fresh is None else fresh
    usable = (rows[targets] >= 0) & (rows[targets] < live)
    targets, fresh = targets[usable], fresh[usable]
    random = np.random.default_rng(seed)
    past = Past(replay.log, rows)
    places = 1 + min(HARD, live) + min(UNIFORM, live)
    features = np.zeros((len(targets), places, len(COLUMNS)), np.float16)
    offsets = np.full((len(targets), places), -np.inf, np.float32)
    offered = np.full((len(targets), places), -1, np.int32)
    done = 0
    for start, stop in groups_of(replay.log, targets):
        group = targets[start:stop]
        replay.advance(int(group[0]))  # 1
        hard = replay.recommender.rows(replay.asked(group), HARD)
        candidates = np.full((len(group), places), -1, np.int64)
        for n, event in enumerate(group.tolist()):
            seen = np.zeros(0, np.int64) if repeats else past.rows(event)
            chosen, stands_for = _candidates(int(rows[event]), hard[n], seen, live, random)  # 2, 3
            candidates[n, : len(chosen)] = chosen
            offsets[start + n, : len(chosen)] = np.log(stands_for)
        features[start:stop] = replay.columns(group, candidates)  # 4
        offered[start:stop] = candidates
        done += len(group)
        progress(done)
    return Examples(features, offsets, targets, fresh, offered)


def save_examples(examples: Examples, path: Path) -> None:
    """Keep examples in a file, which is whole if it is there."""
    columns = {name: getattr(examples, name) for name in Examples.__dataclass_fields__}
    with new_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **columns)


def load_examples(path: Path) -> Examples:
    """Read what `save_examples` wrote."""
    with np.load(path) as file:
        return Examples(**{name: file[name] for name in Examples.__dataclass_fields__})


class Past:
    """The catalogue rows of each user's earlier events, from the log itself."""

    def __init__(self, log: EventLog, rows: Rows) -> None:
        known = np.flatnonzero(rows >= 0)
        self._order = known[np.argsort(log.users[known], kind="stable")]
        self._starts = np.searchsorted(
            log.users[self._order], np.arange(len(log.user_ids) + 1), side="left"
        )
        self._users, self._rows = log.users, rows

    def rows(self, event: int) -> Rows:
        """Return the rows of the events of an event's user before it, earliest first."""
        user = self._users[event]
        own = self._order[self._starts[user] : self._starts[user + 1]]
        return np.asarray(self._rows[own[: np.searchsorted(own, event)]], np.int64)


def _candidates(
    target: int, hard: Rows, seen: Rows, live: int, random: np.random.Generator
) -> tuple[Rows, NDArray[np.float64]]:
    """Return the target, hard and uniform candidates, and how many items each stands for."""
    taken = np.zeros(live, np.bool_)
    taken[seen[seen < live]] = True
    hard = hard[(hard >= 0) & (hard != target)]
    hard = hard[~taken[hard]]
    taken[hard] = True
    taken[target] = True
    free = np.flatnonzero(~taken)
    uniform = random.choice(free, min(UNIFORM, len(free)), replace=False)
    rows = np.concatenate([[target], hard, uniform])
    stands_for = np.ones(len(rows))
    if len(uniform):
        stands_for[1 + len(hard) :] = len(free) / len(uniform)
    return rows, stands_for
