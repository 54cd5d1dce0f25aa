"""Measure what was answered at held-out events: the tracker beside the baselines, by slices."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from indexer.data.histories import TEST, EventLog, Split, counted
from indexer.data.holdout import day
from indexer.evaluate.answers import (
    TRACKER,
    TRACKER_ONLINE,
    TRACKER_SERVED,
    WITHOUT_ATTRIBUTES,
    WITHOUT_SCENES,
    ask_all,
    make_baselines,
    users_with_attributes,
    variants_of,
)
from indexer.evaluate.measure import differences, measure_slice, measured
from indexer.evaluate.probabilities import (
    PRIOR_EVENTS,
    Asker,
    LabelledAnswers,
    calibration_of,
    join_rows,
    measure_probabilities,
    with_means,
)
from indexer.evaluate.result import Evaluation
from indexer.evaluate.slices import slices
from indexer.evaluate.targets import Flags, Integers, Targets, targets_of
from indexer.replay.replay import Replay, Rows

MIN_TARGETS, MIN_USERS = 30, 5
"""With fewer targets or users than this the report says that nothing can be concluded."""

MAX_LABELLED = 50_000
"""Labelled events whose probability is asked for at most."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a replay.

    - `split`: its test targets are asked. `repeats`: items seen before are ranked.
    - `scene_names`: by code, for the slices. `seed`: of the intervals.
    - `met_only`: rank only items that the log has, as for a core of the events.
    - `labelled`: positions and labels of all labelled events; those of the test part are asked for
      their probability, MAX_LABELLED at most, evenly spread.
    """

    split: Split
    repeats: bool = False
    scene_names: dict[int, str] = field(default_factory=dict)
    seed: int = 0
    met_only: bool = False
    labelled: tuple[Integers, Flags] | None = None


def evaluate(
    replay: Replay, question: Question, progress: Callable[[int], None] = lambda done: None
) -> Evaluation:
    """Replay a log through a recommender and report it beside the baselines.

    1. Find what is asked, and fit the baselines.
    2. Ask everything in one pass: at targets for rankings, at labelled events for probabilities.
    3. Measure both on every slice.

    Args:
        replay: at its start; its recommender masks seen items unless `repeats`.
        question: what is asked.
        progress: told the position in the log.
    """
    start = time.perf_counter()
    log, rows, split = replay.log, replay.rows, question.split
    artifact = replay.recommender.artifact
    full = np.asarray(artifact.vectors.full)
    live, seed = artifact.vectors.live, question.seed
    targets = targets_of(log, split, rows, live, len(full), question.repeats, question.met_only)
    baselines, notes = make_baselines(log, rows, targets, full, _free_bytes() // 2)
    asker = _asker(replay, question)

    def between(event: int) -> None:
        asker.up_to(event)
        progress(event)

    answers = ask_all(replay, targets, baselines, variants_of(replay, targets), between)
    asker.up_to(len(log))
    said = _said(log, question, asker)
    counts = np.bincount(rows[targets.fitted], minlength=len(full)).astype(np.float64)
    models = {name: measured(found, counts, full) for name, found in answers.items()}
    users, items = log.users[targets.events], rows[targets.events]
    known, ranked = users_with_attributes(replay), int(targets.ranked.sum())

    def parts(events: Integers) -> Iterator[tuple[str, Flags]]:
        return slices(log, events, targets, rows, question.scene_names, known)

    of_ranks = [
        row
        for part, which in parts(targets.events)
        for row in measure_slice(part, models, which, users, items, ranked, seed)
    ]
    of_labels = [
        row
        for part, which in (parts(said.events) if len(said) else ())
        for row in measure_probabilities(part, said.of(which), log.users, seed)
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
        notes=[
            *_notes(log, split, targets, rows),
            *(note for name, note in _MODELS.items() if name in answers),
            *_notes_of_labels(said, asker),
            *notes,
        ],
        rows=join_rows(of_ranks, of_labels),
        differences=differences(answers, users, seed),
        calibration=calibration_of(said.positive, said.models[TRACKER]) if len(said) else [],
    )


_MODELS = {
    TRACKER: "tracker ranks all items, by the ranker with the weights as published",
    TRACKER_SERVED: "tracker_served is the list as served: candidates, quotas, re-ranking",
    WITHOUT_SCENES.name: "tracker_without_scenes is the same artifact asked with no scene",
    WITHOUT_ATTRIBUTES.name: "tracker_without_attributes is asked as if no attribute were known",
    TRACKER_ONLINE: "tracker_online goes on learning from what streams in, and is asked beside",
}


def _asker(replay: Replay, question: Question) -> Asker:
    """Return what asks for the probabilities of the labelled events of the test part, if any."""
    if question.labelled is None:
        return Asker(replay, np.zeros(0, np.int64))
    events = question.labelled[0]
    events = events[question.split.parts[events] == TEST]
    if len(events) > MAX_LABELLED:
        events = events[np.linspace(0, len(events) - 1, MAX_LABELLED).astype(np.int64)]
    return Asker(replay, events)


def _said(log: EventLog, question: Question, asker: Asker) -> LabelledAnswers:
    nothing = np.zeros(0, np.int64), np.zeros(0, np.bool_)
    events, positive = question.labelled or nothing
    models = {TRACKER: asker.said}
    if not np.isnan(asker.learned).all():
        models[TRACKER_ONLINE] = asker.learned
    return with_means(log, events, positive, asker.events, models)


def _notes_of_labels(said: LabelledAnswers, asker: Asker) -> list[str]:
    if not len(asker.events):
        return []
    return [
        f"probabilities: {len(said)} labelled events of the test part, {int(said.positive.sum())}"
        f" positive; {len(asker.events) - len(said)} more are of items outside the catalogue",
        "ECE has 10 bins of equal mass; its floor is what perfect calibration would show by chance",
        f"item_mean and user_mean are streaming shares of positives, {PRIOR_EVENTS:g} events of"
        " everybody's mean added; each label moves a user's mean towards itself, so that within a"
        " user it stands below a later label of the other class: its user AUC is no baseline",
    ]


def _notes(log: EventLog, split: Split, targets: Targets, rows: Rows) -> list[str]:
    if split.protocol == "gts":
        first, second = split.cuts
        cut = (
            f"split points: {day(first)} (80 %) and {day(second)} (90 %); targets are events"
            " from the second on, of users with an earlier event; baselines are fitted on what is"
            " before it"
        )
    else:
        cut = (
            "targets: each user's last event, of users with an earlier one; baselines are fitted on"
            " what is before the last two"
        )
    outside = int((rows[split.test] < 0).sum())
    count, users = len(split.test), len(np.unique(log.users[split.test]))
    few = count < MIN_TARGETS or users < MIN_USERS
    said = f"only {counted(count, 'target')} of {counted(users, 'user')}: nothing can be concluded"
    return [
        *([said] if few else []),
        cut,
        "ties of scores count half; events are in order of time, then of the file",
        "items seen before are ranked" if targets.repeats else "items seen before are not ranked",
        f"{outside} targets are of items outside the catalogue: counted as not found",
        "each target streams into the states after it was asked for",
        "means are over targets; intervals are 95 %, by bootstrap over users; coverage has none",
    ]


def _free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
