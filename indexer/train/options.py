"""Options, result and progress callbacks of training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from indexer.data.histories import Protocol
from indexer.encoder.options import Display, EncoderFit, TowerOptions, no_display
from indexer.items.item_encoder import Progress
from indexer.train.half_lives import HalfLives
from indexer.train.item_half_lives import ItemHalfLives
from indexer.train.prediction import PredictionOptions
from indexer.train.privacy import PrivacyOptions
from indexer.train.ranker import RankerOptions
from tracker.artifact.manifest import PrivacyInfo
from tracker.events.dialect import OWN
from tracker.events.times import Unit


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Options of a training.

    `protocol` leaves the targets of that protocol out of everything fitted; None trains on all.
    Users and items with fewer than `core` events are left out. `repeats`: items chosen before may
    be chosen again. `refit` is that of a build. Without `tower` no encoder is trained. `columns`
    are the names of columns in the files of events, by field, where the two differ, `timestamps`
    the unit of their timestamps that are numbers, `dialect` their format (see `load_dialect`).
    `rating_scale` is the lowest and highest rating; None to tell them by the ratings. `minutes`
    bounds the training; None for as long as it takes. `signing_key` is the file of the key that
    signs the version. With `privacy` the fits are differentially private, without an encoder.
    """

    protocol: Protocol | None = None
    core: int = 1
    repeats: bool = False
    seed: int = 0
    refit: bool = False
    ranker: RankerOptions = field(default_factory=RankerOptions)
    tower: TowerOptions | None = field(default_factory=TowerOptions)
    prediction: PredictionOptions = field(default_factory=PredictionOptions)
    columns: Mapping[str, str] = field(default_factory=dict)
    rating_scale: tuple[float, float] | None = None
    timestamps: Unit = "auto"
    dialect: str = OWN
    signing_key: Path | None = None
    minutes: float | None = None
    privacy: PrivacyOptions | None = None


class Trained(msgspec.Struct, frozen=True):
    """The result of a training; the JSON of `indexer train --json`.

    `epochs` of the ranker were run, of which `best_epoch` had the least validation loss;
    `validation` is of that one: loss, hit_rate_at_10 and ndcg_at_10 on the latest of the
    `examples`. `encoder` is the result of the user encoder; without one `note` gives the reason.
    `prediction` has auc, user_auc, log_loss and ece of the probability on the latest labelled
    events, None if none was learned; `prediction_note` gives its source, or the reason for none.
    `half_lives` is None if they were not to be chosen, `item_half_lives` with too few targets.
    `left_out` is what there was no time for. `privacy` is the privacy budget that was spent, and
    what it cost; None without one.
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
    item_half_lives: ItemHalfLives | None = None
    left_out: tuple[str, ...] = ()
    privacy: PrivacyInfo | None = None


@dataclass(frozen=True, slots=True)
class TrainProgress:
    """Callbacks that report the progress of training.

    Attributes:
        encoding: takes the number of texts, and returns the progress of their encoding.
        examples: takes the number of targets, and returns a callback for the number replayed.
        epoch: called after each epoch with the name of its fit (encoder, refit, ranker).
        encoder: shows the batches of the encoder's fits.
        note: called with a line on the data, or on a change of the options.
        curves: folder of the curves; None for one below a local root.
    """

    encoding: Callable[[int], Progress] | None = None
    examples: Callable[[int], Callable[[int], None]] = lambda total: lambda count: None
    epoch: Callable[[str, msgspec.Struct], None] = lambda name, epoch: None
    encoder: Display = no_display
    note: Callable[[str], None] = lambda line: None
    curves: Path | None = None
