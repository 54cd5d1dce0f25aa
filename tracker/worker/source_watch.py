"""SourceWatch: compares the source topics with the states while the worker runs."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping

from faust.types import TP

from tracker.explained import ONCE
from tracker.feeds.background import OnDeath, PeriodicTask
from tracker.kafka.cluster import BrokerError, TopicInfo
from tracker.store.partition_store import MOVE, RESET, PositionError
from tracker.stream.partition import Partition

log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0
"""Time between two looks. A doubt has to hold for two: a new leader may not know its end yet."""

ANSWER_SECONDS = 10.0
"""Time in which the brokers have to answer; one that is frozen accepts a connection."""

FROZEN_SECONDS = 2.0
"""A look that took so much longer than `ANSWER_SECONDS` tells of a worker that was frozen."""


class SourceWatch(PeriodicTask):
    """Ends the worker if a source topic is no longer the one that its states belong to.

    A consumer that has read past the end of a log waits without a word, and takes nothing of a
    topic that was deleted and created again, or that has lost records.

    Args:
        describe: describes the topics that exist, by name.
        end_of: returns the end of a partition that the latest fetch showed; None if unknown.
        partitions: the open partitions.
        on_fatal: called with the error that ends the worker.
        on_death: called if the watch ends by itself.
        clock: seconds, of any origin.
    """

    def __init__(
        self,
        describe: Callable[[], Awaitable[Mapping[str, TopicInfo]]],
        end_of: Callable[[TP], int | None],
        partitions: Mapping[TP, Partition],
        on_fatal: Callable[[BaseException], None],
        on_death: OnDeath,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("the watch over source topics", LOOK_SECONDS, on_death)
        self._describe = describe
        self._end_of = end_of
        self._partitions = partitions
        self._on_fatal = on_fatal
        self._doubts: set[TP] = set()
        self._clock = clock
        self._answered_at = clock()
        self._is_answered = True
        self._silent_at = -math.inf  # time of the last look without an answer

    @property
    def silence_seconds(self) -> float:
        """The time since the brokers last answered; 0 if they answered the last time."""
        return 0.0 if self._is_answered else self._clock() - self._answered_at

    @property
    def answered_seconds(self) -> float:
        """The time for which the brokers have answered every look; 0 if not the last one.

        An owner that was frozen itself must not take that for the brokers' silence: another worker
        has its partitions by now.
        """
        return self._clock() - self._silent_at if self._is_answered else 0.0

    async def look(self) -> None:
        """Compare once."""
        began_at = self._clock()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                topics = await self._describe()
        except (BrokerError, OSError) as error:  # among them TimeoutError
            if self._clock() - began_at <= ANSWER_SECONDS + FROZEN_SECONDS:
                if self._is_answered:
                    reason = str(error) or "the Kafka brokers take a question and do not answer"
                    log.warning("%s; events and lists wait, nothing is lost", reason, extra=ONCE)
                self._silent_at, self._is_answered = self._clock(), False
            return
        if not self._is_answered:
            log.warning("brokers answer again after %.0f s", self.silence_seconds, extra=ONCE)
        self._answered_at, self._is_answered = self._clock(), True
        doubts = set()
        for tp, partition in list(self._partitions.items()):
            problem, is_sure = self._problem_of(tp, partition, topics.get(tp.topic))
            if problem is None:
                continue
            if is_sure or tp in self._doubts:
                remedy = "" if problem.endswith(MOVE) else f"; {RESET}"
                self._on_fatal(PositionError(problem + remedy))
                return
            doubts.add(tp)
        self._doubts = doubts

    def _problem_of(
        self, tp: TP, partition: Partition, topic: TopicInfo | None
    ) -> tuple[str | None, bool]:
        """Return what is wrong with a source, and whether one look is enough to say so."""
        if not partition.store.is_open:
            return None, False
        progress = partition.store.progress
        if topic is None:
            return f"topic {tp.topic} was deleted while the worker read it", False
        if topic.topic_id and progress.topic_id and topic.topic_id != progress.topic_id:
            return (
                f"topic {tp.topic} has id {topic.topic_id}, and the states belong to one with id"
                f" {progress.topic_id}: it was deleted and created again while the worker read it"
            ), True
        if partition.side.table == "users" and topic.partitions > progress.partitions:
            return (
                f"partitions were added to topic {tp.topic}, which has {topic.partitions}, while"
                f" the worker read {progress.partitions}: {MOVE}"
            ), True
        end = self._end_of(tp)
        if end is not None and end < progress.position:
            return (
                f"{tp.topic}-{tp.partition} ends at offset {end}, and the states are at"
                f" {progress.position}: the log has lost {progress.position - end} records that"
                " were applied, by an unclean election or a restored broker; what is sent to these"
                " offsets now would be taken for applied"
            ), False
        return None, False
