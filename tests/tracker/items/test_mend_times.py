"""Rows of items with times of the future: found, and mended from item events."""

import numpy as np
import pytest

from tests.worlds import DAY, START, World
from tracker.events.item_events import ITEM_EVENT
from tracker.items.counts import COUNT
from tracker.items.mend_times import items_of_the_future, mend_items

FAR = 4_102_444_800.0
NOW = START + 10 * DAY
LATEST = NOW + 300.0
NONE = np.zeros(0, ITEM_EVENT)


def harmed_and_right() -> tuple[World, World, list[np.ndarray]]:
    """Return a world with an event of the future, one without, and the item events of the first."""
    harmed, right = World(), World()
    kept = []
    for user, item, time in [
        (0, 2, START), (0, 1, START), (1, 1, FAR), (2, 1, START + DAY), (2, 3, START + DAY),
    ]:  # fmt: skip
        event = {"user": user, "item": f"i{item}", "time": time, "scene": "home"}
        kept.append(harmed.send(event).item_events)
        right.send(event | {"time": min(time, NOW)})
    return harmed, right, kept


def slot(world: World) -> int:
    """Return the slot of item i1."""
    return world.item_slots[int(world.items.hashes[1])]


def test_only_rows_with_a_time_past_the_clock_are_found() -> None:
    harmed, right, _ = harmed_and_right()
    assert items_of_the_future(harmed.item_states, LATEST).tolist() == [slot(harmed)]
    assert items_of_the_future(right.item_states, LATEST).tolist() == []


def test_a_mended_row_has_the_counts_of_events_that_came_in_time() -> None:
    harmed, right, kept = harmed_and_right()
    place = np.array([slot(harmed)])
    assert len(mend_items(harmed.item_states, place, np.concatenate(kept), NOW, LATEST)) == 0
    mended, expected = harmed.item_states.head[place[0]], right.item_states.head[slot(right)]
    for field in ("ref_time", "first_time", "last_time", "positives", "weight_total", "n_scenes"):
        assert mended[field] == expected[field]
    counts = [states.columns.counts for states in (harmed.item_states, right.item_states)]
    np.testing.assert_allclose(counts[0][place[0]], counts[1][slot(right)], rtol=1e-9)
    np.testing.assert_allclose(mended["weight_sum"], expected["weight_sum"], rtol=1e-9)
    states = harmed.item_states, right.item_states
    neighbours = [
        one.neighbours[at, 0] for one, at in zip(states, (place[0], slot(right)), strict=True)
    ]
    assert neighbours[0]["together_lately"] == pytest.approx(neighbours[1]["together_lately"])
    assert neighbours[0]["pairs"] == neighbours[1]["pairs"] == 1


def test_without_events_a_row_is_cut_back_to_now_and_keeps_what_does_not_decay() -> None:
    harmed, _, _ = harmed_and_right()
    place = np.array([slot(harmed)])
    assert mend_items(harmed.item_states, place, NONE, NOW, LATEST).tolist() == place.tolist()
    head = harmed.item_states.head[place[0]]
    assert (head["first_time"], head["last_time"], head["ref_time"]) == (START, NOW, NOW)
    assert harmed.item_states.columns.counts[place[0], COUNT.never] == 3.0
    assert len(items_of_the_future(harmed.item_states, LATEST)) == 0


def test_events_kept_in_part_keep_the_counts_of_all_time() -> None:
    harmed, _, kept = harmed_and_right()
    place = np.array([slot(harmed)])
    mend_items(harmed.item_states, place, kept[3], NOW, LATEST)
    head = harmed.item_states.head[place[0]]
    assert harmed.item_states.columns.counts[place[0], COUNT.never] == 3.0
    assert harmed.item_states.columns.counts[place[0], COUNT.short] == 1.0
    assert head["ref_time"] == START + DAY
    assert head["last_time"] == START + DAY
