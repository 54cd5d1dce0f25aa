"""Input and result of scene attention: the interests of users, and the queries made of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.row_bytes import Slots
from tracker.users.readings import interest_strengths, interest_vectors, sum_masses
from tracker.users.states import UserStates


@dataclass(frozen=True, slots=True)
class SceneQueries:
    """The queries that scene attention, as published, makes of B users' interests.

    `queries` (B, E) float32 are searched for among the items. `by_type` (B, T, D) float32 is added
    to their first D components for each unit of weight that a type of interest is given more.
    """

    queries: NDArray[np.float32]
    by_type: NDArray[np.float32]


def read_interests(
    states: UserStates, slots: Slots, now: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the input of scene attention: decayed sums, shortest half-life first, and interests.

    Args:
        states: the arena.
        slots: (B,) rows, -1 for none.
        now: (B,) seconds.

    Returns:
        unit vectors (B, M, D) and decayed masses (B, M), 0 for none.
    """
    slots_or_0 = np.maximum(slots, 0)
    later = np.maximum(now, states.head["ref_time"][slots_or_0])
    sums = np.concatenate([states.sums[slots_or_0], interest_vectors(states, slots_or_0)], axis=1)
    strengths, _ = interest_strengths(states, slots_or_0, later)
    masses = np.concatenate([sum_masses(states, slots_or_0, later), strengths], axis=1)
    masses[slots < 0] = 0.0
    return unit_interests(sums, masses)


def interest_names(config: Any) -> tuple[str, ...]:
    """Return a name for each of what `read_interests` gives: of a sum its half-life."""
    sums = tuple(f"{seconds:g}s" for seconds in config.half_lives_seconds)
    return (*sums, *("slot",) * config.slots)


def unit_interests(
    sums: NDArray[np.float32], masses: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return interests at unit length, and their masses, 0 if there is no direction.

    Args:
        sums: (B, M, K) decayed sums or interest means.
        masses: (B, M) decayed masses.
    """
    lengths = np.sqrt(np.add.reduce(sums * sums, axis=-1, keepdims=True))
    has_direction = lengths > 0
    units = np.where(has_direction, sums / np.where(has_direction, lengths, 1.0), 0.0)
    return (
        units.astype(np.float32),
        np.where(has_direction[..., 0], masses, 0.0).astype(np.float32),
    )
