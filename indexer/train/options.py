"""What a training is told, what comes of it, and who is told how far it is."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from indexer.data.histories import Protocol
from indexer.encoder.options import EncoderFit, Shown, TowerOptions, nothing_shown
from indexer.items.item_encoder import Progress
from indexer.train.half_lives import HalfLives
from indexer.train.prediction import PredictionOptions
from indexer.train.ranker import RankerOptions


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What a training is told.

    `protocol` leaves the targets of that protocol out of everything fitted; None trains on all.
    Users and items with fewer than `core` events are left out. `repeats`: items chosen before may
    be chosen again. `refit` is that of a build. Without `tower` no encoder is trained.
    """

    protocol: Protocol | None = None
    core: int = 1
    repeats: bool = False
    seed: int = 0
    refit: bool = False
    ranker: RankerOptions = field(default_factory=RankerOptions)
    tower: TowerOptions | None = field(default_factory=TowerOptions)
    prediction: PredictionOptions = field(default_factory=PredictionOptions)


class Trained(msgspec.Struct, frozen=True):
    """What a training did; the JSON of `indexer train --json`.

    `epochs` of the ranker were run, of which `best_epoch` had the least validation loss;
    `validation` is of that one: loss, hit_rate_at_10 and ndcg_at_10 on the latest of the
    `examples`. `encoder` is what came of the user encoder; without one `note` says why.
    `prediction` has auc, user_auc, log_loss and ece of the probability on the latest labelled
    events, None where none was learned; `prediction_note` says from what, or why not. `half_lives`
    is None where they were not up for choice.
    """

    artifact: str
    seconds: float
    epochs: int
    validation: dict[str, float]
    best_epoch: int
    examples: int
    events: int
    items: int
    rating_scale: tuple[float, float]
    basis_changed: bool
    path: str
    encoder: EncoderFit | None = None
    note: str = ""
    prediction: dict[str, float | None] | None = None
    prediction_note: str = ""
    half_lives: HalfLives | None = None


@dataclass(frozen=True, slots=True)
class Reports:
    """Who is told how far it is.

    `encoding` of the texts, `examples` of their total and number, `encoder` shows the batches of
    the encoder's fits, `epoch` is told of each epoch with the name of its fit (encoder, refit,
    ranker), and `note` of what is done otherwise than asked for. The curves are written to
    `curves`; below a local root where it is None.
    """

    encoding: Callable[[int], Progress] | None = None
    examples: Callable[[int], Callable[[int], None]] = lambda total: lambda done: None
    epoch: Callable[[str, msgspec.Struct], None] = lambda name, epoch: None
    encoder: Shown = nothing_shown
    note: Callable[[str], None] = lambda line: None
    curves: Path | None = None
