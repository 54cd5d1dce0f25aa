"""The bar of an evaluation: the list as served beside the ranking of all items, on every slice."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from indexer.evaluate import metrics
from indexer.evaluate.answers import Answers
from indexer.evaluate.intervals import ratio_intervals
from indexer.evaluate.metrics import Floats
from indexer.evaluate.result import Served
from indexer.evaluate.targets import Flags, Integers

MOST_SHORT = 0.02
"""The share of the whole ranking's HR@10 and NDCG@10 that the list as served may lack."""

MIN_HITS = 200
"""Hits of a slice from which its mean alone decides; below, its whole interval has to miss."""

_METRICS = (("hit_rate_at_10", metrics.hits_at_k), ("ndcg_at_10", metrics.gains_at_k))


def measure_served(
    whole: Answers,
    served: Answers,
    parts: Iterable[tuple[str, Flags]],
    users: Integers,
    seed: int,
) -> list[Served]:
    """Compare the list as served with the ranking of all items, target by target, on each slice.

    Args:
        whole: the answers of the whole ranking at Q targets.
        served: those of the list as served, with `candidates` and `cut`.
        parts: names of slices, and which of the targets (Q,) are in each.
        users: (Q,) user of each target.
        seed: of the intervals.
    """
    nothing = np.zeros(len(users), np.bool_)
    offered = nothing if served.candidates is None else served.candidates
    after_cut = nothing if served.cut is None else served.cut
    hit = metrics.hits_at_k(whole.ranks, 10) > 0.0
    values = [(value(served.ranks, 10), value(whole.ranks, 10)) for _, value in _METRICS]
    rows = []
    for part, which in parts:
        if not which.any():
            continue
        own = np.stack([one[which] for one, _ in values], axis=1)
        every = np.stack([one[which] for _, one in values], axis=1)
        intervals = ratio_intervals(every - own, every, users[which], seed)
        hits = which & hit
        for n, (metric, _) in enumerate(_METRICS):
            total = float(every[:, n].sum())
            short = float((every - own)[:, n].sum()) / total if total > 0.0 else None
            low, high = intervals[n]
            ci = None if math.isnan(low) else (low, high)
            rows.append(
                Served(
                    slice=part,
                    metric=metric,
                    n=int(which.sum()),
                    hits=int(hits.sum()),
                    value=float(own[:, n].mean()),
                    whole=float(every[:, n].mean()),
                    short=short,
                    ci=ci,
                    candidates=float(offered[which].mean()),
                    cut=float(after_cut[which].mean()),
                    hits_in_candidates=_share(offered, hits),
                    hits_in_cut=_share(after_cut, hits),
                    missed=_misses(short, ci, int(hits.sum())),
                )
            )
    return rows


def _misses(short: float | None, ci: tuple[float, float] | None, hits: int) -> bool:
    """Return whether a slice lacks too much: by its mean, or with few hits by all its interval."""
    if short is None:
        return False
    if hits >= MIN_HITS:
        return short > MOST_SHORT
    return ci is not None and ci[0] > MOST_SHORT


def _share(which: Flags, among: Flags) -> float | None:
    values: Floats = which[among].astype(np.float64)
    return float(values.mean()) if len(values) else None


_NAMES = {"hit_rate_at_10": "HR@10", "ndcg_at_10": "NDCG@10"}


def bar_lines(served: Sequence[Served]) -> list[str]:
    """Return lines for people: the whole against the bar, and each slice that misses it."""
    rows = [row for row in served if row.slice == "all" and row.short is not None]
    if not rows:
        return []
    missed = [row for row in served if row.missed]
    slices = {row.slice for row in served}
    first = rows[0]
    figures = ", ".join(
        f"{_NAMES[row.metric]} {row.value:.4f} of {row.whole:.4f} ({_short(row)})" for row in rows
    )
    lines = [
        f"as served against all items ranked, at most {MOST_SHORT:.0%} below is the bar: {figures}",
        f"recall of the candidates {first.candidates:.4f}, of the cut {first.cut:.4f}; of the whole"
        f" ranking's hits {_percent(first.hits_in_candidates)} and"
        f" {_percent(first.hits_in_cut)}",
    ]
    if not missed:
        return [*lines, f"the bar is met on all {len(slices)} slices"]
    return [
        *lines,
        *(
            f"the bar is MISSED on {row.slice}: {_NAMES[row.metric]} {row.value:.4f} of"
            f" {row.whole:.4f} ({_short(row)}), {row.hits} hits, {_percent(row.hits_in_candidates)}"
            f" of them among the candidates, {_percent(row.hits_in_cut)} after the cut"
            for row in missed
        ),
        "train again on newer events, or with more of them: `indexer train` chooses the candidates",
    ]


def _short(row: Served) -> str:
    assert row.short is not None
    text = f"{-row.short:+.1%}"
    return text if row.ci is None else f"{text}, 95 %: {-row.ci[1]:+.1%} to {-row.ci[0]:+.1%}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
