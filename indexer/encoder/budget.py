"""The time that a training may take, divided among its parts."""

import math
import time
from collections.abc import Callable

ENCODER_SHARE = 0.5
"""Share of the time after which the encoder's first fit ends."""

EXAMPLES_A_MINUTE = 4000
"""Targets that the ranker learns from, for each minute of a training: replay and fit then take less
than a third of the time on two slow cores."""


class Budget:
    """Minutes of a training, from now on; None for as long as it takes.

    A fit asks before each epoch whether there is time for one more. The first epoch of a fit is
    always done, so a training may take longer than it may by about one epoch, and by the encoding
    of texts, which nothing can leave out.
    """

    def __init__(self, minutes: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.minutes = minutes
        self._clock = clock
        self._start = clock()
        self.left_out: list[str] = []

    def until(self, share: float = 1.0) -> float:
        """Return the time of the clock when a share of the minutes is over; infinity for none."""
        return math.inf if self.minutes is None else self._start + 60.0 * self.minutes * share

    def has(self, seconds: float) -> bool:
        """Return whether that many seconds are left."""
        return self._clock() + seconds <= self.until()

    def examples(self, most: int) -> int:
        """Return how many targets the ranker may learn from, `most` at most."""
        return most if self.minutes is None else min(most, int(EXAMPLES_A_MINUTE * self.minutes))

    def leave_out(self, what: str) -> None:
        """Remember a thing that there was no time for."""
        self.left_out.append(what)

    def note(self) -> str:
        """Return a line on what was left out; empty if nothing was."""
        if not self.left_out or self.minutes is None:
            return ""
        return f"in {self.minutes:g} minutes there was no time for: {'; '.join(self.left_out)}"
