"""ReplayEnd: lets a replay follow the live workers, and ends it when it has reached them."""

import asyncio
import logging
import os
import signal
from collections.abc import Mapping

from aiokafka.errors import KafkaError
from faust.types import TP

from tracker.explained import first_line
from tracker.kafka.cluster import BrokerError
from tracker.lookup.replay import committed
from tracker.settings import Settings
from tracker.stream.background import BackgroundTask, OnDeath
from tracker.stream.partition import Partition
from tracker.stream.replay import Replay

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0

CALM_LOOKS = 3
"""Looks one after the other at which nothing was left at final limits: commits send what other
partitions have to apply."""


class ReplayEnd:
    """Ends the process, with a last commit, when nothing is left to apply.

    Args:
        settings: those of the new states.
        replay: its limits follow the positions of the live workers, unless they are final.
        partitions: the open partitions.
        on_death: called if this ends by itself.
    """

    def __init__(
        self,
        settings: Settings,
        replay: Replay,
        partitions: Mapping[TP, Partition],
        on_death: OnDeath,
    ) -> None:
        self._settings = settings
        self._replay = replay
        self._partitions = partitions
        self._task = BackgroundTask("the watch over the replay's end", on_death)

    def start(self) -> None:
        """Start to look in the background."""
        self._task.start(self._run())

    async def stop(self) -> None:
        """Stop looking."""
        await self._task.stop()

    async def _run(self) -> None:
        calm = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            calm = calm + 1 if self.is_level() else 0
            looks = CALM_LOOKS if self._replay.is_final else 1
            if calm >= looks and not self._replay.has_ended:
                self._replay.has_ended = True
                log.info("the replay of %s has reached the live workers", self._replay.of)
                os.kill(os.getpid(), signal.SIGTERM)
            if not self._replay.is_final:
                await self._follow()

    async def _follow(self) -> None:
        try:
            limits = await committed(self._settings, self._replay.of)
        except (BrokerError, KafkaError, OSError) as error:
            log.warning("the live workers' positions cannot be read: %s", first_line(error))
            return
        for partition, offset in limits.items():
            self._replay.limits[partition] = max(offset, self._replay.limit(partition))

    def is_level(self) -> bool:
        """Return whether all that may be applied is applied, and at final limits committed."""
        parts = list(self._partitions.values())
        users = [part for part in parts if part.side.table == "users" and part.store.is_open]
        if not users or not all(map(self._has_reached, users)):
            return False
        return not self._replay.is_final or all(map(self._is_calm, parts))

    def _has_reached(self, part: Partition) -> bool:
        return part.store.progress.position >= self._replay.limit(part.number)

    def _is_calm(self, part: Partition) -> bool:
        """Return whether a partition has committed all, but events past the limit."""
        if not part.store.is_open or part.store.is_behind:
            return False
        source = part.topic if part.side.table == "users" else ""
        return not any(lag for topic, lag in part.lags().items() if topic != source)
