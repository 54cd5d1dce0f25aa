"""Records of the topic of handed-on events: origins, and the states that some of them hold."""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import msgspec

from tracker.events.times import MAX_SECONDS
from tracker.events.wire import MAX_ID_BYTES
from tracker.kafka.outbox import Record

MOST_DIGITS = 19

Headers = Sequence[tuple[str, bytes | None]] | None
"""Headers of a record as it was read."""

SOURCES = 5
"""Kinds of origins. Each has numbers of its own, so that the offsets of a number never go back.

With P partitions and p for one of them, that of an event in the events topic is p. That of a state
is P + p if a handed-on event made it join, 2 P + p if one of the events topic did, and 3 P + p
if a command moved it from the changelog, whose offset then counts. That of a record which lay in
partition p of the topic of handed-on events when partitions were added is 4 P + p.
"""


class Origin(NamedTuple):
    """Place of a handed-on record in the events topic, and the time at which it came.

    `time` is the record's own in milliseconds, None for none; `time_type` is Kafka's type of it.
    """

    partition: int
    offset: int
    time: int | None
    time_type: int
    partitioner: str


class Readdressed(NamedTuple):
    """Places of a record that was handed on before partitions were added, and again after it.

    Attributes:
        place: partition and offset of the event in the events topic.
        homes: of each time, the partition that it had been handed to and the number of partitions:
            it is only for the users whose home that was.
    """

    place: tuple[int, int]
    homes: tuple[tuple[int, int], ...]

    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """Return the headers that hold it."""
        homes = ",".join(f"{home}/{count}" for home, count in self.homes)
        return (("place", b"%d-%d" % self.place), ("homes", homes.encode()))


class JoiningState(msgspec.Struct, frozen=True):
    """The state of a user who joins one of another partition, as it is handed on.

    Attributes:
        user: id of the user whom it joins.
        was: id of the user who joins.
        time: of the event that joins them, in seconds.
        partition: partition of that event.
        offset: offset of that event.
        row: row of the state.
        seen: row of the seen set; None for none.
    """

    user: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)]
    was: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)]
    time: Annotated[float, msgspec.Meta(ge=0.0, lt=MAX_SECONDS)]
    partition: Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
    offset: Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
    row: bytes
    seen: bytes | None = None


def headers_of(origin: Origin) -> tuple[tuple[str, bytes], ...]:
    """Return the headers that name an origin."""
    return (
        ("partition", str(origin.partition).encode()),
        ("offset", str(origin.offset).encode()),
        ("time", b"" if origin.time is None else str(origin.time).encode()),
        ("time_type", str(origin.time_type).encode()),
        ("partitioner", origin.partitioner.encode()),
    )


def state_record(topic: str, target: int, origin: Origin, state: JoiningState) -> Record:
    """Return the record that hands a state on to a partition."""
    headers = (*headers_of(origin), ("holds", b"state"))
    return Record(topic, target, state.user.encode(), msgspec.json.encode(state), headers)


def origin_of(headers: Headers) -> Origin | None:
    """Return the origin in the headers of a handed-on record; None if they are no worker's.

    >>> origin_of([("partition", b"3"), ("offset", b"12"), ("time", b""), ("time_type", b"1"),
    ...     ("partitioner", b"murmur2")])
    Origin(partition=3, offset=12, time=None, time_type=1, partitioner='murmur2')
    """
    fields = _filled(headers)
    numbers = [fields.get(name, b"-") for name in ("partition", "offset", "time_type")]
    time = fields.get("time", b"-")
    if not all(_is_number(number) for number in numbers) or not (time == b"" or _is_number(time)):
        return None
    partition, offset, time_type = map(int, numbers)
    rule = fields.get("partitioner", b"").decode(errors="replace")
    return Origin(partition, offset, int(time) if time else None, time_type, rule)


def readdressed_of(headers: Headers) -> Readdressed | None:
    """Return where a record went that was handed on twice; None if the headers do not say it.

    >>> readdressed_of([("place", b"3-12"), ("homes", b"1/4")])
    Readdressed(place=(3, 12), homes=((1, 4),))
    """
    fields = _filled(headers)
    place = fields.get("place", b"").split(b"-")
    homes = [home.split(b"/") for home in fields.get("homes", b"").split(b",")]
    if not all(len(pair) == 2 and all(map(_is_number, pair)) for pair in (place, *homes)):
        return None
    pairs = tuple((int(home), int(count)) for home, count in homes)
    if not all(home < count for home, count in pairs):
        return None
    return Readdressed((int(place[0]), int(place[1])), pairs)


def _filled(headers: Headers) -> dict[str, bytes]:
    """Return headers by name; one without a value, as Kafka has them too, is empty."""
    return {name: value or b"" for name, value in headers or ()}


def _is_number(text: bytes) -> bool:
    return text.isdigit() and len(text) <= MOST_DIGITS and int(text) < 2**63
