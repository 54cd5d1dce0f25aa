"""Interests in small worlds with known answers."""

from typing import Any

import numpy as np
import pytest

from tracker.users import interests as interests_module
from tracker.users.interests import (
    DAY_SECONDS,
    FIXED_ONE,
    INTEREST,
    add_to_interests,
    interest_strength,
    unit_mean,
)


class Interests:
    """The interests of one user, in a world of `dim` orthogonal interests."""

    def __init__(self, n: int = 3, dim: int = 6, threshold: float = 0.5) -> None:
        self.heads = np.zeros(n, INTEREST)
        self.means = np.zeros((n, dim), np.int16)
        self.used = 0
        self.threshold = threshold

    def add(self, item: int, time: float, vector: Any, weight: float = 1.0) -> None:
        vector = np.asarray(vector, np.float32)
        self.used = add_to_interests(
            self.heads,
            self.means,
            self.used,
            np.uint64(item),
            time,
            weight,
            vector / np.float32(np.linalg.norm(vector)),
            np.zeros(self.means.shape, np.float32),
            1209600.0,
            self.threshold,
        )

    def vector(self, interest: int) -> Any:
        out = np.zeros(self.means.shape[1], np.float32)
        unit_mean(self.means[interest], out)
        return out


AXES = np.eye(6)


def test_events_near_each_other_share_an_interest_and_others_open_their_own() -> None:
    interests = Interests()
    interests.add(1, 100.0, AXES[0])
    interests.add(2, 100.0, AXES[0] + 0.3 * AXES[1])
    interests.add(3, 100.0, AXES[2], weight=2.0)
    assert interests.used == 2
    assert interests.heads["mass"][:2].tolist() == [2.0, 2.0]
    assert interests.heads["events"][:2].tolist() == [2, 1]
    assert interests.vector(0) @ AXES[0] > 0.98
    assert interests.vector(1) @ AXES[2] == pytest.approx(1.0)


def test_a_mean_is_weighted_by_decayed_weights_whatever_the_order() -> None:
    half_life = 1209600.0
    late, early = Interests(), Interests()
    a, b = AXES[0] + 0.2 * AXES[1], AXES[0] - 0.5 * AXES[1]
    late.add(1, 0.0, a)
    late.add(2, half_life, b)
    early.add(2, half_life, b)
    early.add(1, 0.0, a)
    assert late.heads["mass"][0] == pytest.approx(1.5)
    assert early.heads["mass"][0] == pytest.approx(1.5)
    assert np.abs(late.means[0].astype(int) - early.means[0].astype(int)).max() <= 1
    expected = (0.5 * a / np.linalg.norm(a) + b / np.linalg.norm(b)) / 1.5
    assert late.means[0] / FIXED_ONE == pytest.approx(expected, abs=1e-4)
    assert late.heads["born"][0] == early.heads["born"][0] == 0.0


def test_the_medoid_is_the_item_nearest_to_the_mean() -> None:
    interests = Interests()
    interests.add(1, 0.0, AXES[0] + 0.8 * AXES[1])
    interests.add(2, 0.0, AXES[0] - 0.8 * AXES[1] + 1.2 * AXES[0])
    interests.add(3, 0.0, AXES[0] + 0.1 * AXES[1])
    assert interests.used == 1
    assert interests.heads["medoid"][0] == 3
    assert interests.heads["medoid_score"][0] > 0.98


def test_when_all_places_are_taken_the_weakest_by_decayed_mass_gives_way() -> None:
    interests = Interests()
    interests.add(1, 0.0, AXES[0], weight=3.0)
    interests.add(2, 10 * 1209600.0, AXES[1], weight=1.0)
    interests.add(3, 10 * 1209600.0, AXES[2], weight=2.0)
    interests.add(4, 10 * 1209600.0, AXES[3])
    assert interests.used == 3
    assert interests.heads["medoid"].tolist() == [4, 2, 3]


def test_two_interests_that_came_close_are_merged_before_one_is_lost() -> None:
    interests = Interests(threshold=0.8)
    interests.add(1, 0.0, AXES[0] + 0.7 * AXES[1])
    interests.add(2, 0.0, AXES[0] - 0.7 * AXES[1])
    interests.add(3, 0.0, AXES[2])
    # Both move towards the first axis, until they are closer to each other than the threshold.
    interests.add(4, 0.0, AXES[0] + 0.15 * AXES[1], weight=10.0)
    interests.add(5, 0.0, AXES[0] - 0.25 * AXES[1], weight=10.0)
    assert interests.used == 3
    before = interests.heads["mass"].sum()
    interests.add(6, 0.0, AXES[4])
    assert interests.used == 3
    assert interests.heads["mass"].sum() == pytest.approx(before + 1.0)
    assert sorted(interests.heads["events"].tolist()) == [1, 1, 4]
    axes = sorted(int(np.abs(interests.vector(s)).argmax()) for s in range(3))
    assert axes == [0, 2, 4]


def test_a_null_vector_or_one_with_nan_is_left_out_of_the_interests() -> None:
    interests = Interests()
    for bad in (np.zeros(6, np.float32), np.full(6, np.nan, np.float32)):
        used = add_to_interests(
            interests.heads,
            interests.means,
            0,
            np.uint64(1),
            0.0,
            1.0,
            bad,
            np.zeros((3, 6), np.float32),
            1.0,
            0.5,
        )
        assert used == 0


def test_strength_and_its_change_since_a_day_before() -> None:
    interests = Interests()
    start = 100 * DAY_SECONDS
    half_life = 1209600.0
    interests.add(1, start + 3600.0, AXES[0], weight=4.0)
    strength, change = interest_strength(interests.heads[0], start + 3600.0, half_life)
    assert (strength, change) == (4.0, 4.0)
    # No event for two days: the change is decay alone.
    strength, change = interest_strength(
        interests.heads[0], start + 3600.0 + 2 * DAY_SECONDS, half_life
    )
    assert strength == pytest.approx(4.0 * 2 ** (-2 / 14))
    assert change == pytest.approx(4.0 * (2 ** (-2 / 14) - 2 ** (-1 / 14)))
    # An event the next day: the change is against the mass when that day began.
    interests.add(2, start + DAY_SECONDS + 60.0, AXES[0], weight=1.0)
    strength, change = interest_strength(interests.heads[0], start + DAY_SECONDS + 60.0, half_life)
    morning = 4.0 * 2 ** (-(DAY_SECONDS - 3600.0) / half_life)
    assert strength - change == pytest.approx(morning, rel=1e-3)
    # Late, of the day before: it is part of that morning as well.
    interests.add(3, start + 7200.0, AXES[0], weight=2.0)
    strength, change = interest_strength(interests.heads[0], start + DAY_SECONDS + 60.0, half_life)
    late = 2.0 * 2 ** (-(DAY_SECONDS - 7200.0) / half_life)
    assert strength - change == pytest.approx(morning + late, rel=1e-3)


def test_the_kernels_do_in_python_what_they_do_in_native_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fill(interests: Interests) -> Interests:
        random = np.random.default_rng(3)
        for i in range(40):
            interests.add(i + 1, 1e6 + 1e5 * random.random(), random.standard_normal(6))
        return interests

    native = fill(Interests(threshold=0.6))
    for name, kernel in list(vars(interests_module).items()):
        if hasattr(kernel, "py_func"):
            monkeypatch.setattr(interests_module, name, kernel.py_func)
    monkeypatch.setitem(globals(), "add_to_interests", interests_module.add_to_interests)
    plain = fill(Interests(threshold=0.6))
    assert plain.used == native.used
    assert np.array_equal(plain.heads["medoid"], native.heads["medoid"])
    assert plain.heads["mass"] == pytest.approx(native.heads["mass"], rel=1e-5)
    assert np.abs(plain.means.astype(int) - native.means.astype(int)).max() <= 4
