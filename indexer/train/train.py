"""Train encoder and ranker on logged events, and publish them with the items as one version."""

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import msgspec

from indexer.data.catalog import Catalog
from indexer.data.histories import EventLog, Protocol, core
from indexer.data.holdout import Lessons, ranker_targets, training_info
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
from indexer.encoder.tower import TowerTraining
from indexer.items.assemble import Assembled, assemble, in_memory, with_half_lives, write_version
from indexer.items.carry import same_encoder
from indexer.items.item_encoder import Encoder
from indexer.items.options import BuildOptions, current_version
from indexer.replay.ranker_examples import Examples, collect_examples, load_examples, save_examples
from indexer.replay.replay import Replay
from indexer.train.curve import write_curve
from indexer.train.half_lives import HalfLives, choose_half_lives, periods
from indexer.train.options import Reports, Trained, TrainOptions
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
from tracker.users.config import InterestConfig

TRAINING = ".training"
"""The folder, below the root of the versions, that holds those of the trainings under way."""


def fingerprint(log: EventLog, items: bytes, told: bytes) -> str:
    """Return what stands for a training: its events, its items, its options and our own code.

    Args:
        log: the events it learns from.
        items: what stands for the items and their vectors.
        told: the options, and whatever else it was told.
    """
    digest = hashlib.sha256(items)
    digest.update(told)
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


def train(
    catalog: Catalog,
    events: Sequence[Path],
    kinds: Kinds,
    encoder: Encoder,
    root: Root,
    options: TrainOptions,
    not_after: float,
    reports: Reports | None = None,
    users: Users | None = None,
) -> Trained:
    """Fit an encoder and a ranker, and publish one version that has them.

    1. Read the events, by the current version's rating scale if it covers them; refuse too few.
    2. Assemble the items' vectors and index, as a build would; known texts are not encoded again.
    3. Choose half-lives where no trained version is in force; fit the encoder on what comes before
       the ranker's targets.
    4. Fit the probability that a user takes to an item.
    5. Replay the events through the recommender that serves; write down what the ranker would see,
       and fit its network.
    6. Refit the encoder on all events that may be learned from.
    7. Write the version, and make it current.

    What is done is kept below the root until then: the same call goes on where it was interrupted.

    Args:
        catalog: what was read; with `core`, only items with enough events are kept.
        events: files of logged events.
        kinds: the weights; their rating scale is chosen here.
        encoder: texts to vectors.
        root: where versions live.
        options: how.
        not_after: float seconds, now.
        reports: told how far it is.
        users: their attributes.

    Raises:
        TrainingError: the events cannot teach a ranker.
        EventFileError: a file of events cannot be used.
        RefusedError: see `assemble`; RecallError and ArtifactError too.
        OSError: the disk is full, for instance.
    """
    started = time.perf_counter()
    reports = Reports() if reports is None else reports
    if options.tower is not None:  # an interrupted training goes on with what it began with
        options = replace(options, tower=settled(options.tower))
    known = {} if users is None else users.attributes
    before = current_version(root, options.refit)  # 1
    scale = None
    if before is not None:
        scale = (before.manifest.interest.rating_min, before.manifest.interest.rating_max)
    log, chosen = read_log(events, kinds, scale, not_after)
    reports.note(check_events(events, log, known_items(catalog, log), "the catalogue"))
    log = core(log, options.core)
    check_core(log, options.core)
    if options.core > 1:
        catalog = met(catalog, log)
    check_choice(catalog)
    lessons = _lessons(catalog, log, options)
    # 2
    rescaled = before is not None and chosen != scale and same_encoder(before, encoder.info)
    build = BuildOptions(rating_scale=chosen, refit=options.refit or rescaled)
    parts = assemble(catalog, encoder, root, build, reports.encoding)
    if users is not None and (told := users.note(set(log.user_ids))):
        reports.note(f"users: {told}")
    parts, half_lives = _half_lives(parts, log, lessons, build.refit, reports)  # 3
    folder = open_workplace(root, _fingerprint(parts, log, options, known))
    training, why = _tower_training(parts, log, known, options, folder, reports)
    untrained = {"tower": why} if training is None else {}
    note = ""
    if training is None and options.tower is not None:
        note = f"no encoder, the ranker alone is trained: {why}"
        reports.note(note)
    first = None if training is None else training.fit()
    prediction, said = train_prediction(  # 4
        in_memory(parts), log, kinds, lessons.skip,
        msgspec.structs.replace(options.prediction, seed=options.seed),
    )  # fmt: skip
    if prediction is None:
        untrained["prediction"] = said
        said = f"no probability is learned: {said}"
    models = Models(tower=first, prediction=prediction)
    examples = _examples(in_memory(parts, models), log, lessons, options, folder, reports)  # 5
    fitted = _fit(examples, options, reports)
    if prediction is not None:
        used = "probability" in fitted.network.info.columns
        said += "; the ranking reads it" if used else "; the ranking gains nothing by it"
    reports.note(said)
    tower = None if training is None else training.refit()  # 6
    info = training_info(
        log, options.protocol, options.core, options.repeats, options.seed, len(examples)
    )
    models = Models(ranker=fitted.network, tower=tower, prediction=prediction)
    built = write_version(root, parts, models, info, untrained)  # 7
    close_workplace(folder)
    _write_curves(root, built.version, fitted, training, reports)
    best = fitted.curve[fitted.best - 1]
    return Trained(
        artifact=built.version,
        seconds=round(time.perf_counter() - started, 2),
        epochs=len(fitted.curve),
        validation={
            "loss": best.validation_loss,
            "hit_rate_at_10": best.validation_hit_rate_at_10,
            "ndcg_at_10": best.validation_ndcg_at_10,
        },
        best_epoch=fitted.best,
        examples=len(examples),
        events=len(log),
        items=built.live,
        rating_scale=chosen,
        basis_changed=built.basis_changed,
        path=built.path,
        encoder=None if training is None else training.done(),
        note=note,
        prediction=None if prediction is None else prediction.info.validation,
        prediction_note=said,
        half_lives=half_lives,
    )


def _half_lives(
    parts: Assembled, log: EventLog, lessons: Lessons, refit: bool, reports: Reports
) -> tuple[Assembled, HalfLives | None]:
    """Return the items for states that decay as the events say, and what was found.

    Half-lives that a trained version has stay without `refit`, for a change rebuilds all states;
    and so do those that a build was told.
    """
    before, in_force = parts.before, parts.interest.half_lives_seconds
    told = before is not None and in_force != InterestConfig().half_lives_seconds
    if not refit and (told or not (before is None or before.manifest.training is None)):
        return parts, None
    rows = parts.items.row_of(log.batch.items)
    found = choose_half_lives(log, rows, parts.items.vectors, lessons.events, in_force)
    if found is None or found.seconds == in_force:
        return parts, found
    reports.note(
        f"half-lives {periods(found.seconds)} instead of {periods(in_force)}: they tell better what"
        f" users choose next ({found.loss:.4f} nats, {found.loss_in_force:.4f} before)"
    )
    return with_half_lives(parts, found.seconds), found


def _lessons(catalog: Catalog, log: EventLog, options: TrainOptions) -> Lessons:
    """Return what the ranker learns from; looked at before any text is encoded."""
    lessons = ranker_targets(log, options.protocol, known_items(catalog, log), MAX_EXAMPLES)
    if len(lessons.events) < MIN_EXAMPLES:
        raise TrainingError(
            f"{len(lessons.events)} events to learn from; at least {MIN_EXAMPLES} are needed:"
            f" {_learned_from(options.protocol)}, of users with an event before, on items of the"
            " catalogue. Nothing was published; without training the fixed blend ranks"
        )
    return lessons


def _fingerprint(
    parts: Assembled, log: EventLog, options: TrainOptions, users: Mapping[str, Attributes]
) -> str:
    """Return what stands for this training and no other."""
    items = parts.items.hashes.tobytes() + parts.sources.text_hashes.tobytes()
    told = msgspec.json.encode(
        [parts.basis, parts.items.live, COLUMNS, options, dict(users)], order="sorted"
    )
    return fingerprint(log, items, told)


def _tower_training(
    parts: Assembled,
    log: EventLog,
    users: Mapping[str, Attributes],
    options: TrainOptions,
    folder: Path | None,
    reports: Reports,
) -> tuple[TowerTraining | None, str]:
    """Return the training of an encoder, or None and why there is none."""
    if options.tower is None:
        return None, "`--no-encoder` was given to the training"
    told = msgspec.structs.replace(options.tower, seed=options.seed, repeats=options.repeats)
    try:
        found = TowerTraining(
            parts, log, users, options.protocol, told, folder, reports.encoder, reports.epoch,
            lambda: reports.note("the encoder's other settings are still being fitted"),
        )  # fmt: skip
    except TooFewError as error:
        return None, str(error)
    return found, ""


def _examples(
    artifact: Artifact,
    log: EventLog,
    lessons: Lessons,
    options: TrainOptions,
    folder: Path | None,
    reports: Reports,
) -> Examples:
    """Return the ranker's examples, those kept of an interrupted training if there are any."""
    kept = None if folder is None else folder / "examples.npz"
    if kept is not None and kept.exists():
        return load_examples(kept)
    serving = RecommendOptions(seen="keep" if options.repeats else "exclude", diversity=0.0)
    trained = trained_with(RankerInfo([], options.ranker.hidden), serving)
    replay = Replay(artifact, log, trained, Blend(), lessons.skip)
    told = reports.examples(len(lessons.events))
    examples = collect_examples(
        replay, lessons.events, options.repeats, options.seed, lessons.fresh, told
    )
    if kept is not None:
        save_examples(examples, kept)
    return examples


def _learned_from(protocol: Protocol | None) -> str:
    return {
        None: "positive events in the last three fifths of the time",
        "gts": "positive events between the 40 % and 90 % quantiles of the time",
        "loo": "positive events in the last three fifths of the time, but the last of each user",
    }[protocol]


def _fit(examples: Examples, options: TrainOptions, reports: Reports) -> Fitted:
    ranker = msgspec.structs.replace(options.ranker, seed=options.seed)
    try:
        return fit_ranker(examples, ranker, lambda epoch: reports.epoch("ranker", epoch))
    except ValueError as error:
        raise TrainingError(f"{error}. Nothing was published") from error


def _write_curves(
    root: Root, version: str, fitted: Fitted, training: TowerTraining | None, reports: Reports
) -> None:
    """Write the curves of all fits as tables and pictures, for people."""
    folder = reports.curves
    if folder is None:
        if is_url(root):
            return
        folder = local_path(root) / CURVES / version
    curves: dict[str, Sequence[msgspec.Struct]] = {"ranker": fitted.curve}
    if training is not None:
        curves |= training.curves
    for name, curve in curves.items():
        write_curve(curve, folder, name)
