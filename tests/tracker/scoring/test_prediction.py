"""The head of prediction: its numbers, its file, and refusals that name what was found."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors.numpy

from tests.worlds import START, World, likes
from tracker.artifact.manifest import LAYOUT, Manifest
from tracker.artifact.models import Models, read_models, write_models
from tracker.artifact.versions import ArtifactError
from tracker.events.label_rule import LabelRule
from tracker.recommend.options import RecommendOptions
from tracker.recommend.recommender import Recommender
from tracker.scoring.blend import CUT
from tracker.scoring.calibration import Calibration
from tracker.scoring.context import C_PROBABILITY, COLUMNS
from tracker.scoring.evidence import EVIDENCE, Priors
from tracker.scoring.network import Network, Weights
from tracker.scoring.prediction import (
    HeadWeights,
    Prediction,
    PredictionFileError,
    PredictionInfo,
    _forward,
)

NAMES = ["item_mean", "user_residual", "content_95"]


def info_of(hidden: int = 2, **changes: Any) -> PredictionInfo:
    info = PredictionInfo(
        features=NAMES,
        hidden=hidden,
        rule=LabelRule("events", 8.0, ["rate"]),
        base_rate=0.4,
        priors=Priors(0.9, 0.9, 0.8, 0.5, 3.0, 3.0),
        calibration=(1.1, -0.1),
        examples=1000,
        validation={"auc": 0.75, "user_auc": None},
    )
    return msgspec.structs.replace(info, **changes)


def weights_of(hidden: int = 2, seed: int = 0) -> HeadWeights:
    random = np.random.default_rng(seed)

    def some(*shape: int) -> Any:
        return random.normal(size=shape).astype(np.float32)

    width = len(NAMES)
    return HeadWeights(
        some(width), some(1), some(width, hidden), some(hidden), some(hidden),
        np.full(width, -2.0, np.float32), np.full(width, 2.0, np.float32),
    )  # fmt: skip


def evidence_of(shape: tuple[int, int] = (3, 4)) -> Any:
    return np.random.default_rng(1).normal(size=(*shape, len(EVIDENCE))).astype(np.float32) * 2.0


@pytest.mark.parametrize("hidden", [0, 2])
def test_a_logit_is_linear_plus_a_hidden_layer_over_bounded_features(hidden: int) -> None:
    weights, evidence = weights_of(hidden), evidence_of()
    found = Prediction(info_of(hidden), weights).logits_of(evidence, np.zeros((3, 4), np.int64))
    x = np.clip(evidence[:, :, [EVIDENCE.index(name) for name in NAMES]], -2.0, 2.0)
    layer = np.maximum(x @ weights.first + weights.first_bias, 0.0) @ weights.last
    np.testing.assert_allclose(found, weights.bias + x @ weights.linear + layer, rtol=1e-4)


def test_a_row_that_is_none_has_no_logit_and_a_batch_is_one_by_one() -> None:
    prediction, evidence = Prediction(info_of(), weights_of()), evidence_of()
    rows = np.array([[0, 1, 2, -1], [3, -1, -1, -1], [4, 5, 6, 7]])
    found = prediction.logits_of(evidence, rows)
    np.testing.assert_array_equal(np.isnan(found), rows < 0)
    for b in range(3):
        alone = prediction.logits_of(evidence[b : b + 1], rows[b : b + 1])[0]
        np.testing.assert_array_equal(alone, found[b])


def test_the_native_head_computes_what_the_plain_one_does() -> None:
    prediction, evidence = Prediction(info_of(), weights_of()), evidence_of()
    rows = np.array([[0, 1, 2, -1]] * 3)
    plain = np.full(rows.shape, np.nan, np.float32)
    columns = np.array([EVIDENCE.index(name) for name in NAMES], np.int64)
    _forward.py_func(  # type: ignore[attr-defined]
        evidence, rows, columns, prediction._arrays, plain
    )
    np.testing.assert_allclose(prediction.logits_of(evidence, rows), plain, rtol=1e-4)


def test_a_file_and_a_manifest_give_it_back(tmp_path: Path) -> None:
    prediction = Prediction(info_of(), weights_of())
    path = tmp_path / "prediction.safetensors"
    path.write_bytes(prediction.to_bytes())
    described = msgspec.json.decode(msgspec.json.encode(prediction.info), type=PredictionInfo)
    read = Prediction.load(path, described)
    assert read.info == prediction.info
    assert read.calibration == prediction.calibration
    rows = np.zeros((3, 4), np.int64)
    np.testing.assert_array_equal(
        read.logits_of(evidence_of(), rows), prediction.logits_of(evidence_of(), rows)
    )


def test_a_damaged_or_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "prediction.safetensors"
    with pytest.raises(PredictionFileError, match=r"prediction\.safetensors: cannot be read"):
        Prediction.load(path, info_of())
    path.write_bytes(Prediction(info_of(), weights_of()).to_bytes()[:40])
    with pytest.raises(PredictionFileError, match="cannot be read"):
        Prediction.load(path, info_of())
    path.write_bytes(safetensors.numpy.save({"other": np.zeros(1, np.float32)}))
    with pytest.raises(PredictionFileError, match=r"tensors \['other'\] found"):
        Prediction.load(path, info_of())


def test_a_file_that_does_not_fit_its_description_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prediction.safetensors"
    path.write_bytes(Prediction(info_of(), weights_of()).to_bytes())
    with pytest.raises(PredictionFileError, match=r"'first': float32 \(3, 2\) found.* \(3, 5\)"):
        Prediction.load(path, info_of(hidden=5))


def test_an_unknown_feature_bad_numbers_and_a_bad_calibration_are_refused() -> None:
    with pytest.raises(PredictionFileError, match=r"feature 'moon'.*train again"):
        Prediction(info_of(features=[*NAMES[:2], "moon"]), weights_of())
    broken = replace(weights_of(), bias=np.array([np.inf], np.float32))
    with pytest.raises(PredictionFileError, match="'bias': not all are finite"):
        Prediction(info_of(), broken)
    with pytest.raises(PredictionFileError, match=r"scale 0\.0.*train again"):
        Prediction(info_of(calibration=(0.0, 0.0)), weights_of())


def world_of(prediction: Prediction | None) -> World:
    world = World()
    artifact = replace(world.artifact, models=Models(prediction=prediction))
    world.recommender = Recommender(artifact, world.view)
    for user in range(4):
        world.send(*likes(user, [user, user + 2, user + 8]))
    world.send({"user": 0, "item": "i30", "weight": -2.0, "time": START + 60.0})
    return world


def ask(world: World, slots: list[int], rows: Any, **more: Any) -> Any:
    asked = world.asked(slots, now=START + 100.0)
    return world.recommender.probabilities(asked, np.array(rows, np.int64), **more)


def test_a_ranker_that_reads_the_probability_ranks_by_it() -> None:
    world = world_of(Prediction(info_of(), weights_of()))
    unseen = [row for row in range(40) if row not in (0, 2, 8, 30)]
    asked, rows = world.asked([0], now=START + 100.0), np.array([unseen])
    columns = world.recommender.columns(asked, rows)
    logits = world.recommender.logits(asked, rows)
    np.testing.assert_array_equal(columns[:, :, C_PROBABILITY], logits)
    blank = world.recommender.columns(asked, rows, np.zeros(len(COLUMNS), np.bool_))
    assert not blank.any()
    shapes = {"first": (1, 1), "first_bias": (1,), "second": (1, 1), "second_bias": (1,)}
    zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    last, cut = np.zeros(1, np.float32), np.zeros(len(CUT), np.float32)
    weights = Weights(**zeros, last=last, skip=np.ones(1, np.float32), cut=cut)
    plain = RecommendOptions(diversity=0.0, cut=64, seen="exclude")
    ranker = Network(["probability"], weights)
    artifact = world.recommender.artifact
    world.recommender = Recommender(artifact, world.view, plain, ranker)
    made = world.recommend([0], now=START + 100.0, k=5)
    assert (np.diff(made.probabilities[0]) <= 0.0).all()
    assert made.scores[0] == pytest.approx(np.sort(logits[0])[::-1][:5], abs=1e-5)


def test_each_recommended_item_has_the_probability_that_is_asked_for() -> None:
    world = world_of(Prediction(info_of(), weights_of()))
    found = world.recommend([0, 3, -1], now=START + 100.0)
    np.testing.assert_array_equal(found.probabilities, ask(world, [0, 3, -1], found.rows))
    assert ((found.probabilities > 0.0) & (found.probabilities < 1.0)).all()
    alone = world.recommend([3], now=START + 100.0)
    np.testing.assert_array_equal(alone.probabilities[0], found.probabilities[1])
    other = Calibration.published(1.0, 2.0)
    raised = ask(world, [0, 3, -1], found.rows, calibration=other)
    assert not np.array_equal(raised, found.probabilities)


def test_where_nothing_was_trained_there_is_no_probability() -> None:
    world = world_of(None)
    assert np.isnan(world.recommend([0]).probabilities).all()
    assert np.isnan(ask(world, [0], [[1, -1]])).all()
    trained = ask(world_of(Prediction(info_of(), weights_of())), [0], [[1, -1]])
    assert np.isnan(trained).tolist() == [[False, True]]


def test_an_artifact_carries_a_prediction_and_refuses_one_that_is_not_listed(
    tmp_path: Path,
) -> None:
    prediction = Prediction(info_of(), weights_of())
    write_models(tmp_path, Models(prediction=prediction))
    listed = {LAYOUT.prediction: "0" * 64}
    manifest = msgspec.structs.replace(
        World().artifact.manifest, prediction=prediction.info, files=listed
    )
    described = msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest)
    found = read_models(tmp_path, described).prediction
    assert found is not None
    np.testing.assert_array_equal(found.weights.linear, prediction.weights.linear)
    with pytest.raises(ArtifactError, match="describes a prediction, and lists no file of it"):
        read_models(tmp_path, msgspec.structs.replace(manifest, files={}))
    (tmp_path / LAYOUT.prediction).write_bytes(b"broken")
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_models(tmp_path, manifest)
