"""Item score: the weighted sum of an item's own features, the same for every user."""

import numpy as np
from numpy.typing import NDArray

from tests.worlds import START, World, likes
from tracker.scoring.context import COLUMNS
from tracker.scoring.features import FEATURE, TREND_KNEE
from tracker.scoring.item_score import best_by_score, item_scores
from tracker.scoring.retrieval import ITEM_FEATURES, item_score
from tracker.users.rows import RequestBatch

NOW = START + 7200.0


def world_of_events() -> World:
    world = World(12, users=4)
    for user in range(3):
        world.send(*likes(user, [1, 2, 3 + user]))
    world.send(*likes(3, [2, 9], time=START + 3600.0))
    return world


def features_of(world: World) -> NDArray[np.float32]:
    requests = RequestBatch(world.users, np.array([-1]), np.array([NOW]), np.zeros(1, np.uint32))
    columns = world.recommender.columns(requests, np.arange(12)[None])
    return np.asarray(columns[0])


def test_a_score_is_the_weighted_sum_of_the_features_that_a_ranker_reads() -> None:
    world = world_of_events()
    weights = {name: 0.3 + 0.1 * n for n, name in enumerate(ITEM_FEATURES)}
    expected = sum(
        weight * features_of(world)[:, COLUMNS.index(name)] for name, weight in weights.items()
    )
    scores = item_scores(world.view, item_score(weights), NOW)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_of_trends_only_what_is_above_the_knee_counts() -> None:
    world = world_of_events()
    trend = features_of(world)[:, FEATURE.trend_short]
    scores = item_scores(world.view, item_score({"trend_short": 2.0}, TREND_KNEE), NOW)
    np.testing.assert_allclose(scores, 2.0 * np.maximum(trend - TREND_KNEE, 0.0), rtol=1e-5)


def test_the_best_by_score_are_live_rows_best_first() -> None:
    world = world_of_events()
    assert best_by_score(world.view, item_score({"trend_short": 1.0}), NOW, 3).tolist() == [2, 1, 9]
    never = best_by_score(world.view, item_score({"no_event": 1.0}), NOW, 2).tolist()
    assert never == [0, 6]


def test_scores_follow_an_update_after_a_while_and_the_clock_without_one() -> None:
    world = world_of_events()
    young = item_score({"idle": -1.0})
    before = item_scores(world.view, young, NOW)
    assert item_scores(world.view, young, NOW + 30.0) is before
    later = item_scores(world.view, young, NOW + 90.0)
    assert later[1] < before[1]
    world.send(*likes(0, [1], time=NOW + 90.1))
    assert item_scores(world.view, young, NOW + 90.1) is later
    assert item_scores(world.view, young, NOW + 91.0)[1] > later[1]
