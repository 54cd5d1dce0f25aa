"""Which events are labelled: ratings by a threshold, other kinds by sign, impressions alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.data.histories import EventLog
from indexer.data.labels import label_events, label_rule
from tests.logs import read_events
from tests.worlds import START
from tracker.events.kinds import Kinds
from tracker.events.label_rule import LabelRule, is_liked


def event(kind: str, at: float, item: str = "a", user: str = "u", **more: Any) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "kind": kind, "timestamp": START + at, **more}


def everything(log: EventLog) -> Any:
    return np.ones(len(log), np.bool_)


def labels(log: EventLog, rule: LabelRule | None = None) -> dict[int, bool]:
    rule = label_rule(log, Kinds.default(), everything(log)) if rule is None else rule
    found = label_events(log, rule)
    return dict(zip(found.events.tolist(), found.positive.tolist(), strict=True))


def ratings(folder: Path, *values: float) -> EventLog:
    return read_events(folder, [event("rate", n, value=v) for n, v in enumerate(values)])


def test_ratings_are_positive_from_their_median_on(tmp_path: Path) -> None:
    log = ratings(tmp_path, 1.0, 3.0, 4.0, 5.0, 4.0)
    rule = label_rule(log, Kinds.default(), everything(log))
    assert (rule.source, rule.positive_rating) == ("events", 4.0)
    assert labels(log) == {0: False, 1: False, 2: True, 3: True, 4: True}


def test_the_median_is_that_of_what_may_be_looked_at(tmp_path: Path) -> None:
    log = ratings(tmp_path, 1.0, 2.0, 3.0, 5.0, 5.0, 5.0)
    rule = label_rule(log, Kinds.default(), np.arange(6) < 3)
    assert rule.positive_rating == 2.0


def test_a_median_at_the_least_rating_gives_way_to_the_next(tmp_path: Path) -> None:
    assert labels(ratings(tmp_path, 1.0, 1.0, 1.0, 5.0)) == {0: False, 1: False, 2: False, 3: True}


def test_a_threshold_may_be_given(tmp_path: Path) -> None:
    log = ratings(tmp_path, 1.0, 3.0, 5.0)
    rule = label_rule(log, Kinds.default(), everything(log), positive_rating=5.0)
    assert labels(log, rule) == {0: False, 1: False, 2: True}


def test_other_kinds_are_labelled_by_their_sign_and_neutral_ones_not(tmp_path: Path) -> None:
    events = [event("like", 0), event("dislike", 1), event("dwell", 2, value=0.0)]
    assert labels(read_events(tmp_path, events)) == {0: True, 1: False}


def test_a_rating_without_a_value_is_labelled_by_its_sign(tmp_path: Path) -> None:
    assert labels(read_events(tmp_path, [event("rate", 0), event("rate", 1, value=1.0)])) == {
        0: True, 1: True,
    }  # fmt: skip


def test_impressions_alone_are_labelled_by_what_followed_within_half_an_hour(
    tmp_path: Path,
) -> None:
    events = [
        event("impression", 0, "a"),
        event("impression", 0, "b"),
        event("impression", 0, "c"),
        event("click", 60, "a"),
        event("click", 60, "b", user="v"),  # of another user
        event("click", 1801, "c"),  # too late
        event("dislike", 1900, "c"),
    ]
    log = read_events(tmp_path, events)
    assert label_rule(log, Kinds.default(), everything(log)).source == "impressions"
    assert labels(log) == {0: True, 1: False, 2: False}


def test_what_may_not_be_looked_at_makes_no_label(tmp_path: Path) -> None:
    log = read_events(tmp_path, [event("impression", 0), event("click", 60)])
    rule = label_rule(log, Kinds.default(), everything(log))
    found = label_events(log, rule, np.array([True, False]))
    assert (found.events.tolist(), found.positive.tolist()) == ([0], [False])


def test_retracted_events_have_no_label_and_make_none(tmp_path: Path) -> None:
    events = [
        event("like", 0, event_id="x"),
        event("dislike", 1),
        {"user_id": "u", "retracts": "x", "timestamp": START + 2},
    ]
    assert labels(read_events(tmp_path, events)) == {1: False}
    shown = [
        event("impression", 0),
        event("click", 1, event_id="y"),
        {"user_id": "u", "retracts": "y", "timestamp": START + 2},
    ]
    assert labels(read_events(tmp_path, shown)) == {0: False}


@pytest.mark.parametrize(("ups", "downs", "said"), [(50, 50, ""), (50, 0, "0 negative of 50")])
def test_one_class_is_too_few(tmp_path: Path, ups: int, downs: int, said: str) -> None:
    events = [event("like", n) for n in range(ups)] + [event("hide", n) for n in range(downs)]
    log = read_events(tmp_path, events)
    found = label_events(log, label_rule(log, Kinds.default(), everything(log)))
    assert found.too_few().startswith(said)
    assert bool(found.too_few()) == bool(said)


def test_the_kernel_says_the_same_as_the_rule(tmp_path: Path) -> None:
    said = [("rate", 4.0), ("rate", 3.0), ("rate", None), ("hide", None), ("like", 1.0)]
    events = [
        event(kind, n) if value is None else event(kind, n, value=value)
        for n, (kind, value) in enumerate(said)
    ]
    batch = read_events(tmp_path, events).batch
    rule = LabelRule("events", 4.0, ["rate"])
    expected = rule.labels(batch.kinds, batch.values, batch.weights) == 1
    for run in (is_liked, is_liked.py_func):  # type: ignore[attr-defined]
        found = [
            run(kind, value, float(weight), rule.rating_codes, np.float32(4.0))
            for kind, value, weight in zip(batch.kinds, batch.values, batch.weights, strict=True)
        ]
        assert found == expected.tolist()
