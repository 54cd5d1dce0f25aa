"""Ask the tracker at held-out events on several workers, as one would answer."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from indexer.data.histories import EventLog
from indexer.evaluate.answers import (
    Answers,
    Variant,
    ask_baselines,
    ask_tracker,
    batch_bytes,
)
from indexer.evaluate.baselines import Baseline
from indexer.evaluate.metrics import Floats, Integers
from indexer.evaluate.probabilities import ProbabilityRecorder
from indexer.evaluate.targets import Share, Targets, target_batches
from indexer.replay.replay import Replay, Rows
from indexer.shards import Shards
from tracker.artifact.artifact import Artifact
from tracker.recommend.learner import Learner
from tracker.recommend.options import RecommendOptions


class Questions(NamedTuple):
    """The questions to the tracker, with all that a worker on another machine needs for them.

    Attributes:
        artifact: with the users' attributes.
        log: the events.
        options: how lists are made.
        learner: at its start, beside the artifact's models; None for none.
        targets: the targets.
        variants: of the tracker.
        labelled: (L,) positions of the events with a probability.
    """

    artifact: Artifact
    log: EventLog
    options: RecommendOptions
    learner: Learner | None
    targets: Targets
    variants: Sequence[Variant]
    labelled: Integers


class ShareAnswers(NamedTuple):
    """A worker's answers at its share of the targets, and (L,) its share of the probabilities."""

    answers: dict[str, Answers]
    published: Floats
    online: Floats


def ask_shards(
    shards: Shards, questions: Questions, rows: Rows, baselines: Sequence[Baseline]
) -> ShareAnswers:
    """Ask the tracker on shards, and the baselines in this process.

    Each worker replays the whole log, and stops where a single one does; it ranks a share of the
    batches of targets. So the answers are those of `ask_all`.

    Args:
        shards: the workers.
        questions: what they need.
        rows: (E,) catalogue rows of the events.
        baselines: the baselines.
    """
    shares = [Share(number, shards.count) for number in range(shards.count)]
    answers_of_shares = shards.map(_ask_share, questions, shares)
    others = ask_baselines(questions.log, rows, questions.targets, baselines)
    batches = target_batches(
        questions.log, rows, questions.targets, batch_bytes(questions.targets, questions.variants)
    )
    of_batch = np.concatenate([np.full(len(batch), n) for n, batch in enumerate(batches)])
    whole: ShareAnswers | None = None
    for share, part in zip(shares, answers_of_shares, strict=True):
        if whole is None:
            whole = part
        for name, answers in part.answers.items():
            whole.answers[name].take(answers, of_batch % share.of == share.number)
        own = np.arange(len(part.published)) % share.of == share.number
        whole.published[own], whole.online[own] = part.published[own], part.online[own]
    assert whole is not None  # there is one worker at least
    return whole._replace(answers=whole.answers | others)


def _ask_share(questions: Questions, share: Share) -> ShareAnswers:
    """Ask the tracker at a share of the targets; the other answers are empty."""
    tower = questions.artifact.models.tower
    if tower is not None:
        tower.serve_on_one_thread()
    replay = Replay(
        questions.artifact,
        questions.log,
        questions.options,
        learner=questions.learner,
        forgets=True,
    )
    recorder = ProbabilityRecorder(replay, questions.labelled, share)
    with ThreadPoolExecutor(2) as executor:
        answers = ask_tracker(
            replay, questions.targets, questions.variants, executor, recorder.advance, share
        )
    recorder.advance(len(questions.log))
    return ShareAnswers(answers, recorder.published, recorder.online)
