"""The ablation's one replay: a variant that changes nothing ranks as the whole does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.ablation import FULL, NO_ENCODER, Said, Vectors, ask, figures, table, weigh
from indexer.data.histories import split
from indexer.evaluate.answers import TRACKER, ask_all
from indexer.evaluate.targets import targets_of
from indexer.replay.ranker_examples import collect_examples
from indexer.replay.replay import Replay
from tests.logs import group_artifact, group_events, read_events
from tests.tracker.scoring.test_network import NAMES, weights
from tracker.artifact.models import Models
from tracker.events.kinds import Kinds
from tracker.recommend.learner import Learner
from tracker.recommend.options import RecommendOptions
from tracker.scoring.network import Network

pytestmark = pytest.mark.training

EXACT = RecommendOptions(seen="exclude", diversity=0.0)


def test_all_variants_are_asked_in_one_replay(tmp_path: Path) -> None:
    log = read_events(tmp_path, group_events())
    network = Network(NAMES, weights())
    artifact = replace(group_artifact(), models=Models(ranker=network))
    replay = Replay(artifact, log, EXACT, learner=Learner(Kinds.default()))
    targets = targets_of(log, split(log, "gts"), replay.rows, 40, 40, False)
    random = np.random.default_rng(0)
    vectors = random.normal(size=(len(targets.events), 3)).astype(np.float32)
    items = random.normal(size=(40, 3)).astype(np.float32)
    said = {"nothing": Said(vectors, items, 1.0, 0.0), "alone": Said(vectors, items, 0.0, 1.0)}
    ranks = ask(replay, targets, {FULL: network, NO_ENCODER: network}, said)
    assert list(ranks) == [FULL, NO_ENCODER, "nothing", "alone", "online learning"]
    expected = ask_all(Replay(artifact, log, EXACT), targets, [])[TRACKER].ranks
    for name in (FULL, NO_ENCODER, "nothing"):
        np.testing.assert_array_equal(ranks[name], expected)
    assert (ranks["alone"] != expected).any()
    lines = table(figures(ranks, log.users[targets.events])).splitlines()
    assert len(lines) == 2 + len(ranks)
    assert lines[3].startswith(f"| {NO_ENCODER} |")
    assert "+0.0000 | +0.0000 to +0.0000 |" in lines[3]


def test_an_encoder_that_knows_the_target_is_weighed_highly(tmp_path: Path) -> None:
    log = read_events(tmp_path, group_events())
    network = Network(NAMES, weights())
    replay = Replay(group_artifact(), log, EXACT)
    events = np.flatnonzero(log.lengths() > 2)
    examples = collect_examples(replay, events, False, 0)

    def perfect(events: NDArray[np.int64]) -> tuple[Vectors, Vectors]:
        targets = examples.rows[np.searchsorted(examples.events, events), 0]
        return np.eye(40, dtype=np.float32)[targets], np.eye(40, dtype=np.float32)

    def guessing(events: NDArray[np.int64]) -> tuple[Vectors, Vectors]:
        vectors, items = perfect(events)
        return np.random.default_rng(0).permuted(vectors, axis=1), items

    _, knows = weigh(examples, network, perfect)
    _, guesses = weigh(examples, network, guessing)
    assert knows > 3.0
    assert guesses == pytest.approx(0.0, abs=0.7)
