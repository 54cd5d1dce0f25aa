"""What prediction learns from: labelled events, with what was known before each."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import EventLog
from indexer.data.labels import Labelled
from indexer.replay.groups import groups_of
from indexer.replay.replay import Replay
from tracker.events.label_rule import LabelRule
from tracker.scoring.evidence import EVIDENCE, Priors, read_evidence
from tracker.users.readings import read_histories

MAX_EXAMPLES = 50_000
"""Labelled events that are learned from at most, those of whole users."""


@dataclass(frozen=True, slots=True)
class LabelledExamples:
    """L labelled events in time order: what was known before each, and what came of it.

    `evidence` (L, P) float32; `positive` (L,) bool; `users` (L,) positions in the log's user ids.
    """

    evidence: NDArray[np.float32]
    positive: NDArray[np.bool_]
    users: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of labelled events."""
        return len(self.positive)


def learned_from(replay: Replay, labelled: Labelled, seed: int) -> Labelled:
    """Return the later half of the labelled events whose items are in the catalogue.

    The earlier half is for the states to fill with. Of more than MAX_EXAMPLES those of a seeded
    part of the users are taken, so that what one user likes more than another thing stays there.
    """
    log = replay.log
    chosen = np.zeros(len(log), np.bool_)
    events = labelled.events[replay.rows[labelled.events] >= 0]
    events = events[len(events) // 2 :]
    if len(events) > MAX_EXAMPLES:
        order = np.random.default_rng(seed).permutation(len(log.user_ids))
        sizes = np.bincount(log.users[events], minlength=len(order))[order]
        kept = np.zeros(len(order), np.bool_)
        kept[order[np.cumsum(sizes) <= MAX_EXAMPLES]] = True
        events = events[kept[log.users[events]]]
    chosen[events] = True
    return labelled.among(chosen)


def priors_of(log: EventLog, fitted: NDArray[np.bool_], rule: LabelRule) -> Priors:
    """Return the means of a log's events, and how many events of an item or user they stand for.

    That is the variance within items (users) over that between them, by analysis of variance,
    kept between 1 and 50. Source: Searle, Casella, McCulloch 1992, "Variance Components", ch. 3.

    Args:
        log: the events.
        fitted: (E,) bool, events that may be looked at.
        rule: which events are positive.
    """
    batch = log.batch
    chosen = fitted & (log.items >= 0)
    weights = batch.weights[chosen].astype(np.float64)
    if not len(weights):
        return Priors(0.0, 0.5, 0.5, 0.5, 5.0, 5.0)
    ups, downs = float((weights > 0).sum()), float((weights < 0).sum())
    liked = rule.labels(batch.kinds, batch.values, batch.weights)[chosen] == 1
    return Priors(
        weight=float(weights.mean()),
        liked=ups / (ups + downs) if ups + downs else 0.5,
        taken=ups / len(weights),
        label=float(liked.mean()),
        item=_prior(log.items[chosen], weights),
        user=_prior(log.users[chosen], weights),
    )


def _prior(groups: NDArray[np.int64], values: NDArray[np.float64]) -> float:
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    n, g = len(values), len(sizes)
    if g < 2 or n <= g:
        return 5.0
    means = np.bincount(codes, values) / sizes
    within = float(((values - means[codes]) ** 2).sum()) / (n - g)
    between = float((sizes * (means - values.mean()) ** 2).sum()) / (g - 1)
    size = (n - float((sizes.astype(np.float64) ** 2).sum()) / n) / (g - 1)
    return float(np.clip(within / max((between - within) / size, 1e-12), 1.0, 50.0))


def collect_labelled(
    replay: Replay,
    labelled: Labelled,
    priors: Priors,
    progress: Callable[[int], None] = lambda done: None,
) -> LabelledExamples:
    """Replay the log up to the last labelled event; write down what was known before each.

    Args:
        replay: at or before the first of them.
        labelled: those of items not in the catalogue are left out.
        priors: what smooths.
        progress: told the number of labelled events done.
    """
    log, items = replay.log, replay.recommender.artifact.vectors
    known = replay.rows[labelled.events] >= 0
    events, positive = labelled.events[known], labelled.positive[known]
    evidence = np.zeros((len(events), len(EVIDENCE)), np.float32)
    full = np.asarray(items.full)
    for start, stop in groups_of(log, events):
        group = events[start:stop]
        replay.advance(int(group[0]))
        asked = replay.asked(group)
        read = read_histories(asked, items)
        rows = replay.rows[group][:, None]
        evidence[start:stop] = read_evidence(
            read, asked, rows, replay.view, full, labelled.rule, priors
        )[:, 0]
        progress(stop)
    return LabelledExamples(evidence, positive, log.users[events])
