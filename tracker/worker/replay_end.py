"""ReplayEnd: lets a replay follow the live workers, and ends it when it has reached them."""

import asyncio
import logging
import os
import signal
from collections.abc import Mapping

from aiokafka.errors import KafkaError
from faust.types import TP

from tracker.explained import first_line
from tracker.feeds.background import BackgroundTask, OnDeath
from tracker.kafka.cluster import BrokerError
from tracker.lookup.replay import begins_of, committed
from tracker.settings import Settings
from tracker.stream.partition import Partition
from tracker.stream.replay import Replay

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0

CALM_LOOKS = 3
"""Looks one after the other at which nothing was left at final limits: commits send what other
partitions have to apply."""

STALLED_LOOKS = 5
"""Looks without progress after which the begin of the log is read: what retention has deleted
before it was read never comes."""


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
        self._positions: list[int] = []
        self._begins: dict[int, int] = {}
        self._task = BackgroundTask("the watch over the replay's end", on_death)

    def start(self) -> None:
        """Start to look in the background."""
        self._task.start(self._run())

    async def stop(self) -> None:
        """Stop looking."""
        await self._task.stop()

    async def _run(self) -> None:
        calm = stalled = 0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            stalled = stalled + 1 if self._is_stalled() else 0
            if stalled >= STALLED_LOOKS:
                stalled = 0
                await self._read_begins()
            calm = calm + 1 if self.is_level() else 0
            looks = CALM_LOOKS if self._replay.is_final else 1
            if calm >= looks and not self._replay.has_ended:
                self._replay.has_ended = True
                log.info("the replay of %s has reached the live workers", self._replay.of)
                os.kill(os.getpid(), signal.SIGTERM)
            if not self._replay.is_final:
                await self._follow()

    def _is_stalled(self) -> bool:
        """Return whether no partition has gone on since the last look, and one has not reached."""
        users = self._users()
        positions = [part.store.progress.position for part in users]
        before, self._positions = self._positions, positions
        return positions == before and not all(map(self._has_reached, users))

    async def _read_begins(self) -> None:
        try:
            self._begins = await begins_of(self._settings)
        except (BrokerError, KafkaError, OSError) as error:
            log.warning("the begin of the events cannot be read: %s", first_line(error))

    def _users(self) -> list[Partition]:
        parts = self._partitions.values()
        return [part for part in parts if part.side.table == "users" and part.store.is_open]

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
        users = self._users()
        if not users or not all(map(self._has_reached, users)):
            return False
        return not self._replay.is_final or all(map(self._is_calm, parts))

    def _has_reached(self, part: Partition) -> bool:
        position = max(part.store.progress.position, self._begins.get(part.number, 0))
        return position >= self._replay.limit(part.number)

    def _is_calm(self, part: Partition) -> bool:
        """Return whether a partition has committed all, but events past the limit."""
        if not part.store.is_open or part.store.is_behind:
            return False
        source = part.topic if part.side.table == "users" else ""
        return not any(lag for topic, lag in part.lags().items() if topic != source)
