"""Channels: their names, and the rows that each of them offers to a user, best first."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.items.counts import COUNT, pair_norm
from tracker.items.vectors import ItemVectors
from tracker.items.view import ItemView
from tracker.kernels.arithmetic import whole
from tracker.kernels.native import native
from tracker.kernels.row_lists import keep_best
from tracker.recommend.neighbour_walk import WalkOptions
from tracker.recommend.plan import Plan
from tracker.recommend.reader import SearchResults
from tracker.scoring.item_score import best_by_score
from tracker.scoring.retrieval import MIXED, NEW, SCORE, TRENDS
from tracker.users.readings import Histories
from tracker.users.rows import RequestBatch

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


class Limits(NamedTuple):
    """Limits of the merge.

    At least `k` rows are wanted, all below `live`; with `keep_seen` seen items are candidates like
    others. `recent_events`: the number of latest items of which similar ones are taken.
    """

    k: int
    live: int
    keep_seen: bool
    recent_events: int


class SeenColumns(NamedTuple):
    """The seen items of an arena's users.

    `head` of the arena has the number of each user's events so far, the bound of it; `slots` are
    the rows of its users in the filters `bits`, -1 for none; `hashes` (N,) those of the items.
    """

    head: Array
    slots: Array
    bits: Array
    hashes: Array


class ChannelRows(NamedTuple):
    """The rows that channels found for B users, best first, -1 padded.

    `owners` and `masses` (B, searches) of `interest_queries`, and `searched` (Q, K) the rows of
    each query; `encoder` (B, K) those of the user encoder and `item_weights` (B, K) int32 those of
    item weights, K may be 0; `similar` (N, M) the nearest
    items of each item; `lists` (L, T) are the lists that all users have in common, `scenes` (S, T)
    what trends in scenes, and `scene_lines` (B,) the line of each user's scene, -1 for none.
    """

    owners: Array
    masses: Array
    searched: Array
    encoder: Array
    item_weights: Array
    similar: Array
    lists: Array
    scenes: Array
    scene_lines: Array


class Turns(NamedTuple):
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


class Sources(NamedTuple):
    """Places of the sources: each search, and after them these, the common lists from `lists`."""

    recent: int
    neighbours: int
    scene: int
    lists: int
    own: int
    encoder: int
    item_weights: int
    total: int


@native
def sources_of(channel_rows: ChannelRows) -> Sources:
    """Return the places of the sources, which depend on the numbers of searches and lists."""
    searches = channel_rows.owners.shape[1]
    own = searches + 3 + channel_rows.lists.shape[0]
    return Sources(
        searches, searches + 1, searches + 2, searches + 3, own, own + 1, own + 2, own + 3
    )


@native
def new_turns(
    channel_rows: ChannelRows, sources: Sources, best: int, width: int, recent_events: int
) -> Turns:
    """Return turns for a user's sources, `best` neighbours and a ring of `width` among them."""
    from_channel = np.full(sources.total, CHANNEL.trend, np.uint8)
    from_channel[: sources.recent] = CHANNEL.content
    from_channel[sources.recent] = CHANNEL.recent
    from_channel[sources.neighbours] = CHANNEL.neighbours
    from_channel[sources.own] = CHANNEL.recent
    from_channel[sources.encoder] = CHANNEL.encoder
    from_channel[sources.item_weights] = CHANNEL.neighbours
    longest = max(channel_rows.searched.shape[1], channel_rows.encoder.shape[1])
    longest = max(longest, channel_rows.item_weights.shape[1])
    longest = max(longest, channel_rows.lists.shape[1], channel_rows.scenes.shape[1])
    longest = max(longest, best, width, recent_events * channel_rows.similar.shape[1])
    return Turns(
        np.empty((sources.total, longest), np.int32),
        np.zeros(sources.total, np.int64),
        np.zeros(sources.total, np.int64),
        np.zeros(sources.total, np.int64),
        from_channel,
    )


@native
def strongest(
    walk_rows: Array, sums: Array, n_walked: int, live: int, popularity: Array,
    scores: Array, rows: Array,
) -> int:  # fmt: skip
    """Write the live rows of a walk with the largest normalised sums; return their number."""
    n = 0
    if len(rows) == 0:
        return n
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


@native
def lay_out_all(
    b: int,
    histories: Histories,
    channel_rows: ChannelRows,
    sources: Sources,
    limits: Limits,
    best_rows: Array,
    n_best: int,
    turns: Turns,
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
    weighed = sources.item_weights
    lengths[weighed] = _lay_out(channel_rows.item_weights[b], live, offers[weighed], 0)


@native
def searched_mass(b: int, channel_rows: ChannelRows) -> float:
    """Return the mass of a user's interests that were searched for."""
    mass = 0.0
    for rank in range(channel_rows.owners.shape[1]):
        if channel_rows.owners[b, rank] >= 0:
            mass += channel_rows.masses[b, rank]
    return mass


class ChannelInputs(NamedTuple):
    """Arguments that both `merge` and `place_all` take for B users."""

    rows: ChannelRows
    limits: Limits
    walk: WalkOptions
    seen: SeenColumns


@native
def seen_of(seen: SeenColumns, slot: int) -> tuple[int, int]:
    """Return the number of a user's events, and the row in the filters; 0 and -1 for none."""
    if slot < 0:
        return 0, -1
    return whole(seen.head[slot]["events"]), seen.slots[slot]


def channel_inputs(
    results: SearchResults,
    requests: RequestBatch,
    k: int,
    plan: Plan,
    items: ItemVectors,
    view: ItemView,
) -> ChannelInputs:
    """Look up the common lists of a plan, and those of the scenes."""
    options, long = plan.options, plan.long
    users, latest = requests.users, requests.latest
    lists = [_common_list(view, name, plan, latest) for name in plan.lists]
    lines: dict[int, int] = {}
    of_users = [
        lines.setdefault(code, len(lines)) if code else -1 for code in requests.scenes.tolist()
    ]
    of_scenes = [view.trend_rows(latest, code, long) for code in lines]
    return ChannelInputs(
        ChannelRows(
            results.owners, results.masses, results.rows, results.encoder_rows,
            results.weighed_rows, items.similar,
            _padded(lists, long), _padded(of_scenes, long),
            np.array(of_users, np.int64),
        ),
        Limits(k, items.live, options.seen == "keep", options.recent_events),
        plan.walk,
        SeenColumns(users.states.head, users.seen_slots, users.seen.bits, items.hashes),
    )  # fmt: skip


def _common_list(view: ItemView, name: str, plan: Plan, now: float) -> NDArray[np.int64]:
    """Return a list that all users have in common, of `retrieval.LISTS`."""
    long = plan.long
    if name == NEW:
        return view.new_rows(now, long)
    if name == SCORE:
        return best_by_score(view, plan.list_score, now, long)
    if name == MIXED:
        return view.mixed_trend_rows(now, long)
    place = TRENDS.index(name)
    if place >= len(view.columns.half_lives):
        return np.zeros(0, np.int64)
    return view.trend_rows(now, 0, long, place)


def _padded(lists: list[NDArray[np.int64]], long: int) -> NDArray[np.int64]:
    rows = np.empty((len(lists), long), np.int64)
    rows.fill(-1)
    for line, some in enumerate(lists):
        rows[line, : len(some)] = some
    return rows
