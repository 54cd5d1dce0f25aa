"""What scenes add to users' vectors: the step, its bound, and how it is served."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_tower import fitted, tower_of, wishes, world_with
from tests.worlds import START, World, likes
from tracker.events import scene_code
from tracker.kinds import Kinds
from tracker.learner import Learner
from tracker.models import Models
from tracker.scene_shifts import CLIP, MOST_SCENES, PULL, RADIUS, RATE, SceneShifts

DIM = 5
ROWS = np.array([4, 7, 2, 9])


def items(count: int = 12) -> Any:
    vectors = np.random.default_rng(0).normal(size=(count, 8)).astype(np.float32)
    vectors[:, DIM + 1 :] = 0.0
    return vectors


def shifts(scenes: tuple[int, ...] = (11, 12)) -> SceneShifts:
    return SceneShifts(scenes, items(), DIM)


def query() -> Any:
    return np.array([0.3, -0.2, 0.5, 0.1, -0.4, 1.0, 0.0, 0.0], np.float32)


def test_a_step_follows_the_gradient_of_the_softmax_and_only_its_scene_moves() -> None:
    some, unit = shifts(), np.sqrt(np.square(items()[:, :DIM]).sum(axis=1).mean())
    before = np.zeros(8, np.float32)
    for _ in range(4):
        asked = torch.tensor(query() + before, requires_grad=True)
        scores = torch.tensor(items()[ROWS]) @ asked
        loss = torch.logsumexp(scores, 0) - scores[1]
        loss.backward()  # type: ignore[no-untyped-call]
        assert asked.grad is not None
        gradient = asked.grad.numpy() / unit
        gradient[DIM:] = 0.0  # the bias stays
        gradient *= min(1.0, CLIP / np.linalg.norm(gradient))
        expected = (1 - PULL) * before - RATE * gradient / unit
        losses = some.learn(11, query(), ROWS, 1)
        assert losses is not None
        assert losses[0] == pytest.approx(float(loss.detach()), rel=1e-5)
        before = some.of(np.array([11], np.uint32))[0]
        np.testing.assert_allclose(before, expected, rtol=1e-4, atol=1e-6)
        assert losses[0] <= losses[1] + 1e-6
    assert not some.of(np.array([12, 0, 99], np.uint32)).any()


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 3), min_size=1, max_size=30))
@settings(derandomize=True, deadline=None)
def test_the_published_loss_is_that_of_what_never_learned_whatever_was_learned_before(
    seed: int, targets: list[int]
) -> None:
    asked = np.random.default_rng(seed).normal(size=(len(targets), 8)).astype(np.float32)
    some = shifts()
    for wish, target in zip(asked, targets, strict=True):
        moved = wish + some.of(np.array([11], np.uint32))[0]
        losses, never = some.learn(11, wish, ROWS, target), shifts().learn(11, wish, ROWS, target)
        assert losses is not None
        assert never is not None
        assert losses[1] == never[0] == never[1]
        assert losses[0] == pytest.approx(loss_of(moved, ROWS, target), rel=1e-5)


def loss_of(wish: Any, rows: Any, target: int, vectors: Any = None) -> float:
    """Return the cross-entropy of a target among candidates, by the scores of a query."""
    scores = (items() if vectors is None else vectors)[rows] @ wish
    return float(np.log(np.exp(scores - scores.max()).sum()) - (scores[target] - scores.max()))


def test_no_scene_and_one_that_attention_does_not_know_do_not_learn() -> None:
    some = shifts()
    assert some.learn(0, query(), ROWS, 1) is None
    assert some.learn(99, query(), ROWS, 1) is None
    assert SceneShifts((11,), np.zeros((0, 8), np.float32), DIM).learn(11, query(), ROWS, 1) is None
    assert some.distance == 0.0
    many = shifts(tuple(range(1, 2 * MOST_SCENES)))
    learned = [many.learn(scene, query(), ROWS, 1) for scene in range(1, 2 * MOST_SCENES)]
    assert [losses is not None for losses in learned].count(True) == MOST_SCENES


def test_a_scene_moves_no_farther_than_the_radius() -> None:
    some = shifts()
    for _ in range(400):
        some.learn(11, query(), ROWS, 1)
    assert some.distance == pytest.approx(RADIUS, rel=1e-3)


def test_what_was_learned_is_taken_over_or_refused_by_what_is_wrong_with_it() -> None:
    one, other = shifts(), shifts()
    one.learn(12, query(), ROWS, 1)
    one.learn(11, query(), ROWS, 2)
    other.set_bytes(one.to_bytes())
    scenes = np.array([11, 12], np.uint32)
    assert np.array_equal(other.of(scenes), one.of(scenes))
    assert other.to_bytes() == one.to_bytes()
    with pytest.raises(ValueError, match="25 bytes of scenes; at most 32 x 24 are expected"):
        other.set_bytes(bytes(25))
    for wrong in (np.nan, 9.0):
        with pytest.raises(ValueError, match=r"a scene moves by .*; at most 0\.5 is expected"):
            other.set_bytes(bytes(4) + np.full(DIM, wrong, "<f4").tobytes())
    assert other.to_bytes() == one.to_bytes()


def world() -> World:
    found = world_with(fitted(scenes=True))
    for user in range(6):
        found.send(*likes(user, [user, user + 2, user + 4], scene="home", time=START))
    return found


@pytest.mark.parametrize("served", [True, False])
def test_the_losses_of_a_chunk_are_of_what_was_published_and_learned_just_then(
    served: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracker.scene_shifts.RATE", 5.0)  # so that each step can be seen
    some = world()
    learner = Learner(Kinds.default())
    learner.follow(some.artifact.models)
    model = learner._parts["scenes"].model
    assert isinstance(model, SceneShifts)
    vectors = tower_of(some).vectors
    code = np.array([scene_code("home")], np.uint32)
    calls: list[Any] = []
    expected: list[Any] = []
    events = [{"user": user, "item": f"i{7 + 2 * user}", "scene": "home"} for user in range(4)]
    users = iter(range(4))

    def spy(scene: int, wish: Any, rows: Any, target: int) -> Any:
        item = int(rows[target])
        user = next(user for user in users if events[user]["item"] == f"i{item}")
        published = asked[user]
        learned = published + model.of(code)[0]
        expected.append(tuple(loss_of(by, rows, target, vectors) for by in (learned, published)))
        calls.append(learn(scene, wish, rows, target))
        return calls[-1]

    learn = model.learn
    monkeypatch.setattr(SceneShifts, "learn", lambda _, *given: spy(*given))
    for time in (START + 60.0, START + 120.0):
        users = iter(range(4))
        asked = [wishes(some, user, now=time, scene="home") for user in range(4)]
        learner._parts["scenes"].state.gain = 1.0 if served else -1.0
        batch = some.batch([event | {"time": time} for event in events])
        learner.learn(some.recommender, some.users, batch, batch.times, 10)
    assert len(calls) >= 4
    np.testing.assert_allclose(calls, expected, rtol=1e-5)


def test_a_learner_with_scene_attention_moves_what_is_looked_for_in_a_scene() -> None:
    some = world()
    models = some.artifact.models
    learner = Learner(Kinds.default())
    learner.follow(models)
    for n in range(60):
        batch = some.batch(
            [{"user": n % 6, "item": f"i{(7 + 2 * n) % 40}", "scene": "home", "time": START + n}]
        )
        learner.learn(some.recommender, some.users, batch, batch.times, 10)
    progress = learner.progress["scenes"]
    assert progress.steps > 0
    assert 0.0 < progress.distance <= 1.001 * RADIUS
    row = learner.row()
    again = Learner(Kinds.default())
    again.restore(row)
    assert again.follow(models) == []
    assert again.row() == row
    learner._parts["scenes"].state.gain = 1.0
    moved = learner.served.shifts
    assert moved is not None
    for scene, differs in (("home", True), ("cart", False), ("", False)):
        asked = some.asked([0], now=START + 100.0, scene=scene or None)
        found = some.recommender.examples(asked, 5, moved)
        assert np.array_equal(found.wishes[0], wishes(some, 0, scene=scene)) != differs
    other = replace(models, tower=tower_of(world_with(fitted(scenes=True, seed=1))))
    assert again.follow(other) == ["scenes"]
    assert again.follow(Models()) == []
    assert again.progress == {}
