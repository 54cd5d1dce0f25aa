"""The calibration that keeps up with the stream: its losses, what is kept, and who serves it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.tracker.scoring.test_prediction import info_of, weights_of
from tests.worlds import START, World, likes
from tracker.artifact.models import Models
from tracker.events.kinds import Kinds
from tracker.events.label_rule import LabelRule
from tracker.recommend.learner import MOST_LABELLED, Learner
from tracker.recommend.recommender import Recommender
from tracker.scoring.calibration import MOST_SHIFT, Calibration, OnlineCalibration
from tracker.scoring.prediction import Prediction

LOGIT, YES, NO = np.array([0.4], np.float32), np.array([True]), np.array([False])


def published() -> Calibration:
    return Calibration.published(1.1, -0.1)


def test_losses_are_those_before_the_step_and_the_step_is_that_of_the_calibration() -> None:
    some, expected = OnlineCalibration(published()), published()
    for label in (YES, NO, NO, YES, NO):
        chance = float(expected.probability(LOGIT)[0])
        learned, frozen = some.learn(LOGIT, label)
        assert learned == pytest.approx(-np.log(chance if label[0] else 1 - chance))
        chance = float(published().probability(LOGIT)[0])
        assert frozen == pytest.approx(-np.log(chance if label[0] else 1 - chance))
        expected = expected.learn(LOGIT, label)
        assert some.value == expected
    for _ in range(10_000):
        some.learn(LOGIT, NO)
    assert some.distance == pytest.approx(MOST_SHIFT)


def test_what_was_learned_is_taken_over_or_refused_by_what_is_wrong_with_it() -> None:
    one, other = OnlineCalibration(published()), OnlineCalibration(published())
    for _ in range(10):
        one.learn(LOGIT, YES)
    other.set_bytes(one.to_bytes())
    assert other.value == one.value
    with pytest.raises(ValueError, match="began at"):
        OnlineCalibration(Calibration.published(1.0, 0.0)).set_bytes(one.to_bytes())
    for far in (replace(published(), shift=5.0), replace(published(), scale=9.0)):
        with pytest.raises(ValueError, match="times off; at most 2 and 2 times are expected"):
            other.set_bytes(far.to_bytes())
    assert other.value == one.value


def world(source: Any = "events") -> World:
    some = World(40, users=40)
    rule = LabelRule(source, None, [])
    prediction = Prediction(info_of(rule=rule, calibration=(1.1, 3.0)), weights_of())
    some.artifact = replace(some.artifact, models=Models(prediction=prediction))
    some.recommender = Recommender(some.artifact, some.view)
    for user in range(40):
        some.send(*likes(user, [user % 40]))
    return some


def learn(some: World, learner: Learner, events: list[dict[str, Any]]) -> int:
    batch = some.batch(events)
    return learner.learn(some.recommender, some.users, batch, batch.times, 10)


def test_labelled_events_of_known_users_teach_and_the_probabilities_follow() -> None:
    some, learner = world(), Learner(Kinds.default())
    models = some.artifact.models
    learner.follow(models)
    assert learn(some, learner, [{"user": 1, "item": "x"}, {"user": 1, "retracts": "a"}]) == 0
    assert learn(some, learner, likes(1, [3], weight=0.0)) == 0
    many = [{"user": n, "item": "i3", "weight": -1.0, "time": START + n} for n in range(40)]
    assert learn(some, learner, many) == MOST_LABELLED
    for _ in range(50):
        learn(some, learner, many)
    progress = learner.progress["calibration"]
    assert progress.gain > 0.0
    assert 0.0 < progress.distance <= MOST_SHIFT
    calibration = learner.served.calibration
    assert calibration is not None
    asked = some.asked([1], now=START + 9)
    rows = np.array([[3]])
    after = some.recommender.probabilities(asked, rows, calibration)
    assert after[0, 0] < some.recommender.probabilities(asked, rows)[0, 0]
    again = Learner(Kinds.default())
    again.restore(learner.row())
    assert again.follow(models) == []
    assert again.served.calibration == calibration


def test_impressions_have_no_label_yet_and_teach_nothing() -> None:
    some, learner = world("impressions"), Learner(Kinds.default())
    learner.follow(some.artifact.models)
    assert learner.progress == {}
    assert learn(some, learner, likes(1, [3])) == 0


def test_logits_are_not_there_without_a_prediction() -> None:
    some = World(40)
    assert np.isnan(some.recommender.logits(some.asked([1]), np.array([[3]]))).all()
