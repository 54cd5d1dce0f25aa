"""The decay mathematics against closed forms, and slots in small worlds with known answers."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker import interest
from tracker.interest import (
    DAY_SECONDS,
    FIXED_ONE,
    SLOT,
    InterestConfig,
    add_to_slots,
    decay,
    drift,
    forward_decay_add,
    forward_decay_merge,
    slot_strength,
    unit_mean,
)

START = 1.7e9
HALF_LIVES = (1800.0, 86400.0, 604800.0, 5184000.0)
deterministic = settings(deadline=None, derandomize=True)  # the first call compiles


class Sum:
    """A decayed sum of vectors, driven through the reference kernels."""

    def __init__(self, half_life: float, dim: int = 3) -> None:
        self.half_life = half_life
        self.total = np.zeros(dim)
        self.mass = 0.0
        self.ref_time = 0.0

    def add(self, time: float, weight: float, vector: Any) -> None:
        self.mass, self.ref_time = forward_decay_add(
            self.total, self.mass, self.ref_time, time, weight, vector, self.half_life
        )

    def merge(self, other: "Sum") -> None:
        self.mass, self.ref_time = forward_decay_merge(
            self.total,
            self.mass,
            self.ref_time,
            other.total,
            other.mass,
            other.ref_time,
            self.half_life,
        )

    def equals(self, other: "Sum", relative: float = 1e-6) -> bool:
        scale = max(abs(other.mass), 1e-12)
        return (
            self.ref_time == other.ref_time
            and abs(self.mass - other.mass) <= relative * scale
            and bool(np.abs(self.total - other.total).max() <= relative * scale)
        )


histories = st.lists(
    st.tuples(
        st.floats(1.7e9, 1.7e9 + 30 * 86400), st.floats(0.1, 10.0), st.integers(0, 2**32 - 1)
    ),
    min_size=1,
    max_size=30,
)


def vector_of(seed: int) -> Any:
    vector = np.random.default_rng(seed).standard_normal(3)
    return vector / np.linalg.norm(vector)


@deterministic
@given(histories, st.randoms(use_true_random=False), st.sampled_from(HALF_LIVES))
def test_any_order_of_arrival_gives_the_same_sums(
    history: list[tuple[float, float, int]], random: Any, half_life: float
) -> None:
    in_order, shuffled = Sum(half_life), Sum(half_life)
    for time, weight, seed in sorted(history):
        in_order.add(time, weight, vector_of(seed))
    random.shuffle(history)
    for time, weight, seed in history:
        shuffled.add(time, weight, vector_of(seed))
    assert shuffled.equals(in_order)


@deterministic
@given(histories, st.integers(0, 30), st.sampled_from(HALF_LIVES))
def test_two_states_merge_to_the_sums_of_both(
    history: list[tuple[float, float, int]], cut: int, half_life: float
) -> None:
    whole, first, second = Sum(half_life), Sum(half_life), Sum(half_life)
    for i, (time, weight, seed) in enumerate(history):
        whole.add(time, weight, vector_of(seed))
        (first if i < cut else second).add(time, weight, vector_of(seed))
    first.merge(second)
    assert first.equals(whole)


@deterministic
@given(histories, st.sampled_from(HALF_LIVES))
def test_a_retraction_is_as_if_the_event_had_never_come(
    history: list[tuple[float, float, int]], half_life: float
) -> None:
    latest = max(time for time, _, _ in history)
    kept, retracted = Sum(half_life), Sum(half_life)
    for time, weight, seed in history:
        kept.add(time, weight, vector_of(seed))
        retracted.add(time, weight, vector_of(seed))
    retracted.add(latest - 5000.0, 3.0, vector_of(1))
    retracted.add(latest - 5000.0, -3.0, vector_of(1))
    assert retracted.equals(kept)


def test_the_reference_does_in_python_what_it_does_in_native_code() -> None:
    native, plain = Sum(86400.0), Sum(86400.0)
    for i in range(10):
        time = START + 50000.0 * (i % 4)
        native.add(time, 1.0, vector_of(i))
        plain.mass, plain.ref_time = interest.forward_decay_add.py_func(  # type: ignore[attr-defined]
            plain.total, plain.mass, plain.ref_time, time, 1.0, vector_of(i), 86400.0
        )
    assert plain.equals(native)
    other = Sum(86400.0)
    merged = interest.forward_decay_merge.py_func(  # type: ignore[attr-defined]
        other.total, 0.0, 0.0, plain.total, plain.mass, plain.ref_time, 86400.0
    )
    assert merged == (plain.mass, plain.ref_time)


def test_decay_halves_in_a_half_life_and_ends_at_nothing() -> None:
    assert decay(0.0, 10.0) == 1.0
    assert decay(-5.0, 10.0) == 1.0
    assert decay(10.0, 10.0) == pytest.approx(0.5)
    assert decay(30.0, 10.0) == pytest.approx(0.125)
    assert decay(1e12, 1800.0) == 0.0
    assert decay(1e12, math.inf) == 1.0


def test_a_sum_in_float32_keeps_to_the_float64_one_within_a_stated_bound() -> None:
    random = np.random.default_rng(7)
    exact, stored = Sum(604800.0), Sum(604800.0)
    stored.total = stored.total.astype(np.float32)
    for i in range(2000):
        vector = vector_of(i)
        time = 1.7e9 + 1000.0 * i - random.random() * 5000.0
        exact.add(time, 1.0, vector)
        stored.add(time, 1.0, vector)
    assert stored.equals(exact, relative=2e-6)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"half_lives_seconds": ()}, "half_lives_seconds"),
        ({"half_lives_seconds": (0.0,)}, "half_lives_seconds has 0.0"),
        ({"slot_half_life_seconds": math.nan}, "slot_half_life_seconds has nan"),
        ({"slots": 0}, "slots is 0"),
        ({"slot_threshold": 1.0}, "slot_threshold is 1.0"),
        ({"ring": 300}, "ring is 300"),
        ({"ring_evict": 28}, "ring_evict is 28"),
        ({"seen_bits": 16400}, "multiple of 64"),
        ({"rating_min": 5.0}, "rating_min 5.0"),
    ],
)
def test_a_configuration_no_state_can_have_is_refused_by_name(
    changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        InterestConfig(**changes)


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


def test_drift_of_a_null_interest_is_none() -> None:
    same = np.ones((1, 4), np.float32)
    assert drift(np.zeros((1, 4), np.float32), same).tolist() == [0.0]
    assert drift(same, same)[0] == pytest.approx(0.0, abs=1e-6)


def test_the_kernels_do_in_python_what_they_do_in_native_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fill(slots: Slots) -> Slots:
        random = np.random.default_rng(3)
        for i in range(40):
            slots.add(i + 1, 1e6 + 1e5 * random.random(), random.standard_normal(6))
        return slots

    native = fill(Slots(threshold=0.6))
    for name, kernel in list(vars(interest).items()):
        if hasattr(kernel, "py_func"):
            monkeypatch.setattr(interest, name, kernel.py_func)
    monkeypatch.setitem(globals(), "add_to_slots", interest.add_to_slots)
    plain = fill(Slots(threshold=0.6))
    assert plain.used == native.used
    assert np.array_equal(plain.heads["medoid"], native.heads["medoid"])
    assert plain.heads["mass"] == pytest.approx(native.heads["mass"], rel=1e-5)
    assert np.abs(plain.means.astype(int) - native.means.astype(int)).max() <= 4
