"""What is asked at held-out events, of which state, and what the answers are."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.data.histories import EventLog, split
from indexer.evaluate.answers import (
    TRACKER,
    TRACKER_ONLINE,
    TRACKER_SERVED,
    WHOLE,
    WITHOUT_ATTRIBUTES,
    WITHOUT_SCENES,
    Answers,
    ask_all,
    make_baselines,
    users_with_attributes,
    variants_of,
)
from indexer.evaluate.baselines import Baseline, Popularity
from indexer.evaluate.targets import TargetBatch, Targets, targets_of
from indexer.items.tower_items import make_tower
from indexer.replay.replay import Replay
from tests.logs import group_artifact, group_events, read_events
from tests.tracker.encoder.test_tower import fitted
from tracker.artifact.models import Models
from tracker.events.kinds import Kinds
from tracker.recommend.learner import Learner
from tracker.recommend.options import RecommendOptions
from tracker.recommend.reader import Reader
from tracker.scoring.blend import CUT
from tracker.scoring.context import C_ENCODER, COLUMNS
from tracker.scoring.network import Network, Weights
from tracker.users.rows import RequestBatch

EXACT = RecommendOptions(seen="exclude", diversity=0.0)
NOTHING = np.zeros(0, np.int64)


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return read_events(tmp_path, group_events())


def ask(
    log: EventLog, baselines: Sequence[Baseline] = (), items: int = 40, **options: Any
) -> tuple[Replay, Targets, dict[str, Answers]]:
    replay = Replay(group_artifact(items), log, replace(EXACT, **options))
    targets = targets_of(log, split(log, "gts"), replay.rows, items, items, False)
    return replay, targets, ask_all(replay, targets, baselines)


def test_each_target_is_asked_before_its_event_streams_in(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[tuple[int, int]] = []
    asked = Replay.asked

    def spy(self: Replay, events: Any, *more: Any) -> Any:
        met.append((self.position, int(events[0])))
        return asked(self, events, *more)

    monkeypatch.setattr(Replay, "asked", spy)
    _, targets, _ = ask(log)
    assert set(met) == {(event, event) for event in targets.events.tolist()}


def test_a_baseline_is_told_the_past_of_each_target(log: EventLog) -> None:
    told: list[TargetBatch] = []

    class Spy(Popularity):
        def scores(self, asked: TargetBatch) -> Any:
            told.append(asked)
            return super().scores(asked)

    replay, targets, _ = ask(log, [Spy(NOTHING, 40)])
    assert np.concatenate([asked.events for asked in told]).tolist() == targets.events.tolist()
    for asked in told:
        for b, event in enumerate(asked.events.tolist()):
            own = [e for e in range(event) if log.users[e] == log.users[event]]
            past = asked.past[asked.starts[b] : asked.starts[b + 1]]
            assert past.tolist() == replay.rows[own[::-1]].tolist()
            assert asked.rows[b] == replay.rows[event]


def test_the_tracker_ranks_as_a_full_sort_of_its_scores_would(log: EventLog) -> None:
    replay, targets, found = ask(log)
    for n in range(len(targets.events)):
        rank = found[TRACKER].ranks[n]
        place = np.flatnonzero(found[TRACKER].lists[n] == replay.rows[targets.events[n]])
        assert (rank <= 9.5) <= len(place)
        if len(place) and rank == int(rank):
            assert rank == 1 + place[0]


def test_answers_do_not_depend_on_how_many_targets_are_asked_together(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def all_answers() -> dict[str, Answers]:
        replay = Replay(group_artifact(), log, EXACT)
        targets = targets_of(log, split(log, "gts"), replay.rows, 40, 40, False)
        full = np.asarray(replay.recommender.artifact.vectors.full)
        models, _ = make_baselines(log, replay.rows, targets, full, 1 << 30, split(log, "gts"))
        return ask_all(replay, targets, models)

    together = all_answers()
    monkeypatch.setattr("indexer.evaluate.targets.AT_ONCE", 5)
    for name, found in all_answers().items():
        np.testing.assert_array_equal(found.ranks, together[name].ranks, err_msg=name)
        np.testing.assert_array_equal(found.lists, together[name].lists, err_msg=name)


def test_a_target_outside_the_catalogue_has_rank_infinity(log: EventLog) -> None:
    replay, targets, found = ask(log, [Popularity(NOTHING, 20)], items=20)
    outside = replay.rows[targets.events] < 0
    assert outside.any()
    for answers in found.values():
        assert np.isinf(answers.ranks[outside]).all()


def test_a_list_of_seen_items_is_no_hit(tmp_path: Path) -> None:
    seen = [
        {"user_id": "u", "item_id": f"i{n % 2}", "kind": "like", "timestamp": 1e9 + n}
        for n in range(40)
    ]
    _, _, found = ask(read_events(tmp_path, seen), items=2)
    assert np.isinf(found[TRACKER].ranks).all()
    assert np.isinf(found[TRACKER_SERVED].ranks).all()


def test_ease_that_does_not_fit_is_left_out_and_said(log: EventLog) -> None:
    replay = Replay(group_artifact(), log, EXACT)
    targets = targets_of(log, split(log, "gts"), replay.rows, 40, 40, False)
    full = np.asarray(replay.recommender.artifact.vectors.full)
    models, notes = make_baselines(log, replay.rows, targets, full, memory_bytes=10)
    assert "ease" not in {model.name for model in models}
    assert notes[0].startswith("ease is left out: EASE over")


def test_a_baseline_that_fails_ends_the_evaluation(log: EventLog) -> None:
    class Broken(Popularity):
        def scores(self, asked: TargetBatch) -> Any:
            return np.full((len(asked), 40), np.nan, np.float32)

    with pytest.raises(ValueError, match="is NaN; a number is expected"):
        ask(log, [Broken(NOTHING, 40)])


class ByEncoder:
    """Ranks by what the user encoder says alone."""

    column_mask = np.arange(len(COLUMNS)) == C_ENCODER
    cut_weights = np.ones(len(CUT), np.float32)

    def score(self, features: Any, n_rows: Any) -> Any:
        return np.ascontiguousarray(features[:, :, C_ENCODER])


def test_the_tracker_is_asked_without_scenes_and_attributes_where_it_reads_them(
    log: EventLog,
) -> None:
    artifact = group_artifact()
    tower = make_tower(fitted(scenes=True, attributes=True), artifact.vectors)
    artifact = replace(artifact, models=Models(tower=tower))
    replay = Replay(artifact, log, EXACT, ByEncoder())
    targets = targets_of(log, split(log, "loo"), replay.rows, 40, 40, False)
    variants = variants_of(replay, targets)
    assert variants == [WHOLE, WITHOUT_SCENES, WITHOUT_ATTRIBUTES]
    assert users_with_attributes(replay).sum() == 2
    found = ask_all(replay, targets, [], variants)
    assert list(found) == [TRACKER, TRACKER_SERVED, WITHOUT_SCENES.name, WITHOUT_ATTRIBUTES.name]
    whole = found[TRACKER].ranks
    changed = found[WITHOUT_ATTRIBUTES.name].ranks != whole
    assert changed.any()
    assert users_with_attributes(replay)[log.users[targets.events]][changed].all()
    assert (found[WITHOUT_SCENES.name].ranks != whole).any()


def test_the_user_encoder_is_asked_once_a_target_for_all_variants(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = group_artifact()
    tower = make_tower(fitted(scenes=True, attributes=True), artifact.vectors)
    replay = Replay(replace(artifact, models=Models(tower=tower)), log, EXACT, ByEncoder())
    targets = targets_of(log, split(log, "loo"), replay.rows, 40, 40, False)
    variants, users = variants_of(replay, targets), []
    scene_queries = tower.scene_queries

    def spy(requests: RequestBatch) -> Any:
        users.append(len(requests))
        return scene_queries(requests)

    monkeypatch.setattr(tower, "scene_queries", spy)
    ask_all(replay, targets, [], variants)
    assert users == [len(variants)] * len(targets.events)


def test_without_scenes_or_attributes_there_is_nothing_to_leave_out(log: EventLog) -> None:
    replay = Replay(group_artifact(), log, EXACT)  # the blend reads no scene
    targets = targets_of(log, split(log, "gts"), replay.rows, 40, 40, False)
    assert variants_of(replay, targets) == [WHOLE]


def test_what_was_learned_is_asked_beside_what_was_published(log: EventLog) -> None:
    random = np.random.default_rng(0)
    shapes = {"first": (3, 4), "first_bias": (4,), "second": (4, 2), "second_bias": (2,),
              "last": (2,), "skip": (3,), "cut": (len(CUT),)}  # fmt: skip
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    ranker = Network(["trend_short", "content_60", "gap"], Weights(**weights))
    artifact = replace(group_artifact(), models=Models(ranker=ranker))
    replay = Replay(artifact, log, EXACT, learner=Learner(Kinds.default()))
    targets = targets_of(log, split(log, "gts"), replay.rows, 40, 40, False)
    found = ask_all(replay, targets, [])
    assert list(found) == [TRACKER, TRACKER_SERVED, TRACKER_ONLINE]
    assert replay.learner is not None
    assert replay.learner.progress["ranker"].steps > 0
    frozen = ask_all(Replay(artifact, log, EXACT), targets, [])
    for name, answers in frozen.items():
        np.testing.assert_array_equal(answers.ranks, found[name].ranks)
    assert (found[TRACKER_ONLINE].ranks != found[TRACKER].ranks).any()


def test_what_is_remembered_between_questions_changes_no_answer(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = group_artifact()
    tower = make_tower(fitted(scenes=True, attributes=True), artifact.vectors)
    artifact = replace(artifact, models=Models(tower=tower))

    def answers() -> dict[str, Answers]:
        replay = Replay(artifact, log, EXACT, ByEncoder())
        targets = targets_of(log, split(log, "loo"), replay.rows, 40, 40, False)
        return ask_all(replay, targets, [], variants_of(replay, targets))

    remembered = answers()
    monkeypatch.setattr("indexer.replay.replay.RememberingReader", Reader)
    for name, plain in answers().items():
        np.testing.assert_array_equal(plain.ranks, remembered[name].ranks, err_msg=name)
        np.testing.assert_array_equal(plain.lists, remembered[name].lists, err_msg=name)
