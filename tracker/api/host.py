"""Host: what the API knows of the worker that it is part of."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from tracker.stream.partition import Partition
from tracker.stream.serving import Context

Send = Callable[[str, int, bytes, bytes], Awaitable[int]]
"""Sends a record (topic, partition, key, value), and returns its offset once it is stored."""


@dataclass(frozen=True, slots=True)
class Host:
    """The worker around the API.

    Attributes:
        context: settings, artifact and counters.
        partitions: returns the open partitions of the events topic by number.
        all_partitions: returns all open partitions.
        address: this worker's address for other workers, `http://HOST:PORT`.
        addresses: returns the address of the worker of each partition of the events topic, as the
            group has told it.
        reasons: returns why the worker is not ready; nothing if it is.
        moving: returns whether partitions are being handed out or recovered.
        send: sends events.
    """

    context: Context
    partitions: Callable[[], Mapping[int, Partition]]
    all_partitions: Callable[[], list[Partition]]
    address: str
    addresses: Callable[[], Mapping[int, str]]
    reasons: Callable[[], list[str]]
    moving: Callable[[], bool]
    send: Send
