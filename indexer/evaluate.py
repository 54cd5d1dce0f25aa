"""Measure what was answered at held-out events: the tracker beside the baselines, by slices."""

import os
import time
from collections.abc import Callable

import numpy as np

from indexer.answers import ask_all, make_baselines
from indexer.evaluation import Evaluation
from indexer.histories import Split
from indexer.measure import differences, measure_slice, measured
from indexer.replay import Replay, Rows
from indexer.slices import slices
from indexer.targets import Targets, targets_of


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
    counts = np.bincount(rows[targets.fitted], minlength=len(full)).astype(np.float64)
    models = {name: measured(found, counts, full) for name, found in answers.items()}
    users, items = log.users[targets.events], rows[targets.events]
    ranked = int(targets.ranked.sum())
    found = [
        row
        for part, which in slices(log, targets.events, targets, rows, scene_names)
        for row in measure_slice(part, models, which, users, items, ranked, seed)
    ]
    taken = time.perf_counter() - start
    events = int(split.test[-1]) if len(split.test) else 0
    return Evaluation(
        protocol=split.protocol,
        artifact=artifact.manifest.version,
        items=ranked,
        users=len(np.unique(users)),
        targets=len(split.test),
        seconds=round(taken, 3),
        events_per_second=round(events / taken, 1),
        notes=[*_notes(split, targets, rows), *notes],
        rows=found,
        differences=differences(answers, users, seed),
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


def _free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
