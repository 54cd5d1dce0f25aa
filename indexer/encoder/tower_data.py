"""Events and items as the two fits of a tower learn from them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from indexer.data.histories import TEST, TRAIN, EventLog, Protocol, split
from indexer.data.holdout import evenly_spread
from indexer.data.users import Attributes
from indexer.encoder.learner import EncoderOptions
from indexer.encoder.options import (
    MAX_VALIDATION,
    TowerOptions,
    check_enough,
    first_config,
    first_options,
    settled,
)
from indexer.encoder.scores import Items, known_items
from indexer.encoder.sequences import Sequences, fit_config, make_sequences
from indexer.encoder.trend import Trend
from indexer.items.assemble import Assembled
from tracker.encoder.user_encoder import EncoderConfig
from tracker.kernels.device import torch_device


@dataclass(frozen=True, slots=True)
class Part:
    """The part of the data that one fit learns from.

    Attributes:
        events: (E,) bool, the events of the log.
        items: the catalogue; items of these events have an id.
        sequences: all events, with these ids.
    """

    events: NDArray[np.bool_]
    items: Items
    sequences: Sequences


@dataclass(frozen=True, slots=True)
class TowerData:
    """Events and items as the two fits of a tower learn from them: E events, N items.

    Attributes:
        catalogue: the N items.
        log: the E events.
        attributes: users' attributes by user id.
        options: options of the training, settled on this machine.
        device: where it runs.
        rows: (E,) catalogue row of each event, -1 for an unknown item.
        early: the events before the ranker's examples, for the fit.
        whole: all events that the training may use, for the refit; items that `early` has not have
            the later ids.
        positives: (P,) ascending positions of positive events on items of the catalogue.
        targets: (Q,) those of them in `early`.
        validation: (V,) ascending positions of the targets for early stopping.
        places: (E,) place of each event in the sequences, -1 for none.
        config: the encoder that is tried first.
        encoder_options: hyperparameters of its fit.
        trend: popularity of the items over time, None if the encoder has to learn it.
    """

    catalogue: Assembled
    log: EventLog
    attributes: Mapping[str, Attributes]
    options: TowerOptions
    device: torch.device
    rows: NDArray[np.int64]
    early: Part
    whole: Part
    positives: NDArray[np.int64]
    targets: NDArray[np.int64]
    validation: NDArray[np.int64]
    places: NDArray[np.int64]
    config: EncoderConfig
    encoder_options: EncoderOptions
    trend: Trend | None


def make_tower_data(
    catalogue: Assembled,
    log: EventLog,
    attributes: Mapping[str, Attributes],
    protocol: Protocol | None,
    options: TowerOptions,
) -> TowerData:
    """Split the events for both fits, and bring them into columns by user.

    Args:
        catalogue: the items.
        log: the events.
        attributes: users' attributes by user id.
        protocol: the protocol whose targets the training leaves out; None for nothing.
        options: options of the training.

    Raises:
        TooFewError: there are too few events to learn an encoder from.
        DeviceError: the device does not exist.
    """
    options = settled(options)
    device = torch_device(options.device)
    parts = split(log, "gts" if protocol is None else protocol)
    early = parts.parts == TRAIN
    usable = np.full(len(log), True) if protocol is None else parts.parts < TEST
    rows = catalogue.items.row_of(log.batch.items)
    positive = log.positive & (rows >= 0)
    targets = np.flatnonzero(positive & early)
    validation = parts.validation[rows[parts.validation] >= 0]
    check_enough(len(targets), len(validation))
    items, all_items = _items_of_parts(catalogue, log, rows, positive & early, positive & usable)
    base = first_config(options, device, catalogue.items.full_dim)
    config = fit_config(log, usable, int(items.ids.max()), attributes, base)
    sequences = make_sequences(log, rows, items.ids, attributes, config)
    all_ids = np.where(sequences.rows >= 0, all_items.ids[sequences.rows], 0)
    places = np.full(len(log), -1, np.int64)
    places[sequences.positions] = np.arange(len(sequences.positions))
    trend = None
    if options.trend:
        some = positive & usable
        trend = Trend(rows[some], log.batch.times[some], len(catalogue.items))
    return TowerData(
        catalogue=catalogue,
        log=log,
        attributes=attributes,
        options=options,
        device=device,
        rows=rows,
        early=Part(early, items, sequences),
        whole=Part(usable, all_items, replace(sequences, ids=all_ids)),
        positives=np.flatnonzero(positive),
        targets=targets,
        validation=evenly_spread(validation, MAX_VALIDATION),
        places=places,
        config=config,
        encoder_options=first_options(options, device, len(targets)),
        trend=trend,
    )


def _items_of_parts(
    catalogue: Assembled,
    log: EventLog,
    rows: NDArray[np.int64],
    early: NDArray[np.bool_],
    usable: NDArray[np.bool_],
) -> tuple[Items, Items]:
    """Return the items as the fit knows them, and as the refit does: later items, later ids."""
    times, count = log.batch.times, len(catalogue.items)
    texts = np.asarray(catalogue.items.full)
    ids, births = known_items(rows[early], times[early], count)
    all_ids, all_births = known_items(rows[usable], times[usable], count)
    later = np.flatnonzero((all_ids > 0) & (ids == 0))
    appended = ids.copy()
    appended[later] = ids.max() + 1 + np.arange(len(later))
    return Items(texts, ids, births), Items(texts, appended, all_births)
