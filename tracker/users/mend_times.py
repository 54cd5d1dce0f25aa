"""Mending of user rows that have times of the future: from their rings, as far as these reach."""

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.row_bytes import Slots
from tracker.users.apply import rebuild_from_ring
from tracker.users.columns import Catalogue
from tracker.users.ring import in_order_of_arrival, sort_ring
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

    An event of the future gets the time of the event that arrived after it; the last to arrive
    gets `now`. The ring is sorted by the mended times. What had left the ring is gone from sums and
    interests; counts stay. The encoder's state is marked as of no encoder, so that it is made anew
    when it is needed.

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
        head = states.head[slot]
        ring = states.ring[slot, : int(head["n_ring"])]
        ring[:] = in_order_of_arrival(ring)
        times = ring["time"]
        bound = now
        for place in range(len(ring) - 1, -1, -1):
            if times[place] > latest:
                times[place] = bound
            bound = min(float(times[place]), now)
        sort_ring(ring, len(ring))
        _mend_head(head, times, now, latest)
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
