"""Messages in Kafka topics: Event in, Recommendation and Rejection out.

On the path of one event: see docs/design/one-event-one-commit.md.
"""

from collections import Counter
from typing import Annotated, Any

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


class OtherEvent(Event, frozen=True, forbid_unknown_fields=True, gc=False):
    """An event that takes another back without its id, or that joins two users.

    With `takes_back`, a kind, the user's latest event of that kind on `item_id` is taken back.
    With `was`, the user of that id turns out to be `user_id`, and joins that user's state.
    Once decoded, `retracts` is "", which tells both from actions.
    """

    takes_back: _TEXT | None = None
    was: _TEXT | None = None


class User(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Categorical attributes of a user."""

    user_id: _TEXT
    attributes: dict[str, str | float | bool | list[str]] = {}


class Parts(msgspec.Struct, frozen=True, gc=False):
    """The parts of a score, which add up to it.

    `base` is the score of the mean candidate of this list. `groups` are what the item's features
    add to that, by group. `diversity` is what the item lost, in the order of the list, by being
    like items above it; it is no part of the score.
    """

    base: float
    groups: dict[str, float]
    diversity: float


class RecommendedItem(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One item of a list: `score` higher is better; `because` up to 3 of the user's own items.

    `probability` of a positive event; only if the artifact has a trained prediction. `interest` is
    the label of the interest that the item is nearest to. `shares` are those of the events on the
    items of `because`, in what all of the user's events say for the item; `earlier` is that of the
    events that have left the ring, and what lacks to 1 is that of its other events. All shares are
    missing if no event speaks for the item.
    """

    item_id: str
    score: float
    channel: str
    because: list[str]
    probability: float | None = None
    interest: str | None = None
    shares: list[float] = []
    earlier: float | None = None
    parts: Parts | None = None


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

    On the wire the value is the record's bytes, and these fields are headers. Of a record with
    several events, the value holds those that were not taken for this reason; `events` is their
    number.
    """

    reason: str
    message: str
    topic: str
    partition: int
    offset: int
    events: Annotated[int, msgspec.Meta(ge=1)] = 1


class Undecodable(bytes):
    """Bytes of a record, or of a batch of records, of which is known that they are no event.

    Attributes:
        why: the message of the rejection.
        reason: its reason, one of REASONS.
    """

    why: str
    reason: str

    def __new__(cls, value: bytes, why: str, reason: str = "undecodable") -> "Undecodable":
        """Keep the bytes with the reason."""
        result = super().__new__(cls, value)
        result.why = why
        result.reason = reason
        return result


class OwnFormat(bytes):
    """An event in our own format, whatever the format of the records is."""


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
    "too_many_events",
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
        if (value := getattr(event, name)) not in (None, "")
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
        SeveralEvents: the record is an array of several events.
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
        raise RejectedEventError(value.reason, value.why)
    try:
        fields = fields_of(value, error)
        ours = known_fields(fields, unknown, reject_unknown)
        if ours.get("takes_back") is not None or ours.get("was") is not None:
            return _other_event(ours)
        event = msgspec.convert({n: v for n, v in ours.items() if n not in _OTHER}, Event)
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


_OTHER = ("takes_back", "was")


def _other_event(fields: dict[str, Any]) -> Event:
    """Return an event that takes another back without its id, or joins two users.

    Raises:
        msgspec.ValidationError: a field has another type than it should.
        RejectedEventError: fields are missing, or do not go together.
    """
    event = msgspec.convert(fields, OtherEvent)
    if event.was is not None and event.item_id is not None:
        raise RejectedEventError(
            "wrong_type",
            "was and item_id in one event: was joins two users, and says nothing of items; send"
            " both as events of their own",
        )
    shapes = [name for name in ("retracts", *_OTHER) if getattr(event, name) is not None]
    if len(shapes) > 1:
        raise RejectedEventError(
            "wrong_type", f"{' and '.join(shapes)} in one event; one of them is expected"
        )
    if event.takes_back is not None and event.item_id is None:
        raise RejectedEventError(
            "missing_field",
            "item_id missing; what takes back without an event_id carries user_id, item_id and"
            " takes_back",
        )
    _check_ids(event, (*_TEXTS, *_OTHER))
    return msgspec.structs.replace(event, retracts="")


def _missing(event: Event, more: str = "") -> RejectedEventError:
    missing = [n for n in ("item_id", "kind", "timestamp") if getattr(event, n) is None]
    return RejectedEventError(
        "missing_field",
        f"{', '.join(missing)} missing; an event carries user_id, item_id, kind and timestamp,"
        f" a retraction user_id and retracts{more}",
    )


_TEXTS = ("user_id", "item_id", "kind", "scene", "event_id", "retracts")


def _check_ids(event: Event, names: tuple[str, ...] = _TEXTS) -> None:
    for name in names:
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
