"""Inspection: what each step of making one user's list gave, and what speaks for its items."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracker.items.vectors import ItemVectors
from tracker.recommend.candidates import Candidates
from tracker.recommend.lists import RecommendedBatch
from tracker.recommend.reader import SearchResults
from tracker.scoring.blend import Ranker
from tracker.users.rows import RequestBatch
from tracker.users.states import RING_IN_SUMS, RING_RETRACTED

SHARE_HALF_LIFE_SECONDS = 604800.0
"""The decayed sum whose half-life is nearest to this is the one that shares are of."""


@dataclass(frozen=True, slots=True)
class Inspection:
    """The steps of one user's list (B is 1); see `Recommender.recommend`.

    `results` of the searches; `merged`, all candidates of the channels; `cut`, those left after the
    cut, C at most; `features` (1, C, F) and `scores` (1, C) of these by `ranker`; `picks` (1, K)
    positions among them, -1 padded; `batch` is the list.
    """

    results: SearchResults
    merged: Candidates
    cut: Candidates
    features: NDArray[np.float32]
    scores: NDArray[np.float32]
    picks: NDArray[np.int64]
    ranker: Ranker
    batch: RecommendedBatch


def without(candidates: Candidates, excluded: NDArray[np.int64]) -> Candidates:
    """Return one user's candidates (B is 1) without some catalogue rows."""
    count, unseen = int(candidates.n_rows[0]), int(candidates.n_unseen[0])
    stays = np.flatnonzero(~np.isin(candidates.rows[0, :count], excluded))
    rest = Candidates.of_size(1, candidates.rows.shape[1])
    rest.rows[:] = -1
    rest.via[:] = -1
    for name in ("rows", "channels", "walk_sums", "via"):
        getattr(rest, name)[0, : len(stays)] = getattr(candidates, name)[0, stays]
    rest.n_rows[0] = len(stays)
    rest.n_unseen[0] = int((stays < unseen).sum())
    return rest


@dataclass(frozen=True, slots=True)
class Contributions:
    """Parts of a user's events in the match of K items with one of the user's decayed sums.

    `match` (K,) float64 is the inner product of the sum with each item. It is linear in the events:
    `events` (K, E) are the parts of E events of the ring, at `places` (E,) there, latest first, and
    `earlier` (K,) what is left, the part of events that have left the ring.
    """

    match: NDArray[np.float64]
    events: NDArray[np.float64]
    places: NDArray[np.int64]
    earlier: NDArray[np.float64]


def contributions(
    requests: RequestBatch, items: ItemVectors, rows: NDArray[np.int64]
) -> Contributions:
    """Divide the match of items with a user's decayed sum among the user's events.

    Args:
        requests: one user.
        items: of the artifact in whose terms the user's row is.
        rows: (K,) catalogue rows.
    """
    states, slot, now = requests.states, int(requests.slots[0]), float(requests.now[0])
    vectors = items.vectors[rows].astype(np.float64)  # (K, D)
    if slot < 0:
        nothing = np.zeros(len(rows))
        return Contributions(
            nothing, np.zeros((len(rows), 0)), np.zeros(0, np.int64), nothing.copy()
        )
    head = states.head[slot]
    half_lives = np.array(states.config.half_lives_seconds)
    which = int(np.argmin(np.abs(np.log(half_lives / SHARE_HALF_LIFE_SECONDS))))
    half_life = half_lives[which]
    age = max(now - float(head["ref_time"]), 0.0)
    total = states.sums[slot, which].astype(np.float64) * 2.0 ** (-age / half_life)
    match = vectors @ total
    ring = states.ring[slot, : int(head["n_ring"])]
    counts = (ring["flags"] & (RING_IN_SUMS | RING_RETRACTED)) == RING_IN_SUMS
    places = np.flatnonzero(counts & (ring["weight"] > 0.0))[::-1]
    ring_rows = items.row_of(np.ascontiguousarray(ring["item"][places]))
    has_row = ring_rows >= 0
    places, ring_rows = places[has_row], ring_rows[has_row]
    later = now - ring["time"][places]
    weights = ring["weight"][places].astype(np.float64) * 2.0 ** (-later / half_life)
    parts = (vectors @ items.vectors[ring_rows].astype(np.float64).T) * weights  # (K, E)
    earlier = match - parts.sum(axis=1)
    noise = 1e-4 * (np.abs(parts).sum(axis=1) + 1e-9)  # sums are stored as float32
    if not int(head["evicted"]):
        noise *= 10.0
    return Contributions(
        match, parts, places.astype(np.int64), np.where(np.abs(earlier) <= noise, 0.0, earlier)
    )


def older_share(requests: RequestBatch, items: ItemVectors) -> float:
    """Return the share of a user's decayed sum, by mass, of events that have left the ring."""
    states, slot = requests.states, int(requests.slots[0])
    if slot < 0:
        return 0.0
    head = states.head[slot]
    half_lives = np.array(states.config.half_lives_seconds)
    which = int(np.argmin(np.abs(np.log(half_lives / SHARE_HALF_LIFE_SECONDS))))
    mass = float(states.masses[slot, which])
    ring = states.ring[slot, : int(head["n_ring"])]
    counts = (ring["flags"] & (RING_IN_SUMS | RING_RETRACTED)) == RING_IN_SUMS
    counts &= (ring["weight"] > 0.0) & (items.row_of(np.ascontiguousarray(ring["item"])) >= 0)
    ages = float(head["ref_time"]) - ring["time"][counts]
    held_mass = float((ring["weight"][counts] * 2.0 ** (-ages / half_lives[which])).sum())
    return 0.0 if mass <= 0.0 else min(max(1.0 - held_mass / mass, 0.0), 1.0)
