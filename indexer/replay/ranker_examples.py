"""Examples for the ranker: targets among candidates, with the features as they were then."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import EventLog
from indexer.replay.groups import groups_of
from indexer.replay.pools import PoolCollector
from indexer.replay.replay import Replay, Rows
from tracker.scoring.context import COLUMNS

Flags = NDArray[np.bool_]

HARD, UNIFORM = 96, 96
"""Negative candidates of a target: the best of the channels, and a sample of the others."""

HIDDEN_SCENES = 0.2
"""Share of the targets with a scene that are asked without it: as much as scene attention's
`scene_dropout`. Where all events have a scene, nothing else tells what is best without one."""

_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Examples:
    """Q targets in time order, each among C candidates.

    Attributes:
        features: (Q, C, len(COLUMNS)) float16, the target first.
        offsets: (Q, C) float32, added to a candidate's logit: 0, or the logarithm of the number of
            items that it stands for, so that the softmax over the candidates estimates that over
            all items; -inf for an empty place.
        events: (Q,) positions of the targets in the log.
        fresh: (Q,) bool, targets that the models behind the columns of
            `tracker.scoring.context.LATE` have not seen.
        rows: (Q, C) int32 catalogue rows of the candidates.
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
    progress: Callable[[int], None] = lambda count: None,
    pools: PoolCollector | None = None,
) -> Examples:
    """Replay the log up to the last target, and return the ranker's features of each.

    1. Apply the events before the target to the states.
    2. Take the candidates of the channels, without seen items: the hard ones.
    3. Draw uniform candidates from all other live items; each stands for several.
    4. Compute the features of target and candidates by the code that serves.

    Some targets are asked without their scene, see `names_scene`.

    Args:
        replay: at its start; its options decide on the candidates of the channels, and whether
            seen items are among them.
        targets: ascending positions in the log; those of items not in the catalogue are left out.
        repeats: seen items are candidates like others.
        seed: of the uniform candidates.
        fresh: (Q,) bool, see `Examples`; by default all are.
        progress: called with the number of targets done.
        pools: collects those of the latest targets.
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
    count = 0
    first = len(targets) if pools is None else pools.begin(len(targets))
    for start, stop in groups_of(replay.log, targets):
        group = targets[start:stop]
        replay.advance(int(group[0]))  # 1. Apply the events before the target.
        named = names_scene(replay, group)
        hard = replay.recommender.rows(replay.asked(group, named), HARD)
        candidates = np.full((len(group), places), -1, np.int64)
        for n, event in enumerate(group.tolist()):
            seen = np.zeros(0, np.int64) if repeats else past.rows(event)
            # 2. Take the hard candidates. 3. Draw uniform ones.
            rows_of_target, stands_for = _candidates(int(rows[event]), hard[n], seen, live, random)
            candidates[n, : len(rows_of_target)] = rows_of_target
            offsets[start + n, : len(rows_of_target)] = np.log(stands_for)
        # 4. Compute the features.
        features[start:stop] = replay.columns(group, candidates, named)
        offered[start:stop] = candidates
        if pools is not None and stop > first:
            late = slice(max(first - start, 0), None)
            pools.add(replay, group[late], named[late], features[:start], offsets[:start])
        count += len(group)
        progress(count)
    return Examples(features, offsets, targets, fresh, offered)


def names_scene(replay: Replay, events: NDArray[np.int64]) -> Flags:
    """Return which events (B,) are asked with their scene: all but HIDDEN_SCENES of them.

    User and time of the event decide, so that every training of it hides the same.
    """
    keys = replay.user_hashes[replay.log.users[events]]
    keys = (keys ^ replay.log.batch.times[events].view(np.uint64)) * _MIX
    keys = (keys ^ (keys >> np.uint64(32))) * _MIX
    return np.asarray((keys >> np.uint64(32)) >= HIDDEN_SCENES * 2.0**32)


class Past:
    """The catalogue rows of each user's earlier events, from the log itself."""

    def __init__(self, log: EventLog, rows: Rows) -> None:
        positions = np.flatnonzero(rows >= 0)
        self._order = positions[np.argsort(log.users[positions], kind="stable")]
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
    """Return the target, hard and uniform candidates, and the number of items of each."""
    seen = np.unique(seen[seen < live])
    hard = hard[(hard >= 0) & (hard != target)]
    hard = hard[~np.isin(hard, seen)]
    excluded = np.unique(np.concatenate([seen, hard, [target]]))
    uniform = _others(excluded, live, random)
    rows = np.concatenate([[target], hard, uniform])
    stands_for = np.ones(len(rows))
    if len(uniform):
        stands_for[1 + len(hard) :] = (live - len(excluded)) / len(uniform)
    return rows, stands_for


def _others(excluded: Rows, live: int, random: np.random.Generator) -> Rows:
    """Draw up to UNIFORM different rows below `live` other than those of `excluded`, ascending.

    The time does not grow with the number of items: free rows are drawn by their number among the
    free ones, and that many excluded rows before them are passed over.
    """
    free = live - len(excluded)
    numbers = np.sort(random.choice(free, min(UNIFORM, free), replace=False, shuffle=False))
    # The k-th excluded row has `excluded[k] - k` free rows before it.
    before = np.searchsorted(excluded - np.arange(len(excluded)), numbers, side="right")
    return np.asarray(numbers + before, np.int64)
