"""The trend of the last day agrees with the events that the counts were made of."""

import numpy as np
import pytest
from numpy.typing import NDArray

from tracker.items.day_trend import DAY_SECONDS, Stretch, day_trend

HALF_LIVES = np.array(
    [600.0, 3600.0, 21600.0, 86400.0, 259200.0, 864000.0, 5184000.0, 31536000.0, np.inf]
)


def trend(ages: NDArray[np.float64]) -> list[Stretch]:
    counts = np.array([np.exp2(-ages / half_life).sum() for half_life in HALF_LIVES])
    return day_trend(counts, HALF_LIVES, float(ages.max()))


def in_stretches(ages: NDArray[np.float64], stretches: list[Stretch]) -> list[int]:
    return [int(((ages >= one.start) & (ages < one.end)).sum()) for one in stretches]


@pytest.mark.parametrize("start", [0.0, 1800.0, 30_000.0])
def test_events_of_a_stretch_are_found_there(start: float) -> None:
    ages = np.random.default_rng(1).uniform(start, min(start * 2.5 + 3000.0, DAY_SECONDS), 300)
    stretches = trend(ages)
    assert [one.start for one in stretches] == [21600.0, 3600.0, 600.0, 0.0]
    assert [one.events for one in stretches] == pytest.approx(
        in_stretches(ages, stretches), abs=80.0
    )


def test_an_even_day_is_even() -> None:
    stretches = trend(np.linspace(1.0, DAY_SECONDS, 2400))
    rates = [one.events / (one.end - one.start) * 3600.0 for one in stretches]
    assert rates == pytest.approx([100.0] * 4, rel=0.1)


def test_events_of_earlier_days_are_not_of_this_one() -> None:
    stretches = trend(np.random.default_rng(2).uniform(3 * DAY_SECONDS, 9 * DAY_SECONDS, 500))
    assert sum(one.events for one in stretches) < 25.0


def test_nothing_counted_has_no_trend_and_no_number_is_negative() -> None:
    assert day_trend(np.zeros(9), HALF_LIVES, 100.0) == []
    chance = np.random.default_rng(3)
    for _ in range(50):  # counts that no events give
        for one in day_trend(chance.random(9) * 10.0, HALF_LIVES, 1e6):
            assert np.isfinite(one.events)
            assert one.events >= 0.0
