"""Fit item weights: a linear model in closed form, its settings chosen on validation events."""

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import TEST, TRAIN, EventLog, Protocol, split
from indexer.data.holdout import evenly_spread
from indexer.evaluate.ease import (
    DECAYS,
    MIDDLE,
    MOST_CHOICE_ITEMS,
    REGULARISATIONS,
    CoCounts,
    co_counts,
    ease_weights,
)
from indexer.evaluate.metrics import gains_at_k
from tracker.items.vectors import ItemVectors
from tracker.kernels.native import native
from tracker.scoring.item_weights import ItemWeights, ItemWeightsInfo

Array = NDArray[Any]
Integers = NDArray[np.int64]

WIDTH = 32
"""Weights that are kept of an item, the largest: more rank no better."""

MOST_ITEMS = 4000
"""Items with weights at most, those with the most users."""

MOST_TARGETS, LEAST_TARGETS = 2000, 100
"""Validation targets that a choice is made on."""


@dataclass(frozen=True, slots=True)
class WeightsData:
    """Events as the two fits of item weights learn from them.

    Attributes:
        log: the events.
        rows: (E,) catalogue row of each positive event, -1 for others.
        hashes: (N,) of the catalogue's items.
        early: (E,) bool, events before the ranker's examples, for the first fit.
        whole: (E,) bool, all events that the training may use, for the last one.
        validation: (V,) ascending positions of validation targets.
        past_events: latest positive events that a list is made of.
        repeats: the user's own items are ranked too.
    """

    log: EventLog
    rows: Integers
    hashes: NDArray[np.uint64]
    early: NDArray[np.bool_]
    whole: NDArray[np.bool_]
    validation: Integers
    past_events: int
    repeats: bool


def weights_data(
    items: ItemVectors,
    log: EventLog,
    protocol: Protocol | None,
    past_events: int,
    repeats: bool,
) -> WeightsData:
    """Split the events for both fits, as for those of the encoder."""
    parts = split(log, "gts" if protocol is None else protocol)
    rows = np.where(log.positive, items.row_of(log.batch.items), -1)
    early = (parts.parts == TRAIN) & (rows >= 0)
    usable = rows >= 0 if protocol is None else (parts.parts < TEST) & (rows >= 0)
    validation = parts.validation[rows[parts.validation] >= 0]
    validation = evenly_spread(validation, MOST_TARGETS)
    return WeightsData(log, rows, items.hashes, early, usable, validation, past_events, repeats)


def fit_item_weights(data: WeightsData) -> tuple[ItemWeights | None, str]:
    """Fit weights on the early events, with the settings that rank validation targets best.

    The decay is chosen first, with a regularisation from the middle, then the regularisation.

    Returns:
        the weights, or None and the reason for none.
    """
    if len(data.validation) < LEAST_TARGETS:
        return None, (
            f"{len(data.validation)} validation events; at least {LEAST_TARGETS} are needed"
        )
    some = _counted(data, data.early, MOST_CHOICE_ITEMS)
    if some is None:
        return None, "no user chose two items"
    rows, counts = some
    targets, past, starts = _asked(data, rows)

    def quality(lists: tuple[NDArray[np.int32], NDArray[np.float32]], decay: float) -> float:
        ranks = np.empty(len(targets))
        _rank(*lists, decay, targets, past, starts, data.repeats, ranks)
        return float(gains_at_k(ranks, 10).mean())

    lists = largest(ease_weights(counts, MIDDLE))
    decay = max(DECAYS, key=lambda value: quality(lists, value))
    qualities = {
        value: quality(largest(ease_weights(counts, value)), decay) for value in REGULARISATIONS
    }
    best = max(qualities, key=lambda value: qualities[value])
    if not qualities[best] > 0.0:
        return None, "no validation event follows from an earlier one"
    info = ItemWeightsInfo(1, WIDTH, decay, best, round(qualities[best], 4))
    return _fitted(data, data.early, info), ""


def refit_item_weights(data: WeightsData, first: ItemWeights) -> ItemWeights:
    """Return weights fitted on all events that the training may use, with the same settings."""
    fitted = _fitted(data, data.whole, first.info)
    return first if fitted is None else fitted


def _fitted(
    data: WeightsData, events: NDArray[np.bool_], info: ItemWeightsInfo
) -> ItemWeights | None:
    counted = _counted(data, events, MOST_ITEMS)
    if counted is None:
        return None
    rows, counts = counted
    others, weights = largest(ease_weights(counts, info.regularisation))
    return ItemWeights(
        msgspec.structs.replace(info, items=len(rows), width=others.shape[1]),
        data.hashes[rows],
        others,
        weights,
    )


def _counted(
    data: WeightsData, events: NDArray[np.bool_], most: int
) -> tuple[Integers, CoCounts] | None:
    """Return the catalogue rows (M,) of the items with the most users, and their co-counts."""
    pairs = np.unique(np.stack([data.rows[events], data.log.users[events]], axis=1), axis=0)
    rows, users = np.unique(pairs[:, 0], return_counts=True)
    rows = np.sort(rows[np.argsort(-users, kind="stable")[:most]])
    place = np.searchsorted(rows, pairs[:, 0])
    is_in = (place < len(rows)) & (rows[np.minimum(place, len(rows) - 1)] == pairs[:, 0])
    if len(rows) < 2:
        return None
    return rows, co_counts(place[is_in], pairs[is_in, 1])


def _asked(data: WeightsData, rows: Integers) -> tuple[Integers, Integers, Integers]:
    """Return the places of the targets among rows (T,), -1 for none, and those of their past.

    `past[starts[t] : starts[t + 1]]` are those of the target t, the latest first.
    """
    place = np.full(len(data.hashes), -1, np.int64)
    place[rows] = np.arange(len(rows))
    positions = np.flatnonzero(data.rows >= 0)
    order = positions[np.argsort(data.log.users[positions], kind="stable")]
    first = np.searchsorted(data.log.users[order], np.arange(len(data.log.user_ids) + 1))
    past: list[Integers] = []
    for event in data.validation.tolist():
        user = data.log.users[event]
        own = order[first[user] : first[user + 1]]
        end = int(np.searchsorted(own, event))
        past.append(place[data.rows[own[max(0, end - data.past_events) : end][::-1]]])
    lengths = [len(one) for one in past]
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    return place[data.rows[data.validation]], np.concatenate(past), starts


def largest(
    weights: NDArray[np.float32], width: int = WIDTH
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the places and values (M, W) of the largest weights of each row, above 0.

    Args:
        weights: (M, M).
        width: W at most.

    Returns:
        places int32, the largest first, -1 padded, and float32 weights, 0 padded.
    """
    width = min(width, len(weights))
    some = np.argpartition(-weights, width - 1, axis=1)[:, :width]
    values = np.take_along_axis(weights, some, axis=1)
    order = np.lexsort((some, -values), axis=1)
    places = np.take_along_axis(some, order, axis=1).astype(np.int32)
    values = np.take_along_axis(values, order, axis=1)
    places[values <= 0.0] = -1
    return places, np.maximum(values, np.float32(0.0))


@native
def _rank(
    others: Array,
    weights: Array,
    decay: float,
    targets: Array,
    past: Array,
    starts: Array,
    repeats: bool,
    ranks: Array,
) -> None:
    """Write the rank of each target by the sums of its past; infinity for one that has none."""
    sums = np.zeros(len(others), np.float32)
    for t in range(len(targets)):
        ranks[t] = np.inf
        if targets[t] < 0:
            continue
        sums[:] = 0.0
        factor = np.float32(1.0)
        for j in range(starts[t], starts[t + 1]):
            if past[j] >= 0:
                for e in range(others.shape[1]):
                    if others[past[j], e] < 0:
                        break
                    sums[others[past[j], e]] += factor * weights[past[j], e]
            factor *= np.float32(decay)
        if not repeats:
            for j in range(starts[t], starts[t + 1]):
                if past[j] >= 0 and past[j] != targets[t]:
                    sums[past[j]] = 0.0
        own = sums[targets[t]]
        if own > 0.0:
            above = 0
            for i in range(len(sums)):
                above += sums[i] > own
            ranks[t] = 1.0 + above
