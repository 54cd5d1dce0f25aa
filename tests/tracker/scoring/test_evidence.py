"""What prediction reads: hand-computed in small worlds, alone as in a batch, native as plain."""

from typing import Any

import numpy as np
import pytest

from tests.worlds import DAY, START, World
from tracker.events.label_rule import LabelRule
from tracker.scoring import evidence as module
from tracker.scoring.evidence import EVIDENCE, Priors, read_evidence
from tracker.users.readings import read_histories

PRIORS = Priors(weight=0.5, liked=0.8, taken=0.6, label=0.5, item=2.0, user=3.0)
RULE = LabelRule()


def ask(
    world: World, users: list[int], rows: Any, now: float = START + 100.0, scene: str | None = None
) -> Any:
    asked = world.asked(users, now=now, scene=scene)
    read = read_histories(asked, world.items)
    wanted = np.asarray(rows, np.int64).reshape(len(users), -1)
    return read_evidence(
        read, asked, wanted, world.view, np.asarray(world.items.full), RULE, PRIORS
    )


def act(user: int, item: int, weight: float, at: float = 0.0, **more: Any) -> dict[str, Any]:
    return {"user": user, "item": f"i{item}", "weight": weight, "time": START + at, **more}


def value(found: Any, name: str) -> float:
    return float(found[EVIDENCE.index(name)])


def busy_world(seed: int = 0) -> World:
    random = np.random.default_rng(seed)
    world = World()
    for n in range(60):
        world.send(
            act(
                int(random.integers(6)), int(random.integers(40)),
                float(random.choice([2.0, 0.5, -2.0, 0.0])), 10.0 * n,
                scene=("home", "search")[n % 2],
            )
        )  # fmt: skip
    return world


def test_nothing_is_known_of_a_new_user_and_a_new_item() -> None:
    found = ask(World(), [-1], [3])[0, 0]
    assert value(found, "item_new") == 1.0
    assert np.flatnonzero(found).tolist() == [EVIDENCE.index("item_new")]


def test_an_items_means_are_smoothed_towards_the_catalogues() -> None:
    world = World()
    world.send(act(0, 1, 2.0), act(1, 1, 2.0), act(2, 1, -2.0), act(3, 1, 0.0))
    found = ask(world, [5], [1], now=START + 4.0)[0, 0]
    assert value(found, "item_mean") == pytest.approx((2.0 - 4 * 0.5) / 6.0)
    assert value(found, "item_count") == pytest.approx(np.log2(5.0))
    assert value(found, "item_liked") == pytest.approx((2.0 - 3 * 0.8) / 5.0)
    assert value(found, "item_taken") == pytest.approx((2.0 - 4 * 0.6) / 6.0)
    assert value(found, "item_new") == 0.0


def test_what_was_long_ago_counts_less_in_the_mean_of_ten_days() -> None:
    world = World()
    world.send(act(0, 1, 2.0), act(1, 1, 0.1, 30 * DAY))
    found = ask(world, [5], [1], now=START + 30 * DAY)[0, 0]
    assert value(found, "item_mean_10d") < value(found, "item_mean")


def test_a_users_means_are_of_weights_and_of_what_the_item_does_not_explain() -> None:
    world = World()
    world.send(act(1, 7, -2.0), act(2, 7, -2.0), act(0, 7, 2.0, 5.0), act(0, 8, 0.5, 60.0))
    found = ask(world, [0], [20], now=START + 120.0)[0, 0]
    assert value(found, "user_mean") == pytest.approx(1.5 / 5.0)
    # The other two of item 7 have mean (-4 + 2 x .5) / 4; of item 8 there are no others.
    assert value(found, "user_residual") == pytest.approx((2.75 + 0.0) / 5.0)
    assert value(found, "user_residual_8") == pytest.approx((0.8 * 2.75) / 4.8)
    assert value(found, "user_last") == 0.0
    assert value(found, "user_liked") == pytest.approx((2 - 1.0) / 5.0)
    assert value(found, "user_positive") == pytest.approx((2 - 1.2) / 5.0)
    assert value(found, "user_events") == pytest.approx(np.log2(3.0))
    assert value(found, "gap") == pytest.approx(1.0)  # log2 of 1 + a minute


def test_what_resembles_liked_items_differs_from_what_resembles_disliked_ones() -> None:
    world = World()
    world.send(act(0, 0, 2.0), act(0, 2, 2.0, 1.0), act(0, 1, -2.0, 2.0), act(0, 3, -2.0, 3.0))
    like, dislike = ask(world, [0], [4, 5])[0]
    for name in ("content_60", "content_95"):
        assert value(like, name) > 0.1 > -0.1 > value(dislike, name)
    for name in ("liked_60", "liked_95"):
        assert value(like, name) > 0.5 > 0.2 > value(dislike, name)
    for name in ("disliked_60", "disliked_95"):
        assert value(dislike, name) > 0.5 > 0.2 > value(like, name)


def test_neighbours_tell_of_items_chosen_together() -> None:
    world = World()
    for user in (1, 2, 3):  # 10 and 11 are chosen together, and 20 and 21
        world.send(act(user, 10, 1.0), act(user, 11, 1.0, 1.0))
    for user in (4, 5, 6):
        world.send(act(user, 20, 1.0), act(user, 21, 1.0, 1.0))
    world.send(act(0, 10, 2.0, 10.0), act(0, 20, -2.0, 11.0))
    near, far, neither = ask(world, [0], [11, 21, 30])[0]
    assert value(near, "neighbours") > 0.0 > value(far, "neighbours")
    assert value(near, "neighbours_mass") > 0.0 == value(neither, "neighbours_mass")


def test_a_users_own_events_on_an_item_are_told_apart() -> None:
    world = World()
    world.send(act(0, 4, 2.0), act(0, 4, 1.0, 1.0), act(0, 5, 1.0, 2.0))
    again, once, never = ask(world, [0], [4, 5, 6])[0]
    assert value(again, "own_count") == pytest.approx(np.log2(3.0))
    assert value(again, "own_mean") == pytest.approx((3.0 - 1.0) / 3.0)
    assert (value(once, "own_count"), value(never, "own_count")) == (1.0, 0.0)


def test_the_scene_matches_or_not() -> None:
    world = World()
    for user in range(4):
        world.send(act(user, 4, 1.0, scene="home"), act(user, 5, -1.0, scene="search"))
    home, search, none = (ask(world, [0], [4], scene=s)[0, 0] for s in ("home", "search", None))
    assert value(home, "item_scene") > 0.5
    assert value(search, "item_scene") == value(none, "item_scene") == 0.0
    assert value(none, "user_scene") == 0.0


def test_retracted_events_say_nothing() -> None:
    world, without = World(), World()
    for each in (world, without):
        each.send(act(0, 1, 2.0, id="a"), act(0, 2, 1.0, 1.0))
    without.send({"user": 0, "retracts": "a", "time": START + 2.0})
    assert value(ask(world, [0], [9])[0, 0], "user_mean") > 0.3
    found = ask(without, [0], [9])[0, 0]
    assert value(found, "user_mean") == pytest.approx(0.5 / 4.0)
    assert value(found, "user_events") == 1.0


def test_a_product_is_that_of_its_parts() -> None:
    found = ask(busy_world(), [0, 1], [[1, 2, 3], [4, 5, 6]], scene="home").reshape(6, -1)
    for place, name in enumerate(EVIDENCE):
        if "*" in name:
            a, b = name.split("*")
            expected = found[:, EVIDENCE.index(a)] * found[:, EVIDENCE.index(b)]
            np.testing.assert_allclose(found[:, place], expected, rtol=1e-5, atol=1e-7)


def test_a_batch_says_what_each_says_alone_and_padding_nothing() -> None:
    world = busy_world()
    users, rows = [0, 3, -1, 5], np.array([[1, 2, -1], [7, 7, 9], [3, -1, -1], [0, 39, 12]])
    together = ask(world, users, rows, scene="search")
    assert np.isfinite(together).all()
    assert not together[rows < 0].any()
    for n, user in enumerate(users):
        alone = ask(world, [user], rows[n], scene="search")
        np.testing.assert_array_equal(together[n], alone[0])


def test_the_native_kernel_says_what_the_plain_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    world = busy_world()
    users, rows = [0, 2, -1], [[1, 2], [3, 30], [5, 6]]
    expected = ask(world, users, rows, scene="home")
    for name, kernel in list(vars(module).items()):
        if hasattr(kernel, "py_func"):
            monkeypatch.setattr(module, name, kernel.py_func)
    np.testing.assert_allclose(
        ask(world, users, rows, scene="home"), expected, rtol=1e-4, atol=1e-5
    )
