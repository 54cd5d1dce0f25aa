"""Groups of events that are near together, so that one state of the users answers them all."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import EventLog

MAX_EVENTS, MAX_SECONDS = 16, 300.0
"""Positions of the log and seconds that a group spans at most."""


def groups_of(log: EventLog, events: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield groups of events as [start, stop) in `events`; a user is in a group only once.

    Args:
        log: the events.
        events: (Q,) ascending positions in the log.
    """
    start = 0
    users: set[int] = set()
    times = log.batch.times
    for n, event in enumerate(events.tolist()):
        first = int(events[start])
        user = int(log.users[event])
        if (
            user in users
            or event - first >= MAX_EVENTS
            or times[event] - times[first] > MAX_SECONDS
        ):
            yield start, n
            start, users = n, set()
        users.add(user)
    if len(events):
        yield start, len(events)
