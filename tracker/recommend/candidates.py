"""Candidate rows of each user from several channels, each with a quota and so a way in."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.items.near_lists import NearLists
from tracker.items.vectors import ItemVectors
from tracker.items.view import ItemColumns, ItemView
from tracker.kernels.native import inlined, native, prefetch
from tracker.kernels.row_lists import find_place, places_for
from tracker.recommend.channels import (
    CHANNEL,
    ChannelRows,
    Limits,
    SeenColumns,
    Sources,
    Turns,
    channel_inputs,
    lay_out_all,
    new_turns,
    searched_mass,
    seen_of,
    sources_of,
    strongest,
)
from tracker.recommend.neighbour_walk import (
    WALK_SUMS,
    WalkOptions,
    new_walk,
    prefetch_walk,
    read_walk,
    walk_neighbours,
)
from tracker.recommend.plan import Plan, Quotas
from tracker.recommend.reader import SearchResults
from tracker.users.columns import RequestColumns
from tracker.users.readings import Histories
from tracker.users.rows import RequestBatch
from tracker.users.seen import bloom_contains

Array = NDArray[Any]


class Candidates(NamedTuple):
    """Up to C unique live rows per user, the unseen first, with the channels' findings.

    `rows` (B, C) int32, -1 padded; `channels` (B, C) uint8, positions in CHANNELS; `walk_sums`
    (B, C, WALK_SUMS) float32, neighbour sums; `via` (B, C) int8, the position in the history of the
    item that gave most of them, or else of the item weights, -1 none; `weighed` (B, C) float32, the
    column `item_weights`, 0 until the first cut; `n_rows` and `n_unseen` (B,) int64.
    """

    rows: NDArray[np.int32]
    channels: NDArray[np.uint8]
    walk_sums: NDArray[np.float32]
    via: NDArray[np.int8]
    weighed: NDArray[np.float32]
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
            np.zeros((users, capacity), np.float32),
            np.zeros(users, np.int64),
            np.zeros(users, np.int64),
        )


class _Merged(NamedTuple):
    """The lists of one user: `rows` and `channels` (C,) of candidates, and `seen` (C,) rows.

    `marks` is an open-addressing set, see `find_place`, of the rows of the ring and of both lists.
    """

    rows: Array
    channels: Array
    seen: Array
    marks: Array


@inlined
def _take_turns(
    turns: Turns, seen: SeenColumns, seen_row: int, merged: _Merged, n: int, n_seen: int
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
                if seen_row >= 0 and bloom_contains(seen.bits[seen_row], seen.hashes[row]):
                    if n_seen < len(seen_rows):  # more are not marked: the marks have no room
                        marks[mark] = row
                        seen_rows[n_seen] = row
                        n_seen += 1
                    continue
                marks[mark] = row
                rows[n] = row
                channels[n] = from_channel[source]
                n += 1
                parts[source] -= 1
                busy = True
                break
            places[source] = place
    return n, n_seen


@native
def _share_out(
    b: int,
    channel_rows: ChannelRows,
    sources: Sources,
    quotas: Quotas,
    capacity: int,
    parts: Array,
) -> None:
    """Write how many rows each source may give to a user before the room that is left is shared."""
    mass = searched_mass(b, channel_rows)
    parts[:] = 0
    if mass > 0.0 and quotas.content > 0:
        for rank in range(sources.recent):
            share = channel_rows.masses[b, rank] / mass
            parts[rank] = max(1, math.floor(quotas.content * share + 0.5))
    parts[sources.recent] = quotas.recent
    parts[sources.neighbours] = quotas.neighbours
    lists = len(quotas.lists)
    for i in range(lists):
        parts[sources.lists + i] = quotas.lists[i]
    if channel_rows.scene_lines[b] >= 0:
        parts[sources.scene] = quotas.scene
    else:  # The common lists share the quota of a scene that is not there.
        active = 0
        for i in range(lists):
            active += quotas.lists[i] > 0
        for i in range(lists):
            if quotas.lists[i] > 0:
                parts[sources.lists + i] += quotas.scene // active
    parts[sources.own] = capacity
    parts[sources.encoder] = quotas.encoder
    parts[sources.item_weights] = quotas.item_weights


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
       the latest ones, of each in turn), neighbours, trend of the scene (without a scene the common
       lists share its quota), the common lists (what trends everywhere, new items), the user
       encoder, item weights. If seen items are kept, those of the user's own ring take turns too,
       as recent, without a quota.
    3. The room that is left goes to all but recent that have a quota, in turns again.
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
        seen: by the arena's users.
        candidates: filled.
    """
    ring_rows = histories.ring_rows
    rows, channels = candidates.rows, candidates.channels
    k, live = limits.k, limits.live
    capacity = rows.shape[1]
    width = ring_rows.shape[1]
    marks = np.empty(places_for(2 * capacity + width), np.int32)
    seen_rows = np.empty(capacity, np.int32)
    walk = new_walk()
    best_scores = np.empty(quotas.neighbours + quotas.neighbours // 2, np.float32)
    best_rows = np.empty(len(best_scores), np.int32)
    sources = sources_of(channel_rows)
    turns = new_turns(channel_rows, sources, len(best_rows), width, limits.recent_events)
    parts = turns.parts
    for b in range(len(rows)):
        merged = _Merged(rows[b], channels[b], seen_rows, marks)
        marks[:] = -1
        n = 0
        n_seen = 0
        n_events, seen_row = seen_of(seen, requests.slots[b])
        if limits.keep_seen:
            seen_row = -1
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
        if b + 1 < len(rows) and histories.n_history[b + 1] > 0:
            ahead = ring_rows[b + 1, histories.history[b + 1, 0]]
            prefetch_walk(near, items, ahead)
            prefetch(channel_rows.similar, ahead)
        now = requests.now[b]
        n_walked = walk_neighbours(b, now, histories, walk_options, near, items, walk)
        # 2. Let the channels take turns, up to their quotas.
        n_best = strongest(
            walk.rows, walk.sums, n_walked, live, items.counts, best_scores, best_rows
        )
        lay_out_all(b, histories, channel_rows, sources, limits, best_rows, n_best, turns)
        _share_out(b, channel_rows, sources, quotas, capacity, parts)
        n, n_seen = _take_turns(turns, seen, seen_row, merged, n, n_seen)
        # 3. Give the room that is left to all but recent.
        _share_out(b, channel_rows, sources, quotas, capacity, parts)
        for source in range(sources.total):
            parts[source] = capacity if parts[source] > 0 else 0
        parts[sources.recent] = 0
        n, n_seen = _take_turns(turns, seen, seen_row, merged, n, n_seen)
        # 4. Fill up in catalogue order; each row comes once, so it needs no mark.
        row = 0
        end = min(live, n_events + n + n_seen + width + k)
        while n < min(k, capacity) and row < end:
            if marks[find_place(marks, row)] == -1:
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
            n_walked,
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


def find_candidates(
    results: SearchResults,
    requests: RequestBatch,
    k: int,
    plan: Plan,
    items: ItemVectors,
    view: ItemView,
) -> Candidates:
    """Gather the candidates of B users from all channels; see `merge`.

    Args:
        results: of the indexes.
        requests: the B users.
        k: rows wanted at least.
        plan: how many candidates, from where.
        items: the catalogue.
        view: the live statistics of the items.
    """
    inputs = channel_inputs(results, requests, k, plan, items, view)
    candidates = Candidates.of_size(len(requests), max(plan.options.candidates, k))
    merge(
        requests.columns,
        results.histories,
        inputs.rows,
        plan.quotas,
        inputs.limits,
        inputs.walk,
        view.neighbours,
        view.columns,
        inputs.seen,
        candidates,
    )
    return candidates
