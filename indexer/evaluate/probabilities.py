"""How good probabilities are that were given before each labelled event, and simple ones beside."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import EventLog
from indexer.evaluate import metrics
from indexer.evaluate.intervals import (
    Interval,
    auc_interval,
    ece_interval,
    mean_interval,
    ratio_intervals,
)
from indexer.evaluate.measure import known, known_intervals
from indexer.evaluate.metrics import Flags, Floats, Integers
from indexer.evaluate.result import CalibrationBin, Row
from indexer.replay.replay import Replay

ITEM_MEAN, USER_MEAN = "item_mean", "user_mean"
"""The baselines: the share of positive events so far of the item, and of the user."""

PRIOR_EVENTS = 5.0
"""A mean is drawn towards that of all events by so many of them, so that a few prove little."""


@dataclass(frozen=True, slots=True)
class LabelledAnswers:
    """What models said of L labelled events, before each of them.

    `events` (L,) are positions in the log, `positive` (L,) what came of them, and `models` the
    probabilities (L,) by name.
    """

    events: Integers
    positive: Flags
    models: Mapping[str, Floats]

    def __len__(self) -> int:
        """Return the number of events."""
        return len(self.events)

    def of(self, chosen: Flags) -> "LabelledAnswers":
        """Return what was said of some of the events, chosen (L,)."""
        models = {name: values[chosen] for name, values in self.models.items()}
        return LabelledAnswers(self.events[chosen], self.positive[chosen], models)


class Asker:
    """Asks for the probability of each labelled event just before it, while a log is replayed.

    `said` (L,) is by what was published, `learned` (L,) by what the replay's learner has learned.

    Args:
        replay: that is asked.
        events: ascending positions of the events.
    """

    def __init__(self, replay: Replay, events: Integers) -> None:
        self.said = np.full(len(events), math.nan)
        self.learned = np.full(len(events), math.nan)
        self.events = events
        self._replay = replay
        self._done = 0

    def up_to(self, position: int) -> None:
        """Ask for all events up to a position in the log, which is included."""
        while self._done < len(self.events) and self.events[self._done] <= position:
            event = int(self.events[self._done])
            self._replay.advance(event)
            self.said[self._done] = self._replay.probability(event)
            if self._replay.learner is not None:
                self.learned[self._done] = self._replay.probability(event, learned=True)
            self._done += 1


def with_means(
    log: EventLog,
    events: Integers,
    positive: Flags,
    asked: Integers,
    said: Mapping[str, Floats],
) -> LabelledAnswers:
    """Return what models said beside the means of items and users before each event.

    Events that the first model has no probability for, as of unknown items, are left out.

    Args:
        log: the events.
        events: (M,) ascending positions of all labelled events.
        positive: (M,) their labels.
        asked: (L,) those of them that were asked for.
        said: (L,) probabilities by model, NaN for none.
    """
    places = np.searchsorted(events, asked)
    models = {
        **said,
        ITEM_MEAN: mean_before(log.items[events], positive)[places],
        USER_MEAN: mean_before(log.users[events], positive)[places],
    }
    first = next(iter(said.values()))
    return LabelledAnswers(asked, positive[places], models).of(~np.isnan(first))


def mean_before(groups: NDArray[np.int64], positive: Flags) -> Floats:
    """Return the share of positives among the earlier events of each event's group, smoothed.

    It is smoothed by PRIOR_EVENTS events of the share among all earlier ones, a half at first.

    Args:
        groups: (L,) item or user of labelled events in time order; any codes.
        positive: (L,) their labels.

    >>> mean_before(np.array([3, 3, 3]), np.array([True, True, False])).round(3).tolist()
    [0.5, 0.722, 0.821]
    """
    ahead: NDArray[np.int64] = np.cumsum(positive) - positive
    all_before = (ahead + 1.0) / (np.arange(len(positive)) + 2.0)
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(groups[order]) != 0]) if len(order) else order
    sizes = np.diff(np.r_[starts, len(order)])
    likes: NDArray[np.int64] = np.cumsum(positive[order]) - positive[order]
    first = np.repeat(starts, sizes)
    count, own = np.empty(len(order)), np.empty(len(order))
    count[order] = np.arange(len(order)) - first
    own[order] = likes - likes[first] if len(order) else 0.0
    return np.asarray((own + PRIOR_EVENTS * all_before) / (count + PRIOR_EVENTS), np.float64)


def measure_probabilities(
    part: str, answers: LabelledAnswers, users: Integers, seed: int
) -> list[Row]:
    """Return a row of each model for the labelled events of one slice, with intervals over users.

    Args:
        part: the slice's name.
        answers: of the events in it.
        users: (E,) whose event each of the log is.
        seed: of the intervals.
    """
    own = users[answers.events]
    return [
        Row(name, part, 0, labelled=len(own), **_measured(answers.positive, said, own, seed))
        for name, said in answers.models.items()
    ]


def calibration_of(positive: Flags, said: Floats) -> list[CalibrationBin]:
    """Return the bins of a calibration plot."""
    return [CalibrationBin(*found) for found in metrics.calibration_bins(positive, said)]


def _measured(positive: Flags, said: Floats, users: Integers, seed: int) -> dict[str, Any]:
    labels = metrics.label_metrics(positive, said)
    by_user = metrics.aucs_of_users(positive, said, users)
    losses = metrics.log_losses(positive, said)
    values = {
        "auc": metrics.auc(positive, said),
        "user_auc": float(by_user[1].mean()) if len(by_user[1]) else math.nan,
        "accuracy": labels.accuracy,
        "precision": labels.precision,
        "recall": labels.recall,
        "f1": labels.f1,
        "log_loss": metrics.log_loss(positive, said),
        "ece": metrics.ece(positive, said),
        "ece_noise_floor": metrics.ece_noise_floor(said),
    }
    chosen = said >= 0.5
    right, hit = (chosen == positive).astype(np.float64), (chosen & positive).astype(np.float64)
    one = np.ones(len(said))
    parts = np.stack([right, hit, hit, 2.0 * hit, losses], axis=1)
    wholes = np.stack([one, one * chosen, one * positive, one * chosen + positive, one], axis=1)
    names = ("accuracy", "precision", "recall", "f1", "log_loss")
    found = dict(zip(names, ratio_intervals(parts, wholes, users, seed), strict=True))
    intervals: dict[str, Interval] = {
        "auc": auc_interval(positive, said, users, seed),
        "user_auc": mean_interval(by_user[1], by_user[0], seed),
        **found,
        "ece": ece_interval(positive, said, users, seed),
    }
    defined = {
        name: interval for name, interval in intervals.items() if values[name] == values[name]
    }
    return {name: known(value) for name, value in values.items()} | {"ci": known_intervals(defined)}


def join_rows(ranked: Sequence[Row], labelled: Sequence[Row]) -> list[Row]:
    """Return rows of rankings with what was measured of probabilities, and rows that have no other.

    A model's row of a slice is one, whatever was asked of it.
    """
    said = {(row.model, row.slice): row for row in labelled}
    joined = []
    for row in ranked:
        other = said.pop((row.model, row.slice), None)
        if other is not None:
            fields = {name: getattr(other, name) for name in _LABEL_FIELDS}
            row = msgspec.structs.replace(row, **fields, ci=row.ci | other.ci)
        joined.append(row)
    return joined + list(said.values())


_LABEL_FIELDS = (
    "labelled", "auc", "user_auc", "accuracy", "precision", "recall", "f1", "log_loss", "ece",
    "ece_noise_floor",
)  # fmt: skip
