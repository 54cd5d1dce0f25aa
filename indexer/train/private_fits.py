"""Fits of the ranker and of prediction under differential privacy, on scales no user has made."""

import math

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from indexer.replay.labelled_examples import LabelledExamples
from indexer.replay.ranker_examples import Examples
from indexer.train.prediction import Head, head_figures
from indexer.train.privacy import Groups, Plan, Spending, fit_privately
from indexer.train.ranker import (
    Fitted,
    RankerOptions,
    RankerTensors,
    measure_epoch,
    one_thread,
    parted,
    target_losses,
)
from indexer.train.ranker_net import Net, merged
from tracker.artifact.manifest import PrivateFit
from tracker.events.label_rule import LabelRule
from tracker.scoring.blend import BLEND, Blend
from tracker.scoring.context import COLUMNS, LATE
from tracker.scoring.evidence import EVIDENCE, Priors
from tracker.scoring.features import OPTIONAL
from tracker.scoring.network import Network
from tracker.scoring.prediction import Prediction, PredictionInfo

RANKER, PREDICTION = "ranker", "prediction"

PLANS = {
    RANKER: Plan(sample_rate=0.2, steps=240, clip=1.0, learning_rate=0.04),
    PREDICTION: Plan(sample_rate=0.2, steps=60, clip=1.0, learning_rate=0.05),
}
"""Private fits of a training. That of the ranker was chosen on films at epsilon 4: half the steps,
half the rate or half the length lost 2 to 6 % of NDCG@10."""

HIDDEN = (32, 32)
"""Widths of a private ranker. Widths of 4 lost 7 % of NDCG@10 on films, of 16 2 %, at epsilon 4."""

COSINES = frozenset(
    name for name in (*COLUMNS, *EVIDENCE)
    if name.startswith(("content", "interest", "liked", "disliked")) or name in ("slot", "negative")
)  # fmt: skip
"""Columns whose values are near to a cosine; most of the others are logarithms of counts."""

COSINE_SCALE, LOG_SCALE = 0.3, 4.0
"""What a column's values are divided by, known without a look at the events."""

MEANS = frozenset(name for name in EVIDENCE if "mean" in name or "residual" in name) | {
    "item_liked", "item_taken", "user_liked", "user_positive", "user_last", "item_scene",
    "user_scene", "item_new", "neighbours",
}  # fmt: skip
"""Columns of evidence that are means of weights, or shares."""

BOUND = 32.0
"""Largest size of a column of evidence that the head reads."""

EXAMPLES_OF_A_USER, LABELS_OF_A_USER = 4, 32
"""Examples of a user that a step uses at most."""


def scales_of(names: tuple[str, ...]) -> NDArray[np.float32]:
    """Return what each column is divided by before a private fit: constants of the program."""
    return np.array(
        [
            COSINE_SCALE if name in COSINES else 1.0 if name in MEANS else LOG_SCALE
            for name in names
        ],
        np.float32,
    )


def private_fit_of(name: str, groups: Groups, spending: Spending) -> PrivateFit:
    """Return the description of a fit that is done."""
    plan = spending.plans[name]
    return PrivateFit(len(groups), plan.sample_rate, spending.steps(name), plan.clip)


def fit_ranker_privately(
    examples: Examples, users: NDArray[np.int64], options: RankerOptions, spending: Spending
) -> tuple[Fitted, PrivateFit]:
    """Fit a ranker on the examples of users under differential privacy.

    It begins as the fixed blend, and reads all columns but the late and optional ones, divided by
    constants. The latest targets, by which it is measured, are not learned from. Nothing is chosen
    by their figures; the weights of the first cut are those of the blend.

    Args:
        examples: in time order.
        users: (Q,) the user of each.
        options: `validation_share` alone counts.
        spending: the budget.
    """
    columns = np.flatnonzero(~np.isin(COLUMNS, (*LATE, *OPTIONAL)))
    names = tuple(COLUMNS[column] for column in columns.tolist())
    scale = torch.from_numpy(scales_of(names))
    data = RankerTensors(
        torch.from_numpy(examples.features), torch.from_numpy(examples.offsets),
        torch.from_numpy(columns), torch.zeros(len(columns)), scale,
    )  # fmt: skip
    early, late = parted(examples, options)
    groups = Groups(users[early], EXAMPLES_OF_A_USER)
    net = Net(len(columns), HIDDEN, data.shift, data.scale)
    with torch.no_grad():
        nn.init.zeros_(net.last.weight)
        weights = torch.tensor([BLEND.get(name, 0.0) for name in names])
        net.skip.weight.copy_((weights * scale).unsqueeze(0))
    step = 0

    def loss_of(model: nn.Module, places: NDArray[np.int64], filled: NDArray[np.bool_]) -> Tensor:
        nonlocal step
        step += 1
        features, offsets = data.thinned(places.ravel(), step)
        shape = (*places.shape, features.shape[1])
        scores = model(features.reshape(*shape, -1))  # (U, E, C)
        losses = target_losses((scores + offsets.reshape(shape)).flatten(0, 1))
        return _mean_of_each(losses.reshape(places.shape), filled)

    with one_thread():
        fit_privately(net, groups, loss_of, spending, RANKER)
        measured = measure_epoch(1, net, data, late, math.nan)
    line = msgspec.structs.replace(measured, loss=measured.validation_loss)
    network = Network(names, merged([net], 1.0, np.zeros(0), Blend().cut_weights))
    return Fitted(network, [line], 1), private_fit_of(RANKER, groups, spending)


def _mean_of_each(losses: Tensor, filled: NDArray[np.bool_]) -> Tensor:
    """Return the sum over users of the mean of losses (U, E) at the places that are filled."""
    mask = torch.from_numpy(filled)
    each = torch.where(mask, losses, 0.0).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return each.sum()


def fit_head_privately(
    examples: LabelledExamples,
    rule: LabelRule,
    priors: Priors,
    within_user: float,
    validation_share: float,
    spending: Spending,
) -> tuple[Prediction, PrivateFit]:
    """Fit a head without a hidden layer on the labelled events of users, under privacy.

    The latest events, by which it is measured, are not learned from. The calibration is 1 and 0:
    cross-entropy asks for no other.

    Args:
        examples: in time order.
        rule: that labelled them.
        priors: which smoothed the evidence; they must not come from the events.
        within_user: weight of the pairwise loss.
        validation_share: share of the latest events.
        spending: the budget.
    """
    scale = scales_of(EVIDENCE)
    values = torch.from_numpy(np.clip(examples.evidence, -BOUND, BOUND) / scale)
    labels = torch.from_numpy(examples.positive.astype(np.float32))
    late = max(1, round(len(examples) * validation_share))
    early = len(examples) - late
    groups = Groups(examples.users[:early], LABELS_OF_A_USER)
    net = Head(len(EVIDENCE), 0)

    def loss_of(model: nn.Module, places: NDArray[np.int64], filled: NDArray[np.bool_]) -> Tensor:
        logits = model(values[places])  # (U, E)
        own = labels[places]
        losses = nn.functional.binary_cross_entropy_with_logits(logits, own, reduction="none")
        loss = _mean_of_each(losses, filled)
        mask = torch.from_numpy(filled)
        ups, downs = mask & (own > 0.5), mask & (own < 0.5)
        pairs = ups.unsqueeze(2) & downs.unsqueeze(1)  # (U, E, E)
        apart = nn.functional.softplus(logits.unsqueeze(1) - logits.unsqueeze(2))
        of_user = torch.where(pairs, apart, 0.0).sum(dim=(1, 2))
        return loss + within_user * (of_user / pairs.sum(dim=(1, 2)).clamp(min=1)).sum()

    with one_thread():
        fit_privately(net, groups, loss_of, spending, PREDICTION)
        with torch.no_grad():
            logits = np.asarray(net(values[early:]).numpy(), np.float32)
    zeros = np.zeros(len(EVIDENCE), np.float32)
    bounds = np.full(len(EVIDENCE), BOUND, np.float32)
    head = net.exported(zeros, scale, -bounds, bounds)
    info = PredictionInfo(
        features=list(EVIDENCE),
        hidden=0,
        rule=rule,
        base_rate=float(1.0 / (1.0 + np.exp(-head.bias[0]))),  # with no evidence, by its weights
        priors=priors,
        calibration=(1.0, 0.0),
        examples=early,
        validation=head_figures(
            logits, (1.0, 0.0), examples.positive[early:], examples.users[early:]
        ),
    )
    return Prediction(info, head), private_fit_of(PREDICTION, groups, spending)
