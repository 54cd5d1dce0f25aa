"""Interest slots in small worlds with known answers."""

from typing import Any

import numpy as np
import pytest

from tracker.users import slots as slots_module
from tracker.users.slots import DAY_SECONDS, FIXED_ONE, SLOT, add_to_slots, slot_strength, unit_mean


class Slots:
    """The slots of one user, in a world of `dim` orthogonal interests."""

    def __init__(self, n: int = 3, dim: int = 6, threshold: float = 0.5) -> None:
        self.heads = np.zeros(n, SLOT)
        self.means = np.zeros((n, dim), np.int16)
        self.used = 0
        self.threshold = threshold

    def add(self, item: int, time: float, vector: Any, weight: float = 1.0) -> None:
        vector = np.asarray(vector, np.float32)
        self.used = add_to_slots(
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

    def vector(self, slot: int) -> Any:
        out = np.zeros(self.means.shape[1], np.float32)
        unit_mean(self.means[slot], out)
        return out


AXES = np.eye(6)


def test_events_of_one_interest_share_a_slot_and_others_open_their_own() -> None:
    slots = Slots()
    slots.add(1, 100.0, AXES[0])
    slots.add(2, 100.0, AXES[0] + 0.3 * AXES[1])
    slots.add(3, 100.0, AXES[2], weight=2.0)
    assert slots.used == 2
    assert slots.heads["mass"][:2].tolist() == [2.0, 2.0]
    assert slots.heads["events"][:2].tolist() == [2, 1]
    assert slots.vector(0) @ AXES[0] > 0.98
    assert slots.vector(1) @ AXES[2] == pytest.approx(1.0)


def test_a_mean_is_weighted_by_decayed_weights_whatever_the_order() -> None:
    half_life = 1209600.0
    late, early = Slots(), Slots()
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
    slots = Slots()
    slots.add(1, 0.0, AXES[0] + 0.8 * AXES[1])
    slots.add(2, 0.0, AXES[0] - 0.8 * AXES[1] + 1.2 * AXES[0])
    slots.add(3, 0.0, AXES[0] + 0.1 * AXES[1])
    assert slots.used == 1
    assert slots.heads["medoid"][0] == 3
    assert slots.heads["medoid_score"][0] > 0.98


def test_when_all_slots_are_taken_the_weakest_by_decayed_mass_gives_way() -> None:
    slots = Slots()
    slots.add(1, 0.0, AXES[0], weight=3.0)
    slots.add(2, 10 * 1209600.0, AXES[1], weight=1.0)
    slots.add(3, 10 * 1209600.0, AXES[2], weight=2.0)
    slots.add(4, 10 * 1209600.0, AXES[3])
    assert slots.used == 3
    assert slots.heads["medoid"].tolist() == [4, 2, 3]


def test_two_slots_that_came_close_are_merged_before_one_is_lost() -> None:
    slots = Slots(threshold=0.8)
    slots.add(1, 0.0, AXES[0] + 0.7 * AXES[1])
    slots.add(2, 0.0, AXES[0] - 0.7 * AXES[1])
    slots.add(3, 0.0, AXES[2])
    # Both move towards the first axis, until they are closer to each other than the threshold.
    slots.add(4, 0.0, AXES[0] + 0.15 * AXES[1], weight=10.0)
    slots.add(5, 0.0, AXES[0] - 0.25 * AXES[1], weight=10.0)
    assert slots.used == 3
    before = slots.heads["mass"].sum()
    slots.add(6, 0.0, AXES[4])
    assert slots.used == 3
    assert slots.heads["mass"].sum() == pytest.approx(before + 1.0)
    assert sorted(slots.heads["events"].tolist()) == [1, 1, 4]
    axes = sorted(int(np.abs(slots.vector(s)).argmax()) for s in range(3))
    assert axes == [0, 2, 4]


def test_a_null_vector_or_one_with_nan_is_left_out_of_the_slots() -> None:
    slots = Slots()
    for bad in (np.zeros(6, np.float32), np.full(6, np.nan, np.float32)):
        used = add_to_slots(
            slots.heads,
            slots.means,
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
    slots = Slots()
    start = 100 * DAY_SECONDS
    half_life = 1209600.0
    slots.add(1, start + 3600.0, AXES[0], weight=4.0)
    strength, change = slot_strength(slots.heads[0], start + 3600.0, half_life)
    assert (strength, change) == (4.0, 4.0)
    # No event for two days: the change is decay alone.
    strength, change = slot_strength(slots.heads[0], start + 3600.0 + 2 * DAY_SECONDS, half_life)
    assert strength == pytest.approx(4.0 * 2 ** (-2 / 14))
    assert change == pytest.approx(4.0 * (2 ** (-2 / 14) - 2 ** (-1 / 14)))
    # An event the next day: the change is against the mass when that day began.
    slots.add(2, start + DAY_SECONDS + 60.0, AXES[0], weight=1.0)
    strength, change = slot_strength(slots.heads[0], start + DAY_SECONDS + 60.0, half_life)
    morning = 4.0 * 2 ** (-(DAY_SECONDS - 3600.0) / half_life)
    assert strength - change == pytest.approx(morning, rel=1e-3)
    # Late, of the day before: it is part of that morning as well.
    slots.add(3, start + 7200.0, AXES[0], weight=2.0)
    strength, change = slot_strength(slots.heads[0], start + DAY_SECONDS + 60.0, half_life)
    late = 2.0 * 2 ** (-(DAY_SECONDS - 7200.0) / half_life)
    assert strength - change == pytest.approx(morning + late, rel=1e-3)


def test_the_kernels_do_in_python_what_they_do_in_native_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fill(slots: Slots) -> Slots:
        random = np.random.default_rng(3)
        for i in range(40):
            slots.add(i + 1, 1e6 + 1e5 * random.random(), random.standard_normal(6))
        return slots

    native = fill(Slots(threshold=0.6))
    for name, kernel in list(vars(slots_module).items()):
        if hasattr(kernel, "py_func"):
            monkeypatch.setattr(slots_module, name, kernel.py_func)
    monkeypatch.setitem(globals(), "add_to_slots", slots_module.add_to_slots)
    plain = fill(Slots(threshold=0.6))
    assert plain.used == native.used
    assert np.array_equal(plain.heads["medoid"], native.heads["medoid"])
    assert plain.heads["mass"] == pytest.approx(native.heads["mass"], rel=1e-5)
    assert np.abs(plain.means.astype(int) - native.means.astype(int)).max() <= 4
