"""Which logged events are labelled, positive or negative, and how."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import EventLog
from tracker.events.kinds import Kinds
from tracker.events.label_rule import LabelRule
from tracker.events.wire import kind_code

IMPRESSION = "impression"
"""The kind, of weight 0, which says that an item was shown."""

MIN_OF_A_CLASS = 50
"""With fewer positive or negative events than this no probability is learned."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """The labelled events of a log: ascending positions (L,), and labels (L,) bool, by `rule`."""

    events: NDArray[np.int64]
    positive: NDArray[np.bool_]
    rule: LabelRule

    def __len__(self) -> int:
        """Return the number of labelled events."""
        return len(self.events)

    def among(self, chosen: NDArray[np.bool_]) -> "Labelled":
        """Return those whose event is chosen, (E,) bool over the log."""
        kept = chosen[self.events]
        return Labelled(self.events[kept], self.positive[kept], self.rule)

    def too_few(self) -> str:
        """Say which class is missing or too rare to learn from; empty where neither is."""
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
    """Return how the events of a log are labelled.

    Where there are impressions they alone are labelled. Ratings are positive from the median of
    those that may be fitted on, or from the second least where the median is the least, unless
    another threshold is given.

    Args:
        log: the events.
        kinds: the weights in force; kinds with the curve `rating` have ratings for values.
        fitted: (E,) bool, events that may be looked at.
        positive_rating: the least positive rating.
    """
    names = sorted(name for name, kind in kinds.table.items() if kind.curve == "rating")
    batch = log.batch
    if positive_rating is None:
        codes = np.array([kind_code(name) for name in names], np.uint16)
        values = batch.values[fitted & np.isin(batch.kinds, codes)]
        values = values[np.isfinite(values)]
        if len(values):
            above = values[values > values.min()]  # a threshold at the least divides nothing
            positive_rating = float(max(np.median(values), above.min() if len(above) else 0.0))
    rule = LabelRule("events", positive_rating, names if positive_rating is not None else [])
    return LabelRule("impressions", *_fields(rule)) if _impressions(log).any() else rule


def label_events(
    log: EventLog, rule: LabelRule, known: NDArray[np.bool_] | None = None
) -> Labelled:
    """Label a log's events by a rule; those that were retracted later are left out.

    An impression is positive where a positive event of its user on its item comes within the
    rule's window after it (in the log's order); that event itself is not labelled.

    Args:
        log: the events.
        rule: which of them are positive.
        known: (E,) bool, events that may be looked at, if not all: the others have no label, and
            make none.
    """
    batch = log.batch
    labels = rule.labels(batch.kinds, batch.values, batch.weights)
    if known is None:
        known = np.ones(len(log), np.bool_)
    labels[(batch.retracts != 0) | ~known] = -1
    labels[_retracted(log, known)] = -1
    if rule.source == "impressions":
        shown = _impressions(log) & known & ~_retracted(log, known)
        labels = _of_impressions(log, labels, shown, rule.window_seconds)
    events = np.flatnonzero(labels >= 0)
    return Labelled(events, labels[events] == 1, rule)


def _fields(rule: LabelRule) -> tuple[float | None, list[str], float]:
    return rule.positive_rating, rule.rating_kinds, rule.window_seconds


def _impressions(log: EventLog) -> NDArray[np.bool_]:
    batch = log.batch
    shown: NDArray[np.bool_] = (
        (batch.kinds == kind_code(IMPRESSION)) & (batch.weights == 0.0) & (batch.retracts == 0)
    )
    return shown


def _retracted(log: EventLog, known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    batch = log.batch
    found = np.zeros(len(log), np.bool_)
    taken_back = np.flatnonzero((batch.retracts != 0) & known)
    if len(taken_back):
        pairs = set(
            zip(log.users[taken_back].tolist(), batch.retracts[taken_back].tolist(), strict=True)
        )
        for event in np.flatnonzero(batch.event_ids != 0).tolist():
            found[event] = (int(log.users[event]), int(batch.event_ids[event])) in pairs
    return found


def _of_impressions(
    log: EventLog, labels: NDArray[np.int8], shown: NDArray[np.bool_], window_seconds: float
) -> NDArray[np.int8]:
    batch = log.batch
    found = np.full(len(log), -1, np.int8)
    next_positive: dict[tuple[int, int], float] = {}
    for event in range(len(log) - 1, -1, -1):
        key = (int(log.users[event]), int(log.items[event]))
        if labels[event] == 1:
            next_positive[key] = float(batch.times[event])
        elif shown[event]:
            until = next_positive.get(key, np.inf)
            found[event] = until - float(batch.times[event]) <= window_seconds
    return found
