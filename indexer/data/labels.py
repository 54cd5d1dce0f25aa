"""Labels of logged events: positive, negative or none."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import EventLog
from tracker.events.kinds import Kinds
from tracker.events.label_rule import LabelRule
from tracker.events.wire import kind_code

IMPRESSION = "impression"
"""The kind of an event of weight 0: the item was shown."""

MIN_OF_A_CLASS = 50
"""Minimum number of positive and of negative events to learn a probability."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """The L labelled events of a log.

    Attributes:
        events: (L,) positions in the log, ascending.
        positive: (L,) bool, the labels.
        rule: the rule that they come from.
        origins: (L,) positions of the events that tell the labels: the events themselves, or the
            positive event after an impression.
    """

    events: NDArray[np.int64]
    positive: NDArray[np.bool_]
    rule: LabelRule
    origins: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of labelled events."""
        return len(self.events)

    def among(self, mask: NDArray[np.bool_]) -> "Labelled":
        """Return the labelled events in a mask (E,) bool over the log."""
        inside = mask[self.events]
        return Labelled(self.events[inside], self.positive[inside], self.rule, self.origins[inside])

    def too_few(self) -> str:
        """Return a message if a class is missing or too rare to learn from, otherwise ""."""
        positive = int(self.positive.sum())
        for name, count in (("positive", positive), ("negative", len(self) - positive)):
            if count < MIN_OF_A_CLASS:
                return (
                    f"{count} {name} of {len(self)} labelled events; at least {MIN_OF_A_CLASS} of"
                    " each class are needed"
                )
        return ""


def label_rule(
    log: EventLog,
    kinds: Kinds,
    fitted: NDArray[np.bool_],
    positive_rating: float | None = None,
) -> LabelRule:
    """Return the rule by which the events of a log are labelled.

    If there are impressions, only they are labelled. Ratings are positive from the median rating
    on, or from the second lowest if the median is the lowest, unless a threshold is given.

    Args:
        log: the events.
        kinds: the weights in force; the values of kinds with the curve `rating` are ratings.
        fitted: (E,) bool, events whose ratings count for the median.
        positive_rating: the lowest positive rating.
    """
    names = sorted(name for name, kind in kinds.table.items() if kind.curve == "rating")
    batch = log.batch
    if positive_rating is None:
        codes = np.array([kind_code(name) for name in names], np.uint16)
        values = batch.values[fitted & np.isin(batch.kinds, codes)]
        values = values[np.isfinite(values)]
        if len(values):
            above = values[values > values.min()]  # a threshold at the lowest divides nothing
            positive_rating = float(max(np.median(values), above.min() if len(above) else 0.0))
    rule = LabelRule("events", positive_rating, names if positive_rating is not None else [])
    return LabelRule("impressions", *_fields(rule)) if _impressions(log).any() else rule


def label_events(log: EventLog, rule: LabelRule, seen: NDArray[np.bool_] | None = None) -> Labelled:
    """Label the events of a log by a rule; events that are retracted later have no label.

    An impression is positive if a positive event of its user on its item follows within the window
    of the rule (in the order of the log); that event itself is not labelled.

    Args:
        log: the events.
        rule: the rule.
        seen: (E,) bool, events that may be read, None for all; the others have no label, and do
            not change one.
    """
    batch = log.batch
    labels = rule.labels(batch.kinds, batch.values, batch.weights)
    if seen is None:
        seen = np.ones(len(log), np.bool_)
    labels[(batch.retracts != 0) | ~seen] = -1
    labels[_retracted(log, seen)] = -1
    origins = np.arange(len(log))
    if rule.source == "impressions":
        impressions = _impressions(log) & seen & ~_retracted(log, seen)
        labels, origins = _impression_labels(log, labels, impressions, rule.window_seconds)
    events = np.flatnonzero(labels >= 0)
    return Labelled(events, labels[events] == 1, rule, origins[events])


def _fields(rule: LabelRule) -> tuple[float | None, list[str], float]:
    return rule.positive_rating, rule.rating_kinds, rule.window_seconds


def _impressions(log: EventLog) -> NDArray[np.bool_]:
    batch = log.batch
    impressions: NDArray[np.bool_] = (
        (batch.kinds == kind_code(IMPRESSION)) & (batch.weights == 0.0) & (batch.retracts == 0)
    )
    return impressions


def _retracted(log: EventLog, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask (E,) of the events that one of the retractions seen takes back."""
    batch = log.batch
    retracted = np.zeros(len(log), np.bool_)
    retractions = np.flatnonzero((batch.retracts != 0) & seen)
    if len(retractions):
        pairs = set(
            zip(log.users[retractions].tolist(), batch.retracts[retractions].tolist(), strict=True)
        )
        for event in np.flatnonzero(batch.event_ids != 0).tolist():
            retracted[event] = (int(log.users[event]), int(batch.event_ids[event])) in pairs
    return retracted


def _impression_labels(
    log: EventLog, labels: NDArray[np.int8], impressions: NDArray[np.bool_], window_seconds: float
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Return labels (E,) of the impressions by the positive labels after them, -1 for the rest.

    Also the positions (E,) of the events that tell them, see `Labelled`.
    """
    batch = log.batch
    result, origins = np.full(len(log), -1, np.int8), np.arange(len(log))
    next_positive: dict[tuple[int, int], int] = {}
    for event in range(len(log) - 1, -1, -1):
        key = (int(log.users[event]), int(log.items[event]))
        if labels[event] == 1:
            next_positive[key] = event
        elif impressions[event]:
            told_by = next_positive.get(key, event)
            is_near = float(batch.times[told_by] - batch.times[event]) <= window_seconds
            result[event] = told_by != event and is_near
            origins[event] = told_by if result[event] else event
    return result, origins
