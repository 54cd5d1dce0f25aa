"""Values of records that are not plain events: taken if their meaning is plain, else named.

Only what the fast decoder of wire.py refuses comes here.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Any

import msgspec

from tracker.events.ids import IdError, id_text
from tracker.events.names import CLOSE_LETTERS, nearest

FIELDS = (
    "user_id", "item_id", "kind", "timestamp", "scene", "value", "event_id", "retracts",
    "takes_back", "was",
)  # fmt: skip
"""The fields of an event."""

LOOKED_LIKE = FIELDS[:-1]
"""The fields to which another name may look alike; `was` is too short for that."""

IDS = ("user_id", "item_id", "event_id", "retracts", "was")

IDS_OF_EVENTS = frozenset(("user_id", "item_id"))

DECISIVE = ("retracts", "event_id", "takes_back")
"""A misspelt one of these changes what an event does, so it is never ignored."""

MAX_EVENTS = 500
"""Maximum number of events in one record."""

MAX_NAMES = 100
"""Most names of unknown fields that are counted one by one."""

OTHER_NAMES = "(others)"
"""Counts the unknown fields beyond."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)

_NOT_FINITE = re.compile(rb"[:\[,]\s*[+-]?(NaN|nan|Infinity|inf)\b")

_PART = re.compile(rb'\s*(?:"[^"\n]*"\s*:|[}\]]\s*,?\s*$)')

_BETWEEN = re.compile(rb"\}\s*\{")

_BEGINNINGS = (
    (b"\xff\xfe", "text in UTF-16; write it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16; write it as UTF-8"),
    (b"\x1f\x8b", "gzip bytes; leave compression to the producer's compression.type"),
    (b"\x28\xb5\x2f\xfd", "zstd bytes; leave compression to the producer's compression.type"),
    (b"Obj\x01", "an Avro file; send one JSON object per record"),
    (b"PAR1", "a Parquet file; send one JSON object per record"),
    (b"<", "XML or HTML; send one JSON object per record"),
)


class ForeignValueError(ValueError):
    """The value cannot be taken; `reason` is one of wire.REASONS."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SeveralEvents(Exception):
    """A record holds several events.

    Attributes:
        parts: the events, each as JSON of its own.
        record_of: makes a record of some of the events, given by their places.
    """

    def __init__(self, parts: Sequence[bytes], record_of: Callable[[Sequence[int]], bytes]) -> None:
        super().__init__(f"{len(parts)} events in one record")
        self.parts = parts
        self.record_of = record_of

    @classmethod
    def of_array(cls, parts: Sequence[Any]) -> "SeveralEvents":
        """Return those of an array of events in our format."""
        return cls(
            [msgspec.json.encode(part) for part in parts],
            lambda places: msgspec.json.encode([parts[place] for place in places]),
        )


def check_number(events: int) -> None:
    """Refuse a record with more than MAX_EVENTS events; raises ForeignValueError."""
    if events > MAX_EVENTS:
        raise ForeignValueError(
            "too_many_events",
            f"{events} events in one record; at most {MAX_EVENTS} are taken: send them in several",
        )


def fields_of(value: bytes, error: Exception) -> dict[str, Any]:
    """Return the fields of an event from what other tools make of it.

    A byte order mark is skipped. Of `{"schema": ..., "payload": {...}}`, as Kafka Connect's
    JsonConverter writes it, the payload is taken, and of an array with one event that event.

    Args:
        value: bytes of a record or line.
        error: why the decoder of events refused it.

    Raises:
        ForeignValueError: it is something else; the message names it and the remedy.
        SeveralEvents: it is an array of several.
    """
    content = content_of(value)
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if isinstance(content, list) and len(content) > 1:
        check_number(len(content))
        raise SeveralEvents.of_array(content)
    return object_of(content, str(error))


def content_of(value: bytes) -> Any:
    """Return what the JSON of a record holds, without a byte order mark or Connect's envelope.

    Raises:
        ForeignValueError: it is not JSON; the message names what it is, and the remedy.
    """
    text = value.removeprefix(_BYTE_ORDER_MARK)
    try:
        content = msgspec.json.decode(text)
    except RecursionError as deep:
        raise ForeignValueError("wrong_type", "nested too deeply to be an event") from deep
    except msgspec.ValidationError as beyond:  # JSON, with a number that nothing here can hold
        raise ForeignValueError(
            "wrong_type", f"{str(beyond).partition(' - ')[0]}; numbers below 1e308 are expected"
        ) from beyond
    except (msgspec.DecodeError, UnicodeDecodeError) as not_json:
        why = _not_json(value) or f"not JSON: {not_json}"
        raise ForeignValueError("not_json", why) from not_json
    if isinstance(content, dict) and content.keys() == {"schema", "payload"}:
        content = content["payload"]  # Kafka Connect: schemas.enable=true
        if content is None:
            raise ForeignValueError("tombstone", "Kafka Connect's envelope with no payload")
    return content


def object_of(content: Any, why: str) -> dict[str, Any]:
    """Return content that is an object.

    Args:
        content: of a record, or a part of it.
        why: why it is no event, for the message.

    Raises:
        ForeignValueError: it is none.
    """
    if isinstance(content, str):
        again = content.lstrip()[:1] in ("{", "[")
        raise ForeignValueError(
            "wrong_type",
            "a JSON text that holds JSON: it was encoded twice; send the object itself"
            if again
            else "a JSON text; an object with the fields of an event is expected",
        )
    if content == []:
        raise ForeignValueError("wrong_type", "an array of 0 events; an event is expected")
    if not isinstance(content, dict):
        raise ForeignValueError(
            "wrong_type", f"JSON, but no object: an event is expected ({why[:200]})"
        )
    return content


def known_fields(
    fields: dict[str, Any], unknown: "Counter[str] | None", reject_unknown: bool
) -> dict[str, Any]:
    """Return the fields that an event has, ids as texts; count the names of the others.

    Args:
        fields: as they were found.
        unknown: counts the names of fields that are ignored; at most MAX_NAMES of them.
        reject_unknown: refuse a field that an event does not have.

    Raises:
        ForeignValueError: an id is neither text nor whole number, or a field is refused.
    """
    result: dict[str, Any] = {}
    for name, value in fields.items():
        if name in FIELDS:
            if value is not None:
                result[name] = value
            continue
        meant = decisive(name)
        if meant is not None or reject_unknown:
            raise ForeignValueError("unknown_field", _unknown(name, meant))
        if unknown is not None:
            name = name[:64]
            if name not in unknown and len(unknown) >= MAX_NAMES:
                name = OTHER_NAMES
            unknown[name] += 1
    for name in IDS:
        if result.get(name) is not None:
            try:
                result[name] = id_text(result[name], name)
            except IdError as error:
                raise ForeignValueError("wrong_type", str(error)) from error
    for name in ("kind", "scene"):
        if isinstance(result.get(name), int) and not isinstance(result[name], bool):
            result[name] = str(result[name])
    if isinstance(result.get("value"), str):
        result["value"] = _value_in(result["value"])
    return result


def _value_in(text: str) -> float | None:
    """Return the number of a value in quotes; None for an empty text.

    Raises:
        ForeignValueError: it is no number.
    """
    if not text.strip():
        return None
    if not _NUMBER.fullmatch(text.strip()) or not isfinite(number := float(text)):
        raise ForeignValueError(
            "wrong_type", f"value {text[:64]!r} is no number; a number is expected, such as 3.5"
        )
    return number


def decisive(name: str) -> str | None:
    """Return the decisive field that a name within two letters of it may mean, None for none.

    >>> decisive("eventId"), decisive("colour") is None
    ('event_id', True)
    """
    return _decisive(name) if 5 < len(name) < 13 else None


@functools.lru_cache(4096)
def _decisive(name: str) -> str | None:
    return nearest(name, DECISIVE)


def hint(fields: dict[str, Any]) -> str:
    """Return which names of fields look like those that an event has; "" for none."""
    texts = [
        _looks_like(name, LOOKED_LIKE) or _holds(name, value) for name, value in fields.items()
    ]
    return "".join(f"; {text}" for text in [text for text in texts if text][:20])


def _holds(name: str, value: Any) -> str:
    """Return that a field holds an event, or a list of them, as envelopes do; "" if it does not."""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return f"`{name[:64]}` holds {len(value)} objects: send each of them as a record"
    if isinstance(value, dict) and not IDS_OF_EVENTS.isdisjoint(value):
        return (
            f"`{name[:64]}` holds an object with ids: send that (Debezium: ExtractNewRecordState)"
        )
    return ""


def look_alikes(names: Counter[str]) -> list[str]:
    """Return which unknown names look like a field, as messages say it, the most frequent first.

    >>> look_alikes(Counter({"colour": 9, "scen": 3}))
    ['`scen` looks like `scene`']
    """
    return [text for name, _ in names.most_common() if (text := _looks_like(name, LOOKED_LIKE))]


def _looks_like(name: str, names: tuple[str, ...]) -> str:
    if name in FIELDS:
        return ""
    meant = nearest(name, names, min(CLOSE_LETTERS, len(name) // 2))  # `id` is not `kind`
    return "" if meant is None else f"`{name}` looks like `{meant}`"


def _unknown(name: str, meant: str | None) -> str:
    if meant is not None:
        return (
            f"`{name[:64]}` looks like `{meant}`, which decides what an event does, so it is not"
            " ignored; correct the name, or choose one that differs more (of a file name it:"
            f" --columns {meant}={name[:64]})"
        )
    near = nearest(name, LOOKED_LIKE)
    like = "" if near is None else f" that looks like `{near}`"
    return f"unknown field `{name[:64]}`{like}; TRACKER_UNKNOWN_FIELDS=ignore takes such events"


def _not_json(value: bytes) -> str:
    """Return what bytes are that are not JSON, and the remedy; "" if nobody knows."""
    if not value.strip():
        return "an empty value; a JSON object is expected"
    if value[:5] == bytes(5):
        return "zero bytes, as a damaged file or a full disk leaves them; a JSON object is expected"
    if value[:1] == b"\0" and len(value) >= 5 and value[1:2] != b"{":
        schema = int.from_bytes(value[1:5], "big")
        return (
            f"Confluent's wire format with schema id {schema}; send plain JSON: in Kafka Connect"
            " value.converter=org.apache.kafka.connect.json.JsonConverter, in a producer a"
            " serializer without a schema registry"
        )
    if b"\0" in value[:4] and any(letter in value[:4] for letter in b'{["'):
        return "text in UTF-16 or UTF-32; write it as UTF-8"
    for beginning, name in _BEGINNINGS:
        if value.startswith(beginning):
            return name
    start = value.lstrip()[:1]
    if _NOT_FINITE.search(value):
        return "not JSON: it knows neither NaN nor Infinity; leave the field out, or write null"
    if start == b"{" and re.match(rb"\s*\{\s*'", value):
        return "not JSON: quotes are single; this is Python's str() of a dict: use json.dumps()"
    if start == b"{":
        return _several(value) or _not_text(value)
    if _PART.match(value):
        return (
            "a part of an object over several lines; one object per line is expected: jq -c ."
            " makes them"
        )
    if start != b"[" and re.match(rb"[^{}\n]*[,;\t][^{}\n]*", value[:1000]) and b"{" not in value:
        return "a line of CSV, not JSON; a JSON object is expected"
    return ""


def _not_text(value: bytes) -> str:
    try:
        value.decode()
    except UnicodeDecodeError as error:
        return f"not JSON: byte {error.start} is not UTF-8; write the text as UTF-8"
    return ""


def _several(value: bytes) -> str:
    """Return a message if the value is several lines of JSON."""
    if value.strip() == b"{":
        return "an object over several lines; one object per line is expected: jq -c . makes them"
    if value.rstrip().endswith(b"},"):
        return "a comma after the object; one object per line is expected: jq -c . makes them"
    lines = [line for line in value[: 1 << 20].splitlines() if line.strip()]
    if len(lines) < 2:
        if _BETWEEN.search(value):
            return (
                "several objects in one line; one object per line is expected: jq -c . makes them"
            )
        return ""
    try:
        msgspec.json.decode(lines[0])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return f"{len(lines)} lines of JSON in one record; one event per record is expected"
