"""A user's row as it would be with other weights of the events in its ring, or without some."""

import numpy as np
from numpy.typing import NDArray

from tracker.items.vectors import lookup_rows
from tracker.users.columns import Catalogue
from tracker.users.states import RING_IN_SUMS, RING_RETRACTED, UserStates

_ROUNDING = 1e-6
"""Share of a mass below which its rest is rounding: masses are float32."""


def reweigh(states: UserStates, slot: int, items: Catalogue, weights: NDArray[np.float64]) -> None:
    """Change the weights of the events in a ring, in place; 0 takes an event out.

    The decayed sums are linear in the weights, so they change exactly; what has left the ring stays
    in them. The interests keep their means, and each gains or loses the mass of the events that are
    nearest to it. What only rounding leaves of a mass is nothing. The state of a user encoder is to
    be made from the ring.

    Args:
        states: the arena, with the row.
        slot: of the user.
        items: vectors, and the table from hash to row.
        weights: (R,) of the ring's entries, in their order.
    """
    head, ring = states.head[slot], states.ring[slot]
    half_lives = np.array(states.config.half_lives_seconds)
    count = int(head["n_slots"])
    means = states.interest_means[slot, :count].astype(np.float64)
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    of_interests = states.interest_heads["mass"][slot, :count]
    least, least_negative = states.masses[slot] * _ROUNDING, head["negative_mass"] * _ROUNDING
    least_of_interests = of_interests * _ROUNDING
    for place in range(int(head["n_ring"])):
        entry = ring[place]
        before, after = float(entry["weight"]), float(weights[place])
        counts = (int(entry["flags"]) & (RING_IN_SUMS | RING_RETRACTED)) == RING_IN_SUMS
        if before == after:
            continue
        entry["weight"] = after
        row = _row_of(items, entry["item"])
        was_nothing = before == 0.0 and not int(entry["flags"]) & RING_RETRACTED
        if row < 0 or not (counts or was_nothing) or not items.vectors[row].any():
            continue
        entry["flags"] = int(entry["flags"]) | RING_IN_SUMS
        vector = items.vectors[row].astype(np.float64)
        age = float(head["ref_time"]) - float(entry["time"])
        positive = max(after, 0.0) - max(before, 0.0)
        negative = max(-after, 0.0) - max(-before, 0.0)
        decay = 2.0 ** (-age / half_lives)
        states.masses[slot] = np.maximum(states.masses[slot] + positive * decay, 0.0)
        states.sums[slot] += (positive * decay)[:, None] * vector
        faded = negative * 2.0 ** (-age / states.config.negative_half_life_seconds)
        head["negative_mass"] = max(float(head["negative_mass"]) + faded, 0.0)
        states.negative[slot] += faded * vector
        if positive and count:
            nearest = int(np.argmax(means @ vector))
            interest = states.interest_heads[slot, nearest]
            later = float(interest["ref_time"]) - float(entry["time"])
            mass = positive * 2.0 ** (-later / states.config.slot_half_life_seconds)
            interest["mass"] = max(float(interest["mass"]) + mass, 0.0)
        if after == 0.0:
            entry["flags"] = int(entry["flags"]) | RING_RETRACTED
    is_empty = states.masses[slot] < least
    states.masses[slot, is_empty] = 0.0
    states.sums[slot, is_empty] = 0.0
    if head["negative_mass"] < least_negative:
        head["negative_mass"] = 0.0
        states.negative[slot] = 0.0
    of_interests[of_interests < least_of_interests] = 0.0
    head["encoder"] = 0


def _row_of(items: Catalogue, item: np.uint64) -> int:
    return int(lookup_rows(items.table_hash, items.table_row, np.array([item], np.uint64))[0])
