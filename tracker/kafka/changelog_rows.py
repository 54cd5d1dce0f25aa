"""Rows of single keys in a partition of a changelog: the last one, and the last good one."""

from collections.abc import Callable, Collection
from contextlib import aclosing
from dataclasses import dataclass

from tracker.kafka.client import read_topic
from tracker.settings import Settings

IsGood = Callable[[bytes, bytes], bool]
"""Returns whether the row of a key can be read."""

Decrypted = Callable[[bytes, bytes | None], bytes | None]
"""Returns the row of a key from a value of the changelog, in which it may be encrypted."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A key's rows in a changelog.

    Attributes:
        good: the last row that can be read; None if there is none, or if the row was deleted.
        is_last: whether nothing was written after it.
    """

    good: bytes | None
    is_last: bool


async def stored_rows(
    settings: Settings,
    topic: str,
    partition: int,
    keys: Collection[bytes],
    is_good: IsGood,
    decrypted: Decrypted = lambda key, value: value,
) -> dict[bytes, Stored]:
    """Return by key what a partition of a changelog has of some keys.

    Kafka keeps rows from before the last one for a while. The whole partition is read.

    Args:
        settings: where the brokers are.
        topic: the changelog.
        partition: its partition.
        keys: the keys.
        is_good: tells rows that can be read.
        decrypted: returns a row from a value of the changelog.

    Raises:
        BrokerError: the brokers cannot be reached.
        TopicError: the changelog does not exist.
    """
    targets, rows = frozenset(keys), dict[bytes, Stored]()
    async with aclosing(read_topic(settings, topic, choose=lambda _: partition)) as records:
        async for record in records:
            key = record.key
            if key is None or key not in targets:
                continue
            value = decrypted(key, record.value)
            if value is None or is_good(key, value):
                rows[key] = Stored(value, True)
            else:
                before = rows.get(key)
                rows[key] = Stored(None if before is None else before.good, False)
    return rows
