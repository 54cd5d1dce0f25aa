"""ItemVectors: item id <-> row <-> vector, memory-mapped; a table from id hash to row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.events.wire import hash_id
from tracker.kernels.native import native

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
Hashes = NDArray[np.uint64]

SIMILAR = 16
"""How many similar items are kept of each item."""

NEAREST = 64
"""How many items are kept of each that a search for it finds."""

_NEIGHBOUR_BLOCK = 512


@native
def row_of_hash(table_hash: Hashes, table_row: NDArray[np.int32], value: np.uint64) -> np.int64:
    """Return the row of one id hash, or -1; hash 0 means no item."""
    if value == np.uint64(0):
        return np.int64(-1)
    mask = np.uint64(table_hash.shape[0] - 1)
    place = (value ^ (value >> np.uint64(32))) & mask
    while True:
        entry = table_hash[place]
        if entry == value:
            return np.int64(table_row[place])
        if entry == np.uint64(0):
            return np.int64(-1)
        place = (place + np.uint64(1)) & mask


@native
def lookup_rows(table_hash: Hashes, table_row: NDArray[np.int32], hashes: Hashes) -> Rows:
    """Return the rows (M,) of id hashes (M,); -1 for those not in the table."""
    rows = np.empty(hashes.shape[0], np.int64)
    for i in range(hashes.shape[0]):
        rows[i] = row_of_hash(table_hash, table_row, hashes[i])
    return rows


@native
def _fill_table(table_hash: Hashes, table_row: NDArray[np.int32], hashes: Hashes) -> int:
    """Insert every hash with its position; return the first position met twice, or -1."""
    mask = np.uint64(table_hash.shape[0] - 1)
    for row in range(hashes.shape[0]):
        value = hashes[row]
        place = (value ^ (value >> np.uint64(32))) & mask
        while table_hash[place] != np.uint64(0):
            if table_hash[place] == value:
                return row
            place = (place + np.uint64(1)) & mask
        table_hash[place] = value
        table_row[place] = row
    return -1


def hash_table(hashes: Hashes) -> tuple[Hashes, NDArray[np.int32]]:
    """Build the open-addressing table that `lookup_rows` reads.

    Args:
        hashes: (N,) distinct and not 0; a hash's row is its position.

    Returns:
        `table_hash` and `table_row`, of a power of two of places, at most half of them taken;
        linear probing from `hash ^ (hash >> 32)`, 0 is an empty place.

    Raises:
        ValueError: a hash comes twice.
    """
    places = 1 << max(3, int(2 * len(hashes) - 1).bit_length())
    table_hash = np.zeros(places, np.uint64)
    table_row = np.zeros(places, np.int32)
    twice = _fill_table(table_hash, table_row, hashes)
    if twice >= 0:
        first = int(np.flatnonzero(hashes == hashes[twice])[0])
        raise ValueError(f"rows {first} and {twice} have the same id hash; ids must be distinct")
    return table_hash, table_row


def unit(vectors: Vectors) -> Vectors:
    """Return the rows at length 1; a row of (almost) no length becomes the first axis."""
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    scaled: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    empty = lengths[:, 0] < 1e-12
    if empty.any():
        scaled[empty] = 0.0
        scaled[empty, 0] = 1.0
    return scaled


def leading(full: Vectors, dim: int) -> Vectors:
    """Return the first `dim` components of unit vectors (N, F), at length 1 again: (N, D)."""
    return unit(np.ascontiguousarray(full[:, :dim]))


def nearest_rows(full: Vectors, live: int, k: int = SIMILAR) -> NDArray[np.int32]:
    """Find, for every row, the k live rows with the highest inner product, exactly.

    Args:
        full: (N, F) float32, unit length.
        live: rows from here on are not found, but have a list themselves.
        k: how many.

    Returns:
        (N, K) int32, best first, the row itself left out, -1 where there are fewer.
    """
    nearest = np.full((len(full), k), -1, np.int32)
    n = min(k, live)
    targets = np.ascontiguousarray(full[:live])
    for start in range(0, len(full), _NEIGHBOUR_BLOCK):
        block = full[start : start + _NEIGHBOUR_BLOCK]
        scores = block @ targets.T  # (block, live)
        own = np.arange(start, min(start + len(block), live))
        scores[own - start, own] = -np.inf
        best = np.argpartition(-scores, n - 1, axis=1)[:, :n]
        score = np.take_along_axis(scores, best, axis=1)
        order = np.argsort(-score, axis=1, kind="stable")
        best = np.take_along_axis(best, order, axis=1)
        best[np.take_along_axis(score, order, axis=1) == -np.inf] = -1
        nearest[start : start + len(block), :n] = best
    return nearest


class RowTable(NamedTuple):
    """The table from id hash to row as kernels take it; see `hash_table`."""

    hashes: Hashes
    rows: NDArray[np.int32]


class VectorColumns(NamedTuple):
    """The vectors of N items as kernels take them; see `ItemVectors`."""

    vectors: Vectors
    full: Vectors


@dataclass(frozen=True, slots=True)
class ItemVectors:
    """The items of one artifact; a row is a position in all of its arrays (N of them).

    Rows [0, live) are the current catalogue in its own order and can be recommended. Those without
    text are the last of them, and their vectors are zeros. Rows after them are retired: items of
    earlier catalogues, kept so that taking an event out stays exact.

    Attributes:
        ids: the items' outside names.
        hashes: (N,) uint64, the ids' hashes.
        vectors: (N, D) float32, unit: the leading components of `full`, at length 1 again.
        full: (N, F) float32, unit: whitened text vectors, in order of falling variance.
        similar: (N, 16) int32, the nearest live rows by content, -1 where there are fewer.
        nearest: (N, 64) int32, what the index finds for each row's vector, best first, the row
            itself among them; -1 where there are fewer. (N, 0) from an indexer that kept none.
        labels: the distinct labels.
        label_codes: (N,) int32, each row's position in `labels`.
        live: number of rows that can be recommended.
        table_hash: uint64, hash table of ids, see `hash_table`.
        table_row: int32, its rows.
        map_projection: (D + 1, 2) float32, from a vector to its place on a map, see `item_map`;
            (0, 2) from an indexer that kept none.
    """

    ids: Sequence[str]
    hashes: Hashes
    vectors: Vectors
    full: Vectors
    similar: NDArray[np.int32]
    nearest: NDArray[np.int32]
    labels: list[str]
    label_codes: NDArray[np.int32]
    live: int
    table_hash: Hashes
    table_row: NDArray[np.int32]
    map_projection: Vectors

    @classmethod
    def make(
        cls,
        ids: Sequence[str],
        full: Vectors,
        dim: int,
        *,
        vectors: Vectors | None = None,
        live: int | None = None,
        similar: NDArray[np.int32] | None = None,
        nearest: NDArray[np.int32] | None = None,
        labels: Sequence[str] | None = None,
        map_projection: Vectors | None = None,
    ) -> "ItemVectors":
        """Put items together and build their hash table.

        Args:
            ids: N distinct item ids.
            full: (N, F) float32, unit length.
            dim: D, at most F.
            vectors: (N, D) float32, unit length; by default the leading part of `full`.
            live: rows that can be recommended; by default all.
            similar: (N, 16) int32; by default found by exact search over `full`.
            nearest: (N, 64) int32; by default (N, 0): everything is searched for.
            labels: one a row; by default empty.
            map_projection: (D + 1, 2) float32; by default (0, 2): there is no map.

        Raises:
            ValueError: lengths or widths disagree, or an id comes twice.
        """
        if full.ndim != 2 or len(full) != len(ids):
            raise ValueError(f"vectors have shape {full.shape}; ({len(ids)}, F) expected")
        if not 1 <= dim <= full.shape[1]:
            raise ValueError(f"dim is {dim}; 1 to the full width {full.shape[1]} expected")
        live = len(ids) if live is None else live
        if not 1 <= live <= len(ids):
            raise ValueError(f"live is {live}; 1 to {len(ids)} expected")
        vectors = leading(full, dim) if vectors is None else vectors
        if vectors.shape != (len(ids), dim):
            raise ValueError(f"vectors have shape {vectors.shape}; {(len(ids), dim)} expected")
        similar = nearest_rows(full, live) if similar is None else similar
        if similar.shape != (len(ids), SIMILAR):
            raise ValueError(f"similar has shape {similar.shape}; {(len(ids), SIMILAR)} expected")
        nearest = np.zeros((len(ids), 0), np.int32) if nearest is None else nearest
        if len(nearest) != len(ids):
            raise ValueError(f"nearest has shape {nearest.shape}; ({len(ids)}, {NEAREST}) expected")
        names = [""] * len(ids) if labels is None else labels
        table: dict[str, int] = {}
        codes = np.array([table.setdefault(name, len(table)) for name in names], np.int32)
        if len(codes) != len(ids):
            raise ValueError(f"{len(codes)} labels for {len(ids)} items")
        hashes = np.array([hash_id(item_id) for item_id in ids], np.uint64)
        table_hash, table_row = hash_table(hashes)
        if map_projection is None:
            map_projection = np.zeros((0, 2), np.float32)
        return cls(
            ids=list(ids),
            hashes=hashes,
            vectors=vectors,
            full=full,
            similar=similar,
            nearest=nearest,
            labels=list(table),
            label_codes=codes,
            live=live,
            table_hash=table_hash,
            table_row=table_row,
            map_projection=map_projection,
        )

    def problem(self) -> str | None:
        """Return which positions in the arrays reach out of them; None if all are in bounds.

        Kernels and lists take them as they are. What was read from a file is checked once.
        """
        n, places = len(self), len(self.table_hash)
        if not 1 <= self.live <= n:
            return f"live is {self.live}; 1 to {n} is expected"
        if places < 2 or places & (places - 1) or len(self.table_row) != places:
            return (
                f"the table has {places} hashes and {len(self.table_row)} rows; the same power of"
                " two is expected"
            )
        empty = int((self.table_hash == 0).sum())
        if empty < 1 or places - empty != n:
            return f"the table has {empty} of {places} places empty; {places - n} are expected"
        if not (self.row_of(self.hashes) == np.arange(n)).all():
            return "the table does not lead from each hash to its row"
        hashes = np.fromiter(map(hash_id, self.ids), np.uint64, n)
        if wrong := np.flatnonzero(hashes != self.hashes).tolist():
            return f"the hash in row {wrong[0]} is not that of its id {self.ids[wrong[0]]!r}"
        for name, rows, least, end in (
            ("similar", self.similar, -1, self.live),
            ("nearest", self.nearest, -1, self.live),
            ("label_codes", self.label_codes, 0, len(self.labels)),
        ):
            if rows.size and not least <= rows.min() <= rows.max() < end:
                return f"{name} has {rows.min()} to {rows.max()}; {least} to {end - 1} is expected"
        return None

    def __len__(self) -> int:
        """Return N, retired items counted in."""
        return len(self.ids)

    @property
    def columns(self) -> VectorColumns:
        """The vectors as kernels take them."""
        return VectorColumns(np.asarray(self.vectors), np.asarray(self.full))

    @property
    def table(self) -> RowTable:
        """The table from id hash to row as kernels take it."""
        return RowTable(np.asarray(self.table_hash), np.asarray(self.table_row))

    @property
    def dim(self) -> int:
        """Return D."""
        return int(self.vectors.shape[1])

    @property
    def full_dim(self) -> int:
        """Return F."""
        return int(self.full.shape[1])

    def row_of(self, hashes: Hashes) -> Rows:
        """Return the rows (M,) int64 of id hashes (M,); -1 for items not known."""
        return lookup_rows(self.table_hash, self.table_row, hashes)

    def row_of_id(self, item_id: str) -> int:
        """Return the row of an item id; -1 when it is not known."""
        return int(row_of_hash(self.table_hash, self.table_row, np.uint64(hash_id(item_id))))

    def label(self, row: int) -> str:
        """Return a row's label: its first category, or the head of its title."""
        return self.labels[int(self.label_codes[row])]
