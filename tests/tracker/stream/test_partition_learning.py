"""Learning in a worker: which events teach, what is committed with the position, what is undone."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import generate_latest

from tests.plane_world import NOW, WorkerState, like, small_artifact
from tests.tracker.scoring.test_network import weights
from tracker.artifact.artifact import Artifact
from tracker.artifact.models import Models
from tracker.events.kinds import Kinds
from tracker.events.wire import Event
from tracker.kernels.row_bytes import LEARNED_KEY
from tracker.recommend.learned_row import Learned, LearnedRowError, encode_learned
from tracker.recommend.learner import MOST, Learner
from tracker.recommend.options import LearnedModels
from tracker.scoring.context import COLUMNS
from tracker.scoring.network import Network
from tracker.scoring.online_ranker import OnlineRanker
from tracker.stream.serving import make_serving

NAMES = ("trend_short", "content_60", "neighbours_95", "repeats", "gap")
Make = Callable[..., WorkerState]


def trained(sequence: int = 1, seed: int = 0) -> Artifact:
    """Return the small artifact with a ranker; another seed is another ranker."""
    given = weights()
    ranker = Network(NAMES, replace(given, last=given.last + np.float32(seed)))
    return replace(small_artifact(sequence), models=Models(ranker=ranker))


@pytest.fixture
def make(make: Make) -> Make:
    def build(**settings: Any) -> WorkerState:
        worker = make(**settings)
        worker.keeper.current = make_serving(trained(), worker.settings)
        worker.restart()
        worker.send(*(like(f"u{n}", n) for n in range(4)))  # users are known from here on
        return worker

    return build


def learner(worker: WorkerState) -> Learner:
    found = worker.users._learning._learner
    assert found is not None
    return found


def read_out(worker: WorkerState) -> Any:
    part = learner(worker)._parts.get("ranker")
    return None if part is None else part.model.to_bytes()


def likes(worker: WorkerState, count: int = 6, start: int = 0) -> list[Event]:
    """Events of items that the users do not know, one a user and turn."""
    return [
        like(f"u{n % 4}", (5 + 2 * (start + n)) % 40, time=NOW - 1000.0 + start + n)
        for n in range(count)
    ]


def steps(worker: WorkerState) -> float:
    return worker.count("learning_steps")


def row(worker: WorkerState) -> bytes | None:
    found: bytes | None = worker.users.store.read([LEARNED_KEY])[0]
    return found


def test_a_worker_learns_from_positive_events_of_users_it_knows(make: Make) -> None:
    worker = make()
    assert steps(worker) == 0  # nobody was known
    worker.send(like("u1", 1), Event("u1", "i9", "dislike", NOW), Event("u1", "x", "like", NOW))
    assert steps(worker) == 0  # seen before; not positive; not in the catalogue
    worker.send(*likes(worker))
    assert 0 < steps(worker) <= 6
    progress = learner(worker).progress["ranker"]
    assert progress.steps == steps(worker)
    assert 0.0 < progress.distance < 1.0
    assert progress.loss > 0.0


def test_an_event_that_came_before_teaches_nothing(make: Make) -> None:
    worker = make(seen="keep")
    events = [msgspec.structs.replace(one, event_id=f"e{one.item_id}") for one in likes(worker, 12)]
    worker.send(*events[:4])
    worker.send(*events[4:])
    before = steps(worker)
    assert before > 0
    worker.send(*events[4:])
    assert steps(worker) == before


def test_the_work_for_a_chunk_is_bounded_and_does_not_depend_on_its_order(make: Make) -> None:
    worker, other = make(), make()
    worker.send(*likes(worker, 40))
    other.send(*likes(other, 40))
    assert 0 < steps(worker) <= MOST
    assert read_out(worker) == read_out(other)


def test_what_was_learned_is_committed_with_the_position_and_read_back(make: Make) -> None:
    worker = make()
    worker.send(*likes(worker))
    assert row(worker) is None
    worker.commit()
    learned, position = read_out(worker), worker.users.store.progress.position
    worker.send(*likes(worker, 6, 6))  # never committed
    assert read_out(worker) != learned
    worker.restart()
    assert worker.users.store.progress.position == position
    worker.users._learning.learned(worker.keeper.current)
    assert read_out(worker) == learned
    worker.offset = position
    worker.send(*likes(worker, 6, 6))
    assert learner(worker).progress["ranker"].steps > 0


def test_a_crash_and_the_same_events_again_give_the_same_weights(make: Make) -> None:
    worker, undisturbed = make(), make()
    for one in (worker, undisturbed):
        one.send(*likes(one))
        one.commit()
    position = worker.users.store.progress.position
    worker.send(*likes(worker, 6, 6))
    worker.restart()
    worker.offset = position
    for one in (worker, undisturbed):
        one.send(*likes(one, 6, 6))
        one.commit()
    assert read_out(worker) == read_out(undisturbed)
    assert row(worker) == row(undisturbed)


def test_an_aborted_commit_leaves_nothing_and_the_next_one_has_it(make: Make) -> None:
    worker = make()
    worker.send(*likes(worker))
    worker.committer.aborts = 1
    with pytest.raises(Exception, match="not enough replicas"):
        worker.commit()
    assert row(worker) is None
    worker.users.store.settle()
    worker.commit()
    assert row(worker) is not None


def test_frozen_it_keeps_what_it_learned_and_off_it_goes_back(make: Make) -> None:
    worker = make()
    worker.send(*likes(worker))
    worker.commit()
    learned = read_out(worker)
    worker.context = replace(
        worker.context, settings=worker.settings.model_copy(update={"online_learning": "freeze"})
    )
    worker.restart()
    worker.send(*likes(worker, 6, 6))
    assert read_out(worker) == learned
    worker.context = replace(
        worker.context, settings=worker.settings.model_copy(update={"online_learning": "off"})
    )
    worker.restart()
    worker.send(*likes(worker, 6, 6))
    assert worker.users._learning.learned(worker.keeper.current).ranker is None
    worker.commit()
    assert row(worker) is None


def test_another_ranker_starts_again_and_the_same_in_a_newer_artifact_goes_on(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make()
    worker.send(*likes(worker))
    learned = read_out(worker)
    worker.keeper.current = make_serving(trained(2), worker.settings)
    worker.users._learning.learned(worker.keeper.current)
    assert read_out(worker) == learned
    assert worker.count("learning_restarts") == 0
    untrained = make_serving(small_artifact(3), worker.settings)
    assert worker.users._learning.learned(untrained).ranker is None
    worker.users._learning.learned(worker.keeper.current)
    assert read_out(worker) == learned
    worker.keeper.current = make_serving(trained(4, seed=1), worker.settings)
    with caplog.at_level(logging.WARNING):
        worker.users._learning.learned(worker.keeper.current)
    assert "t-events-0: online learning restarts from" in caplog.text
    assert worker.count("learning_restarts") == 1
    assert learner(worker).progress["ranker"].steps == 0


def test_a_damaged_row_or_one_of_another_format_is_given_up_and_said(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make()
    worker.send(*likes(worker))
    worker.commit()
    good = row(worker)
    assert good is not None
    for number, bad in enumerate((good[:-1], b"", b"\0\0\0\0"), 1):
        worker.users.store.note(LEARNED_KEY, bad)
        worker.commit()
        worker.restart()
        assert worker.count("learning_restarts") == number
        worker.send(*likes(worker, 6, 6 * number))
    assert "cannot be read" in caplog.text


def test_rows_that_cannot_be_read_say_what_is_wrong_with_them() -> None:
    import zlib

    import msgspec

    def sealed(value: Any) -> bytes:
        body = msgspec.msgpack.encode(value)
        return zlib.crc32(body).to_bytes(4, "little") + body

    some = Learner(Kinds.default())
    for value, said in (
        (sealed((3, "a later one")), "format 3; this version reads 1 to 2"),
        (sealed("text"), "no row of this kind"),
        (sealed((2, {"ranker": 5})), "no row of this kind"),
        (b"1234567", "7 bytes that are damaged"),
    ):
        with pytest.raises(LearnedRowError, match=said):
            some.restore(value)
    models = trained().models
    assert models.ranker is not None
    for values in (b"\0" * 8, b"\0" * 7):
        row = encode_learned({"ranker": Learned(models.ranker.code, 3, 1.0, 0.1, values)})
        some.restore(row)
        assert some.follow(models) == ["ranker"]
        assert some.progress["ranker"].steps == 0


def test_what_was_learned_is_served_only_while_it_is_ahead() -> None:
    one = Learner(Kinds.default())
    assert (one.served, one.progress) == (LearnedModels(), {})
    one.follow(trained().models)
    served = [isinstance(one.served.ranker, OnlineRanker)]
    for learned, published in ((2.0, 1.5), (1.0, 2.0)):
        one._parts["ranker"].note(learned, published)
        served.append(isinstance(one.served.ranker, OnlineRanker))
    assert served == [True, False, True]


def test_lists_are_ranked_by_what_was_learned(make: Make) -> None:
    worker = make()
    serving = worker.keeper.current
    for turn in range(40):
        worker.send(*likes(worker, 8, 8 * turn))
    learner(worker)._parts["ranker"].state.gain = 1.0
    ranker = worker.users._learning.learned(serving).ranker
    assert ranker is not None
    features = np.random.default_rng(0).normal(size=(1, 9, len(COLUMNS))).astype(np.float32)
    published = serving.recommender.ranker.score(features, np.array([9]))
    assert not np.array_equal(ranker.score(features, np.array([9])), published)


def test_how_far_it_is_can_be_seen(make: Make) -> None:
    worker = make()
    worker.send(*likes(worker))
    text = generate_latest(worker.metrics.registry).decode()
    for value in ("distance", "loss", "gain"):
        assert f'tracker_learning{{model="ranker",partition="0",value="{value}"}}' in text
    worker.metrics.forget_partition("users", ["t-events"], 0)
    assert "tracker_learning{" not in generate_latest(worker.metrics.registry).decode()
