"""Dialect: what a format of other systems has to do, and records of it as our events."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from tracker.events.foreign import (
    ForeignValueError,
    SeveralEvents,
    check_number,
    content_of,
    object_of,
)
from tracker.events.lines import Line
from tracker.events.wire import (
    Event,
    OwnFormat,
    RejectedEventError,
    Undecodable,
    decode_event,
)

OWN = "tracker"
"""The name of our own format, which is no dialect."""

Fields = dict[str, Any]
"""Fields of one event in our format."""


class PassedOver(Exception):
    """A record that a dialect leaves out; `word` is what it says of itself."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class Part(msgspec.Struct, frozen=True):
    """One event of a record: its fields in our format, and the place of its item in the list.

    `place` is -1 for an event of the record as a whole.
    """

    fields: Fields
    place: int = -1


class Dialect(Protocol):
    """A format of records.

    Attributes:
        name: as settings and commands name it.
    """

    name: str

    def records(self, content: Any) -> list[Any]:
        """Return the records that a value holds, one or several."""

    def parts(self, record: Fields) -> list[Part]:
        """Return the events of a record.

        Raises:
            ForeignValueError: the record is not one of this format.
            PassedOver: it is one that says nothing of items.
        """

    def only(self, record: Fields, places: Sequence[int]) -> Fields:
        """Return a record with only some of the items of its list."""

    def hint(self) -> str:
        """Return where the fields of an event are expected, for messages."""


def numbered(event_id: Any, place: int) -> Any:
    """Return the id of an event of a record of several: the record's, then with a number.

    >>> [numbered("m1", place) for place in range(3)]
    ['m1', 'm1/2', 'm1/3']
    """
    is_id = isinstance(event_id, str | int) and not isinstance(event_id, bool)
    return event_id if place == 0 or not is_id else f"{event_id}/{place + 1}"


def decode_record(value: bytes | None, dialect: Dialect) -> Event:
    """Read the event of a record in a dialect.

    Args:
        value: bytes of a record or line.
        dialect: its format.

    Raises:
        RejectedEventError: it is none; the message names what was found and expected.
        SeveralEvents: there are several.
        PassedOver: it is a record of the dialect that says nothing of items.
    """
    if value is None:
        raise RejectedEventError("tombstone", f"a record without value; {dialect.name} is expected")
    if isinstance(value, OwnFormat):
        return decode_event(value)
    if isinstance(value, Undecodable):
        raise RejectedEventError(value.reason, value.why)
    try:
        parts, record_of = _split(value, dialect)
    except ForeignValueError as error:
        raise RejectedEventError(error.reason, str(error)) from error
    if len(parts) > 1:
        raise SeveralEvents(parts, record_of)
    try:
        return decode_event(parts[0])
    except RejectedEventError as error:
        if error.reason == "missing_field":
            raise RejectedEventError(error.reason, f"{error}{dialect.hint()}") from error
        raise


def _split(value: bytes, dialect: Dialect) -> tuple[list[bytes], Callable[[Sequence[int]], bytes]]:
    """Return the events of a record as JSON in our format, and what makes a record of some.

    Raises:
        ForeignValueError: no part of the record is of the dialect.
        PassedOver: none of its parts says anything of items.
    """
    records = dialect.records(content_of(value))
    check_number(len(records))
    if not records:
        raise ForeignValueError("wrong_type", "an empty array; an event is expected")
    parts: list[bytes] = []
    origins: list[tuple[int, int]] = []
    for number, record in enumerate(records):
        try:
            events = dialect.parts(object_of(record, f"of the format {dialect.name}"))
        except PassedOver:
            if len(records) == 1:
                raise
            continue
        except ForeignValueError as error:
            if len(records) == 1:
                raise
            parts.append(Undecodable(b"", str(error), error.reason))
            origins.append((number, -1))
            continue
        parts += [_encoder.encode(part.fields) for part in events]
        origins += [(number, part.place) for part in events]
    if not parts:
        raise PassedOver("batch")
    check_number(len(parts))

    def record_of(places: Sequence[int]) -> bytes:
        by_record: dict[int, list[int]] = {}
        for place in places:
            number, item = origins[place]
            by_record.setdefault(number, []).append(item)
        some = [
            records[number] if items == [-1] else dialect.only(records[number], items)
            for number, items in by_record.items()
        ]
        return _encoder.encode(some[0] if len(some) == 1 else some)

    return parts, record_of


def records_of(value: bytes, dialect: Dialect | None, as_it_is: bool) -> list[bytes]:
    """Return a line of a file as the records to send: those of several users are apart.

    Args:
        value: the line.
        dialect: its format; None for our own.
        as_it_is: whether records keep the dialect; else they are in our own format.

    Returns:
        the records, none for a line that the dialect passes over. A line that is none of the
        dialect comes as it is, with its reason.
    """
    if isinstance(value, Undecodable) or (dialect is None and not value.startswith(b"[")):
        return [value]
    try:
        if dialect is None:
            content = content_of(value)
            several = isinstance(content, list) and len(content) > 1
            return [_encoder.encode(part) for part in content] if several else [value]
        if not as_it_is:
            return _split(value, dialect)[0]
        content = content_of(value)
        records = dialect.records(content)
        return [value] if len(records) == 1 else [_encoder.encode(record) for record in records]
    except PassedOver:
        return []
    except ForeignValueError as error:
        return [Undecodable(value, str(error), error.reason)]


def records_in(
    lines: Iterator[Line], dialect: Dialect | None = None, as_it_is: bool = False
) -> Iterator[Line]:
    """Yield the records of lines, each with the place of its line; see `records_of`."""
    for line in lines:
        for value in records_of(line.value, dialect, as_it_is):
            yield line if value is line.value else Line(line.place, value)


_encoder = msgspec.json.Encoder()
