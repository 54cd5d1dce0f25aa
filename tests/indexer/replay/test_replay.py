"""Replay of a log through the Recommender, and what a ranker learns from."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from indexer.data.histories import EventLog
from indexer.replay.pools import PoolCollector
from indexer.replay.ranker_examples import UNIFORM, Past, _others, collect_examples, names_scene
from indexer.replay.replay import Replay
from tests.logs import group_artifact, group_events, read_events
from tests.tracker.scoring.test_network import NAMES, weights
from tests.tracker.scoring.test_prediction import info_of, weights_of
from tracker.artifact.models import Models
from tracker.events.kinds import Kinds
from tracker.items.counts import COUNT
from tracker.recommend.learner import Learner
from tracker.recommend.source_places import SOURCES
from tracker.scoring.context import COLUMNS
from tracker.scoring.network import Network
from tracker.scoring.prediction import Prediction


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return read_events(tmp_path, group_events(users=10, each=8))


def test_replay_event_by_event_and_at_once_give_the_same_states(log: EventLog) -> None:
    slowly, at_once = Replay(group_artifact(), log), Replay(group_artifact(), log)
    for stop in range(1, len(log) + 1):
        slowly.advance(stop)
    at_once.advance(len(log))
    slots = np.arange(len(log.user_ids))
    assert slowly.users.states.pack(slots) == at_once.users.states.pack(slots)
    np.testing.assert_allclose(slowly.view.columns.counts, at_once.view.columns.counts)
    assert at_once.view.columns.counts[:, COUNT.never].sum() == len(log)


def test_many_events_are_applied_some_at_a_time(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, parted = Replay(group_artifact(), log), Replay(group_artifact(), log)
    whole.advance(len(log))
    monkeypatch.setattr("indexer.replay.replay.AT_ONCE", 7)
    sizes = []
    update = parted.recommender.update

    def counting(users: Any, batch: Any) -> Any:
        sizes.append(len(batch))
        return update(users, batch)

    monkeypatch.setattr(parted.recommender, "update", counting)
    parted.advance(len(log))
    assert sum(sizes) == len(log)
    assert max(sizes) == 7
    slots = np.arange(len(log.user_ids))
    assert parted.users.states.pack(slots) == whole.users.states.pack(slots)


def test_what_is_skipped_never_reaches_the_states(log: EventLog) -> None:
    skip = np.zeros(len(log), np.bool_)
    skip[::2] = True
    replay = Replay(group_artifact(), log, skip=skip)
    replay.advance(len(log))
    assert replay.view.columns.counts[:, COUNT.never].sum() == len(log) - skip.sum()


def test_columns_are_the_features_of_the_recommender_and_the_context(log: EventLog) -> None:
    replay = Replay(group_artifact(), log)
    replay.advance(60)
    events, rows = np.array([60, 61]), np.array([[3, 4, 5], [6, 7, -1]])
    found = replay.columns(events, rows)
    assert found.shape == (2, 3, len(COLUMNS))
    made = replay.recommender.columns(replay.asked(events), rows)
    np.testing.assert_array_equal(found, made)
    assert found[0, 0, COLUMNS.index("events")] == found[0, 2, COLUMNS.index("events")] > 0
    assert not found[1, 2].any()


def test_the_states_do_not_change_before_who_reads_them_is_done(log: EventLog) -> None:
    replay = Replay(group_artifact(), log)
    replay.advance(60)
    user, begun = int(log.users[60]), threading.Event()
    found: list[int] = []

    def read() -> None:
        begun.wait(10)
        time.sleep(0.05)  # had the event been applied meanwhile, it would be seen
        found.append(int(replay.users.states.head["events"][user]))

    before = int(replay.users.states.head["events"][user])
    with ThreadPoolExecutor(1) as executor:
        replay.read_beside(executor, read)
        begun.set()
        replay.advance(61)
    assert found == [before]
    assert int(replay.users.states.head["events"][user]) == before + 1


def test_what_fails_where_the_states_are_read_is_raised_where_they_would_change(
    log: EventLog,
) -> None:
    replay = Replay(group_artifact(), log)

    def fail() -> None:
        raise ValueError("the rows are gone")

    with ThreadPoolExecutor(1) as executor:
        replay.read_beside(executor, fail)
        with pytest.raises(ValueError, match="the rows are gone"):
            replay.advance(5)


def test_the_past_of_an_event_is_what_its_user_chose_before_it(log: EventLog) -> None:
    rows = np.arange(len(log))  # each event its own row
    rows[3] = -1
    past = Past(log, rows)
    for event in (0, 40, len(log) - 1):
        own = [e for e in range(event) if log.users[e] == log.users[event] and e != 3]
        assert past.rows(event).tolist() == own


def test_examples_have_the_target_first_and_none_that_was_seen(log: EventLog) -> None:
    replay = Replay(group_artifact(), log)
    targets = np.flatnonzero(log.lengths() >= 3)
    done: list[int] = []
    examples = collect_examples(replay, targets, repeats=False, seed=0, progress=done.append)
    assert len(examples) == len(targets) == done[-1]
    assert examples.events.tolist() == targets.tolist()
    assert (examples.offsets[:, 0] == 0.0).all()
    # A candidate stands for itself or more, and all together for all the unseen items.
    stand_for = np.exp(examples.offsets).sum(axis=1)
    expected = 40 - log.lengths()[targets]
    np.testing.assert_allclose(stand_for, expected, rtol=1e-5)
    empty = ~np.isfinite(examples.offsets)
    assert not examples.features[empty].any()


def test_the_same_seed_gives_the_same_examples(log: EventLog) -> None:
    targets = np.flatnonzero(log.lengths() >= 6)
    first, second = (
        collect_examples(Replay(group_artifact(), log), targets, repeats=True, seed=7)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.features, second.features)
    np.testing.assert_array_equal(first.offsets, second.offsets)


def test_a_fifth_of_the_targets_is_asked_without_the_scene_in_every_training_the_same(
    tmp_path: Path,
) -> None:
    events = group_events(users=40, each=20)
    log = read_events(tmp_path, events)
    targets = np.flatnonzero(log.lengths() >= 2)
    collector = PoolCollector(lambda features, offsets: {})
    examples = collect_examples(
        Replay(group_artifact(), log), targets, repeats=True, seed=0, pools=collector
    )
    named = names_scene(Replay(group_artifact(), log), examples.events)
    assert 0.15 < 1.0 - named.mean() < 0.25
    in_scene = examples.features[:, :, COLUMNS.index("scene_long")].any(axis=1)
    np.testing.assert_array_equal(in_scene, named)
    pools = collector.pools()
    offered = (pools.places[:, :, SOURCES.index("scene")] >= 0).any(axis=1)
    np.testing.assert_array_equal(offered, named[-len(pools) :])
    pool_in_scene = pools.features[:, :, COLUMNS.index("scene_long")].any(axis=1)
    np.testing.assert_array_equal(pool_in_scene, offered)
    later = read_events(tmp_path, events[100:])
    kept = examples.events[examples.events >= 100]
    np.testing.assert_array_equal(
        names_scene(Replay(group_artifact(), later), kept - 100), named[-len(kept) :]
    )


def test_a_log_without_scenes_gives_the_examples_that_it_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [{**event, "scene": None} for event in group_events(users=10, each=8)]
    log = read_events(tmp_path, events)
    targets = np.flatnonzero(log.lengths() >= 2)
    hidden = collect_examples(Replay(group_artifact(), log), targets, repeats=False, seed=0)
    monkeypatch.setattr("indexer.replay.ranker_examples.HIDDEN_SCENES", 0.0)
    told = collect_examples(Replay(group_artifact(), log), targets, repeats=False, seed=0)
    np.testing.assert_array_equal(hidden.features, told.features)
    np.testing.assert_array_equal(hidden.offsets, told.offsets)


def test_targets_outside_the_catalogue_are_no_examples(log: EventLog) -> None:
    replay = Replay(group_artifact(items=20), log)  # i20 and above are unknown
    targets = np.flatnonzero(log.lengths() >= 3)
    examples = collect_examples(replay, targets, repeats=False, seed=0)
    assert 0 < len(examples) < len(targets)
    assert (replay.rows[examples.events] >= 0).all()


def test_a_replay_learns_as_a_worker_does_and_moves_the_states_no_differently(
    log: EventLog,
) -> None:
    artifact = replace(group_artifact(), models=Models(ranker=Network(NAMES, weights())))
    frozen, online = Replay(artifact, log), Replay(artifact, log, learner=Learner(Kinds.default()))
    for stop in range(1, len(log) + 1):
        frozen.advance(stop)
        online.advance(stop)
    slots = np.arange(len(log.user_ids))
    assert frozen.users.states.pack(slots) == online.users.states.pack(slots)
    assert frozen.learner is None
    assert online.learner is not None
    progress = online.learner.progress["ranker"]
    assert progress.steps > 0
    assert progress.distance > 0.0
    assert online.recommender.ranker is artifact.models.ranker
    assert frozen.online_ranker() is frozen.recommender.ranker
    online.learner._parts["ranker"].state.gain = 1.0
    now, events, rows = online.online_ranker(), np.array([len(log) - 1]), np.array([[3, 4, 5]])
    columns, three = online.columns(events, rows), np.array([3])
    scores = now.score(columns, three)
    assert not np.array_equal(scores, artifact.models.ranker.score(columns, three))
    for _ in range(5):
        online.learner.served.ranker.learn(columns[0], 2)  # type: ignore[union-attr]
    assert np.array_equal(now.score(columns, three), scores)
    online.learner._parts["ranker"].state.gain = -1.0
    assert online.online_ranker() is online.recommender.ranker


def test_a_coming_event_has_the_probability_that_the_recommender_gives(tmp_path: Path) -> None:
    log = read_events(tmp_path, group_events())
    artifact = replace(
        group_artifact(30), models=Models(prediction=Prediction(info_of(), weights_of()))
    )
    replay = Replay(artifact, log)
    event = int(np.flatnonzero(replay.rows >= 0)[40])
    replay.advance(event)
    one = np.array([event])
    expected = replay.recommender.probabilities(replay.asked(one), replay.rows[one][:, None])
    assert 0.0 < replay.probability(event) < 1.0
    assert replay.probability(event) == expected[0, 0]
    assert np.isnan(replay.probability(int(np.flatnonzero(replay.rows < 0)[0])))
    assert replay.probability(event, learned=True) == expected[0, 0]
    replay.learner = learner = Learner(Kinds.default())
    learner.follow(artifact.models)
    replay.advance(event + 1)
    learner._parts["calibration"].state.gain = 1.0
    published = replay.probability(event)
    assert learner.progress["calibration"].steps > 0
    assert 0.0 < replay.probability(event, learned=True) != published


def test_an_answer_is_of_the_events_before_it_though_the_question_is_the_same(
    log: EventLog,
) -> None:
    kept, anew = Replay(group_artifact(), log), Replay(group_artifact(), log)
    asked = kept.asked_of(np.arange(len(log.user_ids)), float(log.batch.times[-1]))
    for replay in (kept, anew):
        replay.advance(20)
    before = kept.recommender.recommend(asked, 5).rows.tolist()
    for replay in (kept, anew):
        replay.advance(70)
    after = kept.recommender.recommend(asked, 5).rows.tolist()
    assert after != before
    same = anew.asked_of(np.arange(len(log.user_ids)), float(log.batch.times[-1]))
    assert anew.recommender.recommend(same, 5).rows.tolist() == after


def test_a_swap_to_the_same_items_changes_no_list_and_to_another_basis_rebuilds(
    log: EventLog,
) -> None:
    replay = Replay(group_artifact(), log)
    replay.advance(60)

    def lists() -> Any:
        asked = replay.asked_of(np.arange(len(log.user_ids)), float(log.batch.times[60]))
        return replay.recommender.recommend(asked, 5).rows.tolist()

    before = lists()
    replay.swap(group_artifact())
    assert lists() == before
    other = group_artifact()
    replay.swap(replace(other, manifest=msgspec.structs.replace(other.manifest, basis="another")))
    assert replay.recommender.carry_over(replay.users.states, np.arange(len(log.user_ids))) > 0
    assert lists() == before  # the ring holds all that these users did
    replay.advance(len(log))
    assert replay.position == len(log)


def test_uniform_candidates_are_drawn_alike_from_all_rows_that_are_not_excluded() -> None:
    random = np.random.default_rng(0)
    excluded = np.array([0, 1, 5, 150, 151, 299])
    counts = np.zeros(300)
    draws = 2000
    for _ in range(draws):
        rows = _others(excluded, 300, random)
        assert len(np.unique(rows)) == UNIFORM
        counts[rows] += 1
    assert not counts[excluded].any()
    expected = draws * UNIFORM / 294
    free = np.delete(counts, excluded)
    assert np.abs(free - expected).max() < 5.0 * np.sqrt(expected)
    assert _others(np.arange(7), 9, random).tolist() == [7, 8]
    assert _others(np.arange(9), 9, random).tolist() == []
