"""Inspection: what each step of making one user's list gave, and what speaks for its items."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracker.items.vectors import ItemVectors
from tracker.recommend.candidates import Candidates
from tracker.recommend.explanation import sum_for_shares
from tracker.recommend.lists import RecommendedBatch
from tracker.recommend.options import RecommendOptions
from tracker.recommend.reader import SearchResults
from tracker.scoring.blend import Ranker
from tracker.users.rows import RequestBatch
from tracker.users.states import RING_IN_SUMS, RING_RETRACTED


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
    for name in ("rows", "channels", "walk_sums", "via", "weighed"):
        getattr(rest, name)[0, : len(stays)] = getattr(candidates, name)[0, stays]
    rest.n_rows[0] = len(stays)
    rest.n_unseen[0] = int((stays < unseen).sum())
    return rest


def older_share(requests: RequestBatch, items: ItemVectors, options: RecommendOptions) -> float:
    """Return the share of a user's decayed sum, by mass, of events that have left the ring."""
    states, slot = requests.states, int(requests.slots[0])
    if slot < 0:
        return 0.0
    head = states.head[slot]
    which, half_life = sum_for_shares(requests, options)
    mass = float(states.masses[slot, which])
    ring = states.ring[slot, : int(head["n_ring"])]
    counts = (ring["flags"] & (RING_IN_SUMS | RING_RETRACTED)) == RING_IN_SUMS
    counts &= (ring["weight"] > 0.0) & (items.row_of(np.ascontiguousarray(ring["item"])) >= 0)
    ages = float(head["ref_time"]) - ring["time"][counts]
    held_mass = float((ring["weight"][counts] * 2.0 ** (-ages / half_life)).sum())
    return 0.0 if mass <= 0.0 else min(max(1.0 - held_mass / mass, 0.0), 1.0)
