"""RebalanceLog: how long a rebalance took, and each phase of it, in one line."""

import logging
import time
from collections.abc import Callable

from tracker.explained import ONCE

log = logging.getLogger(__name__)


class RebalanceLog:
    """Times the phases of a rebalance, and logs them at its end.

    A rebalance that another one follows before its end is one with it. The time until this worker
    learns of a rebalance is none of it.

    Args:
        clock: monotonic time, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: float | None = None
        self._phases: dict[str, float] = {}

    def begin(self) -> None:
        """Begin, unless a rebalance is under way."""
        if self._last is None:
            self._last, self._phases = self._clock(), {}

    def phase(self, name: str) -> None:
        """End a phase, and begin the next one; no-op if no rebalance is under way."""
        if self._last is not None:
            now = self._clock()
            self._phases[name] = self._phases.get(name, 0.0) + now - self._last
            self._last = now

    def end(self, name: str, partitions: int) -> None:
        """End the last phase, and log all.

        Args:
            name: of the last phase.
            partitions: number of source partitions that the worker has now.
        """
        self.phase(name)
        if self._last is not None:
            log.info(
                "rebalanced in %.2f s (%s); partitions now: %d",
                sum(self._phases.values()),
                ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in self._phases.items()),
                partitions,
                extra=ONCE,
            )
            self._last = None
