"""Measure what was answered at held-out events: the tracker beside the baselines, by slices."""

import math
import os
import time
from collections.abc import Callable, Iterator, Mapping

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer import metrics
from indexer.answers import (
    TRACKER,
    TRACKER_SERVED,
    Answers,
    ask_all,
    make_baselines,
)
from indexer.histories import EventLog, Split
from indexer.metrics import Floats
from indexer.replay import Replay, Rows
from indexer.targets import Targets, targets_of

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
    met_only: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Replay a log through a recommender and report it beside the baselines.

    Args:
        replay: at its start; its recommender masks seen items unless `repeats`.
        split: whose test targets are asked.
        repeats: whether items seen before are ranked.
        scene_names: scene code to name, for the slices.
        seed: of the bootstrap.
        met_only: rank only items that the log has, as for a core of the events.
        progress: told the position in the log.
    """
    start = time.perf_counter()
    log, rows = replay.log, replay.rows
    artifact = replay.recommender.artifact
    full = np.asarray(artifact.vectors.full)
    targets = targets_of(log, split, rows, artifact.vectors.live, len(full), repeats, met_only)
    baselines, notes = make_baselines(log, rows, targets, full, _free_bytes() // 2)
    answers = ask_all(replay, targets, baselines, progress)
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
