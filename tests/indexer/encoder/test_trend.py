"""How popular items were, from a log."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from indexer.encoder import trend
from indexer.encoder.trend import TREND_HALF_LIVES, Trend

DAY = 86_400.0


@pytest.fixture(params=["native", "plain"])
def _kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "plain":
        for name in ("fill_logs", "fill_pairs", "fill_trend"):
            kernel: Callable[..., Any] = getattr(trend, name).py_func
            monkeypatch.setattr(trend, name, kernel)


@pytest.mark.usefixtures("_kernels")
def test_a_trend_is_the_decayed_count_of_what_came_before() -> None:
    random = np.random.default_rng(1)
    rows = random.integers(-1, 5, 60)
    times = np.sort(random.uniform(0.0, 20 * DAY, 60))
    found = Trend(rows, times, 6)
    asked = np.array([9 * DAY, times[30], 1.0, 25 * DAY])
    columns = np.array([4, 0, 5])
    values = found.at(asked, columns)
    assert values.shape == (3, 4, 3)
    for p, time in enumerate(asked.tolist()):
        for c, row in enumerate(columns.tolist()):
            for h, half_life in enumerate(TREND_HALF_LIVES):
                before = times[(rows == row) & (times < time)]
                count = float((2.0 ** -((time - before) / half_life)).sum())
                expected = max(math.log2(20.0 * count), 0.0) if count > 0 else 0.0
                assert values[h, p, c] == pytest.approx(expected, abs=1e-4)
    for c, row in enumerate(columns.tolist()):
        pairs = found.of(asked, np.full(len(asked), row))
        np.testing.assert_allclose(pairs, values[:, :, c], atol=1e-5)


@pytest.mark.usefixtures("_kernels")
def test_an_event_at_the_time_itself_does_not_count() -> None:
    found = Trend(np.array([0, 0]), np.array([DAY, DAY]), 1)
    assert not found.at(np.array([DAY]), np.array([0])).any()
    one_day = found.at(np.array([2 * DAY]), np.array([0]))[1, 0, 0]
    assert one_day == pytest.approx(math.log2(20.0))
    assert found.at(np.zeros(0), np.array([0])).shape == (3, 0, 1)
