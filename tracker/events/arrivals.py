"""Arrivals: when records came, by whose clock, and the latest time that their events may have."""

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Arrivals:
    """When N records came, and the latest time that their events may have.

    Attributes:
        times: when each came, in seconds: its own time, or the worker's clock if that is earlier,
            or if the record has no time.
        latest: latest event time that is taken.
        by_broker: (N,) whether the broker's append time is the limit; else it is the clock.
        may_change: (N,) whether another reading, by a clock that differs a little, may have
            another limit.
        clock: the worker's clock, in seconds; None if the records came from a file.
    """

    times: list[float]
    latest: list[float]
    by_broker: NDArray[np.bool_]
    may_change: NDArray[np.bool_]
    clock: float | None

    @classmethod
    def of_file(cls, count: int, not_after: float) -> "Arrivals":
        """Return those of lines of a file, which may have no event of after a time."""
        no = np.zeros(count, np.bool_)
        latest = not_after + MAX_FUTURE_SECONDS
        return cls([not_after] * count, [latest] * count, no, no, None)

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
        recorded = np.array(milliseconds, np.float64) / 1000.0  # None becomes NaN
        has_time = recorded > 0.0
        times = np.where(has_time & (recorded < clock), recorded, clock)
        appended = has_time & (np.array(types, np.float64) == LOG_APPEND_TIME)
        by_broker = appended & (recorded <= clock)
        latest = np.where(by_broker, recorded, clock) + MAX_FUTURE_SECONDS
        may_change = ~(appended & (recorded <= clock - CLOCKS_AGREE_SECONDS))
        return cls(times.tolist(), latest.tolist(), by_broker, may_change, clock)

    def refusal(self, place: int, time: float) -> str:
        """Return why an event time past the limit of a record is refused, and what to do."""
        limit = self.latest[place] - MAX_FUTURE_SECONDS
        if self.clock is None:
            whose = "the time of reading"
        elif self.by_broker[place]:
            whose = "the broker's append time"
        else:
            whose = "the worker's clock"
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

    def is_open(
        self, places: NDArray[np.bool_] | slice, times: NDArray[np.float64], refused: int
    ) -> bool:
        """Return whether a verdict may be another one when the records are read again.

        Args:
            places: of the M records whose events were accepted.
            times: (M,) times of these events.
            refused: number of records refused by the worker's clock.
        """
        if refused:
            return True
        changing = self.may_change[places]
        if not changing.any():
            return False
        near = np.array(self.latest)[places] - CLOCKS_AGREE_SECONDS
        return bool((changing & (times > near)).any())
