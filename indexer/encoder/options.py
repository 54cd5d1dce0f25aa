"""Options of an encoder's training, their defaults on this machine, and its result."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import msgspec
import torch

from indexer.encoder.choice import MAX_TRIES, USUAL_TRIES, Tried, cores
from indexer.encoder.learner import EncoderOptions, Report
from tracker.encoder.cells import CellName
from tracker.encoder.user_encoder import EncoderConfig
from tracker.kernels.device import torch_device

MIN_TARGETS, MIN_VALIDATION = 1000, 100
"""Fewest events to train an encoder on, and to validate it on."""

MAX_VALIDATION = 4000
"""Validation targets of an epoch at most, evenly spread."""

MIN_STEPS = 600
"""Optimiser steps that a small log makes at least, by more epochs."""

MAX_EPOCHS = 60

DROPOUT = 0.2

MEAN_TARGETS = 8000
"""Number of the latest events behind the mean user vector."""

REFIT_EPOCHS, REFIT_RATE = 4, 0.5
"""Epochs of the refit, which continues the fit, and the factor of its learning rate."""


class TowerOptions(msgspec.Struct, frozen=True):
    """Options of an encoder's training; None is chosen by device and number of events.

    `tries` is the number of settings that are fitted, by default one per core; they differ in width
    only if `dim` is None. Without `trend` the encoder has to learn popularity over time; without
    `attention` there is no scene attention on top of it.
    """

    cell: CellName = "gru"
    dim: int | None = None
    epochs: int | None = None
    device: str = "auto"
    seed: int = 0
    repeats: bool = False
    encoder: EncoderOptions | None = None
    tries: int | None = None
    trend: bool = True
    attention: bool = True


def settled(options: TowerOptions) -> TowerOptions:
    """Return the options with device and number of settings as they are on this machine.

    Raises:
        DeviceError: the device does not exist.
    """
    device = torch_device(options.device)
    tries = options.tries or min(cores(), 2 if device.type == "cuda" else USUAL_TRIES)
    return msgspec.structs.replace(options, device=str(device), tries=min(tries, MAX_TRIES))


def first_config(options: TowerOptions, device: torch.device, text_dim: int) -> EncoderConfig:
    """Return the configuration that is tried first; `text_dim` is the width of the text vectors."""
    dim = options.dim or (128 if device.type == "cuda" else 64)
    return EncoderConfig(cell=options.cell, dim=dim, text_dim=text_dim, dropout=DROPOUT)


def first_options(options: TowerOptions, device: torch.device, targets: int) -> EncoderOptions:
    """Return the hyperparameters that are tried first, for a number of targets."""
    fitting = msgspec.structs.replace(
        options.encoder or EncoderOptions(), repeats=options.repeats, seed=options.seed
    )
    if device.type == "cuda":
        fitting = msgspec.structs.replace(fitting, learning_rate=3e-3, batch_events=8192)
    epochs = options.epochs
    if epochs is None:
        steps = max(1, round(targets / fitting.batch_events))
        epochs = min(MAX_EPOCHS, max(fitting.epochs, -(-MIN_STEPS // steps)))
    return msgspec.structs.replace(fitting, epochs=epochs)


class EncoderFit(msgspec.Struct, frozen=True):
    """The result of an encoder's training, of the epoch whose weights were kept.

    `tried` has every setting that was fitted, the kept one too; it is empty if there was only one.
    """

    epochs: int
    best_epoch: int
    hit_rate_at_10: float
    ndcg_at_10: float
    loss: float
    refit_epochs: int
    learning_rate: float
    dim: int
    dropout: float
    cell: str
    scenes: int
    attributes: int
    tried: tuple[Tried, ...] = ()


class TooFewError(ValueError):
    """There are too few events to train an encoder on; a ranker may be trained alone."""


Display = Callable[[str, int], AbstractContextManager[Report]]
"""Takes the name of a fit and its number of epochs, and yields a callback for its batches."""


def no_display(name: str, epochs: int) -> AbstractContextManager[Report]:
    """Return a display that shows nothing."""
    return nullcontext(lambda epoch, share, loss, best: None)


def check_enough(targets: int, validation: int) -> None:
    """Refuse too few events to train an encoder on.

    Raises:
        TooFewError: there are fewer than MIN_TARGETS or MIN_VALIDATION.
    """
    if targets < MIN_TARGETS or validation < MIN_VALIDATION:
        raise TooFewError(
            f"{targets} events to learn an encoder from and {validation} to judge it by; at least"
            f" {MIN_TARGETS} and {MIN_VALIDATION} are needed"
        )
