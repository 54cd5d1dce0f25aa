"""The log of a training: its rating scale, and checks against the catalogue."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer.data.catalog import Catalog
from indexer.data.histories import EventFileError, EventLog, counted, name_kinds, read_event_log
from tracker.events.batch import EventBatch
from tracker.events.entries import Reading
from tracker.events.kinds import Kinds
from tracker.events.rating_scale import rating_scale
from tracker.events.wire import hash_id, kind_code
from tracker.explained import Explained


class TrainingError(Explained, ValueError):
    """The events cannot teach a ranker; the message gives the reason, nothing was published."""


MAX_BEYOND = 0.5
"""Largest share of ratings outside a scale that is fixed; with more it is another scale."""


def read_log(
    paths: Sequence[Path],
    kinds: Kinds,
    before: tuple[float, float] | None,
    not_after: float,
    reading: Reading | None = None,
    fixed: tuple[float, float] | None = None,
    fixed_by: str = "as given",
) -> tuple[EventLog, tuple[float, float]]:
    """Read events with weights for the scale of their ratings; return that scale too.

    The scale is told by the distribution of the ratings, see `rating_scale`. The notes of the log
    say which it is and why.

    Args:
        paths: files of events.
        kinds: the weights.
        before: the scale in use, None for none.
        not_after: float seconds; later timestamps are taken for mistakes.
        reading: how the files are read, None for as they are.
        fixed: the scale that stays whatever the ratings are, None for none.
        fixed_by: words that tell where it comes from.

    Raises:
        EventFileError: a file cannot be used, or most ratings lie outside the fixed scale.
    """
    # On this scale no rating is cut, and -1 is a rating: the values stay as they were written.
    endless = msgspec.structs.replace(kinds, rating_min=-1e30, rating_max=1e30)
    log = read_event_log(paths, endless, not_after, reading)
    codes = [kind_code(name) for name, kind in kinds.table.items() if kind.curve == "rating"]
    ratings = log.batch.values[np.isin(log.batch.kinds, np.array(codes, np.uint16))]
    scale = rating_scale(ratings, before, fixed, fixed_by)
    if scale.share_beyond > MAX_BEYOND:
        raise EventFileError(f"{', '.join(map(str, paths))}: {scale.note}")
    _rescale(log.batch, msgspec.structs.replace(kinds, rating_min=scale.low, rating_max=scale.high))
    notes = [*log.notes, *([scale.note] if scale.note else [])]
    return dataclasses.replace(log, notes=notes), (scale.low, scale.high)


def _rescale(batch: EventBatch, kinds: Kinds) -> None:
    """Weigh the ratings of a batch by another scale; those that are not rated lose their value."""
    for name, kind in kinds.table.items():
        if kind.curve != "rating":
            continue
        rated = np.flatnonzero((batch.kinds == kind_code(name)) & np.isfinite(batch.values))
        values, inverse = np.unique(batch.values[rated], return_inverse=True)
        exact = [float(str(value)) for value in values]  # 3.7, and not the float32 next to it
        weights = [kinds.weight(name, value) for value in exact]
        unrated = [kinds.effective(name, value)[1] is None for value in exact]
        batch.weights[rated] = np.array(weights, np.float32)[inverse]
        batch.values[rated[np.array(unrated, np.bool_)[inverse]]] = np.nan


def items_in_log(catalog: Catalog, log: EventLog) -> Catalog:
    """Return the catalogue without the items that have no event in the log."""
    hashes = set(log.item_hashes.tolist())
    items = [item for item in catalog.items if hash_id(item.item_id) in hashes]
    return dataclasses.replace(catalog, items=items)


def events_in_catalog(catalog: Catalog, log: EventLog) -> NDArray[np.bool_]:
    """Return a mask (E,) bool of the actions on items of the catalogue."""
    hashes = np.array([hash_id(item.item_id) for item in catalog.items], np.uint64)
    mask: NDArray[np.bool_] = np.isin(log.batch.items, hashes) & (log.items >= 0)
    return mask


def check_choice(catalog: Catalog) -> None:
    """Check that the catalogue has more than one item.

    Raises:
        TrainingError: it has one.
    """
    if len(catalog.items) == 1:
        raise TrainingError("the catalogue has one item: there is nothing to choose between")


MAX_LEFT_OUT = 0.1
"""Largest share of lines without a usable event; files with more are refused."""


def check_events(
    paths: Sequence[Path], log: EventLog, in_catalog: NDArray[np.bool_], where: str
) -> str:
    """Return what is to be said of the events read; refuse files that are mostly unusable.

    The first line has the numbers; further ones name up to ten lines left out, by reason.

    Args:
        paths: the files, for their names.
        log: the events, from `read_event_log`.
        in_catalog: (E,) bool, actions on items of the catalogue.
        where: name of the catalogue, for the messages.

    Raises:
        EventFileError: more than a tenth of the lines cannot be used, all events are retractions,
            or none is of an item of the catalogue.
    """
    names = ", ".join(map(str, paths))
    notes = [f"{names}: {counted(len(log), 'event')}"]
    repeated = log.rejected.get("duplicate", 0)
    left_out = sum(log.rejected.values()) - repeated
    if left_out:
        notes.append(f"{counted(left_out, 'line')} left out")
    if log.unknown_kinds:
        notes.append(name_kinds(log.unknown_kinds))
    if repeated:
        notes.append(f"{counted(repeated, 'repeated event_id')} left out")
    if left_out > MAX_LEFT_OUT * (left_out + len(log)):
        remedy = "" if log.unknown_kinds else ": is it a file of events?"
        raise EventFileError(
            f"{'; '.join(notes)}. At most a tenth of the lines may be left out{remedy}"
            f"{log.bad_lines.text()}"
        )
    actions = log.items >= 0
    if not actions.any():
        raise EventFileError(f"{'; '.join(notes)}: all of them retractions, none to learn from")
    strange = actions & ~in_catalog
    if strange.all(where=actions):
        raise EventFileError(
            f"none of the {int(actions.sum())} events is of an item of {where}; item_id must be"
            " the same in both"
        )
    if strange.any():
        items = len(np.unique(log.items[strange]))
        notes.append(
            f"{counted(int(strange.sum()), 'event')} of {counted(items, 'item')} that"
            f" {'is' if items == 1 else 'are'} not in {where}"
        )
    return "\n  ".join(["; ".join(notes) + log.bad_lines.text(), *log.notes])


def check_core(log: EventLog, minimum: int) -> None:
    """Check that events are left by `core`.

    Raises:
        EventFileError: no event is left.
    """
    if not len(log):
        raise EventFileError(
            f"no user and item has {minimum} events or more; choose a smaller --core"
        )
