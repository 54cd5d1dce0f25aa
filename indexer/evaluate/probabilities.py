"""Metrics of the probabilities before each labelled event, next to simple baselines."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from indexer.data.histories import EventLog
from indexer.evaluate import metrics
from indexer.evaluate.intervals import (
    Interval,
    auc_interval,
    ece_interval,
    mean_interval,
    ratio_intervals,
)
from indexer.evaluate.measure import defined_intervals, or_none
from indexer.evaluate.metrics import Flags, Floats, Integers
from indexer.evaluate.result import CalibrationBin, Row
from indexer.evaluate.targets import WHOLE_LOG, Share
from indexer.replay.replay import Replay

ITEM_MEAN, USER_MEAN = "item_mean", "user_mean"
"""The baselines: the share of positive events so far of the item, and of the user."""

PRIOR_EVENTS = 5.0
"""Events of the overall mean that smooth an item's or user's mean."""


@dataclass(frozen=True, slots=True)
class LabelledAnswers:
    """The probabilities of models before each of L labelled events.

    Attributes:
        events: (L,) positions in the log.
        positive: (L,) bool, their labels.
        models: probabilities (L,) by name of the model.
    """

    events: Integers
    positive: Flags
    models: Mapping[str, Floats]

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.events)

    def among(self, mask: Flags) -> "LabelledAnswers":
        """Return the answers at some of the events; mask (L,) bool."""
        models = {name: values[mask] for name, values in self.models.items()}
        return LabelledAnswers(self.events[mask], self.positive[mask], models)


class ProbabilityRecorder:
    """Records the probability of each labelled event just before it, while a log is replayed.

    `published` (L,) is that of the published model, `online` (L,) that of the replay's learner.

    Args:
        replay: the replay.
        events: (L,) ascending positions of the events.
        share: those of them to record; the states stop at all of them.
    """

    def __init__(self, replay: Replay, events: Integers, share: Share = WHOLE_LOG) -> None:
        self.published = np.full(len(events), math.nan)
        self.online = np.full(len(events), math.nan)
        self.events = events
        self._replay = replay
        self._share = share
        self._next = 0

    def advance(self, position: int) -> None:
        """Record the events up to a position in the log, which is included."""
        while self._next < len(self.events) and self.events[self._next] <= position:
            event = int(self.events[self._next])
            self._replay.advance(event)
            if self._share.has(self._next):
                self.published[self._next] = self._replay.probability(event)
                if self._replay.learner is not None:
                    self.online[self._next] = self._replay.probability(event, learned=True)
            self._next += 1


def with_means(
    log: EventLog,
    events: Integers,
    positive: Flags,
    targets: Integers,
    models: Mapping[str, Floats],
    origins: Integers | None = None,
) -> LabelledAnswers:
    """Return the probabilities of models and the means of items and users before each event.

    Events that the first model has no probability for, as of unknown items, are left out.

    Args:
        log: the events.
        events: (M,) ascending positions of all labelled events.
        positive: (M,) their labels.
        targets: (L,) those of them with probabilities.
        models: (L,) probabilities by model, NaN for none.
        origins: (M,) positions of the events that tell the labels, see `Labelled`; None for their
            own.
    """
    since = (
        np.arange(len(events))
        if origins is None
        else np.searchsorted(events, origins, side="right") - 1
    )
    places = np.searchsorted(events, targets)
    models = {
        **models,
        ITEM_MEAN: mean_before(log.items[events], positive, since)[places],
        USER_MEAN: mean_before(log.users[events], positive, since)[places],
    }
    first = next(iter(models.values()))
    return LabelledAnswers(targets, positive[places], models).among(~np.isnan(first))


def mean_before(groups: Integers, positive: Flags, since: Integers | None = None) -> Floats:
    """Return the share of positives among the earlier events of each event's group, smoothed.

    It is smoothed by PRIOR_EVENTS events of the share among all earlier ones, a half at first. An
    event counts as no positive one until its label is told.

    Args:
        groups: (L,) item or user of labelled events in time order; any codes.
        positive: (L,) their labels.
        since: (L,) the places in that order after which the labels are known; None for their own.

    >>> mean_before(np.array([3, 3, 3]), np.array([True, True, False])).round(3).tolist()
    [0.5, 0.722, 0.821]
    """
    places = np.arange(len(positive))
    since = places if since is None else since
    ahead = np.searchsorted(np.sort(since[positive]), places)
    all_before = (ahead + 1.0) / (places + 2.0)
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0]) if len(order) else order
    sizes = np.diff(np.r_[starts, len(order)])
    first = np.repeat(starts, sizes)
    count, own = np.empty(len(order)), np.empty(len(order))
    count[order] = places - first
    # Each group has a stretch of numbers of its own, in which places and the times of labels lie.
    stretch = np.repeat(np.arange(len(starts)), sizes) * (len(order) + 1)
    likes = np.sort((stretch + since[order])[positive[order]])
    own[order] = np.searchsorted(likes, stretch + order) - np.searchsorted(likes, stretch)
    return np.asarray((own + PRIOR_EVENTS * all_before) / (count + PRIOR_EVENTS), np.float64)


def measure_probabilities(
    part: str, answers: LabelledAnswers, users: Integers, seed: int
) -> list[Row]:
    """Return a row of each model for the labelled events of one slice, with intervals over users.

    Args:
        part: the slice's name.
        answers: of the events in it.
        users: (E,) user of each event of the log.
        seed: of the intervals.
    """
    own = users[answers.events]
    return [
        Row(
            name,
            part,
            0,
            labelled=len(own),
            **_measured(answers.positive, probabilities, own, seed),
        )
        for name, probabilities in answers.models.items()
    ]


def calibration_of(positive: Flags, probabilities: Floats) -> list[CalibrationBin]:
    """Return the bins of a calibration plot."""
    return [CalibrationBin(*part) for part in metrics.calibration_bins(positive, probabilities)]


def _measured(positive: Flags, probabilities: Floats, users: Integers, seed: int) -> dict[str, Any]:
    labels = metrics.label_metrics(positive, probabilities)
    by_user = metrics.aucs_of_users(positive, probabilities, users)
    losses = metrics.log_losses(positive, probabilities)
    values = {
        "auc": metrics.auc(positive, probabilities),
        "user_auc": float(by_user[1].mean()) if len(by_user[1]) else math.nan,
        "accuracy": labels.accuracy,
        "precision": labels.precision,
        "recall": labels.recall,
        "f1": labels.f1,
        "log_loss": metrics.log_loss(positive, probabilities),
        "ece": metrics.ece(positive, probabilities),
        "ece_noise_floor": metrics.ece_noise_floor(probabilities),
    }
    predicted = probabilities >= 0.5
    right, hit = (
        (predicted == positive).astype(np.float64),
        (predicted & positive).astype(np.float64),
    )
    one = np.ones(len(probabilities))
    parts = np.stack([right, hit, hit, 2.0 * hit, losses], axis=1)
    wholes = np.stack(
        [one, one * predicted, one * positive, one * predicted + positive, one], axis=1
    )
    names = ("accuracy", "precision", "recall", "f1", "log_loss")
    ratios = dict(zip(names, ratio_intervals(parts, wholes, users, seed), strict=True))
    intervals: dict[str, Interval] = {
        "auc": auc_interval(positive, probabilities, users, seed),
        "user_auc": mean_interval(by_user[1], by_user[0], seed),
        **ratios,
        "ece": ece_interval(positive, probabilities, users, seed),
    }
    defined = {
        name: interval for name, interval in intervals.items() if values[name] == values[name]
    }
    return {name: or_none(value) for name, value in values.items()} | {
        "ci": defined_intervals(defined)
    }


def join_rows(ranked: Sequence[Row], labelled: Sequence[Row]) -> list[Row]:
    """Return the rows of rankings with the metrics of probabilities, then the other rows.

    A model has one row per slice.
    """
    others = {(row.model, row.slice): row for row in labelled}
    joined = []
    for row in ranked:
        other = others.pop((row.model, row.slice), None)
        if other is not None:
            fields = {name: getattr(other, name) for name in _LABEL_FIELDS}
            row = msgspec.structs.replace(row, **fields, ci=row.ci | other.ci)
        joined.append(row)
    return joined + list(others.values())


_LABEL_FIELDS = (
    "labelled", "auc", "user_auc", "accuracy", "precision", "recall", "f1", "log_loss", "ece",
    "ece_noise_floor",
)  # fmt: skip
