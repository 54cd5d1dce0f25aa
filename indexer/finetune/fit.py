"""The loop that fine-tunes a text encoder: rounds of steps, the best by validation kept."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from indexer.encoder.checkpoint import load_checkpoint, save_checkpoint
from indexer.finetune.lessons import Lesson
from indexer.finetune.text_model import Learner

LEARNING_RATES = {"lora": 1e-3, "top": 1e-4, "whole": 1e-4}

_WARM_UP = 0.1
"""Share of the training in which the learning rate rises."""

_CLIP = 1.0


class FitOptions(msgspec.Struct, frozen=True):
    """How long and how fast.

    The learning rate rises over the first tenth of the steps and falls to nothing at the end. After
    each of `epochs` equal parts validation is asked; after `patience` of them without a better one
    the training ends. Where the steps would take longer than `minutes`, by what they took so far,
    there are fewer; else the clock decides nothing, and the same seed gives the same weights.
    """

    learning_rate: float
    steps: int = 240
    minutes: float = 8.0
    epochs: int = 8
    patience: int = 3
    weight_decay: float = 0.01
    seed: int = 0


class Epoch(msgspec.Struct, frozen=True):
    """One line of the curve; `validation` is of a sample of the items."""

    epoch: int
    steps: int
    seconds: float
    loss: float
    validation: float


Report = Callable[[int, float, float, float], None]
"""Called after each step with the epoch, its share done, its loss, and the best validation."""


@dataclass(slots=True)
class Fitted:
    """The curve of a training, and the epoch the weights are of: 0 is what they were before."""

    curve: list[Epoch] = field(default_factory=list)
    best_epoch: int = 0


def fit(
    learner: Learner,
    lesson: Lesson,
    tokens: list[list[int]],
    validate: Callable[[], float],
    before: float,
    options: FitOptions,
    *,
    checkpoint: Path | None = None,
    of: str = "",
    report: Report | None = None,
) -> Fitted:
    """Train until validation has not risen for `patience` epochs; the best weights are loaded.

    Args:
        learner: the encoder.
        lesson: what it learns from.
        tokens: of all texts.
        validate: measures the encoder as it is; higher is better.
        before: what it said before the training.
        options: how.
        checkpoint: a file written after each epoch, and taken up where it is there.
        of: what training this is, for the checkpoint.
        report: called after each step.

    Raises:
        CheckpointError: the checkpoint is of another training.
    """
    weights = nn.ParameterList([*learner.weights, *lesson.weights])
    optimizer = torch.optim.AdamW(
        weights.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
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
        done = sum(line.steps for line in fitted.curve)
        spent = sum(line.seconds for line in fitted.curve)
        planned = (
            min(options.steps, int(done * limit / max(spent, 0.01))) if done else options.steps
        )
        if epoch - fitted.best_epoch > options.patience or done >= planned:
            break
        started = time.monotonic()
        made = lesson.batches(np.random.default_rng((options.seed, epoch)))
        losses: list[float] = []
        for step, places in zip(range(done, min(done + each, planned)), made, strict=False):
            if losses and spent + time.monotonic() - started > limit:
                break
            rate = min(1.0, (step + 1) / (_WARM_UP * options.steps)) * (1.0 - step / planned)
            for group in optimizer.param_groups:
                group["lr"] = options.learning_rate * rate
            losses.append(_step(learner, lesson, tokens, places, optimizer, weights))
            if report is not None:
                report(epoch, len(losses) / each, float(np.mean(losses)), value)
        found = validate()
        seconds = round(time.monotonic() - started, 2)
        mean = float(np.mean(losses))
        fitted.curve.append(Epoch(epoch, len(losses), seconds, mean, found))
        if found > value:
            best = _copy(weights)
        if checkpoint is not None:
            lines = msgspec.to_builtins(fitted.curve)
            save_checkpoint(checkpoint, of, lines, weights, optimizer, best)
    weights.load_state_dict(best)
    return fitted


def _step(
    learner: Learner,
    lesson: Lesson,
    tokens: list[list[int]],
    places: np.ndarray,
    optimizer: torch.optim.Optimizer,
    weights: nn.ParameterList,
) -> float:
    vectors, graphs = learner.vectors([tokens[text] for text in lesson.texts(places).tolist()])
    loss = lesson.loss(places, vectors)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    learner.backward(vectors, graphs)
    nn.utils.clip_grad_norm_(weights.parameters(), _CLIP)
    optimizer.step()
    return float(loss.detach())


def _copy(weights: nn.ParameterList) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in weights.state_dict().items()}


def _best(before: float, curve: list[Epoch]) -> tuple[float, int]:
    """Return the best validation so far and its epoch, 0 where none was better than before."""
    value, epoch = before, 0
    for line in curve:
        if line.validation > value:
            value, epoch = line.validation, line.epoch
    return value, epoch
