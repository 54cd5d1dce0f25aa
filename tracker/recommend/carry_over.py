"""Rows of another artifact into one's own terms, from what their rings hold."""

import numpy as np
from numpy.typing import NDArray

from tracker.artifact.artifact import Artifact
from tracker.events.wire import hash_id
from tracker.users.apply import rebuild_from_ring
from tracker.users.states import UserStates


def carry_over(states: UserStates, slots: NDArray[np.int64], artifact: Artifact) -> int:
    """Rebuild rows of another basis or encoder than an artifact's; return how many there were.

    What has left a ring is gone from what is rebuilt; rows of this artifact stay as they are.

    Args:
        states: the arena.
        slots: (B,) its rows, may repeat; -1 for none.
        artifact: the one in use.
    """
    slots = slots[slots >= 0]
    manifest, items, tower = artifact.manifest, artifact.vectors, artifact.models.tower
    basis = hash_id(manifest.basis)
    head = states.head
    foreign = slots[(head["basis"][slots] != basis) & (head["n_ring"][slots] > 0)]
    if len(foreign):
        foreign = np.unique(foreign)
        rebuild_from_ring(states, foreign, items, basis, manifest.sequence)
    if tower is None:
        states.set_hidden(0)
        return len(foreign)
    return max(len(foreign), tower.carry_over(states, slots, items))
