"""Live neighbours: the bounded lists hold what an uncapped count says is strongest."""

import numpy as np

from tests.neighbour_counts import Uncapped
from tracker.events.item_events import ITEM_EVENT
from tracker.items.counts import apply_item_events
from tracker.items.states import ItemStates

START = 1.7e9
ITEMS = 240
DAY = 86400.0


def stream(events: int, seed: int) -> np.ndarray:
    """Return item events of users who stay with a genre for a while, over a hundred days.

    A few items of a genre are chosen far more often than others, and which they are moves on. One
    event in 40 is taken back twenty events later.
    """
    random = np.random.default_rng(seed)
    recent: dict[int, list[int]] = {}
    rows = np.zeros(events, ITEM_EVENT)
    for number in range(events):
        user = int(random.integers(events // 40))
        past = recent.setdefault(user, [])
        genre = (user + number // (events // 3)) % 8
        place = int(30 * random.random() ** 3 + 12 * number / events) % 30
        item = genre * 30 + place if random.random() < 0.85 else int(random.integers(ITEMS))
        row = rows[number]
        row["item"], row["time"] = 1 + item, START + 100 * DAY * number / events
        row["weight"], row["sign"], row["n_recent"] = 1.0, 1, len(past)
        row["recent"][: len(past)] = past
        recent[user] = [1 + item, *(other for other in past if other != 1 + item)][:20]
    taken = rows[:-20:40].copy()
    taken["sign"] = -1
    return np.insert(rows, np.arange(20, events, 40)[: len(taken)], taken)


def slots_of(events: np.ndarray) -> dict[int, int]:
    return {item: slot for slot, item in enumerate(np.unique(events["item"]).tolist())}


def states_of(events: np.ndarray, slots: dict[int, int]) -> ItemStates:
    states = ItemStates(len(slots))
    apply_item_events(states, np.array([slots[item] for item in events["item"].tolist()]), events)
    return states


def test_bounded_lists_hold_at_least_95_percent_of_the_strongest_of_an_uncapped_count() -> None:
    events = stream(12_000, seed=3)
    slots = slots_of(events)
    states, counted = states_of(events, slots), Uncapped().add(events)
    partners = [len(counted.of(item)) for item in slots]
    assert np.mean(partners) > 100  # so that the bound of 64 matters
    assert counted.overlap(states, slots, 20) >= 0.95
    assert counted.overlap(states, slots, 64) >= 0.95
    assert counted.strength_kept(states, slots, 64) >= 0.98


def test_lists_within_their_bound_are_exactly_the_uncapped_count_in_any_order() -> None:
    events = stream(400, seed=4)
    slots = slots_of(events)
    counted = Uncapped().add(events)
    assert max(len(counted.of(item)) for item in slots) <= 64
    shuffled = np.random.default_rng(0).permutation(events[events["sign"] > 0])
    states = states_of(np.concatenate([shuffled, events[events["sign"] < 0]]), slots)
    for item, slot in slots.items():
        exact = counted.of(item)
        head = states.head[slot]
        kept = states.neighbours[slot, : int(head["n_neighbours"])]
        assert set(kept["item"].tolist()) == exact.keys()
        left = 2.0 ** ((counted.origin - head["ref_time"]) / 864000.0)
        np.testing.assert_allclose(
            kept["together_lately"],
            [exact[other] * left for other in kept["item"].tolist()],
            rtol=1e-4,
            atol=1e-6,
        )
