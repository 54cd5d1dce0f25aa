"""Examples for prediction: labelled events, with the evidence before each."""

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
"""Labelled events that prediction learns from at most, those of whole users."""


@dataclass(frozen=True, slots=True)
class LabelledExamples:
    """L labelled events in time order, with the evidence before each.

    Attributes:
        evidence: (L, P) float32, the columns of EVIDENCE.
        positive: (L,) bool, the labels.
        users: (L,) positions in the log's user ids.
    """

    evidence: NDArray[np.float32]
    positive: NDArray[np.bool_]
    users: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of labelled events."""
        return len(self.positive)


def learned_from(replay: Replay, labelled: Labelled, seed: int) -> Labelled:
    """Return the later half of the labelled events whose items are in the catalogue.

    The earlier half fills the states. Of more than MAX_EXAMPLES those of a seeded sample of users
    are taken, so that a user's events stay together.
    """
    log = replay.log
    mask = np.zeros(len(log), np.bool_)
    events = labelled.events[replay.rows[labelled.events] >= 0]
    events = events[len(events) // 2 :]
    if len(events) > MAX_EXAMPLES:
        order = np.random.default_rng(seed).permutation(len(log.user_ids))
        sizes = np.bincount(log.users[events], minlength=len(order))[order]
        users = np.zeros(len(order), np.bool_)
        users[order[np.cumsum(sizes) <= MAX_EXAMPLES]] = True
        events = events[users[log.users[events]]]
    mask[events] = True
    return labelled.among(mask)


def priors_of(log: EventLog, fitted: NDArray[np.bool_], rule: LabelRule) -> Priors:
    """Return the means of a log's events, and the number of events that they stand for as priors.

    This number is the variance within items (users) over that between them, by analysis of
    variance, kept between 1 and 50. Source: Searle, Casella, McCulloch 1992, "Variance Components",
    chapter 3.

    Args:
        log: the events.
        fitted: (E,) bool, events that training may use.
        rule: tells which events are positive.
    """
    batch = log.batch
    mask = fitted & (log.items >= 0)
    weights = batch.weights[mask].astype(np.float64)
    if not len(weights):
        return Priors(0.0, 0.5, 0.5, 0.5, 5.0, 5.0)
    ups, downs = float((weights > 0).sum()), float((weights < 0).sum())
    liked = rule.labels(batch.kinds, batch.values, batch.weights)[mask] == 1
    return Priors(
        weight=float(weights.mean()),
        liked=ups / (ups + downs) if ups + downs else 0.5,
        taken=ups / len(weights),
        label=float(liked.mean()),
        item=_prior(log.items[mask], weights),
        user=_prior(log.users[mask], weights),
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
    progress: Callable[[int], None] = lambda count: None,
) -> LabelledExamples:
    """Replay the log up to the last labelled event, and return the evidence before each.

    Args:
        replay: at or before the first of them.
        labelled: those of items not in the catalogue are left out.
        priors: priors that smooth the evidence.
        progress: called with the number of labelled events done.
    """
    log, items = replay.log, replay.recommender.artifact.vectors
    in_catalogue = replay.rows[labelled.events] >= 0
    events, positive = labelled.events[in_catalogue], labelled.positive[in_catalogue]
    evidence = np.zeros((len(events), len(EVIDENCE)), np.float32)
    full = np.asarray(items.full)
    for start, stop in groups_of(log, events):
        group = events[start:stop]
        replay.advance(int(group[0]))
        requests = replay.asked(group)
        histories = read_histories(requests, items)
        rows = replay.rows[group][:, None]
        evidence[start:stop] = read_evidence(
            histories, requests, rows, replay.view, full, labelled.rule, priors
        )[:, 0]
        progress(stop)
    return LabelledExamples(evidence, positive, log.users[events])
