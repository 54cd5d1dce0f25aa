"""Live quality: next events against last lists, channels, and coverage of the catalogue."""

from typing import Any

import numpy as np
import pytest

from tests.plane_world import WorkerState, like, lists, small_artifact
from tracker.events.wire import Event
from tracker.stream.live_quality import COVERAGE_SECONDS, Coverage
from tracker.stream.serving import make_serving


def hits(worker: WorkerState) -> tuple[float, float]:
    """Return next events in and not in the last list."""
    return (
        worker.count("next_events", in_list="yes") or 0.0,
        worker.count("next_events", in_list="no") or 0.0,
    )


def shown(worker: WorkerState, user: str, item: int) -> list[int]:
    """Send a like, and return the numbers of the items in the list that follows."""
    (made,) = lists(worker.send(like(user, item)))
    return [int(one.item_id[1:]) for one in made.items]


def test_the_first_event_after_a_list_is_a_hit_or_not(worker: WorkerState) -> None:
    listed = shown(worker, "a", 0)
    assert hits(worker) == (0, 0)
    listed = shown(worker, "a", listed[3])
    assert hits(worker) == (1, 0)
    other = next(item for item in range(40) if item not in listed)
    shown(worker, "a", other)
    assert hits(worker) == (1, 1)


def test_one_event_a_list_counts_and_dislikes_and_repeats_do_not(worker: WorkerState) -> None:
    listed = shown(worker, "a", 0)
    dislike = Event("a", f"i{listed[0]}", "dislike", like("a").timestamp)
    worker.send(dislike)
    assert hits(worker) == (0, 0)
    listed = shown(worker, "b", 1)
    first = like("b", listed[0], event_id="e1")
    worker.send(first, like("b", listed[1]))
    assert hits(worker) == (1, 0)
    worker.send(first)  # a duplicate
    assert hits(worker) == (1, 0)


def test_a_list_of_another_artifact_is_not_judged(worker: WorkerState) -> None:
    listed = shown(worker, "a", 0)
    worker.keeper.current = make_serving(small_artifact(2), worker.settings)
    listed = shown(worker, "a", listed[0])
    assert hits(worker) == (0, 0)
    shown(worker, "a", listed[0])
    assert hits(worker) == (1, 0)


def test_a_slot_that_went_to_another_user_is_not_judged(worker: WorkerState) -> None:
    listed = shown(worker, "a", 0)
    head = worker.rows.states.head
    head["list_hash"][worker.users.store.slots_of(["a"])] += 1  # as of another user's list
    shown(worker, "a", listed[0])
    assert hits(worker) == (0, 0)


def test_channels_and_impersonal_lists_are_counted(worker: WorkerState) -> None:
    worker.send(Event("new", "not in the catalogue", "view", like("a").timestamp))
    assert worker.count("impersonal_lists") == 1
    shown(worker, "a", 0)
    assert worker.count("impersonal_lists") == 1
    total = sum(
        worker.count("recommended_items", channel=name) or 0
        for name in ("content", "trend", "default", "recent", "neighbours", "seen", "encoder")
    )
    assert total == 20


def test_rebuilt_states_are_counted(worker: WorkerState) -> None:
    worker.send(like("a", 0), like("b", 1))
    worker.keeper.current = make_serving(small_artifact(2, basis="other"), worker.settings)
    worker.send(like("a", 2))
    assert worker.count("rebuilt_states") == 1


def test_coverage_is_of_two_windows_and_of_one_artifact() -> None:
    now = [0.5 * COVERAGE_SECONDS]
    coverage = Coverage(lambda: now[0])
    assert coverage.share() == 0.0
    coverage.add(np.array([[0, 1], [1, -1]]), 1, 4)
    assert coverage.share() == 0.5
    now[0] += COVERAGE_SECONDS
    coverage.add(np.array([[2]]), 1, 4)
    assert coverage.share() == 0.75
    now[0] += COVERAGE_SECONDS
    assert coverage.share() == 0.25
    now[0] += 5 * COVERAGE_SECONDS
    assert coverage.share() == 0.0
    coverage.add(np.array([[0]]), 2, 10)
    assert coverage.share() == pytest.approx(0.1)


def test_drift_is_the_share_of_interests_that_moved(worker: WorkerState) -> None:
    def value(name: str) -> Any:
        labels = {"partition": "0"}
        return worker.metrics.registry.get_sample_value(f"tracker_interest_drift_{name}", labels)

    worker.send(like("a", 0))
    assert value("count") == 1
    assert 0.0 <= value("sum") <= 1.0
