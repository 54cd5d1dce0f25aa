"""Parts of scores add up to them, and are those that integrated gradients give."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tracker.scoring.blend import BLEND, CUT, Blend
from tracker.scoring.context import COLUMNS, CONTEXT
from tracker.scoring.features import FEATURES
from tracker.scoring.network import Network, Weights
from tracker.scoring.online_ranker import OnlineRanker
from tracker.scoring.parts import GROUP_OF, GROUPS, attributions, grouped

NAMES = [name for name in COLUMNS if name not in ("idle", "scene_long")]


def network(seed: int = 0, hidden: int = 24, width: int = 8) -> Network:
    chance = np.random.default_rng(seed)

    def numbers(*shape: int) -> NDArray[np.float32]:
        return chance.normal(size=shape).astype(np.float32)

    weights = Weights(
        numbers(len(NAMES), hidden), numbers(hidden), numbers(hidden, width), numbers(width),
        numbers(width), numbers(len(NAMES)), numbers(len(CUT)),
    )  # fmt: skip
    return Network(NAMES, weights)


def candidates(seed: int = 1, count: int = 12) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, len(COLUMNS))).astype(np.float32)


@pytest.mark.parametrize("steps", [1, 2, 16])
def test_parts_of_a_network_add_up_to_its_scores_however_few_the_pieces_are(steps: int) -> None:
    features = candidates()
    for ranker in (network(), OnlineRanker(network(3))):
        base, parts = attributions(ranker, features, features.mean(axis=0), steps)
        scores = ranker.score(features[None], np.array([len(features)]))[0]
        off = np.abs(base + parts.sum(axis=1) - scores)
        assert (off <= 1e-3 * np.abs(parts).sum(axis=1)).all()


def test_parts_of_a_network_are_integrated_gradients() -> None:
    ranker, features = network(), candidates()
    baseline = features.mean(axis=0)
    pieces = 4000
    at = (np.arange(pieces) + 0.5) / pieces
    weights = ranker.weights
    for one in features[:3]:
        way = (one - baseline)[ranker.places].astype(np.float64)
        x = baseline[ranker.places] + at[:, None] * way
        before_one = x @ weights.first + weights.first_bias
        before_two = np.maximum(before_one, 0.0) @ weights.second + weights.second_bias
        slope = weights.last * (before_two > 0.0)
        slope = (slope @ weights.second.T * (before_one > 0.0)) @ weights.first.T + weights.skip
        expected = slope.mean(axis=0) * way
        _, parts = attributions(ranker, one[None], baseline, 256)
        scale = np.abs(expected).sum()
        assert np.abs(parts[0, ranker.places] - expected).max() < 0.005 * scale


def test_parts_of_the_blend_are_what_its_columns_add() -> None:
    features = (np.abs(candidates()[:, : len(FEATURES)]) * 5.0).astype(np.float32)
    blend = Blend()
    base, parts = attributions(blend, features, features.mean(axis=0))
    scores = blend.score(features[None], np.array([len(features)]))[0]
    assert base + parts.sum(axis=1) == pytest.approx(scores, abs=1e-4)
    used = [FEATURES.index(name) for name in BLEND]
    assert not np.delete(parts, used, axis=1).any()


def test_columns_that_a_ranker_does_not_read_have_no_part() -> None:
    features = candidates()
    _, parts = attributions(network(), features, features.mean(axis=0))
    assert not parts[:, COLUMNS.index("idle")].any()


def test_every_column_is_of_a_group_and_groups_add_up_to_the_parts() -> None:
    assert set(GROUP_OF) == set(COLUMNS)
    assert set(GROUPS) == {
        "trend", "neighbours", "content", "repeats", "scene", "moment", "encoder", "probability",
    }  # fmt: skip
    features = candidates()
    features[:, [COLUMNS.index(name) for name in CONTEXT]] = 2.0  # of the user, not of the item
    _, parts = attributions(network(), features, features.mean(axis=0))
    groups = grouped(parts)
    assert sum(groups.values()) == pytest.approx(parts.sum(axis=1))
    assert groups["moment"] == pytest.approx(0.0, abs=1e-6)


def test_a_ranker_of_another_kind_has_no_parts() -> None:
    class Other:
        column_mask = cut_weights = np.zeros(0)
        score = None

    other: object = Other()
    with pytest.raises(ValueError, match="the scores of Other have no parts"):
        attributions(other, candidates(), candidates()[0])  # type: ignore[arg-type]
