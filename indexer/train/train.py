"""Train encoder and ranker on logged events, and publish them with the items as one version."""

import hashlib
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import msgspec
import numpy as np

from indexer.data.catalog import Catalog
from indexer.data.histories import EventLog
from indexer.data.holdout import periods, training_info
from indexer.data.users import Users
from indexer.encoder.budget import Budget
from indexer.encoder.options import settled
from indexer.items.assemble import Assembled, Built, assemble, with_half_lives, write_version
from indexer.items.item_encoder import Encoder
from indexer.shards import Shards
from indexer.train.curve import write_curve
from indexer.train.fit_models import FittedModels, fit_models
from indexer.train.half_lives import HalfLives, choose_half_lives
from indexer.train.inputs import Inputs, read_inputs
from indexer.train.item_half_lives import ItemHalfLives, choose_item_counts
from indexer.train.options import Trained, TrainOptions, TrainProgress
from indexer.train.private_models import begin_spending, fit_models_privately
from tracker.artifact.signature import SigningKey
from tracker.artifact.versions import Root, is_url, local_path
from tracker.events.kinds import Kinds
from tracker.items.config import ItemCounts
from tracker.scoring.context import COLUMNS
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
    progress: TrainProgress | None = None,
    users: Users | None = None,
    shards: Shards | None = None,
) -> Trained:
    """Fit an encoder, a ranker and a prediction, and publish one version that has them.

    1. Read the events, by the current version's rating scale if it covers them; refuse too few.
    2. Assemble the items' vectors and index, as a build does; known texts are not encoded again.
    3. Choose half-lives: those of users if no trained version is in force, those of items. With
       privacy they stay.
    4. Fit the models: see `fit_models` and `fit_models_privately`.
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
        shards: see `fit_models`; what is fitted does not depend on it.

    Raises:
        TrainingError: the events cannot teach a ranker.
        EventFileError: a file of events cannot be used.
        PrivacyError: the privacy budget cannot be kept.
        RefusedError: see `assemble`; RecallError and ArtifactError too.
        OSError: the disk is full, for instance.
    """
    started = time.perf_counter()
    key = None if options.signing_key is None else SigningKey(options.signing_key)
    budget = Budget(options.minutes)
    progress = TrainProgress() if progress is None else progress
    if options.tower is not None:  # a resumed training keeps the device that it began with
        options = replace(options, tower=settled(options.tower))
    # 1. Read the events.
    inputs = read_inputs(catalog, events, kinds, encoder, root, options, not_after, progress, users,
        budget,
    )  # fmt: skip
    spending = None
    if options.privacy is not None:
        spending = begin_spending(options.privacy, len(np.unique(inputs.log.users)))
    # 2. Assemble the items' vectors and index.
    parts = assemble(inputs.catalog, encoder, root, inputs.build, progress.encoding)
    if users is not None and (note := users.note(set(inputs.log.user_ids))):
        progress.note(f"users: {note}")
    # 3. Choose half-lives.
    half_lives, item_half_lives = None, None
    if options.privacy is None:
        parts, half_lives = _half_lives(inputs, parts, progress)
        parts, item_half_lives = _item_half_lives(inputs, parts, options, progress)
    # 4. Fit the models.
    folder = open_workplace(root, _fingerprint(inputs, parts, options))
    if spending is None:
        fitted = fit_models(inputs, parts, options, folder, progress, budget, shards)
    else:
        fitted = fit_models_privately(inputs, parts, options, spending, folder, progress)
    # 5. Write the version.
    info = training_info(
        inputs.log, options.protocol, options.core, options.repeats, options.seed, fitted.examples
    )
    info = msgspec.structs.replace(info, privacy=fitted.privacy)
    built = write_version(root, parts, fitted.models, info, fitted.untrained, key)
    close_workplace(folder)
    _write_curves(root, built.version, fitted, progress)
    if note := budget.note():
        progress.note(note)
    seconds = time.perf_counter() - started
    return _summary(
        inputs, built, fitted, half_lives, item_half_lives, tuple(budget.left_out), seconds
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


def _item_half_lives(
    inputs: Inputs, parts: Assembled, options: TrainOptions, progress: TrainProgress
) -> tuple[Assembled, ItemHalfLives | None]:
    """Return the items with counts by the half-lives that the events suggest, and the choice.

    A change costs no state, so that every training may choose.
    """
    log, in_force = inputs.log, parts.item_counts
    rows = parts.items.row_of(log.batch.items)
    choice = choose_item_counts(
        log, rows, parts.items.live, inputs.targets.events, in_force, options.repeats,
        inputs.targets.skip,
    )  # fmt: skip
    if choice is None:
        return parts, None
    counts = choice.counts
    if counts.read_seconds != in_force.read_seconds:
        progress.note(
            f"items are counted by half-lives of {_named(counts)} instead of {_named(in_force)}:"
            f" those chosen tell the next item with {choice.loss:.4f} nats, those before with"
            f" {choice.loss_in_force:.4f}"
        )
    progress.note(f"the trend finds items by half-lives of {periods(counts.trend_seconds)}")
    return replace(parts, item_counts=counts), choice


def _named(counts: ItemCounts) -> str:
    more = periods(counts.more_seconds)
    first = periods((counts.short_seconds, counts.long_seconds))
    return f"{first} (short, long){f', {more}' if more else ''}"


def _fingerprint(inputs: Inputs, parts: Assembled, options: TrainOptions) -> str:
    """Return the fingerprint of this training."""
    items = parts.items.hashes.tobytes() + parts.sources.text_hashes.tobytes()
    payload = msgspec.json.encode(
        [
            parts.basis,
            parts.item_counts,
            parts.items.live,
            COLUMNS,
            replace(options, signing_key=None),
            dict(inputs.attributes),
        ],
        order="sorted",
    )
    return fingerprint(inputs.log, items, payload)


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
    item_half_lives: ItemHalfLives | None,
    left_out: tuple[str, ...],
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
        item_half_lives=item_half_lives,
        left_out=left_out,
        privacy=fitted.privacy,
    )
