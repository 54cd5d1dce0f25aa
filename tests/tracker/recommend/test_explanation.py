"""Explanations: shares of events are exact, and are the same alone and in a batch."""

from typing import Any

import numpy as np
import pytest

from tests.worlds import START, World, likes
from tracker.recommend import explanation as module
from tracker.recommend.explanation import sum_for_shares
from tracker.recommend.lists import Explanation, joined_batches
from tracker.users.states import RING_IN_SUMS, RING_RETRACTED


def told_of(made: Any) -> Explanation:
    assert made.explanation is not None
    told: Explanation = made.explanation
    return told


def by_hand(world: World, row: int, reasons: list[int], now: float) -> list[float]:
    """Return the shares of reasons, others and earlier events of an item, in float64."""
    which, half_life = sum_for_shares(world.asked([0], now=now), world.recommender.options)
    vectors = np.asarray(world.items.vectors, np.float64)
    head = world.states.head[0]
    total = world.states.sums[0, which] * 2.0 ** (-(now - float(head["ref_time"])) / half_life)
    parts: dict[int, float] = {}
    for entry in world.states.ring[0, : int(head["n_ring"])]:
        own = int(world.items.row_of(np.array([entry["item"]], np.uint64))[0])
        flags = int(entry["flags"]) & (RING_IN_SUMS | RING_RETRACTED)
        if flags == RING_IN_SUMS and entry["weight"] > 0.0:
            fade = 2.0 ** (-(now - float(entry["time"])) / half_life)
            part = float(entry["weight"]) * fade * float(vectors[own] @ vectors[row])
            parts[own] = parts.get(own, 0.0) + part
    earlier = max(float(vectors[row] @ total) - sum(parts.values()), 0.0)
    named = [parts[reason] for reason in reasons]
    others = max(sum(parts.values()) - sum(named), 0.0)
    whole = sum(named) + others + earlier
    return [*(part / whole for part in named), others / whole, earlier / whole]


def test_shares_are_those_of_the_decayed_sum_and_add_up_to_one() -> None:
    world = World(users=1)
    ring = world.states.ring.shape[1]
    world.send(*likes(0, [0, 2, 4, 2]))
    for more in ([], [number % 20 for number in range(ring + 6)]):
        if more:
            world.send(*likes(0, more, time=START + 1000.0))
        now = START + 200_000.0
        made = world.recommend([0], now=now, k=6)
        told = told_of(made)
        for place, row in enumerate(made.rows[0].tolist()):
            reasons = [reason for reason in made.because_rows[0, place].tolist() if reason >= 0]
            if not reasons:
                continue
            shares = [
                *told.shares[0, place, : len(reasons)].tolist(),
                float(told.others[0, place]),
                float(told.earlier[0, place]),
            ]
            assert sum(shares) == pytest.approx(1.0, abs=1e-5)
            assert shares == pytest.approx(by_hand(world, row, reasons, now), abs=2e-3)
        assert (told.earlier[0] > 0.1).any() == bool(more)


def test_an_item_is_of_the_interest_that_it_is_nearest_to() -> None:
    world = World(users=1)
    world.send(*likes(0, [0, 2, 4]), *likes(0, [1], time=START + 9.0))
    made = world.recommend([0], now=START + 60.0, k=8)
    told = told_of(made)
    names = [world.items.labels[label] for label in told.labels[0, :2].tolist()]
    assert sorted(names) == ["group 0", "group 1"]
    for row, interest in zip(made.rows[0].tolist(), told.interests[0].tolist(), strict=True):
        assert names[interest] == f"group {row % 2}"


def test_nothing_speaks_for_items_of_somebody_unknown() -> None:
    world = World(users=1)
    told = told_of(world.recommend([-1], now=START, k=3))
    assert not told.shares.any()
    assert not told.earlier.any()
    assert (told.interests == -1).all()
    assert (told.births == -1).all()


def test_without_explanation_a_list_has_the_same_items_and_no_reasons() -> None:
    world = World(users=1)
    world.send(*likes(0, [0, 2, 4]))
    made = world.recommend([0], now=START + 60.0)
    plain = world.with_options(explain="off").recommend([0], now=START + 60.0)
    assert plain.rows.tolist() == made.rows.tolist()
    assert plain.list_hash.tolist() == made.list_hash.tolist()
    assert plain.explanation is None
    assert (plain.because_rows == -1).all()
    assert not plain.because.any()


def test_a_users_explanation_does_not_depend_on_the_others_of_the_batch() -> None:
    world = World(users=3).with_options(explain="parts")
    world.send(*likes(0, [0, 2]), *likes(1, [1, 3, 5]), *likes(2, [4]))
    together = world.recommend([0, 1, 2], now=START + 60.0)
    alone = joined_batches([world.recommend([user], now=START + 60.0) for user in range(3)])
    one, other = told_of(together), told_of(alone)
    for name in ("labels", "medoids", "births", "interests", "shares", "others", "earlier"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.parts is not None
    assert other.parts is not None
    assert np.array_equal(one.parts.groups, other.parts.groups)
    assert one.parts.bases[:, None] + one.parts.groups.sum(axis=2) == pytest.approx(
        together.scores, abs=1e-4
    )


def test_compiled_shares_are_those_of_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(users=1)
    world.send(*likes(0, [0, 2, 4, 1]))
    native = told_of(world.recommend([0], now=START + 60.0))
    for name in ("_describe", "_weigh_reasons"):
        monkeypatch.setattr(module, name, getattr(module, name).py_func)
    plain = told_of(world.recommend([0], now=START + 60.0))
    assert native.shares == pytest.approx(plain.shares, abs=1e-5)
    assert native.others == pytest.approx(plain.others, abs=1e-5)
    assert np.array_equal(native.interests, plain.interests)
