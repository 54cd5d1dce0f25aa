"""Inputs of a training: the events, the items and the ranker's targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from indexer.data.catalog import Catalog
from indexer.data.histories import EventLog, core
from indexer.data.holdout import RankerTargets, ranker_targets
from indexer.data.training_log import (
    TrainingError,
    check_choice,
    check_core,
    check_events,
    events_in_catalog,
    items_in_log,
    read_log,
)
from indexer.data.users import Attributes, Users
from indexer.encoder.budget import Budget
from indexer.items.carry import same_encoder
from indexer.items.item_encoder import Encoder
from indexer.items.options import BuildOptions, current_version
from indexer.train.options import TrainOptions, TrainProgress
from indexer.train.ranker import MIN_EXAMPLES
from tracker.artifact.versions import Root
from tracker.dialects.loading import load_dialect
from tracker.events.entries import event_reading
from tracker.events.kinds import Kinds

MAX_EXAMPLES = 24_000
"""Targets of the ranker at most: each takes about 13 KiB of memory."""


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
    budget: Budget | None = None,
) -> Inputs:
    """Read the events of a training and choose the ranker's targets: step 1 of `train`.

    The arguments and exceptions are those of `train`.
    """
    before = current_version(root, options.refit)
    scale = None
    if before is not None:
        scale = (before.manifest.interest.rating_min, before.manifest.interest.rating_max)
    log, rating_scale = read_log(
        events,
        kinds,
        scale,
        not_after,
        event_reading(options.columns, options.timestamps, load_dialect(options.dialect)),
        options.rating_scale,
    )
    progress.note(check_events(events, log, events_in_catalog(catalog, log), "the catalogue"))
    log = core(log, options.core)
    check_core(log, options.core)
    if options.core > 1:
        catalog = items_in_log(catalog, log)
    check_choice(catalog)
    most = MAX_EXAMPLES if budget is None else max(MIN_EXAMPLES, budget.examples(MAX_EXAMPLES))
    targets = ranker_targets(log, options.protocol, events_in_catalog(catalog, log), most)
    if budget is not None and len(targets.events) == most < MAX_EXAMPLES:
        budget.leave_out(f"all but {most} of the ranker's targets")
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
