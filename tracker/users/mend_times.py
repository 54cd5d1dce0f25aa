"""Mending of user rows that have times of the future: from their rings, as far as these reach."""

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.row_bytes import Slots
from tracker.users.apply import rebuild_from_ring
from tracker.users.columns import Catalogue
from tracker.users.states import UserStates


def users_of_the_future(states: UserStates, latest: float) -> Slots:
    """Return the rows of an arena that have any time past `latest`, in seconds."""
    head = states.head
    late = np.zeros(states.capacity, np.bool_)
    for field in ("ref_time", "first_time", "last_time", "emitted_at"):
        late |= head[field] > latest
    for times, used in (
        (states.ring["time"], head["n_ring"]),
        (states.interest_heads["ref_time"], head["n_slots"]),
    ):
        in_use = np.arange(times.shape[1]) < used[:, None]
        late |= ((times > latest) & in_use).any(axis=1)
    return np.flatnonzero(late)


def mend_users(
    states: UserStates,
    slots: Slots,
    now: float,
    latest: float,
    catalogue: Catalogue,
    basis: int,
    sequence: int,
) -> None:
    """Set times of rows back to the clock, and make all that decays anew from the ring.

    An event of the future gets the time of the event that came after it, for it came before that;
    the last one gets `now`. What had left the ring is gone from sums and interests; counts stay.
    The encoder's state is marked as of no encoder, so that it is made anew when it is needed.

    Args:
        states: the arena.
        slots: (B,) rows to mend.
        now: the clock, in seconds.
        latest: latest time that may stay.
        catalogue: vectors of the artifact.
        basis: hash of the vectors' basis.
        sequence: number of the artifact.
    """
    for slot in slots.tolist():
        head, n = states.head[slot], int(states.head["n_ring"][slot])
        times = states.ring["time"][slot]
        bound = now
        for place in range(n - 1, -1, -1):
            if times[place] > latest:
                times[place] = bound
            bound = min(float(times[place]), now)
        _mend_head(head, times[:n], now, latest)
    states.head["encoder"][slots] = 0
    rebuild_from_ring(states, slots, catalogue, basis, sequence)


def _mend_head(head: np.void, times: NDArray[np.float64], now: float, latest: float) -> None:
    for field in ("ref_time", "first_time", "last_time", "emitted_at"):
        if head[field] > latest:
            head[field] = now
    if len(times):
        head["last_time"] = times.max()
        head["first_time"] = min(head["first_time"], times.min())
    head["ref_time"] = head["last_time"]
