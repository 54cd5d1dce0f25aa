"""What a ranker learns while it serves: its step, its bound, and what is kept of it."""

from typing import Any, cast

import numpy as np
import pytest
import torch

from tests.tracker.scoring.test_network import NAMES, weights
from tracker.scoring import network
from tracker.scoring import online_ranker as online
from tracker.scoring.context import COLUMNS
from tracker.scoring.network import Network
from tracker.scoring.online_ranker import CLIP, PULL, RADIUS, RATE, OnlineRanker


def candidates(count: int = 12, seed: int = 1) -> Any:
    shape = (count, len(COLUMNS))
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def read_out(ranker: OnlineRanker) -> Any:
    return np.frombuffer(ranker.to_bytes(), "<f4").copy()


def units(ranker: OnlineRanker) -> tuple[Any, Any]:
    given = ranker.published.weights
    last = np.sqrt(np.square(given.last).mean())
    skip = np.maximum(np.sqrt(np.square(given.first).mean(axis=1)), np.abs(given.skip))
    return last, skip


def by_torch(ranker: OnlineRanker, features: Any, target: int) -> tuple[float, Any, Any]:
    """Return loss and gradients of `last` and `skip`, by automatic differentiation."""
    given = ranker.published.weights
    learned = read_out(ranker)
    last = torch.tensor(learned[: len(given.last)], requires_grad=True)
    skip = torch.tensor(learned[len(given.last) :], requires_grad=True)
    x = torch.tensor(features[:, [COLUMNS.index(name) for name in NAMES]])
    one = torch.relu(x @ torch.tensor(given.first) + torch.tensor(given.first_bias))
    two = torch.relu(one @ torch.tensor(given.second) + torch.tensor(given.second_bias))
    scores = two @ last + x @ skip
    loss = torch.logsumexp(scores, 0) - scores[target]
    loss.backward()  # type: ignore[no-untyped-call]
    assert last.grad is not None
    assert skip.grad is not None
    return float(loss.detach()), last.grad.numpy(), skip.grad.numpy()


@pytest.mark.parametrize("plain", [False, True], ids=["native", "plain"])
def test_a_step_follows_the_gradient_of_the_softmax(
    plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if plain:
        monkeypatch.setattr(online, "hidden_units", cast(Any, network.hidden_units).py_func)
        monkeypatch.setattr(online, "_learn", cast(Any, online._learn).py_func)
    ranker = OnlineRanker(Network(NAMES, weights()))
    given = np.concatenate([ranker.published.weights.last, ranker.published.weights.skip])
    last_unit, skip_unit = units(ranker)
    for step in range(5):
        features = candidates(seed=step)
        before = read_out(ranker)
        loss, last, skip = by_torch(ranker, features, 3)
        gradient = np.concatenate([last * last_unit, skip * skip_unit])
        length = np.linalg.norm(gradient)
        gradient *= min(1.0, CLIP / length)
        unit = np.concatenate([np.full(len(last), last_unit), skip_unit])
        expected = before + PULL * (given - before) - RATE * gradient * unit
        learned, published = ranker.learn(features, 3)
        assert learned == pytest.approx(loss, rel=1e-5)
        assert (published == pytest.approx(learned, rel=1e-5)) == (step == 0)
        np.testing.assert_allclose(read_out(ranker), expected, rtol=1e-4, atol=1e-5)


def test_what_is_learned_moves_the_scores_and_leaves_the_published_ranker_as_it_is() -> None:
    published = Network(NAMES, weights())
    ranker, features = OnlineRanker(published), candidates()
    n_rows = np.array([len(features)])
    before = published.score(features[None], n_rows)
    assert np.array_equal(ranker.score(features[None], n_rows), before)
    losses = [ranker.learn(features, 7)[0] for _ in range(50)]
    assert losses == sorted(losses, reverse=True)
    assert ranker.score(features[None], n_rows)[0, 7] > before[0, 7]
    assert np.array_equal(published.score(features[None], n_rows), before)
    assert np.array_equal(ranker.column_mask, published.column_mask)


def test_the_weights_never_get_farther_than_the_radius() -> None:
    ranker = OnlineRanker(Network(NAMES, weights()))
    farthest = 0.0
    for step in range(2000):  # always the least likely: nothing pulls harder
        features = 30.0 * candidates(seed=step % 50)
        scores = ranker.score(features[None], np.array([len(features)]))[0]
        ranker.learn(features, int(scores.argmin()))
        farthest = max(farthest, ranker.distance)
    assert farthest == pytest.approx(RADIUS, rel=1e-3)


def test_columns_that_the_published_ranker_does_not_weigh_stay_out() -> None:
    given = weights()
    given.first[2] = 0.0
    given.skip[2] = 0.0
    ranker = OnlineRanker(Network(NAMES, given))
    for step in range(20):
        ranker.learn(candidates(seed=step), 0)
    assert read_out(ranker)[len(given.last) + 2] == 0.0
    assert 0.0 < ranker.distance <= RADIUS


def test_a_read_out_is_taken_over_or_refused_by_what_is_wrong_with_it() -> None:
    one, other = OnlineRanker(Network(NAMES, weights())), OnlineRanker(Network(NAMES, weights()))
    for step in range(20):
        one.learn(candidates(seed=step), 0)
    other.set_bytes(one.to_bytes())
    assert other.to_bytes() == one.to_bytes()
    with pytest.raises(ValueError, match="12 bytes of learned weights; 32 are expected"):
        other.set_bytes(bytes(12))
    for wrong in (np.nan, 1e3):
        with pytest.raises(ValueError, match="from the published ones; at most 2 is expected"):
            other.set_bytes(np.full(8, wrong, "<f4").tobytes())
    assert other.to_bytes() == one.to_bytes()


def test_a_copy_learns_no_more() -> None:
    ranker, features = OnlineRanker(Network(NAMES, weights())), candidates()
    ranker.learn(features, 3)
    copy, n_rows = ranker.copy(), np.array([len(features)])
    before = copy.score(features[None], n_rows)
    assert np.array_equal(before, ranker.score(features[None], n_rows))
    ranker.learn(features, 3)
    assert np.array_equal(copy.score(features[None], n_rows), before)
