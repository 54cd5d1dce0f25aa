"""Half-lives of the items' counts, a part of the manifest."""

import math
from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

MINUTE, HOUR, DAY, YEAR = 60.0, 3600.0, 86400.0, 31_557_600.0

MAX_MORE = 8
"""Half-lives at most besides the short and the long one that a ranker can read."""

MAX_COUNTS = 16
"""Counts of an item at most, that of all time among them."""


class ItemCounts(msgspec.Struct, frozen=True):
    """Half-lives by which the events of an item are counted, kept in the manifest; seconds.

    `short_seconds` and `long_seconds` are also those of the counts in a scene and of the sums of
    weights, `long_seconds` that of the pairs of neighbours. `more_seconds` are further counts that
    a ranker reads, ascending. By `trend_seconds` the trend channel finds items, the best first; by
    the short one if there are none. `also_seconds` are counted and not read, so that the version
    before finds its own if it is taken up again. A count that does not decay is always there.

    Raises:
        ValueError: half-lives that cannot be counted by; found and expected are named.
    """

    short_seconds: float = DAY
    long_seconds: float = 10 * DAY
    more_seconds: tuple[float, ...] = (
        10 * MINUTE, HOUR, 6 * HOUR, 3 * DAY, 60 * DAY, YEAR,
    )  # fmt: skip
    trend_seconds: tuple[float, ...] = ()
    also_seconds: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check every half-life."""
        finite = [self.short_seconds, self.long_seconds, *self.more_seconds, *self.also_seconds]
        for seconds in finite:
            if not (math.isfinite(seconds) and 1.0 <= seconds <= 1e10):
                raise ValueError(f"a half-life is {seconds}; 1 to 1e10 seconds are expected")
        if not self.short_seconds < self.long_seconds:
            raise ValueError(
                f"short_seconds is {self.short_seconds} and long_seconds {self.long_seconds};"
                " the short one is expected to be less"
            )
        if len({_named(seconds) for seconds in finite}) < len(finite):
            raise ValueError(f"half-lives are {finite}; each is expected once")
        if len(self.more_seconds) > MAX_MORE or len(finite) >= MAX_COUNTS:
            raise ValueError(
                f"{len(self.more_seconds)} half-lives in more_seconds and {len(finite)} together;"
                f" at most {MAX_MORE} and {MAX_COUNTS - 1} are expected"
            )
        if list(self.more_seconds) != sorted(self.more_seconds):
            raise ValueError(f"more_seconds are {self.more_seconds}; ascending is expected")
        unknown = [seconds for seconds in self.trend_seconds if seconds not in self.read_seconds]
        if unknown:
            raise ValueError(
                f"trend_seconds has {unknown[0]}; one of the short, the long and more_seconds"
                " is expected"
            )

    @property
    def read_seconds(self) -> tuple[float, ...]:
        """The half-lives that a ranker can read, in the order of the columns."""
        return (self.short_seconds, self.long_seconds, math.inf, *self.more_seconds)

    @property
    def seconds(self) -> tuple[float, ...]:
        """All half-lives, in the order of the columns; the third is infinite."""
        return (*self.read_seconds, *self.also_seconds)

    @property
    def half_lives(self) -> NDArray[np.float64]:
        """The same as an array (H,)."""
        return np.array([_named(seconds) for seconds in self.seconds])

    @property
    def trend_places(self) -> tuple[int, ...]:
        """Columns by which the trend channel finds items, the best first."""
        places = [self.seconds.index(seconds) for seconds in self.trend_seconds]
        return tuple(places) or (0,)

    def after(self, before: "ItemCounts | None") -> "ItemCounts":
        """Return the same, counting also by what the version before read, as far as there is room.

        Args:
            before: of the version before, None for none.
        """
        if before is None:
            return msgspec.structs.replace(self, also_seconds=())
        have = {_named(seconds) for seconds in self.read_seconds}
        also = [seconds for seconds in _finite(before.read_seconds) if _named(seconds) not in have]
        room = MAX_COUNTS - len(self.read_seconds)
        return msgspec.structs.replace(self, also_seconds=tuple(also[:room]))


def _finite(seconds: Iterable[float]) -> list[float]:
    return [value for value in seconds if math.isfinite(value)]


def _named(seconds: float) -> float:
    """Return a half-life as rows name it, which is with the precision of float32."""
    return float(np.float32(seconds))


FORMER = ItemCounts(more_seconds=(3 * HOUR, 12 * HOUR, 3 * DAY, 40 * DAY))
"""The half-lives of versions whose manifest names none."""
