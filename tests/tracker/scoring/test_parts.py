"""Parts of scores add up to them, and are those that integrated gradients give."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tracker.scoring import parts as module
from tracker.scoring.blend import BLEND, CUT, Blend, Ranker
from tracker.scoring.context import COLUMNS, CONTEXT
from tracker.scoring.features import FEATURES
from tracker.scoring.network import Network, Weights
from tracker.scoring.online_ranker import OnlineRanker
from tracker.scoring.parts import GROUP_OF, GROUPS, GroupParts, list_parts

pytestmark = pytest.mark.xdist_group("parts")  # what compiles longest is compiled in one process

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
    drawn = np.random.default_rng(seed).normal(size=(count, len(COLUMNS))).astype(np.float32)
    context = [COLUMNS.index(name) for name in CONTEXT]
    drawn[:, context] = drawn[0, context]  # of the user, not of the item
    return drawn


def divided(ranker: Ranker, features: NDArray[np.float32], steps: int = 4) -> GroupParts:
    """Return the parts of the scores of all candidates, in their order."""
    count = len(features)
    rows = np.arange(count, dtype=np.int32)[None]
    counts, picks = np.array([count]), np.arange(count)[None]
    scores = np.asarray(ranker.score(features[None], counts))
    vectors = np.eye(count, dtype=np.float32)
    return list_parts(ranker, features[None], counts, scores, picks, rows, vectors, 0.0, steps)


@pytest.mark.parametrize("steps", [1, 4, 16])
def test_parts_of_a_network_add_up_to_its_scores_however_few_the_pieces_are(steps: int) -> None:
    features = candidates()
    for ranker in (network(), OnlineRanker(network(3))):
        parts = divided(ranker, features, steps)
        scores = ranker.score(features[None], np.array([len(features)]))[0]
        off = np.abs(parts.bases[0] + parts.groups[0].sum(axis=1) - scores)
        assert (off <= 1e-3 * np.abs(parts.groups[0]).sum(axis=1)).all()


def test_parts_of_many_users_are_those_of_each_alone() -> None:
    """Items of several users are divided at once; lists end early, and one user has none."""
    ranker, lists = network(), [candidates(seed, 40) for seed in range(6)]
    features, counts = np.stack(lists), np.array([40, 7, 0, 40, 12, 40])
    scores = np.asarray(ranker.score(features, counts))
    picks = np.tile(np.arange(25), (6, 1))
    picks[picks >= counts[:, None]] = -1
    rows = np.tile(np.arange(40, dtype=np.int32), (6, 1))
    vectors = np.eye(40, dtype=np.float32)
    together = list_parts(ranker, features, counts, scores, picks, rows, vectors, 0.0)
    for b in range(6):
        own = slice(b, b + 1)
        alone = list_parts(
            ranker, features[own], counts[own], scores[own], picks[own], rows[own], vectors, 0.0
        )
        assert together.groups[b] == pytest.approx(alone.groups[0], abs=1e-4)
        assert together.bases[b] == alone.bases[0]
        own_scores = scores[b, : picks.shape[1]] * (picks[b] >= 0)
        total = (together.bases[b] + together.groups[b].sum(axis=1)) * (picks[b] >= 0)
        assert total == pytest.approx(own_scores, abs=1e-2)


def by_integration(ranker: Network, one: NDArray[np.float32], baseline: Any) -> NDArray[np.float64]:
    """Return integrated gradients by group, from many points of the way."""
    pieces = 4000
    at = (np.arange(pieces) + 0.5) / pieces
    weights = ranker.weights
    way = (one - baseline)[ranker.places].astype(np.float64)
    x = baseline[ranker.places] + at[:, None] * way
    before_one = x @ weights.first + weights.first_bias
    before_two = np.maximum(before_one, 0.0) @ weights.second + weights.second_bias
    slope = weights.last * (before_two > 0.0)
    slope = (slope @ weights.second.T * (before_one > 0.0)) @ weights.first.T + weights.skip
    columns = slope.mean(axis=0) * way
    groups = np.zeros(len(GROUPS))
    for place, part in zip(ranker.places.tolist(), columns.tolist(), strict=True):
        groups[GROUPS.index(GROUP_OF[COLUMNS[place]])] += part
    return groups


def test_parts_of_a_network_are_integrated_gradients() -> None:
    ranker, features = network(), candidates()
    fine, coarse = divided(ranker, features, 256), divided(ranker, features)
    for place, one in enumerate(features[:3]):
        expected = by_integration(ranker, one, features.mean(axis=0))
        scale = np.abs(expected).sum()
        assert np.abs(fine.groups[0, place] - expected).max() < 0.005 * scale
        assert np.abs(coarse.groups[0, place] - expected).max() < 0.1 * scale


def test_compiled_parts_are_those_of_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    features = candidates()
    blended = np.abs(features[:, : len(FEATURES)])
    expected = [divided(network(), features), divided(Blend(), blended)]
    for name, kernel in list(vars(module).items()):
        if hasattr(kernel, "py_func"):
            monkeypatch.setattr(module, name, kernel.py_func)
    for one, plain in zip(
        expected, [divided(network(), features), divided(Blend(), blended)], strict=True
    ):
        assert one.groups == pytest.approx(plain.groups, abs=1e-3)
        assert one.bases == pytest.approx(plain.bases, abs=1e-3)


def test_parts_of_the_blend_are_what_its_columns_add() -> None:
    features = (np.abs(candidates()[:, : len(FEATURES)]) * 5.0).astype(np.float32)
    blend = Blend()
    parts = divided(blend, features)
    scores = blend.score(features[None], np.array([len(features)]))[0]
    assert parts.bases[0] + parts.groups[0].sum(axis=1) == pytest.approx(scores, abs=1e-4)
    used = {GROUPS.index(GROUP_OF[name]) for name in BLEND}
    assert not np.delete(parts.groups[0], sorted(used), axis=1).any()


def test_every_column_is_of_a_group_and_what_is_the_same_for_all_items_has_no_part() -> None:
    assert set(GROUP_OF) == set(COLUMNS)
    assert set(GROUPS) == {
        "trend", "neighbours", "content", "repeats", "scene", "moment", "encoder", "probability",
    }  # fmt: skip
    assert not divided(network(), candidates()).groups[0, :, GROUPS.index("moment")].any()


def test_an_item_loses_by_being_like_those_above_it() -> None:
    features = candidates(count=4)
    vectors = np.array([[1, 0], [0, 1], [0.6, 0.8], [0, 1]], np.float32)
    scores = np.array([[4.0, 3.0, 2.0, 0.0]], np.float32)
    picks = np.array([[0, 1, 2, -1]])
    rows = np.arange(4, dtype=np.int32)[None]
    parts = list_parts(network(), features[None], np.array([4]), scores, picks, rows, vectors, 0.2)
    assert parts.losses[0] == pytest.approx([0.0, 0.0, -0.25 * 4.0 * 0.8, 0.0])
    assert not parts.groups[0, 3].any()


def test_a_ranker_of_another_kind_has_no_parts() -> None:
    other: object = type("Plain", (), {"score": Blend().score})()
    with pytest.raises(ValueError, match="the scores of Plain have no parts"):
        divided(other, candidates()[:, : len(FEATURES)])  # type: ignore[arg-type]
