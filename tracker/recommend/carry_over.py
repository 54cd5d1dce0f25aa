"""Events into users' rows, and rows of another artifact into one's own terms before that."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.artifact.artifact import Artifact
from tracker.events.batch import EventBatch
from tracker.events.wire import hash_id
from tracker.kernels.native import native
from tracker.users.apply import Applied, apply_events, joined, rebuild_from_ring
from tracker.users.join_users import join_users as rows_joined
from tracker.users.rows import UserRows
from tracker.users.states import UserStates


def carry_over(states: UserStates, slots: NDArray[np.int64], artifact: Artifact) -> int:
    """Rebuild rows of another basis or encoder than an artifact's; return how many there were.

    Events that have left a ring are gone from a rebuilt row; rows of this artifact stay as they
    are.

    Args:
        states: the arena.
        slots: (B,) its rows, may repeat; -1 for none.
        artifact: the one in use.
    """
    manifest, items, tower = artifact.manifest, artifact.vectors, artifact.models.tower
    basis = hash_id(manifest.basis)
    rebuilt = 0
    if _has_foreign(slots, states.head, np.uint64(basis)):
        own = slots[slots >= 0]
        head = states.head
        foreign = np.unique(own[(head["basis"][own] != basis) & (head["n_ring"][own] > 0)])
        rebuild_from_ring(states, foreign, items, basis, manifest.sequence)
        rebuilt = len(foreign)
    if tower is None:
        states.set_hidden(0)
        return rebuilt
    return max(rebuilt, tower.carry_over(states, slots[slots >= 0], items))


@native
def _has_foreign(slots: NDArray[np.int64], head: NDArray[Any], basis: np.uint64) -> bool:
    """Return whether a row with events is of another basis."""
    for slot in slots:
        if slot >= 0 and head[slot]["basis"] != basis and head[slot]["n_ring"] > 0:
            return True
    return False


def update_users(users: UserRows, events: EventBatch, artifact: Artifact) -> Applied:
    """Apply N events to the rows at `events.slots`, strictly in order.

    `events.rows` is filled from the catalogue; rows of another basis or encoder are rebuilt
    first. The user encoder takes the events in ordered waves.

    Returns:
        the outcome of each event, and the item events that follow from them.
    """
    tower = artifact.models.tower
    events.rows[:] = artifact.vectors.row_of(events.items)
    states = users.states
    rebuilt = carry_over(states, events.slots, artifact)
    if tower is None:
        applied = _apply(users, events, artifact)
        return applied._replace(rebuilt=rebuilt)
    parts = []
    for part in tower.stretches(states, events):
        stretch = events if len(part) == len(events) else events.take(part)
        head = states.head[stretch.slots]
        last_times = np.where(head["n_ring"] > 0, head["last_time"], np.nan)
        applied = _apply(users, stretch, artifact)
        tower.update(states, stretch, applied.outcomes, applied.late, last_times, artifact.vectors)
        parts.append(applied)
    return (parts[0] if len(parts) == 1 else joined(parts))._replace(rebuilt=rebuilt)


def join_users(
    users: UserRows, slot: int, other: int, join: EventBatch, artifact: Artifact
) -> Applied | None:
    """Join the state at `other` to that at `slot`; the row at `other` is empty then.

    Args:
        users: the rows.
        slot: of the user who stays.
        other: slot of the user who joins.
        join: the event that joins them, alone.
        artifact: the one in use.

    Returns:
        the outcome of the retractions that had waited; None if nothing is kept of the other user.
    """
    manifest, states = artifact.manifest, users.states
    basis = hash_id(manifest.basis)
    carry_over(states, np.array([slot, other]), artifact)
    waiting = rows_joined(users, slot, other, artifact.vectors, basis, manifest.sequence)
    if waiting is None:
        return None
    again = join.take(np.zeros(len(waiting), np.int64))
    again.joined = {}
    again.retracts[:] = waiting
    applied = _apply(users, again, artifact)
    if artifact.models.tower is not None:
        artifact.models.tower.rebuild(states, np.array([slot]), artifact.vectors)
    return applied


def _apply(users: UserRows, events: EventBatch, artifact: Artifact) -> Applied:
    manifest = artifact.manifest
    return apply_events(
        users.states,
        users.seen,
        users.seen_slots,
        events,
        artifact.vectors,
        hash_id(manifest.basis),
        manifest.sequence,
    )
