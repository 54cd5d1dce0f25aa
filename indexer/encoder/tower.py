"""Fit a Tower: encoder and scene attention before the ranker's examples, then both on all."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from indexer.data.holdout import evenly_spread
from indexer.data.users import known_attributes
from indexer.encoder.attention import (
    AttentionOptions,
    FrozenEncoder,
    TargetInterests,
    collect_interests,
    fit_attention,
    known_scenes,
    mean_attended,
)
from indexer.encoder.budget import ENCODER_SHARE, Budget
from indexer.encoder.choice import Setting, Tried, choose, cores, settings_to_try
from indexer.encoder.fit import Course, Epoch, Fitted, fit_encoder
from indexer.encoder.learner import EncoderOptions, Trained
from indexer.encoder.options import (
    MEAN_TARGETS,
    REFIT_EPOCHS,
    REFIT_RATE,
    Display,
    EncoderFit,
    no_display,
)
from indexer.encoder.scores import catalogue_table, target_ranks, user_vectors
from indexer.encoder.side_fits import Fit, side_fits
from indexer.encoder.tower_data import Part, TowerData
from indexer.evaluate.metrics import gains_at_k
from indexer.items.assemble import in_memory
from indexer.items.tower_items import FittedTower, make_tower
from indexer.replay.replay import Replay
from indexer.shards import Shards
from tracker.encoder.interests import interest_names
from tracker.encoder.scene_attention import SceneAttention
from tracker.encoder.steps import with_bias
from tracker.encoder.tower import Tower
from tracker.encoder.user_encoder import EncoderConfig
from tracker.scoring.blend import Blend

LEAST_BESIDE = 15.0
"""Seconds that a refit must take to be run in a process of its own, which takes 5 s to start."""

_REFIT = "refit"
"""The name of the refit's curve and checkpoint."""

_NO_VALIDATION = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True)
class TowerProgress:
    """Callbacks that report the progress of a tower's fits.

    Attributes:
        display: shows the batches of a fit's epochs.
        epoch: called after each epoch, with the name of its fit.
        waiting: called when the other settings take longer to fit than the first.
    """

    display: Display = no_display
    epoch: Callable[[str, msgspec.Struct], None] = lambda name, epoch: None
    waiting: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class TowerFit:
    """The result of one of the two fits of a tower.

    Attributes:
        tower: the tower that serves.
        encoder: the encoder, with its curve.
        config: the encoder's configuration.
        options: hyperparameters of the first fit, those of the setting that was kept.
        part: the data that it learned from.
        attention: scene attention, None if there are no scenes to tell apart or it does not help.
        interests: the users' interests at the attention's targets, None if none were needed.
        summary: figures of the training, for its result and the manifest.
        curves: the curves of all fits by name.
    """

    tower: Tower
    encoder: Fitted
    config: EncoderConfig
    options: EncoderOptions
    part: Part
    attention: SceneAttention | None
    interests: TargetInterests | None
    summary: EncoderFit
    curves: Mapping[str, Sequence[Epoch]]


def fit_tower(
    data: TowerData,
    folder: Path | None = None,
    progress: TowerProgress | None = None,
    budget: Budget | None = None,
    shards: Shards | None = None,
) -> TowerFit:
    """Fit encoder and attention on the events before the ranker's examples.

    1. Fit the encoder with the first setting, and with the other settings in other processes.
    2. Keep one setting by its NDCG@10 on the validation targets.
    3. Fit scene attention on top of it, and keep it if it lowers the validation loss.
    4. Bring the catalogue into the encoder's space.

    Args:
        data: events and items.
        folder: where checkpoints are kept, so that an interrupted training can be resumed.
        progress: callbacks.
        budget: the time of the training; None for as long as it takes.
        shards: what fits the other settings; None for processes of this machine.
    """
    progress = TowerProgress() if progress is None else progress
    budget = Budget(None) if budget is None else budget
    until = budget.until(ENCODER_SHARE)
    part, options = data.early, data.encoder_options
    base = Setting(data.config.dim, data.config.dropout, options.learning_rate)
    settings = settings_to_try(base, data.options.tries or 1, data.options.dim is not None)
    processes = 1 if data.device.type == "cuda" else max(1, cores() - 1)  # a GPU has one memory
    # 1. Fit the encoder with every setting.
    with TemporaryDirectory() as temporary:
        others = [
            _side_fit(data, setting, Path(temporary) if folder is None else folder, until)
            for setting in settings[1:]
        ]
        with side_fits(others, processes, progress.waiting, shards):
            first = _fit_encoder(
                data, part, "encoder", data.config, options, data.validation, folder, progress,
                until=until,
            )  # fmt: skip
        # 2. Keep one setting.
        choice = _choose(data, settings, first, others, budget)
    # 3. Fit scene attention.
    interests = _interests(data)
    attention = None
    if interests is not None:
        attention = _fit_attention(data, part, choice.encoder, interests, None)
    # 4. Bring the catalogue into the encoder's space.
    summary = _summary(choice, attention)
    tower = _tower(data, part, choice.encoder, choice.config, attention, interests, summary)
    return TowerFit(
        tower=tower,
        encoder=choice.encoder,
        config=choice.config,
        options=choice.options,
        part=part,
        attention=attention,
        interests=interests,
        summary=summary,
        curves=choice.curves,
    )


@contextmanager
def refit_beside(
    data: TowerData,
    fit: TowerFit | None,
    folder: Path | None,
    budget: Budget,
    waiting: Callable[[], None] = lambda: None,
    shards: Shards | None = None,
) -> Iterator[None]:
    """Run the encoder's part of `refit_tower` in another process during the `with` block.

    `refit_tower` then finds its last epoch. Nothing is run where that gains little or nothing: with
    one core, on a GPU, for less than LEAST_BESIDE, and where nothing can be written.

    Args:
        data: events and items.
        fit: the result of `fit_tower`; None for none.
        folder: where checkpoints are kept.
        budget: the time of the training.
        waiting: called when the block ends before the other process.
        shards: what runs it instead of a process of this machine.
    """
    if (
        fit is None
        or folder is None
        or data.device.type == "cuda"
        or (shards is None and cores() < 2)
    ):
        yield
        return
    seconds = fit.encoder.curve[-1].seconds
    if REFIT_EPOCHS * seconds < LEAST_BESIDE or not budget.has(seconds):
        yield
        return
    config, options = _refit_settings(data, fit)
    part = data.whole
    one = Fit(
        part.sequences, part.items, config, part.events, _NO_VALIDATION, options, data.device,
        data.trend, _refit_file(folder), budget.until(), fit.encoder.trained,
    )  # fmt: skip
    with side_fits([one], 1, waiting, shards):
        yield


def _refit_file(folder: Path) -> Path:
    return folder / f"{_REFIT}.safetensors"


def _refit_settings(data: TowerData, fit: TowerFit) -> tuple[EncoderConfig, EncoderOptions]:
    """Return the encoder of a refit, which has more ids than that of the fit, and its options."""
    config = msgspec.structs.replace(fit.config, ids=int(data.whole.items.ids.max()))
    rate = REFIT_RATE * fit.options.learning_rate
    return config, msgspec.structs.replace(fit.options, epochs=REFIT_EPOCHS, learning_rate=rate)


def refit_tower(
    data: TowerData,
    fit: TowerFit,
    folder: Path | None = None,
    progress: TowerProgress | None = None,
    budget: Budget | None = None,
) -> TowerFit:
    """Continue a fit with all events that the training may use.

    If there is no time left for an epoch, the fit stays as it is.

    Args:
        data: events and items.
        fit: the result of `fit_tower`.
        folder: where checkpoints are kept, so that an interrupted training can be resumed.
        progress: callbacks.
        budget: the time of the training; None for as long as it takes.
    """
    progress = TowerProgress() if progress is None else progress
    budget = Budget(None) if budget is None else budget
    is_begun = folder is not None and _refit_file(folder).exists()
    if not is_begun and not budget.has(fit.encoder.curve[-1].seconds):
        budget.leave_out("the encoder's refit on the latest events")
        return fit
    part = data.whole
    config, options = _refit_settings(data, fit)
    encoder = _fit_encoder(
        data, part, _REFIT, config, options, _NO_VALIDATION, folder, progress, fit.encoder.trained,
        budget.until(),
    )  # fmt: skip
    if encoder.left_out:
        budget.leave_out(f"{encoder.left_out} of {REFIT_EPOCHS} epochs of the encoder's refit")
    attention = None
    if fit.attention is not None and fit.interests is not None:
        attention = _fit_attention(data, part, encoder, fit.interests, fit.attention)
    summary = msgspec.structs.replace(fit.summary, scenes=_scenes(attention))
    return TowerFit(
        tower=_tower(data, part, encoder, config, attention, fit.interests, summary),
        encoder=encoder,
        config=config,
        options=fit.options,
        part=part,
        attention=attention,
        interests=fit.interests,
        summary=summary,
        curves={**fit.curves, "refit": encoder.curve},
    )


def vectors_at(
    data: TowerData, fit: TowerFit, events: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the vectors of users just before events by a fit, without scene attention.

    Args:
        data: events and items.
        fit: the result of `fit_tower` or `refit_tower`.
        events: (Q,) positions in the log.

    Returns:
        users (Q, D + 1), the last column 1, and items by row (N, D + 1), the last column the item's
        bias less the score of the mean user: inner products are the ranker's column.
    """
    model = fit.encoder.model
    table, _ = catalogue_table(model, fit.part.items)
    users = user_vectors(model, fit.part.sequences, table, data.places[events])
    ones = np.ones((len(users), 1), np.float32)
    mean = model.get_buffer("mean_query").to(table.device)
    return np.concatenate([users, ones], axis=1), with_bias(table, -(table @ mean))


def _fit_encoder(
    data: TowerData,
    part: Part,
    name: str,
    config: EncoderConfig,
    options: EncoderOptions,
    validation: NDArray[np.int64],
    folder: Path | None,
    progress: TowerProgress,
    start: Trained | None = None,
    until: float = math.inf,
) -> Fitted:
    with progress.display(name, options.epochs) as report:
        return fit_encoder(
            part.sequences, part.items, config, part.events, validation, options,
            device=data.device, trend=data.trend,
            course=Course(
                start, None if folder is None else folder / f"{name}.safetensors",
                report, lambda epoch: progress.epoch(name, epoch), until,
            ),
        )  # fmt: skip


def _side_fit(data: TowerData, setting: Setting, folder: Path, until: float) -> Fit:
    """Return the fit of another setting, for another process."""
    return Fit(
        data.early.sequences, data.early.items,
        msgspec.structs.replace(data.config, dim=setting.dim, dropout=setting.dropout),
        data.early.events, data.validation,
        msgspec.structs.replace(data.encoder_options, learning_rate=setting.learning_rate),
        data.device, data.trend, folder / f"encoder-{setting.name}.safetensors", until,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Choice:
    """The setting that was kept, its fit, and the curves of all."""

    encoder: Fitted
    config: EncoderConfig
    options: EncoderOptions
    curves: dict[str, Sequence[Epoch]]
    tried: tuple[Tried, ...] = ()


def _choose(
    data: TowerData,
    settings: Sequence[Setting],
    first: Fitted,
    others: Sequence[Fit],
    budget: Budget,
) -> _Choice:
    """Return the fit whose setting is kept; a setting without an epoch in time is none."""
    curves: dict[str, Sequence[Epoch]] = {"encoder": first.curve}
    if first.left_out:
        budget.leave_out(f"{first.left_out} of {data.encoder_options.epochs} epochs of the encoder")
    if budget.minutes is not None:
        late = [other for other in others if not other.checkpoint.exists()]
        if late:
            budget.leave_out(f"{len(late)} of {len(others)} other settings of the encoder")
        pairs = [
            pair for pair in zip(settings[1:], others, strict=True) if pair[1].checkpoint.exists()
        ]
        settings = [settings[0], *(setting for setting, _ in pairs)]
        others = [other for _, other in pairs]
    if not others:
        return _Choice(first, data.config, data.encoder_options, curves)
    gains = [_validation_gains(data, first)]
    for setting, other in zip(settings[1:], others, strict=True):  # one at a time in memory
        fitted = other.resume()
        curves[f"encoder-{setting.name}"] = fitted.curve
        gains.append(_validation_gains(data, fitted))
    place, tried = choose(settings, np.stack(gains))
    if not place:
        return _Choice(first, data.config, data.encoder_options, curves, tuple(tried))
    best = others[place - 1]
    return _Choice(best.resume(), best.config, best.options, curves, tuple(tried))


def _validation_gains(data: TowerData, encoder: Fitted) -> NDArray[np.float64]:
    """Return the NDCG@10 (V,) of each validation target by an encoder."""
    part, places = data.early, np.sort(data.places[data.validation])
    ranks = target_ranks(
        encoder.model,
        part.sequences,
        part.items,
        places,
        data.options.repeats,
        encoder.trend_scores,
    )
    return gains_at_k(ranks, 10)


def _interests(data: TowerData) -> TargetInterests | None:
    """Replay the log for the users' interests at targets; None if scenes need no attention."""
    options = AttentionOptions()
    if len(known_scenes(data.log.batch.scenes[data.targets])) < 2 or not data.options.attention:
        return None
    targets = np.union1d(evenly_spread(data.targets, options.targets), data.validation)
    skip = ~data.whole.events
    replay = Replay(in_memory(data.catalogue), data.log, None, Blend(), skip, forgets=True)
    return collect_interests(replay, targets)


def _fit_attention(
    data: TowerData,
    part: Part,
    encoder: Fitted,
    interests: TargetInterests,
    start: SceneAttention | None,
) -> SceneAttention | None:
    """Fit scene attention on top of an encoder; from `start` on, in one epoch without validation.

    Returns:
        None if it does not lower the loss of the validation targets.
    """
    log, options = data.log, AttentionOptions(seed=data.options.seed)
    later = np.isin(interests.events, data.validation)
    places = np.arange(len(interests.events))
    train, validation = places[~later], places[later]
    if start is not None:
        train, validation = places, places[:0]
        options = msgspec.structs.replace(options, epochs=1)
    table, biases = catalogue_table(encoder.model, part.items)
    events = interests.events
    queries = user_vectors(encoder.model, part.sequences, table, data.places[events])
    frozen = FrozenEncoder(
        queries, table, biases, data.rows[events], log.batch.times[events], encoder.trend_scores
    )
    scenes = known_scenes(log.batch.scenes[data.targets])
    names = interest_names(data.catalogue.interest)
    return fit_attention(interests, frozen, scenes, train, validation, names, options, start)


def _scenes(attention: SceneAttention | None) -> int:
    return 0 if attention is None else len(attention.config.scenes)


def _summary(choice: _Choice, attention: SceneAttention | None) -> EncoderFit:
    encoder, config = choice.encoder, choice.config
    best = encoder.curve[encoder.best_epoch - 1]
    return EncoderFit(
        epochs=len(encoder.curve),
        best_epoch=best.epoch,
        hit_rate_at_10=best.validation_hit_rate_at_10,
        ndcg_at_10=best.validation_ndcg_at_10,
        loss=best.loss,
        refit_epochs=REFIT_EPOCHS,
        learning_rate=choice.options.learning_rate,
        dim=config.dim,
        dropout=config.dropout,
        cell=config.cell,
        scenes=_scenes(attention),
        attributes=len(config.attributes),
        tried=choice.tried,
    )


def _tower(
    data: TowerData,
    part: Part,
    encoder: Fitted,
    config: EncoderConfig,
    attention: SceneAttention | None,
    interests: TargetInterests | None,
    summary: EncoderFit,
) -> Tower:
    """Return the tower that serves, on the CPU; the encoder learns its mean user vector."""
    model, items = encoder.model, data.catalogue.items
    mean = _mean_vector(data, part, encoder, attention, interests)
    model.get_buffer("mean_query").copy_(torch.from_numpy(mean))
    figures = msgspec.to_builtins(summary)
    return make_tower(
        FittedTower(
            model.cpu(),
            items.hashes[part.items.rows()],
            None if attention is None else attention.cpu(),
            known_attributes(data.attributes, config),
            {name: float(v) for name, v in figures.items() if isinstance(v, int | float)},
        ),
        items,
    )


def _mean_vector(
    data: TowerData,
    part: Part,
    encoder: Fitted,
    attention: SceneAttention | None,
    interests: TargetInterests | None,
) -> NDArray[np.float32]:
    """Return the mean user vector (D,) at the latest positive events of a part."""
    events = data.positives[part.events[data.positives]][-MEAN_TARGETS:]
    table, _ = catalogue_table(encoder.model, part.items)
    if attention is None or interests is None:
        queries = user_vectors(encoder.model, part.sequences, table, data.places[events])
        return np.asarray(queries.mean(axis=0))
    places = np.flatnonzero(part.events[interests.events])
    events = interests.events[places]
    queries = user_vectors(encoder.model, part.sequences, table, data.places[events])
    return mean_attended(attention, interests, places, queries)
