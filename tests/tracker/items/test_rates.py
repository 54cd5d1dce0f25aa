"""Rates of the past are weighted means of the true rate, whatever that was."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tracker.items.rates import past_rates

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
HALF_LIVES = np.array(
    [DAY, 10 * DAY, np.inf, 10 * MINUTE, HOUR, 6 * HOUR, 3 * DAY, 60 * DAY, 365.25 * DAY]
)  # in the order of an item's columns


def counted(ages: NDArray[np.float64], numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([(numbers * np.exp2(-ages / half_life)).sum() for half_life in HALF_LIVES])


def weights(ages: NDArray[np.float64], shorter: float, longer: float) -> NDArray[np.float64]:
    """Return the weights of ages in a rate, which add up to about 1 over all seconds."""
    weight: NDArray[np.float64] = np.exp2(-ages / longer)
    if shorter:
        weight -= np.exp2(-ages / shorter)
    weight *= np.log(2.0) / (longer - shorter)
    return weight


def test_an_even_rate_is_found_at_every_age() -> None:
    counts = 100.0 / HOUR * HALF_LIVES / np.log(2.0)  # what 100 an hour for ever add up to
    rates = past_rates(counts, HALF_LIVES)
    assert [one.per_second * HOUR for one in rates] == pytest.approx([100.0] * 8, rel=1e-9)


@given(
    st.lists(
        st.tuples(st.floats(0.0, 20 * DAY), st.floats(60.0, 5 * DAY), st.floats(0.0, 500.0)),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_rate_that_changes_anywhere_is_averaged_by_the_stated_weights(
    bursts: list[tuple[float, float, float]],
) -> None:
    """Known rates: bursts that begin, end and overlap anywhere, also within a step."""
    seconds = np.arange(30.0, 30 * DAY, 60.0)
    rate = np.zeros(len(seconds))  # events an hour at each age
    for start, length, an_hour in bursts:
        rate[(seconds >= start) & (seconds < start + length)] += an_hour
    found = past_rates(counted(seconds, rate / 60.0), HALF_LIVES)[::-1]
    if not rate.any():
        assert found == []
        return
    edges = [0.0, *np.sort(HALF_LIVES)[:-1]]
    for one, shorter, longer in zip(found, edges, edges[1:], strict=False):
        true = (rate * weights(seconds, shorter, longer)).sum() * 60.0
        assert one.per_second * HOUR == pytest.approx(true, rel=1e-6, abs=1e-6)
        assert one.per_second >= 0.0


def test_half_of_the_weight_lies_between_the_stated_ages() -> None:
    rates = past_rates(np.arange(1.0, 10.0), HALF_LIVES)[::-1]
    edges = [0.0, *np.sort(HALF_LIVES)[:-1]]
    for one, shorter, longer in zip(rates, edges, edges[1:], strict=False):
        step = longer / 20_000.0
        ages = np.arange(step / 2.0, 64.0 * longer, step)
        below = np.cumsum(weights(ages, shorter, longer) * step)
        at = np.searchsorted(ages, [one.start, one.middle, one.end]) - 1
        assert below[at] == pytest.approx([0.25, 0.5, 0.75], abs=1e-3)
    assert [round(one.middle / HOUR, 1) for one in rates[:4]] == [0.2, 1.3, 7.6, 33.5]


def test_a_burst_stands_out_at_its_age_and_nowhere_before_it() -> None:
    ages = np.random.default_rng(1).uniform(8 * HOUR, 9 * HOUR, 300)
    rates = past_rates(counted(ages, np.ones(300)), HALF_LIVES)[::-1]
    assert max(rates, key=lambda one: one.per_second) == rates[2]
    assert rates[0].per_second * HOUR < 0.1


def test_nothing_counted_has_no_rates_and_no_rate_is_negative() -> None:
    assert past_rates(np.zeros(9), HALF_LIVES) == []
    chance = np.random.default_rng(3)
    for _ in range(50):  # counts that no events give
        rates = past_rates(chance.random(9) * 10.0, HALF_LIVES)
        assert all(np.isfinite(one.per_second) and one.per_second >= 0.0 for one in rates)
