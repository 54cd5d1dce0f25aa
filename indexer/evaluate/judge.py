"""Judge an artifact: its held-out targets found, checked and asked for, from files to a report."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from indexer.data.catalog import Catalog
from indexer.data.histories import Protocol, core, read_event_log, split
from indexer.data.holdout import all_at_one_time, check_unseen
from indexer.data.labels import label_events
from indexer.data.log_check import check_core, check_events
from indexer.data.users import Users, known_attributes
from indexer.evaluate.evaluate import Question, evaluate
from indexer.evaluate.result import Evaluation
from indexer.replay.replay import Replay
from tracker.artifact.artifact import Artifact
from tracker.artifact.versions import Root
from tracker.events.kinds import Kinds
from tracker.events.wire import hash_id
from tracker.recommend.learner import Learner
from tracker.recommend.options import RecommendOptions

MAX_SCORES, MIN_TARGETS = 150_000_000, 1000
"""So many scores of the whole catalogue are computed unless told otherwise, which takes minutes."""


class JudgeError(ValueError):
    """There is nothing to ask for; the message says why."""


@dataclass(frozen=True, slots=True)
class JudgeOptions:
    """What an evaluation is told.

    `version` is by default LATEST, `targets` a sample's size, and `positive_rating` the least
    positive rating, by default that of the artifact's prediction.
    """

    version: str | None = None
    protocol: Protocol = "gts"
    core: int = 1
    repeats: bool = False
    seed: int = 0
    targets: int | None = None
    positive_rating: float | None = None


def judge(
    catalog: Catalog,
    events: Sequence[Path],
    kinds: Kinds,
    root: Root,
    options: JudgeOptions,
    not_after: float,
    progress: Callable[[int], Callable[[int], None]] = lambda total: lambda done: None,
    users: Users | None = None,
) -> Evaluation:
    """Evaluate a version on the targets of a protocol.

    1. Read the artifact and the events, with the weights of its rating scale.
    2. Find the targets; refuse an artifact that has seen them; draw a sample if there are many.
    3. Replay.

    Args:
        catalog: the items that may be ranked, as far as the artifact has them.
        events: files of logged events.
        kinds: the weights, by any rating scale.
        root: where versions live.
        options: what is asked.
        not_after: float seconds, now.
        progress: called with the number of events; what it gives is told of how many are done.
        users: whose attributes are known, instead of those that the artifact knows.

    Raises:
        JudgeError: there are no targets, or the artifact has no item of the catalogue.
        SeenTargetsError: the artifact was trained on them.
        EventFileError: a file of events cannot be used, or has nothing of the artifact.
        ArtifactError: the version cannot be used.
    """
    artifact = Artifact.load(root, options.version, "cpu")  # 1
    if artifact.models.tower is not None:
        artifact.models.tower.serve_on_one_thread()
        if users is not None:
            config = artifact.models.tower.model.config
            artifact.models.tower.attributes = known_attributes(users.attributes, config)
    manifest = artifact.manifest
    scale = manifest.interest
    kinds = msgspec.structs.replace(kinds, rating_min=scale.rating_min, rating_max=scale.rating_max)
    log = read_event_log(events, kinds, not_after)
    listed = {hash_id(item.item_id) for item in catalog.items}
    missing = len(listed - set(artifact.vectors.hashes[: artifact.vectors.live].tolist()))
    if missing == len(listed):
        raise JudgeError(f"{manifest.version} has none of the {len(listed)} items of the catalogue")
    known = artifact.vectors.row_of(log.batch.items) >= 0
    notes = [check_events(events, log, known, manifest.version)]
    log = core(log, options.core)
    check_core(log, options.core)
    parted = split(log, options.protocol)  # 2
    if not len(parted.test):
        raise JudgeError(
            "no event can be asked for: a target is a positive event of a user with an event before"
        )
    if all_at_one_time(parted):
        raise JudgeError(
            "no event is before the cut of gts, as where all timestamps are equal; --protocol loo"
            " goes by the order of the file"
        )
    check_unseen(manifest, log, parted, options.core)
    total = len(parted.test)
    live = artifact.vectors.live
    most = max(MIN_TARGETS, MAX_SCORES // live) if options.targets is None else options.targets
    if total > most:
        chosen = np.random.default_rng(options.seed).choice(parted.test, most, replace=False)
        parted = dataclasses.replace(parted, test=np.sort(chosen))
        notes.append(f"{most} of {total} targets, drawn with seed {options.seed}")
    if manifest.ranker is None:
        notes.append("nothing was trained: the tracker ranks by its fixed blend")
    if missing and options.core == 1:
        notes.append(f"{missing} items of the catalogue are not in {manifest.version}")
    serving = RecommendOptions(seen="keep" if options.repeats else "exclude")
    learner = None if manifest.ranker is None else Learner(kinds)
    replay = Replay(artifact, log, serving, learner=learner)  # 3
    told = progress(len(log))
    labelled = None
    if artifact.models.prediction is None:
        notes.append(f"AUC, log loss and ECE are not measured: {manifest.without('prediction')}")
    else:
        rule = artifact.models.prediction.info.rule
        if options.positive_rating is not None:
            rule = msgspec.structs.replace(rule, positive_rating=options.positive_rating)
        found = label_events(log, rule)
        labelled = found.events, found.positive
    question = Question(
        parted, options.repeats, log.scene_names, options.seed, options.core > 1, labelled
    )
    report = evaluate(replay, question, told)
    return msgspec.structs.replace(report, notes=[*report.notes, *notes])
