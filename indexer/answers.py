"""Ask the tracker and the baselines at held-out events, all in one replay."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.baselines import (
    Baseline,
    Content,
    DecayedPopularity,
    Ease,
    ItemKnn,
    OwnFrequent,
    Popularity,
)
from indexer.examples import Past
from indexer.histories import VALIDATION, EventLog, Split
from indexer.metrics import Floats, rank_of
from indexer.replay import Replay, Rows

K = 10
"""Length of the lists of which coverage, novelty and diversity are taken."""

SERVED = 20
"""Length of the lists asked for as served."""

TRACKER, TRACKER_SERVED = "tracker", "tracker_served"


@dataclass(frozen=True, slots=True)
class Answers:
    """What one model said at Q targets: ranks (Q,) float64 and its lists (Q, K) rows, -1 padded."""

    ranks: Floats
    lists: Rows


@dataclass(frozen=True, slots=True)
class Targets:
    """What is asked: Q targets, ascending positions in the log, and what may be ranked.

    `ranked` (N,) bool are the catalogue rows that may stand in a list; `fitted` (E,) bool the
    events that baselines are fitted on; `repeats` whether items seen before are ranked.
    """

    events: NDArray[np.int64]
    ranked: NDArray[np.bool_]
    fitted: NDArray[np.bool_]
    repeats: bool


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


def make_baselines(
    log: EventLog, rows: Rows, targets: Targets, full: NDArray[np.float32], memory_bytes: int
) -> tuple[list[Baseline], list[str]]:
    """Return the baselines, and a note for each that cannot be asked here."""
    users, fitted = log.users[targets.fitted], rows[targets.fitted]
    count = len(full)
    found: list[Baseline] = [
        Popularity(fitted, count),
        DecayedPopularity(count),
        ItemKnn(users, fitted, count),
        Content(full, 1),
        Content(full),
    ]
    notes = []
    try:
        found.insert(3, Ease(users, fitted, count, memory_bytes))
    except MemoryError as error:
        notes.append(f"ease is left out: {error}")
    if targets.repeats:
        found.append(OwnFrequent(count))
    return found, notes


def replay_targets(
    replay: Replay,
    targets: Targets,
    baselines: Sequence[Baseline],
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Answers]:
    """Ask every model at every target, each from what came before it, in one pass.

    1. Events before the target go into the states, and into the baselines that stream.
    2. Each baseline scores the catalogue; so does the trained ranker, for `tracker`.
    3. The list as served is asked for, for `tracker_served`.

    Args:
        replay: at its start.
        targets: what is asked.
        baselines: asked beside the tracker.
        progress: told the position in the log.
    """
    log, rows = replay.log, replay.rows
    names = [TRACKER, TRACKER_SERVED, *(model.name for model in baselines)]
    found = {
        name: Answers(np.empty(len(targets.events)), np.full((len(targets.events), K), -1))
        for name in names
    }
    past = Past(log, rows)
    all_rows = np.flatnonzero(targets.ranked)[None, :]
    everyone = np.array([all_rows.shape[1]])
    hidden = ~targets.ranked
    for n, event in enumerate(targets.events.tolist()):
        for model in baselines:
            for before in range(replay.position, event):
                if rows[before] >= 0:
                    model.add(int(rows[before]), float(log.batch.times[before]))
        replay.advance(event)  # 1
        own = past.rows(event)
        masked = None if targets.repeats else own
        target, now = int(rows[event]), float(log.batch.times[event])
        if target >= 0 and hidden[target]:
            target = -1
        for model in baselines:  # 2
            scores = model.scores(own[::-1], now)
            if hidden.any():
                scores = np.where(hidden, np.float32(-np.inf), scores)
            _write(found[model.name], n, scores, target, masked)
        at = np.array([event])
        scores = np.full(len(hidden), -np.inf, np.float32)
        columns = replay.columns(at, all_rows)
        scores[all_rows[0]] = replay.recommender.ranker.score(columns, everyone)[0]
        _write(found[TRACKER], n, scores, target, masked)
        served = replay.recommender.recommend(  # 3
            replay.states, replay.seen, replay.seen_slots, log.users[at],
            log.batch.times[at], log.batch.scenes[at], SERVED,
        ).rows[0]  # fmt: skip
        # Where everything is seen a list has what was seen, which counts for nothing here.
        asked = -1 if masked is not None and target in masked else target
        places = np.flatnonzero((served == asked) & (served >= 0))
        found[TRACKER_SERVED].ranks[n] = 1.0 + places[0] if len(places) else math.inf
        found[TRACKER_SERVED].lists[n] = served[:K]
        progress(event)
    return found


def _write(
    answers: Answers, n: int, scores: NDArray[np.float32], target: int, masked: Rows | None
) -> None:
    """Write down the rank of a target, and the list: best first, ties by row."""
    answers.ranks[n] = rank_of(scores, target, masked)
    if masked is not None and len(masked):
        scores = scores.copy()
        scores[masked] = -np.inf
    count = min(K, len(scores))
    level = np.partition(scores, len(scores) - count)[len(scores) - count]
    best = np.flatnonzero(scores >= level)
    best = best[np.argsort(-scores[best], kind="stable")][:count]
    best = best[scores[best] > -np.inf]
    answers.lists[n, : len(best)] = best
