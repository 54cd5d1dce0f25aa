"""Sending events and watching recommendations, without a Kafka client of one's own."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from tracker.dialects.loading import load_dialect
from tracker.events.arrivals import Arrivals
from tracker.events.batch import EventReader, events_in
from tracker.events.dialect import Dialect
from tracker.events.foreign import look_alikes
from tracker.events.kinds import Kinds
from tracker.events.lines import Line
from tracker.events.wire import RejectedEventError
from tracker.kafka.cluster import TopicError, describe_topics, topics_of, unreachable
from tracker.kafka.connect import consumer, producer
from tracker.kafka.partitioner import ProducerPartitioner
from tracker.kafka.pseudonyms import pseudonyms_of
from tracker.kafka.records import read_every_record
from tracker.settings import Settings

PROGRESS_EVERY = 500

CONFIRM_SECONDS = 30.0
"""Time that the broker may take to acknowledge all events after the last one."""

END_SECONDS = 10.0
"""Time that the broker may take to return the end offsets."""

PACE_SECONDS = 0.002
"""Minimum sleep between two events at a rate; a shorter one is left out."""

MAX_BATCH_BYTES = 1 << 18


@dataclass
class Sent:
    """The result of sending: `sent` lines, of which the broker has stored `confirmed`.

    `bad` lines are not events; `seconds` is the time until the last acknowledgement.
    """

    sent: int = 0
    confirmed: int = 0
    bad: int = 0
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Received:
    """One record of a topic: `appended` is the broker's timestamp in float seconds."""

    partition: int
    offset: int
    appended: float
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class EventChecker:
    """Checks lines of events as the worker does, one by one, in bounded memory.

    Args:
        settings: those of the worker.
        kinds: the weights that the worker uses.
        clock: wall time, in seconds.

    Attributes:
        reader: its `unknown_fields`, `units` and `passed_over` are those of all lines so far.

    Raises:
        DialectError: TRACKER_EVENTS_FORMAT names no format.
    """

    CLOCK_LINES = 1000  # the clock is read again after so many

    def __init__(
        self, settings: Settings, kinds: Kinds, clock: Callable[[], float] = time.time
    ) -> None:
        reject_unknown = settings.unknown_fields == "reject"
        dialect = load_dialect(settings.events_format)
        self.reader = EventReader(kinds, settings.timestamps, reject_unknown, dialect)
        self._clock = clock
        self._lines = 0

    def __call__(self, value: bytes | None) -> tuple[str | None, str]:
        """Return the user id if it can be read, and the reason why the worker would reject it."""
        if self._lines % self.CLOCK_LINES == 0:
            self._arrivals = Arrivals.of_records([None], [None], self._clock())
        self._lines += 1
        try:
            return self.reader.check(value, self._arrivals), ""
        except RejectedEventError as error:
            user_id = None if value is None else _user_of(value, self.reader.dialect)[0]
            return user_id, f"{error.reason}: {error}"

    def unused(self) -> list[str]:
        """Return the names of the unknown fields, the most frequent first."""
        return [name for name, _ in self.reader.unknown_fields.most_common()]

    def notes(self) -> list[str]:
        """Return which unknown fields look like one of an event, and which units times have."""
        alike = look_alikes(self.reader.unknown_fields)
        units = [f"timestamps are taken as {unit}" for unit in self.reader.units]
        words = self.reader.passed_over
        passed = [
            f"{words.total():,} records say nothing of items: "
            + ", ".join(f"{word} ({count:,})" for word, count in words.most_common(5))
        ]
        return [*alike[:10], *units, *(passed if words else [])]


async def send_events(
    settings: Settings,
    lines: Iterator[Line],
    rate: float | None = None,
    on_progress: Callable[[int], None] = lambda count: None,
    on_bad: Callable[[Line, str], None] = lambda line, why: None,
    check: bool = True,
    on_confirmed: Callable[[Line, Received], None] | None = None,
    checker: Callable[[bytes], tuple[str | None, str]] | None = None,
) -> Sent:
    """Send events to the events topic, keyed by their user, and wait until all are stored.

    1. Decode each line. One that is not an event is reported and counted, not sent: the worker
       would reject it.
    2. Send it with the user's id as key, to the partition that TRACKER_PARTITIONER chooses, so
       that a user's events stay in order whoever sends them.
    3. Wait until the broker has acknowledged all events.

    Args:
        settings: where the brokers are.
        lines: the events as JSON, for example from `read_lines`.
        rate: events per second, evenly spaced; None for as fast as the broker accepts them.
        on_progress: called now and then with the number of lines read.
        on_bad: called with each bad line and the reason.
        check: False sends bad lines too, unchanged.
        on_confirmed: called with each line that the broker has stored, and its stored record.
        checker: returns a line's user id, and why it is bad; by default what does not depend on
            weights and times is checked. See `EventChecker`.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: the topic of events does not exist.
        PartitionerError: the producers' rule for choosing a partition is not known.
        InputError: see `read_lines`.
    """
    topic = topics_of(settings).events
    await _partitions(settings, topic)
    result = Sent()
    started = time.monotonic()

    def confirm(line: Line, future: "asyncio.Future[Any]") -> None:
        error = None if future.cancelled() else future.exception()
        if error is None and not future.cancelled():
            result.confirmed += 1
            if on_confirmed is not None:
                stored = future.result()
                appended = stored.timestamp / 1000
                place = Received(stored.partition, stored.offset, appended, None, line.value)
                on_confirmed(line, place)
        elif len(result.errors) < 3:
            result.errors.append(str(error) or type(error).__name__)

    linger = 5 if rate is None else 0
    async with producer(
        settings,
        linger_ms=linger,
        max_batch_size=MAX_BATCH_BYTES,
        partitioner=ProducerPartitioner(settings.partitioner),
    ) as client:
        count = 0
        for count, line in enumerate(lines, 1):
            # 1. Decode the line.
            user_id, reason = (checker or _user_of)(line.value)
            if reason:
                result.bad += 1
                on_bad(line, reason)
            if not reason or not check:
                if rate is not None:
                    wait = started + result.sent / rate - time.monotonic()
                    if wait > PACE_SECONDS:
                        await asyncio.sleep(wait)
                # 2. Send it.
                key = None if user_id is None else user_id.encode()
                try:
                    future = await client.send(topic, line.value, key=key)
                except KafkaError as error:
                    raise unreachable(settings, f"{line.place}: {error}") from error
                future.add_done_callback(partial(confirm, line))
                result.sent += 1
            if count % PROGRESS_EVERY == 0:
                on_progress(count)
                await asyncio.sleep(0)
        # 3. Wait for the acknowledgements.
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await client.flush()
        except TimeoutError:
            result.errors.append(f"no acknowledgement within {CONFIRM_SECONDS:g} s")
        await asyncio.sleep(0)  # the callbacks of the last batch
        on_progress(count)
    result.seconds = time.monotonic() - started
    return result


def _user_of(value: bytes, dialect: Dialect | None = None) -> tuple[str | None, str]:
    """Return the user id if it can be read, and the reason why the line is not an event."""
    try:
        users = [event.user_id for event in events_in(value, dialect)]
        return (users[0] if users else None), ""
    except RejectedEventError as error:
        reason = f"{error.reason}: {error}"
    try:
        fields = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, reason
    user_id = fields.get("user_id") if isinstance(fields, dict) else None
    return (user_id if isinstance(user_id, str) else None), reason


async def _partitions(settings: Settings, topic: str) -> list[TopicPartition]:
    info = (await describe_topics(settings, [topic])).get(topic)
    if info is None:
        raise TopicError(
            f"topic {topic} does not exist at {settings.brokers}: run 'tracker topics'"
        )
    return [TopicPartition(topic, number) for number in range(info.partitions)]


async def read_topic(
    settings: Settings,
    topic: str,
    from_beginning: bool = True,
    follow: bool = False,
    ready: Callable[[], None] = lambda: None,
    choose: Callable[[int], int | None] | None = None,
) -> AsyncGenerator[Received, None]:
    """Yield the committed records of a topic, in order within each partition.

    Args:
        settings: where the brokers are.
        topic: name of the topic.
        from_beginning: whether to start at the earliest offset, or with records appended later.
        follow: True never ends; False stops at the end offsets at the time of the call.
        ready: called once the start offsets are fixed: records appended later will be read.
        choose: returns the only partition to read, given their number, or None for all; by
            default all are read.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: the topic does not exist.
    """
    partitions = await _partitions(settings, topic)
    only = None if choose is None else choose(len(partitions))
    if only is not None:
        partitions = [partitions[only]]
    async with consumer(settings, fetch_max_wait_ms=100) as client:
        client.assign(partitions)
        ends = await ends_of(client, partitions, settings)
        starts = await client.beginning_offsets(partitions) if from_beginning else ends
        for partition in partitions:
            client.seek(partition, starts[partition])
        ready()
        unread = {p for p in partitions if starts[p] < ends[p]}
        while follow or unread:
            fetched = await client.getmany(timeout_ms=500)
            for partition, records in fetched.items():
                for record in records:
                    if follow or record.offset < ends[partition]:
                        yield Received(
                            partition.partition,
                            record.offset,
                            record.timestamp / 1000,
                            record.key,
                            record.value,
                            tuple(record.headers),
                        )
            if not follow:
                unread = {p for p in unread if await client.position(p) < ends[p]}


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Records of a partition that wait for a transaction which a producer has not finished.

    `first` is the offset of the first of `count`; `since` is its time in seconds.
    """

    partition: int
    first: int
    count: int
    since: float


@dataclass(frozen=True, slots=True)
class Latest:
    """The latest records of a topic that can be read, and those that cannot be read so far."""

    records: list[Received]
    held_back: list[HeldBack]


async def latest_records(settings: Settings, topic: str, most: Callable[[int], int]) -> Latest:
    """Return the latest records of a topic; what cannot be decoded is `Undecodable`.

    Args:
        settings: where the brokers are.
        topic: name of the topic.
        most: returns how many records of each partition, from their number.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: the topic does not exist.
    """
    read_every_record([topic])
    partitions = await _partitions(settings, topic)
    async with consumer(settings, fetch_max_wait_ms=100) as client:
        client.assign(partitions)
        ends = await ends_of(client, partitions, settings)
        behind = {p: (client.highwater(p) or 0) - end for p, end in ends.items()}
        starts = await client.beginning_offsets(partitions)
        for partition in partitions:
            first = ends[partition] - most(len(partitions))
            client.seek(partition, max(starts[partition], first))
        unread = {p for p in partitions if starts[p] < ends[p]}
        latest: list[Received] = []
        deadline = time.monotonic() + END_SECONDS
        while unread and time.monotonic() < deadline:
            for partition, records in (await client.getmany(timeout_ms=200)).items():
                latest += [
                    Received(partition.partition, r.offset, r.timestamp / 1000, r.key, r.value)
                    for r in records
                    if r.offset < ends[partition]
                ]
            unread = {p for p in unread if await client.position(p) < ends[p]}
    waiting = {p: ends[p] for p in partitions if behind[p] > 0}
    times = await _times_at(settings, waiting)
    return Latest(
        latest,
        [HeldBack(p.partition, at, behind[p], times.get(p, 0.0)) for p, at in waiting.items()],
    )


async def _times_at(
    settings: Settings, places: Mapping[TopicPartition, int]
) -> dict[TopicPartition, float]:
    """Return the times in seconds of records of unfinished transactions, as far as they answer."""
    if not places:
        return {}
    times: dict[TopicPartition, float] = {}
    arguments = {"isolation_level": "read_uncommitted", "fetch_max_wait_ms": 100}
    async with consumer(settings, **arguments) as client:
        client.assign(list(places))
        for partition, offset in places.items():
            client.seek(partition, offset)
        deadline = time.monotonic() + END_SECONDS
        while len(times) < len(places) and time.monotonic() < deadline:
            for partition, records in (await client.getmany(timeout_ms=200)).items():
                times.setdefault(partition, records[0].timestamp / 1000)
    return times


async def is_at_end(settings: Settings, topic: str, partition: int, offset: int) -> bool:
    """Return whether a partition has no committed record past an offset.

    Raises:
        BrokerError: the broker cannot be used.
    """
    part = TopicPartition(topic, partition)
    async with consumer(settings, fetch_max_wait_ms=100) as client:
        client.assign([part])
        end = (await ends_of(client, [part], settings))[part]
        client.seek(part, offset + 1)
        deadline = time.monotonic() + END_SECONDS
        while await client.position(part) < end:
            if any((await client.getmany(timeout_ms=200)).values()):
                return False
            if time.monotonic() > deadline:
                raise unreachable(settings, f"no answer within {END_SECONDS:g} s")
    return True


async def ends_of(
    client: AIOKafkaConsumer, partitions: list[TopicPartition], settings: Settings
) -> dict[TopicPartition, int]:
    """Return the last stable offset of each partition, from the answers to fetches.

    The embedded broker answers a request for the end offset with the beginning of the last batch,
    so that answer is only the offset at which the fetches start.
    """
    for partition, near in (await client.end_offsets(partitions)).items():
        client.seek(partition, near)
    deadline = time.monotonic() + END_SECONDS
    while True:
        await client.getmany(timeout_ms=100)
        ends = {partition: client.last_stable_offset(partition) for partition in partitions}
        answers = {partition: end for partition, end in ends.items() if end is not None}
        if len(answers) == len(partitions):
            return answers
        if time.monotonic() > deadline:
            raise unreachable(settings, f"no answer within {END_SECONDS:g} s")


async def watch(
    settings: Settings,
    user_id: str | None = None,
    from_beginning: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> AsyncGenerator[Received, None]:
    """Yield recommendations as they arrive; never ends.

    Args:
        settings: where the brokers are.
        user_id: yield only this user's recommendations, by id or pseudonym; None for all.
        from_beginning: whether to start at the earliest recommendation in the topic.
        ready: see `read_topic`.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: the topic does not exist.
    """
    key = None if user_id is None else pseudonyms_of(settings).of_any(user_id).encode()
    topic = topics_of(settings).recommendations
    reader = read_topic(settings, topic, from_beginning, follow=True, ready=ready)
    async with aclosing(reader) as records:
        async for record in records:
            if key is None or record.key == key:
                yield record
