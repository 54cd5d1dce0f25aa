"""Messages in Kafka topics: Event in, Recommendation and Rejection out."""

from collections import Counter
from typing import Annotated

import msgspec
import xxhash

from tracker.events.foreign import ForeignValueError, fields_of, hint, known_fields

MAX_ID_BYTES = 256
"""Longest user, item or event id, scene or kind in UTF-8 bytes."""

_TEXT = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)]


def hash_id(text: str) -> int:
    """Return the 64-bit hash under which an id is kept in states; never 0, which means none."""
    return xxhash.xxh3_64_intdigest(text.encode()) or 1


def kind_code(kind: str) -> int:
    """Return the 16-bit code of a kind; never 0."""
    return hash_id(kind) & 0xFFFF or 1


def scene_code(scene: str | None) -> int:
    """Return the 32-bit code of a scene; 0 for none."""
    return hash_id(scene) & 0xFFFFFFFF or 1 if scene else 0


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One user action on one item, or the retraction of an earlier one.

    An action carries `user_id`, `item_id`, `kind` and `timestamp` (float seconds since the epoch,
    or ISO 8601); optional `scene`, `value` (quantity, rating, dwell seconds) and `event_id`.
    A retraction carries `user_id` and `retracts`, an earlier `event_id`; optional `timestamp`.
    """

    user_id: _TEXT
    item_id: _TEXT | None = None
    kind: _TEXT | None = None
    timestamp: float | str | None = None
    scene: Annotated[str, msgspec.Meta(max_length=MAX_ID_BYTES)] | None = None
    value: float | None = None
    event_id: _TEXT | None = None
    retracts: _TEXT | None = None


class User(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Categorical attributes of a user."""

    user_id: _TEXT
    attributes: dict[str, str | float | bool | list[str]] = {}


class RecommendedItem(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One item of a list: `score` higher is better; `because` up to 3 of the user's own items.

    `probability` of a positive event; only if the artifact has a trained prediction.
    """

    item_id: str
    score: float
    channel: str
    because: list[str]
    probability: float | None = None


class Interest(msgspec.Struct, frozen=True, gc=False):
    """One of a user's interests: its share of all (0..1), and the change since a day before."""

    label: str
    strength: float
    change: float


class Recommendation(msgspec.Struct, frozen=True, gc=False):
    """A user's list; it supersedes all of the same user with a lower `version`.

    `id` is `topic-partition-offset` of the user's last event in it; `timestamp` is the stream time
    (seconds) it was made for; `latency_ms` runs from the append of that event to the encoding.
    """

    id: str
    user_id: str
    timestamp: float
    scene: str | None
    items: list[RecommendedItem]
    artifact: str
    latency_ms: float
    interests: list[Interest]
    version: int = 0


class Rejection(msgspec.Struct, frozen=True):
    """Why a record was not taken: `reason` is the code that is counted, `message` is for people.

    On the wire the value is the record's bytes, and these fields are headers.
    """

    reason: str
    message: str
    topic: str
    partition: int
    offset: int


class Undecodable(bytes):
    """Bytes of a record, or a batch of records, whose form in the log cannot be decoded."""

    why: str

    def __new__(cls, value: bytes, why: str) -> "Undecodable":
        """Keep the bytes with the reason."""
        result = super().__new__(cls, value)
        result.why = why
        return result


class RejectedEventError(ValueError):
    """The bytes are not an event that can be taken; `reason` is one of REASONS."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


REASONS = (
    "tombstone",
    "undecodable",
    "not_json",
    "wrong_type",
    "missing_field",
    "unknown_field",
    "bad_id",
    "bad_timestamp",
    "future_timestamp",
    "bad_value",
    "unknown_kind",
    "no_origin",
    "handed_twice",
)

_decoder = msgspec.json.Decoder(Event)
_encoder = msgspec.json.Encoder()


def encode_event(event: Event) -> bytes:
    """Return the JSON of an event, without the fields that are not set."""
    fields = {
        name: value
        for name in event.__struct_fields__
        if (value := getattr(event, name)) is not None
    }
    return _encoder.encode(fields)


def decode_event(
    value: bytes | None,
    unknown: "Counter[str] | None" = None,
    reject_unknown: bool = False,
) -> Event:
    """Read one event and check all that does not depend on weights and times.

    What is not exactly in the format is taken if its meaning is plain (see foreign.py): fields that
    an event does not have are ignored, an id that is a whole number is its decimal text.

    Args:
        value: bytes of a record or line.
        unknown: counts the names of fields that are ignored.
        reject_unknown: refuse an event with a field that events do not have.

    Raises:
        RejectedEventError: with its reason code; the message names what was found and expected.
    """
    if value is None:
        raise RejectedEventError(
            "tombstone", "a record without value; an event or a retraction is expected"
        )
    try:
        event = _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _decode_foreign(value, error, unknown, reject_unknown)
    if event.retracts is None and (
        event.item_id is None or event.kind is None or event.timestamp is None
    ):
        raise _missing(event)
    if len(value) > MAX_ID_BYTES:
        _check_ids(event)
    return event


def _decode_foreign(
    value: bytes, error: Exception, unknown: "Counter[str] | None", reject_unknown: bool
) -> Event:
    """Read an event that is not exactly in the format."""
    if isinstance(value, Undecodable):
        raise RejectedEventError("undecodable", value.why)
    try:
        fields = fields_of(value, error)
        event = msgspec.convert(known_fields(fields, unknown, reject_unknown), Event)
    except ForeignValueError as foreign:
        raise RejectedEventError(foreign.reason, str(foreign)) from error
    except msgspec.ValidationError as invalid:
        reason = _reason(str(invalid))
        more = hint(fields) if reason == "missing_field" else ""
        raise RejectedEventError(reason, f"{invalid}{more}") from error
    if event.retracts is None and None in (event.item_id, event.kind, event.timestamp):
        raise _missing(event, hint(fields))
    _check_ids(event)
    return event


def _missing(event: Event, more: str = "") -> RejectedEventError:
    missing = [n for n in ("item_id", "kind", "timestamp") if getattr(event, n) is None]
    return RejectedEventError(
        "missing_field",
        f"{', '.join(missing)} missing; an event carries user_id, item_id, kind and timestamp,"
        f" a retraction user_id and retracts{more}",
    )


def _check_ids(event: Event) -> None:
    for name in ("user_id", "item_id", "kind", "scene", "event_id", "retracts"):
        text = getattr(event, name)
        if text is not None and len(text) * 4 > MAX_ID_BYTES:
            size = len(text.encode())
            if size > MAX_ID_BYTES:
                raise RejectedEventError(
                    "bad_id", f"{name} has {size} bytes; at most {MAX_ID_BYTES} are taken"
                )


def _reason(message: str) -> str:
    if "missing required field" in message:
        return "missing_field"
    if "length" in message:
        return "bad_id"
    return "wrong_type"
