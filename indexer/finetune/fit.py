"""The training loop of a text encoder: epochs of steps; the best by validation is kept."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from torch import Tensor, nn

from indexer.encoder.checkpoint import load_checkpoint, save_checkpoint
from indexer.encoder.optimizer import AdamW
from indexer.finetune.tasks import TrainingTask
from indexer.finetune.text_model import Learner

LEARNING_RATES = {"lora": 1e-3, "top": 1e-4, "whole": 1e-4}

_WARM_UP = 0.1
"""Share of the training in which the learning rate rises."""

_CLIP = 1.0


class FitOptions(msgspec.Struct, frozen=True):
    """Length and speed of a training.

    The learning rate rises over the first tenth of the steps, and falls to zero at the end. Each
    of `epochs` equal parts ends with a validation; after `patience` epochs without a better one
    the training ends. If the steps would take longer than `minutes`, there are fewer of them;
    otherwise the clock decides nothing, and the same seed gives the same weights.
    """

    learning_rate: float
    steps: int = 240
    minutes: float = 8.0
    epochs: int = 8
    patience: int = 3
    weight_decay: float = 0.01
    seed: int = 0


class Epoch(msgspec.Struct, frozen=True):
    """One line of the training curve; `validation` is the measure on a sample of the items."""

    epoch: int
    steps: int
    seconds: float
    loss: float
    validation: float


Report = Callable[[int, float, float, float], None]
"""Called after each step with the epoch, its share done, its loss, and the best validation."""


@dataclass(slots=True)
class Fitted:
    """The curve of a training, and the epoch of the weights; 0 is before the training."""

    curve: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0


def fit(
    learner: Learner,
    task: TrainingTask,
    tokens: list[list[int]],
    validate: Callable[[], float],
    before: float,
    options: FitOptions,
    *,
    checkpoint: Path | None = None,
    of: str = "",
    report: Report | None = None,
) -> Fitted:
    """Train until the validation has not risen for `patience` epochs; load the best weights.

    Args:
        learner: the encoder.
        task: batches and their loss.
        tokens: token ids of each text, by its position.
        validate: returns the measure of the encoder with its present weights; higher is better.
        before: the measure before the training.
        options: length and speed.
        checkpoint: file written after each epoch; if it exists, the training resumes from it.
        of: name of the training; a checkpoint of another one is refused.
        report: called after each step.

    Returns:
        the curve, and the epoch whose weights the learner has now.

    Raises:
        CheckpointError: the checkpoint is of another training.
    """
    weights = nn.ParameterList([*learner.weights, *task.weights])
    optimizer = AdamW(weights.parameters(), options.learning_rate, options.weight_decay)
    best = _copy(weights)
    fitted = Fitted()
    of = f"{of} {msgspec.json.encode(options).decode()}"
    if checkpoint is not None and checkpoint.exists():
        lines, best = load_checkpoint(checkpoint, of, weights, optimizer)
        fitted.curve = msgspec.convert(lines, list[Epoch])
    each = max(1, math.ceil(options.steps / options.epochs))
    limit = options.minutes * 60.0
    while True:
        epoch = len(fitted.curve) + 1
        value, fitted.best_epoch = _best(before, fitted.curve)
        steps = sum(line.steps for line in fitted.curve)
        spent = sum(line.seconds for line in fitted.curve)
        planned = (
            min(options.steps, int(steps * limit / max(spent, 0.01))) if steps else options.steps
        )
        if epoch - fitted.best_epoch > options.patience or steps >= planned:
            break
        started = time.monotonic()
        batches = task.batches(np.random.default_rng((options.seed, epoch)))
        losses: list[float] = []
        for step, places in zip(range(steps, min(steps + each, planned)), batches, strict=False):
            if losses and spent + time.monotonic() - started > limit:
                break
            rate = min(1.0, (step + 1) / (_WARM_UP * options.steps)) * (1.0 - step / planned)
            optimizer.learning_rate = options.learning_rate * rate
            losses.append(_step(learner, task, tokens, places, optimizer, weights))
            if report is not None:
                report(epoch, len(losses) / each, float(np.mean(losses)), value)
        measure = validate()
        seconds = round(time.monotonic() - started, 2)
        mean = float(np.mean(losses))
        fitted.curve.append(Epoch(epoch, len(losses), seconds, mean, measure))
        if measure > value:
            best = _copy(weights)
        if checkpoint is not None:
            lines = msgspec.to_builtins(fitted.curve)
            save_checkpoint(checkpoint, of, lines, weights, optimizer, best)
    weights.load_state_dict(best)
    return fitted


def _step(
    learner: Learner,
    task: TrainingTask,
    tokens: list[list[int]],
    places: np.ndarray,
    optimizer: AdamW,
    weights: nn.ParameterList,
) -> float:
    vectors, graphs = learner.vectors([tokens[text] for text in task.texts(places).tolist()])
    loss = task.loss(places, vectors)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    learner.backward(vectors, graphs)
    nn.utils.clip_grad_norm_(weights.parameters(), _CLIP)
    optimizer.step()
    return float(loss.detach())


def _copy(weights: nn.ParameterList) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.state_dict().items()}


def _best(before: float, curve: list[Epoch]) -> tuple[float, int]:
    """Return the best measure so far and its epoch, 0 if none is better than before."""
    value, epoch = before, 0
    for line in curve:
        if line.validation > value:
            value, epoch = line.validation, line.epoch
    return value, epoch
