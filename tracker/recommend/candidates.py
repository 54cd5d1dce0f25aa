"""Candidate rows of each user from several channels, each with a quota and so a way in."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.items.counts import COUNT, pair_norm
from tracker.items.near_lists import NearLists
from tracker.items.vectors import ItemVectors
from tracker.items.view import ItemColumns, ItemView
from tracker.kernels.native import inlined, native
from tracker.kernels.row_lists import find_place, keep_best
from tracker.recommend.neighbour_walk import (
    WALK_SUMS,
    WalkOptions,
    new_walk,
    read_walk,
    walk_neighbours,
)
from tracker.recommend.options import RecommendOptions
from tracker.recommend.reader import SearchResults
from tracker.users.columns import RequestColumns
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
def _strongest(
    walk_rows: Array, sums: Array, n_walked: int, live: int, popularity: Array,
    scores: Array, rows: Array,
) -> int:  # fmt: skip
    """Write the live rows of a walk with the largest normalised sums; return their number."""
    n = 0
    for i in range(n_walked):
        row = walk_rows[i]
        # With one event at least, sqrt(n + 5) is above 2.449: most rows need no look-up.
        if row < live and (n < len(rows) or sums[i, 1] > 2.449 * scores[n - 1]):
            score = float(np.float32(sums[i, 1] / pair_norm(popularity[row, COUNT.never])))
            n = keep_best(scores, rows, n, score, row)
    return n


@native
def _lay_out(rows: Array, live: int, offer: Array, n: int) -> int:
    """Add the live ones of rows to an offer of n; return its new length."""
    for row in rows:
        if 0 <= row < live:
            offer[n] = row
            n += 1
    return n


class Quotas(NamedTuple):
    """Rows that each channel may give to a list of candidates before others get its room."""

    content: int
    recent: int
    neighbours: int
    trend: int
    encoder: int


class Limits(NamedTuple):
    """Limits of the merge.

    At least `k` rows are wanted, all below `live`; with `keep_seen` seen items are candidates like
    others. `recent_events`: similar items are taken of the latest so many items.
    """

    k: int
    live: int
    keep_seen: bool
    recent_events: int


class SeenColumns(NamedTuple):
    """The seen items of B users.

    `events` (B,) int64, the number of each user's events so far, is the bound of it; `rows` (B,)
    int64 the row of each user in the filters `bits`, -1 for none; `hashes` (N,) of the items.
    """

    events: Array
    rows: Array
    bits: Array
    hashes: Array


class ChannelRows(NamedTuple):
    """The rows that channels found for B users, best first, -1 padded.

    `owners` and `masses` (B, searches) of `interest_queries`, and `searched` (Q, K) the rows of
    each query; `encoder` (B, K) those of the user encoder, K may be 0; `similar` (N, M) the nearest
    items of each item; `trend` (L, T) what trends everywhere, what is new, and then what trends in
    scenes, and `trend_lines` (B,) the line of each user's scene, 0 for none.
    """

    owners: Array
    masses: Array
    searched: Array
    encoder: Array
    similar: Array
    trend: Array
    trend_lines: Array


class Candidates(NamedTuple):
    """Up to C unique live rows per user, the unseen first, with the channels' findings.

    `rows` (B, C) int32, -1 padded; `channels` (B, C) uint8, positions in CHANNELS; `walk_sums`
    (B, C, WALKED) float32, neighbour sums; `via` (B, C) int8, the position in the history of the
    item that gave most of them, -1 none; `n_rows` and `n_unseen` (B,) int64.
    """

    rows: NDArray[np.int32]
    channels: NDArray[np.uint8]
    walk_sums: NDArray[np.float32]
    via: NDArray[np.int8]
    n_rows: NDArray[np.int64]
    n_unseen: NDArray[np.int64]

    @staticmethod
    def of_size(users: int, capacity: int) -> "Candidates":
        """Return arrays for so many users and candidates, to be filled."""
        return Candidates(
            np.empty((users, capacity), np.int32),
            np.empty((users, capacity), np.uint8),
            np.empty((users, capacity, WALK_SUMS), np.float32),
            np.empty((users, capacity), np.int8),
            np.zeros(users, np.int64),
            np.zeros(users, np.int64),
        )


class _Turns(NamedTuple):
    """The S sources of one user's candidates, which take turns.

    `offers` (S, L) int32 are live rows, best first, `lengths` (S,) how many each has, `places` (S,)
    how many of them were looked at, `parts` (S,) how many each may give yet, `channels` (S,) uint8
    the channel of each.
    """

    offers: Array
    lengths: Array
    places: Array
    parts: Array
    channels: Array


class _Merged(NamedTuple):
    """The lists of one user: `rows` and `channels` (C,) of candidates, and `seen` (C,) rows.

    `marks` is an open-addressing set of all rows that were looked at, see `find_place`.
    """

    rows: Array
    channels: Array
    seen: Array
    marks: Array


@inlined
def _take_turns(
    turns: _Turns, seen: SeenColumns, seen_row: int, merged: _Merged, n: int, n_seen: int
) -> tuple[int, int]:
    """Take one new row per source in turns, best first, until the list is full or no row is left.

    Args:
        turns: the sources.
        seen: of the users.
        seen_row: row of the user in its filters; -1 for none, and if seen rows are like others.
        merged: filled.
        n: candidates so far.
        n_seen: seen rows so far.

    Returns:
        n and n_seen.
    """
    offers, lengths, places, parts, from_channel = turns
    rows, channels, seen_rows, marks = merged
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
                if seen_row >= 0 and bloom_contains(seen.bits[seen_row], seen.hashes[row]):
                    if n_seen < len(seen_rows):
                        seen_rows[n_seen] = row
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
    requests: RequestColumns,
    histories: Histories,
    channel_rows: ChannelRows,
    quotas: Quotas,
    limits: Limits,
    walk_options: WalkOptions,
    near: NearLists,
    items: ItemColumns,
    seen: SeenColumns,
    candidates: Candidates,
) -> None:
    """Merge the rows of all channels into one list of unique live rows per user.

    1. The latest items' live neighbours are summed (`walk_neighbours`).
    2. The channels take turns and give one row at a time, best first, up to their quotas: a row
       that several offer counts for the channel that ranks it highest. They are: each search
       (its part of the content quota is its interest's part of the mass), recent (items similar to
       the latest ones, of each in turn), neighbours, trend of the scene (half of the quota, nothing
       without a scene), trend of everywhere and new items (half of the rest each), the user
       encoder. If seen items are kept, those of the user's own ring take turns too, as recent,
       without a quota.
    3. The room that is left goes to all but recent, in turns again.
    4. With fewer than k unseen rows, catalogue order gives the rest. So many rows are looked at
       that k unseen ones are found if there are as many.
    5. Only with fewer than k rows then, seen items follow, in the order in which they were
       offered, the ring's own latest first.

    Args:
        requests: the B users.
        histories: of the users.
        channel_rows: of the users.
        quotas: of the channels.
        limits: of the merge.
        walk_options: limits of the walk over neighbours.
        near: the neighbours of the items.
        items: their live statistics.
        seen: by the users.
        candidates: filled.
    """
    ring_rows, history = histories.ring_rows, histories.history
    rows, channels = candidates.rows, candidates.channels
    owners, masses, trend = channel_rows.owners, channel_rows.masses, channel_rows.trend
    similar, searched, encoder_rows = (
        channel_rows.similar,
        channel_rows.searched,
        channel_rows.encoder,
    )
    popularity = items.counts
    k, live = limits.k, limits.live
    capacity = rows.shape[1]
    width = ring_rows.shape[1]
    size = 64
    while size < 4 * (2 * capacity + width):
        size *= 2
    marks = np.empty(size, np.int32)
    seen_rows = np.empty(capacity, np.int32)
    walk = new_walk()
    best_scores = np.empty(quotas.neighbours + quotas.neighbours // 2, np.float32)
    best_rows = np.empty(len(best_scores), np.int32)
    searches = owners.shape[1]
    # The sources: each search, and after them recent, neighbours, two trends, new, own, encoder.
    recent, near_source, trend_here = searches, searches + 1, searches + 2
    trend_all, new = searches + 3, searches + 4
    own, encoder = searches + 5, searches + 6
    sources = searches + 7
    from_channel = np.zeros(sources, np.uint8)
    from_channel[:searches] = CHANNEL.content
    from_channel[recent] = CHANNEL.recent
    from_channel[near_source] = CHANNEL.neighbours
    from_channel[trend_here] = CHANNEL.trend
    from_channel[trend_all] = CHANNEL.trend
    from_channel[new] = CHANNEL.trend
    from_channel[own] = CHANNEL.recent
    from_channel[encoder] = CHANNEL.encoder
    longest = max(searched.shape[1], encoder_rows.shape[1], trend.shape[1])
    longest = max(longest, len(best_rows), width, limits.recent_events * similar.shape[1])
    offers = np.empty((sources, longest), np.int32)
    parts = np.zeros(sources, np.int64)
    lengths = np.zeros(sources, np.int64)
    places = np.zeros(sources, np.int64)
    turns = _Turns(offers, lengths, places, parts, from_channel)
    for b in range(len(rows)):
        past = history[b, : histories.n_history[b]]
        merged = _Merged(rows[b], channels[b], seen_rows, marks)
        marks[:] = -1
        n = 0
        n_seen = 0
        seen_row = -1 if limits.keep_seen else seen.rows[b]
        if not limits.keep_seen:
            for r in range(width - 1, -1, -1):
                row = ring_rows[b, r]
                if row < 0:
                    continue
                mark = find_place(marks, row)
                if marks[mark] == -1:
                    marks[mark] = row
                    if row < live and n_seen < capacity:
                        seen_rows[n_seen] = row
                        n_seen += 1
        # 1. Sum the live neighbours of the latest items.
        now = requests.now[b]
        n_walked = walk_neighbours(b, now, histories, walk_options, near, items, walk)
        # 2. Let the channels take turns, up to their quotas.
        lengths[:] = 0
        places[:] = 0
        mass = 0.0
        for rank in range(searches):
            if owners[b, rank] >= 0:
                mass += masses[b, rank]
        for rank in range(searches):
            if owners[b, rank] >= 0:
                lengths[rank] = _lay_out(searched[owners[b, rank]], live, offers[rank], 0)
            if mass > 0.0:
                parts[rank] = max(1, math.floor(quotas.content * masses[b, rank] / mass + 0.5))
        latest = past[: limits.recent_events]
        for j in range(similar.shape[1]):
            for r in latest:
                row = similar[ring_rows[b, r], j]
                if 0 <= row < live:
                    offers[recent, lengths[recent]] = row
                    lengths[recent] += 1
        parts[recent] = quotas.recent
        n_best = _strongest(
            walk.rows, walk.sums, n_walked, live, popularity, best_scores, best_rows
        )
        lengths[near_source] = _lay_out(best_rows[:n_best], live, offers[near_source], 0)
        parts[near_source] = quotas.neighbours
        line = channel_rows.trend_lines[b]
        if line > 0:
            lengths[trend_here] = _lay_out(trend[line], live, offers[trend_here], 0)
        parts[trend_here] = quotas.trend // 2 if line > 0 else 0
        lengths[trend_all] = _lay_out(trend[0], live, offers[trend_all], 0)
        lengths[new] = _lay_out(trend[1], live, offers[new], 0)
        parts[new] = (quotas.trend - parts[trend_here]) // 2
        parts[trend_all] = quotas.trend - parts[trend_here] - parts[new]
        if limits.keep_seen:
            for r in past:
                if ring_rows[b, r] < live:
                    offers[own, lengths[own]] = ring_rows[b, r]
                    lengths[own] += 1
        parts[own] = capacity
        lengths[encoder] = _lay_out(encoder_rows[b], live, offers[encoder], 0)
        parts[encoder] = quotas.encoder
        n, n_seen = _take_turns(turns, seen, seen_row, merged, n, n_seen)
        # 3. Give the room that is left to all but recent.
        parts[:] = capacity
        parts[recent] = 0
        n, n_seen = _take_turns(turns, seen, seen_row, merged, n, n_seen)
        # 4. Fill up in catalogue order.
        row = 0
        end = min(live, seen.events[b] + n + n_seen + width + k)
        while n < min(k, capacity) and row < end:
            mark = find_place(marks, row)
            if marks[mark] == -1:
                marks[mark] = row
                if seen_row >= 0 and bloom_contains(seen.bits[seen_row], seen.hashes[row]):
                    if n_seen < capacity:
                        seen_rows[n_seen] = row
                        n_seen += 1
                else:
                    rows[b, n] = row
                    channels[b, n] = CHANNEL.default
                    n += 1
            row += 1
        candidates.n_unseen[b] = n
        # 5. Fill up with seen items.
        if n < k:
            for j in range(min(n_seen, capacity - n)):
                rows[b, n] = seen_rows[j]
                channels[b, n] = CHANNEL.seen
                n += 1
        candidates.n_rows[b] = n
        read_walk(
            walk,
            now,
            walk_options.whole,
            items,
            rows[b],
            n,
            candidates.walk_sums[b],
            candidates.via[b],
        )
        rows[b, n:] = -1
        candidates.via[b, n:] = -1


TRENDING = 64
"""Rows taken of what trends in a scene, of what trends everywhere, and of new items."""


def find_candidates(
    results: SearchResults,
    requests: RequestBatch,
    k: int,
    options: RecommendOptions,
    whole_walk: bool,
    items: ItemVectors,
    view: ItemView,
) -> Candidates:
    """Gather the candidates of B users from all channels; see `merge`.

    Args:
        results: of the indexes.
        requests: the B users.
        k: rows wanted at least.
        options: how many candidates, from where.
        whole_walk: all sums of the walk over neighbours are wanted.
        items: the catalogue.
        view: the live statistics of the items.
    """
    users, slots, scenes = requests.users, requests.slots, requests.scenes
    arena_rows = np.maximum(slots, 0)
    nobody = slots < 0
    events = np.where(nobody, 0, requests.states.head["events"][arena_rows]).astype(np.int64)
    seen_rows = np.where(nobody, -1, users.seen_slots[arena_rows])
    names, trend_of = np.unique(scenes, return_inverse=True)
    latest = float(requests.now.max()) if len(requests) else 0.0
    lists = [view.mixed_trend_rows(latest, TRENDING), view.new_rows(latest, TRENDING)]
    lists += [view.trend_rows(latest, int(name), TRENDING) for name in names]
    trend = np.full((len(lists), TRENDING), -1, np.int64)
    for line, rows in enumerate(lists):
        trend[line, : len(rows)] = rows
    lines = np.where(scenes == 0, 0, trend_of.reshape(-1) + 2)
    keep_seen = options.seen == "keep"
    candidates = Candidates.of_size(len(slots), max(options.candidates, k))
    merge(
        requests.columns,
        results.histories,
        ChannelRows(
            results.owners, results.masses, results.rows, results.encoder_rows,
            items.similar, trend, lines,
        ),
        Quotas(*options.quotas),
        Limits(k, items.live, keep_seen, options.recent_events),
        WalkOptions(options.neighbour_events, options.neighbour_width, whole_walk),
        view.neighbours,
        view.columns,
        SeenColumns(events, seen_rows, users.seen.bits, items.hashes),
        candidates,
    )  # fmt: skip
    return candidates
