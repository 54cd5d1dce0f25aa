"""The trained ranker's network: its numbers, its file, and what it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.worlds import DAY, START, World, likes
from tracker.scoring import network
from tracker.scoring.blend import CUT
from tracker.scoring.context import COLUMNS, CONTEXT, read_context
from tracker.scoring.network import Network, RankerFileError, RankerInfo, Weights
from tracker.users.readings import read_histories

NAMES = ("trend_short", "content_60", "gap", "neighbours_95", "repeats")


def weights(columns: int = len(NAMES), hidden: int = 6, width: int = 3) -> Weights:
    random = np.random.default_rng(0)

    def draw(*shape: int) -> NDArray[np.float32]:
        return random.normal(size=shape).astype(np.float32)

    return Weights(
        draw(columns, hidden), draw(hidden), draw(hidden, width), draw(width), draw(width),
        draw(columns), draw(len(CUT)),
    )  # fmt: skip


def some_features(users: int = 3, candidates: int = 5) -> NDArray[np.float32]:
    shape = (users, candidates, len(COLUMNS))
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def by_numpy(w: Weights, features: NDArray[np.float32]) -> NDArray[Any]:
    x = features[:, :, [COLUMNS.index(name) for name in NAMES]]
    hidden = np.maximum(np.maximum(x @ w.first + w.first_bias, 0) @ w.second + w.second_bias, 0)
    return np.asarray(hidden @ w.last + x @ w.skip)


def test_scores_are_those_of_two_hidden_layers_and_a_linear_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ranker, features = Network(NAMES, weights()), some_features()
    n_rows = np.array([5, 5, 5])
    expected = by_numpy(ranker.weights, features)
    np.testing.assert_allclose(ranker.score(features, n_rows), expected, rtol=1e-4, atol=1e-4)
    plain = np.zeros((1, 3, 5), np.float32)
    w = ranker.weights
    for name in ("_layer", "hidden_units"):
        monkeypatch.setattr(network, name, getattr(network, name).py_func)
    cast(Any, network._forward).py_func(
        features, n_rows, ranker.layers, w.last[None], w.skip[None], plain
    )
    np.testing.assert_allclose(plain[0], expected, rtol=1e-4, atol=1e-4)


def test_what_is_zero_outside_of_blocks_on_the_diagonal_is_left_out() -> None:
    dense = weights(hidden=16, width=8)
    second = dense.second.copy()
    second[:8, 4:] = second[8:, :4] = 0.0
    ranker, features = Network(NAMES, replace(dense, second=second)), some_features()
    np.testing.assert_array_equal(ranker.blocks, [second[:8, :4], second[8:, 4:]])
    n_rows = np.array([5, 5, 5])
    expected = by_numpy(ranker.weights, features)
    np.testing.assert_allclose(ranker.score(features, n_rows), expected, rtol=1e-4, atol=1e-4)
    assert Network(NAMES, dense).blocks.shape == (1, 16, 8)


def test_networks_that_differ_in_their_read_out_score_together_as_alone() -> None:
    one = Network(NAMES, weights())
    own = replace(one.weights, last=-one.weights.last, skip=2.0 * one.weights.skip)
    other, features, n_rows = Network(NAMES, own), some_features(), np.array([5, 2, 5])
    both = network.score_each((one, other), features, n_rows)
    np.testing.assert_array_equal(both[0], one.score(features, n_rows))
    np.testing.assert_array_equal(both[1], other.score(features, n_rows))
    assert (both[0] != both[1])[:, :2].all()
    with pytest.raises(ValueError, match="'first' of the networks differs"):
        network.score_each((one, Network(NAMES, weights())), features, n_rows)


def test_a_user_has_the_same_scores_alone_and_in_a_batch() -> None:
    ranker, features = Network(NAMES, weights()), some_features(8, 30)
    together = ranker.score(features, np.full(8, 30))
    for b in range(8):
        alone = ranker.score(features[b : b + 1], np.array([30]))
        np.testing.assert_array_equal(alone[0], together[b])


def test_a_candidate_has_the_same_score_wherever_it_stands() -> None:
    features = some_features(1, 523)  # more than are scored at once
    ranker = Network(NAMES, weights())
    scores = ranker.score(features, np.array([523]))[0]
    turned = ranker.score(features[:, ::-1].copy(), np.array([523]))[0]
    np.testing.assert_array_equal(turned[::-1], scores)


def test_places_beyond_the_rows_are_not_computed() -> None:
    scores = Network(NAMES, weights()).score(some_features(), np.array([0, 2, 5]))
    assert not scores[0].any()
    assert not scores[1, 2:].any()
    assert scores[2].all()


def test_only_its_columns_are_wanted() -> None:
    ranker = Network(NAMES, weights())
    assert {COLUMNS[i] for i in np.flatnonzero(ranker.column_mask)} == set(NAMES)
    np.testing.assert_array_equal(ranker.cut_weights, ranker.weights.cut)


def test_a_saved_ranker_is_read_back_with_the_same_scores(tmp_path: Path) -> None:
    ranker, features = Network(NAMES, weights()), some_features()
    (tmp_path / "ranker.safetensors").write_bytes(ranker.to_bytes())
    again = Network.load(tmp_path / "ranker.safetensors", ranker.info)
    assert again.info == RankerInfo(list(NAMES), (6, 3))
    n_rows = np.array([5, 5, 5])
    np.testing.assert_array_equal(again.score(features, n_rows), ranker.score(features, n_rows))


def test_a_file_that_is_missing_or_damaged_is_refused(tmp_path: Path) -> None:
    ranker = Network(NAMES, weights())
    path = tmp_path / "ranker.safetensors"
    with pytest.raises(RankerFileError, match="cannot be read"):
        Network.load(path, ranker.info)
    path.write_bytes(ranker.to_bytes())
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(RankerFileError, match="cannot be read"):
        Network.load(path, ranker.info)


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    ranker = Network(NAMES, weights())
    (tmp_path / "ranker.safetensors").write_bytes(ranker.to_bytes())
    with pytest.raises(RankerFileError, match=r"'first': float32 \(5, 6\) found.*\(1, 6\)"):
        Network.load(tmp_path / "ranker.safetensors", RankerInfo(["gap"], (6, 3)))
    with pytest.raises(RankerFileError, match=r"\(6, 3\) found, \(8, 3\) expected"):
        Network.load(tmp_path / "ranker.safetensors", RankerInfo(list(NAMES), (8, 3)))
    with pytest.raises(RankerFileError, match="'astrology', which this program does not compute"):
        Network(["astrology"], weights(1))
    bad = weights()
    with pytest.raises(RankerFileError, match="'last': not all are finite"):
        Network(NAMES, replace(bad, last=bad.last * np.float32("nan")))


def test_a_recommender_serves_the_network_the_context_of_its_users() -> None:
    lone = np.zeros((1, 2), np.float32)
    lone[0, 0] = 1.0
    zero = np.zeros(2, np.float32)
    by_events = Weights(
        lone, zero, np.eye(2, dtype=np.float32), zero, np.ones(2, np.float32),
        np.zeros(1, np.float32), np.zeros(len(CUT), np.float32),
    )  # fmt: skip
    world = World(20, ranker=Network(["events"], by_events))
    world.send(*likes(0, [1, 2, 3]), *likes(1, [4]))
    scores = world.recommend([0, 1, -1]).scores
    np.testing.assert_allclose(scores[:, 0], [2.0, 1.0, 0.0], rtol=1e-5)


def test_context_says_what_moment_it_is() -> None:
    world = World(10)
    world.send(*likes(0, [1, 2, 3], time=START - DAY), *likes(0, [4], time=START - 60))
    requests = world.asked([0, 1, -1], now=START)
    histories = read_histories(requests, world.items)
    found = read_context(histories, requests, world.view)
    values = dict(zip(CONTEXT, found[0].tolist(), strict=True))
    assert values["gap"] == pytest.approx(1.0)  # a minute
    assert values["events"] == pytest.approx(np.log2(5))
    assert values["session"] == pytest.approx(1.0)  # one event in the hour
    assert values["recent_popularity"] == pytest.approx(1.0)  # each item was chosen once
    assert values["recent_age"] == 0.0  # by the user who brought it up
    assert 3.0 < values["recent_trend"] < np.log2(20) + 1e-6
    assert not found[1:].any()
