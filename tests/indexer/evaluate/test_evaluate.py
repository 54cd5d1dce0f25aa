"""Evaluation by replay: what is asked, from which states, and what is reported of it."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from indexer.data.histories import EventLog, split
from indexer.data.holdout import day
from indexer.evaluate.answers import TRACKER, TRACKER_SERVED
from indexer.evaluate.evaluate import (
    Inputs,
    JudgeError,
    JudgeOptions,
    Question,
    evaluate,
    find_targets,
)
from indexer.evaluate.result import Evaluation, Row
from indexer.evaluate.targets import slices, targets_of
from indexer.replay.replay import Replay
from tests.logs import group_artifact, group_events, read_events
from tracker.events.kinds import Kinds
from tracker.events.wire import scene_code
from tracker.recommend.learner import Learner
from tracker.recommend.options import RecommendOptions

EXACT = RecommendOptions(seen="exclude", diversity=0.0)
SCENES = {scene_code(name): name for name in ("home", "search")}


def replay_of(log: EventLog, items: int = 40, **options: Any) -> Replay:
    return Replay(group_artifact(items), log, replace(EXACT, **options))


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return read_events(tmp_path, group_events())


@pytest.fixture
def report(log: EventLog) -> Evaluation:
    return evaluate(replay_of(log), Question(split(log, "gts"), False, SCENES))


def row(report: Evaluation, model: str, part: str = "all") -> Row:
    (found,) = (r for r in report.rows if (r.model, r.slice) == (model, part))
    return found


def test_the_report_has_a_row_of_every_model_on_every_slice(report: Evaluation) -> None:
    models = {r.model for r in report.rows}
    assert models == {
        "tracker", "tracker_served", "popularity", "decayed_popularity", "item_knn", "ease",
        "last_item", "content", "best_trend", "recent_popularity", "transitions",
        "live_neighbours", "trend_and_transitions",
    }  # fmt: skip
    parts = {r.slice for r in report.rows}
    assert {"all", "tail_items", "history:4-10", "first_of_user", "last_of_user"} <= parts
    assert len(report.rows) == len(models) * len(parts)
    assert report.targets == row(report, "tracker").n == 24
    assert report.items == 40
    assert report.protocol == "gts"


def test_models_that_see_groups_beat_popularity(report: Evaluation) -> None:
    hits = {r.model: r.hit_rate_at_10 or 0.0 for r in report.rows if r.slice == "all"}
    for model in (TRACKER, TRACKER_SERVED, "content", "ease"):
        assert hits[model] > hits["popularity"], model


def test_the_list_as_served_is_held_against_the_whole_ranking_on_every_slice(
    report: Evaluation,
) -> None:
    assert {one.slice for one in report.served} == {r.slice for r in report.rows}
    (hits,) = (s for s in report.served if (s.slice, s.metric) == ("all", "hit_rate_at_10"))
    assert hits.value == row(report, TRACKER_SERVED).hit_rate_at_10
    assert hits.whole == row(report, TRACKER).hit_rate_at_10
    # 40 items: all of them are candidates, and most are left by the cut.
    assert hits.candidates == 1.0
    assert hits.value <= hits.cut <= hits.candidates


def test_every_mean_has_an_interval_around_it(report: Evaluation) -> None:
    for found in report.rows:
        if found.slice != "all":
            continue
        for metric in ("hit_rate_at_10", "ndcg_at_20", "mrr", "recall_at_10"):
            low, high = found.ci[metric]
            assert low <= getattr(found, metric) <= high
    against = {d.against for d in report.differences if d.model == TRACKER}
    assert against == {r.model for r in report.rows} - {TRACKER}


def test_the_report_is_json_with_null_where_a_metric_is_not_defined(report: Evaluation) -> None:
    found = msgspec.json.decode(msgspec.json.encode(report))
    assert found["rows"][0]["auc"] is None
    assert found["rows"][0]["model"] == "tracker"
    assert {"protocol", "items", "users", "targets", "seconds", "events_per_second"} <= set(found)


def test_with_repeats_seen_items_are_ranked_and_own_items_join_the_baselines(
    log: EventLog,
) -> None:
    report = evaluate(replay_of(log, seen="keep"), Question(split(log, "gts"), True, SCENES))
    assert "own_frequent" in {r.model for r in report.rows}
    assert "items seen before are ranked" in report.notes
    # Nobody repeats in this world: the own items stand before every target.
    assert row(report, "own_frequent").hit_rate_at_10 == 0.0


def test_loo_asks_for_the_last_event_of_each_user(log: EventLog) -> None:
    report = evaluate(replay_of(log), Question(split(log, "loo"), False, SCENES))
    assert report.targets == report.users == 20


def test_slices_part_the_targets(log: EventLog) -> None:
    replay = replay_of(log)
    targets = targets_of(log, split(log, "gts"), replay.rows, 40, 40, False)
    found = dict(slices(log, targets.events, targets, replay.rows, SCENES))
    by_length = np.sum([which for name, which in found.items() if name[:8] == "history:"], axis=0)
    assert (by_length == 1).all()
    assert "cold_users" not in found  # everybody has a past in this world


def test_without_targets_there_is_a_report_without_rows_to_compare(tmp_path: Path) -> None:
    one = [{"user_id": "u", "item_id": "i1", "kind": "like", "timestamp": 1.0}]
    log = read_events(tmp_path, one)
    report = evaluate(replay_of(log), Question(split(log, "gts"), False, {}))
    assert report.targets == 0
    assert report.differences == []
    assert report.notes[0] == "only 0 targets of 0 users: nothing can be concluded"
    assert all(r.n == 0 and r.hit_rate_at_10 is None and r.ci == {} for r in report.rows)
    assert not any(isinstance(v, float) and math.isnan(v) for v in msgspec.to_builtins(report))


def test_times_are_dates_and_many_targets_come_without_a_warning(tmp_path: Path) -> None:
    log = read_events(tmp_path, group_events(users=40))
    parted = split(log, "loo")
    few = replace(parted, test=parted.test[:1])
    assert evaluate(replay_of(log), Question(few)).notes[0] == (
        "only 1 target of 1 user: nothing can be concluded"
    )
    notes = evaluate(replay_of(log), Question(split(log, "gts"))).notes
    assert not any("nothing can be concluded" in note for note in notes)
    assert notes[0].startswith(f"split points: {day(split(log, 'gts').cuts[0])} (80 %)")
    assert day(1_508_011_483.0) == "2017-10-14T20:04:43+00:00"


def test_each_item_outside_the_catalogue_weighs_as_much_as_one_inside(log: EventLog) -> None:
    replay, parts = replay_of(log, items=10), split(log, "gts")
    found = row(evaluate(replay, Question(parts)), "tracker")
    # Ten items are ranked: a target is among the first ten if it is one of them.
    inside = replay.rows[parts.test] >= 0
    share = len(np.unique(log.items[parts.test][inside])) / len(np.unique(log.items[parts.test]))
    assert 0.0 < share < 1.0
    assert found.hit_rate_at_10 == pytest.approx(inside.mean())
    assert found.debiased_hit_rate_at_10 == pytest.approx(share)


def test_users_with_attributes_have_slices_of_their_own(log: EventLog) -> None:
    replay = replay_of(log)
    targets = targets_of(log, split(log, "loo"), replay.rows, 40, 40, False)
    some = np.arange(len(log.user_ids)) % 2 == 0
    found = dict(slices(log, log_events := np.arange(len(log)), targets, replay.rows, {}, some))
    assert found["attribute_users"].tolist() == (log.users % 2 == 0).tolist()
    first = found["attribute_users:history:1-3"]
    assert (log.lengths()[log_events[first]] <= 3).all()
    assert first.sum() == 3 * some.sum()
    assert "attribute_users" not in dict(
        slices(log, log_events, targets, replay.rows, {}, ~some & some)
    )


def test_labelled_events_are_asked_for_their_probability_in_the_same_replay(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []

    def probability(replay: Replay, event: int, learned: bool = False) -> float:
        if not learned:
            asked.append((replay.position, event))
        return 0.25 + 0.5 * (event % 2 != learned)

    monkeypatch.setattr(Replay, "probability", probability)
    replay, parted = replay_of(log), split(log, "gts")
    events = np.arange(0, len(log), 3)
    positive = events % 2 == 1
    question = Question(parted, False, SCENES, labelled=(events, positive))
    report = evaluate(replay, question)
    wanted = [event for event in events.tolist() if event >= parted.test[0]]
    assert asked == [(event, event) for event in wanted]
    assert row(report, "tracker").labelled == len(wanted)
    assert row(report, "tracker").auc == 1.0
    assert row(report, "tracker").hit_rate_at_10 is not None
    for mean in ("item_mean", "user_mean"):
        assert row(report, mean).n == 0
        assert row(report, mean).auc is not None
        assert row(report, mean).hit_rate_at_10 is None
    assert sum(found.size for found in report.calibration) == len(wanted)
    assert any(note.startswith(f"probabilities: {len(wanted)} labelled") for note in report.notes)
    learning = replay_of(log)
    learning.learner = Learner(Kinds.default())
    beside = evaluate(learning, question)
    assert row(beside, "tracker_online").auc == 0.0
    assert row(beside, "tracker").auc == 1.0
    plain = evaluate(replay_of(log), Question(parted, False, SCENES))
    assert row(plain, "tracker").hit_rate_at_10 == row(report, "tracker").hit_rate_at_10
    assert plain.calibration == []


def test_many_targets_are_sampled_by_the_seed(log: EventLog) -> None:
    inputs = Inputs(group_artifact(), log, Kinds.default(), 0, "")
    every, note = find_targets(inputs, JudgeOptions())
    assert (len(every.test), note) == (24, "")
    parts, note = find_targets(inputs, JudgeOptions(targets=5, seed=3))
    assert note == "5 of 24 targets, drawn with seed 3"
    assert np.isin(parts.test, every.test).all()
    assert (np.diff(parts.test) > 0).all()
    assert (
        parts.test.tolist()
        == find_targets(inputs, JudgeOptions(targets=5, seed=3))[0].test.tolist()
    )
    other, _ = find_targets(inputs, JudgeOptions(targets=5, seed=4))
    assert parts.test.tolist() != other.test.tolist()


def test_events_without_a_target_cannot_be_evaluated(tmp_path: Path) -> None:
    one = [{"user_id": "u", "item_id": "i1", "kind": "like", "timestamp": 1.0}]
    inputs = Inputs(group_artifact(), read_events(tmp_path, one), Kinds.default(), 0, "")
    with pytest.raises(JudgeError, match="no event can be asked for"):
        find_targets(inputs, JudgeOptions())
