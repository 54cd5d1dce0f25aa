"""Training prediction on worlds with known answers: ratings, likes, clicks, returns, one class."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from indexer.data.histories import EventLog
from indexer.data.labels import Labelled, label_events, label_rule
from indexer.evaluate.metrics import auc, ece, user_auc
from indexer.replay.labelled_examples import (
    LabelledExamples,
    collect_labelled,
    learned_from,
    priors_of,
)
from indexer.replay.replay import Replay
from indexer.train.prediction import PredictionOptions, fit_head, fit_prediction, train_prediction
from tests.logs import group_artifact, read_events
from tests.worlds import START
from tracker.events.kinds import Kinds
from tracker.events.label_rule import LabelRule
from tracker.scoring.evidence import EVIDENCE, Priors
from tracker.scoring.prediction import Prediction

pytestmark = pytest.mark.training

PRIORS = Priors(0.5, 0.8, 0.6, 0.5, 3.0, 3.0)
QUICK = PredictionOptions(max_epochs=15, learning_rate=0.01)
USERS, ITEMS = 40, 40


def world(kind: str, count: int = 6000, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Yield events in which each user likes one of two groups of items, and some items more."""
    random = np.random.default_rng(seed)
    quality = random.normal(size=ITEMS) * 0.7
    for n in range(count):
        user, item = int(random.integers(USERS)), int(random.integers(ITEMS))
        taste = 1.5 if user % 2 == item % 2 else -1.5
        liked = random.random() < 1.0 / (1.0 + np.exp(-(taste + quality[item])))
        at = START + 60.0 * n
        event: dict[str, Any] = {"user_id": f"u{user}", "item_id": f"i{item}", "timestamp": at}
        then = {**event, "timestamp": at + 20.0}
        if kind == "ratings":
            stars = int(random.integers(4, 6) if liked else random.integers(1, 4))
            yield {**event, "kind": "rate", "value": stars}
        elif kind == "likes":
            yield {**event, "kind": "like" if liked else "dislike"}
        elif kind == "clicks":
            yield {**event, "kind": "impression"}
            if liked:
                yield {**then, "kind": "click"}
        else:
            yield {**event, "kind": "view"}
            yield {**then, "kind": "purchase" if liked else "return"}


def learn(folder: Path, kind: str) -> tuple[Prediction, LabelledExamples]:
    """Learn from the first 80 % of a world; return what was known before each of the others."""
    log = read_events(folder, list(world(kind)))
    fitted = np.arange(len(log)) < 0.8 * len(log)
    rule = label_rule(log, Kinds.default(), fitted)
    replay = Replay(group_artifact(ITEMS), log)
    labelled = label_events(log, rule)
    prediction = fit_prediction(replay, label_events(log, rule, fitted), fitted, QUICK)
    assert prediction is not None
    later = labelled.among(~fitted)
    return prediction, collect_labelled(replay, later, prediction.info.priors)


def said(prediction: Prediction, examples: LabelledExamples) -> Any:
    rows = np.zeros((len(examples), 1), np.int64)
    logits = prediction.logits_of(examples.evidence[:, None], rows)[:, 0]
    return prediction.calibration.probability(logits).astype(np.float64)


@pytest.mark.parametrize("kind", ["ratings", "likes", "clicks", "returns"])
def test_taste_and_quality_are_learned_and_calibrated(tmp_path: Path, kind: str) -> None:
    prediction, later = learn(tmp_path, kind)
    if kind == "returns":  # half of all labelled events are views, always positive
        assert prediction.info.base_rate > 0.6
    found = said(prediction, later)
    assert ((found > 0.0) & (found < 1.0)).all()
    least = 0.6 if kind == "returns" else 0.68
    assert auc(later.positive, found) > least
    assert user_auc(later.positive, found, later.users) > least
    assert ece(later.positive, found) < 0.1
    assert abs(found.mean() - later.positive.mean()) < 0.1
    assert prediction.info.rule.source == ("impressions" if kind == "clicks" else "events")
    assert set(prediction.info.validation) == {"auc", "user_auc", "log_loss", "ece"}


def test_one_class_teaches_nothing(tmp_path: Path) -> None:
    log = read_events(
        tmp_path,
        [
            {"user_id": "u", "item_id": f"i{n % 40}", "kind": "like", "timestamp": START + n}
            for n in range(300)
        ],
    )
    every = np.ones(len(log), np.bool_)
    labelled = label_events(log, label_rule(log, Kinds.default(), every))
    assert fit_prediction(Replay(group_artifact(), log), labelled, every, QUICK) is None


def test_a_log_teaches_what_serves_and_says_from_what(tmp_path: Path) -> None:
    log = read_events(tmp_path, list(world("ratings", 1500)))
    artifact, skip = group_artifact(ITEMS), np.arange(len(log)) >= 1200
    done: list[int] = []
    found, said = train_prediction(artifact, log, Kinds.default(), skip, QUICK, done.append)
    assert found is not None
    assert said == "probability learned from 600 labelled events, a rating positive from 3 on"
    assert done[-1] == found.info.examples == 600
    given = msgspec.structs.replace(QUICK, positive_rating=5.0)
    other, said = train_prediction(artifact, log, Kinds.default(), skip, given)
    assert other is not None
    assert other.info.base_rate < found.info.base_rate
    assert said.endswith("a rating positive from 5 on")
    none, said = train_prediction(artifact, log, Kinds.default(), np.arange(len(log)) >= 60, QUICK)
    assert none is None
    assert "labelled events; at least 50 of each class are needed" in said
    assert said.endswith("at least 50 of each class are needed")


def some_log(folder: Path, count: int = 400) -> tuple[EventLog, Labelled]:
    log = read_events(folder, list(world("likes", count)))
    rule = label_rule(log, Kinds.default(), np.ones(len(log), np.bool_))
    return log, label_events(log, rule)


def test_the_later_half_is_learned_from_and_of_many_whole_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, labelled = some_log(tmp_path)
    replay = Replay(group_artifact(items=20), log)  # half of the items are unknown
    known = labelled.events[replay.rows[labelled.events] >= 0]
    chosen = learned_from(replay, labelled, seed=0)
    assert chosen.events.tolist() == known[len(known) // 2 :].tolist()
    monkeypatch.setattr("indexer.replay.labelled_examples.MAX_EXAMPLES", 50)
    fewer = learned_from(replay, labelled, seed=0)
    assert 20 < len(fewer) <= 50
    users = set(log.users[fewer.events].tolist())
    assert len(fewer) == sum(user in users for user in log.users[chosen.events].tolist())


def test_examples_are_what_was_known_before_each_event(tmp_path: Path) -> None:
    log, labelled = some_log(tmp_path, 120)
    last = labelled.among(np.arange(len(log)) == len(log) - 1)
    done: list[int] = []
    every = collect_labelled(Replay(group_artifact(), log), labelled, PRIORS, done.append)
    one = collect_labelled(Replay(group_artifact(), log), last, PRIORS)
    assert len(every) == len(labelled) == done[-1]
    assert every.positive.tolist() == labelled.positive.tolist()
    first = every.evidence[0]
    assert np.flatnonzero(first).tolist() == [EVIDENCE.index("item_new")]
    events = EVIDENCE.index("user_events")
    assert one.evidence[0, events] == pytest.approx(np.log2(1.0 + log.lengths()[-1]))


def test_the_same_seed_gives_the_same_weights_and_another_one_others(tmp_path: Path) -> None:
    log, labelled = some_log(tmp_path)
    examples = collect_labelled(Replay(group_artifact(), log), labelled, PRIORS)
    first, second = (fit_head(examples, LabelRule(), PRIORS, QUICK) for _ in range(2))
    np.testing.assert_array_equal(first.weights.linear, second.weights.linear)
    other = fit_head(examples, LabelRule(), PRIORS, msgspec.structs.replace(QUICK, seed=1))
    assert not np.array_equal(first.weights.linear, other.weights.linear)


def test_a_hidden_layer_is_kept_where_it_pays_and_only_there() -> None:
    random = np.random.default_rng(0)
    evidence = np.zeros((3000, len(EVIDENCE)), np.float32)
    evidence[:, :2] = random.normal(size=(3000, 2))
    users = np.arange(3000)  # no pairs
    crossed = LabelledExamples(evidence, evidence[:, 0] * evidence[:, 1] > 0, users)
    straight = LabelledExamples(evidence, evidence[:, 0] + random.normal(size=3000) > 0, users)
    assert fit_head(crossed, LabelRule(), PRIORS, QUICK).info.hidden == 16
    found = fit_head(straight, LabelRule(), PRIORS, QUICK)
    assert found.info.features == list(EVIDENCE[:2])
    assert said(found, straight)[evidence[:, 0] > 1.0].min() > 0.5
    assert found.info.validation["user_auc"] is None


def test_priors_say_how_much_items_and_users_differ(tmp_path: Path) -> None:
    events = [
        {"user_id": f"u{n % 50}", "item_id": f"i{n % 7}", "timestamp": START + n,
         "kind": "like" if n % 7 < 4 else "dislike"}
        for n in range(700)
    ]  # fmt: skip
    log = read_events(tmp_path, events)
    every = np.ones(len(log), np.bool_)
    found = priors_of(log, every, LabelRule())
    assert found.item == 1.0  # an item's first event says all
    assert found.user == 50.0  # who it is says nothing
    assert found.liked == found.taken == found.label == pytest.approx(4 / 7)
    assert found.weight == pytest.approx((4 * 2.0 - 3 * 2.0) / 7)
    nothing = priors_of(log, ~every, LabelRule())
    assert (nothing.item, nothing.user) == (5.0, 5.0)
    single = priors_of(log, np.arange(len(log)) == 0, LabelRule())
    assert (single.item, single.user) == (5.0, 5.0)
