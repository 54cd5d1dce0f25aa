"""Fit ranker and prediction on the events of a training, under differential privacy."""

from pathlib import Path

import msgspec
import numpy as np

from indexer.data.labels import label_events, label_rule
from indexer.items.assemble import Assembled, in_memory
from indexer.replay.labelled_examples import collect_labelled, learned_from
from indexer.replay.replay import Replay
from indexer.train.fit_models import FittedModels, collect_for_ranker
from indexer.train.inputs import Inputs
from indexer.train.options import TrainOptions, TrainProgress
from indexer.train.privacy import PrivacyError, PrivacyOptions, Spending
from indexer.train.private_fits import PLANS, PREDICTION, RANKER, fit_head_privately
from indexer.train.private_fits import fit_ranker_privately as fit_ranker
from indexer.train.ranker import best_epoch
from tracker.artifact.manifest import PrivacyInfo, PrivateFit
from tracker.scoring.blend import Blend
from tracker.scoring.evidence import Priors
from tracker.scoring.prediction import Prediction

NO_ENCODER = "it cannot be trained under differential privacy (`--epsilon`)"

PRIORS = Priors(weight=0.0, liked=0.5, taken=0.5, label=0.5, item=5.0, user=5.0)
"""What smooths the evidence of a private head; that of another training comes from the events."""

ALWAYS_PLAIN = (
    "counts, trends and neighbours of items in the workers, and the features read from them",
    "which events and items are learned from (--core, the cuts of time, the number of examples)",
    "figures of quality in this report",
)
"""What the noise never covers."""


def begin_spending(options: PrivacyOptions, users: int) -> Spending:
    """Return what is to be spent: the noise by which all fits together stay in the budget.

    Args:
        options: the budget.
        users: number of users whose events are learned from.

    Raises:
        PrivacyError: the delta says nothing among so many users, or no noise keeps the epsilon.
    """
    if options.delta * users >= 1.0:
        raise PrivacyError(
            f"delta {options.delta:g} is too large for {users} users: it has to be below"
            f" 1 / {users} = {1.0 / users:.2g}, or one of them may be told in full"
        )
    return Spending(options, PLANS)


def fit_models_privately(
    inputs: Inputs,
    parts: Assembled,
    options: TrainOptions,
    spending: Spending,
    folder: Path | None,
    progress: TrainProgress,
) -> FittedModels:
    """Fit what can be fitted privately: step 4 of `train` with a privacy budget.

    1. Fit the probability of a positive event on labelled events.
    2. Replay the events, and collect the ranker's examples.
    3. Fit the ranker on them; fit one without privacy beside it, to say what privacy costs, and
       drop it.

    The sources of candidates keep their defaults, and there is no encoder.

    Args:
        inputs: events and targets.
        parts: the items.
        options: options of the training.
        spending: the budget.
        folder: where the examples are kept; None for nowhere.
        progress: callbacks.
    """
    users = inputs.log.users
    untrained = {"tower": NO_ENCODER}
    if options.tower is not None:
        progress.note(f"no encoder: {NO_ENCODER}")
    # 1. Fit the probability.
    fits: dict[str, PrivateFit] = {}
    prediction, note = _prediction(inputs, parts, options, spending, fits)
    if prediction is None:
        untrained["prediction"] = note
        note = f"no probability is learned: {note}"
    progress.note(note)
    # 2. Collect the ranker's examples.
    examples, _ = collect_for_ranker(inputs, in_memory(parts), options, folder, progress)
    # 3. Fit the ranker.
    ranker, fits[RANKER] = fit_ranker(examples, users[examples.events], options.ranker, spending)
    for line in ranker.curve:
        progress.epoch(RANKER, line)
    without = best_epoch(examples, msgspec.structs.replace(options.ranker, seed=options.seed))
    privacy = PrivacyInfo(
        epsilon=spending.options.epsilon,
        delta=spending.options.delta,
        spent=spending.epsilon,
        noise_multiplier=spending.noise,
        fits=fits,
        ndcg_at_10=ranker.curve[0].validation_ndcg_at_10,
        ndcg_at_10_without=without.validation_ndcg_at_10,
        not_private=_plain_parts(options, parts, prediction),
    )
    return FittedModels(
        tower=None,
        prediction=prediction,
        ranker=ranker,
        examples=len(examples),
        untrained=untrained,
        note="",
        prediction_note=note,
        privacy=privacy,
    )


def _prediction(
    inputs: Inputs,
    parts: Assembled,
    options: TrainOptions,
    spending: Spending,
    fits: dict[str, PrivateFit],
) -> tuple[Prediction | None, str]:
    """Return a private prediction and a line on it, or None and the reason for none."""
    log, skip, settings = inputs.log, inputs.targets.skip, options.prediction
    fitted = np.ones(len(log), np.bool_) if skip is None else ~skip
    rule = label_rule(log, inputs.kinds, fitted, settings.positive_rating)
    replay = Replay(in_memory(parts), log, None, Blend(), skip, forgets=True)
    later = learned_from(replay, label_events(log, rule, fitted), options.seed)
    if why := later.too_few():
        return None, why
    examples = collect_labelled(replay, later, PRIORS)
    prediction, fits[PREDICTION] = fit_head_privately(
        examples, rule, PRIORS, settings.within_user, settings.validation_share, spending
    )
    return prediction, f"probability learned privately from {len(examples)} labelled events"


def _plain_parts(
    options: TrainOptions, parts: Assembled, prediction: Prediction | None
) -> list[str]:
    """Return what the noise of this training does not cover."""
    plain = list(ALWAYS_PLAIN)
    if options.rating_scale is None:
        plain.append("the scale of ratings (give --rating-scale)")
    if prediction is not None and options.prediction.positive_rating is None:
        plain.append("the lowest positive rating (give --positive-rating)")
    before = parts.before
    training = None if before is None else before.manifest.training
    if training is not None and training.privacy is None:
        plain.append("half-lives that an earlier training without privacy has chosen")
    return plain
