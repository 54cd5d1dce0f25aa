"""Fit encoder, prediction and ranker on the events of a training."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from indexer.data.training_log import TrainingError
from indexer.encoder.budget import Budget
from indexer.encoder.options import TooFewError
from indexer.encoder.tower import (
    TowerFit,
    TowerProgress,
    fit_tower,
    refit_beside,
    refit_tower,
)
from indexer.encoder.tower_data import TowerData, make_tower_data
from indexer.items.assemble import Assembled, in_memory
from indexer.replay.array_files import load_arrays, save_arrays
from indexer.replay.pools import PER_SEARCH, PoolCollector, Pools
from indexer.replay.ranker_examples import Examples, collect_examples
from indexer.replay.replay import Replay
from indexer.shards import Shards
from indexer.train.inputs import Inputs
from indexer.train.item_weights import (
    WeightsData,
    fit_item_weights,
    refit_item_weights,
    weights_data,
)
from indexer.train.options import TrainOptions, TrainProgress
from indexer.train.prediction import train_prediction
from indexer.train.ranker import Fitted, fit_ranker
from indexer.train.retrieval import choose_retrieval, fit_score, with_retrieval
from tracker.artifact.artifact import Artifact
from tracker.artifact.manifest import PrivacyInfo
from tracker.artifact.models import Models
from tracker.recommend.options import RecommendOptions, trained_with
from tracker.scoring.blend import Blend
from tracker.scoring.item_weights import ItemWeights
from tracker.scoring.network import RankerInfo
from tracker.scoring.prediction import Prediction
from tracker.scoring.retrieval import Retrieval, recall_lines

SOME_WEIGHED = 8
"""Quota of item weights while examples are collected, so that they are searched."""


@dataclass(frozen=True, slots=True)
class FittedModels:
    """Everything that a training fits, and its notes.

    Attributes:
        tower: encoder and attention after the refit, None without an encoder.
        prediction: the probability of a positive event, None if it cannot be learned.
        ranker: the ranker, with its curve.
        examples: number of targets that the ranker learned from.
        item_weights: how much a past item speaks for another, None if that is worth nothing.
        untrained: reason for each model that is not there, by name.
        note: the reason for no encoder, if one was wanted.
        prediction_note: source of the probability, or the reason for none.
        privacy: the privacy budget that was spent, and its cost; None without one.
    """

    tower: TowerFit | None
    prediction: Prediction | None
    ranker: Fitted
    examples: int
    untrained: dict[str, str]
    note: str
    prediction_note: str
    privacy: PrivacyInfo | None = None
    item_weights: ItemWeights | None = None

    @property
    def models(self) -> Models:
        """The models that are published."""
        tower = None if self.tower is None else self.tower.tower
        return Models(
            ranker=self.ranker.network,
            tower=tower,
            prediction=self.prediction,
            item_weights=self.item_weights,
        )

    @property
    def curves(self) -> dict[str, Sequence[msgspec.Struct]]:
        """The curves of all fits by name."""
        return {"ranker": self.ranker.curve, **({} if self.tower is None else self.tower.curves)}


def fit_models(
    inputs: Inputs,
    parts: Assembled,
    options: TrainOptions,
    folder: Path | None,
    progress: TrainProgress,
    budget: Budget | None = None,
    shards: Shards | None = None,
) -> FittedModels:
    """Fit all models on the events: step 4 of `train`.

    1. Fit the encoder on the events before the ranker's targets.
    2. Fit the probability of a positive event, and item weights on the same events as the encoder.
    3. Replay the events through the serving recommender, and collect the ranker's examples.
    4. Fit the ranker on them, and choose where its candidates come from. Item weights that help
       neither are not published.
    5. Refit the encoder and item weights on all events that the training may use: the encoder with
       several cores beside steps 2 to 4, in another process.

    Args:
        inputs: events and targets.
        parts: the items.
        options: options of the training.
        folder: where finished parts are kept; None for nowhere.
        progress: callbacks.
        budget: the time of the training; None for as long as it takes.
        shards: what fits the encoder's other settings, and refits it; None for this machine.

    Raises:
        TrainingError: the events cannot teach a ranker.
        ValueError: the device is not there.
    """
    budget = Budget(None) if budget is None else budget
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
    first = None if data is None else fit_tower(data, folder, steps, budget, shards)

    def still_refitting() -> None:
        progress.note("the encoder is still being refitted")

    with ExitStack() as stack:
        if data is not None:
            stack.enter_context(refit_beside(data, first, folder, budget, still_refitting, shards))
        # 2. Fit the probability.
        prediction, prediction_note = train_prediction(
            in_memory(parts), inputs.log, inputs.kinds, inputs.targets.skip,
            msgspec.structs.replace(options.prediction, seed=options.seed),
        )  # fmt: skip
        if prediction is None:
            untrained["prediction"] = prediction_note
            prediction_note = f"no probability is learned: {prediction_note}"
        data_of_weights = weights_data(
            parts.items, inputs.log, options.protocol, parts.interest.ring, options.repeats
        )
        weights, why = fit_item_weights(data_of_weights)
        # 3. Collect the ranker's examples.
        models = Models(
            tower=None if first is None else first.tower,
            prediction=prediction,
            item_weights=weights,
        )
        examples, pools = collect_for_ranker(
            inputs, in_memory(parts, models), options, folder, progress
        )
        # 4. Fit the ranker, and choose the candidates.
        ranker = _fit_ranker(examples, options, progress)
        choice = choose_retrieval(pools, ranker.network, parts.items.vectors)
    ranker = replace(ranker, network=with_retrieval(ranker.network, choice))
    columns = ranker.network.info.columns
    if len(columns) == 1:
        progress.note(f"the ranking is {columns[0]} alone: held-out events gain nothing by more")
    for line in recall_lines(ranker.network.info.retrieval):
        progress.note(f"candidates: {line}")
    if prediction is not None:
        used = "probability" in ranker.network.info.columns
        prediction_note += "; the ranking reads it" if used else "; the ranking gains nothing by it"
    progress.note(prediction_note)
    # 5. Refit the encoder and item weights.
    weights, note_of_weights = _published(data_of_weights, weights, why, ranker.network.info)
    if weights is None:
        untrained["item_weights"] = note_of_weights
    progress.note(note_of_weights)
    last = None
    if data is not None and first is not None:
        last = refit_tower(data, first, folder, steps, budget)
    return FittedModels(
        tower=last,
        prediction=prediction,
        ranker=ranker,
        examples=len(examples),
        untrained=untrained,
        note=note,
        prediction_note=prediction_note,
        item_weights=weights,
    )


def _published(
    data: WeightsData, weights: ItemWeights | None, why: str, ranker: RankerInfo
) -> tuple[ItemWeights | None, str]:
    """Return the weights to publish, fitted on all events, and a note on them, or why none."""
    if weights is None:
        return None, f"no item weights are learned: {why}"
    uses = {
        "ranking": "item_weights" in ranker.columns,
        "candidates": ranker.retrieval.item_weights > 0,
    }
    if not any(uses.values()):
        return None, "no item weights are published: lists gain nothing by them"
    last = refit_item_weights(data, weights)
    info = last.info
    return last, (
        f"item weights: {info.items} items speak for up to {info.width} others each, an event"
        f" counts {info.decay:g} of the next one, regularisation {info.regularisation:g}; for"
        f" {' and '.join(name for name, used in uses.items() if used)}"
    )


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


def collect_for_ranker(
    inputs: Inputs,
    artifact: Artifact,
    options: TrainOptions,
    folder: Path | None,
    progress: TrainProgress,
) -> tuple[Examples, Pools]:
    """Return the ranker's examples and pools: those of an interrupted training if there are any."""
    path = None if folder is None else folder / "examples.npz"
    beside = None if folder is None else folder / "pools.npz"
    if path is not None and beside is not None and path.exists() and beside.exists():
        return load_arrays(Examples, path), load_arrays(Pools, beside)
    targets = inputs.targets
    serving = RecommendOptions(seen="keep" if options.repeats else "exclude", diversity=0.0)
    retrieval = Retrieval(per_search=PER_SEARCH, item_weights=SOME_WEIGHED)
    info = RankerInfo([], options.ranker.hidden, retrieval=retrieval)
    trained = trained_with(info, serving)
    replay = Replay(artifact, inputs.log, trained, Blend(), targets.skip, forgets=True)
    report = progress.examples(len(targets.events))
    collector = PoolCollector(fit_score)
    examples = collect_examples(
        replay, targets.events, options.repeats, options.seed, targets.fresh, report, collector
    )
    pools = collector.pools()
    if path is not None and beside is not None:
        save_arrays(pools, beside)
        save_arrays(examples, path)
    return examples, pools


def _fit_ranker(examples: Examples, options: TrainOptions, progress: TrainProgress) -> Fitted:
    ranker = msgspec.structs.replace(options.ranker, seed=options.seed)
    try:
        return fit_ranker(examples, ranker, lambda epoch: progress.epoch("ranker", epoch))
    except ValueError as error:
        raise TrainingError(f"{error}. Nothing was published") from error
