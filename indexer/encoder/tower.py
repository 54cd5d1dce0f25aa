"""Train a Tower: encoder and scene attention before the ranker's examples, then both on all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from indexer.data.histories import TEST, TRAIN, EventLog, Protocol, split
from indexer.data.users import Attributes, known_attributes
from indexer.encoder.attention import (
    Asked,
    AttentionOptions,
    Frozen,
    collect_interests,
    fit_attention,
    known_scenes,
    mean_attended,
)
from indexer.encoder.choice import Setting, Tried, choose, cores, settings_to_try
from indexer.encoder.fit import Epoch, Fitted, fit_encoder, pick_device
from indexer.encoder.learner import EncoderOptions
from indexer.encoder.options import (
    MAX_JUDGED,
    MEAN_TARGETS,
    REFIT_EPOCHS,
    REFIT_RATE,
    EncoderFit,
    Shown,
    TowerOptions,
    check_enough,
    first_config,
    first_options,
    nothing_shown,
    settled,
)
from indexer.encoder.scores import Items, catalogue_table, known_items, target_ranks, user_vectors
from indexer.encoder.sequences import fit_config, make_sequences
from indexer.encoder.side_fits import Fit, side_fits
from indexer.encoder.trend import Trend
from indexer.evaluate.metrics import gains_at_k
from indexer.items.assemble import Assembled, in_memory
from indexer.items.tower_items import FittedTower, make_tower
from indexer.replay.replay import Replay
from tracker.encoder.attended import interest_names
from tracker.encoder.scene_attention import SceneAttention
from tracker.encoder.steps import with_bias
from tracker.encoder.tower import Tower
from tracker.scoring.blend import Blend


class TowerTraining:
    """One training of an encoder and of the attention on top of it, in two fits.

    `fit` learns from the events before the ranker's examples, and stops by validation; it does so
    with several settings, in processes beside this one, and keeps one of them by `choose`. `refit`
    goes on from there with all events that may be learned from.

    Args:
        parts: the items.
        log: the events.
        attributes: those of each user id.
        protocol: whose targets are left out of everything, if any.
        options: how.
        folder: where what is done is kept, so that an interrupted training goes on.
        shown: shows the epochs.
        told: of each epoch done, with the name of its fit.
        waiting: called where other settings take longer to fit than the first.

    Raises:
        TooFewError: there is too little to learn from.
        ValueError: the device is not there.
    """

    def __init__(
        self,
        parts: Assembled,
        log: EventLog,
        attributes: Mapping[str, Attributes],
        protocol: Protocol | None,
        options: TowerOptions,
        folder: Path | None = None,
        shown: Shown = nothing_shown,
        told: Callable[[str, msgspec.Struct], None] = lambda name, epoch: None,
        waiting: Callable[[], None] = lambda: None,
    ) -> None:
        self.device = pick_device(options.device)
        self._parts, self._log, self._attributes = parts, log, attributes
        self._options, self._folder, self._shown, self._told = options, folder, shown, told
        self._waiting = waiting
        parted = split(log, "gts" if protocol is None else protocol)
        self._first = parted.parts == TRAIN
        self._allowed = np.full(len(log), True) if protocol is None else parted.parts < TEST
        self._rows = parts.items.row_of(log.batch.items)
        learned = log.positive & (self._rows >= 0)
        judged = parted.validation[self._rows[parted.validation] >= 0]
        self._judged = _spread(judged, MAX_JUDGED)
        self._learned = np.flatnonzero(learned)
        self._targets = np.flatnonzero(learned & self._first)
        check_enough(len(self._targets), len(judged))
        self._items, self._all_items = self._catalogue(learned)
        base = first_config(options, self.device, parts.items.full_dim)
        self.tried: list[Tried] = []
        self.config = fit_config(log, self._allowed, int(self._items.ids.max()), attributes, base)
        self._sequences = make_sequences(log, self._rows, self._items.ids, attributes, self.config)
        some = learned & self._allowed
        self._trend = Trend(self._rows[some], log.batch.times[some], len(parts.items))
        self._asked: Asked | None = None
        self._latest: tuple[Fitted, Items] | None = None
        self.curves: dict[str, Sequence[Epoch]] = {}
        self.attention: SceneAttention | None = None
        self.fitted: Fitted | None = None
        self._kept_options = first_options(options, self.device, len(self._targets))

    def fit(self) -> Tower:
        """Train on what comes before the ranker's examples; return what serves."""
        base = Setting(self.config.dim, self.config.dropout, self._kept_options.learning_rate)
        tries = settled(self._options).tries or 1
        settings = settings_to_try(base, tries, self._options.dim is not None)
        beside = 1 if self.device.type == "cuda" else max(1, cores() - 1)  # a GPU has one memory
        with TemporaryDirectory() as temporary:
            folder = Path(temporary) if self._folder is None else self._folder
            fits = [self._fit(setting, folder) for setting in settings[1:]]
            with side_fits(fits, beside, self._waiting):
                first = self._run(
                    "encoder", self._first, self._judged, self._items, self._kept_options, None
                )
            self.fitted = self._choose(settings, first, fits) if fits else first
        self.attention = self._attend(self.fitted, refit=False)
        return self._tower(self.fitted, self._items, self._first)

    def refit(self) -> Tower:
        """Go on with all events that may be learned from; return what serves."""
        if self.fitted is None:
            raise ValueError("refit before fit")
        known = self._all_items
        self.config = msgspec.structs.replace(self.config, ids=int(known.ids.max()))
        ids = np.where(self._sequences.rows >= 0, known.ids[self._sequences.rows], 0)
        self._sequences = replace(self._sequences, ids=ids)
        rate = REFIT_RATE * self._kept_options.learning_rate
        options = msgspec.structs.replace(
            self._kept_options, epochs=REFIT_EPOCHS, learning_rate=rate
        )
        nothing = np.zeros(0, np.int64)
        again = self._run("refit", self._allowed, nothing, known, options, self.fitted)
        if self.attention is not None:
            self.attention = self._attend(again, refit=True)
        return self._tower(again, known, self._allowed)

    def vectors_at(
        self, events: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return what the latest fit says of users before events, without scene attention.

        Returns:
            users (Q, D + 1), the last column 1, and items by row (N, D + 1), the last what takes
            off the score of the mean user: inner products are the ranker's column.
        """
        if self._latest is None:
            raise ValueError("vectors before a fit")
        fitted, items = self._latest
        table, _ = catalogue_table(fitted.model, items)
        users = user_vectors(fitted.model, self._sequences, table, self._places(events))
        ones = np.ones((len(users), 1), np.float32)
        mean = fitted.model.get_buffer("mean_query").to(table.device)
        return np.concatenate([users, ones], axis=1), with_bias(table, -(table @ mean))

    def _places(self, events: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where events stand among the sequences."""
        place = np.empty(len(self._log), np.int64)
        place[self._sequences.positions] = np.arange(len(self._sequences.positions))
        return place[events]

    def done(self) -> EncoderFit:
        """Say what came of it."""
        assert self.fitted is not None
        best = self.fitted.curve[self.fitted.best_epoch - 1]
        return EncoderFit(
            epochs=len(self.fitted.curve),
            best_epoch=best.epoch,
            hit_rate_at_10=best.validation_hit_rate_at_10,
            ndcg_at_10=best.validation_ndcg_at_10,
            loss=best.loss,
            refit_epochs=REFIT_EPOCHS,
            learning_rate=self._kept_options.learning_rate,
            dim=self.config.dim,
            dropout=self.config.dropout,
            cell=self.config.cell,
            scenes=0 if self.attention is None else len(self.attention.config.scenes),
            attributes=len(self.config.attributes),
            tried=tuple(self.tried),
        )

    def _fit(self, setting: Setting, folder: Path) -> Fit:
        """Return the first fit with another setting."""
        return Fit(
            self._sequences, self._items,
            msgspec.structs.replace(self.config, dim=setting.dim, dropout=setting.dropout),
            self._first, self._judged,
            msgspec.structs.replace(self._kept_options, learning_rate=setting.learning_rate),
            self.device, self._trend if self._options.trend else None,
            folder / f"encoder-{setting.name}.safetensors",
        )  # fmt: skip

    def _choose(self, settings: list[Setting], first: Fitted, fits: list[Fit]) -> Fitted:
        """Return the fit that is kept, and go on with its setting."""
        gains = [self._gains(first)]
        for setting, fit in zip(settings[1:], fits, strict=True):  # one at a time in memory
            fitted = fit.take_up()
            self.curves[f"encoder-{setting.name}"] = fitted.curve
            gains.append(self._gains(fitted))
        kept, self.tried = choose(settings, np.stack(gains))
        if not kept:
            return first
        fit = fits[kept - 1]
        self.config, self._kept_options = fit.config, fit.options
        fitted = fit.take_up()
        self._latest = fitted, self._items
        return fitted

    def _gains(self, fitted: Fitted) -> NDArray[np.float64]:
        """Return the NDCG@10 (Q,) of each validation target by a fit."""
        places = np.sort(self._places(self._judged))
        ranks = target_ranks(
            fitted.model, self._sequences, self._items, places, self._options.repeats, fitted.beside
        )
        return gains_at_k(ranks, 10)

    def _catalogue(self, learned: NDArray[np.bool_]) -> tuple[Items, Items]:
        """Return the catalogue as `fit` and as `refit` know it: later items have the later ids."""
        rows, times, count = self._rows, self._log.batch.times, len(self._parts.items)
        texts = np.asarray(self._parts.items.full)
        some = learned & self._first
        ids, born = known_items(rows[some], times[some], count)
        some = learned & self._allowed
        every, born_of_all = known_items(rows[some], times[some], count)
        new = np.flatnonzero((every > 0) & (ids == 0))
        more = ids.copy()
        more[new] = ids.max() + 1 + np.arange(len(new))
        return Items(texts, ids, born), Items(texts, more, born_of_all)

    def _run(
        self,
        name: str,
        train: NDArray[np.bool_],
        validation: NDArray[np.int64],
        items: Items,
        options: EncoderOptions,
        start: Fitted | None,
    ) -> Fitted:
        with self._shown(name, options.epochs) as report:
            found = fit_encoder(
                self._sequences, items, self.config, train, validation, options,
                device=self.device, trend=self._trend if self._options.trend else None, start=start,
                checkpoint=None if self._folder is None else self._folder / f"{name}.safetensors",
                report=report, told=lambda epoch: self._told(name, epoch),
            )  # fmt: skip
        self.curves[name] = found.curve
        self._latest = found, items
        return found

    def _attend(self, fitted: Fitted, *, refit: bool) -> SceneAttention | None:
        """Fit scene attention where there are scenes to be told apart, and where it helps."""
        log, options = self._log, AttentionOptions(seed=self._options.seed)
        scenes = known_scenes(log.batch.scenes[self._targets])
        if len(scenes) < 2 or not self._options.attention:
            return None
        if self._asked is None:
            targets = np.union1d(_spread(self._targets, options.targets), self._judged)
            replay = Replay(in_memory(self._parts), log, None, Blend(), ~self._allowed)
            self._asked = collect_interests(replay, targets)
        asked = self._asked
        later = np.isin(asked.events, self._judged)
        places = np.arange(len(asked.events))
        train, validation = places[~later], places[later]
        if refit:
            train, validation = places, places[:0]
            options = msgspec.structs.replace(options, epochs=1)
        table, biases = catalogue_table(fitted.model, self._all_items if refit else self._items)
        frozen = Frozen(
            user_vectors(fitted.model, self._sequences, table, self._places(asked.events)),
            table, biases, self._rows[asked.events], log.batch.times[asked.events], fitted.beside,
        )  # fmt: skip
        names = interest_names(self._parts.interest)
        start = self.attention if refit else None
        return fit_attention(asked, frozen, scenes, train, validation, names, options, start)

    def _tower(self, fitted: Fitted, items: Items, some: NDArray[np.bool_]) -> Tower:
        model = fitted.model
        model.get_buffer("mean_query").copy_(torch.from_numpy(self._mean(fitted, items, some)))
        figures = msgspec.to_builtins(self.done())
        return make_tower(
            FittedTower(
                model.cpu(),
                self._parts.items.hashes[items.rows()],
                None if self.attention is None else self.attention.cpu(),
                known_attributes(self._attributes, self.config),
                {name: float(v) for name, v in figures.items() if isinstance(v, int | float)},
            ),
            self._parts.items,
        )

    def _mean(self, fitted: Fitted, items: Items, some: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Return the mean user vector at the latest events that were learned from."""
        chosen = self._learned[some[self._learned]][-MEAN_TARGETS:]
        table, _ = catalogue_table(fitted.model, items)
        queries = user_vectors(fitted.model, self._sequences, table, self._places(chosen))
        if self.attention is None or self._asked is None:
            return np.asarray(queries.mean(axis=0))
        asked = self._asked
        place = np.flatnonzero(some[asked.events])
        queries = user_vectors(
            fitted.model, self._sequences, table, self._places(asked.events[place])
        )
        return mean_attended(self.attention, asked, place, queries)


def _spread(positions: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return so many of ascending positions at most, evenly spread."""
    if len(positions) <= most:
        return positions
    return positions[np.linspace(0, len(positions) - 1, most).astype(np.int64)]
