"""Fine-tuning of a text encoder: from files of events to a folder that `indexer build` takes."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import torch
import xxhash

from indexer.data.catalog import Catalog
from indexer.data.histories import Protocol, core
from indexer.data.holdout import training_info
from indexer.data.training_log import check_core, check_events, events_in_catalog, read_log
from indexer.finetune.data import Texts, Until, part, rows_of
from indexer.finetune.fit import LEARNING_RATES, FitOptions, Fitted, Report, fit
from indexer.finetune.plan import FinetuneError, LoggedEvents, Objective, Plan, click, co_interest
from indexer.finetune.scores import Scores, Validation
from indexer.finetune.tasks import Space, TrainingTask
from indexer.finetune.text_model import Learner, Method, refuse_existing
from indexer.items.item_encoder import (
    BATCH_SIZE,
    FINETUNED,
    Encodings,
    ItemEncoder,
    Progress,
    TextModel,
)
from indexer.items.whitening import fit_whitening
from indexer.train.curve import write_curve
from tracker.artifact.manifest import TrainingInfo
from tracker.dialects.loading import load_dialect
from tracker.events.dialect import OWN
from tracker.events.entries import event_reading
from tracker.events.kinds import Kinds
from tracker.events.times import Unit


@dataclass(frozen=True, slots=True)
class FinetuneOptions:
    """Options of a fine-tuning.

    Attributes:
        objective: what the encoder learns.
        method: which weights are trained.
        until: the events that are left out: those that the protocol asks for, or none (`all`).
        core: users and items with fewer events are left out.
        repeats: whether items of the past are ranked in validation.
        batch: events in a step.
        temperature: of the softmax over cosines, for `co-interest`.
        fit: length and speed of the training.
        force: replace a folder that exists.
        columns: names of columns in the files of events, by field, where the two differ.
        rating_scale: lowest and highest rating; None to tell them by the ratings.
        timestamps: unit of timestamps that are numbers.
        dialect: format of the events, see `load_dialect`.
    """

    objective: Objective = "co-interest"
    method: Method = "lora"
    until: Until = "gts"
    core: int = 1
    repeats: bool = False
    batch: int = 256
    temperature: float = 0.2
    fit: FitOptions = field(default_factory=lambda: FitOptions(LEARNING_RATES["lora"]))
    force: bool = False
    columns: Mapping[str, str] = field(default_factory=dict)
    rating_scale: tuple[float, float] | None = None
    timestamps: Unit = "auto"
    dialect: str = OWN


class Finetuned(msgspec.Struct, frozen=True):
    """Result of a fine-tuning; `finetune.json`, and the JSON of `indexer finetune --json`.

    `validation` has the scores before and after; `measure` is the one that decides. `written` is
    whether the folder was written: only if the measure rose. `training` names the events that were
    left out, as in a manifest.
    """

    written: bool
    folder: str
    model: str
    objective: Objective
    method: Method
    training: TrainingInfo
    measure: str
    validation: dict[str, Scores]
    epochs: int
    best_epoch: int
    trained_weights: int
    texts: int
    events: int
    seconds: float


def _silent(epochs: int, measure: str) -> AbstractContextManager[Report | None]:
    return nullcontext(None)


@dataclass(frozen=True, slots=True)
class FinetuneProgress:
    """Callbacks that report progress.

    Attributes:
        encoding: called with the number of texts to encode; its result with the texts just done.
        training: called with the number of epochs and the measure; a context with the `Report`.
        note: called with lines about the events.
    """

    encoding: Callable[[int], Progress] = lambda total: lambda count: None
    training: Callable[[int, str], AbstractContextManager[Report | None]] = _silent
    note: Callable[[str], None] = lambda line: None


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Step 1: the divided events, the plan that they allow, and what the manifest says of them."""

    logged: LoggedEvents
    plan: Plan
    training: TrainingInfo


@dataclass(frozen=True, slots=True)
class _Start:
    """Step 2: the encoder before training, its scores, and the task that it is trained on.

    `epoch_validation` is the smaller validation after each epoch; `epoch_value` its measure now.
    """

    learner: Learner
    scores: Scores
    task: TrainingTask
    epoch_validation: Validation
    epoch_value: float


def finetune(
    catalog: Catalog,
    events: Sequence[Path],
    kinds: Kinds,
    encoder: ItemEncoder,
    folder: Path,
    options: FinetuneOptions,
    not_after: float,
    progress: FinetuneProgress | None = None,
) -> Finetuned:
    """Fine-tune a text encoder, and write it if it has become better.

    1. Read the events and divide them by time; check that they suffice.
    2. Encode the texts of the validation, and score them.
    3. Train, epoch by epoch, with a smaller validation after each.
    4. Score the best epoch; write the folder if the measure has risen.

    A checkpoint next to the folder is kept while it trains: the same call resumes from it.

    Args:
        catalog: the items.
        events: files of logged events.
        kinds: the weights; their rating scale is chosen here.
        encoder: the model to begin with.
        folder: the folder of the new model.
        options: how.
        not_after: float seconds, now; later events are taken for mistakes.
        progress: callbacks.

    Raises:
        FinetuneError: the events cannot teach an encoder.
        FolderExistsError: the folder exists.
        EventFileError: a file of events cannot be used.
        EncoderError: the model cannot be used, or peft is missing.
        CheckpointError: the checkpoint next to the folder is of another training.
        OSError: the folder cannot be written, for instance because the disk is full.
    """
    started = time.perf_counter()
    progress = FinetuneProgress() if progress is None else progress
    folder = folder.resolve()
    refuse_existing(folder, options.force)
    random = np.random.default_rng(options.fit.seed)
    # 1. Read the events and divide them by time.
    prepared = _prepare(catalog, events, kinds, encoder, options, not_after, random, progress.note)
    texts, full = prepared.logged.catalog, prepared.plan.full
    # 2. Encode the texts of the validation, and score them.
    start = _start(prepared, encoder, options, progress)
    # 3. Train, with a smaller validation after each epoch.
    checkpoint = folder.with_name(folder.name + ".checkpoint.safetensors")
    name = _checkpoint_name(encoder, prepared.logged, options)
    fitted = _train(start, texts, full.measure, options.fit, checkpoint, name, progress)
    # 4. Score the best epoch; write the folder if the measure has risen.
    after = start.scores
    if fitted.best_epoch:
        after = full.scores(_encode(start.learner.text, texts, full, progress))
    result = Finetuned(
        written=after[full.measure] > start.scores[full.measure],
        folder=str(folder),
        model=encoder.info.name,
        objective=options.objective,
        method=options.method,
        training=prepared.training,
        measure=full.measure,
        validation={"before": start.scores, "after": after},
        epochs=len(fitted.curve),
        best_epoch=fitted.best_epoch,
        trained_weights=sum(weight.numel() for weight in start.learner.weights),
        texts=len(texts.texts),
        events=len(prepared.logged.log),
        seconds=round(time.perf_counter() - started, 2),
    )
    if result.written:
        start.learner.save(folder, _files(result, fitted), force=options.force)
    checkpoint.unlink(missing_ok=True)
    return result


def _prepare(
    catalog: Catalog,
    events: Sequence[Path],
    kinds: Kinds,
    encoder: ItemEncoder,
    options: FinetuneOptions,
    not_after: float,
    random: np.random.Generator,
    note: Callable[[str], None],
) -> _Prepared:
    """Step 1 of `finetune`: read and divide the events, and plan the training."""
    log, _ = read_log(
        events,
        kinds,
        None,
        not_after,
        event_reading(options.columns, options.timestamps, load_dialect(options.dialect)),
        options.rating_scale,
    )
    note(check_events(events, log, events_in_catalog(catalog, log), "the catalogue"))
    log = core(log, options.core)
    check_core(log, options.core)
    items = [item for item in catalog.items if item.encoded_text()]
    texts = Texts.of(items)
    rows = rows_of(log, items)
    if len(texts.texts) < 2:
        raise FinetuneError(
            "the catalogue has one text: there is nothing to tell it from; at least 2 are needed"
        )
    parts = part(log, options.until)
    protocol: Protocol | None = None if options.until == "all" else options.until
    training = training_info(
        log, protocol, options.core, options.repeats, options.fit.seed, int(parts.train.sum())
    )
    _check_encoder(encoder, training)
    of_event = np.where(rows >= 0, texts.of_item[rows], -1)
    logged = LoggedEvents(log, rows, of_event, texts, parts)
    if options.objective == "click":
        plan = click(logged, kinds, options.batch, random)
    else:
        plan = co_interest(logged, options.repeats, options.batch, options.temperature, random)
    return _Prepared(logged, plan, training)


def _start(
    prepared: _Prepared, encoder: ItemEncoder, options: FinetuneOptions, progress: FinetuneProgress
) -> _Start:
    """Step 2 of `finetune`: score the encoder before training, and begin the task."""
    text = encoder.text_model(torch.float32)
    learner = Learner(text, options.method, options.fit.seed)
    full = prepared.plan.full
    encodings = _encode(learner.text, prepared.logged.catalog, full, progress)
    scores = full.scores(encodings)
    space = Space(fit_whitening(encodings), text.device)
    task, small = prepared.plan.begin(space, encodings)
    place = {int(code): n for n, code in enumerate(full.texts)}
    small_scores = small.scores(encodings[[place[int(code)] for code in small.texts]])
    return _Start(learner, scores, task, small, small_scores[small.measure])


def _train(
    start: _Start,
    texts: Texts,
    measure: str,
    options: FitOptions,
    checkpoint: Path,
    name: str,
    progress: FinetuneProgress,
) -> Fitted:
    """Step 3 of `finetune`: train the encoder; it has the weights of the best epoch afterwards."""
    text, small = start.learner.text, start.epoch_validation
    checkpoint.parent.mkdir(parents=True, exist_ok=True)

    def validate() -> float:
        return small.scores(_encode(text, texts, small, FinetuneProgress()))[small.measure]

    with progress.training(options.epochs, measure) as report:
        return fit(
            start.learner,
            start.task,
            text.tokens(texts.texts),
            validate,
            start.epoch_value,
            options,
            checkpoint=checkpoint,
            of=name,
            report=report,
        )


def _check_encoder(encoder: ItemEncoder, training: TrainingInfo) -> None:
    """Refuse to begin with an encoder that may have seen the events that this training leaves out.

    Raises:
        FinetuneError: it was fine-tuned with another protocol, or other events were left out.
    """
    before = encoder.info.training
    if before is None or training.protocol is None:
        return
    if (before.protocol, before.left_out_digest) != (training.protocol, training.left_out_digest):
        raise FinetuneError(
            f"{encoder.info.name} was fine-tuned on other events ({before.protocol or 'all'}) and"
            f" may have seen what --protocol {training.protocol} leaves out; begin with the encoder"
            " it was made from, or with --protocol all"
        )


def _encode(
    text: TextModel, texts: Texts, validation: Validation, progress: FinetuneProgress
) -> Encodings:
    """Encode the texts of a validation, (M, W) float16."""
    batch = [texts.texts[code] for code in validation.texts.tolist()]
    return text.encode(batch, BATCH_SIZE, progress.encoding(len(batch)))


def _checkpoint_name(encoder: ItemEncoder, logged: LoggedEvents, options: FinetuneOptions) -> str:
    """Return the name of a training, by which its checkpoint is recognised."""
    log = logged.log
    digest = xxhash.xxh3_64()
    for array in (log.users, log.items, log.batch.times, log.batch.weights, logged.parts.train):
        digest.update(np.ascontiguousarray(array).tobytes())
    digest.update("\0".join(logged.catalog.texts).encode(errors="replace"))
    settings = [
        options.objective, options.method, options.until, options.core, options.repeats,
        options.batch, options.temperature,
    ]  # fmt: skip
    return msgspec.json.encode([encoder.info.fingerprint, digest.hexdigest(), settings]).decode()


def _files(result: Finetuned, fitted: Fitted) -> dict[str, bytes]:
    """Return the files next to the weights: the result, and the curve."""
    files = {FINETUNED: msgspec.json.format(msgspec.json.encode(result)) + b"\n"}
    with TemporaryDirectory() as temporary:
        for path in write_curve(fitted.curve, Path(temporary), measure="validation"):
            files[path.name] = path.read_bytes()
    return files
