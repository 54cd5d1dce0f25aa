"""The blend, and what takes its place."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.worlds import START, World, likes
from tracker.recommend.options import LearnedModels
from tracker.scoring.blend import BLEND, Blend, _blend
from tracker.scoring.features import FEATURES

Array = NDArray[Any]


class Backwards:
    """A stand-in for a trained network: the less an item was chosen, the better."""

    column_mask = np.ones(len(FEATURES), np.bool_)
    cut_weights = np.zeros(6, np.float32)

    def score(self, features: Array, n_rows: Array) -> Array:
        return -features[:, :, FEATURES.index("trend_all")]


def test_a_blend_is_the_weighted_sum_of_its_features() -> None:
    blend = Blend({"trend_short": 2.0, "content_60": -1.0})
    features = np.random.default_rng(0).normal(size=(2, 3, len(FEATURES))).astype(np.float32)
    features[:, :, 0] *= 5
    scores = blend.score(features, np.array([3, 2]))
    trend = np.maximum(features[:, :, 0] - math.log2(10), 0)
    expected = 2 * trend - features[:, :, FEATURES.index("content_60")]
    assert scores[0] == pytest.approx(expected[0], abs=1e-6)
    assert scores[1, :2] == pytest.approx(expected[1, :2], abs=1e-6)
    assert scores[1, 2] == 0.0
    again = np.zeros((2, 3), np.float32)
    _blend.py_func(  # type: ignore[attr-defined]
        features, np.array([3, 2]), blend.columns, blend.weights, again
    )
    assert again == pytest.approx(scores, abs=1e-6)


def test_only_the_columns_of_a_blend_are_wanted() -> None:
    blend = Blend({"trend_short": 2.0, "content_60": 1.0, "content_95": 2.0, "negative": -3.0})
    assert [FEATURES[i] for i in np.flatnonzero(blend.column_mask)] == [
        "trend_short", "content_60", "content_95", "negative",
    ]  # fmt: skip
    assert blend.cut_weights.tolist() == [3.0, 2.0, 0.0, -3.0, 0.0, 0.0]


def test_a_weight_of_no_feature_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no feature 'popularity'; expected are trend_short"):
        Blend({"popularity": 1.0})


def test_the_default_blend_rewards_and_punishes_what_it_should() -> None:
    assert set(BLEND) <= set(FEATURES)
    assert BLEND["negative"] < 0 < min(w for name, w in BLEND.items() if name != "negative")


def test_a_trained_ranker_takes_the_place_of_the_blend() -> None:
    world = World(20, ranker=Backwards())
    for user in range(1, 5):
        world.send(*likes(user, [0, 2, 4]))
    world.send(*likes(0, [6]))
    assert set(world.rows(0, now=START + 60, k=20)[-4:]) == {0, 2, 4, 6}


def test_another_ranker_scores_one_call_only() -> None:
    world = World(20).with_options(diversity=0.0)
    for user in range(1, 5):
        world.send(*likes(user, [0, 2, 4]))
    world.send(*likes(0, [6]))
    before = world.rows(0, now=START + 60, k=20)
    other: Any = Blend({"trend_short": -1.0})
    asked = world.asked([0], now=START + 60)
    made = world.recommender.recommend(asked, 20, LearnedModels(ranker=other))
    assert set(made.rows[0, -4:].tolist()) == {0, 2, 4, 6}
    assert set(before[:3]) == {0, 2, 4}
    assert world.rows(0, now=START + 60, k=20) == before


def test_examples_are_what_a_list_is_made_of() -> None:
    world = World(20, ranker=Backwards()).with_options(diversity=0.0)
    for user in range(5):
        world.send(*likes(user, [user, user + 2, user + 4]))
    found = world.recommender.examples(world.asked([0, 4, -1], now=START + 60), 5)
    made = world.recommend([0, 4, -1], now=START + 60, k=5)
    scores = world.recommender.ranker.score(found.columns, (found.rows >= 0).sum(axis=1))
    for b in range(3):
        unseen = int(found.n_unseen[b])
        best = np.argsort(-scores[b, :unseen], kind="stable")[:5]
        assert made.rows[b].tolist() == found.rows[b, best].tolist()
