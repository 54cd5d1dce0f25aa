"""Metrics of rankings and probabilities, with the value of each empty case.

Ranks are float64, 1 is best; ties count half: `1 + better + ties / 2`. An item that is not ranked
has rank infinity. A ranking has one relevant item, the target. A mean over nothing is NaN, and so
is every metric of no target, no list or no labelled event; a report writes NaN as null.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.native import native
from tracker.kernels.row_lists import keep_best

Array = NDArray[Any]


@native
def _rank_and_list(
    scores: Array, targets: Array, ranked: Array, masked: Array, starts: Array,
    ranks: Array, lists: Array,
) -> int:  # fmt: skip
    """Fill ranks and lists; return the place of a target whose score is NaN, or -1."""
    k = lists.shape[1]
    best = np.empty(k, scores.dtype)
    offered = ranked.copy()
    for b in range(len(targets)):
        for i in range(starts[b], starts[b + 1]):
            offered[masked[i]] = False
        target = targets[b]
        ranks_target = target >= 0 and offered[target] and scores[b, target] != -np.inf
        own = scores[b, max(target, 0)]
        if ranks_target and own != own:
            return b
        better = 0
        level = 0
        n = 0
        for row in range(scores.shape[1]):
            score = scores[b, row]
            if not offered[row] or not score > -np.inf:
                continue
            better += score > own
            level += score == own
            if n < k or score > best[k - 1]:
                n = keep_best(best, lists[b], n, score, row)
        lists[b, n:] = -1
        ranks[b] = 1.0 + better + (level - 1) / 2.0 if ranks_target else np.inf
        for i in range(starts[b], starts[b + 1]):
            offered[masked[i]] = ranked[masked[i]]
    return -1


def rank_and_list(
    scores: NDArray[np.float32],
    targets: NDArray[np.int64],
    ranked: NDArray[np.bool_],
    masked: NDArray[np.int64],
    starts: NDArray[np.int64],
    ranks: NDArray[np.float64],
    lists: NDArray[np.int64],
) -> None:
    """Fill the rank of each of B targets as `rank_of` has it, and the list of the best rows.

    Ties count half in a rank, and stand in the order of rows in a list.

    Args:
        scores: (B, N) higher is better; a score of -inf or NaN is not ranked.
        targets: (B,) rows, -1 for an item that is not ranked.
        ranked: (N,) bool, the rows that may be ranked.
        masked: rows that are not ranked for a target, those of all targets after each other.
        starts: (B + 1,) first place of each target's rows in `masked`.
        ranks: (B,) filled; infinity for a target that is not ranked.
        lists: (B, K) filled, -1 padded.

    Raises:
        ValueError: a target's score is NaN.
    """
    bad = _rank_and_list(scores, targets, ranked, masked, starts, ranks, lists)
    if bad >= 0:
        raise ValueError(f"the score at {targets[bad]} is NaN; a number is expected")


Floats = NDArray[np.float64]

Integers = NDArray[np.int64]

Flags = NDArray[np.bool_]

BINS = 10
"""Bins of equal mass of the expected calibration error."""


class Labels(NamedTuple):
    """Metrics of probabilities cut at a half; NaN if the denominator is 0."""

    accuracy: float
    precision: float
    recall: float
    f1: float


def rank_of(scores: NDArray[np.float32], target: int, masked: Integers | None = None) -> float:
    """Return the rank of a target among scores (N,); ties count half.

    Args:
        scores: higher is better; -inf is not ranked, NaN is refused.
        target: position in scores; -1 for an item that is not ranked.
        masked: positions that are not ranked; a masked target has rank infinity.

    Raises:
        ValueError: the target's score is NaN.

    >>> rank_of(np.array([3.0, 1.0, 3.0, 2.0], np.float32), 0)
    1.5
    """
    if target < 0 or scores[target] == -np.inf:
        return math.inf
    own = scores[target]
    if own != own:
        raise ValueError(f"the score at {target} is NaN; a number is expected")
    better = int((scores > own).sum())
    level = int((scores == own).sum()) - 1
    if masked is not None and len(masked):
        unique = np.unique(masked)
        if target in unique:
            return math.inf
        better -= int((scores[unique] > own).sum())
        level -= int((scores[unique] == own).sum())
    return 1.0 + better + level / 2.0


def hit_rate_at_k(ranks: Floats, k: int) -> float:
    """Return the share of targets with rank k or better."""
    return _mean(hits_at_k(ranks, k))


def hits_at_k(ranks: Floats, k: int) -> Floats:
    """Return 1 for each target of rank k or better, else 0."""
    return (ranks <= k).astype(np.float64)


def ndcg_at_k(ranks: Floats, k: int) -> float:
    """Return the mean of `gains_at_k`; the ideal gain of one relevant item is 1."""
    return _mean(gains_at_k(ranks, k))


def gains_at_k(ranks: Floats, k: int) -> Floats:
    """Return 1 / log2(1 + rank) for each target of rank k or better, else 0."""
    return np.where(ranks <= k, 1.0 / np.log2(1.0 + np.maximum(ranks, 1.0)), 0.0)


def mrr(ranks: Floats) -> float:
    """Return the mean of 1 / rank over the whole ranking; 0 for rank infinity."""
    return _mean(1.0 / ranks)


def recall_at_k(ranks: Floats, k: int) -> float:
    """Return the share of relevant items found: with one a ranking, this is the hit rate."""
    return hit_rate_at_k(ranks, k)


def debiased_hit_rate_at_k(ranks: Floats, items: Integers, k: int) -> float:
    """Return the hit rate in which each item weighs the same, however often it is a target.

    It is the self-normalised inverse propensity estimate with the frequency among the targets as
    propensity: popular items cannot dominate it. Source: Yang et al. 2018,
    "Unbiased Offline Recommender Evaluation for Missing-Not-At-Random Implicit Feedback".

    Args:
        ranks: (n,) of targets.
        items: (n,) item of each target; any codes.
        k: hits are ranks of k or better.
    """
    if not len(ranks):
        return math.nan
    _, inverse, counts = np.unique(items, return_inverse=True, return_counts=True)
    return float(np.average(hits_at_k(ranks, k), weights=1.0 / counts[inverse]))


def coverage_at_k(lists: Integers, items: int) -> float:
    """Return the share of the items that stand in at least one list (B, K), -1 padded."""
    return len(np.unique(lists[lists >= 0])) / items if items and lists.size else math.nan


def novelty_at_k(lists: Integers, counts: Floats) -> float:
    """Return the mean of -log2 popularity over all places of lists (B, K), -1 padded.

    Popularity is (count + 1) / (sum + N), so that an item without events is novel, not infinite.

    Args:
        lists: rows.
        counts: (N,) events of each row before the targets.
    """
    totals, places = novelties(lists, counts)
    return float(totals.sum() / places.sum()) if places.any() else math.nan


def novelties(lists: Integers, counts: Floats) -> tuple[Floats, Floats]:
    """Return the sum of -log2 popularity over each list's places (B,), and the number of places."""
    there = lists >= 0
    popularity = (counts + 1.0) / (counts.sum() + len(counts))
    surprises = np.where(there, -np.log2(popularity)[np.maximum(lists, 0)], 0.0)
    return surprises.sum(axis=1), there.sum(axis=1).astype(np.float64)


def diversity_at_k(lists: Integers, vectors: NDArray[np.float32]) -> float:
    """Return the mean over lists of 1 - cosine over the pairs of a list's items.

    Lists of fewer than two items have no pairs and are left out.

    Args:
        lists: (B, K) rows, -1 padded at the end.
        vectors: (N, D) unit.
    """
    values = diversities(lists, vectors)
    return _mean(values[~np.isnan(values)])


def diversities(lists: Integers, vectors: NDArray[np.float32]) -> Floats:
    """Return 1 - cosine over the pairs of each list (B,), NaN for a list without a pair."""
    result = np.full(len(lists), math.nan)
    for start in range(0, len(lists), 1024):
        rows = lists[start : start + 1024]
        there = rows >= 0
        count = there.sum(axis=1)
        units = np.where(there[..., None], vectors[np.maximum(rows, 0)], np.float32(0.0))
        lengths = (units.sum(axis=1).astype(np.float64) ** 2).sum(axis=1)
        several = count >= 2
        pairs = (count * (count - 1))[several]
        result[start : start + 1024][several] = 1.0 - (lengths[several] - count[several]) / pairs
    return result


def auc(labels: Flags, scores: Floats, weights: Floats | None = None) -> float:
    """Return the area under the ROC curve, ties half; NaN if one class has no weight."""
    order = np.argsort(scores, kind="stable")
    ordered, positive = scores[order], labels[order]
    weight = np.ones(len(order)) if weights is None else weights[order]
    ups, downs = weight * positive, weight * ~positive
    total = float(ups.sum() * downs.sum())
    if not total > 0.0:
        return math.nan
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ups, downs = np.add.reduceat(ups, starts), np.add.reduceat(downs, starts)
    below = np.cumsum(downs) - downs
    return float((ups * (below + downs / 2.0)).sum()) / total


def user_auc(labels: Flags, scores: Floats, users: Integers) -> float:
    """Return the mean AUC of the users with both classes; NaN if there is no such user."""
    return _mean(aucs_of_users(labels, scores, users)[1])


def aucs_of_users(labels: Flags, scores: Floats, users: Integers) -> tuple[Integers, Floats]:
    """Return the users with both classes, ascending, and the AUC of each."""
    order = np.argsort(users, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(users[order]) != 0]) if len(order) else order
    areas = [
        (int(users[part[0]]), auc(labels[part], scores[part]))
        for part in np.split(order, starts[1:])
        if len(part) and 0 < labels[part].sum() < len(part)
    ]
    return (
        np.array([user for user, _ in areas], np.int64),
        np.array([value for _, value in areas], np.float64),
    )


def label_metrics(labels: Flags, probabilities: Floats) -> Labels:
    """Return accuracy, precision, recall and F1 of `probability >= 0.5`."""
    predicted = probabilities >= 0.5
    both = int((predicted & labels).sum())
    precision = both / int(predicted.sum()) if predicted.any() else math.nan
    recall = both / int(labels.sum()) if labels.any() else math.nan
    together = int(predicted.sum()) + int(labels.sum())
    f1 = 2 * both / together if together else math.nan
    return Labels(_mean((predicted == labels).astype(np.float64)), precision, recall, f1)


def log_loss(labels: Flags, probabilities: Floats) -> float:
    """Return the mean negative log-likelihood in nats; probabilities are kept 1e-15 off 0 and 1."""
    return _mean(log_losses(labels, probabilities))


def log_losses(labels: Flags, probabilities: Floats) -> Floats:
    """Return the negative log-likelihood of each label."""
    clipped = np.clip(probabilities, 1e-15, 1.0 - 1e-15)
    return -np.log(np.where(labels, clipped, 1.0 - clipped))


class Bin(NamedTuple):
    """One bin of a calibration plot: its size, mean probability and share of positives."""

    size: int
    probability: float
    positives: float


def calibration_bins(labels: Flags, probabilities: Floats, bins: int = BINS) -> list[Bin]:
    """Divide events by probability into bins of equal mass; empty bins are left out.

    Ties are divided by position, so that the bins stay equal; with fewer events than bins each
    event is a bin of its own.
    """
    order = np.argsort(probabilities, kind="stable")
    return [
        Bin(len(part), float(probabilities[part].mean()), float(labels[part].mean()))
        for part in np.array_split(order, bins)
        if len(part)
    ]


def ece(labels: Flags, probabilities: Floats, bins: int = BINS) -> float:
    """Return the expected calibration error: the mean distance of both sides of the bins."""
    parts = calibration_bins(labels, probabilities, bins)
    total = sum(part.size for part in parts)
    if not total:
        return math.nan
    return sum(part.size * abs(part.probability - part.positives) for part in parts) / total


def ece_noise_floor(probabilities: Floats, bins: int = BINS) -> float:
    """Return the error that perfectly calibrated probabilities would show by chance.

    In each bin the mean of the labels is about normal around that of the probabilities, and the
    mean distance of a normal variable is sqrt(2 / pi) standard deviations.
    """
    if not len(probabilities):
        return math.nan
    ordered = np.sort(probabilities)
    deviations = [
        math.sqrt(float((part * (1.0 - part)).sum())) for part in np.array_split(ordered, bins)
    ]
    return math.sqrt(2.0 / math.pi) * sum(deviations) / len(ordered)


def _mean(values: Floats) -> float:
    return float(np.mean(values)) if len(values) else math.nan
