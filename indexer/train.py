"""Train the ranker on logged events, and publish it with a catalogue's vectors as one version."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from indexer.assemble import BuildOptions, assemble, current_version, in_memory, write_version
from indexer.carry import same_encoder
from indexer.catalog import Catalog
from indexer.examples import Examples, collect_examples
from indexer.histories import EventLog, Protocol, core, read_event_log
from indexer.holdout import ranker_targets, training_info
from indexer.item_encoder import Encoder, Progress
from indexer.replay import Replay
from indexer.train_ranker import MIN_EXAMPLES, Epoch, Fitted, RankerOptions, fit_ranker
from tracker.artifact import Artifact
from tracker.events import hash_id, kind_code
from tracker.kinds import Kinds
from tracker.models import Models
from tracker.network import RankerInfo
from tracker.ranker import Blend
from tracker.recommend_options import RecommendOptions, trained_with
from tracker.versions import Root

MAX_EXAMPLES = 16_000
"""Targets that are learned from at most, evenly spread: each takes about 13 KiB of memory."""


class TrainingError(ValueError):
    """The events cannot teach a ranker; nothing was published, the message says why."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What a training is told.

    `protocol` leaves the targets of that protocol out of everything fitted; None trains on all.
    Users and items with fewer than `core` events are left out. `repeats`: items chosen before may
    be chosen again. `refit` is that of a build.
    """

    protocol: Protocol | None = None
    core: int = 1
    repeats: bool = False
    seed: int = 0
    refit: bool = False
    ranker: RankerOptions = field(default_factory=RankerOptions)


class Trained(msgspec.Struct, frozen=True):
    """What a training did; the JSON of `indexer train --json`.

    `epochs` were run, of which `best_epoch` had the least validation loss; `validation` is of that
    one: loss, hit_rate_at_10 and ndcg_at_10 on the latest of the `examples`.
    """

    artifact: str
    seconds: float
    epochs: int
    validation: dict[str, float]
    best_epoch: int
    examples: int
    events: int
    items: int
    rating_scale: tuple[float, float]
    basis_changed: bool
    path: str


@dataclass(frozen=True, slots=True)
class Reports:
    """Who is told how far it is: texts to encode, then the examples' total and number, epochs."""

    encoding: Callable[[int], Progress] | None = None
    examples: Callable[[int], Callable[[int], None]] = lambda total: lambda done: None
    epoch: Callable[[Epoch], None] = lambda epoch: None


def train(
    catalog: Catalog,
    events: Sequence[Path],
    kinds: Kinds,
    encoder: Encoder,
    root: Root,
    options: TrainOptions,
    not_after: float,
    reports: Reports | None = None,
) -> Trained:
    """Fit a ranker and publish one version that has it.

    1. Read the events, by the current version's rating scale if it covers them.
    2. Assemble the items' vectors and index, as a build would; known texts are not encoded again.
    3. Replay the events through the recommender that serves; write down what the ranker would see.
    4. Fit the network, write the version, and make it current.

    Args:
        catalog: what was read; with `core`, only items with enough events are kept.
        events: files of logged events.
        kinds: the weights; their rating scale is chosen here.
        encoder: texts to vectors.
        root: where versions live.
        options: how.
        not_after: float seconds, now.
        reports: told how far it is.

    Raises:
        TrainingError: the events cannot teach a ranker.
        EventFileError: a file of events cannot be used.
        RefusedError: see `assemble`; RecallError and ArtifactError too.
        OSError: the disk is full, for instance.
    """
    started = time.perf_counter()
    reports = Reports() if reports is None else reports
    before = current_version(root, options.refit)  # 1
    scale = None
    if before is not None:
        scale = (before.manifest.interest.rating_min, before.manifest.interest.rating_max)
    log, chosen = read_log(events, kinds, scale, not_after)
    log = core(log, options.core)
    if options.core > 1:
        catalog = _met(catalog, log)
    _check_log(catalog, log, options)
    # 2
    rescaled = before is not None and chosen != scale and same_encoder(before, encoder.info)
    build = BuildOptions(rating_scale=chosen, refit=options.refit or rescaled)
    parts = assemble(catalog, encoder, root, build, reports.encoding)
    examples = _examples(in_memory(parts), log, options, reports)  # 3
    fitted = _fit(examples, options, reports)  # 4
    training = training_info(
        log, options.protocol, options.core, options.repeats, options.seed, len(examples)
    )
    built = write_version(root, parts, Models(ranker=fitted.network), training)
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
    )


def read_log(
    paths: Sequence[Path], kinds: Kinds, scale: tuple[float, float] | None, not_after: float
) -> tuple[EventLog, tuple[float, float]]:
    """Read events, with the weights that the ratings in them call for; return the scale too.

    The scale given (else 1 to 5) is kept where no rating is above it; else it is 0 to 10, or 0 to
    the highest rating if that is more.

    Raises:
        EventFileError: a file cannot be used.
    """
    low, high = (1.0, 5.0) if scale is None else scale
    scaled = msgspec.structs.replace(kinds, rating_min=low, rating_max=high)
    log = read_event_log(paths, scaled, not_after)
    codes = [kind_code(name) for name, kind in kinds.table.items() if kind.curve == "rating"]
    ratings = log.batch.values[np.isin(log.batch.kinds, codes)]
    highest = float(np.nanmax(ratings)) if np.isfinite(ratings).any() else high
    if highest <= high:
        return log, (low, high)
    low, high = 0.0, max(10.0, highest)
    scaled = msgspec.structs.replace(kinds, rating_min=low, rating_max=high)
    return read_event_log(paths, scaled, not_after), (low, high)


def _met(catalog: Catalog, log: EventLog) -> Catalog:
    """Return the catalogue's items that the log has."""
    hashes = set(log.item_hashes.tolist())
    kept = [item for item in catalog.items if hash_id(item.item_id) in hashes]
    return dataclasses.replace(catalog, items=kept)


def _check_log(catalog: Catalog, log: EventLog, options: TrainOptions) -> None:
    if not len(log):
        raise TrainingError(
            f"no user and item has {options.core} events or more; choose a smaller --core"
        )
    if len(catalog.items) == 1:
        raise TrainingError("the catalogue has one item: there is nothing to choose between")
    hashes = set(log.item_hashes.tolist())
    if not any(hash_id(item.item_id) in hashes for item in catalog.items):
        raise TrainingError(
            f"none of the {len(log)} events is of an item of the catalogue; item_id must be the"
            " same in both"
        )


def _examples(
    artifact: Artifact, log: EventLog, options: TrainOptions, reports: Reports
) -> Examples:
    serving = RecommendOptions(seen="keep" if options.repeats else "exclude", diversity=0.0)
    trained = trained_with(RankerInfo([], options.ranker.hidden), serving)
    rows = artifact.vectors.row_of(log.batch.items)
    usable = (rows >= 0) & (rows < artifact.vectors.live)
    lessons = ranker_targets(log, options.protocol, usable, MAX_EXAMPLES)
    if len(lessons.events) < MIN_EXAMPLES:
        raise TrainingError(
            f"{len(lessons.events)} events to learn from; at least {MIN_EXAMPLES} are needed:"
            f" {_learned_from(options.protocol)}, of users with an event before, on items of the"
            " catalogue. Nothing was published; without training the fixed blend ranks"
        )
    replay = Replay(artifact, log, trained, Blend(), lessons.skip)
    told = reports.examples(len(lessons.events))
    return collect_examples(
        replay, lessons.events, options.repeats, options.seed, lessons.fresh, told
    )


def _learned_from(protocol: Protocol | None) -> str:
    return {
        None: "positive events in the last three fifths of the time",
        "gts": "positive events between the 40 % and 90 % quantiles of the time",
        "loo": "positive events in the last three fifths of the time, but the last of each user",
    }[protocol]


def _fit(examples: Examples, options: TrainOptions, reports: Reports) -> Fitted:
    ranker = msgspec.structs.replace(options.ranker, seed=options.seed)
    try:
        return fit_ranker(examples, ranker, reports.epoch)
    except ValueError as error:
        raise TrainingError(f"{error}. Nothing was published") from error
