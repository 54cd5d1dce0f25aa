"""Metrics of answers: rankings target by target, differences between models."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from indexer.evaluate import metrics
from indexer.evaluate.answers import TRACKER, Answers
from indexer.evaluate.intervals import Interval, ratio_intervals
from indexer.evaluate.metrics import Floats
from indexer.evaluate.result import Difference, Row
from indexer.evaluate.targets import Flags, Integers

_RANKED = (
    "hit_rate_at_10", "hit_rate_at_20", "ndcg_at_10", "ndcg_at_20", "mrr", "recall_at_10",
    "debiased_hit_rate_at_10", "novelty", "diversity",
)  # fmt: skip
"""The metrics that are a ratio of two sums over targets, and so have an interval."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """The values of one model at Q targets, of which its metrics are means.

    `values` and `weights` are (Q, 9), in the order of the metrics; the weights of the debiased hit
    rate are those of its slice, and not filled here. `lists` (Q, K) are the model's.
    """

    values: Floats
    weights: Floats
    lists: Integers


def measure_model(answers: Answers, counts: Floats, full: NDArray[np.float32]) -> Measurements:
    """Measure a model target by target.

    Args:
        answers: its answers.
        counts: (N,) events of each row before the targets, for novelty.
        full: (N, F) unit vectors, for diversity.
    """
    ranks = answers.ranks
    hits, gains = metrics.hits_at_k(ranks, 10), metrics.gains_at_k(ranks, 10)
    novelty, places = metrics.novelties(answers.lists, counts)
    diversity = metrics.diversities(answers.lists, full)
    several = ~np.isnan(diversity)
    values = (
        hits, metrics.hits_at_k(ranks, 20), gains, metrics.gains_at_k(ranks, 20), 1.0 / ranks,
        hits, hits, novelty / np.maximum(places, 1.0), np.where(several, diversity, 0.0),
    )  # fmt: skip
    weights = np.ones((len(ranks), len(_RANKED)))
    weights[:, _RANKED.index("novelty")] = places
    weights[:, _RANKED.index("diversity")] = several
    return Measurements(np.stack(values, axis=1), weights, answers.lists)


def measure_slice(
    part: str,
    models: Mapping[str, Measurements],
    which: Flags,
    users: Integers,
    items: Integers,
    ranked: int,
    seed: int,
) -> list[Row]:
    """Return a row of every model for one slice of the targets.

    Args:
        part: its name.
        models: by name, of all Q targets.
        which: (Q,) bool, the targets in it.
        users: (Q,) user of each target.
        items: (Q,) item of each target.
        ranked: number of items that are ranked.
        seed: of the intervals.
    """
    _, codes, sizes = np.unique(items[which], return_inverse=True, return_counts=True)
    weighed = []
    for model in models.values():
        weights = model.weights[which]
        weights[:, _RANKED.index("debiased_hit_rate_at_10")] = 1.0 / sizes[codes]
        weighed.append(weights)
    wholes = np.concatenate(weighed, axis=1)
    parts = np.concatenate([model.values[which] for model in models.values()], axis=1) * wholes
    intervals = iter(ratio_intervals(parts, wholes, users[which], seed))
    sums = zip(parts.sum(axis=0).tolist(), wholes.sum(axis=0).tolist(), strict=True)
    means = iter([above / below if below > 0.0 else math.nan for above, below in sums])
    rows = []
    for name, model in models.items():
        own: dict[str, Any] = {metric: or_none(next(means)) for metric in _RANKED}
        own["coverage"] = or_none(metrics.coverage_at_k(model.lists[which], ranked))
        own["ci"] = defined_intervals({metric: next(intervals) for metric in _RANKED})
        rows.append(Row(name, part, int(which.sum()), **own))
    return rows


def differences(answers: Mapping[str, Answers], users: Integers, seed: int) -> list[Difference]:
    """Return the differences of the tracker and its variants from the other models and each other.

    Of two variants, one is always the tracker itself.
    """
    variants = [name for name in answers if name.startswith(TRACKER)]
    pairs = [
        (model, other)
        for model in variants
        for other in answers
        if other != model and (TRACKER in (model, other) or other not in variants)
    ]
    if not pairs or not len(users):
        return []
    values = [
        {name: value(own.ranks, 10) for name, own in answers.items()}
        for value in _COMPARED.values()
    ]
    apart = np.stack(
        [by_model[model] - by_model[other] for model, other in pairs for by_model in values], axis=1
    )
    # One call draws the users once for all of them.
    intervals = ratio_intervals(apart, np.ones_like(apart), users, seed)
    cases = [(model, other, metric) for model, other in pairs for metric in _COMPARED]
    return [
        Difference(*case, float(mean), None if math.isnan(ci.low) else (ci.low, ci.high))
        for case, mean, ci in zip(cases, apart.mean(axis=0), intervals, strict=True)
    ]


_COMPARED = {"hit_rate_at_10": metrics.hits_at_k, "ndcg_at_10": metrics.gains_at_k}
"""The metrics whose differences are reported."""


def or_none(value: float) -> float | None:
    """Return a number, None for NaN."""
    return None if math.isnan(value) else value


def defined_intervals(intervals: Mapping[str, Interval]) -> dict[str, tuple[float, float]]:
    """Return the intervals that are defined."""
    return {
        name: (interval.low, interval.high)
        for name, interval in intervals.items()
        if not math.isnan(interval.low)
    }
