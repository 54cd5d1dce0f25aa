"""HandOverReader: reads handed-on events for the partitions that the worker owns."""

import asyncio
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, TopicPartition
from faust.types import TP

from tracker.feeds.background import OnDeath, log_death
from tracker.feeds.topic_reader import ANSWER_SECONDS, TopicReader
from tracker.kafka.records import read_every_record
from tracker.settings import Settings
from tracker.stream.partition import Chunk

FETCH_SECONDS = 0.5
"""Maximum time of a fetch; partitions that come or go are noticed after it."""

HELD_SECONDS = 0.02
"""Wait before it is asked again whether a partition accepts more chunks."""


class HandOverReader(TopicReader):
    """Reads the topic of handed-on events with a consumer outside the group.

    It follows the partitions of whose numbers the worker owns the events. Faust's group would not
    keep the two topics together while workers of an older version are in it.

    Args:
        settings: where the brokers are.
        topic: topic of handed-on events.
        accept: receives each chunk, and a function to call when it is done.
        room: returns whether a partition accepts more chunks.
        on_death: called if the reader ends by itself.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        accept: Callable[[Chunk, Callable[[], object]], object],
        room: Callable[[TP], bool],
        on_death: OnDeath = log_death,
    ) -> None:
        name = "the reader of handed-on events"
        super().__init__(settings, topic, name, FETCH_SECONDS, on_death)
        self._accept = accept
        self._room = room
        self._next: dict[TP, int] = {}  # offset that the next record should have
        self._to_seek: set[TP] = set()
        self._unread: dict[TP, int] = {}
        self._ends: dict[TP, int] = {}
        self._changed = asyncio.Event()

    def start(self) -> None:
        """Start reading in the background."""
        read_every_record([self._topic])
        super().start()

    def follow(self, tp: TP, offset: int) -> None:
        """Read a partition from an offset on."""
        self._next[tp] = offset
        self._to_seek.add(tp)
        self._changed.set()

    rewind = follow

    def leave(self, tp: TP) -> None:
        """Read a partition no more."""
        for by_partition in (self._next, self._unread, self._ends):
            by_partition.pop(tp, None)
        self._to_seek.discard(tp)
        self._changed.set()

    def unread(self, tp: TP) -> int | None:
        """Return the number of offsets not yet fetched that can be read; None if unknown."""
        return self._unread.get(tp)

    def fetched_end(self, tp: TP) -> int | None:
        """Return the end offset that the latest fetch showed of a partition; None if unknown."""
        return self._ends.get(tp)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        assigned: set[TP] = set()
        while True:
            if not self._next:
                self._changed.clear()
                await self._changed.wait()
            targets = set(self._next)
            if targets != assigned:
                consumer.assign([TopicPartition(*tp) for tp in targets])
                assigned = targets
                self._to_seek |= targets
            while self._to_seek:
                tp = self._to_seek.pop()
                consumer.seek(TopicPartition(*tp), self._next[tp])
            ready = [TopicPartition(*tp) for tp in targets if self._room(tp)]
            if not ready:
                await asyncio.sleep(HELD_SECONDS)
                continue
            fetched = await consumer.getmany(
                *ready,
                timeout_ms=self._fetch_ms,
                max_records=self._settings.chunk_events,
            )
            for tp, records in fetched.items():
                self._pass_on(TP(tp.topic, tp.partition), records)
            for tp in targets & set(self._next):
                await self._observe(consumer, tp)
            self._note_answer()

    def _pass_on(self, tp: TP, records: list[object]) -> None:
        """Hand records over as a chunk that follows the one before."""
        start = self._next.get(tp)
        if start is None or tp in self._to_seek:  # left, or to be read again
            return
        fresh = [record for record in records if record.offset >= start]  # type: ignore[attr-defined]
        if fresh:
            end = int(fresh[-1].offset) + 1  # type: ignore[attr-defined]
            self._next[tp] = end
            self._accept(Chunk(tp, start, end, fresh), lambda: None)

    async def _observe(self, consumer: AIOKafkaConsumer, tp: TP) -> None:
        part = TopicPartition(*tp)
        end, stable = consumer.highwater(part), consumer.last_stable_offset(part)
        if end is None:
            return
        self._ends[tp] = end
        if stable is not None and stable >= 0:
            end = min(end, stable)
        async with asyncio.timeout(ANSWER_SECONDS):
            position = await consumer.position(part)
        if tp in self._next:
            self._unread[tp] = max(0, end - position)


class HandedPartition:
    """A partition of the topic of handed-on events, as the reader sees it."""

    def __init__(self, reader: HandOverReader, topic: str, number: int) -> None:
        self.topic = topic
        self.number = number
        self._reader = reader

    def rewind(self, offset: int) -> None:
        """Fetch the partition again from an offset."""
        self._reader.rewind(TP(self.topic, self.number), offset)

    def unread(self) -> int | None:
        """Return the number of offsets not yet fetched; None if unknown."""
        return self._reader.unread(TP(self.topic, self.number))
