"""Learning in a worker: which events teach, what is committed with the position, what is undone."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import generate_latest

from tests.plane_world import NOW, Bench, like, small_artifact
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

NAMES = ("trend_1d", "content_60", "neighbours_95", "repeats", "gap")
Make = Callable[..., Bench]


def trained(sequence: int = 1, seed: int = 0) -> Artifact:
    """Return the small artifact with a ranker; another seed is another ranker."""
    given = weights()
    ranker = Network(NAMES, replace(given, last=given.last + np.float32(seed)))
    return replace(small_artifact(sequence), models=Models(ranker=ranker))


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def build(**settings: Any) -> Bench:
        bench = Bench(tmp_path / str(len(made)), **settings)
        made.append(bench)
        bench.keeper.current = make_serving(trained(), bench.settings)
        bench.restart()
        bench.send(*(like(f"u{n}", n) for n in range(4)))  # users are known from here on
        return bench

    yield build
    for bench in made:
        bench.close()


def learner(bench: Bench) -> Learner:
    found = bench.users._learning._learner
    assert found is not None
    return found


def read_out(bench: Bench) -> Any:
    part = learner(bench)._parts.get("ranker")
    return None if part is None else part.model.to_bytes()


def likes(bench: Bench, count: int = 6, start: int = 0) -> list[Event]:
    """Events of items that the users do not know, one a user and turn."""
    return [
        like(f"u{n % 4}", (5 + 2 * (start + n)) % 40, time=NOW + start + n) for n in range(count)
    ]


def steps(bench: Bench) -> float:
    return bench.count("learning_steps")


def row(bench: Bench) -> bytes | None:
    found: bytes | None = bench.users.store.read([LEARNED_KEY])[0]
    return found


def test_a_worker_learns_from_positive_events_of_users_it_knows(make: Make) -> None:
    bench = make()
    assert steps(bench) == 0  # nobody was known
    bench.send(like("u1", 1), Event("u1", "i9", "dislike", NOW), Event("u1", "x", "like", NOW))
    assert steps(bench) == 0  # seen before; not positive; not in the catalogue
    bench.send(*likes(bench))
    assert 0 < steps(bench) <= 6
    progress = learner(bench).progress["ranker"]
    assert progress.steps == steps(bench)
    assert 0.0 < progress.distance < 1.0
    assert progress.loss > 0.0


def test_an_event_that_came_before_teaches_nothing(make: Make) -> None:
    bench = make(seen="keep")
    events = [msgspec.structs.replace(one, event_id=f"e{one.item_id}") for one in likes(bench, 12)]
    bench.send(*events[:4])
    bench.send(*events[4:])
    before = steps(bench)
    assert before > 0
    bench.send(*events[4:])
    assert steps(bench) == before


def test_the_work_for_a_chunk_is_bounded_and_does_not_depend_on_its_order(make: Make) -> None:
    bench, other = make(), make()
    bench.send(*likes(bench, 40))
    other.send(*likes(other, 40))
    assert 0 < steps(bench) <= MOST
    assert read_out(bench) == read_out(other)


def test_what_was_learned_is_committed_with_the_position_and_read_back(make: Make) -> None:
    bench = make()
    bench.send(*likes(bench))
    assert row(bench) is None
    bench.commit()
    learned, position = read_out(bench), bench.users.store.progress.position
    bench.send(*likes(bench, 6, 6))  # never committed
    assert read_out(bench) != learned
    bench.restart()
    assert bench.users.store.progress.position == position
    bench.users._learning.learned(bench.keeper.current)
    assert read_out(bench) == learned
    bench.offset = position
    bench.send(*likes(bench, 6, 6))
    assert learner(bench).progress["ranker"].steps > 0


def test_a_crash_and_the_same_events_again_give_the_same_weights(make: Make) -> None:
    bench, undisturbed = make(), make()
    for one in (bench, undisturbed):
        one.send(*likes(one))
        one.commit()
    position = bench.users.store.progress.position
    bench.send(*likes(bench, 6, 6))
    bench.restart()
    bench.offset = position
    for one in (bench, undisturbed):
        one.send(*likes(one, 6, 6))
        one.commit()
    assert read_out(bench) == read_out(undisturbed)
    assert row(bench) == row(undisturbed)


def test_an_aborted_commit_leaves_nothing_and_the_next_one_has_it(make: Make) -> None:
    bench = make()
    bench.send(*likes(bench))
    bench.committer.aborts = 1
    with pytest.raises(Exception, match="not enough replicas"):
        bench.commit()
    assert row(bench) is None
    bench.users.store.settle()
    bench.commit()
    assert row(bench) is not None


def test_frozen_it_keeps_what_it_learned_and_off_it_goes_back(make: Make) -> None:
    bench = make()
    bench.send(*likes(bench))
    bench.commit()
    learned = read_out(bench)
    bench.context = replace(
        bench.context, settings=bench.settings.model_copy(update={"online_learning": "freeze"})
    )
    bench.restart()
    bench.send(*likes(bench, 6, 6))
    assert read_out(bench) == learned
    bench.context = replace(
        bench.context, settings=bench.settings.model_copy(update={"online_learning": "off"})
    )
    bench.restart()
    bench.send(*likes(bench, 6, 6))
    assert bench.users._learning.learned(bench.keeper.current).ranker is None
    bench.commit()
    assert row(bench) is None


def test_another_ranker_starts_again_and_the_same_in_a_newer_artifact_goes_on(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make()
    bench.send(*likes(bench))
    learned = read_out(bench)
    bench.keeper.current = make_serving(trained(2), bench.settings)
    bench.users._learning.learned(bench.keeper.current)
    assert read_out(bench) == learned
    assert bench.count("learning_restarts") == 0
    untrained = make_serving(small_artifact(3), bench.settings)
    assert bench.users._learning.learned(untrained).ranker is None
    bench.users._learning.learned(bench.keeper.current)
    assert read_out(bench) == learned
    bench.keeper.current = make_serving(trained(4, seed=1), bench.settings)
    with caplog.at_level(logging.WARNING):
        bench.users._learning.learned(bench.keeper.current)
    assert "t-events-0: online learning restarts from" in caplog.text
    assert bench.count("learning_restarts") == 1
    assert learner(bench).progress["ranker"].steps == 0


def test_a_damaged_row_or_one_of_another_format_is_given_up_and_said(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make()
    bench.send(*likes(bench))
    bench.commit()
    good = row(bench)
    assert good is not None
    for number, bad in enumerate((good[:-1], b"", b"\0\0\0\0"), 1):
        bench.users.store.note(LEARNED_KEY, bad)
        bench.commit()
        bench.restart()
        assert bench.count("learning_restarts") == number
        bench.send(*likes(bench, 6, 6 * number))
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
    bench = make()
    serving = bench.keeper.current
    for turn in range(40):
        bench.send(*likes(bench, 8, 8 * turn))
    learner(bench)._parts["ranker"].state.gain = 1.0
    ranker = bench.users._learning.learned(serving).ranker
    assert ranker is not None
    features = np.random.default_rng(0).normal(size=(1, 9, len(COLUMNS))).astype(np.float32)
    published = serving.recommender.ranker.score(features, np.array([9]))
    assert not np.array_equal(ranker.score(features, np.array([9])), published)


def test_how_far_it_is_can_be_seen(make: Make) -> None:
    bench = make()
    bench.send(*likes(bench))
    text = generate_latest(bench.metrics.registry).decode()
    for value in ("distance", "loss", "gain"):
        assert f'tracker_learning{{model="ranker",partition="0",value="{value}"}}' in text
    bench.metrics.forget_partition("users", "t-events", 0)
    assert "tracker_learning{" not in generate_latest(bench.metrics.registry).decode()
