"""Candidate rows of each user from several channels, each with a quota and so a way in."""

import math
from collections.abc import Sequence
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
from tracker.scoring.item_score import best_by_score
from tracker.scoring.retrieval import LISTS, MIXED, NEW, SCORE, TRENDS, Retrieval, item_score
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
    """Rows that each channel may give to a list of candidates before others get its room.

    `lists` (L,) int64 are those of the lists that all users have in common.
    """

    content: int
    recent: int
    neighbours: int
    scene: int
    encoder: int
    lists: Array


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
    items of each item; `lists` (L, T) are the lists that all users have in common, `scenes` (S, T)
    what trends in scenes, and `scene_lines` (B,) the line of each user's scene, -1 for none.
    """

    owners: Array
    masses: Array
    searched: Array
    encoder: Array
    similar: Array
    lists: Array
    scenes: Array
    scene_lines: Array


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


class _Sources(NamedTuple):
    """Places of the sources: each search, and after them these, the common lists from `lists`."""

    recent: int
    neighbours: int
    scene: int
    lists: int
    own: int
    encoder: int
    total: int


@native
def _sources_of(channel_rows: ChannelRows) -> _Sources:
    searches = channel_rows.owners.shape[1]
    own = searches + 3 + channel_rows.lists.shape[0]
    return _Sources(searches, searches + 1, searches + 2, searches + 3, own, own + 1, own + 2)


@native
def _new_turns(
    channel_rows: ChannelRows, sources: _Sources, best: int, width: int, recent_events: int
) -> _Turns:
    """Return turns for a user's sources, `best` neighbours and a ring of `width` among them."""
    from_channel = np.full(sources.total, CHANNEL.trend, np.uint8)
    from_channel[: sources.recent] = CHANNEL.content
    from_channel[sources.recent] = CHANNEL.recent
    from_channel[sources.neighbours] = CHANNEL.neighbours
    from_channel[sources.own] = CHANNEL.recent
    from_channel[sources.encoder] = CHANNEL.encoder
    longest = max(channel_rows.searched.shape[1], channel_rows.encoder.shape[1])
    longest = max(longest, channel_rows.lists.shape[1], channel_rows.scenes.shape[1])
    longest = max(longest, best, width, recent_events * channel_rows.similar.shape[1])
    return _Turns(
        np.empty((sources.total, longest), np.int32),
        np.zeros(sources.total, np.int64),
        np.zeros(sources.total, np.int64),
        np.zeros(sources.total, np.int64),
        from_channel,
    )


@native
def _lay_out_all(
    b: int,
    histories: Histories,
    channel_rows: ChannelRows,
    sources: _Sources,
    limits: Limits,
    best_rows: Array,
    n_best: int,
    turns: _Turns,
) -> None:
    """Write the live rows that each source offers to a user, best first."""
    offers, lengths, places = turns.offers, turns.lengths, turns.places
    ring_rows = histories.ring_rows[b]
    past = histories.history[b, : histories.n_history[b]]
    similar, live = channel_rows.similar, limits.live
    lengths[:] = 0
    places[:] = 0
    for rank in range(sources.recent):
        owner = channel_rows.owners[b, rank]
        if owner >= 0:
            lengths[rank] = _lay_out(channel_rows.searched[owner], live, offers[rank], 0)
    n = 0
    latest = past[: limits.recent_events]
    for j in range(similar.shape[1]):
        for r in latest:
            row = similar[ring_rows[r], j]
            if 0 <= row < live:
                offers[sources.recent, n] = row
                n += 1
    lengths[sources.recent] = n
    near = sources.neighbours
    lengths[near] = _lay_out(best_rows[:n_best], live, offers[near], 0)
    line = channel_rows.scene_lines[b]
    if line >= 0:
        scene = sources.scene
        lengths[scene] = _lay_out(channel_rows.scenes[line], live, offers[scene], 0)
    for i in range(channel_rows.lists.shape[0]):
        place = sources.lists + i
        lengths[place] = _lay_out(channel_rows.lists[i], live, offers[place], 0)
    n = 0
    if limits.keep_seen:
        for r in past:
            if ring_rows[r] < live:
                offers[sources.own, n] = ring_rows[r]
                n += 1
    lengths[sources.own] = n
    lengths[sources.encoder] = _lay_out(channel_rows.encoder[b], live, offers[sources.encoder], 0)


@native
def _mass(b: int, channel_rows: ChannelRows) -> float:
    """Return the mass of a user's interests that were searched for."""
    mass = 0.0
    for rank in range(channel_rows.owners.shape[1]):
        if channel_rows.owners[b, rank] >= 0:
            mass += channel_rows.masses[b, rank]
    return mass


@native
def _share_out(
    b: int,
    channel_rows: ChannelRows,
    sources: _Sources,
    quotas: Quotas,
    capacity: int,
    parts: Array,
) -> None:
    """Write how many rows each source may give to a user before the room that is left is shared."""
    mass = _mass(b, channel_rows)
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
       encoder. If seen items are kept, those of the user's own ring take turns too, as recent,
       without a quota.
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
        seen: by the users.
        candidates: filled.
    """
    ring_rows = histories.ring_rows
    rows, channels = candidates.rows, candidates.channels
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
    sources = _sources_of(channel_rows)
    turns = _new_turns(channel_rows, sources, len(best_rows), width, limits.recent_events)
    parts = turns.parts
    for b in range(len(rows)):
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
        n_best = _strongest(
            walk.rows, walk.sums, n_walked, live, items.counts, best_scores, best_rows
        )
        _lay_out_all(b, histories, channel_rows, sources, limits, best_rows, n_best, turns)
        _share_out(b, channel_rows, sources, quotas, capacity, parts)
        n, n_seen = _take_turns(turns, seen, seen_row, merged, n, n_seen)
        # 3. Give the room that is left to all but recent.
        _share_out(b, channel_rows, sources, quotas, capacity, parts)
        for source in range(sources.total):
            parts[source] = capacity if parts[source] > 0 else 0
        parts[sources.recent] = 0
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


@native
def _place_of_quota(place: int, share: float) -> int:
    """Return the place in a search that stands for a row: the least quota less 1 that takes it."""
    if place == 0:
        return 0
    return max(math.ceil((place + 0.5) / max(share, 1e-9)) - 1, place)


@native
def place_all(
    requests: RequestColumns,
    histories: Histories,
    channel_rows: ChannelRows,
    limits: Limits,
    walk_options: WalkOptions,
    near: NearLists,
    items: ItemColumns,
    seen: SeenColumns,
    best: int,
    rows: Array,
    places: Array,
) -> None:
    """Write all unseen rows that any source offers, and the place of each in every source.

    The arguments are those of `merge`, for measuring it.

    Args:
        requests: the B users.
        histories: of the users.
        channel_rows: of the users.
        limits: of the merge.
        walk_options: limits of the walk over neighbours.
        near: the neighbours of the items.
        items: their live statistics.
        seen: by the users.
        best: most neighbours of a user.
        rows: (B, P) int32, filled, -1 padded.
        places: (B, P, S) int32, filled with places among the unseen rows of a source, -1 where it
            does not offer the row. Sources are content, recent, neighbours, scene, the common
            lists, own and encoder; a place in a search is the least quota of content less 1.
    """
    capacity = rows.shape[1]
    size = 64
    width = histories.ring_rows.shape[1]
    while size < 4 * (capacity + width):
        size *= 2
    slots = np.empty(size, np.int32)
    at = np.empty(size, np.int32)
    walk = new_walk()
    best_scores = np.empty(best, np.float32)
    best_rows = np.empty(best, np.int32)
    sources = _sources_of(channel_rows)
    turns = _new_turns(channel_rows, sources, best, width, limits.recent_events)
    searches = sources.recent
    for b in range(len(rows)):
        slots[:] = -1
        seen_row = -1 if limits.keep_seen else seen.rows[b]
        rows[b, :] = -1
        places[b, :, :] = -1
        n = 0
        if not limits.keep_seen:
            for r in range(width):
                if histories.ring_rows[b, r] >= 0:
                    mark = find_place(slots, histories.ring_rows[b, r])
                    slots[mark] = histories.ring_rows[b, r]
                    at[mark] = -1
        n_walked = walk_neighbours(b, requests.now[b], histories, walk_options, near, items, walk)
        n_best = _strongest(
            walk.rows, walk.sums, n_walked, limits.live, items.counts, best_scores, best_rows
        )
        _lay_out_all(b, histories, channel_rows, sources, limits, best_rows, n_best, turns)
        mass = _mass(b, channel_rows)
        for source in range(sources.total):
            column = max(source - searches + 1, 0)
            place = 0
            for j in range(turns.lengths[source]):
                row = turns.offers[source, j]
                if seen_row >= 0 and bloom_contains(seen.bits[seen_row], seen.hashes[row]):
                    continue
                mark = find_place(slots, row)
                if slots[mark] == row and at[mark] < 0:
                    continue
                if slots[mark] != row:
                    if n == capacity:
                        continue
                    slots[mark] = row
                    at[mark] = n
                    rows[b, n] = row
                    n += 1
                own = place
                if source < searches:
                    share = channel_rows.masses[b, source] / mass if mass > 0.0 else 1.0
                    own = _place_of_quota(place, share)
                before = places[b, at[mark], column]
                if before < 0 or own < before:
                    places[b, at[mark], column] = own
                if before < 0 or source < searches:
                    place += 1


TRENDING = 64
"""Rows taken at least of what trends in a scene, and of each common list."""


class _Gathered(NamedTuple):
    """Arguments that both `merge` and `place_all` take for B users."""

    rows: ChannelRows
    limits: Limits
    walk: WalkOptions
    seen: SeenColumns


@native
def _read_seen(
    slots: Array, head: Array, seen_slots: Array, events: Array, seen_rows: Array
) -> None:
    """Write the number of events and the row in the filters of each user; see `SeenColumns`."""
    for b in range(len(slots)):
        slot = slots[b]
        events[b] = head[slot]["events"] if slot >= 0 else 0
        seen_rows[b] = seen_slots[slot] if slot >= 0 else -1


def _gather(
    results: SearchResults,
    requests: RequestBatch,
    k: int,
    options: RecommendOptions,
    names: Sequence[str],
    long: int,
    whole_walk: bool,
    items: ItemVectors,
    view: ItemView,
) -> _Gathered:
    """Look up the common lists, by their names and at most so `long`, and those of the scenes."""
    users, slots, scenes = requests.users, requests.slots, requests.scenes
    events, seen_rows = np.empty(len(slots), np.int64), np.empty(len(slots), np.int64)
    _read_seen(slots, requests.states.head, users.seen_slots, events, seen_rows)
    latest = float(requests.now.max()) if len(requests) else 0.0
    lists = [_common_list(view, name, options.retrieval, latest, long) for name in names]
    lines: dict[int, int] = {}
    of_users = [lines.setdefault(code, len(lines)) if code else -1 for code in scenes.tolist()]
    of_scenes = [view.trend_rows(latest, code, long) for code in lines]
    return _Gathered(
        ChannelRows(
            results.owners, results.masses, results.rows, results.encoder_rows, items.similar,
            _padded(lists, long), _padded(of_scenes, long),
            np.array(of_users, np.int64),
        ),
        Limits(k, items.live, options.seen == "keep", options.recent_events),
        WalkOptions(options.neighbour_events, options.neighbour_width, whole_walk),
        SeenColumns(events, seen_rows, users.seen.bits, items.hashes),
    )  # fmt: skip


def _common_list(
    view: ItemView, name: str, retrieval: Retrieval, now: float, long: int
) -> NDArray[np.int64]:
    """Return a list that all users have in common, of `retrieval.LISTS`."""
    if name == NEW:
        return view.new_rows(now, long)
    if name == SCORE:
        return best_by_score(view, item_score(retrieval.score), now, long)
    if name == MIXED:
        return view.mixed_trend_rows(now, long)
    place = TRENDS.index(name)
    if place >= len(view.columns.half_lives):
        return np.zeros(0, np.int64)
    return view.trend_rows(now, 0, long, place)


def _padded(lists: list[NDArray[np.int64]], long: int) -> NDArray[np.int64]:
    rows = np.full((len(lists), long), -1, np.int64)
    for line, some in enumerate(lists):
        rows[line, : len(some)] = some
    return rows


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
    quotas = options.retrieval
    names = [name for name, rows in quotas.lists.items() if rows > 0]
    long = max(TRENDING, 2 * max(quotas.lists.values(), default=0), 2 * quotas.scene)
    gathered = _gather(results, requests, k, options, names, long, whole_walk, items, view)
    candidates = Candidates.of_size(len(requests), max(options.candidates, k))
    of_lists = np.array([quotas.lists[name] for name in names], np.int64)
    merge(
        requests.columns,
        results.histories,
        gathered.rows,
        Quotas(
            quotas.content, quotas.recent, quotas.neighbours, quotas.scene, quotas.encoder, of_lists
        ),
        gathered.limits,
        gathered.walk,
        view.neighbours,
        view.columns,
        gathered.seen,
        candidates,
    )
    return candidates


SOURCES = ("content", "recent", "neighbours", "scene", *LISTS, "own", "encoder")
"""Sources of candidates, in the order of `source_places`."""


def source_places(
    results: SearchResults,
    requests: RequestBatch,
    options: RecommendOptions,
    width: int,
    capacity: int,
    items: ItemVectors,
    view: ItemView,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return what every source offers to B users, and the place of each row in every source.

    Args:
        results: of the indexes.
        requests: the B users.
        options: as for `find_candidates`; no quota counts.
        width: rows of each list, at most.
        capacity: rows of a user, at most.
        items: the catalogue.
        view: the live statistics of the items.

    Returns:
        rows (B, P) int32, -1 padded, and places (B, P, SOURCES) int32; see `place_all`.
    """
    gathered = _gather(results, requests, 1, options, LISTS, width, False, items, view)
    rows = np.full((len(requests), capacity), -1, np.int32)
    places = np.full((len(requests), capacity, len(SOURCES)), -1, np.int32)
    place_all(
        requests.columns, results.histories, gathered.rows, gathered.limits, gathered.walk,
        view.neighbours, view.columns, gathered.seen, width, rows, places,
    )  # fmt: skip
    return rows, places
