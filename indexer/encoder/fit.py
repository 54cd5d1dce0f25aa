"""Fit UserEncoder on histories: softmax over items, early stopping, a checkpoint per epoch."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from indexer.encoder.checkpoint import load_checkpoint, save_checkpoint
from indexer.encoder.learner import EncoderOptions, Learner, Report, Trained
from indexer.encoder.optimizer import AdamW
from indexer.encoder.scores import Items, TrendScores, validate
from indexer.encoder.sequences import Sequences, windows
from indexer.encoder.trend import Trend
from tracker.encoder.user_encoder import EncoderConfig, UserEncoder


class Epoch(msgspec.Struct, frozen=True):
    """One line of the training curve."""

    epoch: int
    seconds: float
    loss: float
    validation_hit_rate_at_10: float
    validation_ndcg_at_10: float


@dataclass(slots=True)
class Fitted:
    """A trained encoder, the curve of its training, and the epoch of its weights.

    `trend_scores` returns the scores that the trend adds, as in training. `left_out` is the number
    of epochs that there was no time for.
    """

    trained: Trained
    trend_scores: TrendScores
    curve: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0
    left_out: int = 0

    @property
    def model(self) -> UserEncoder:
        """The encoder."""
        return self.trained.encoder


@dataclass(frozen=True, slots=True)
class Course:
    """The course of a fit: where it begins, who follows it, and when it has to end.

    `start` are weights to continue from; items with later ids begin as unknown ones. `checkpoint`
    is the file that is written after each epoch, and resumed if it is there. `report` is called
    after each batch; `after_epoch` after each epoch, when its checkpoint is written; `until` is the
    `time.monotonic()` after which no epoch but the first may end.
    """

    start: Trained | None = None
    checkpoint: Path | None = None

    report: Report | None = None
    after_epoch: Callable[[Epoch], None] = lambda epoch: None
    until: float = math.inf


def fit_encoder(
    sequences: Sequences,
    items: Items,
    config: EncoderConfig,
    train: NDArray[np.bool_],
    validation: NDArray[np.int64],
    options: EncoderOptions,
    *,
    device: torch.device,
    trend: Trend | None = None,
    course: Course | None = None,
) -> Fitted:
    """Train an encoder.

    Args:
        sequences: all events; validation streams through them with frozen weights.
        items: the catalogue.
        config: configuration of the encoder.
        train: (E,) bool by event of the log, the events to learn from.
        validation: positions in the log of the targets for early stopping; without any, all
            epochs are run and the last weights kept (a refit).
        options: hyperparameters.
        device: where it runs.
        trend: popularity of the items by row; without it the encoder learns popularity too.
        course: where the fit begins, who follows it, and when it has to end; by default it begins
            with new weights, nobody follows it, and it may take as long as it needs.

    Raises:
        CheckpointError: the checkpoint is of another training.
        ValueError: there is no event to learn from.
    """
    course = Course() if course is None else course
    start, checkpoint = course.start, course.checkpoint
    torch.manual_seed(options.seed)
    trained = Trained(UserEncoder(config)).to(device)
    if start is not None:
        take_over(start, trained)
    segments = windows(sequences, train, options.window)
    learner = Learner(trained, sequences, items, train, options, device, trend)
    if not any(sequences.targets[w.begin : w.end].any() for w in segments):
        raise ValueError("no positive event of a known item to learn from")
    optimizer = AdamW(trained.parameters(), options.learning_rate, options.weight_decay)
    places = np.flatnonzero(np.isin(sequences.positions, validation))
    fitted = Fitted(trained, learner.trend_scores)
    best = _copied(trained)
    fingerprint = msgspec.json.encode([options, config, len(train), int(train.sum())]).decode()
    if checkpoint is not None and checkpoint.exists():
        lines, best = load_checkpoint(checkpoint, fingerprint, trained, optimizer)
        fitted.curve = msgspec.convert(lines, list[Epoch])
    for epoch in range(len(fitted.curve) + 1, options.epochs + 1):
        best_ndcg, fitted.best_epoch = _best(fitted.curve)
        if len(places) and epoch - fitted.best_epoch > options.patience:
            break
        if fitted.curve and time.monotonic() + fitted.curve[-1].seconds > course.until:
            fitted.left_out = options.epochs + 1 - epoch
            break
        optimizer.learning_rate = rate_of(epoch, options)
        started = time.monotonic()
        loss = learner.epoch(epoch, segments, optimizer, best_ndcg, course.report)
        hit, ndcg = validate(
            trained.encoder, sequences, items, places, options.repeats, learner.trend_scores
        )
        fitted.curve.append(Epoch(epoch, time.monotonic() - started, loss, hit, ndcg))
        if ndcg > best_ndcg or not len(places):
            best = _copied(trained)
        if checkpoint is not None:
            lines = msgspec.to_builtins(fitted.curve)
            save_checkpoint(checkpoint, fingerprint, lines, trained, optimizer, best)
        course.after_epoch(fitted.curve[-1])
    fitted.best_epoch = _best(fitted.curve)[1] if len(places) else len(fitted.curve)
    trained.load_state_dict(best)
    trained.eval()
    return fitted


def rate_of(epoch: int, options: EncoderOptions) -> float:
    """Return the learning rate of an epoch, the first being 1."""
    share = (epoch - 1) / max(options.epochs, 1)
    return options.learning_rate * (1.0 + math.cos(math.pi * share)) / 2.0


@torch.no_grad()
def take_over(source: Trained, target: Trained) -> None:
    """Copy weights into a model of the same shape that may know more items.

    Items beyond those of `source` get the mean bias, like unknown ones.
    """
    weights = source.state_dict()
    for name, value in target.state_dict().items():
        some = value[: len(weights[name])] if name.startswith("encoder.id_") else value
        some.copy_(weights[name])
    ids = source.encoder.config.ids
    if ids:
        target.encoder.id_bias[ids + 1 :] = source.encoder.id_bias[1:].mean()


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def _best(curve: list[Epoch]) -> tuple[float, int]:
    """Return the best validation NDCG@10 so far and its epoch; (-1, 0) before any."""
    return max(
        ((line.validation_ndcg_at_10, line.epoch) for line in curve),
        key=lambda best: (best[0], -best[1]),
        default=(-1.0, 0),
    )
