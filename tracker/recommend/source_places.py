"""Source places: what every source offers to users, and where, to choose quotas by."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.items.near_lists import NearLists
from tracker.items.vectors import ItemVectors
from tracker.items.view import ItemColumns, ItemView
from tracker.kernels.native import native
from tracker.kernels.row_lists import find_place, places_for
from tracker.recommend.channels import (
    ChannelRows,
    Limits,
    SeenColumns,
    channel_inputs,
    lay_out_all,
    new_turns,
    searched_mass,
    seen_of,
    sources_of,
    strongest,
)
from tracker.recommend.neighbour_walk import (
    WalkOptions,
    new_walk,
    walk_neighbours,
)
from tracker.recommend.options import RecommendOptions
from tracker.recommend.plan import Plan
from tracker.recommend.reader import SearchResults
from tracker.scoring.blend import Blend
from tracker.scoring.retrieval import LISTS
from tracker.users.columns import RequestColumns
from tracker.users.readings import Histories
from tracker.users.rows import RequestBatch
from tracker.users.seen import bloom_contains

Array = NDArray[Any]

SOURCES = ("content", "recent", "neighbours", "scene", *LISTS, "own", "encoder", "item_weights")
"""Sources of candidates, in the order of `source_places`."""


class SourcePlaces(NamedTuple):
    """The unseen rows that sources offer to B users, and their places in every source.

    `rows` (B, P) int32 are -1 padded. `places` (B, P, S) int32 are places among the unseen rows of
    a source, -1 where it does not offer the row. The S sources are SOURCES; a place in a search is
    the least quota of content less 1.
    """

    rows: NDArray[np.int32]
    places: NDArray[np.int32]


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
    out: SourcePlaces,
) -> None:
    """Write all unseen rows that any source offers, and the place of each in every source.

    The arguments but the last two are those of `merge`, for measuring it.

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
        out: filled.
    """
    rows, places = out
    capacity = rows.shape[1]
    width = histories.ring_rows.shape[1]
    slots = np.empty(places_for(capacity + width), np.int32)
    at = np.empty(len(slots), np.int32)
    walk = new_walk()
    best_scores = np.empty(best, np.float32)
    best_rows = np.empty(best, np.int32)
    sources = sources_of(channel_rows)
    turns = new_turns(channel_rows, sources, best, width, limits.recent_events)
    searches = sources.recent
    for b in range(len(rows)):
        slots[:] = -1
        _, seen_row = seen_of(seen, requests.slots[b])
        if limits.keep_seen:
            seen_row = -1
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
        n_best = strongest(
            walk.rows, walk.sums, n_walked, limits.live, items.counts, best_scores, best_rows
        )
        lay_out_all(b, histories, channel_rows, sources, limits, best_rows, n_best, turns)
        mass = searched_mass(b, channel_rows)
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


def source_places(
    results: SearchResults,
    requests: RequestBatch,
    options: RecommendOptions,
    width: int,
    capacity: int,
    items: ItemVectors,
    view: ItemView,
) -> SourcePlaces:
    """Return what every source offers to B users, and the place of each row in every source.

    Args:
        results: of the indexes.
        requests: the B users.
        options: how many rows, from where; no quota counts.
        width: rows of each list, at most.
        capacity: rows of a user, at most.
        items: the catalogue.
        view: the live statistics of the items.
    """
    plan = Plan.of(options, Blend())._replace(lists=list(LISTS), long=width)
    inputs = channel_inputs(results, requests, 1, plan, items, view)
    out = SourcePlaces(
        np.full((len(requests), capacity), -1, np.int32),
        np.full((len(requests), capacity, len(SOURCES)), -1, np.int32),
    )
    place_all(
        requests.columns, results.histories, inputs.rows, inputs.limits, inputs.walk,
        view.neighbours, view.columns, inputs.seen, width, out,
    )  # fmt: skip
    return out
