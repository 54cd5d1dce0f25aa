"""What a training of an encoder is told, what that means here, and what comes of it."""

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
"""An encoder needs so many events to learn from, and so many to be judged by."""

MAX_VALIDATION = 4000
"""Validation targets that an epoch is judged by at most, evenly spread."""

MIN_STEPS = 600
"""Epochs are so many that a small log makes this many steps."""

MAX_EPOCHS = 60

DROPOUT = 0.2

MEAN_TARGETS = 8000
"""The mean user vector is that of the latest so many events."""

REFIT_EPOCHS, REFIT_RATE = 4, 0.5
"""Epochs of the refit, which goes on from the weights of the fit, and its share of the rate."""


class TowerOptions(msgspec.Struct, frozen=True):
    """What a training of an encoder is told; None is chosen by device and number of events.

    So many settings are tried at most (`tries`), of which the width is not where `dim` is given;
    None is one a core. Without `trend` an encoder has to learn itself what is popular when; without
    `attention` none is put on top of it.
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
    """Return the encoder that is tried first, of items of so wide texts."""
    dim = options.dim or (128 if device.type == "cuda" else 64)
    return EncoderConfig(cell=options.cell, dim=dim, text_dim=text_dim, dropout=DROPOUT)


def first_options(options: TowerOptions, device: torch.device, targets: int) -> EncoderOptions:
    """Return how the encoder that is tried first is fitted to so many targets."""
    chosen = msgspec.structs.replace(
        options.encoder or EncoderOptions(), repeats=options.repeats, seed=options.seed
    )
    if device.type == "cuda":
        chosen = msgspec.structs.replace(chosen, learning_rate=3e-3, batch_events=8192)
    epochs = options.epochs
    if epochs is None:
        steps = max(1, round(targets / chosen.batch_events))
        epochs = min(MAX_EPOCHS, max(chosen.epochs, -(-MIN_STEPS // steps)))
    return msgspec.structs.replace(chosen, epochs=epochs)


class EncoderFit(msgspec.Struct, frozen=True):
    """What the training of an encoder came to, of the epoch whose weights were kept.

    `tried` has every setting that was tried, the kept one among them; none where only one was.
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
    """The events cannot teach an encoder; the message says why. A ranker may be trained alone."""


Display = Callable[[str, int], AbstractContextManager[Report]]
"""Shows the epochs of a training: its name and their number, to what is told of each batch."""


def no_display(name: str, epochs: int) -> AbstractContextManager[Report]:
    """Show nothing."""
    return nullcontext(lambda epoch, share, loss, best: None)


def check_enough(targets: int, validation: int) -> None:
    """Refuse too few events to learn an encoder from.

    Raises:
        TooFewError: that is so.
    """
    if targets < MIN_TARGETS or validation < MIN_VALIDATION:
        raise TooFewError(
            f"{targets} events to learn an encoder from and {validation} to judge it by; at least"
            f" {MIN_TARGETS} and {MIN_VALIDATION} are needed"
        )
