"""The decay mathematics against closed forms, in any order."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.decay_reference import forward_decay_add
from tracker.kernels.arithmetic import decay, forward_decay_merge
from tracker.users.config import InterestConfig

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
        plain.mass, plain.ref_time = forward_decay_add.py_func(  # type: ignore[attr-defined]
            plain.total, plain.mass, plain.ref_time, time, 1.0, vector_of(i), 86400.0
        )
    assert plain.equals(native)
    other = Sum(86400.0)
    merged = forward_decay_merge.py_func(  # type: ignore[attr-defined]
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
