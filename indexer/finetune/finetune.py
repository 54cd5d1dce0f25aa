"""Fine-tune a text encoder on logged events, from files to a folder that `build` takes."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import torch
import xxhash

from indexer.data.catalog import Catalog
from indexer.data.histories import EventLog, Protocol, core
from indexer.data.holdout import training_info
from indexer.data.training_log import check_core, check_events, known_items, read_log
from indexer.finetune.course import FinetuneError, Logged, Objective, click, co_interest
from indexer.finetune.data import Parts, Texts, Until, part, rows_of
from indexer.finetune.fit import LEARNING_RATES, FitOptions, Fitted, Report, fit
from indexer.finetune.lessons import Space
from indexer.finetune.scores import Examination, Scores
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
from tracker.events.kinds import Kinds


@dataclass(frozen=True, slots=True)
class FinetuneOptions:
    """What a fine-tuning is told.

    `until` says which events are left out: those that the protocol asks for, or none. `repeats`:
    items chosen before are ranked in validation. `batch` is the number of choices in a step.
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


class Finetuned(msgspec.Struct, frozen=True):
    """What a fine-tuning did; `finetune.json`, and the JSON of `indexer finetune --json`.

    `validation` has the scores before and after; `measure` is the one that decides. `written` says
    whether the folder was written: it is not where the measure did not rise. `training` says which
    events were left out, as of an artifact.
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
class Reports:
    """Who is told how far it is: texts to encode, the bar of the training, and what was read."""

    encoding: Callable[[int], Progress] = lambda total: lambda done: None
    training: Callable[[int, str], AbstractContextManager[Report | None]] = _silent
    note: Callable[[str], None] = lambda line: None


def finetune(
    catalog: Catalog,
    events: Sequence[Path],
    kinds: Kinds,
    encoder: ItemEncoder,
    folder: Path,
    options: FinetuneOptions,
    not_after: float,
    reports: Reports | None = None,
) -> Finetuned:
    """Fine-tune a text encoder and write it, if it has become better.

    1. Read the events and divide them by time; check that they can teach.
    2. Encode the texts that validation asks for, and score them as they are.
    3. Train, epoch by epoch, with a smaller validation after each.
    4. Score the best again; write the folder if the measure has risen.

    A checkpoint stands beside the folder while it trains: the same command goes on from there.

    Args:
        catalog: what was read.
        events: files of logged events.
        kinds: the weights; their rating scale is chosen here.
        encoder: the model to begin with.
        folder: where the new one goes.
        options: how.
        not_after: float seconds, now.
        reports: told how far it is.

    Raises:
        FinetuneError: the events cannot teach.
        FolderExistsError: the folder is there.
        EventFileError: a file of events cannot be used.
        EncoderError: the model cannot be used, or peft is missing.
        CheckpointError: the checkpoint beside the folder is of another training.
        OSError: the disk is full, for instance.
    """
    started = time.perf_counter()
    reports = Reports() if reports is None else reports
    folder = folder.resolve()
    refuse_existing(folder, options.force)
    log, _ = read_log(events, kinds, None, not_after)  # 1
    reports.note(check_events(events, log, known_items(catalog, log), "the catalogue"))
    log = core(log, options.core)
    check_core(log, options.core)
    texts = Texts.of(catalog.items)
    rows = rows_of(log, catalog.items)
    _check(texts)
    parts = part(log, options.until)
    protocol: Protocol | None = None if options.until == "all" else options.until
    training = training_info(
        log, protocol, options.core, options.repeats, options.fit.seed, int(parts.train.sum())
    )
    _check_encoder(encoder, training)
    of_event = np.where(rows >= 0, texts.of_item[rows], -1)
    logged = Logged(log, rows, of_event, texts, parts)
    random = np.random.default_rng(options.fit.seed)
    if options.objective == "click":
        course = click(logged, kinds, options.batch, random)
    else:
        course = co_interest(logged, options.repeats, options.batch, options.temperature, random)
    full = course.full

    text = encoder.text_model(torch.float32)  # 2
    learner = Learner(text, options.method, options.fit.seed)
    encodings = _encode(learner.text, texts, full, reports)
    before = full.scores(encodings)
    space = Space(fit_whitening(encodings), text.device)
    lesson, small = course.begin(space, encodings)
    place = {int(code): n for n, code in enumerate(full.texts)}
    small_before = small.scores(encodings[[place[int(code)] for code in small.texts]])

    checkpoint = folder.with_name(folder.name + ".checkpoint.safetensors")  # 3
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    of = _name_of(encoder, log, texts, parts, options)
    with reports.training(options.fit.epochs, full.measure) as report:
        fitted = fit(
            learner,
            lesson,
            text.tokens(texts.texts),
            lambda: small.scores(_encode(learner.text, texts, small, Reports()))[small.measure],
            small_before[small.measure],
            options.fit,
            checkpoint=checkpoint,
            of=of,
            report=report,
        )
    after = before  # 4
    if fitted.best_epoch:
        after = full.scores(_encode(learner.text, texts, full, reports))
    done = Finetuned(
        written=after[full.measure] > before[full.measure],
        folder=str(folder),
        model=encoder.info.name,
        objective=options.objective,
        method=options.method,
        training=training,
        measure=full.measure,
        validation={"before": before, "after": after},
        epochs=len(fitted.curve),
        best_epoch=fitted.best_epoch,
        trained_weights=sum(weight.numel() for weight in learner.weights),
        texts=len(texts.texts),
        events=len(log),
        seconds=round(time.perf_counter() - started, 2),
    )
    if done.written:
        learner.save(folder, _files(done, fitted), force=options.force)
    checkpoint.unlink(missing_ok=True)
    return done


def _check_encoder(encoder: ItemEncoder, training: TrainingInfo) -> None:
    """Refuse to go on from an encoder that may have seen what this training leaves out."""
    before = encoder.info.training
    if before is None or training.protocol is None:
        return
    if (before.protocol, before.left_out_digest) != (training.protocol, training.left_out_digest):
        raise FinetuneError(
            f"{encoder.info.name} was fine-tuned on other events ({before.protocol or 'all'}) and"
            f" may have seen what --protocol {training.protocol} leaves out; begin with the encoder"
            " it was made from, or with --protocol all"
        )


def _check(texts: Texts) -> None:
    if len(texts.texts) < 2:
        raise FinetuneError(
            "the catalogue has one text: there is nothing to tell it from; at least 2 are needed"
        )


def _encode(text: TextModel, texts: Texts, asked: Examination, reports: Reports) -> Encodings:
    chosen = [texts.texts[code] for code in asked.texts.tolist()]
    return text.encode(chosen, BATCH_SIZE, reports.encoding(len(chosen)))


def _name_of(
    encoder: ItemEncoder, log: EventLog, texts: Texts, parts: Parts, options: FinetuneOptions
) -> str:
    """Return what tells this training from others, for its checkpoint."""
    digest = xxhash.xxh3_64()
    for part_of_it in (log.users, log.items, log.batch.times, log.batch.weights, parts.train):
        digest.update(np.ascontiguousarray(part_of_it).tobytes())
    digest.update("\0".join(texts.texts).encode(errors="replace"))
    told = [
        options.objective, options.method, options.until, options.core, options.repeats,
        options.batch, options.temperature,
    ]  # fmt: skip
    return msgspec.json.encode([encoder.info.fingerprint, digest.hexdigest(), told]).decode()


def _files(done: Finetuned, fitted: Fitted) -> dict[str, bytes]:
    """Return what stands beside the weights: what was done, and the curve."""
    files = {FINETUNED: msgspec.json.format(msgspec.json.encode(done)) + b"\n"}
    with TemporaryDirectory() as temporary:
        for path in write_curve(fitted.curve, Path(temporary), measure="validation"):
            files[path.name] = path.read_bytes()
    return files
