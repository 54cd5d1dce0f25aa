"""The log that a training learns from: its rating scale, its items, and whether they meet."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer.data.catalog import Catalog
from indexer.data.histories import EventLog, read_event_log
from tracker.events.kinds import Kinds
from tracker.events.wire import hash_id, kind_code


class TrainingError(ValueError):
    """The events cannot teach a ranker; nothing was published, the message says why."""


def read_log(
    paths: Sequence[Path], kinds: Kinds, scale: tuple[float, float] | None, not_after: float
) -> tuple[EventLog, tuple[float, float]]:
    """Read events, with the weights that the ratings in them call for; return the scale too.

    The scale given (else 1 to 5) is kept where no rating is above it; else it is 0 to 10, or 0 to
    the highest rating if that is more.

    Raises:
        EventFileError: a file cannot be used.
    """
    low, high = (1.0, 5.0) if scale is None else scale
    scaled = msgspec.structs.replace(kinds, rating_min=low, rating_max=high)
    log = read_event_log(paths, scaled, not_after)
    codes = [kind_code(name) for name, kind in kinds.table.items() if kind.curve == "rating"]
    ratings = log.batch.values[np.isin(log.batch.kinds, codes)]
    highest = float(np.nanmax(ratings)) if np.isfinite(ratings).any() else high
    if highest <= high:
        return log, (low, high)
    low, high = 0.0, max(10.0, highest)
    scaled = msgspec.structs.replace(kinds, rating_min=low, rating_max=high)
    return read_event_log(paths, scaled, not_after), (low, high)


def met(catalog: Catalog, log: EventLog) -> Catalog:
    """Return the catalogue's items that the log has."""
    hashes = set(log.item_hashes.tolist())
    kept = [item for item in catalog.items if hash_id(item.item_id) in hashes]
    return dataclasses.replace(catalog, items=kept)


def known_items(catalog: Catalog, log: EventLog) -> NDArray[np.bool_]:
    """Return (E,) bool: which events are of items of the catalogue."""
    hashes = np.array([hash_id(item.item_id) for item in catalog.items], np.uint64)
    known: NDArray[np.bool_] = np.isin(log.batch.items, hashes) & (log.items >= 0)
    return known


def check_choice(catalog: Catalog) -> None:
    """Refuse a catalogue of one item.

    Raises:
        TrainingError: that is so.
    """
    if len(catalog.items) == 1:
        raise TrainingError("the catalogue has one item: there is nothing to choose between")
