"""Several workers answer as one does, figure by figure."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from indexer.data.histories import EventLog, split
from indexer.evaluate.evaluate import Question, evaluate
from indexer.evaluate.result import Evaluation
from indexer.replay.replay import Replay
from indexer.shards import Shards
from tests.logs import group_artifact, group_events, read_events
from tests.shards import Copies
from tests.tracker.scoring.test_network import NAMES, weights
from tests.tracker.scoring.test_prediction import info_of, weights_of
from tracker.artifact.artifact import Artifact
from tracker.artifact.models import Models
from tracker.events.kinds import Kinds
from tracker.recommend.learner import Learner
from tracker.recommend.options import RecommendOptions
from tracker.scoring.network import Network
from tracker.scoring.prediction import Prediction

EXACT = RecommendOptions(seen="exclude", diversity=0.0)


pytestmark = pytest.mark.xdist_group("ask_shards")  # what one worker reports is asked once


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> EventLog:
    return read_events(tmp_path_factory.mktemp("log"), group_events())


def compared_artifact() -> Artifact:
    """Return an artifact with a ranker and a prediction."""
    prediction = Prediction(info_of(), weights_of())
    models = Models(ranker=Network(NAMES, weights()), prediction=prediction)
    return replace(group_artifact(), models=models)


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    return compared_artifact()


@pytest.fixture(scope="module")
def alone(artifact: Artifact, log: EventLog) -> bytes:
    return report(artifact, log)


def report(artifact: Artifact, log: EventLog, shards: Shards | None = None) -> bytes:
    replay = Replay(artifact, log, EXACT, learner=Learner(Kinds.default()))
    events = np.arange(0, len(log), 2)
    question = Question(split(log, "gts"), labelled=(events, events % 4 == 0))
    found = evaluate(replay, question, shards=shards)
    return msgspec.json.encode(msgspec.structs.replace(found, seconds=0.0, events_per_second=0.0))


@pytest.mark.parametrize("count", [1, 3])
def test_several_workers_report_what_one_reports(
    artifact: Artifact, log: EventLog, alone: bytes, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.evaluate.targets.AT_ONCE", 4)  # several batches for each
    models = {row.model for row in msgspec.json.decode(alone, type=Evaluation).rows}
    assert models >= {"tracker", "tracker_online", "tracker_served"}
    assert report(artifact, log, Copies(count)) == alone


def test_workers_without_a_batch_change_nothing(
    artifact: Artifact, log: EventLog, alone: bytes
) -> None:
    assert report(artifact, log, Copies(40)) == alone
