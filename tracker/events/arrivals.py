"""Arrivals: when records came, by whose clock, and the latest time that their events may have."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAX_FUTURE_SECONDS = 300.0
"""A timestamp further ahead than this is rejected."""

CLOCKS_AGREE_SECONDS = 60.0
"""Verdicts are the same for all clocks that differ less; those nearer to the limit are kept."""

LOG_APPEND_TIME = 1
"""Kafka's type of a timestamp that the broker set; any other is of the record's producer."""

UNITS = ((1e3, "milliseconds"), (1e6, "microseconds"), (1e9, "nanoseconds"))

PLAUSIBLE_SHARE = 0.5
"""A number is taken for another unit if it is then at least this share of now: since about 1997."""


class Arrivals(NamedTuple):
    """When N records came, and the latest time that their events may have.

    Lists, not arrays: most chunks are of one record or two.

    Attributes:
        times: when each came, in seconds: its own time, or the worker's clock if that is earlier,
            or if the record has no time.
        latest: latest event time that is accepted.
        types: types of the records' times, see LOG_APPEND_TIME.
        clock: the worker's clock, in seconds; None if the records came from a file.
    """

    times: list[float]
    latest: list[float]
    types: Sequence[int | None]
    clock: float | None

    @classmethod
    def of_file(cls, count: int, not_after: float) -> "Arrivals":
        """Return those of lines of a file, which may have no event of after a time."""
        return cls([not_after] * count, [not_after + MAX_FUTURE_SECONDS] * count, [], None)

    @classmethod
    def of_records(
        cls,
        milliseconds: Sequence[int | None],
        types: Sequence[int | None],
        clock: float,
    ) -> "Arrivals":
        """Return those of records of a topic.

        With LogAppendTime the limit is counted from the lesser of the record's time and the
        worker's clock. With CreateTime the record's time is its producer's, and may be anything:
        the limit is counted from the worker's clock alone.

        Args:
            milliseconds: the records' times; Kafka's milliseconds end here. None for none.
            types: the types of these times, see LOG_APPEND_TIME.
            clock: the worker's clock, in seconds.
        """
        now = clock * 1000.0
        times = [
            number / 1000.0 if number is not None and 0 < number < now else clock
            for number in milliseconds
        ]
        by_clock = clock + MAX_FUTURE_SECONDS
        latest = [
            time + MAX_FUTURE_SECONDS if kind == LOG_APPEND_TIME else by_clock
            for time, kind in zip(times, types, strict=True)
        ]
        return cls(times, latest, types, clock)

    def of_one(self, place: int, count: int) -> "Arrivals":
        """Return those of `count` events of one record."""
        return Arrivals(
            [self.times[place]] * count,
            [self.latest[place]] * count,
            [self.types[place]] * count if self.types else [],
            self.clock,
        )

    def is_by_clock(self, place: int) -> bool:
        """Return whether the limit of a record is that of the worker's clock."""
        return self.clock is not None and (
            self.types[place] != LOG_APPEND_TIME or self.times[place] >= self.clock
        )

    def refusal(self, place: int, time: float) -> str:
        """Return why an event time past the limit of a record is refused, and what to do."""
        limit = self.latest[place] - MAX_FUTURE_SECONDS
        if self.clock is None:
            whose = "the time of reading"
        elif self.is_by_clock(place):
            whose = "the worker's clock"
        else:
            whose = "the broker's append time"
        for factor, unit in UNITS:
            if PLAUSIBLE_SHARE * limit <= time / factor <= self.latest[place]:
                remedy = f"it looks like {unit}: send seconds"
                break
        else:
            remedy = "check the clock of the sender"
        return (
            f"timestamp {time:.14g} is {time - limit:.6g} s past {whose} {limit:.3f}; at most"
            f" {MAX_FUTURE_SECONDS:.0f} s are taken: {remedy}"
        )

    def is_open(self, places: Sequence[int], times: NDArray[np.float64]) -> bool:
        """Return whether another reading may refuse an accepted event, by a clock a little behind.

        Args:
            places: places of the records of M accepted events.
            times: (M,) times of these events.
        """
        sure = min(self.latest, default=0.0) - CLOCKS_AGREE_SECONDS
        if not np.count_nonzero(times > sure):
            return False
        return any(
            time > self.latest[place] - CLOCKS_AGREE_SECONDS and self._may_change(place)
            for place, time in zip(places, times.tolist(), strict=True)
        )

    def _may_change(self, place: int) -> bool:
        """Return whether a clock that differs a little gives the record another limit."""
        if self.clock is None:
            return False
        append_time = self.types[place] == LOG_APPEND_TIME
        return not (append_time and self.times[place] <= self.clock - CLOCKS_AGREE_SECONDS)
