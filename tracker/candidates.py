"""Candidate rows of each user from several channels, each with a quota and so a way in."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.history import Histories
from tracker.item_view import ItemView
from tracker.native import native
from tracker.seen import SeenSets, bloom_contains
from tracker.state import UserStates
from tracker.vectors import ItemVectors
from tracker.walk import WALK_SLOTS, WALKED, clear_walk, read_walk, walk_neighbours

Array = NDArray[Any]

CHANNELS = ("content", "recent", "neighbours", "trend", "seen", "default", "encoder")
"""Where an item of a list came from; `seen` marks one that the user has had before."""

TRENDING = 64
"""Trending rows taken of a scene, and of everywhere."""


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


@native
def find_place(marks: Array, row: int) -> int:
    """Return where a row is, or would go, in an open-addressing set; free places hold -1."""
    mask = len(marks) - 1
    place = ((np.int64(row) * 2654435761) >> 15) & mask
    while marks[place] != -1 and marks[place] != row:
        place = (place + 1) & mask
    return int(place)


@native
def keep_best(
    scores: Array, rows: Array, places: Array, n: int, score: float, row: int, at: int
) -> int:
    """Insert into lists kept best first, ties by row; return their new length, at most theirs."""
    if n == len(rows):
        if n == 0 or scores[n - 1] > score or (scores[n - 1] == score and rows[n - 1] <= row):
            return n
        n -= 1
    p = n
    while p > 0 and (scores[p - 1] < score or (scores[p - 1] == score and rows[p - 1] > row)):
        scores[p] = scores[p - 1]
        rows[p] = rows[p - 1]
        places[p] = places[p - 1]
        p -= 1
    scores[p] = score
    rows[p] = row
    places[p] = at
    return n + 1


@native
def _offer(
    row: int, channel: int, live: int, keep_seen: bool, hashes: Array, bloom: Array,
    seen_row: int, marks: Array, rows: Array, channels: Array, n: int, seen: Array, n_seen: int,
) -> int:  # fmt: skip
    """Take a row in if it is live, new and not seen; remember it if it is seen.

    Returns:
        0 not taken, 1 written to rows[n], 2 written to seen[n_seen].
    """
    if row < 0 or row >= live:
        return 0
    place = find_place(marks, row)
    if marks[place] == row:
        return 0
    marks[place] = row
    if not keep_seen and seen_row >= 0 and bloom_contains(bloom[seen_row], hashes[row]):
        if n_seen == len(seen):
            return 0
        seen[n_seen] = row
        return 2
    if n == len(rows):
        return 0
    rows[n] = row
    channels[n] = channel
    return 1


@native
def _merge(
    slots: Array, now: Array, k: int, quotas: Array, keep_seen: bool, live: int,
    ring_rows: Array, history: Array, n_history: Array, events: Array,
    owners: Array, masses: Array, found: Array, wished: Array,
    similar: Array, recent_events: int,
    neighbour_events: int, neighbour_width: int, whole: bool,
    near_rows: Array, near_counts: Array, near_n: Array,
    back_rows: Array, back_counts: Array, back_n: Array, ref_times: Array, popularity: Array,
    trend: Array, trend_of: Array,
    hashes: Array, bloom: Array, seen_slots: Array,
    rows: Array, channels: Array, walked: Array, via: Array, n_rows: Array, n_unseen: Array,
) -> None:  # fmt: skip
    """Merge what the channels offer each user into one list of unique live rows.

    1. The latest items' live neighbours are summed (`walk_neighbours`).
    2. The channels take turns and give one row at a time, best first, up to their quotas: so a
       row that several offer is of the channel that ranks it highest. They are: each search
       (its part of the content quota is its slot's part of the mass), recent (items similar to
       the latest ones, of each in turn), neighbours, trend of the scene and of everywhere (half of
       the quota each; all to the latter without a scene), the user encoder. Where seen items are
       kept, those of the user's own ring take turns too, as recent, without a quota.
    3. Room that is left goes to all but recent, in turns again.
    4. With fewer than k unseen rows, catalogue order gives the rest. So many rows are looked at
       that k unseen ones are found where there are as many.
    5. Only with fewer than k rows then, seen items follow, in the order in which they were
       offered, the ring's own latest first.

    Args:
        slots: (B,) arena slots; -1 for none.
        now: (B,) seconds.
        k: rows wanted at least.
        quotas: (5,) of content, recent, neighbours, trend, encoder.
        keep_seen: seen items are candidates like others.
        live: rows from here on are never candidates.
        ring_rows: (B, R) of `read_histories`.
        history: (B, R) of `read_histories`.
        n_history: (B,) of `read_histories`.
        events: (B,) events of each user so far, the bound of what was seen.
        owners: (B, searches) of `queries`.
        masses: (B, searches) of `queries`.
        found: (Q, K) rows found for each query, best first, -1 padded.
        wished: (B, K) rows found by the user encoder, best first, -1 padded; K may be 0.
        similar: (N, M) nearest items of each item, -1 padded.
        recent_events: of the latest so many items.
        neighbour_events: neighbours of the latest so many items.
        neighbour_width: strongest entries taken of each of an item's two lists.
        whole: see `walk_neighbours`, as for the six arrays that follow.
        near_rows: see there.
        near_counts: see there.
        near_n: see there.
        back_rows: see there.
        back_counts: see there.
        back_n: see there.
        ref_times: see there.
        popularity: see there.
        trend: (L, T) rows trending in each of L scenes, -1 padded; the first is everywhere.
        trend_of: (B,) position of the user's scene in `trend`; 0 for none.
        hashes: (N,) of the items.
        bloom: of the seen sets.
        seen_slots: (B,) row of the user in `bloom`, -1 for none.
        rows: (B, C) int32, filled, -1 padded.
        channels: (B, C) uint8, filled.
        walked: (B, C, WALKED) float32, filled with what the walk found for each.
        via: (B, C) int8, filled with the position in `history` that gave most; -1 none.
        n_rows: (B,) filled.
        n_unseen: (B,) filled; rows[b, :n_unseen[b]] were not seen, the others were.
    """
    capacity = rows.shape[1]
    size = 64
    while size < 4 * (2 * capacity + ring_rows.shape[1]):
        size *= 2
    marks = np.empty(size, np.int32)
    seen = np.empty(capacity, np.int32)
    keys = np.full(WALK_SLOTS, -1, np.int32)
    sums = np.zeros((WALKED, WALK_SLOTS), np.float32)
    walk_via = np.empty(WALK_SLOTS, np.int8)
    touched = np.empty(WALK_SLOTS, np.int32)
    best_scores = np.empty(quotas[2] + quotas[2] // 2, np.float32)
    best_rows = np.empty(quotas[2] + quotas[2] // 2, np.int32)
    best_places = np.empty(quotas[2] + quotas[2] // 2, np.int32)
    searches = owners.shape[1]
    parts = np.zeros(searches + 6, np.int64)
    lengths = np.zeros(searches + 6, np.int64)
    places = np.zeros(searches + 6, np.int64)
    for b in range(len(slots)):
        marks[:] = -1
        n = 0
        n_seen = 0
        seen_row = seen_slots[b]
        if not keep_seen:
            for r in range(ring_rows.shape[1] - 1, -1, -1):
                row = ring_rows[b, r]
                if row < 0:
                    continue
                place = find_place(marks, row)
                if marks[place] == -1:
                    marks[place] = row
                    if row < live and n_seen < capacity:
                        seen[n_seen] = row
                        n_seen += 1
        # 1
        n_touched = walk_neighbours(
            ring_rows[b], history[b], n_history[b],
            neighbour_events, neighbour_width, now[b], whole,
            near_rows, near_counts, near_n, back_rows, back_counts, back_n, ref_times, popularity,
            keys, sums, walk_via, touched,
        )  # fmt: skip
        n_best = 0
        for i in range(n_touched):
            row = keys[touched[i]]
            # With one event at least, sqrt(n + 5) is above 2.449: most rows need no look-up.
            raw = sums[1, touched[i]]
            if row < live and (n_best < len(best_rows) or raw > 2.449 * best_scores[n_best - 1]):
                score = sums[1, touched[i]] / math.sqrt(popularity[row, 6] + 5.0)
                n_best = keep_best(
                    best_scores, best_rows, best_places, n_best, float(np.float32(score)), row, i
                )
        # 2 and 3
        line = trend_of[b]
        n_recent = min(n_history[b], recent_events)
        mass = 0.0
        for rank in range(searches):
            if owners[b, rank] >= 0:
                mass += masses[b, rank]
        for rank in range(searches):
            lengths[rank] = found.shape[1] if owners[b, rank] >= 0 else 0
            if mass > 0.0:
                parts[rank] = max(1, math.floor(quotas[0] * masses[b, rank] / mass + 0.5))
        lengths[searches] = n_recent * similar.shape[1]
        parts[searches] = quotas[1]
        lengths[searches + 1] = n_best
        parts[searches + 1] = quotas[2]
        lengths[searches + 2] = trend.shape[1] if line > 0 else 0
        parts[searches + 2] = quotas[3] // 2
        lengths[searches + 3] = trend.shape[1]
        parts[searches + 3] = quotas[3] - (quotas[3] // 2 if line > 0 else 0)
        lengths[searches + 4] = n_history[b] if keep_seen else 0
        parts[searches + 4] = capacity
        lengths[searches + 5] = wished.shape[1]
        parts[searches + 5] = quotas[4]
        places[:] = 0
        for turn in range(2):
            busy = True
            while busy and n < capacity:
                busy = False
                for source in range(len(parts)):
                    open_part = parts[source] > 0 if turn == 0 else source != searches
                    while open_part and places[source] < lengths[source] and n < capacity:
                        j = places[source]
                        places[source] += 1
                        channel = 0
                        if source < searches:
                            row = found[owners[b, source], j]
                        elif source == searches:
                            past = ring_rows[b, history[b, j % n_recent]]
                            row = similar[past, j // n_recent]
                            channel = 1
                        elif source == searches + 1:
                            row = best_rows[j]
                            channel = 2
                        elif source == searches + 4:
                            row = ring_rows[b, history[b, j]]
                            channel = 1
                        elif source == searches + 5:
                            row = wished[b, j]
                            channel = 6
                        else:
                            row = trend[line if source == searches + 2 else 0, j]
                            channel = 3
                        taken = _offer(
                            row, channel, live, keep_seen, hashes, bloom, seen_row, marks,
                            rows[b], channels[b], n, seen, n_seen,
                        )  # fmt: skip
                        n_seen += taken >> 1
                        if taken == 1:
                            n += 1
                            parts[source] -= 1
                            busy = True
                            break
        # 4
        row = 0
        end = min(live, events[b] + n + n_seen + ring_rows.shape[1] + k)
        while n < min(k, capacity) and row < end:
            taken = _offer(
                row, 5, live, keep_seen, hashes, bloom, seen_row, marks,
                rows[b], channels[b], n, seen, n_seen,
            )  # fmt: skip
            n += taken & 1
            n_seen += taken >> 1
            row += 1
        n_unseen[b] = n
        # 5
        if n < k:
            for j in range(n_seen):
                if n == capacity:
                    break
                rows[b, n] = seen[j]
                channels[b, n] = 4
                n += 1
        n_rows[b] = n
        read_walk(
            keys, sums, walk_via, now[b], whole, ref_times, popularity,
            rows[b], n, walked[b], via[b],
        )  # fmt: skip
        for i in range(n, capacity):
            rows[b, i] = -1
            via[b, i] = -1
        clear_walk(keys, touched, n_touched)


def find_candidates(
    read: Histories,
    states: UserStates,
    slots: NDArray[np.int64],
    now: NDArray[np.float64],
    scenes: NDArray[np.uint32],
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
    seen: SeenSets,
    seen_slots: NDArray[np.int64],
) -> Candidates:
    """Merge what the channels offer B users; the arguments are those of `_merge`.

    `slots` (B,) are arena slots, -1 for none; `seen_slots` (C,) is by arena slot.
    """
    known = np.maximum(slots, 0)
    nobody = slots < 0
    events = np.where(nobody, 0, states.head["events"][known]).astype(np.int64)
    seen_rows = np.where(nobody, -1, seen_slots[known])
    names, trend_of = np.unique(scenes, return_inverse=True)
    lists = [view.trend_rows(float(now.max()), 0, TRENDING)] if len(now) else []
    lists += [view.trend_rows(float(now.max()), int(name), TRENDING) for name in names]
    trend = np.full((len(lists), TRENDING), -1, np.int64)
    for line, rows in enumerate(lists):
        trend[line, : len(rows)] = rows
    lines = np.where(scenes == 0, 0, trend_of.reshape(-1) + 1)
    candidates = Candidates.of_size(len(slots), capacity)
    _merge(
        slots, now, k, np.array(quotas, np.int64), keep_seen, items.live,
        read.ring_rows, read.history, read.n_history, events,
        owners, masses, found, wished, items.similar, recent_events,
        neighbour_events, neighbour_width, whole,
        view.near_rows, view.near_counts, view.near_n,
        view.back_rows, view.back_counts, view.back_n, view.ref_times, view.counts,
        trend, lines, items.hashes, seen.bits, seen_rows,
        candidates.rows, candidates.channels, candidates.walked, candidates.via,
        candidates.n_rows, candidates.n_unseen,
    )  # fmt: skip
    return candidates
