"""Records of the forget topic: requests to forget a user, and what was done, without the id."""

import hashlib
import uuid
from typing import Annotated, Any, NamedTuple

import msgspec

from tracker.kafka.outbox import Record

AUDIT_PREFIX = b"\0audit/"
"""First bytes of the keys of audit records; a key with a leading NUL is no user's."""

BEAT_KEY = b"\0beat"
"""Key of the records that keep a quiet topic moving, so that it is compacted."""

PARKED_PREFIX = b"\0hash/"
"""First bytes of the keys of hashes of forgotten users, while `reset-state` makes topics again."""

SALT_BYTES = 16
DIGEST_BYTES = 16

APPLIED_HEADER = "applied"
"""Header of a tombstone: offset of the request that it ends."""
MOST_DIGITS = 19
"""Digits of an offset at most."""


class ForgetRequest(msgspec.Struct, omit_defaults=True):
    """The value of a request; its key is the user's id or pseudonym.

    Attributes:
        request: id of the request, which the audit records carry; by default the record's place.
        before: events up to this time are dropped, in seconds; by default the record's time.
        everywhere: whether every partition has a request; if not, its reader sends them.
    """

    request: str = ""
    before: float = 0.0
    everywhere: bool = False


class Audit(msgspec.Struct):
    """Record of a request applied at one partition, without the user's id.

    Attributes:
        request: id of the request.
        partition: partition of the states.
        requested_at: time of the request, in seconds.
        completed_at: time of the commit's begin, in seconds.
        events_taken_out: events in the ring that were taken out of items.
        events_left: older events, which stay in the counts of items without a name.
        was_known: whether the partition had a state of the user.
    """

    request: str
    partition: int
    requested_at: float
    completed_at: float
    events_taken_out: int
    events_left: int
    was_known: bool


class Forgetting(msgspec.Struct, array_like=True, gc=False):
    """The value of a hash.

    Attributes:
        at: events up to this time are dropped, in seconds.
        until: the hash itself is deleted then, in seconds.
        key: fingerprint of the key of the pseudonym that the hash is of; empty if it is of the id.
    """

    at: float
    until: float
    key: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{16})?$")] = ""


class PendingForget(NamedTuple):
    """A request that a partition has not applied: its key, its offset and time, and its value."""

    key: bytes
    offset: int
    appended: float
    value: ForgetRequest

    @property
    def user(self) -> str:
        """The user's id or pseudonym; bytes that are not UTF-8, as none has, are replaced."""
        return self.key.decode(errors="replace")

    @property
    def before(self) -> float:
        """Time up to which events are dropped, in seconds."""
        return self.value.before or self.appended


def new_request() -> ForgetRequest:
    """Return a request with an id of its own, for a record to every partition."""
    return ForgetRequest(request=uuid.uuid4().hex, everywhere=True)


def pending_of(record: Any) -> PendingForget | None:
    """Return the request in a record of the forget topic; None if it is none, or a tombstone.

    A value that is not a request, as another program may send it, counts as an empty one.
    """
    key = record.key
    if not key or record.value is None or key.startswith(b"\0"):
        return None
    try:
        value = msgspec.json.decode(record.value, type=ForgetRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = ForgetRequest()
    if not 0.0 <= value.before < 2.0**40:
        value.before = 0.0
    return PendingForget(bytes(key), int(record.offset), record.timestamp / 1000, value)


def tombstone(topic: str, partition: int, pending: PendingForget) -> Record:
    """Return the record that ends a request; a header says up to which offset of its topic."""
    applied = (APPLIED_HEADER, str(pending.offset).encode())
    return Record(topic, partition, pending.key, None, (applied,))


def ended_offset(record: Any) -> int:
    """Return up to which offset a record of the forget topic ends requests of its key.

    A tombstone without the header, as another program may send it, ends all before it.
    """
    if record.value is not None:
        return -1
    text = dict(record.headers).get(APPLIED_HEADER) or b""
    return int(text) if text.isdigit() and len(text) <= MOST_DIGITS else int(record.offset)


def audit_record(topic: str, audit: Audit) -> Record:
    """Return the record that says what was done at one partition."""
    key = AUDIT_PREFIX + f"{audit.request}/{audit.partition}".encode()
    return Record(topic, audit.partition, key, msgspec.json.encode(audit))


def relays(topic: str, pending: PendingForget, partition: int, partitions: int) -> list[Record]:
    """Return the requests for all other partitions, if their sender has sent one to this alone."""
    if pending.value.everywhere:
        return []
    value = ForgetRequest(request_id(pending, partition), pending.before, everywhere=True)
    encoded = msgspec.json.encode(value)
    return [
        Record(topic, number, pending.key, encoded)
        for number in range(partitions)
        if number != partition
    ]


def request_id(pending: PendingForget, partition: int) -> str:
    """Return the id of a request: the given one, or the place of its record."""
    return pending.value.request or f"{partition}-{pending.offset}"


def digest_of(salt: bytes, user: str) -> bytes:
    """Return the hash by which a user who was forgotten is known."""
    return hashlib.blake2b(user.encode(), digest_size=DIGEST_BYTES, key=salt).digest()
