"""What scene attention learns on: the step, its bounds, and how it is served."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tracker.encoder.test_scene_attention import made, trained
from tests.tracker.encoder.test_tower import fitted, tower_of, wishes, world_with
from tests.worlds import DAY, START, World, likes
from tracker.artifact.models import Models
from tracker.encoder.interests import SceneQueries, interest_names
from tracker.encoder.online_attention import CLIP, MOST_SCENES, RATE, WEIGHT_UNIT, OnlineAttention
from tracker.encoder.scene_attention import SceneAttention, SceneAttentionConfig
from tracker.events.kinds import Kinds
from tracker.events.wire import scene_code
from tracker.recommend.learner import Learner
from tracker.recommend.options import LearnedModels
from tracker.recommend.recommender import Recommender
from tracker.scoring.blend import Blend
from tracker.scoring.context import C_ENCODER, COLUMNS
from tracker.users.config import InterestConfig

DIM, TYPES, WIDTH = 8, 4, 12
ROWS = np.array([4, 7, 2, 9])


def items(count: int = 12) -> Any:
    vectors = np.random.default_rng(0).normal(size=(count, WIDTH)).astype(np.float32)
    vectors[:, DIM + 1 :] = 0.0
    return vectors


def online(scenes: tuple[int, ...] = (5, 6)) -> OnlineAttention:
    return OnlineAttention(scenes, TYPES, items(), DIM)


def scene_queries_of(
    model: SceneAttention, users: int = 1, scene: int = 1, seed: int = 0
) -> SceneQueries:
    """Return the queries of scene attention for made-up users of a model."""
    queries, interests, masses = made(users, seed)
    with torch.no_grad():
        vectors, by_type = model.by_type(queries, interests, masses, torch.full((users,), scene))
    wide = np.zeros((users, WIDTH), np.float32)
    wide[:, :DIM] = vectors.numpy()
    wide[:, DIM] = 1.0
    return SceneQueries(wide, by_type.numpy())


def some_user(seed: int = 0, size: float = 1.0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    query = np.zeros(WIDTH, np.float32)
    query[:DIM], query[DIM] = size * random.normal(size=DIM), 1.0
    return query, (size * random.normal(size=(TYPES, DIM))).astype(np.float32)


def loss_of(query: Any, rows: Any, target: int, vectors: Any = None) -> float:
    """Return the cross-entropy of a target among candidates, by the scores of a query."""
    scores = (items() if vectors is None else vectors)[rows] @ query
    return float(np.log(np.exp(scores - scores.max()).sum()) - (scores[target] - scores.max()))


def moved(model: OnlineAttention, query: Any, by_type: Any, scene: int = 5) -> Any:
    one = SceneQueries(query[None], by_type[None])
    return model.queries(one, np.array([scene], np.uint32))[0]


def test_what_learned_nothing_is_what_was_published_bit_by_bit() -> None:
    found = scene_queries_of(trained(), users=9)
    scenes = np.array([5, 6, 0, 99, 5, 5, 6, 0, 1], np.uint32)
    assert np.array_equal(online().queries(found, scenes), found.queries)
    assert online().distance == 0.0


@given(seed=st.integers(0, 2**32 - 1), target=st.integers(0, 3), scene=st.integers(0, 2))
@settings(max_examples=30, derandomize=True, deadline=None)
def test_the_first_step_is_the_gradient_that_torch_finds_through_attention(
    seed: int, target: int, scene: int
) -> None:
    model = trained()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    queries, interests, masses = made(1, seed % 1000)
    weights, shift = torch.zeros(TYPES, requires_grad=True), torch.zeros(DIM, requires_grad=True)
    vector, by_attention = model(queries, interests, masses, torch.tensor([scene]))
    contents = torch.cat([model.contents(interests), model.own_content(queries)[:, None]], dim=1)[0]
    types = model.get_buffer("types")
    added = torch.zeros(DIM)
    for kind in range(TYPES):  # a type's number, in the shares that its interests have of it
        of = types == kind
        share = by_attention[0, of] / by_attention[0, of].sum()
        added = added + weights[kind] * (share @ contents[of])
    gain = 1.0 + (model.scene_gain[scene] if scene else 0.0)
    query = vector[0] + gain * model.out(added) + shift
    vectors = torch.tensor(items()[ROWS])
    scores = vectors[:, :DIM] @ query + vectors[:, DIM]
    loss = torch.logsumexp(scores, 0) - scores[target]
    loss.backward()
    assert weights.grad is not None
    assert shift.grad is not None
    some, found = online(), scene_queries_of(model, scene=scene, seed=seed % 1000)
    losses = some.learn(0, found.queries[0], found.by_type[0], ROWS, target)
    assert losses == pytest.approx((float(loss.detach()),) * 2, rel=1e-4, abs=1e-5)
    gradient = np.concatenate([weights.grad.numpy(), shift.grad.numpy()]) * some._units
    cut = min(1.0, CLIP / float(np.linalg.norm(gradient)))
    expected = -RATE * cut * some._units * gradient
    np.testing.assert_allclose(some._rows[0], expected, rtol=2e-3, atol=1e-6)


@given(seed=st.integers(0, 2**32 - 1), target=st.integers(0, 3))
@settings(max_examples=50, derandomize=True, deadline=None)
def test_a_step_lowers_the_loss_of_the_example_it_took(seed: int, target: int) -> None:
    some, (query, by_type) = online(), some_user(seed)
    losses = some.learn(5, query, by_type, ROWS, target)
    assert losses is not None
    assert losses[0] == losses[1] == pytest.approx(loss_of(query, ROWS, target), rel=1e-5)
    assert loss_of(moved(some, query, by_type), ROWS, target) < losses[0]


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 3), min_size=1, max_size=30))
@settings(max_examples=30, derandomize=True, deadline=None)
def test_both_losses_are_taken_before_the_step_whatever_was_learned_before(
    seed: int, targets: list[int]
) -> None:
    some = online()
    for n, target in enumerate(targets):
        query, by_type = some_user(seed + n)
        before = moved(some, query, by_type)
        losses = some.learn(5, query, by_type, ROWS, target)
        assert losses is not None
        assert losses[0] == pytest.approx(loss_of(before, ROWS, target), rel=1e-4)
        assert losses[1] == pytest.approx(loss_of(query, ROWS, target), rel=1e-5)


@given(
    st.integers(0, 2**32 - 1), st.sampled_from([1.0, 30.0, 1e4]),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3)), min_size=1, max_size=200),
)  # fmt: skip
@settings(max_examples=30, derandomize=True, deadline=None)
def test_no_stream_moves_a_correction_farther_than_its_bound(
    seed: int, size: float, stream: list[tuple[int, int]]
) -> None:
    some, (query, by_type) = online(), some_user(seed, size)
    for scene, target in stream:
        some.learn(scene, query, by_type, ROWS, target)
        assert some.distance <= 1.0 + 1e-6
        assert np.abs(some._rows[:, :TYPES]).max() <= WEIGHT_UNIT + 1e-6
    assert np.isfinite(some._rows).all()


def test_a_stream_that_says_the_same_for_ever_ends_at_the_bound() -> None:
    some, (query, by_type) = online(), some_user()
    least = int(np.argmin(items()[ROWS] @ (10.0 * query)))
    for _ in range(400):
        some.learn(5, 10.0 * query, by_type, ROWS, least)
    assert some.distance == pytest.approx(1.0, rel=1e-3)


def test_the_shared_model_learns_everywhere_and_a_scene_for_itself_on_top_of_it() -> None:
    some, (query, by_type) = online(), some_user()
    some.learn(5, query, by_type, ROWS, 1)
    unseen = moved(some, query, by_type, 99)
    assert not np.array_equal(unseen, query)
    assert np.array_equal(unseen, moved(some, query, by_type, 0))
    assert np.array_equal(unseen, moved(some, query, by_type, 6))
    np.testing.assert_allclose(
        moved(some, query, by_type, 5) - query, 2 * (unseen - query), rtol=1e-4, atol=1e-6
    )
    many = online(tuple(range(1, 2 * MOST_SCENES)))
    for scene in range(1, 2 * MOST_SCENES):
        assert many.learn(scene, query, by_type, ROWS, 1) is not None
    assert len(many.to_bytes()) == 4 * (TYPES + DIM) * (1 + MOST_SCENES) + 4 * MOST_SCENES
    nothing = OnlineAttention((5,), TYPES, np.zeros((0, WIDTH), np.float32), DIM)
    assert nothing.learn(5, query, by_type, ROWS, 1) is None


def test_what_was_learned_is_taken_over_or_refused_by_what_is_wrong_with_it() -> None:
    (query, by_type), one, other = some_user(), online(), online()
    one.learn(6, query, by_type, ROWS, 1)
    one.learn(5, query, by_type, ROWS, 2)
    other.set_bytes(one.to_bytes())
    for scene in (0, 5, 6):
        assert np.array_equal(
            moved(other, query, by_type, scene), moved(one, query, by_type, scene)
        )
    assert other.to_bytes() == one.to_bytes()
    for size in (0, 47, 49, 48 + 52 * 33):
        with pytest.raises(ValueError, match=f"{size} bytes of attention; 48 and 52 for each of"):
            other.set_bytes(bytes(size))
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"a correction of length .*; a number is expected"):
            other.set_bytes(np.full(TYPES + DIM, wrong, "<f4").tobytes())
    assert other.to_bytes() == one.to_bytes()


def test_what_was_learned_stays_where_items_of_a_later_build_are_longer() -> None:
    (query, by_type), one = some_user(), online()
    least = int(np.argmin(items()[ROWS] @ (10.0 * query)))
    for _ in range(400):
        one.learn(5, 10.0 * query, by_type, ROWS, least)
    assert one.distance == pytest.approx(1.0, rel=1e-3)
    longer = OnlineAttention((5, 6), TYPES, items() * np.float32(1.5), DIM)
    longer.set_bytes(one.to_bytes())
    assert longer.distance == pytest.approx(1.0, rel=1e-3)
    change, was = (moved(some, query, by_type, 5) - query for some in (longer, one))
    assert change @ was > 0.0


def world() -> World:
    found = world_with(fitted(scenes=True))
    for user in range(6):
        found.send(*likes(user, [user, user + 2, user + 4], scene="home", time=START))
    return found


@pytest.mark.parametrize("served", [True, False])
def test_the_losses_of_a_chunk_are_of_what_was_published_and_learned_just_then(
    served: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tracker.encoder.online_attention.RATE", 5.0
    )  # so that each step can be seen
    some = world()
    learner = Learner(Kinds.default())
    learner.follow(some.artifact.models)
    model = learner._parts["attention"].model
    assert isinstance(model, OnlineAttention)
    vectors = tower_of(some).vectors
    calls: list[Any] = []
    expected: list[Any] = []
    events = [{"user": user, "item": f"i{7 + 2 * user}", "scene": "home"} for user in range(4)]
    users = iter(range(4))

    def spy(scene: int, query: Any, by_type: Any, rows: Any, target: int) -> Any:
        item = int(rows[target])
        user = next(user for user in users if events[user]["item"] == f"i{item}")
        published = asked[user]
        learned = moved(model, published, by_type, scene)
        expected.append(tuple(loss_of(by, rows, target, vectors) for by in (learned, published)))
        calls.append(learn(scene, query, by_type, rows, target))
        return calls[-1]

    def examples(asked: Any, k: int, attention: Any = None) -> Any:
        assert attention is (model if served else None)
        return found(asked, k, attention)

    found = some.recommender.examples
    monkeypatch.setattr(some.recommender, "examples", examples)
    learn = model.learn
    monkeypatch.setattr(OnlineAttention, "learn", lambda _, *given: spy(*given))
    for time in (START + 60.0, START + 120.0):
        users = iter(range(4))
        asked = [wishes(some, user, now=time, scene="home") for user in range(4)]
        learner._parts["attention"].state.gain = 1.0 if served else -1.0
        batch = some.batch([event | {"time": time} for event in events])
        learner.learn(some.recommender, some.users, batch, batch.times, 10)
    assert len(calls) >= 4
    np.testing.assert_allclose(calls, expected, rtol=1e-5)


def test_a_learner_keeps_what_attention_learned_and_starts_again_beside_other_weights() -> None:
    some = world()
    models = some.artifact.models
    learner = Learner(Kinds.default())
    learner.follow(models)
    for n in range(60):
        batch = some.batch(
            [{"user": n % 6, "item": f"i{(7 + 2 * n) % 40}", "scene": "home", "time": START + n}]
        )
        learner.learn(some.recommender, some.users, batch, batch.times, 10)
    progress = learner.progress["attention"]
    assert progress.steps > 0
    assert 0.0 < progress.distance <= 1.0 + 1e-6
    row = learner.row()
    again = Learner(Kinds.default())
    again.restore(row)
    assert again.follow(models) == []
    assert again.row() == row
    other = replace(models, tower=tower_of(world_with(fitted(scenes=True, seed=1))))
    assert again.follow(other) == ["attention"]
    assert again.follow(Models()) == []
    assert again.progress == {}


NAMES = interest_names(InterestConfig(dim=16))
SESSION, LONG = sorted({*NAMES, "encoder"}).index("1800s"), sorted(NAMES).index("5.184e+06s")


class ByEncoder(Blend):
    """A ranker that goes by what the encoder says alone."""

    def __init__(self) -> None:
        super().__init__()
        self.column_mask = np.ones(len(COLUMNS), np.bool_)

    def score(self, features: Any, n_rows: Any) -> Any:
        return np.ascontiguousarray(features[:, :, C_ENCODER])


def shop() -> World:
    """A world whose attention adds interests as they are, and weighs all types alike.

    Users were long with even items and are in a session with odd ones.
    """
    world = world_with(fitted(scenes=True))
    tower = tower_of(world)
    model = SceneAttention(
        SceneAttentionConfig(8, 16, NAMES, (scene_code("home"), scene_code("cart")))
    )
    vectors = np.asarray(world.items.vectors)
    into, *_ = np.linalg.lstsq(vectors, tower.vectors[:, :8], rcond=None)
    with torch.no_grad():
        for parameter in (model.type_keys, model.ask.weight, model.ask.bias, model.mass_weight):
            parameter.zero_()
        model.contents.weight.copy_(torch.from_numpy(into.T))
        model.out.weight.copy_(torch.eye(8))
    tower.attention = model.eval()
    world.recommender = Recommender(world.artifact, world.view, ranker=ByEncoder())
    for user in range(8):
        world.send(*likes(user, range(user * 2, user * 2 + 12, 2), time=START - 40 * DAY))
        world.send(*likes(user, [1 + 2 * user, 3 + 2 * user], time=START))
    return world


def events_of(world: World, turn: int, scenes: tuple[str, str] = ("cart", "home")) -> Any:
    """In the first scene users come back to what was long, in the second the session goes on."""
    events = []
    for first, scene in enumerate(scenes):
        user = turn % 8
        item = (2 * (turn * 7 + user) + 20 + first) % 40
        at = START + 60.0 + turn
        events.append({"user": user, "item": f"i{item}", "scene": scene, "time": at})
    return world.batch(events)


def session_over_long(learner: Learner, scene: str) -> float:
    """How much more a scene's correction weighs the session than what is long."""
    model = learner.served.attention
    assert model is not None
    row = model._rows[model._places[scene_code(scene)]]
    return float(row[SESSION] - row[LONG])


def test_a_scene_comes_to_weigh_the_interest_that_predicts_in_it_and_turns_when_that_does() -> None:
    world, learner = shop(), Learner(Kinds.default())
    learner.follow(world.artifact.models)
    for turn in range(300):
        scenes = ("cart", "home") if turn < 150 else ("home", "cart")
        batch = events_of(world, turn, scenes)
        learner.learn(world.recommender, world.users, batch, batch.times, 10)
        if turn in (149, 299):
            goes_on, comes_back = scenes[1], scenes[0]
            assert session_over_long(learner, goes_on) > 0.01
            assert session_over_long(learner, comes_back) < -0.2
    assert learner.progress["attention"].gain > 0.3


def test_frozen_attention_serves_and_stays_and_rolled_back_it_is_what_was_published() -> None:
    world, learner = shop(), Learner(Kinds.default())
    learner.follow(world.artifact.models)
    published = world.recommender.recommend(world.asked(range(8), scene="home"), 20)
    for turn in range(60):
        batch = events_of(world, turn)
        learner.learn(world.recommender, world.users, batch, batch.times, 10)
    model = learner.served.attention
    assert model is not None
    asked = world.asked(range(8), scene="home", now=START + 300.0)
    ahead = world.recommender.recommend(asked, 20, LearnedModels(attention=model))
    assert not np.array_equal(ahead.rows, world.recommender.recommend(asked, 20).rows)
    frozen = Learner(Kinds.default(), learning=False)
    frozen.restore(row := learner.row())
    frozen.follow(world.artifact.models)
    batches = [events_of(world, turn) for turn in range(60, 80)]
    steps = [
        [one.learn(world.recommender, world.users, batch, batch.times, 10) for batch in batches]
        for one in (frozen, learner)
    ]
    assert sum(steps[0]) == 0 < sum(steps[1])
    assert frozen.row() == row != learner.row()
    made = world.recommender.recommend(asked, 20, frozen.served)
    assert np.array_equal(made.rows, ahead.rows)
    back = Learner(Kinds.default())
    back.follow(world.artifact.models)
    again = world.recommender.recommend(world.asked(range(8), scene="home"), 20, back.served)
    assert np.array_equal(again.rows, published.rows)
    assert np.array_equal(again.scores, published.scores)
