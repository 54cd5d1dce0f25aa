"""RightsWatch: looks while a worker runs whether the brokers still allow what it does."""

import logging
from collections.abc import Awaitable, Callable

from tracker.feeds.background import OnDeath, PeriodicTask
from tracker.kafka.cluster import BrokerError
from tracker.kafka.rights import RightsError

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0

AGAIN = 6
"""Looks after which a right that is still missing is named again."""


class RightsWatch(PeriodicTask):
    """Names the rights that were taken from a running worker.

    Kafka's clients wait, or try without end, and say neither which right nor how to grant it.

    Args:
        check: raises RightsError if rights are missing.
        on_death: called if the watch ends by itself.
    """

    def __init__(self, check: Callable[[], Awaitable[None]], on_death: OnDeath) -> None:
        super().__init__("the watch over rights", LOOK_SECONDS, on_death)
        self._check = check
        self._denied = ""
        self._looks = 0

    async def look(self) -> None:
        """Ask once."""
        try:
            await self._check()
            denied = ""
        except RightsError as error:
            denied = str(error)
        except (BrokerError, OSError):
            return
        self._looks += 1
        if denied and (denied != self._denied or self._looks % AGAIN == 0):
            log.error("%s; until then this worker waits or ends", denied)
        elif self._denied and not denied:
            log.info("the brokers allow again all that a worker needs")
        self._denied = denied
