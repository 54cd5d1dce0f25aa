"""Send events and watch recommendations, for people and scripts without a Kafka client."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from tracker.events.lines import Line
from tracker.events.wire import RejectedEventError, decode_event
from tracker.kafka.cluster import TopicError, describe_topics, topics_of, unreachable
from tracker.kafka.connect import consumer, producer
from tracker.settings import Settings

PROGRESS_EVERY = 500

CONFIRM_SECONDS = 30.0
"""How long after the last event the broker may take to confirm them all."""

END_SECONDS = 10.0
"""How long the broker may take to tell where its partitions end."""

PACE_SECONDS = 0.002
"""Sleeps shorter than this are not worth taking when events are paced."""

MAX_BATCH_BYTES = 1 << 18


@dataclass
class Sent:
    """What became of the lines: `sent` were handed over, `confirmed` are stored by the broker.

    `bad` lines are no events and were not sent; `seconds` run until the last confirmation.
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


async def send_events(
    settings: Settings,
    lines: Iterator[Line],
    rate: float | None = None,
    on_progress: Callable[[int], None] = lambda count: None,
    on_bad: Callable[[Line, str], None] = lambda line, why: None,
    check: bool = True,
    on_confirmed: Callable[[Line, Received], None] | None = None,
) -> Sent:
    """Send events to the topic, keyed by their user, and wait until all are stored.

    1. A line that is no event is named and counted, not sent: the worker would reject it.
    2. The key is the user's id and the partition that of Kafka's own clients (murmur2), so that a
       user's events stay in order whoever sends them.
    3. Events count only when the broker has confirmed them.

    Args:
        settings: how to reach the broker.
        lines: from `read_lines`, or made.
        rate: events a second, evenly spaced; None sends as fast as the broker takes them.
        on_progress: called with the number of lines done, now and then.
        on_bad: called with each bad line and what is wrong with it.
        check: False sends bad lines too, as they are.
        on_confirmed: called with each line that the broker has stored, and the place it has there.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: the topic of events does not exist.
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
    async with producer(settings, linger_ms=linger, max_batch_size=MAX_BATCH_BYTES) as client:
        done = 0
        for done, line in enumerate(lines, 1):
            # 1.
            user_id, why = _user_of(line.value)
            if why:
                result.bad += 1
                on_bad(line, why)
            if not why or not check:
                if rate is not None:
                    wait = started + result.sent / rate - time.monotonic()
                    if wait > PACE_SECONDS:
                        await asyncio.sleep(wait)
                # 2.
                key = None if user_id is None else user_id.encode()
                try:
                    future = await client.send(topic, line.value, key=key)
                except KafkaError as error:
                    raise unreachable(settings, f"{line.place}: {error}") from error
                future.add_done_callback(partial(confirm, line))
                result.sent += 1
            if done % PROGRESS_EVERY == 0:
                on_progress(done)
                await asyncio.sleep(0)
        # 3.
        try:
            async with asyncio.timeout(CONFIRM_SECONDS):
                await client.flush()
        except TimeoutError:
            result.errors.append(f"no confirmation within {CONFIRM_SECONDS:g} s")
        await asyncio.sleep(0)  # the callbacks of the last batch
        on_progress(done)
    result.seconds = time.monotonic() - started
    return result


def _user_of(value: bytes) -> tuple[str | None, str]:
    """Return the user's id where one can be read, and what is wrong with the line."""
    try:
        return decode_event(value).user_id, ""
    except RejectedEventError as error:
        why = f"{error.reason}: {error}"
    try:
        found = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, why
    user_id = found.get("user_id") if isinstance(found, dict) else None
    return (user_id if isinstance(user_id, str) else None), why


async def _partitions(settings: Settings, topic: str) -> list[TopicPartition]:
    found = (await describe_topics(settings)).get(topic)
    if found is None:
        raise TopicError(
            f"topic {topic} does not exist at {settings.brokers}: run 'tracker topics'"
        )
    return [TopicPartition(topic, number) for number in range(found.partitions)]


async def read_topic(
    settings: Settings,
    topic: str,
    from_beginning: bool = True,
    follow: bool = False,
    ready: Callable[[], None] = lambda: None,
    choose: Callable[[int], int] | None = None,
) -> AsyncGenerator[Received, None]:
    """Give the committed records of a topic, in order within each partition.

    Args:
        settings: how to reach the broker.
        topic: its name.
        from_beginning: False gives only what is appended after the call.
        follow: True goes on for ever, False stops at the end as it was at the call.
        ready: called once the positions are fixed: what is appended from now on will be seen.
        choose: given the number of partitions, returns the only one to read; by default all.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: the topic does not exist.
    """
    partitions = await _partitions(settings, topic)
    if choose is not None:
        partitions = [partitions[choose(len(partitions))]]
    async with consumer(settings, fetch_max_wait_ms=100) as client:
        client.assign(partitions)
        ends = await _ends(client, partitions, settings)
        starts = await client.beginning_offsets(partitions) if from_beginning else ends
        for partition in partitions:
            client.seek(partition, starts[partition])
        ready()
        left = {p for p in partitions if starts[p] < ends[p]}
        while follow or left:
            found = await client.getmany(timeout_ms=500)
            for partition, records in found.items():
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
                left = {p for p in left if await client.position(p) < ends[p]}


async def _ends(
    client: AIOKafkaConsumer, partitions: list[TopicPartition], settings: Settings
) -> dict[TopicPartition, int]:
    """Ask for the end of each partition, as far as its records are committed.

    Answers to fetches tell it. The embedded broker answers the question for the latest offset with
    the beginning of the last batch, so that answer is only where the fetches begin.
    """
    for partition, near in (await client.end_offsets(partitions)).items():
        client.seek(partition, near)
    deadline = time.monotonic() + END_SECONDS
    while True:
        await client.getmany(timeout_ms=100)
        ends = {partition: client.last_stable_offset(partition) for partition in partitions}
        known = {partition: end for partition, end in ends.items() if end is not None}
        if len(known) == len(partitions):
            return known
        if time.monotonic() > deadline:
            raise unreachable(settings, f"no records within {END_SECONDS:g} s")


async def watch(
    settings: Settings,
    user_id: str | None = None,
    from_beginning: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> AsyncGenerator[Received, None]:
    """Give recommendations as they are made, for ever.

    Args:
        settings: how to reach the broker.
        user_id: only this user's; None gives everybody's.
        from_beginning: begin with those that the topic still holds.
        ready: see `read_topic`.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: the topic does not exist.
    """
    key = None if user_id is None else user_id.encode()
    topic = topics_of(settings).recommendations
    found = read_topic(settings, topic, from_beginning, follow=True, ready=ready)
    async with aclosing(found) as records:
        async for record in records:
            if key is None or record.key == key:
                yield record
