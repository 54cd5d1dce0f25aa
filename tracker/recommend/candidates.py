"""Candidate rows of each user from several channels, each with a quota and so a way in."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.items.counts import COUNT, pair_norm
from tracker.items.vectors import ItemVectors
from tracker.items.view import ItemView
from tracker.kernels.native import native
from tracker.recommend.neighbour_walk import WALKED, new_walk, read_walk, walk_neighbours
from tracker.users.readings import Histories
from tracker.users.rows import RequestBatch
from tracker.users.seen import bloom_contains

Array = NDArray[Any]


class _Channels(NamedTuple):
    content: int
    recent: int
    neighbours: int
    trend: int
    seen: int
    default: int
    encoder: int


CHANNELS = _Channels._fields
"""Where an item of a list came from; `seen` marks one that the user has had before."""

CHANNEL = _Channels(*range(len(CHANNELS)))
"""The channels' numbers, positions in CHANNELS: `CHANNEL.trend`."""


@native
def find_place(marks: Array, row: int) -> int:
    """Return where a row is, or would go, in an open-addressing set; free places hold -1."""
    mask = len(marks) - 1
    place = ((np.int64(row) * 2654435761) >> 15) & mask
    while marks[place] != -1 and marks[place] != row:
        place = (place + 1) & mask
    return int(place)


@native
def keep_best(scores: Array, rows: Array, n: int, score: float, row: int) -> int:
    """Insert into lists kept best first, ties by row; return their new length, at most theirs."""
    if n == len(rows):
        if n == 0 or scores[n - 1] > score or (scores[n - 1] == score and rows[n - 1] <= row):
            return n
        n -= 1
    p = n
    while p > 0 and (scores[p - 1] < score or (scores[p - 1] == score and rows[p - 1] > row)):
        scores[p] = scores[p - 1]
        rows[p] = rows[p - 1]
        p -= 1
    scores[p] = score
    rows[p] = row
    return n + 1


@native
def _strongest(
    found: Array, sums: Array, n_found: int, live: int, popularity: Array,
    scores: Array, rows: Array,
) -> int:  # fmt: skip
    """Write the live rows of a walk with the largest normalised sums, best first; how many."""
    n = 0
    for i in range(n_found):
        row = found[i]
        # With one event at least, sqrt(n + 5) is above 2.449: most rows need no look-up.
        if row < live and (n < len(rows) or sums[i, 1] > 2.449 * scores[n - 1]):
            score = float(np.float32(sums[i, 1] / pair_norm(popularity[row, COUNT.never])))
            n = keep_best(scores, rows, n, score, row)
    return n


@native
def _lay_out(rows: Array, live: int, offer: Array, n: int) -> int:
    """Add the live ones of rows to an offer of n; how many it has then."""
    for row in rows:
        if 0 <= row < live:
            offer[n] = row
            n += 1
    return n


@native
def _take_turns(
    offers: Array, lengths: Array, places: Array, parts: Array, from_channel: Array,
    hashes: Array, bloom: Array, seen_row: int,
    marks: Array, rows: Array, channels: Array, n: int, seen: Array, n_seen: int,
) -> tuple[int, int]:  # fmt: skip
    """Let sources give one new row at a time, best first, until the list is full or all is given.

    Args:
        offers: (S, L) int32 live rows of each source.
        lengths: (S,) how many each has.
        places: (S,) how many of them were looked at; raised.
        parts: (S,) how many each may give yet; lowered.
        from_channel: (S,) of each source.
        hashes: (N,) of the items.
        bloom: of the seen sets.
        seen_row: row of the user in `bloom`; -1 for none, and where seen rows are like others.
        marks: set of the rows that were looked at, see `find_place`.
        rows: (C,) int32, filled from n.
        channels: (C,) uint8, filled from n.
        n: rows there are.
        seen: (C,) int32, filled from n_seen with rows that are not taken because they were seen.
        n_seen: how many.

    Returns:
        n and n_seen.
    """
    busy = True
    while busy:
        busy = False
        for source in range(len(parts)):
            if parts[source] <= 0:
                continue
            place = places[source]
            while place < lengths[source]:
                if n == len(rows):
                    return n, n_seen
                row = offers[source, place]
                place += 1
                mark = find_place(marks, row)
                if marks[mark] == row:
                    continue
                marks[mark] = row
                if seen_row >= 0 and bloom_contains(bloom[seen_row], hashes[row]):
                    if n_seen < len(seen):
                        seen[n_seen] = row
                        n_seen += 1
                    continue
                rows[n] = row
                channels[n] = from_channel[source]
                n += 1
                parts[source] -= 1
                busy = True
                break
            places[source] = place
    return n, n_seen


@native
def merge(
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
       the latest ones, of each in turn), neighbours, trend of the scene (half of the quota, nothing
       without a scene), trend of everywhere and what is new (half of the rest each), the user
       encoder. Where seen items are kept, those of the user's own ring take turns too, as recent,
       without a quota.
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
        whole: see `walk_neighbours`, as for the eight arrays that follow.
        near_rows: see there.
        near_counts: see there.
        near_n: see there.
        back_rows: see there.
        back_counts: see there.
        back_n: see there.
        ref_times: see there.
        popularity: see there.
        trend: (L, T) rows, best first, -1 padded: trending everywhere, new, trending in scenes.
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
    width = ring_rows.shape[1]
    size = 64
    while size < 4 * (2 * capacity + width):
        size *= 2
    marks = np.empty(size, np.int32)
    seen = np.empty(capacity, np.int32)
    walk = new_walk()
    best_scores = np.empty(quotas[2] + quotas[2] // 2, np.float32)
    best_rows = np.empty(len(best_scores), np.int32)
    searches = owners.shape[1]
    # The sources: each search, and after them recent, neighbours, two trends, new, own, encoder.
    recent, near, trend_here, trend_all = searches, searches + 1, searches + 2, searches + 3
    new, own, encoder = searches + 4, searches + 5, searches + 6
    sources = searches + 7
    from_channel = np.zeros(sources, np.uint8)
    from_channel[recent] = CHANNEL.recent
    from_channel[near] = CHANNEL.neighbours
    from_channel[trend_here] = CHANNEL.trend
    from_channel[trend_all] = CHANNEL.trend
    from_channel[new] = CHANNEL.trend
    from_channel[own] = CHANNEL.recent
    from_channel[encoder] = CHANNEL.encoder
    longest = max(found.shape[1], wished.shape[1], trend.shape[1], len(best_rows), width)
    offers = np.empty((sources, max(longest, recent_events * similar.shape[1])), np.int32)
    parts = np.zeros(sources, np.int64)
    lengths = np.zeros(sources, np.int64)
    places = np.zeros(sources, np.int64)
    for b in range(len(slots)):
        past = history[b, : n_history[b]]
        marks[:] = -1
        n = 0
        n_seen = 0
        seen_row = -1 if keep_seen else seen_slots[b]
        if not keep_seen:
            for r in range(width - 1, -1, -1):
                row = ring_rows[b, r]
                if row < 0:
                    continue
                mark = find_place(marks, row)
                if marks[mark] == -1:
                    marks[mark] = row
                    if row < live and n_seen < capacity:
                        seen[n_seen] = row
                        n_seen += 1
        # 1
        n_walked = walk_neighbours(
            ring_rows[b], history[b], n_history[b],
            neighbour_events, neighbour_width, now[b], whole,
            near_rows, near_counts, near_n, back_rows, back_counts, back_n, ref_times, popularity,
            walk,
        )  # fmt: skip
        # 2
        lengths[:] = 0
        places[:] = 0
        mass = 0.0
        for rank in range(searches):
            if owners[b, rank] >= 0:
                mass += masses[b, rank]
        for rank in range(searches):
            if owners[b, rank] >= 0:
                lengths[rank] = _lay_out(found[owners[b, rank]], live, offers[rank], 0)
            if mass > 0.0:
                parts[rank] = max(1, math.floor(quotas[0] * masses[b, rank] / mass + 0.5))
        latest = past[:recent_events]
        for j in range(similar.shape[1]):
            for r in latest:
                row = similar[ring_rows[b, r], j]
                if 0 <= row < live:
                    offers[recent, lengths[recent]] = row
                    lengths[recent] += 1
        parts[recent] = quotas[1]
        n_best = _strongest(
            walk.rows, walk.sums, n_walked, live, popularity, best_scores, best_rows
        )
        lengths[near] = _lay_out(best_rows[:n_best], live, offers[near], 0)
        parts[near] = quotas[2]
        line = trend_of[b]
        if line > 0:
            lengths[trend_here] = _lay_out(trend[line], live, offers[trend_here], 0)
        parts[trend_here] = quotas[3] // 2 if line > 0 else 0
        lengths[trend_all] = _lay_out(trend[0], live, offers[trend_all], 0)
        lengths[new] = _lay_out(trend[1], live, offers[new], 0)
        parts[new] = (quotas[3] - parts[trend_here]) // 2
        parts[trend_all] = quotas[3] - parts[trend_here] - parts[new]
        if keep_seen:
            for r in past:
                if ring_rows[b, r] < live:
                    offers[own, lengths[own]] = ring_rows[b, r]
                    lengths[own] += 1
        parts[own] = capacity
        lengths[encoder] = _lay_out(wished[b], live, offers[encoder], 0)
        parts[encoder] = quotas[4]
        n, n_seen = _take_turns(
            offers, lengths, places, parts, from_channel, hashes, bloom, seen_row,
            marks, rows[b], channels[b], n, seen, n_seen,
        )  # fmt: skip
        # 3
        parts[:] = capacity
        parts[recent] = 0
        n, n_seen = _take_turns(
            offers, lengths, places, parts, from_channel, hashes, bloom, seen_row,
            marks, rows[b], channels[b], n, seen, n_seen,
        )  # fmt: skip
        # 4
        row = 0
        end = min(live, events[b] + n + n_seen + width + k)
        while n < min(k, capacity) and row < end:
            mark = find_place(marks, row)
            if marks[mark] == -1:
                marks[mark] = row
                if seen_row >= 0 and bloom_contains(bloom[seen_row], hashes[row]):
                    if n_seen < capacity:
                        seen[n_seen] = row
                        n_seen += 1
                else:
                    rows[b, n] = row
                    channels[b, n] = CHANNEL.default
                    n += 1
            row += 1
        n_unseen[b] = n
        # 5
        if n < k:
            for j in range(min(n_seen, capacity - n)):
                rows[b, n] = seen[j]
                channels[b, n] = CHANNEL.seen
                n += 1
        n_rows[b] = n
        read_walk(
            walk, now[b], whole, ref_times, popularity, rows[b], n, walked[b], via[b]
        )  # fmt: skip
        rows[b, n:] = -1
        via[b, n:] = -1


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
    histories: Histories,
    requests: RequestBatch,
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
    users, slots, now, scenes = requests.users, requests.slots, requests.now, requests.scenes
    known = np.maximum(slots, 0)
    nobody = slots < 0
    events = np.where(nobody, 0, requests.states.head["events"][known]).astype(np.int64)
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
        histories.ring_rows, histories.history, histories.n_history, events,
        owners, masses, found, wished, items.similar, recent_events,
        neighbour_events, neighbour_width, whole,
        view.near_rows, view.near_counts, view.near_n,
        view.back_rows, view.back_counts, view.back_n, view.ref_times, view.counts,
        trend, lines, items.hashes, users.seen.bits, seen_rows,
        candidates.rows, candidates.channels, candidates.walked, candidates.via,
        candidates.n_rows, candidates.n_unseen,
    )  # fmt: skip
    return candidates
