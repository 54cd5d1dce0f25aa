"""What was read of logged events, in a line, and whether it is enough to go on with."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import EventFileError, EventLog, counted, name_kinds

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
