"""ItemWeights: how much a past item speaks for another one, as a training fitted it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from tracker.items.vectors import ItemVectors
from tracker.kernels.native import native
from tracker.kernels.row_lists import keep_best
from tracker.users.readings import Histories

Array = NDArray[Any]


class ItemWeightsFileError(ValueError):
    """A file of item weights does not fit its description; the message says what was found."""


class ItemWeightsInfo(msgspec.Struct, frozen=True):
    """Description of item weights, in the manifest.

    Each of `items` speaks for at most `width` others. An event counts `decay` times as much as the
    one after it. `regularisation` is that of the fit, and `ndcg_at_10` what the weights alone
    reach on validation events.
    """

    items: int
    width: int
    decay: float
    regularisation: float
    ndcg_at_10: float

    def __post_init__(self) -> None:
        """Check what arrays are sized by, and what is multiplied with."""
        for name, value, least, most in (
            ("items", self.items, 1, 1_000_000),
            ("width", self.width, 1, 1024),
            ("decay", self.decay, 0.0, 1.0),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}; {least} to {most} is expected")


class WeightColumns(NamedTuple):
    """Item weights by the rows of a catalogue, as kernels take them.

    `places` (N,) int32 is the place of each row among the M items with weights, -1 for none, and
    `rows` (M,) int32 the row of each, -1 if the catalogue does not have it. `others` (M, W) int32
    are the places of those that an item speaks for, -1 padded, and `weights` (M, W) float32 how
    much. An event counts `decay` times as much as the one after it. M is 0 without weights.
    """

    places: Array
    rows: Array
    others: Array
    weights: Array
    decay: float


@dataclass(frozen=True, slots=True)
class ItemWeights:
    """Item-to-item weights of a linear model, the largest of each item.

    Source: Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data" (EASE). We keep the
    `width` largest weights of an item, as they serve better than all, and weigh older events less.

    Attributes:
        info: what they are.
        hashes: (M,) uint64, hashes of the ids of the items.
        others: (M, W) int32, places of the items that each speaks for, -1 padded.
        weights: (M, W) float32, above 0; 0 where `others` is -1.

    Raises:
        ItemWeightsFileError: the arrays are not what `info` says.
    """

    info: ItemWeightsInfo
    hashes: NDArray[np.uint64]
    others: NDArray[np.int32]
    weights: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Check shapes and numbers, by which kernels read."""
        items, width = self.info.items, self.info.width
        for name, shape, dtype in (
            ("hashes", (items,), np.uint64),
            ("others", (items, width), np.int32),
            ("weights", (items, width), np.float32),
        ):
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype:
                raise ItemWeightsFileError(
                    f"item weights {name!r}: {array.dtype} {array.shape} found,"
                    f" {np.dtype(dtype)} {shape} expected; train again"
                )
        if not ((self.others >= -1) & (self.others < items)).all():
            raise ItemWeightsFileError("item weights name items that are not there; train again")
        if not np.isfinite(self.weights).all():
            raise ItemWeightsFileError("item weights: not all are finite; train again")

    def to_bytes(self) -> bytes:
        """Return the arrays as safetensors; `info` belongs into the manifest."""
        return safetensors.numpy.save({name: getattr(self, name) for name in _ARRAYS})

    @classmethod
    def load(cls, path: Path, info: ItemWeightsInfo) -> "ItemWeights":
        """Read item weights.

        Raises:
            ItemWeightsFileError: the file is not there, cut short, or not what `info` says.
        """
        try:
            tensors = safetensors.numpy.load_file(path)
        except (OSError, SafetensorError) as cause:
            raise ItemWeightsFileError(f"{path}: cannot be read: {cause}") from cause
        if set(tensors) != set(_ARRAYS):
            raise ItemWeightsFileError(
                f"{path}: tensors {sorted(tensors)} found, {sorted(_ARRAYS)} expected"
            )
        try:
            return cls(info, *(np.array(tensors[name], order="C") for name in _ARRAYS))
        except ItemWeightsFileError as error:
            raise ItemWeightsFileError(f"{path}: {error}") from error


_ARRAYS = ("hashes", "others", "weights")

_POSITIONS = 128  # of a history that int8 can name; a ring may hold 200 events


def weight_columns(item_weights: ItemWeights | None, items: ItemVectors) -> WeightColumns:
    """Return item weights by the rows of a catalogue; empty ones for None."""
    places = np.full(len(items), -1, np.int32)
    if item_weights is None:
        return WeightColumns(
            places, np.zeros(0, np.int32), np.zeros((0, 1), np.int32),
            np.zeros((0, 1), np.float32), 1.0,
        )  # fmt: skip
    rows = items.row_of(item_weights.hashes).astype(np.int32)
    present = np.flatnonzero(rows >= 0)
    places[rows[present]] = present.astype(np.int32)
    return WeightColumns(
        places, rows, item_weights.others, item_weights.weights, float(item_weights.info.decay)
    )


@native
def _value(total: float) -> float:
    """Return the column of a sum: with 64, odds grow by about the same factor a step."""
    return math.log2(1.0 + 64.0 * total) if total > 0.0 else 0.0


@native
def _add_up(b: int, histories: Histories, columns: WeightColumns, sums: Array) -> None:
    """Add up what a user's latest items say, by the place of the item that they speak for (M,)."""
    factor = np.float32(1.0)
    for j in range(histories.n_history[b]):
        place = columns.places[histories.ring_rows[b, histories.history[b, j]]]
        if place >= 0:
            for e in range(columns.others.shape[1]):
                other = columns.others[place, e]
                if other < 0:
                    break
                sums[other] += factor * columns.weights[place, e]
        factor *= np.float32(columns.decay)


@native
def _clear(b: int, histories: Histories, columns: WeightColumns, sums: Array) -> None:
    """Set to zero what `_add_up` has added up."""
    for j in range(histories.n_history[b]):
        place = columns.places[histories.ring_rows[b, histories.history[b, j]]]
        if place >= 0:
            for e in range(columns.others.shape[1]):
                if columns.others[place, e] < 0:
                    break
                sums[columns.others[place, e]] = 0.0


@native
def weigh_rows(
    histories: Histories, columns: WeightColumns, rows: Array, n_rows: Array, out: Array
) -> None:
    """Write the column `item_weights` (B, C) of rows (B, C), of which n_rows (B,) are in use.

    It is log2(1 + 64 x), with x the sum over the user's positive events of the ring of the weight
    of their item for this one, older events less; 0 where x is not above 0.
    """
    sums = np.zeros(len(columns.rows), np.float32)
    for b in range(len(rows)):
        _add_up(b, histories, columns, sums)
        for c in range(n_rows[b]):
            place = columns.places[rows[b, c]]
            out[b, c] = _value(sums[place]) if place >= 0 else 0.0
        _clear(b, histories, columns, sums)


@native
def find_strongest(
    histories: Histories, columns: WeightColumns, rows: Array, which: Array, via: Array
) -> None:
    """Write which item of the history speaks most for rows (B, C), where that is asked for.

    Args:
        histories: of the B users.
        columns: the weights.
        rows: catalogue rows.
        which: (B, C) bool, rows that are in use.
        via: (B, C) int8; where it is -1, it becomes the position in the history.
    """
    for b in range(len(rows)):
        for c in range(rows.shape[1]):
            if which[b, c] and via[b, c] < 0 and columns.places[rows[b, c]] >= 0:
                via[b, c] = _strongest(b, columns.places[rows[b, c]], histories, columns)


@native
def _strongest(b: int, place: int, histories: Histories, columns: WeightColumns) -> int:
    """Return the position in a user's history of the item that gives a place most; -1 for none."""
    best, position = np.float32(0.0), -1
    factor = np.float32(1.0)
    for j in range(min(histories.n_history[b], _POSITIONS)):
        own = columns.places[histories.ring_rows[b, histories.history[b, j]]]
        if own >= 0:
            for e in range(columns.others.shape[1]):
                if columns.others[own, e] == place:
                    if factor * columns.weights[own, e] > best:
                        best, position = factor * columns.weights[own, e], j
                    break
        factor *= np.float32(columns.decay)
    return position


@native
def find_by_weights(
    histories: Histories, columns: WeightColumns, live: int, keep_seen: bool, out: Array
) -> None:
    """Write the live rows of the largest sums of each user (B, K), best first, -1 padded.

    Items of the ring are among them only with `keep_seen`.
    """
    sums = np.zeros(len(columns.rows), np.float32)
    scores = np.empty(out.shape[1], np.float32)
    for b in range(len(out)):
        out[b, :] = -1
        _add_up(b, histories, columns, sums)
        if not keep_seen:
            for r in range(histories.ring_rows.shape[1]):
                row = histories.ring_rows[b, r]
                if row >= 0 and columns.places[row] >= 0:
                    sums[columns.places[row]] = 0.0
        n = 0
        for j in range(histories.n_history[b]):
            place = columns.places[histories.ring_rows[b, histories.history[b, j]]]
            if place >= 0:
                for e in range(columns.others.shape[1]):
                    other = columns.others[place, e]
                    if other < 0:
                        break
                    row = columns.rows[other]
                    if sums[other] > 0.0 and 0 <= row < live:
                        n = keep_best(scores, out[b], n, sums[other], row)
                    sums[other] = 0.0  # each is offered once, and the sums are clear again
