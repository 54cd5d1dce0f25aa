"""Evaluate an artifact at held-out events: the tracker next to baselines, by slices."""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from indexer.data.catalog import Catalog
from indexer.data.histories import (
    TEST,
    EventLog,
    Protocol,
    Split,
    core,
    counted,
    split,
)
from indexer.data.holdout import all_at_one_time, check_unseen, day, evenly_spread
from indexer.data.labels import Labelled, label_events
from indexer.data.training_log import check_core, check_events, read_log
from indexer.data.users import Users, known_attributes
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
from indexer.evaluate.ask_shards import Questions, ask_shards
from indexer.evaluate.bar import measure_served
from indexer.evaluate.measure import differences, measure_model, measure_slice
from indexer.evaluate.probabilities import (
    PRIOR_EVENTS,
    LabelledAnswers,
    ProbabilityRecorder,
    calibration_of,
    join_rows,
    measure_probabilities,
    with_means,
)
from indexer.evaluate.result import Evaluation
from indexer.evaluate.targets import Flags, Integers, Targets, slices, targets_of
from indexer.replay.replay import Replay, Rows
from indexer.shards import Shards
from tracker.artifact.artifact import Artifact
from tracker.artifact.versions import Root
from tracker.dialects.loading import load_dialect
from tracker.events.dialect import OWN
from tracker.events.entries import event_reading
from tracker.events.kinds import Kinds
from tracker.events.times import Unit
from tracker.events.wire import hash_id
from tracker.explained import Explained
from tracker.recommend.learner import Learner
from tracker.recommend.options import RecommendOptions

MIN_TARGETS, MIN_USERS = 30, 5
"""Fewest targets and users to conclude anything from; the report has a note otherwise."""

MAX_LABELLED = 50_000
"""Labelled events with a probability at most."""


@dataclass(frozen=True, slots=True)
class Question:
    """The targets of a replay, and how they are ranked and reported.

    Attributes:
        split: its test events are the targets.
        repeats: items seen before are ranked.
        scene_names: by code, for the slices.
        seed: of the intervals.
        met_only: rank only items that the log has, as for a core of the events.
        labelled: positions and labels of all labelled events; those of the test part are asked for
            their probability, up to MAX_LABELLED, evenly spread.
        origins: positions of the events that tell these labels, see `Labelled`; None for their own.
    """

    split: Split
    repeats: bool = False
    scene_names: dict[int, str] = field(default_factory=dict)
    seed: int = 0
    met_only: bool = False
    labelled: tuple[Integers, Flags] | None = None
    origins: Integers | None = None


def evaluate(
    replay: Replay,
    question: Question,
    progress: Callable[[int], None] = lambda position: None,
    shards: Shards | None = None,
) -> Evaluation:
    """Replay a log through a recommender, and report its metrics next to those of baselines.

    1. Find the targets, and make the baselines.
    2. Ask all models in one pass: for rankings at targets, for probabilities at labelled events.
    3. Measure both on every slice.

    Args:
        replay: at its start; its recommender masks seen items unless `repeats`.
        question: targets and labelled events.
        progress: called with the position in the log.
        shards: what asks the tracker; None for this process. The figures do not depend on it.
    """
    start = time.perf_counter()
    log, rows, split = replay.log, replay.rows, question.split
    artifact = replay.recommender.artifact
    full = np.asarray(artifact.vectors.full)
    live, seed = artifact.vectors.live, question.seed
    # 1. Find the targets, and make the baselines.
    targets = targets_of(log, split, rows, live, len(full), question.repeats, question.met_only)
    baselines, notes = make_baselines(log, rows, targets, full, _free_bytes() // 2, split)
    recorder = _recorder(replay, question)

    def between(event: int) -> None:
        recorder.advance(event)
        progress(event)

    # 2. Ask all models in one pass.
    if shards is None:
        answers = ask_all(replay, targets, baselines, variants_of(replay, targets), between)
        recorder.advance(len(log))
    else:
        options, variants = replay.recommender.options, variants_of(replay, targets)
        questions = Questions(
            artifact, log, options, replay.learner, targets, variants, recorder.events
        )
        together = ask_shards(shards, questions, rows, baselines)
        answers = together.answers
        recorder.published[:], recorder.online[:] = together.published, together.online
    labelled = _labelled_answers(log, question, recorder)
    # 3. Measure.
    counts = np.bincount(rows[targets.fitted], minlength=len(full)).astype(np.float64)
    models = {name: measure_model(own, counts, full) for name, own in answers.items()}
    users, items = log.users[targets.events], log.items[targets.events]
    with_attributes, ranked = users_with_attributes(replay), int(targets.ranked.sum())

    def parts(events: Integers) -> Iterator[tuple[str, Flags]]:
        return slices(log, events, targets, rows, question.scene_names, with_attributes)

    of_ranks = [
        row
        for part, which in parts(targets.events)
        for row in measure_slice(part, models, which, users, items, ranked, seed)
    ]
    of_labels = [
        row
        for part, which in (parts(labelled.events) if len(labelled) else ())
        for row in measure_probabilities(part, labelled.among(which), log.users, seed)
    ]
    seconds = time.perf_counter() - start
    events = int(split.test[-1]) if len(split.test) else 0
    return Evaluation(
        protocol=split.protocol,
        artifact=artifact.manifest.version,
        items=ranked,
        users=len(np.unique(users)),
        targets=len(split.test),
        seconds=round(seconds, 3),
        events_per_second=round(events / seconds, 1),
        notes=[
            *_notes(log, split, targets, rows),
            *(note for name, note in _MODELS.items() if name in answers),
            *_label_notes(labelled, recorder),
            *notes,
        ],
        rows=join_rows(of_ranks, of_labels),
        differences=differences(answers, users, seed),
        calibration=calibration_of(labelled.positive, labelled.models[TRACKER]),
        served=measure_served(
            answers[TRACKER], answers[TRACKER_SERVED], parts(targets.events), users, seed
        ),
    )


_MODELS = {
    TRACKER: "tracker ranks all items, by the ranker with the weights as published",
    TRACKER_SERVED: "tracker_served is the list as served: candidates, quotas, re-ranking",
    WITHOUT_SCENES.name: "tracker_without_scenes is the same artifact asked with no scene",
    WITHOUT_ATTRIBUTES.name: "tracker_without_attributes is asked as if no attribute were known",
    TRACKER_ONLINE: "tracker_online goes on learning from what streams in, and is asked beside",
}


def _recorder(replay: Replay, question: Question) -> ProbabilityRecorder:
    """Return the recorder of the labelled events of the test part."""
    if question.labelled is None:
        return ProbabilityRecorder(replay, np.zeros(0, np.int64))
    events = question.labelled[0]
    events = events[question.split.parts[events] == TEST]
    return ProbabilityRecorder(replay, evenly_spread(events, MAX_LABELLED))


def _labelled_answers(
    log: EventLog, question: Question, recorder: ProbabilityRecorder
) -> LabelledAnswers:
    nothing = np.zeros(0, np.int64), np.zeros(0, np.bool_)
    events, positive = question.labelled or nothing
    models = {TRACKER: recorder.published}
    if not np.isnan(recorder.online).all():
        models[TRACKER_ONLINE] = recorder.online
    return with_means(log, events, positive, recorder.events, models, question.origins)


def _label_notes(answers: LabelledAnswers, recorder: ProbabilityRecorder) -> list[str]:
    if not len(recorder.events):
        return []
    return [
        f"probabilities: {len(answers)} labelled events of the test part,"
        f" {int(answers.positive.sum())} positive;"
        f" {len(recorder.events) - len(answers)} more are of items outside the catalogue",
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
    warning = (
        f"only {counted(count, 'target')} of {counted(users, 'user')}: nothing can be concluded"
    )
    return [
        *([warning] if few else []),
        cut,
        "ties of scores count half; events are in order of time, then of the file",
        "items seen before are ranked" if targets.repeats else "items seen before are not ranked",
        f"{outside} targets are of items outside the catalogue: counted as not found",
        "each target streams into the states after it was asked for",
        "means are over targets; intervals are 95 %, by bootstrap over users; coverage has none",
    ]


def _free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


MAX_SCORES, MIN_SAMPLE = 150_000_000, 1000
"""Scores of the whole catalogue that are computed by default, which takes minutes, and the targets
that are asked for at least."""


class JudgeError(Explained, ValueError):
    """No target can be evaluated; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """Options of an evaluation.

    Attributes:
        version: version of the artifact, by default LATEST.
        protocol: `gts` or `loo`, see `indexer.data.histories.split`.
        core: least events of a user and of an item; others are left out.
        repeats: items seen before are ranked.
        seed: of the sample and of the intervals.
        targets: size of the sample, by default as large as MAX_SCORES allows.
        positive_rating: the lowest positive rating, by default that of the artifact's prediction.
        columns: names of columns in the files of events, by field, where the two differ.
        timestamps: unit of timestamps that are numbers.
        dialect: format of the events, see `load_dialect`.
    """

    version: str | None = None
    protocol: Protocol = "gts"
    core: int = 1
    repeats: bool = False
    seed: int = 0
    targets: int | None = None
    positive_rating: float | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    timestamps: Unit = "auto"
    dialect: str = OWN


@dataclass(frozen=True, slots=True)
class Inputs:
    """The artifact and the events of an evaluation.

    Attributes:
        artifact: with the users' attributes.
        log: events, with the weights of the artifact's rating scale.
        kinds: these weights.
        missing: number of items of the catalogue that the artifact does not have.
        note: line on the events that were read.
    """

    artifact: Artifact
    log: EventLog
    kinds: Kinds
    missing: int
    note: str


def judge(
    catalog: Catalog,
    events: Sequence[Path],
    kinds: Kinds,
    root: Root,
    options: JudgeOptions,
    not_after: float,
    progress: Callable[[int], Callable[[int], None]] = lambda total: lambda position: None,
    users: Users | None = None,
    shards: Shards | None = None,
) -> Evaluation:
    """Evaluate a version on the targets of a protocol.

    1. Read the artifact and the events, with the weights of its rating scale.
    2. Find the targets; refuse an artifact that has seen them; draw a sample if there are many.
    3. Label the events for the probabilities.
    4. Replay the log: see `evaluate`.

    Args:
        catalog: the items; those that the artifact does not have are counted. What is ranked are
            all live items of the artifact.
        events: files of logged events.
        kinds: the weights, by any rating scale.
        root: where versions live.
        options: options of the evaluation.
        not_after: float seconds, now.
        progress: takes the number of events, and returns a callback for the position in the log.
        users: users' attributes, in place of those that the artifact has.
        shards: what asks the tracker, see `evaluate`.

    Raises:
        JudgeError: there are no targets, or the artifact has no item of the catalogue.
        SeenTargetsError: the artifact was trained on them.
        EventFileError: a file of events cannot be used, or has nothing of the artifact.
        ArtifactError: the version cannot be used.
    """
    # 1. Read the artifact and the events.
    inputs = read_inputs(catalog, events, kinds, root, options, not_after, users)
    # 2. Find the targets.
    parts, sample_note = find_targets(inputs, options)
    # 3. Label the events.
    labelled, label_note = _labels(inputs, options.positive_rating)
    labels = None if labelled is None else (labelled.events, labelled.positive)
    origins = None if labelled is None else labelled.origins
    # 4. Replay the log.
    trained = inputs.artifact.manifest.ranker is not None
    serving = RecommendOptions(seen="keep" if options.repeats else "exclude")
    learner = Learner(inputs.kinds) if trained else None
    replay = Replay(inputs.artifact, inputs.log, serving, learner=learner, forgets=True)
    question = Question(
        parts, options.repeats, inputs.log.scene_names, options.seed, options.core > 1, labels,
        origins,
    )  # fmt: skip
    report = evaluate(replay, question, progress(len(inputs.log)), shards)
    notes = [inputs.note, sample_note]
    if not trained:
        notes.append("nothing was trained: the tracker ranks by its fixed blend")
    if inputs.missing and options.core == 1:
        version = inputs.artifact.manifest.version
        notes.append(f"{inputs.missing} items of the catalogue are not in {version}")
    notes.append(label_note)
    return msgspec.structs.replace(report, notes=[*report.notes, *filter(None, notes)])


def read_inputs(
    catalog: Catalog,
    events: Sequence[Path],
    kinds: Kinds,
    root: Root,
    options: JudgeOptions,
    not_after: float,
    users: Users | None,
) -> Inputs:
    """Read the artifact and the events of an evaluation: step 1 of `judge`.

    The arguments and exceptions are those of `judge`.
    """
    artifact = Artifact.load(root, options.version, "cpu")
    tower = artifact.models.tower
    if tower is not None:
        tower.serve_on_one_thread()
        if users is not None:
            attributes = known_attributes(users.attributes, tower.model.config)
            artifact = artifact.with_attributes(attributes)
    version, scale = artifact.manifest.version, artifact.manifest.interest
    kinds = msgspec.structs.replace(kinds, rating_min=scale.rating_min, rating_max=scale.rating_max)
    log, _ = read_log(
        events,
        kinds,
        None,
        not_after,
        event_reading(options.columns, options.timestamps, load_dialect(options.dialect)),
        (scale.rating_min, scale.rating_max),
        f"that of {version}",
    )
    listed = {hash_id(item.item_id) for item in catalog.items}
    missing = len(listed - set(artifact.vectors.hashes[: artifact.vectors.live].tolist()))
    if missing == len(listed):
        raise JudgeError(f"{version} has none of the {len(listed)} items of the catalogue")
    in_artifact = artifact.vectors.row_of(log.batch.items) >= 0
    note = check_events(events, log, in_artifact, version)
    log = core(log, options.core)
    check_core(log, options.core)
    return Inputs(artifact, log, kinds, missing, note)


def find_targets(inputs: Inputs, options: JudgeOptions) -> tuple[Split, str]:
    """Split the log by the protocol, and draw a sample if there are many: step 2 of `judge`.

    Args:
        inputs: artifact and events.
        options: options of the evaluation.

    Returns:
        the split, its test targets sampled, and a note on the sample, empty without one.

    Raises:
        JudgeError: there are no targets.
        SeenTargetsError: the artifact was trained on them.
    """
    parts = split(inputs.log, options.protocol)
    if not len(parts.test):
        raise JudgeError(
            "no event can be asked for: a target is a positive event of a user with an event before"
        )
    if all_at_one_time(parts):
        raise JudgeError(
            "no event is before the cut of gts, as where all timestamps are equal; --protocol loo"
            " goes by the order of the file"
        )
    check_unseen(inputs.artifact.manifest, inputs.log, parts, options.core)
    total, size = len(parts.test), options.targets
    if size is None:
        size = max(MIN_SAMPLE, MAX_SCORES // inputs.artifact.vectors.live)
    if total <= size:
        return parts, ""
    sample = np.random.default_rng(options.seed).choice(parts.test, size, replace=False)
    parts = dataclasses.replace(parts, test=np.sort(sample))
    return parts, f"{size} of {total} targets, drawn with seed {options.seed}"


def _labels(inputs: Inputs, positive_rating: float | None) -> tuple[Labelled | None, str]:
    """Return the labelled events; None and the reason for none."""
    artifact = inputs.artifact
    if artifact.models.prediction is None:
        reason = artifact.manifest.without("prediction")
        return None, f"AUC, log loss and ECE are not measured: {reason}"
    rule = artifact.models.prediction.info.rule
    if positive_rating is not None:
        rule = msgspec.structs.replace(rule, positive_rating=positive_rating)
    return label_events(inputs.log, rule), ""
