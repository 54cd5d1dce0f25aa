"""Items near users' interests: known ones of the interest's most typical item, or by the index."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.artifact.artifact import Artifact
from tracker.items.vectors import RowTable, row_of_hash
from tracker.kernels.arithmetic import dot
from tracker.kernels.native import native
from tracker.kernels.row_bytes import Slots
from tracker.users.readings import Histories, interest_queries
from tracker.users.rows import RequestBatch

Array = NDArray[Any]

NEAR_COSINE = 0.98
"""From this cosine with its most typical item on, an interest takes from what is known of the item.

Measured on interests of films and groceries: of the 24 nearest items .999 are among those, and
most interests are at least as near.
"""

SAME_COSINE = 1.0 - 1e-6
"""From this cosine on the interest is the item, up to rounding, and so is the order."""


class _NearItems(NamedTuple):
    """The items near each item, as the indexer found them: see `ItemVectors`."""

    table: RowTable
    vectors: Array
    nearest: Array


def search_interests(
    histories: Histories,
    requests: RequestBatch,
    searches: int,
    per_search: int,
    artifact: Artifact,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Find items for each of up to `searches` strongest interests per user.

    An interest that is near its most typical item takes the best of what the indexer found for
    that item; the index is searched for the others, once for all, unless it remembers them: most
    interests of a user stay as they are from one list to the next. The rows depend on the state
    alone.

    Returns:
        owners (B, searches) int64, the number of the search of each user and rank, or -1; masses
        (B, searches) float32, the interests' strengths; rows (Q, per_search) int64 of each search,
        best first, -1 padded; (0, 1) without any.
    """
    queries, owners, masses = interest_queries(histories, searches)
    if not len(queries):
        return owners, masses, np.full((0, 1), -1, np.int64)
    index, items = artifact.index, artifact.vectors
    if items.nearest.shape[1] < per_search:
        return owners, masses, index.remembered_rows(queries, per_search)
    rows = np.empty((len(queries), per_search), np.int64)
    others = np.empty(len(queries), np.int64)
    near = _NearItems(items.table, items.vectors, items.nearest)
    heads = requests.states.interest_heads
    count = _fill_known(requests.slots, histories.order, heads, owners, queries, near, rows, others)
    if count == len(queries):
        rows = index.remembered_rows(queries, per_search)
    elif count:
        others = others[:count]
        rows[others] = index.remembered_rows(queries[others], per_search)
    return owners, masses, rows


@native
def _fill_known(
    slots: Slots, order: Array, interest_heads: Array, owners: Array, queries: Array,
    near: _NearItems, rows: Array, others: Array,
) -> int:  # fmt: skip
    """Fill the rows of interests near an item; write which others there are, return how many."""
    count = 0
    table, vectors, nearest = near
    width = nearest.shape[1]
    per_search = rows.shape[1]
    best = np.empty(width, np.int64)
    scores = np.empty(width, np.float32)
    for b in range(owners.shape[0]):
        for rank in range(owners.shape[1]):
            query = owners[b, rank]
            if query < 0:
                continue
            medoid = interest_heads[slots[b], order[b, rank]]["medoid"]
            item = row_of_hash(table.hashes, table.rows, medoid)
            cosine = np.float32(-1.0)
            if item >= 0 and nearest[item, 0] >= 0:
                cosine = np.float32(dot(queries[query], vectors[item]))
            if cosine < NEAR_COSINE:
                others[count] = query
                count += 1
                continue
            if cosine >= SAME_COSINE:
                for i in range(per_search):
                    rows[query, i] = nearest[item, i]
                continue
            for i in range(width):
                row = np.int64(nearest[item, i])
                if row < 0:
                    score = np.float32(-np.inf)
                else:
                    score = np.float32(dot(queries[query], vectors[row]))
                place = i
                while place > 0 and scores[place - 1] < score:
                    scores[place] = scores[place - 1]
                    best[place] = best[place - 1]
                    place -= 1
                scores[place] = score
                best[place] = row
            for i in range(per_search):
                rows[query, i] = best[i]
    return count
