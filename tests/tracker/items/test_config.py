"""Half-lives of the items' counts: what can be counted by, and what a version counts beside."""

import math
from typing import Any

import pytest

from tracker.items.config import FORMER, MAX_COUNTS, ItemCounts


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"short_seconds": math.inf}, "half-life is inf; 1 to 1e10"),
        ({"more_seconds": (0.0,)}, "half-life is 0.0; 1 to 1e10"),
        ({"short_seconds": 864000.0}, "the short one is expected to be less"),
        ({"more_seconds": (86400.0,)}, "each is expected once"),
        ({"more_seconds": (7200.0, 3600.0)}, "ascending is expected"),
        ({"more_seconds": tuple(range(1, 11))}, "10 half-lives in more_seconds .* at most 8"),
        ({"trend_seconds": (7.0,)}, "trend_seconds has 7.0; one of"),
    ],
)
def test_half_lives_that_cannot_be_counted_by_are_refused(
    values: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        ItemCounts(**values)


def test_without_a_choice_the_counts_span_minutes_to_years() -> None:
    finite = [seconds for seconds in ItemCounts().seconds if math.isfinite(seconds)]
    assert min(finite) == 600.0
    assert max(finite) > 365 * 86400.0
    assert ItemCounts().seconds[2] == math.inf


def test_a_version_counts_beside_its_own_what_the_version_before_read() -> None:
    after = ItemCounts().after(FORMER)
    assert set(FORMER.seconds) <= set(after.seconds)
    assert after.read_seconds == ItemCounts().read_seconds
    assert len(after.seconds) <= MAX_COUNTS
    again = after.after(after)
    assert again.also_seconds == ()
