"""Replay held-out events through the Recommender that serves, and measure it beside baselines."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer import metrics
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

HISTORY_SLICES = ((1, 3), (4, 10), (11, 30), (31, None))
"""Lengths of the history before a target, as reported."""

MAX_SCENES, MIN_SCENE_TARGETS = 20, 30
"""Scenes with a slice of their own: the most frequent, and none with fewer targets."""

TAIL_SHARE = 0.1
"""`tail_items` are targets outside this share of the items, the most popular in training."""


class Row(msgspec.Struct, frozen=True):
    """Metrics of one model on one slice of the targets; None where a metric is not defined."""

    model: str
    slice: str
    n: int
    hit_rate_at_10: float | None
    hit_rate_at_20: float | None
    ndcg_at_10: float | None
    ndcg_at_20: float | None
    mrr: float | None
    recall_at_10: float | None
    debiased_hit_rate_at_10: float | None
    coverage: float | None
    novelty: float | None
    diversity: float | None
    auc: float | None = None
    user_auc: float | None = None
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    log_loss: float | None = None
    ece: float | None = None
    ece_noise_floor: float | None = None
    ci: dict[str, tuple[float, float]] = {}


class Difference(msgspec.Struct, frozen=True):
    """The mean of `model - against` over the targets, and its 95 % interval over users."""

    model: str
    against: str
    metric: str
    mean: float
    ci: tuple[float, float] | None


class Evaluation(msgspec.Struct, frozen=True):
    """What `indexer evaluate --json` prints; `notes` say how it was measured."""

    protocol: str
    artifact: str
    items: int
    users: int
    targets: int
    seconds: float
    events_per_second: float
    notes: list[str]
    rows: list[Row]
    differences: list[Difference]


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
    log: EventLog, split: Split, rows: Rows, live: int, items: int, repeats: bool
) -> Targets:
    """Return the targets of a protocol: what is ranked are live items of the log's catalogue.

    Baselines are fitted on all that is before the 90 % cut with `gts`, on the training part
    with `loo`.
    """
    ranked = np.zeros(items, np.bool_)
    ranked[:live] = True
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
        places = np.flatnonzero((served == target) & (served >= 0))
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


def slices(
    log: EventLog, targets: Targets, rows: Rows, scene_names: dict[int, str]
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the name of each slice and which targets (Q,) are in it; those of none are left out.

    `cold_users` and `cold_items` have no event among those that baselines are fitted on;
    `tail_items` are outside the most popular tenth of the items there; `history:A-B` are targets
    with so many events of the user before.
    """
    events = targets.events
    yield "all", np.ones(len(events), np.bool_)
    users = np.bincount(log.users[targets.fitted], minlength=len(log.user_ids))
    counts = np.bincount(rows[targets.fitted], minlength=len(targets.ranked))
    target = rows[events]
    known = target >= 0
    of_target = np.where(known, counts[np.maximum(target, 0)], 0)
    popular = np.zeros(len(counts), np.bool_)
    ranked = np.flatnonzero(targets.ranked)
    top = ranked[np.argsort(-counts[ranked], kind="stable")]
    popular[top[: math.ceil(TAIL_SHARE * len(top))]] = True
    lengths = log.lengths()[events]
    chosen = {
        "cold_users": users[log.users[events]] == 0,
        "cold_items": of_target == 0,
        "tail_items": ~(known & popular[np.maximum(target, 0)]),
    }
    for low, high in HISTORY_SLICES:
        name = f"history:{low}+" if high is None else f"history:{low}-{high}"
        chosen[name] = (lengths >= low) & (lengths <= (high or np.inf))
    scenes, sizes = np.unique(log.batch.scenes[events], return_counts=True)
    for place in np.argsort(-sizes, kind="stable")[:MAX_SCENES].tolist():
        scene = scene_names.get(int(scenes[place]))
        if scene is not None and sizes[place] >= MIN_SCENE_TARGETS and len(scenes) > 1:
            chosen[f"scene:{scene}"] = log.batch.scenes[events] == scenes[place]
    for name, which in chosen.items():
        if which.any():
            yield name, which


def measure(
    part: str,
    answers: Mapping[str, Answers],
    which: NDArray[np.bool_],
    targets: Targets,
    log: EventLog,
    rows: Rows,
    full: NDArray[np.float32],
    seed: int,
) -> list[Row]:
    """Measure all models on one slice; every mean has its interval by bootstrap over users."""
    users, items = log.users[targets.events[which]], rows[targets.events[which]]
    counts = np.bincount(rows[targets.fitted], minlength=len(targets.ranked)).astype(np.float64)
    ranked = int(targets.ranked.sum())
    values = np.concatenate([_values(found.ranks[which]) for found in answers.values()], axis=1)
    intervals = iter(metrics.mean_intervals(values, users, seed))
    means = iter(values.mean(axis=0).tolist() if len(values) else [math.nan] * values.shape[1])
    found_rows = []
    for name, found in answers.items():
        ranks, lists = found.ranks[which], found.lists[which]
        own = {metric: (next(means), next(intervals)) for metric in _MEANS}
        found_rows.append(
            Row(
                model=name,
                slice=part,
                n=len(ranks),
                debiased_hit_rate_at_10=_known(metrics.debiased_hit_rate_at_k(ranks, items, 10)),
                coverage=_known(metrics.coverage_at_k(lists, ranked)),
                novelty=_known(metrics.novelty_at_k(lists, counts)),
                diversity=_known(metrics.diversity_at_k(lists, full)),
                ci={
                    metric: (interval.low, interval.high)
                    for metric, (_, interval) in own.items()
                    if not math.isnan(interval.low)
                },
                **{metric: _known(mean) for metric, (mean, _) in own.items()},
            )
        )
    return found_rows


_MEANS = ("hit_rate_at_10", "hit_rate_at_20", "ndcg_at_10", "ndcg_at_20", "mrr", "recall_at_10")


def _values(ranks: Floats) -> Floats:
    """Return what the metrics of _MEANS are means of, (n, 6)."""
    hits, more = metrics.hits_at_k(ranks, 10), metrics.hits_at_k(ranks, 20)
    gains, further = metrics.gains_at_k(ranks, 10), metrics.gains_at_k(ranks, 20)
    return np.stack([hits, more, gains, further, 1.0 / ranks, hits], axis=1)


def differences(
    answers: dict[str, Answers], users: NDArray[np.int64], seed: int
) -> list[Difference]:
    """Return how far the tracker is from each other model, target by target."""
    found = []
    for other in answers:
        for model in (TRACKER, TRACKER_SERVED):
            if model == other or other == TRACKER:
                continue
            for metric, value in (("hit_rate_at_10", metrics.hits_at_k),
                                  ("ndcg_at_10", metrics.gains_at_k)):  # fmt: skip
                values, others = value(answers[model].ranks, 10), value(answers[other].ranks, 10)
                if not len(values):
                    continue
                low, high = metrics.paired_interval(values, others, users, seed)
                interval = None if math.isnan(low) else (low, high)
                mean = float((values - others).mean())
                found.append(Difference(model, other, metric, mean, interval))
    return found


def evaluate(
    replay: Replay,
    split: Split,
    repeats: bool,
    scene_names: dict[int, str],
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Replay a log through a recommender and report it beside the baselines.

    Args:
        replay: at its start; its recommender masks seen items unless `repeats`.
        split: whose test targets are asked.
        repeats: whether items seen before are ranked.
        scene_names: scene code to name, for the slices.
        seed: of the bootstrap.
        progress: told the position in the log.
    """
    start = time.perf_counter()
    log, rows = replay.log, replay.rows
    artifact = replay.recommender.artifact
    full = np.asarray(artifact.vectors.full)
    targets = targets_of(log, split, rows, artifact.vectors.live, len(full), repeats)
    baselines, notes = make_baselines(log, rows, targets, full, _free_bytes() // 2)
    answers = replay_targets(replay, targets, baselines, progress)
    found = [
        row
        for part, which in slices(log, targets, rows, scene_names)
        for row in measure(part, answers, which, targets, log, rows, full, seed)
    ]
    taken = time.perf_counter() - start
    events = int(split.test[-1]) if len(split.test) else 0
    return Evaluation(
        protocol=split.protocol,
        artifact=artifact.manifest.version,
        items=int(targets.ranked.sum()),
        users=len(np.unique(log.users[split.test])),
        targets=len(split.test),
        seconds=round(taken, 3),
        events_per_second=round(events / taken, 1),
        notes=[*_notes(split, targets, rows), *notes],
        rows=found,
        differences=differences(answers, log.users[split.test], seed),
    )


def _notes(split: Split, targets: Targets, rows: Rows) -> list[str]:
    if split.protocol == "gts":
        cut = f"targets: events from {split.cuts[1]:.14g} s on, of users with an earlier event"
    else:
        cut = "targets: each user's last event, of users with an earlier one"
    outside = int((rows[split.test] < 0).sum())
    return [
        cut,
        "ties of scores count half; events are in order of time, then of the file",
        "items seen before are ranked" if targets.repeats else "items seen before are not ranked",
        f"{outside} targets are of items outside the catalogue: rank infinity",
        "each target streams into the states after it was asked for",
    ]


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
