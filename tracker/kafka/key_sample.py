"""A sample of the events topic: how its records are keyed, and which partitioner put them there."""

import time
from dataclasses import dataclass

from aiokafka import TopicPartition

from tracker.events.batch import events_in
from tracker.events.dialects import Dialect, load_dialect
from tracker.events.wire import RejectedEventError
from tracker.kafka.client import ends_of
from tracker.kafka.connect import consumer
from tracker.kafka.partitioner import HASHES, fitting
from tracker.kafka.records import read_every_record
from tracker.settings import Partitioner, Settings

SAMPLED = 2_000
"""Records that are read in all, the latest of each partition."""

SECONDS = 10.0
"""Time that reading them may take."""


@dataclass(frozen=True)
class KeySample:
    """The latest records of the events topic.

    Attributes:
        records: number of records read.
        partitions: number of partitions of the topic.
        no_key: records without a key.
        other_key: records whose key is not their user.
        keyed: records whose key is their user.
        users: users of the keyed records.
        away: keyed records that are not where TRACKER_PARTITIONER puts them.
        fit: the partitioner that puts all keyed records where they are; None if none does.
        away_fit: the partitioner that puts all records of `away` where they are.
        split: users with keyed records in several partitions, the first few.
    """

    records: int
    partitions: int
    no_key: int
    other_key: int
    keyed: int
    users: int
    away: int
    fit: Partitioner | None
    away_fit: Partitioner | None
    split: tuple[str, ...]


async def sample_keys(settings: Settings, topic: str, partitions: int) -> KeySample:
    """Read the latest records of the events topic, and look at their keys and partitions.

    Raises:
        BrokerError: the broker cannot be used.
        DialectError: TRACKER_EVENTS_FORMAT names no format.
    """
    places = await _latest(settings, topic, partitions)
    dialect = load_dialect(settings.events_format)
    no_key = other_key = 0
    keyed: list[tuple[bytes, int]] = []
    for key, value, partition in places:
        if key is None:
            no_key += 1
        elif value is not None and key != _user_of(value, key, dialect):
            other_key += 1
        else:
            keyed.append((key, partition))
    return _judged(settings.partitioner, partitions, len(places), no_key, other_key, keyed)


def _judged(
    partitioner: Partitioner,
    partitions: int,
    records: int,
    no_key: int,
    other_key: int,
    keyed: list[tuple[bytes, int]],
) -> KeySample:
    homes: dict[bytes, set[int]] = {}
    for key, partition in keyed:
        homes.setdefault(key, set()).add(partition)
    away: list[tuple[bytes, int]] = []
    choose = HASHES.get(partitioner)
    if choose is not None:
        away = [(key, place) for key, place in keyed if choose(key) % partitions != place]
    split = sorted(key.decode(errors="replace") for key, at in homes.items() if len(at) > 1)
    return KeySample(
        records=records,
        partitions=partitions,
        no_key=no_key,
        other_key=other_key,
        keyed=len(keyed),
        users=len(homes),
        away=len(away),
        fit=fitting(set(keyed), partitions, partitioner),
        away_fit=fitting(set(away), partitions, partitioner),
        split=tuple(split[:3]),
    )


def _user_of(value: bytes, otherwise: bytes, dialect: Dialect | None) -> bytes:
    """Return the user of a record's events; what is given where it has none, or several."""
    try:
        users = {event.user_id for event in events_in(value, dialect)}
    except RejectedEventError:
        return otherwise
    return users.pop().encode() if len(users) == 1 else otherwise


async def _latest(
    settings: Settings, topic: str, partitions: int
) -> list[tuple[bytes | None, bytes | None, int]]:
    """Return key, value and partition of the latest records, as many of each partition."""
    read_every_record([topic])
    each = max(5, SAMPLED // partitions)
    parts = [TopicPartition(topic, number) for number in range(partitions)]
    latest: list[tuple[bytes | None, bytes | None, int]] = []
    async with consumer(settings, fetch_max_wait_ms=100) as client:
        client.assign(parts)
        ends = await ends_of(client, parts, settings)
        starts = await client.beginning_offsets(parts)
        for part in parts:
            client.seek(part, max(starts[part], ends[part] - each))
        unread = {part for part in parts if starts[part] < ends[part]}
        deadline = time.monotonic() + SECONDS
        while unread and time.monotonic() < deadline:
            for part, records in (await client.getmany(timeout_ms=200)).items():
                latest += [
                    (record.key, record.value, part.partition)
                    for record in records
                    if record.offset < ends[part]
                ]
            unread = {part for part in unread if await client.position(part) < ends[part]}
    return latest
