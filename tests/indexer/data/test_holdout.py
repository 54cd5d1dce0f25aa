"""What a ranker learns from: fresh targets and earlier ones, and nothing that is left out."""

from pathlib import Path

import numpy as np
import pytest

from indexer.data.histories import TEST, EventLog, split
from indexer.data.holdout import ranker_targets, training_targets
from tests.logs import group_events, read_events


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return read_events(tmp_path, group_events(users=20, each=10))


def everything(log: EventLog) -> np.ndarray:
    return np.ones(len(log), np.bool_)


@pytest.mark.parametrize("protocol", ["gts", "loo", None])
def test_a_ranker_learns_from_fresh_targets_and_earlier_ones(log: EventLog, protocol: str) -> None:
    events, fresh, skip = ranker_targets(log, protocol, everything(log), 10**6)  # type: ignore[arg-type]
    latest, left_out = training_targets(log, protocol)  # type: ignore[arg-type]
    assert events[fresh].tolist() == latest.tolist()
    assert (np.diff(events) > 0).all()
    assert not fresh.all()
    assert (log.lengths()[events] > 0).all()
    start = np.quantile(log.batch.times, 0.4)
    assert (log.batch.times[events[~fresh]] >= start).all()
    if left_out is None:
        assert skip is None
    else:
        assert skip is not None
        assert not skip[events].any()
        assert (skip == (split(log, protocol).parts == TEST)).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("protocol", ["gts", None])
@pytest.mark.parametrize("most", [5, 30])
def test_of_too_many_the_latest_are_kept(log: EventLog, protocol: str | None, most: int) -> None:
    whole, flags, _ = ranker_targets(log, protocol, everything(log), 10**6)  # type: ignore[arg-type]
    events, fresh, _ = ranker_targets(log, protocol, everything(log), most)  # type: ignore[arg-type]
    assert events.tolist() == whole[-most:].tolist()
    assert fresh.tolist() == flags[-most:].tolist()


def test_of_too_many_last_events_of_users_the_fresh_ones_are_kept_to_half(log: EventLog) -> None:
    latest, _ = training_targets(log, "loo")
    events, fresh, _ = ranker_targets(log, "loo", everything(log), 30)
    assert len(events) == 30
    assert fresh.sum() == min(len(latest), 15)
    assert events[~fresh][-1] - events[~fresh][0] > 60  # spread, not the first ones


def test_items_that_cannot_be_recommended_teach_nothing(log: EventLog) -> None:
    usable = log.items % 2 == 0
    events, _, _ = ranker_targets(log, "gts", usable, 10**6)
    assert len(events)
    assert usable[events].all()
    none, _, _ = ranker_targets(log, "gts", np.zeros(len(log), np.bool_), 10)
    assert len(none) == 0
