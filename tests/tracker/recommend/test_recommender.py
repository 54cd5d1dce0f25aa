"""Lists in known-answer worlds, and what holds for every list."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worlds import DAY, START, World, likes
from tracker.events.wire import hash_id
from tracker.kernels import arithmetic as dots
from tracker.recommend import (
    candidates,
    columns,
    explanation,
    list_json,
    recommender,
    selection,
    shortlist,
)
from tracker.recommend import lists as lists_module
from tracker.recommend import neighbour_walk as walk
from tracker.recommend.channels import CHANNELS
from tracker.recommend.list_json import ListEncoder
from tracker.recommend.lists import RecommendedBatch
from tracker.recommend.options import RecommendOptions
from tracker.scoring import blend, context, features
from tracker.scoring.context import COLUMNS
from tracker.scoring.retrieval import Retrieval
from tracker.users import readings as history
from tracker.users.config import InterestConfig
from tracker.users.rows import RequestBatch
from tracker.users.states import UserStates

SEEN = CHANNELS.index("seen")
TREND = CHANNELS.index("trend")
DEFAULT = CHANNELS.index("default")


def arrays_of(batch: RecommendedBatch) -> dict[str, Any]:
    """Return the arrays of lists and of their explanation by name; they are explained by parts."""
    explanation = batch.explanation
    assert explanation is not None
    assert explanation.parts is not None
    return {
        f"{type(holder).__name__}.{name}": getattr(holder, name)
        for holder in (batch, explanation, explanation.parts)
        for name in holder.__dataclass_fields__
        if isinstance(getattr(holder, name), np.ndarray)
    }


def same(one: RecommendedBatch, other: RecommendedBatch) -> bool:
    others = arrays_of(other)
    return all(
        np.array_equal(value, others[name], equal_nan=True)
        for name, value in arrays_of(one).items()
    )


def busy_world(**arguments: Any) -> World:
    """Eight users in two groups, some with dislikes and scenes, one whom nobody knows."""
    world = World(60, **arguments)
    for user in range(7):
        items = [(user + 2 * n) % 60 for n in range(3 * user)]
        world.send(*likes(user, items, time=START + 1000 * user, scene=["", "home"][user % 2]))
    world.send(*likes(3, [4, 8], time=START + 9000, weight=-2.0))
    return world


def test_checkerboard_users_get_unseen_items_of_their_own_group() -> None:
    world = World(40).with_options(diversity=0.0)
    world.send(*likes(0, [0, 2, 4]), *likes(1, [1, 3, 5]))
    even, odd = world.recommend([0, 1], now=START + 10, k=5).rows
    assert all(row % 2 == 0 and row > 4 for row in even)
    assert all(row % 2 == 1 and row > 5 for row in odd)


def test_a_list_moves_with_the_next_event() -> None:
    world = World(40).with_options(diversity=0.0)
    world.send(*likes(0, [0, 2]))
    before = world.rows(0, now=START + 5)
    world.send(*likes(0, [11, 13, 15], time=START + 10))
    after = world.rows(0, now=START + 20)
    assert sum(row % 2 for row in before) == 0
    assert sum(row % 2 for row in after) >= 3


def test_a_batch_equals_one_by_one_bit_for_bit() -> None:
    world = busy_world().with_options(explain="parts")
    now = [START + 20_000.0 + 100 * user for user in range(8)]
    users = [0, 1, 2, 3, 4, 5, 6, -1]
    together = world.recommend(users, now=now, scene="home", k=7)
    for position, user in enumerate(users):
        alone = world.recommend([user], now=now[position], scene="home", k=7)
        others = arrays_of(alone)
        for name, value in arrays_of(together).items():
            assert np.array_equal(value[position], others[name][0], equal_nan=True), name


def test_the_same_call_gives_the_same_lists_and_changes_no_state() -> None:
    world = busy_world().with_options(explain="parts")
    before = world.states.pack(np.arange(8))
    first = world.recommend(range(8), now=START + 1e5, k=10)
    assert same(first, world.recommend(range(8), now=START + 1e5, k=10))
    assert world.states.pack(np.arange(8)) == before


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 29), st.sampled_from([-2.0, 0.0, 0.3, 2.0])),
        max_size=60,
    ),
    st.sampled_from(["demote", "exclude", "keep"]),
    st.integers(1, 40),
)
def test_a_list_is_never_empty_nor_short_of_items_without_reason(
    events: list[tuple[int, int, float]], seen: Any, k: int
) -> None:
    world = World(30, live=25, users=4).with_options(seen=seen)
    world.send(
        *(
            {"user": user, "item": f"i{item}", "weight": weight, "time": START + n}
            for n, (user, item, weight) in enumerate(events)
        )
    )
    made = world.recommend([0, 1, 2, 3, -1], now=START + 100, k=k)
    asked = world.asked([0, 1, 2, 3, -1], now=START + 100)
    assert np.array_equal(world.recommender.rows(asked, k), made.rows)
    for user, rows in enumerate(made.rows):
        kept = [row for row in rows.tolist() if row >= 0]
        assert rows.tolist() == kept + [-1] * (k - len(kept))
        assert len(set(kept)) == len(kept)
        assert all(row < 25 for row in kept)
        had = {item for of, item, _ in events if of == user}
        unseen = 25 - len(had & set(range(25)))
        expected = min(k, unseen) if seen == "exclude" and unseen else min(k, 25)
        assert len(kept) == expected
        if seen != "keep":
            assert set(kept[: min(k, unseen)]).isdisjoint(had)


def test_nobody_known_gets_the_trend_and_before_any_trend_catalogue_order() -> None:
    world = World(40).with_options(diversity=0.0)
    empty = world.recommend([-1, 5], k=4)
    assert empty.rows.tolist() == [[0, 1, 2, 3]] * 2
    assert (empty.channels == DEFAULT).all()
    world.send(*likes(0, [30]), *likes(1, [30, 21]))
    trend = world.recommend([-1, 5], now=START + 60, k=4)
    assert trend.rows[:, :2].tolist() == [[30, 21]] * 2
    assert (trend.channels[:, :2] == TREND).all()
    assert (trend.because_rows == -1).all()
    assert (trend.labels == -1).all()


def test_the_trend_of_the_scene_comes_first_for_who_is_there() -> None:
    world = World(40).with_options(diversity=0.0)
    world.send(*likes(0, [30, 31], scene="cart"), *likes(1, [20, 21], scene="home"))
    rows = world.recommend([-1], now=START + 60, scene="cart", k=40).rows[0].tolist()
    made = world.recommend([-1], now=START + 60, scene="unheard", k=4)
    assert {30, 31} <= set(rows)
    assert set(made.rows[0].tolist()) == {20, 21, 30, 31}


def test_an_item_nobody_has_chosen_is_recommended_from_its_content() -> None:
    world = World(40).with_options(diversity=0.0)
    world.send(*likes(0, [0, 2, 4]))
    made = world.recommend([0], now=START + 60, k=3)
    assert (world.view.columns.counts[made.rows[0], 6] == 0).all()
    assert {CHANNELS[c] for c in made.channels[0]} <= {"content", "recent"}


def test_retired_items_are_never_recommended_but_may_be_reasons() -> None:
    world = World(40, live=20).with_options(diversity=0.0)
    world.send(*likes(0, [20, 22, 24]), *likes(1, [20, 22]))
    made = world.recommend([0, 1, -1], now=START + 60, k=20)
    assert made.rows.max() < 20
    assert set(made.because_rows[0][made.because_rows[0] >= 0].tolist()) == {20, 22, 24}


def test_seen_items_are_demoted_excluded_or_kept_by_setting() -> None:
    world = World(10, options=RecommendOptions(seen="demote", diversity=0.0))
    world.send(*likes(0, [0, 2, 4]))
    demoted = world.recommend([0], now=START + 60, k=10)
    assert set(demoted.rows[0, :7].tolist()) == {1, 3, 5, 6, 7, 8, 9}
    assert set(demoted.rows[0, 7:].tolist()) == {0, 2, 4}
    assert (demoted.channels[0, 7:] == SEEN).all()
    assert (demoted.channels[0, :7] != SEEN).all()
    excluded = world.with_options(seen="exclude", diversity=0.0).rows(0, now=START + 60, k=10)
    assert set(excluded) == {1, 3, 5, 6, 7, 8, 9}
    kept = world.with_options(seen="keep", diversity=0.0).recommend([0], now=START + 60, k=10)
    assert set(kept.rows[0, :3].tolist()) & {0, 2, 4}
    assert (kept.channels != SEEN).all()


def test_where_repeats_are_normal_what_was_had_often_comes_first() -> None:
    world = World(200).with_options(seen="keep", diversity=0.0)
    world.send(*likes(0, [150, 151, 150, 153, 150]))
    assert world.rows(0, now=START + 60, k=5)[0] == 150


@pytest.mark.parametrize("seen", ["demote", "exclude"])
def test_who_has_seen_everything_gets_the_best_seen(seen: Any) -> None:
    world = World(6).with_options(seen=seen, diversity=0.0)
    world.send(*likes(0, [1, 3, 5, 4, 2, 0, 2, 0, 4, 2, 0]))
    made = world.recommend([0], now=START + 60, k=3)
    assert set(made.rows[0].tolist()) == {0, 2, 4}
    assert (made.channels == SEEN).all()


def test_what_left_the_ring_is_still_known_as_seen() -> None:
    world = World(120, ring=8, ring_evict=2).with_options(diversity=0.0)
    had = list(range(0, 80, 2))
    world.send(*likes(0, had))
    rows = world.rows(0, now=START + 100, k=60)
    assert set(rows).isdisjoint(had)
    assert len(rows) == 60


def test_a_retracted_event_is_neither_seen_nor_a_reason() -> None:
    world = World(40).with_options(diversity=0.0)
    world.send(*likes(0, [0, 2]), {"user": 0, "item": "i4", "time": START + 5, "id": "e"})
    world.send({"user": 0, "retracts": "e", "time": START + 6})
    made = world.recommend([0], now=START + 60, k=20)
    assert 4 in made.rows[0].tolist()
    assert 4 not in made.because_rows[0]


def test_negative_interest_pushes_similar_items_down() -> None:
    world = World(40, groups=4).with_options(diversity=0.0)
    liked = likes(0, [0, 1, 4, 5])
    world.send(*liked)
    before = world.rows(0, now=START + 60, k=8)
    assert any(row % 4 == 1 for row in before)
    world.send(*likes(0, [9, 13, 17], time=START + 10, weight=-2.0))
    after = world.rows(0, now=START + 60, k=8)
    assert [row for row in after if row % 4 == 1] == []
    assert all(row % 4 == 0 for row in after[:6])


def test_live_neighbours_are_recommended_with_the_item_they_came_from() -> None:
    # Content cannot know that 0 and 21 go together; the events of other users do.
    world = World(40).with_options(diversity=0.0)
    for user in range(1, 6):
        world.send(*likes(user, [0, 21]))
    world.send(*likes(0, [2, 0], time=START + DAY))
    made = world.recommend([0], now=START + DAY + 60, k=5)
    place = made.rows[0].tolist().index(21)
    assert CHANNELS[made.channels[0, place]] == "neighbours"
    assert made.because_rows[0, place].tolist() == [0, -1, -1]
    assert made.because[0, place].tolist() == [hash_id("i0"), 0, 0]


def test_diversity_brings_both_interests_into_the_list() -> None:
    world = World(40, groups=4).with_options(diversity=0.0)
    world.send(*likes(0, [1]), *likes(0, [0, 4, 8], time=START + 10))
    plain = world.rows(0, now=START + 60, k=6)
    diverse = world.with_options(diversity=0.6).rows(0, now=START + 60, k=6)
    assert len({row % 4 for row in diverse}) > len({row % 4 for row in plain})


def test_unknown_items_are_counted_and_do_not_stop_a_list() -> None:
    world = World(40)
    applied = world.send({"user": 0, "item": "never heard of", "time": START})
    assert applied.unknown == 1
    made = world.recommend([0], now=START + 60, k=4)
    assert (made.rows >= 0).all()


def test_item_events_carry_the_sign_and_the_terms_of_the_original_event() -> None:
    world = World(40)
    first = world.send(
        *likes(0, [0, 2], scene="home"),
        {"user": 0, "item": "i4", "time": START + 5, "id": "e", "weight": 2.0, "scene": "cart"},
    ).item_events
    undone = world.send({"user": 0, "retracts": "e", "time": START + 99}).item_events
    assert first["sign"].tolist() == [1, 1, 1]
    assert first["recent"][2, :2].tolist() == [hash_id("i2"), hash_id("i0")]
    assert undone["sign"].tolist() == [-1]
    for name in ("item", "time", "weight", "scene"):
        assert undone[name][0] == first[name][2], name


def test_rows_of_another_basis_are_rebuilt_from_the_ring_before_they_are_read() -> None:
    world = World(40, basis="old").with_options(diversity=0.0)
    world.send(*likes(0, [0, 2, 4]), *likes(1, [1]))
    refitted = World(40, basis="new").with_options(diversity=0.0)
    refitted.users = world.users
    world.states.sums[:] = 7.0
    assert all(row % 2 == 0 for row in refitted.rows(0, now=START + 60))
    assert world.states.head["basis"][0] == hash_id("new")
    assert refitted.recommender.carry_over(world.states, np.array([0, 0, -1, 1])) == 1
    assert refitted.recommender.carry_over(world.states, np.array([0, 1])) == 0
    world.send(*likes(0, [6], time=START + 9))
    assert world.states.head["basis"][0] == hash_id("old")


def test_more_items_wanted_than_candidates_are_gathered() -> None:
    world = World(300).with_options(diversity=0.0)
    world.send(*likes(0, [0, 2]))
    rows = world.rows(0, now=START + 60, k=250)
    assert len(set(rows)) == 250
    assert all(row % 2 == 0 for row in rows[:5])


def test_an_empty_batch_is_answered_with_one() -> None:
    made = World(4).recommend([], k=3)
    assert len(made) == 0
    assert made.rows.shape == (0, 3)


def test_features_of_given_rows_are_those_that_serve() -> None:
    world = busy_world()
    rows = np.tile(np.arange(60), (8, 1))
    made = world.recommender.columns(world.asked(range(8), now=START + 50_000.0), rows)
    assert made.shape == (8, 60, len(COLUMNS))
    assert np.isfinite(made).all()
    blend = world.recommender.ranker.score(made, np.full(8, 60))
    lists = world.with_options(seen="keep", diversity=0.0, cut=60).recommend(
        range(8), now=START + 50_000.0, k=5
    )
    for user in range(8):
        expected = blend[user, lists.rows[user]]
        assert lists.scores[user] == pytest.approx(expected, abs=1e-5)


def test_wrong_calls_name_both_numbers() -> None:
    world = World(4)
    with pytest.raises(ValueError, match="k is 0; at least 1"):
        world.recommend([0], k=0)
    with pytest.raises(ValueError, match="2 slots, 1 times"):
        RequestBatch(world.users, np.array([0, 1]), np.array([START]), np.zeros(2, np.uint32))
    world.users.states = UserStates(InterestConfig(dim=8), 1)
    with pytest.raises(ValueError, match="states of dim 8, items of 16"):
        world.recommend([0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retrieval": Retrieval(content=90)}, "sum to 146"),
        ({"cut": 4}, "cut is 4"),
        ({"seen": "hide"}, "seen is 'hide'"),
        ({"diversity": 1.5}, "diversity is 1.5"),
        ({"per_search": 0}, "per_search 0"),
    ],
)
def test_options_out_of_range_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecommendOptions(**options)


def test_compiled_and_plain_python_give_the_same_lists_and_features(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = busy_world(ring=8, ring_evict=2)
    for user in range(4):
        world.send(*likes(user, [1, 2, 3], time=START + 20_000, scene="home"))
    users, now = [0, 3, 6, -1], START + 30_000.0
    arguments = (
        world.asked(users, now=now, scene="home"),
        np.tile(np.arange(0, 60, 3), (4, 1)),
    )
    lists = world.recommend(users, now=now, scene="home", k=12)
    expected = world.recommender.columns(*arguments)
    texts = (
        "v",
        ["r"] * 4,
        ["a", "b", "c", "d"],
        [now] * 4,
        ["home"] * 4,
        [1.0] * 4,
        [7] * 4,
    )
    records = ListEncoder(world.items).encode(lists, *texts)
    left_native = {
        "row_of_hash",
        "bloom_contains",
        "sum_up",
    }  # their 64-bit arithmetic wraps around
    for module in (
        dots, history, walk, candidates, shortlist, columns, selection, recommender, lists_module,
        explanation, list_json, features, context, blend,
    ):  # fmt: skip
        for name, kernel in list(vars(module).items()):
            if hasattr(kernel, "py_func") and name not in left_native:
                monkeypatch.setattr(module, name, kernel.py_func)
    plain = world.recommend(users, now=now, scene="home", k=12)
    assert np.array_equal(plain.rows, lists.rows)
    assert np.array_equal(plain.channels, lists.channels)
    assert np.array_equal(plain.because, lists.because)
    assert plain.scores == pytest.approx(lists.scores, abs=1e-4)
    assert world.recommender.columns(*arguments) == pytest.approx(expected, abs=1e-4)
    assert ListEncoder(world.items).encode(lists, *texts) == records
