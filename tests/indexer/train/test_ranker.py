"""Fitting the ranker: it learns what there is to learn, repeatably, and refuses too little."""

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from indexer.replay.ranker_examples import HARD, Examples, collect_examples
from indexer.replay.replay import Replay
from indexer.train.ranker import THINNED, WORTH, Epoch, RankerOptions, RankerTensors, fit_ranker
from tests.logs import group_artifact, group_events, read_events
from tests.worlds import START
from tracker.recommend.options import RecommendOptions
from tracker.scoring.context import COLUMNS

pytestmark = pytest.mark.training

QUICK = RankerOptions(hidden=(8, 8), steps=60, max_epochs=10, learning_rate=0.02, warmup_steps=5)


@pytest.fixture
def no_column_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the network serve even where one column tells all."""
    monkeypatch.setattr("indexer.train.ranker._column_alone", lambda *given: None)


def examples_of(truth: str, noise: str, count: int = 400) -> Examples:
    """Return targets that have the highest value of one column; another one is noise."""
    random = np.random.default_rng(0)
    features = np.zeros((count, 20, len(COLUMNS)), np.float16)
    for name in (truth, noise):
        features[:, :, COLUMNS.index(name)] = random.normal(size=(count, 20))
    column = features[:, :, COLUMNS.index(truth)]
    best = column.argmax(axis=1)
    every = np.arange(count)
    features[every, 0], features[every, best] = (
        features[every, best].copy(),
        features[every, 0].copy(),
    )
    nothing = np.zeros((count, 20), np.float32)
    return Examples(features, nothing, every, every >= count // 2, nothing.astype(np.int32))


@pytest.mark.usefixtures("no_column_alone")
def test_a_ranker_finds_the_column_that_matters() -> None:
    told: list[Epoch] = []
    fitted = fit_ranker(examples_of("content_60", "trend_1"), QUICK, told.append)
    assert set(fitted.network.info.columns) == {"content_60", "trend_1"}
    assert told == fitted.curve
    assert told[-1].validation_loss < told[0].validation_loss
    assert told[-1].validation_ndcg_at_10 > 0.8
    assert fitted.best == min(told, key=lambda line: line.validation_loss).epoch
    probe = np.zeros((1, 2, len(COLUMNS)), np.float32)
    probe[0, 0, COLUMNS.index("content_60")] = 2.0
    probe[0, 1, COLUMNS.index("trend_1")] = 2.0
    scores = fitted.network.score(probe, np.array([2]))[0]
    assert scores[0] > scores[1]


@pytest.mark.usefixtures("no_column_alone")
def test_the_members_serve_as_one_network_with_their_mean_score(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("indexer.train.ranker._parts", lambda *given: (1.0, 0.0))
    examples = examples_of("content_60", "trend_1")
    one, two, three = (
        fit_ranker(examples, msgspec.structs.replace(QUICK, members=members)).network
        for members in (1, 2, 3)
    )
    assert three.info.hidden == (24, 24)
    first, second = one.weights, two.weights
    np.testing.assert_allclose(second.first[:, :8], first.first)
    np.testing.assert_allclose(second.second[:8, :8], first.second)
    np.testing.assert_allclose(second.last[:8], first.last / 2.0)
    assert not second.second[:8, 8:].any()
    assert not second.second[8:, :8].any()
    features = examples.features[:5].astype(np.float32)
    rows = np.full(5, features.shape[1])
    # What the third member alone adds to the mean of three.
    apart = 3.0 * three.score(features, rows) - 2.0 * two.score(features, rows)
    assert np.corrcoef(apart.ravel(), one.score(features, rows).ravel())[0, 1] > 0.9
    assert not np.allclose(apart, one.score(features, rows))


def chosen_by(weights: dict[str, float], count: int, seed: int = 0) -> Examples:
    """Return targets drawn by the softmax of a weighted sum of columns; the later half is fresh."""
    random = np.random.default_rng(seed)
    examples = examples_of("trend_1", "age", count)
    examples.features[:] = 0.0
    chances = random.gumbel(size=(count, 20))
    for name, weight in weights.items():
        examples.features[:, :, COLUMNS.index(name)] = random.normal(size=(count, 20))
        chances += weight * examples.features[:, :, COLUMNS.index(name)]
    every, best = np.arange(count), chances.argmax(axis=1)
    examples.features[every, 0], examples.features[every, best] = (
        examples.features[every, best].copy(),
        examples.features[every, 0].copy(),
    )
    return examples


def test_a_late_column_adds_to_the_score_what_it_is_worth_on_fresh_targets() -> None:
    examples = chosen_by({"content_60": 1.5, "encoder": 0.7}, 1200)
    # What the model behind the column has learned from it knows too well.
    examples.features[~examples.fresh, 0, COLUMNS.index("encoder")] = 9.0
    weights = fit_ranker(examples, QUICK).network.weights
    assert not weights.first[-1].any()
    assert weights.skip[-1] == pytest.approx(0.7, abs=0.15)


@pytest.mark.parametrize("name", WORTH)
@pytest.mark.parametrize(("worth", "kept"), [(0.7, True), (0.0, False), (-0.7, False)])
def test_probability_and_item_weights_are_read_only_where_they_help_to_rank(
    name: str, worth: float, kept: bool
) -> None:
    examples = chosen_by({"content_60": 1.5, name: worth}, 1200)
    fitted = fit_ranker(examples, QUICK)
    assert (name in fitted.network.info.columns) == kept
    if kept:
        assert not fitted.network.weights.first[-1].any()
        assert fitted.network.weights.skip[-1] == pytest.approx(0.7, abs=0.15)


@pytest.mark.usefixtures("no_column_alone")
def test_without_fresh_targets_a_late_column_counts_nothing() -> None:
    examples = examples_of("content_60", "encoder")
    examples.fresh[:] = False
    fitted = fit_ranker(examples, QUICK)
    assert fitted.network.info.columns == ["content_60", "encoder"]
    assert fitted.network.weights.skip[-1] == 0.0


@pytest.mark.usefixtures("no_column_alone")
@pytest.mark.parametrize(("truth", "noise", "kept"), [
    ("content_near", "trend_short", {"content_near", "trend_short"}),
    ("trend_short", "content_near", {"trend_short"}),
])  # fmt: skip
def test_an_optional_column_is_read_only_if_held_out_targets_gain_by_it(
    truth: str, noise: str, kept: set[str]
) -> None:
    fitted = fit_ranker(examples_of(truth, noise), QUICK)
    assert set(fitted.network.info.columns) == kept


def test_the_first_cut_is_weighed_by_the_same_targets() -> None:
    fitted = fit_ranker(examples_of("neighbours_95", "content_60"), QUICK)
    content, trend, neighbours, negative, repeats, encoder = fitted.network.cut_weights
    assert encoder == 0.0
    assert neighbours > 1.0 > abs(content)
    assert trend == negative == repeats == 0.0


@pytest.mark.usefixtures("no_column_alone")
def test_the_same_seed_gives_the_same_weights_and_another_one_others() -> None:
    examples = examples_of("trend_short", "age")
    first, second = (fit_ranker(examples, QUICK).network.weights for _ in range(2))
    np.testing.assert_array_equal(first.first, second.first)
    other = fit_ranker(examples, msgspec.structs.replace(QUICK, seed=1))
    assert not np.array_equal(first.first, other.network.weights.first)


def test_too_few_targets_or_none_that_differ_are_refused() -> None:
    few = examples_of("trend_short", "age", count=20)
    with pytest.raises(ValueError, match="20 examples; at least 100 are needed"):
        fit_ranker(few, QUICK)
    blank = Examples(
        np.zeros((200, 5, len(COLUMNS)), np.float16),
        np.zeros((200, 5), np.float32),
        np.arange(200),
        np.ones(200, np.bool_),
        np.zeros((200, 5), np.int32),
    )
    with pytest.raises(ValueError, match="no feature differs"):
        fit_ranker(blank, QUICK)


def test_a_ranker_learns_groups_from_a_replayed_log(tmp_path: Path) -> None:
    log = read_events(tmp_path, group_events())
    targets = np.flatnonzero(log.lengths() >= 2)
    examples = collect_examples(Replay(group_artifact(), log), targets, repeats=False, seed=0)
    fitted = fit_ranker(examples, QUICK)
    plain = RecommendOptions(diversity=0.0, seen="exclude")
    replay = Replay(group_artifact(), log, plain, fitted.network)
    replay.advance(len(log) - 1)
    event = np.array([len(log) - 1])
    scores = fitted.network.score(replay.columns(event, np.arange(40)[None]), np.array([40]))[0]
    own = int(replay.rows[event[0]]) % 2
    assert scores[own::2].mean() > scores[1 - own :: 2].mean()
    served = replay.recommender.recommend(replay.asked(event), 5)
    assert (served.rows[0] % 2 == own).all()


def test_where_the_scene_tells_all_a_list_without_a_scene_still_has_what_is_chosen_most(
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(0)
    # In each scene other items are chosen, one half as often as the one before; no user matters.
    chances = 0.5 ** np.arange(1, 9)
    events = [
        {
            "user_id": f"u{random.integers(40)}",
            "item_id": f"i{20 * (n % 2) + random.choice(8, p=chances / chances.sum())}",
            "kind": "like", "timestamp": START + n * 60.0, "scene": ("home", "search")[n % 2],
        }
        for n in range(4000)
    ]  # fmt: skip
    log = read_events(tmp_path, events)
    targets = np.flatnonzero(log.lengths() >= 2)[-3000:]
    examples = collect_examples(Replay(group_artifact(), log), targets, repeats=True, seed=0)
    network = fit_ranker(examples, QUICK).network
    replay = Replay(group_artifact(), log, RecommendOptions(diversity=0.0, seen="keep"), network)
    replay.advance(len(log) - 1)
    event = np.array([len(log) - 1])
    with_scene, without = (
        set(replay.recommender.rows(replay.asked(event, named), 4)[0].tolist())
        for named in (True, False)
    )
    assert with_scene == {20, 21, 22, 23}
    assert without == {0, 1, 20, 21}


@pytest.mark.usefixtures("no_column_alone")
def test_where_one_line_of_arithmetic_tells_all_hidden_layers_get_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ["trend_short", "trend_long", "age", "content_60", "neighbours_95", "interest_1"]
    worth = {"trend_short": 1.0, **dict.fromkeys(names[1:], 0.0)}
    examples, later = chosen_by(worth, 600), chosen_by(worth, 2000, seed=1)
    eager = RankerOptions(steps=600, learning_rate=0.02, warmup_steps=5, members=1)
    mixed = fit_ranker(examples, eager).network
    monkeypatch.setattr("indexer.train.ranker._parts", lambda *given: (1.0, 0.0))
    alone = fit_ranker(examples, eager).network
    losses = []
    for network in (mixed, alone):
        scores = network.score(later.features.astype(np.float32), np.full(len(later), 20))
        losses.append(float(np.mean(np.log(np.exp(scores).sum(axis=1)) - scores[:, 0])))
    assert losses[0] < losses[1] - 0.01


NOISE = dict.fromkeys(("trend_long", "age", "content_60", "neighbours_95", "interest_1"), 0.0)


def test_where_choices_follow_one_count_that_count_alone_ranks() -> None:
    fitted = fit_ranker(chosen_by({"trend_short": 2.0, **NOISE}, 3000), QUICK).network
    assert fitted.info.columns == ["trend_short"]
    features = chosen_by({"trend_short": 2.0, **NOISE}, 50, seed=1).features.astype(np.float32)
    scores = fitted.score(features, np.full(50, 20))
    np.testing.assert_allclose(
        scores, 2.0 * features[:, :, COLUMNS.index("trend_short")], rtol=0.1, atol=1e-5
    )


@pytest.mark.parametrize(("second", "worth"), [("content_60", 1.0), ("encoder", 1.0)])
def test_a_count_does_not_rank_alone_where_another_column_adds_to_it(
    second: str, worth: float
) -> None:
    examples = chosen_by({**NOISE, "trend_short": 2.0, second: worth}, 3000)
    columns = fit_ranker(examples, QUICK).network.info.columns
    assert {"trend_short", second} < set(columns)


def test_too_few_targets_to_tell_a_small_difference_leave_the_ranker_as_it_is() -> None:
    columns = fit_ranker(chosen_by({"trend_short": 1.0, **NOISE}, 300), QUICK).network.info.columns
    assert {"trend_short", *NOISE} == set(columns)


def test_a_thinned_sample_stands_for_as_many_items_and_each_candidate_has_its_turn() -> None:
    places = 1 + HARD + 50
    offsets = torch.zeros(4, places)
    offsets[:, 1 + HARD :] = math.log(7.0)
    numbers = torch.arange(places, dtype=torch.float16).view(1, places, 1).repeat(4, 1, 2)
    data = RankerTensors(numbers, offsets, torch.tensor([1]), torch.zeros(1), torch.ones(1))
    steps = [data.thinned(np.array([2, 0]), step) for step in range(THINNED)]
    stands_for = sum(float(some[1][0].exp().sum()) for some in steps) / THINNED
    assert stands_for == pytest.approx(float(offsets[0].exp().sum()), rel=1e-5)
    tails = [set(some[0][0, 1 + HARD :, 0].tolist()) for some in steps]
    assert set.union(*tails) == set(range(1 + HARD, places))
    assert sum(map(len, tails)) == 50
    few = RankerTensors(
        numbers[:, :100], offsets[:, :100], torch.tensor([1]), torch.zeros(1), torch.ones(1)
    )
    assert few.thinned(np.array([1]), 1)[0].shape == (1, 100, 1)


def test_a_step_standardises_every_number_of_half_precision_as_torch_does() -> None:
    places = 1 + HARD + 50
    bits = np.random.default_rng(0).integers(0, 1 << 16, (5, places, 3)).astype(np.uint16)
    bits[(bits & 0x7C00) == 0x7C00] = 0x8001  # infinity and NaN, made the least number below 0
    columns, shift, scale = (
        torch.tensor([2, 0]),
        torch.tensor([0.3, -7.0]),
        torch.tensor([3.0, 0.7]),
    )
    numbers, nothing = torch.from_numpy(bits.view(np.float16)), torch.zeros(5, places)
    data = RankerTensors(numbers, nothing, columns, shift, scale)
    for step in range(THINNED):
        features, offsets = data.thinned(np.array([4, 1]), step)
        x, same = data.standardised(np.array([4, 1]), step)
        assert torch.equal(x, (features - shift) / scale)
        assert torch.equal(same, offsets)
