"""What users' rows say at a time: masses of the sums, strengths and vectors of the slots."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.native import native
from tracker.kernels.row_bytes import Slots
from tracker.users.config import decay, whole
from tracker.users.slots import slot_strength, unit_mean
from tracker.users.states import UserStates

Array = NDArray[Any]


@native
def _slot_strengths(
    slots: Slots,
    now: Array,
    head: Array,
    slot_head: Array,
    half_life_seconds: float,
    strengths: Array,
    changes: Array,
) -> None:
    for i in range(slots.shape[0]):
        slot = slots[i]
        for s in range(whole(head[slot]["n_slots"])):
            strength, change = slot_strength(slot_head[slot, s], now[i], half_life_seconds)
            strengths[i, s] = strength
            changes[i, s] = change


def slot_strengths(states: UserStates, slots: Slots, now: Array) -> tuple[Array, Array]:
    """Return the strength of each slot at `now` (B,), and its change since a day before.

    Returns:
        decayed masses (B, S) float32, 0 for slots not in use, and changes (B, S) float32; see
        `slots.slot_strength` for what is taken for the day before.
    """
    strengths = np.zeros((len(slots), states.config.slots), np.float32)
    changes = np.zeros_like(strengths)
    half_life = states.config.slot_half_life_seconds
    _slot_strengths(slots, now, states.head, states.slot_head, half_life, strengths, changes)
    return strengths, changes


@native
def _slot_vectors(slots: Slots, head: Array, slot_mean: Array, out: Array) -> None:
    for i in range(slots.shape[0]):
        for s in range(whole(head[slots[i]]["n_slots"])):
            unit_mean(slot_mean[slots[i], s], out[i, s])


def slot_vectors(states: UserStates, slots: Slots) -> Array:
    """Return the slots' means as unit vectors (B, S, D) float32; zeros where not in use."""
    out = np.zeros((len(slots), *states.slot_mean.shape[1:]), np.float32)
    _slot_vectors(slots, states.head, states.slot_mean, out)
    return out


@native
def _sum_masses(
    slots: Slots, now: Array, head: Array, masses: Array, half_lives: Array, out: Array
) -> None:
    for i in range(slots.shape[0]):
        age = now[i] - head[slots[i]]["ref_time"]
        for h in range(masses.shape[1]):
            out[i, h] = masses[slots[i], h] * decay(age, half_lives[h])


def sum_masses(states: UserStates, slots: Slots, now: Array) -> Array:
    """Return the masses (B, H) float32 as decayed at `now` (B,)."""
    out = np.zeros((len(slots), states.masses.shape[1]), np.float32)
    half_lives = np.array(states.config.half_lives_seconds)
    _sum_masses(slots, now, states.head, states.masses, half_lives, out)
    return out
