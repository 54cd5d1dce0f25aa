"""Candidate rows of each user from several channels, each with a quota and so a way in."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tracker.items.vectors import ItemVectors
from tracker.items.view import ItemView
from tracker.recommend.merge import merge
from tracker.recommend.neighbour_walk import WALKED
from tracker.users.history import Histories
from tracker.users.request_batch import RequestBatch

CHANNELS = ("content", "recent", "neighbours", "trend", "seen", "default", "encoder")
"""Where an item of a list came from; `seen` marks one that the user has had before."""

TRENDING = 64
"""Rows taken of what trends in a scene, of what trends everywhere, and of what is new."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Up to C unique live rows a user, the unseen first, with what the channels found.

    `rows` (B, C) int32, -1 padded; `channels` (B, C) uint8, positions in CHANNELS; `walked`
    (B, C, WALKED) float32, neighbour sums; `via` (B, C) int8, the position in the history of the
    item that gave most of them, -1 none; `n_rows` and `n_unseen` (B,) int64.
    """

    rows: NDArray[np.int32]
    channels: NDArray[np.uint8]
    walked: NDArray[np.float32]
    via: NDArray[np.int8]
    n_rows: NDArray[np.int64]
    n_unseen: NDArray[np.int64]

    @staticmethod
    def of_size(users: int, capacity: int) -> "Candidates":
        """Return arrays for so many users and candidates, to be filled."""
        return Candidates(
            np.empty((users, capacity), np.int32),
            np.empty((users, capacity), np.uint8),
            np.empty((users, capacity, WALKED), np.float32),
            np.empty((users, capacity), np.int8),
            np.zeros(users, np.int64),
            np.zeros(users, np.int64),
        )


def find_candidates(
    read: Histories,
    asked: RequestBatch,
    k: int,
    capacity: int,
    quotas: tuple[int, int, int, int, int],
    keep_seen: bool,
    recent_events: int,
    neighbour_events: int,
    neighbour_width: int,
    whole: bool,
    owners: NDArray[np.int64],
    masses: NDArray[np.float32],
    found: NDArray[np.int64],
    wished: NDArray[np.int64],
    items: ItemVectors,
    view: ItemView,
) -> Candidates:
    """Merge what the channels offer B users; the arguments are those of `merge`."""
    users, slots, now, scenes = asked.users, asked.slots, asked.now, asked.scenes
    known = np.maximum(slots, 0)
    nobody = slots < 0
    events = np.where(nobody, 0, asked.states.head["events"][known]).astype(np.int64)
    seen_rows = np.where(nobody, -1, users.seen_slots[known])
    names, trend_of = np.unique(scenes, return_inverse=True)
    latest = float(now.max()) if len(now) else 0.0
    lists = [view.trend_rows(latest, 0, TRENDING), view.new_rows(latest, TRENDING)]
    lists += [view.trend_rows(latest, int(name), TRENDING) for name in names]
    trend = np.full((len(lists), TRENDING), -1, np.int64)
    for line, rows in enumerate(lists):
        trend[line, : len(rows)] = rows
    lines = np.where(scenes == 0, 0, trend_of.reshape(-1) + 2)
    candidates = Candidates.of_size(len(slots), capacity)
    merge(
        slots, now, k, np.array(quotas, np.int64), keep_seen, items.live,
        read.ring_rows, read.history, read.n_history, events,
        owners, masses, found, wished, items.similar, recent_events,
        neighbour_events, neighbour_width, whole,
        view.near_rows, view.near_counts, view.near_n,
        view.back_rows, view.back_counts, view.back_n, view.ref_times, view.counts,
        trend, lines, items.hashes, users.seen.bits, seen_rows,
        candidates.rows, candidates.channels, candidates.walked, candidates.via,
        candidates.n_rows, candidates.n_unseen,
    )  # fmt: skip
    return candidates
