"""What a list says of itself: reasons, interests, its hash."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.worlds import DAY, START, World, likes
from tracker.events.wire import hash_id


def test_reasons_are_the_users_own_positive_items_nearest_in_content() -> None:
    world = World(40).with_options(diversity=0.0)
    world.send(*likes(0, [0, 2, 1, 0]), *likes(0, [4], weight=-1.0), *likes(0, [6], weight=0.0))
    made = world.recommend([0], now=START + 60, k=30)
    for row, reasons in zip(made.rows[0].tolist(), made.because_rows[0].tolist(), strict=True):
        named = [reason for reason in reasons if reason >= 0]
        assert set(named) <= {0, 1, 2}
        assert len(set(named)) == len(named)
        assert all(reason % 2 == row % 2 for reason in named)
    assert np.array_equal(
        made.because[0] != 0,
        made.because_rows[0] >= 0,
    )


def test_the_heavier_and_later_event_is_the_first_reason() -> None:
    world = World(40).with_options(diversity=0.0)
    world.send(
        {"user": 0, "item": "i0", "weight": 3.0, "time": START},
        {"user": 0, "item": "i2", "weight": 0.3, "time": START + 1},
    )
    made = world.recommend([0], now=START + 60, k=3)
    assert (made.because_rows[0, :, 0] == 0).all()


def other_users(world: World) -> None:
    """Give items trends and neighbours."""
    for user in range(1, 6):
        world.send(*likes(user, range(user, 40, 4), time=START - 20 * DAY))


@given(
    st.lists(
        st.tuples(st.integers(0, 39), st.integers(0, 12), st.sampled_from([0.3, 1.0, 3.0, -1.0])),
        min_size=1,
        max_size=28,
    ),
    st.randoms(use_true_random=False),
)
@settings(max_examples=20, deadline=None, derandomize=True)
def test_any_order_of_arrival_gives_the_same_list_and_reasons(
    chosen: list[tuple[int, int, float]], random: Any
) -> None:
    events = [
        {"user": 0, "item": f"i{item}", "time": START - day * DAY, "weight": weight, "id": f"e{n}"}
        for n, (item, day, weight) in enumerate(chosen)
    ]
    made = []
    for shuffled in (False, True):
        world = World(40)
        other_users(world)
        stream = sorted(events, key=lambda event: (event["time"], hash_id(str(event["id"]))))
        if shuffled:
            random.shuffle(stream)
        # The items' own counts stay those of the others: neighbours depend on the arrival.
        world.recommender.update(world.users, world.batch(stream))
        made.append(world.recommend([0], now=START + 60, k=10))
    assert made[0].rows.tolist() == made[1].rows.tolist()
    assert made[0].because.tolist() == made[1].because.tolist()
    assert made[0].channels.tolist() == made[1].channels.tolist()
    assert made[0].strengths.tolist() == made[1].strengths.tolist()


def test_clicks_of_a_phone_that_was_offline_do_not_push_todays_likes_out() -> None:
    lists = []
    for late in (False, True):
        world = World(80)
        other_users(world)
        today = likes(0, range(0, 20, 2), time=START)
        old = likes(0, range(1, 17, 2), time=START - 9 * DAY, weight=0.5)
        world.recommender.update(world.users, world.batch([*today, *old] if late else old + today))
        lists.append(world.recommend([0], now=START + 60, k=10))
    assert lists[1].rows.tolist() == lists[0].rows.tolist()
    assert lists[1].because.tolist() == lists[0].because.tolist()


def test_interests_are_named_with_share_and_change() -> None:
    world = World(40)
    world.send(*likes(0, [0, 2, 4], time=START - 10 * DAY), *likes(0, [1], time=START))
    made = world.recommend([0], now=START + 60)
    labels = [world.items.labels[label] if label >= 0 else "" for label in made.labels[0]]
    assert labels == ["group 0", "group 1", ""]
    assert made.strengths[0, :2].sum() == pytest.approx(1.0)
    assert made.strengths[0, 2] == 0.0
    assert made.changes[0, 0] < -0.1
    assert made.changes[0, 1] == pytest.approx(made.strengths[0, 1], abs=0.01)


def test_an_interest_whose_medoid_is_gone_is_named_after_its_nearest_item() -> None:
    world = World(40)
    world.send(*likes(0, [0, 2]))
    world.states.interest_heads["medoid"][0, 0] = hash_id("gone")
    made = world.recommend([0], now=START + 60)
    assert world.items.labels[made.labels[0, 0]] == "group 0"


def test_list_hash_tells_lists_apart_and_knows_equal_ones() -> None:
    world = World(40)
    world.send(*likes(0, [0, 2]), *likes(1, [0, 2]), *likes(2, [1]))
    one, twin, other = world.recommend([0, 1, 2], now=START + 60).list_hash.tolist()
    assert one == twin != other
