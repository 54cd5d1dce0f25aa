"""Train encoder and ranker on logged events, and publish them with the items as one version."""

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import msgspec

from indexer.data.catalog import Catalog
from indexer.data.histories import EventLog, core
from indexer.data.holdout import RankerTargets, ranker_targets, training_info
from indexer.data.training_log import (
    TrainingError,
    check_choice,
    check_core,
    check_events,
    known_items,
    met,
    read_log,
)
from indexer.data.users import Attributes, Users
from indexer.encoder.options import TooFewError, settled
from indexer.encoder.tower import TowerFit, TowerProgress, fit_tower, refit_tower
from indexer.encoder.tower_data import TowerData, make_tower_data
from indexer.items.assemble import (
    Assembled,
    Built,
    assemble,
    in_memory,
    with_half_lives,
    write_version,
)
from indexer.items.carry import same_encoder
from indexer.items.item_encoder import Encoder
from indexer.items.options import BuildOptions, current_version
from indexer.replay.ranker_examples import Examples, collect_examples, load_examples, save_examples
from indexer.replay.replay import Replay
from indexer.train.curve import write_curve
from indexer.train.half_lives import HalfLives, choose_half_lives, periods
from indexer.train.options import Trained, TrainOptions, TrainProgress
from indexer.train.prediction import train_prediction
from indexer.train.ranker import MIN_EXAMPLES, Fitted, fit_ranker
from tracker.artifact.artifact import Artifact
from tracker.artifact.models import Models
from tracker.artifact.versions import Root, is_url, local_path
from tracker.events.kinds import Kinds
from tracker.recommend.options import RecommendOptions, trained_with
from tracker.scoring.blend import Blend
from tracker.scoring.context import COLUMNS
from tracker.scoring.network import RankerInfo
from tracker.scoring.prediction import Prediction
from tracker.users.config import InterestConfig

TRAINING = ".training"
"""The folder, below the root of the versions, that holds those of the trainings under way."""


def fingerprint(log: EventLog, items: bytes, payload: bytes) -> str:
    """Return the fingerprint of a training: of its events, items, options and our own code.

    Args:
        log: the events that it learns from.
        items: hashes of the items and of their texts.
        payload: the options, and all else that the result depends on.
    """
    digest = hashlib.sha256(items)
    digest.update(payload)
    digest.update("\n".join(log.batch.users).encode(errors="replace"))
    batch = log.batch
    for column in (
        batch.items, batch.times, batch.weights, batch.values, batch.kinds, batch.scenes,
        batch.event_ids, batch.retracts,
    ):  # fmt: skip
        digest.update(column.tobytes())
    for package in ("tracker", "indexer"):
        folder = Path(str(files(package)))
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def open_workplace(root: Root, name: str) -> Path | None:
    """Return the folder of a training, made if it is not there; None below a remote root."""
    if is_url(root):
        return None
    folder = local_path(root) / TRAINING / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def close_workplace(folder: Path | None) -> None:
    """Remove the folder of a training that is done."""
    if folder is None:
        return
    shutil.rmtree(folder)
    if not any(folder.parent.iterdir()):
        folder.parent.rmdir()


MAX_EXAMPLES = 24_000
"""Targets that are learned from at most: each takes about 13 KiB of memory."""

CURVES = "curves"
"""The folder, below the root of the versions, that holds the curves of their trainings."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The events and items of a training, before any text is encoded.

    Attributes:
        catalog: items that are published.
        log: events, with the weights of the rating scale.
        kinds: weights as given.
        attributes: users' attributes by user id.
        targets: the ranker's targets.
        build: options of the items' build, with the rating scale of the events.
        rating_scale: lowest and highest rating.
    """

    catalog: Catalog
    log: EventLog
    kinds: Kinds
    attributes: Mapping[str, Attributes]
    targets: RankerTargets
    build: BuildOptions
    rating_scale: tuple[float, float]


@dataclass(frozen=True, slots=True)
class FittedModels:
    """Everything that a training fits, and its notes.

    Attributes:
        tower: encoder and attention after the refit, None without an encoder.
        prediction: the probability of a positive event, None if it cannot be learned.
        ranker: the ranker, with its curve.
        examples: number of targets that the ranker learned from.
        untrained: reason for each model that is not there, by name.
        note: the reason for no encoder, if one was wanted.
        prediction_note: source of the probability, or the reason for none.
    """

    tower: TowerFit | None
    prediction: Prediction | None
    ranker: Fitted
    examples: int
    untrained: dict[str, str]
    note: str
    prediction_note: str

    @property
    def models(self) -> Models:
        """The models that are published."""
        tower = None if self.tower is None else self.tower.tower
        return Models(ranker=self.ranker.network, tower=tower, prediction=self.prediction)

    @property
    def curves(self) -> dict[str, Sequence[msgspec.Struct]]:
        """The curves of all fits by name."""
        return {"ranker": self.ranker.curve, **({} if self.tower is None else self.tower.curves)}


def train(
    catalog: Catalog,
    events: Sequence[Path],
    kinds: Kinds,
    encoder: Encoder,
    root: Root,
    options: TrainOptions,
    not_after: float,
    progress: TrainProgress | None = None,
    users: Users | None = None,
) -> Trained:
    """Fit an encoder, a ranker and a prediction, and publish one version that has them.

    1. Read the events, by the current version's rating scale if it covers them; refuse too few.
    2. Assemble the items' vectors and index, as a build does; known texts are not encoded again.
    3. Choose half-lives if no trained version is in force.
    4. Fit the models: see `fit_models`.
    5. Write the version, and point LATEST at it.

    Each finished part is kept below the root until then: if interrupted, the same call resumes.

    Args:
        catalog: the items; with `core`, only items with enough events are kept.
        events: files of logged events.
        kinds: the weights; their rating scale is chosen here.
        encoder: texts to vectors.
        root: where versions live.
        options: options of the training.
        not_after: float seconds, now.
        progress: callbacks.
        users: the users' attributes.

    Raises:
        TrainingError: the events cannot teach a ranker.
        EventFileError: a file of events cannot be used.
        RefusedError: see `assemble`; RecallError and ArtifactError too.
        OSError: the disk is full, for instance.
    """
    started = time.perf_counter()
    progress = TrainProgress() if progress is None else progress
    if options.tower is not None:  # a resumed training keeps the device that it began with
        options = replace(options, tower=settled(options.tower))
    # 1. Read the events.
    inputs = read_inputs(catalog, events, kinds, encoder, root, options, not_after, progress, users)
    # 2. Assemble the items' vectors and index.
    parts = assemble(inputs.catalog, encoder, root, inputs.build, progress.encoding)
    if users is not None and (note := users.note(set(inputs.log.user_ids))):
        progress.note(f"users: {note}")
    # 3. Choose half-lives.
    parts, half_lives = _half_lives(inputs, parts, progress)
    # 4. Fit the models.
    folder = open_workplace(root, _fingerprint(inputs, parts, options))
    fitted = fit_models(inputs, parts, options, folder, progress)
    # 5. Write the version.
    info = training_info(
        inputs.log, options.protocol, options.core, options.repeats, options.seed, fitted.examples
    )
    built = write_version(root, parts, fitted.models, info, fitted.untrained)
    close_workplace(folder)
    _write_curves(root, built.version, fitted, progress)
    return _summary(inputs, built, fitted, half_lives, time.perf_counter() - started)


def read_inputs(
    catalog: Catalog,
    events: Sequence[Path],
    kinds: Kinds,
    encoder: Encoder,
    root: Root,
    options: TrainOptions,
    not_after: float,
    progress: TrainProgress,
    users: Users | None,
) -> Inputs:
    """Read the events of a training and choose the ranker's targets: step 1 of `train`.

    The arguments and exceptions are those of `train`.
    """
    before = current_version(root, options.refit)
    scale = None
    if before is not None:
        scale = (before.manifest.interest.rating_min, before.manifest.interest.rating_max)
    log, rating_scale = read_log(events, kinds, scale, not_after)
    progress.note(check_events(events, log, known_items(catalog, log), "the catalogue"))
    log = core(log, options.core)
    check_core(log, options.core)
    if options.core > 1:
        catalog = met(catalog, log)
    check_choice(catalog)
    targets = ranker_targets(log, options.protocol, known_items(catalog, log), MAX_EXAMPLES)
    if len(targets.events) < MIN_EXAMPLES:
        raise TrainingError(
            f"{len(targets.events)} events to learn from; at least {MIN_EXAMPLES} are needed:"
            f" {_TARGETS[options.protocol]}, of users with an event before, on items of the"
            " catalogue. Nothing was published; without training the fixed blend ranks"
        )
    changed = rating_scale != scale
    rescaled = before is not None and changed and same_encoder(before, encoder.info)
    return Inputs(
        catalog=catalog,
        log=log,
        kinds=kinds,
        attributes={} if users is None else users.attributes,
        targets=targets,
        build=BuildOptions(rating_scale=rating_scale, refit=options.refit or rescaled),
        rating_scale=rating_scale,
    )


_TARGETS = {
    None: "positive events in the last three fifths of the time",
    "gts": "positive events between the 40 % and 90 % quantiles of the time",
    "loo": "positive events in the last three fifths of the time, but the last of each user",
}
"""The events that a ranker learns from, by protocol."""


def fit_models(
    inputs: Inputs,
    parts: Assembled,
    options: TrainOptions,
    folder: Path | None,
    progress: TrainProgress,
) -> FittedModels:
    """Fit all models on the events: step 4 of `train`.

    1. Fit the encoder on the events before the ranker's targets.
    2. Fit the probability of a positive event.
    3. Replay the events through the serving recommender, and collect the ranker's examples.
    4. Fit the ranker on them.
    5. Refit the encoder on all events that the training may use.

    Args:
        inputs: events and targets.
        parts: the items.
        options: options of the training.
        folder: where finished parts are kept; None for nowhere.
        progress: callbacks.

    Raises:
        TrainingError: the events cannot teach a ranker.
        ValueError: the device is not there.
    """
    # 1. Fit the encoder.
    untrained: dict[str, str] = {}
    note = ""
    data, reason = _tower_data(inputs, parts, options)
    if data is None:
        untrained["tower"] = reason
        if options.tower is not None:
            note = f"no encoder, the ranker alone is trained: {reason}"
            progress.note(note)
    steps = TowerProgress(
        progress.encoder, progress.epoch,
        lambda: progress.note("the encoder's other settings are still being fitted"),
    )  # fmt: skip
    first = None if data is None else fit_tower(data, folder, steps)
    # 2. Fit the probability.
    prediction, prediction_note = train_prediction(
        in_memory(parts), inputs.log, inputs.kinds, inputs.targets.skip,
        msgspec.structs.replace(options.prediction, seed=options.seed),
    )  # fmt: skip
    if prediction is None:
        untrained["prediction"] = prediction_note
        prediction_note = f"no probability is learned: {prediction_note}"
    # 3. Collect the ranker's examples.
    models = Models(tower=None if first is None else first.tower, prediction=prediction)
    examples = _examples(inputs, in_memory(parts, models), options, folder, progress)
    # 4. Fit the ranker.
    ranker = _fit_ranker(examples, options, progress)
    if prediction is not None:
        used = "probability" in ranker.network.info.columns
        prediction_note += "; the ranking reads it" if used else "; the ranking gains nothing by it"
    progress.note(prediction_note)
    # 5. Refit the encoder.
    last = None if data is None or first is None else refit_tower(data, first, folder, steps)
    return FittedModels(
        tower=last,
        prediction=prediction,
        ranker=ranker,
        examples=len(examples),
        untrained=untrained,
        note=note,
        prediction_note=prediction_note,
    )


def _half_lives(
    inputs: Inputs, parts: Assembled, progress: TrainProgress
) -> tuple[Assembled, HalfLives | None]:
    """Return the items for states that decay as the events suggest, and the half-lives chosen.

    Half-lives of a trained version stay without `refit`, for a change rebuilds all states; and so
    do those that were given to a build.
    """
    before, in_force = parts.before, parts.interest.half_lives_seconds
    set_by_user = before is not None and in_force != InterestConfig().half_lives_seconds
    trained = before is not None and before.manifest.training is not None
    if not inputs.build.refit and (set_by_user or trained):
        return parts, None
    log = inputs.log
    rows = parts.items.row_of(log.batch.items)
    choice = choose_half_lives(log, rows, parts.items.vectors, inputs.targets.events, in_force)
    if choice is None or choice.seconds == in_force:
        return parts, choice
    progress.note(
        f"half-lives {periods(choice.seconds)} instead of {periods(in_force)}: they tell better"
        f" what users choose next ({choice.loss:.4f} nats, {choice.loss_in_force:.4f} before)"
    )
    return with_half_lives(parts, choice.seconds), choice


def _fingerprint(inputs: Inputs, parts: Assembled, options: TrainOptions) -> str:
    """Return the fingerprint of this training."""
    items = parts.items.hashes.tobytes() + parts.sources.text_hashes.tobytes()
    payload = msgspec.json.encode(
        [parts.basis, parts.items.live, COLUMNS, options, dict(inputs.attributes)], order="sorted"
    )
    return fingerprint(inputs.log, items, payload)


def _tower_data(
    inputs: Inputs, parts: Assembled, options: TrainOptions
) -> tuple[TowerData | None, str]:
    """Return the data of an encoder's training, or None and the reason for none."""
    if options.tower is None:
        return None, "`--no-encoder` was given to the training"
    tower = msgspec.structs.replace(options.tower, seed=options.seed, repeats=options.repeats)
    try:
        data = make_tower_data(parts, inputs.log, inputs.attributes, options.protocol, tower)
    except TooFewError as error:
        return None, str(error)
    return data, ""


def _examples(
    inputs: Inputs,
    artifact: Artifact,
    options: TrainOptions,
    folder: Path | None,
    progress: TrainProgress,
) -> Examples:
    """Return the ranker's examples: those of an interrupted training if there are any."""
    path = None if folder is None else folder / "examples.npz"
    if path is not None and path.exists():
        return load_examples(path)
    targets = inputs.targets
    serving = RecommendOptions(seen="keep" if options.repeats else "exclude", diversity=0.0)
    trained = trained_with(RankerInfo([], options.ranker.hidden), serving)
    replay = Replay(artifact, inputs.log, trained, Blend(), targets.skip)
    report = progress.examples(len(targets.events))
    examples = collect_examples(
        replay, targets.events, options.repeats, options.seed, targets.fresh, report
    )
    if path is not None:
        save_examples(examples, path)
    return examples


def _fit_ranker(examples: Examples, options: TrainOptions, progress: TrainProgress) -> Fitted:
    ranker = msgspec.structs.replace(options.ranker, seed=options.seed)
    try:
        return fit_ranker(examples, ranker, lambda epoch: progress.epoch("ranker", epoch))
    except ValueError as error:
        raise TrainingError(f"{error}. Nothing was published") from error


def _write_curves(root: Root, version: str, fitted: FittedModels, progress: TrainProgress) -> None:
    """Write the curves of all fits as tables and pictures, for people."""
    folder = progress.curves
    if folder is None:
        if is_url(root):
            return
        folder = local_path(root) / CURVES / version
    for name, curve in fitted.curves.items():
        write_curve(curve, folder, name)


def _summary(
    inputs: Inputs,
    built: Built,
    fitted: FittedModels,
    half_lives: HalfLives | None,
    seconds: float,
) -> Trained:
    curve, prediction = fitted.ranker.curve, fitted.prediction
    best = curve[fitted.ranker.best - 1]
    return Trained(
        artifact=built.version,
        seconds=round(seconds, 2),
        epochs=len(curve),
        validation={
            "loss": best.validation_loss,
            "hit_rate_at_10": best.validation_hit_rate_at_10,
            "ndcg_at_10": best.validation_ndcg_at_10,
        },
        best_epoch=fitted.ranker.best,
        examples=fitted.examples,
        events=len(inputs.log),
        items=built.live,
        rating_scale=inputs.rating_scale,
        basis_changed=built.basis_changed,
        path=built.path,
        encoder=None if fitted.tower is None else fitted.tower.summary,
        note=fitted.note,
        prediction=None if prediction is None else prediction.info.validation,
        prediction_note=fitted.prediction_note,
        half_lives=half_lives,
    )
