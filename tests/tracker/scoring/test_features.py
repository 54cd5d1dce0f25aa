"""Each streaming feature against its definition, in worlds where it is known."""

import math
from typing import Any

import numpy as np
import pytest

from tests.worlds import DAY, START, World, likes
from tracker.items.config import FORMER
from tracker.recommend.options import RecommendOptions
from tracker.scoring.context import COLUMNS
from tracker.scoring.features import (
    FEATURES,
    FORMER_NAMES,
    NEAR_WIDTH,
    neighbour_value,
    rising_value,
    trend_value,
)

NOW = START + 1000.0


def features_of(
    world: World, user: int, rows: list[int], *, now: float = NOW, scene: str | None = None
) -> list[dict[str, float]]:
    asked = world.asked([user], now=now, scene=scene)
    made = world.recommender.columns(asked, np.array([rows]))
    return [dict(zip(COLUMNS, row, strict=True)) for row in made[0].tolist()]


def test_trend_is_log2_of_twenty_times_the_decayed_count() -> None:
    world = World(20)
    for user in range(1, 4):
        world.send(*likes(user, [0]))
    item, other = features_of(world, 0, [0, 1], now=START + DAY)
    assert item["trend_short"] == pytest.approx(math.log2(20 * 3 / 2), abs=1e-4)
    assert item["trend_1"] == 0.0
    assert item["trend_all"] == pytest.approx(math.log2(60), abs=1e-4)
    assert other["trend_all"] == 0.0
    for value in (trend_value, trend_value.py_func):  # type: ignore[attr-defined]
        assert value(0.0, 86400.0, 86400.0) == pytest.approx(math.log2(20) - 1)
        assert value(-math.inf, 0.0, 1.0) == 0.0


def test_age_runs_from_the_first_event_and_says_when_there_was_none() -> None:
    world = World(20)
    world.send(*likes(1, [0], time=START - 7 * 3600))
    item, other = features_of(world, 0, [0, 1], now=START)
    assert item["age"] == pytest.approx(3.0)
    assert item["no_event"] == 0.0
    assert (other["age"], other["no_event"]) == (0.0, 1.0)


def test_content_is_the_cosine_with_the_ring_at_full_width() -> None:
    world = World(20)
    world.send(
        *(
            {"user": 0, "item": f"i{i}", "weight": w, "time": START}
            for i, w in [(0, 1.0), (2, 4.0), (1, 1.0)]
        )
    )
    (made,) = features_of(world, 0, [6])
    full = world.items.full
    for decay, name in ((0.6, "content_60"), (0.95, "content_95")):
        taste = full[1] + decay * 2.0 * full[2] + decay**2 * full[0]
        expected = float(taste @ full[6] / np.linalg.norm(taste))
        assert made[name] == pytest.approx(expected, abs=1e-5)
    assert made["content_last"] == pytest.approx(float(full[1] @ full[6]), abs=1e-5)


def test_near_and_wide_count_the_users_events_on_items_that_are_alike() -> None:
    world = World(20)
    world.send(*likes(0, [2, 4, 4, 9, 15]))
    items = [0, 2, 5, 9, 11, 16]
    leading = world.items.full[:, :NEAR_WIDTH]
    leading = leading / np.linalg.norm(leading, axis=1, keepdims=True)
    cosines = leading[items] @ leading[[2, 4, 4, 9, 15]].T
    for made, of_item in zip(features_of(world, 0, items), cosines, strict=True):
        for name, start in (("content_near", 0.4), ("content_wide", 0.1)):
            counted = np.clip((of_item - start) / 0.2, 0.0, 1.0).sum()
            assert made[name] == pytest.approx(math.log2(1.0 + counted), abs=1e-4)
    assert features_of(world, 0, [4])[0]["content_near"] >= math.log2(3.0)


def test_only_the_events_that_content_is_taken_from_count_as_near() -> None:
    world = World(20, options=RecommendOptions(content_events=2))
    world.send(*likes(0, [1, 1, 1, 8, 8]))
    one, eight = features_of(world, 0, [1, 8])
    assert eight["content_near"] == pytest.approx(math.log2(3.0), abs=1e-4)
    assert one["content_near"] < 1.0


def test_interests_and_sums_are_compared_with_their_confidence() -> None:
    world = World(20)
    world.send(*likes(0, [0]))
    own, other = features_of(world, 0, [0, 1], now=START)
    assert own["slot"] == pytest.approx(1.0, abs=1e-3)
    assert own["interest_4"] == pytest.approx(1.0 / 1.5, abs=1e-3)
    assert other["slot"] < 0.6
    later = features_of(world, 0, [0], now=START + DAY)[0]
    assert later["interest_1"] == pytest.approx(0.0, abs=1e-6)
    assert later["interest_2"] == pytest.approx(0.5 / 1.0, abs=1e-3)


def test_negative_is_the_cosine_with_what_was_refused() -> None:
    world = World(20)
    assert features_of(world, 0, [0])[0]["negative"] == 0.0
    world.send(*likes(0, [0], weight=-1.5))
    own, other = features_of(world, 0, [0, 1], now=START)
    assert own["negative"] == pytest.approx(1.5 / 2.0, abs=1e-3)
    assert other["negative"] < own["negative"]


def test_neighbours_are_normalised_by_both_items_counts() -> None:
    world = World(20)
    for user in range(1, 4):
        world.send(*likes(user, [0, 1]))
    world.send(*likes(0, [0], time=START + 50))
    made, none = features_of(world, 0, [1, 2])
    # Three users chose both; 0 has four events by now, 1 has three.
    expected = 3 / math.sqrt((4 + 5) * (3 + 5))
    assert made["neighbours_60"] == pytest.approx(neighbour_value(expected), abs=1e-4)
    assert made["neighbours_95"] == pytest.approx(neighbour_value(expected), abs=1e-4)
    assert made["next"] == pytest.approx(neighbour_value(expected), abs=1e-4)
    assert 0.9 * made["neighbours_95"] < made["neighbours_long"] < made["neighbours_95"]
    assert [none[name] for name in FEATURES if name.startswith("neighbours")] == [0.0] * 4
    live = 3 / math.sqrt((4 + 1) * (3 + 1))  # of decayed counts, but that was a minute
    assert made["neighbours_live"] == pytest.approx(neighbour_value(live), abs=0.01)


def test_what_is_chosen_together_now_stands_out_among_what_was_chosen_much_before() -> None:
    world = World(20, users=24)
    for user in range(1, 9):  # long ago each alone, by many
        world.send(*likes(user, [0]), *likes(user + 8, [1]))
    late = START + 60 * 86400.0
    world.send(*likes(20, [0, 1], time=late), *likes(0, [0], time=late + 60))
    (made,) = features_of(world, 0, [1], now=late + 120)
    assert made["neighbours_live"] > made["neighbours_long"] + 1.0


def test_idle_counts_the_minutes_since_the_items_latest_event() -> None:
    world = World(20)
    world.send(*likes(1, [0, 0], time=START))
    made, none = features_of(world, 0, [0, 1], now=START + 1 + 180.0)
    assert made["idle"] == pytest.approx(2.0, abs=0.02)
    assert (none["idle"], none["no_event"]) == (0.0, 1.0)


def test_neighbours_fade_by_event_and_go_both_ways_but_transitions_do_not() -> None:
    world = World(20)
    for user in range(1, 4):
        world.send(*likes(user, [0, 1]))
    world.send(*likes(0, [1, 10], time=START + 50))
    (made,) = features_of(world, 0, [0])
    once = 3 / math.sqrt((4 + 5) * (3 + 5))
    assert made["neighbours_60"] == pytest.approx(neighbour_value(0.6 * once), abs=0.01)
    assert made["neighbours_95"] == pytest.approx(neighbour_value(0.95 * once), abs=0.01)
    assert made["next"] == 0.0


def test_repeats_count_the_users_own_positive_events_of_the_item() -> None:
    world = World(20)
    world.send(*likes(0, [3, 4, 3], time=START), *likes(0, [5], weight=-1.0, time=START))
    twice, once, refused = features_of(world, 0, [3, 4, 5], now=START + 2 + 2592000.0)
    assert twice["repeats"] == pytest.approx(math.log2(3), abs=1e-6)
    assert once["repeats"] == 1.0
    assert twice["repeat_recency"] == pytest.approx(1.0, abs=1e-4)
    assert (refused["repeats"], refused["repeat_recency"]) == (0.0, 0.0)


def test_scene_trend_counts_the_users_scene_only() -> None:
    world = World(20)
    world.send(*likes(1, [0], scene="cart"), *likes(2, [0], scene="home"))
    cart = features_of(world, 0, [0], scene="cart", now=START)[0]
    assert cart["scene_short"] == pytest.approx(math.log2(20), abs=1e-4)
    assert cart["scene_long"] == pytest.approx(math.log2(20), abs=1e-4)
    assert features_of(world, 0, [0], scene="search")[0]["scene_short"] == 0.0
    assert features_of(world, 0, [0])[0]["scene_short"] == 0.0


def test_rows_of_nobody_known_have_item_features_only() -> None:
    world = World(20)
    world.send(*likes(1, [0]))
    (made,) = features_of(world, -1, [0])
    filled = {name for name, value in made.items() if value != 0.0}
    trends = {name for name in FEATURES if name.startswith("trend")} - {"trend_7", "trend_8"}
    assert filled == trends | {"age", "idle", "rising", "rising_fast"}


def test_padding_at_the_end_stays_zero() -> None:
    world = World(20)
    world.send(*likes(0, [0]))
    made: Any = features_of(world, 0, [0, -1, -1])
    assert set(made[1].values()) == set(made[2].values()) == {0.0}


def test_rising_is_positive_for_what_is_chosen_more_and_negative_for_what_is_chosen_less() -> None:
    world = World(20)
    for day in range(30):
        world.send(*likes(1, [0], time=START + day * DAY))
    world.send(*likes(2, [1] * 6, time=START + 29 * DAY))
    for day in range(8):
        world.send(*likes(3, [2] * 3, time=START + day * DAY))
    even, more, less = features_of(world, 0, [0, 1, 2], now=START + 29 * DAY)
    assert abs(even["rising"]) < 1.0
    assert more["rising"] > 2.0
    assert less["rising"] < -1.0
    assert more["rising_fast"] > 2.0
    night = features_of(world, 0, [1], now=START + 29 * DAY + 3600.0)[0]
    assert 0.0 < night["rising_fast"] < more["rising_fast"]


def test_powers_that_are_left_out_would_have_changed_nothing() -> None:
    random = np.random.default_rng(0)
    half_lives = np.array([300.0, 86_400.0, 3.0e7])
    for age in np.exp(random.uniform(0.0, 20.0, 400)).tolist():
        logs = np.where(random.random(3) < 0.1, -np.inf, random.uniform(-30.0, 12.0, 3))
        for one, other in ((0, 1), (1, 2), (0, 2)):
            powers = [2.0 ** (logs[h] - age / half_lives[h]) for h in (one, other)]
            ratio = half_lives[other] / half_lives[one]
            expected = math.log2((powers[0] * ratio + 1.0) / (powers[1] + 1.0))
            found = rising_value(logs, half_lives, one, other, age)
            assert found == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_rankers_from_before_find_their_columns_under_the_new_names() -> None:
    assert set(FORMER_NAMES.values()) <= set(FEATURES)
    read = dict(zip(FEATURES, FORMER.seconds, strict=False))
    assert [read[FORMER_NAMES[f"trend_{name}"]] / 3600.0 for name in PERIODS] == [*PERIODS.values()]


PERIODS = {"3h": 3.0, "12h": 12.0, "1d": 24.0, "3d": 72.0, "10d": 240.0, "40d": 960.0}
