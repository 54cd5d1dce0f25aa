"""The log that a training learns from: its rating scale, its items, and whether they meet."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer.data.catalog import Catalog
from indexer.data.histories import EventFileError, EventLog, counted, name_kinds, read_event_log
from tracker.events.kinds import Kinds
from tracker.events.wire import hash_id, kind_code
from tracker.explained import Explained


class TrainingError(Explained, ValueError):
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


MOST_LEFT_OUT = 0.1
"""Where a larger share of the lines is no event that can be used, the files are refused."""


def check_events(paths: Sequence[Path], log: EventLog, known: NDArray[np.bool_], where: str) -> str:
    """Say in a line what was read; refuse what is for the most part not what it should be.

    Args:
        paths: the files, for their names.
        log: as `read_event_log` gave it.
        known: (E,) bool, events of items in the catalogue; retractions are not looked at.
        where: the catalogue's name, for the messages.

    Raises:
        EventFileError: more than a tenth of the lines cannot be used, all events are retractions,
            or none is of an item of the catalogue.
    """
    names = ", ".join(map(str, paths))
    said = [f"{names}: {counted(len(log), 'event')}"]
    repeated = log.rejected.get("duplicate", 0)
    left_out = sum(log.rejected.values()) - repeated
    if left_out:
        said.append(f"{counted(left_out, 'line')} left out (the first: {log.first_rejection})")
    if log.unknown_kinds:
        said.append(name_kinds(log.unknown_kinds))
    if repeated:
        said.append(f"{counted(repeated, 'repeated event_id')} left out")
    if left_out > MOST_LEFT_OUT * (left_out + len(log)):
        remedy = "" if log.unknown_kinds else ": is it a file of events?"
        raise EventFileError(
            f"{'; '.join(said)}. At most a tenth of the lines may be left out{remedy}"
        )
    actions = log.items >= 0
    if not actions.any():
        raise EventFileError(f"{'; '.join(said)}: all of them retractions, none to learn from")
    strange = actions & ~known
    if strange.all(where=actions):
        raise EventFileError(
            f"none of the {int(actions.sum())} events is of an item of {where}; item_id must be"
            " the same in both"
        )
    if strange.any():
        items = len(np.unique(log.items[strange]))
        said.append(
            f"{counted(int(strange.sum()), 'event')} of {counted(items, 'item')} that"
            f" {'is' if items == 1 else 'are'} not in {where}"
        )
    return "; ".join(said)


def check_core(log: EventLog, minimum: int) -> None:
    """Refuse a core that nothing is left of.

    Raises:
        EventFileError: that is so.
    """
    if not len(log):
        raise EventFileError(
            f"no user and item has {minimum} events or more; choose a smaller --core"
        )
