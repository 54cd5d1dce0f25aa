"""Fit the head of prediction: labelled events in a replay, cross-entropy, then calibration."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from indexer.data.histories import EventLog
from indexer.data.labels import Labelled, label_events, label_rule
from indexer.encoder.optimizer import AdamW
from indexer.evaluate.metrics import auc, ece, log_loss, user_auc
from indexer.replay.labelled_examples import (
    LabelledExamples,
    collect_labelled,
    learned_from,
    priors_of,
)
from indexer.replay.replay import Replay
from indexer.train.ranker import one_thread
from tracker.artifact.artifact import Artifact
from tracker.events.kinds import Kinds
from tracker.events.label_rule import LabelRule
from tracker.scoring.blend import Blend
from tracker.scoring.calibration import Calibration
from tracker.scoring.evidence import EVIDENCE, Priors
from tracker.scoring.prediction import HeadWeights, Prediction, PredictionInfo

PAIRS_OF_A_USER = 20
"""Pairs of a positive and a negative event of one user that are learned from at most."""

LEAST_GAIN = 0.0005
"""Nats by which a hidden layer has to lower the loss."""


class PredictionOptions(msgspec.Struct, frozen=True):
    """Hyperparameters of the head.

    `positive_rating` is the lowest positive rating; by default the median. `within_user` is the
    weight of the pairwise loss of a user's events next to that of the cross-entropy. `hidden` is
    the width of the hidden layer that is compared with none.
    """

    positive_rating: float | None = None
    within_user: float = 0.7
    hidden: int = 16
    learning_rate: float = 5e-3
    weight_decay: float = 0.02
    batch_size: int = 256
    max_epochs: int = 40
    patience: int = 6
    validation_share: float = 0.25
    seed: int = 0


def train_prediction(
    artifact: Artifact,
    log: EventLog,
    kinds: Kinds,
    skip: NDArray[np.bool_] | None,
    options: PredictionOptions,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[Prediction | None, str]:
    """Label a log's events, replay it, and fit the probability of a positive event.

    Args:
        artifact: the items; other trained models are not used.
        log: the events.
        kinds: the weights in force.
        skip: (E,) bool, events that training may not use, if any.
        options: hyperparameters.
        progress: called with the number of labelled events done.

    Returns:
        the prediction and a line on its source; None and the reason for none.
    """
    fitted = np.ones(len(log), np.bool_) if skip is None else ~skip
    rule = label_rule(log, kinds, fitted, options.positive_rating)
    labelled = label_events(log, rule, fitted)
    replay = Replay(artifact, log, None, Blend(), skip, forgets=True)
    prediction = fit_prediction(replay, labelled, fitted, options, progress)
    if prediction is None:
        why = learned_from(replay, labelled, options.seed).too_few()
        return None, why
    source = "impressions" if rule.source == "impressions" else "events"
    if rule.positive_rating is not None and source == "events":
        source += f", a rating positive from {rule.positive_rating:g} on"
    return prediction, f"probability learned from {prediction.info.examples} labelled {source}"


def fit_prediction(
    replay: Replay,
    labelled: Labelled,
    fitted: NDArray[np.bool_],
    options: PredictionOptions,
    progress: Callable[[int], None] = lambda count: None,
) -> Prediction | None:
    """Fit the probability that a labelled event is positive, from what was known before it.

    Args:
        replay: at or before the first event of `learned_from`.
        labelled: all labelled events that may be learned from; the later half of them is.
        fitted: (E,) bool, events whose means the priors may use.
        options: hyperparameters.
        progress: called with the number of labelled events done.

    Returns:
        the prediction; None if one class is missing or rare (`Labelled.too_few`).
    """
    later = learned_from(replay, labelled, options.seed)
    if later.too_few():
        return None
    priors = priors_of(replay.log, fitted, later.rule)
    examples = collect_labelled(replay, later, priors, progress)
    return fit_head(examples, later.rule, priors, options)


def fit_head(
    examples: LabelledExamples, rule: LabelRule, priors: Priors, options: PredictionOptions
) -> Prediction:
    """Fit a head and its calibration.

    1. Leave out columns that never differ; standardise the others, bounded by their range.
    2. Fit on all but the latest, with and without a hidden layer, by AdamW, until the loss of the
       latest no longer falls; keep the layer if it lowers that loss by LEAST_GAIN.
    3. Fit the scale of the logits on the latest, which the head has not seen.
    4. Fit the head again on all, for as many epochs, and its shift on the later half.

    The loss is binary cross-entropy plus `within_user` times that of pairs of one user. The same
    seed gives the same weights on one machine.
    """
    lowest, highest = examples.evidence.min(axis=0), examples.evidence.max(axis=0)
    columns = np.flatnonzero(highest - lowest > 1e-6)  # 1. Leave out columns.
    values = examples.evidence[:, columns]
    shift, scale = values.mean(axis=0), np.maximum(values.std(axis=0), 1e-6)
    data = _Data(
        torch.from_numpy((values - shift) / scale),
        torch.from_numpy(examples.positive.astype(np.float32)),
        examples.users,
    )
    late_count = max(1, round(len(examples) * options.validation_share))
    early, late = np.arange(len(examples) - late_count), np.arange(len(examples))[-late_count:]
    with one_thread():
        tried = [_fit(data, early, late, options, width, None) for width in (0, options.hidden)]
        # 2. Compare with and without a hidden layer.
        best = tried[1] if tried[1].loss < tried[0].loss - LEAST_GAIN else tried[0]
        logits = _logits(best.net, data, late)
        late_scaling = _platt(logits, examples.positive[late])  # 3. Fit the scale.
        # 4. Fit again on all.
        hidden = best.net.first.out_features if best.net.first is not None else 0
        net = _fit(data, np.arange(len(examples)), late, options, hidden, best.epochs).net
        later = np.arange(len(examples))[len(examples) // 2 :]
        calibration = _platt(_logits(net, data, later), examples.positive[later], late_scaling[0])
    validation = head_figures(logits, late_scaling, examples.positive[late], examples.users[late])
    info = PredictionInfo(
        features=[EVIDENCE[column] for column in columns.tolist()],
        hidden=hidden,
        rule=rule,
        base_rate=float(examples.positive.mean()),
        priors=priors,
        calibration=calibration,
        examples=len(examples),
        validation=validation,
    )
    return Prediction(info, net.exported(shift, scale, lowest[columns], highest[columns]))


def head_figures(
    logits: NDArray[np.float32],
    scaling: tuple[float, float],
    labels: NDArray[np.bool_],
    users: NDArray[np.int64],
) -> dict[str, float | None]:
    """Return `PredictionInfo.validation` of events that the head has not seen."""
    probabilities = Calibration.published(*scaling).probability(logits).astype(np.float64)
    return {
        "auc": _or_none(auc(labels, probabilities)),
        "user_auc": _or_none(user_auc(labels, probabilities, users)),
        "log_loss": _or_none(log_loss(labels, probabilities)),
        "ece": _or_none(ece(labels, probabilities)),
    }


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


class Head(nn.Module):
    """The head of `tracker.scoring.prediction` over standardised columns, for training."""

    def __init__(self, columns: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(columns, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.first = nn.Linear(columns, hidden) if hidden else None
        self.last = nn.Linear(hidden, 1, bias=False) if hidden else None
        if self.last is not None:
            nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (...) of standardised columns (..., P)."""
        logits: Tensor = self.linear(x).squeeze(-1)  # (L,)
        if self.first is not None and self.last is not None:
            logits = logits + self.last(torch.relu(self.first(x))).squeeze(-1)
        return logits

    def exported(
        self,
        shift: NDArray[np.float32],
        scale: NDArray[np.float32],
        lowest: NDArray[np.float32],
        highest: NDArray[np.float32],
    ) -> HeadWeights:
        """Return the weights over columns that are not standardised."""
        state = {name: value.detach().double().numpy() for name, value in self.state_dict().items()}
        width = len(shift)
        linear = state["linear.weight"][0] / scale
        first = state.get("first.weight", np.zeros((0, width))) / scale  # (H, P)
        arrays = {
            "linear": linear,
            "bias": state["linear.bias"] - linear @ shift,
            "first": first.T,
            "first_bias": state.get("first.bias", np.zeros(0)) - first @ shift,
            "last": state.get("last.weight", np.zeros((1, 0)))[0],
            "lowest": lowest,
            "highest": highest,
        }
        return HeadWeights(
            **{name: np.ascontiguousarray(value, np.float32) for name, value in arrays.items()}
        )


@dataclass(frozen=True, slots=True)
class _Data:
    values: Tensor
    labels: Tensor
    users: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Tried:
    net: Head
    epochs: int
    loss: float


def _fit(
    data: _Data,
    events: NDArray[np.int64],
    validation: NDArray[np.int64],
    options: PredictionOptions,
    hidden: int,
    epochs: int | None,
) -> _Tried:
    """Fit on events, for `epochs`, or until the validation loss no longer falls."""
    torch.manual_seed(options.seed)
    random = np.random.default_rng(options.seed)
    net = Head(data.values.shape[1], hidden)
    optimizer = AdamW(net.parameters(), options.learning_rate, options.weight_decay)
    pairs, chances = _pairs(data, events, options.seed)
    validation_pairs = _pairs(data, validation, options.seed)[0]
    best = _Tried(net, 0, math.inf)
    weights = {name: value.clone() for name, value in net.state_dict().items()}
    for epoch in range(1, 1 + (options.max_epochs if epochs is None else epochs)):
        order = random.permutation(events)
        for start in range(0, len(order), options.batch_size):
            part = order[start : start + options.batch_size]
            some = random.choice(len(pairs), len(part), p=chances) if len(pairs) else None
            loss = _loss(net, data, part, None if some is None else pairs[some], options)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if epochs is not None:
            continue
        with torch.no_grad():
            validation_loss = float(
                _loss(
                    net,
                    data,
                    validation,
                    validation_pairs if len(validation_pairs) else None,
                    options,
                )
            )
        if validation_loss < best.loss:
            best = _Tried(net, epoch, validation_loss)
            weights = {name: value.clone() for name, value in net.state_dict().items()}
        elif epoch - best.epochs >= options.patience:
            break
    if epochs is None:
        net.load_state_dict(weights)
    return best if epochs is None else _Tried(net, epochs, math.nan)


def _loss(
    net: Head,
    data: _Data,
    events: NDArray[np.int64],
    pairs: NDArray[np.int64] | None,
    options: PredictionOptions,
) -> Tensor:
    logits = net(data.values[events])
    loss = nn.functional.binary_cross_entropy_with_logits(logits, data.labels[events])
    if pairs is None or options.within_user == 0.0:
        return loss
    apart = net(data.values[pairs[:, 0]]) - net(data.values[pairs[:, 1]])
    return loss + options.within_user * nn.functional.softplus(-apart).mean()


def _pairs(
    data: _Data, events: NDArray[np.int64], seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return pairs (Q, 2) of a positive and a negative event of one user, each user alike."""
    random = np.random.default_rng(seed)
    labels = data.labels.numpy() > 0.5
    order = events[np.argsort(data.users[events], kind="stable")]
    pairs: list[NDArray[np.int64]] = []
    weights: list[NDArray[np.float64]] = []
    for part in np.split(order, np.flatnonzero(np.diff(data.users[order])) + 1):
        ups, downs = part[labels[part]], part[~labels[part]]
        count = min(len(ups) * len(downs), PAIRS_OF_A_USER)
        if count:
            sample = random.choice(len(ups) * len(downs), count, replace=False)
            pairs.append(np.stack([ups[sample // len(downs)], downs[sample % len(downs)]], axis=1))
            weights.append(np.full(count, 1.0 / count))
    if not pairs:
        return np.zeros((0, 2), np.int64), np.zeros(0)
    chances = np.concatenate(weights)
    return np.concatenate(pairs), chances / chances.sum()


@torch.no_grad()
def _logits(net: Head, data: _Data, events: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.asarray(net(data.values[events]).numpy(), np.float32)


def _platt(
    logits: NDArray[np.float32], labels: NDArray[np.bool_], scale: float | None = None
) -> tuple[float, float]:
    """Return the scale (at least .05, or as given) and shift of least log loss, by Newton's method.

    Labels are drawn in a little, as if there were one more of each class. Source: Platt 1999,
    "Probabilistic Outputs for Support Vector Machines", sec. 2.2.
    """
    x = np.stack([logits.astype(np.float64), np.ones(len(logits))], axis=1)
    ups = int(labels.sum())
    targets = np.where(labels, (ups + 1.0) / (ups + 2.0), 1.0 / (len(labels) - ups + 2.0))
    scaling = np.array([1.0 if scale is None else scale, 0.0])
    for _ in range(50):
        probabilities = 1.0 / (1.0 + np.exp(-np.clip(x @ scaling, -30.0, 30.0)))
        slope = x.T @ (probabilities - targets)
        curve = (x * (probabilities * (1.0 - probabilities))[:, None]).T @ x + 1e-6 * np.eye(2)
        if scale is None:
            step = np.linalg.solve(curve, slope)
        else:
            step = np.array([0.0, slope[1] / curve[1, 1]])
        scaling = scaling - np.clip(step, -1.0, 1.0)
        if float(np.abs(step).max()) < 1e-9:
            break
    return max(float(scaling[0]), 0.05), float(scaling[1])
