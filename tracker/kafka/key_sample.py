"""A sample of the events topic: how its records are keyed, and which partitioner put them there."""

from collections.abc import Sequence
from dataclasses import dataclass

from tracker.events.batch import events_in
from tracker.events.dialect import Dialect
from tracker.events.wire import RejectedEventError
from tracker.kafka.client import Received
from tracker.kafka.partitioner import HASHES, fitting
from tracker.settings import Partitioner

SAMPLED = 2_000
"""Records that are read in all, the latest of each partition."""


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


def sampled_of_each(partitions: int) -> int:
    """Return how many records of each partition are looked at."""
    return max(5, SAMPLED // partitions)


def sample_keys(
    records: Sequence[Received],
    partitions: int,
    partitioner: Partitioner,
    dialect: Dialect | None = None,
) -> KeySample:
    """Look at the keys and partitions of records of the events topic.

    Args:
        records: the latest ones.
        partitions: number of partitions of the topic.
        partitioner: the rule that is set.
        dialect: format of the events.
    """
    no_key = other_key = 0
    keyed: list[tuple[bytes, int]] = []
    for record in records:
        if record.key is None:
            no_key += 1
        elif record.value is not None and record.key != _user_of(record.value, record.key, dialect):
            other_key += 1
        else:
            keyed.append((record.key, record.partition))
    return _judged(partitioner, partitions, len(records), no_key, other_key, keyed)


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
