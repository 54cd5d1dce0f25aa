"""Keys of users, wrapped, in a compacted topic: who is forgotten has none any more.

Why it is so: see docs/design/pseudonyms.md.
"""

import os
from collections.abc import Mapping
from contextlib import aclosing

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tracker.explained import Explained
from tracker.kafka.client import read_topic
from tracker.kafka.cluster import topics_of
from tracker.kafka.outbox import Record
from tracker.kafka.pseudonyms import BUILD_AGAIN, Pseudonyms
from tracker.settings import PREFIX, Settings

FORMAT = 1
"""Format of a record: its number (uint8), a nonce, and the wrapped key with its tag."""

NAME_BYTES = 4
"""First bytes of a key, by which rows name it."""

KEY_BYTES = NAME_BYTES + 32
"""Bytes of a key: its name, and what AES-256 takes."""

NONCE_BYTES = 12

VARIABLE = f"{PREFIX}USER_KEYS"

_UNREADABLE = b""


class UserKeyError(Explained):
    """Rows of users are encrypted by keys of theirs and should not be, or the other way round."""


class UserKeys:
    """The keys of the users of one partition, in memory, and what of them is not committed yet.

    A key is random. It is wrapped by AES-GCM, by a key that HKDF makes of the key of pseudonyms,
    together with the user's name: the record of another user is not taken. Nonces are random: of
    2^32 keys wrapped, two have the same one with a probability of 2^-33.

    Sources: NIST SP 800-38D, RFC 5869.

    Args:
        pseudonyms: of a key.
        topic: that of the keys.
        partition: its partition.

    Raises:
        ValueError: users have no pseudonyms.
    """

    def __init__(self, pseudonyms: Pseudonyms, topic: str, partition: int) -> None:
        if not pseudonyms:
            raise ValueError("users have no pseudonyms; keys of users are wrapped by that of these")
        derived = HKDF(SHA256(), 32, None, b"keys of users").derive(pseudonyms.secret)
        self._wrapper = AESGCM(derived)
        self._topic = topic
        self._partition = partition
        self._keys: dict[bytes, bytes] = {}
        self._changes: dict[bytes, bytes | None] = {}

    def learn(self, user: bytes, value: bytes | None) -> None:
        """Take over a record of the topic; None deletes the key of the user."""
        if value is None:
            self._keys.pop(user, None)
            return
        try:
            if value[:1] != bytes([FORMAT]):
                raise InvalidTag
            nonce, wrapped = value[1 : 1 + NONCE_BYTES], value[1 + NONCE_BYTES :]
            self._keys[user] = self._wrapper.decrypt(nonce, wrapped, user)
        except (InvalidTag, ValueError):  # ValueError: too short
            self._keys[user] = _UNREADABLE

    @property
    def unreadable(self) -> int:
        """Number of users whose keys are damaged."""
        return sum(key == _UNREADABLE for key in self._keys.values())

    def get(self, user: bytes) -> bytes | None:
        """Return the key of a user, empty if it is damaged; None for a user who has none."""
        return self._keys.get(user)

    def make(self, user: bytes) -> bytes:
        """Return the key of a user, a new one for a user who has none that can be read."""
        key = self._keys.get(user)
        if not key:
            key = self._keys[user] = os.urandom(KEY_BYTES)
            nonce = os.urandom(NONCE_BYTES)
            wrapped = self._wrapper.encrypt(nonce, key, user)
            self._changes[user] = bytes([FORMAT]) + nonce + wrapped
        return key

    def delete(self, user: bytes) -> None:
        """Delete the key of a user: no row that it has encrypted can be read from now on."""
        if self._keys.pop(user, None) is not None:
            self._changes[user] = None

    def take_changes(self) -> dict[bytes, bytes | None]:
        """Return the records of the next commit by user; they are handed over once."""
        changes, self._changes = self._changes, {}
        return changes

    def restore_changes(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Put records of a commit that has failed into the next one, but for newer ones."""
        self._changes = {**changes, **self._changes}

    def records(self, changes: Mapping[bytes, bytes | None]) -> list[Record]:
        """Return changes as records of the topic."""
        return [
            Record(self._topic, self._partition, user, value) for user, value in changes.items()
        ]


async def read_user_keys(
    settings: Settings, pseudonyms: Pseudonyms, partition: int, user: bytes | None = None
) -> UserKeys:
    """Read the keys of the users of one partition, or that of one user.

    Args:
        settings: where the brokers are.
        pseudonyms: of the key by which the keys are wrapped.
        partition: of the topic.
        user: name of the only user whose key is read; None for all.

    Raises:
        BrokerError: the brokers cannot be reached.
        TopicError: the topic does not exist.
    """
    topic = topics_of(settings).user_keys
    keys = UserKeys(pseudonyms, topic, partition)
    async with aclosing(read_topic(settings, topic, choose=lambda _: partition)) as records:
        async for record in records:
            if record.key is not None and user in (None, record.key):
                keys.learn(record.key, record.value)
    return keys


def check_encrypted(what: str, stored: bool, mine: bool) -> None:
    """Check that rows are encrypted by keys of their users if, and only if, the settings say so.

    Args:
        what: name of the states.
        stored: whether their rows are.
        mine: whether the settings say so.

    Raises:
        UserKeyError: they do not agree.
    """
    if stored and not mine:
        raise UserKeyError(
            f"{what} are encrypted by keys of their users, and {VARIABLE} is not set: set it to"
            f" true; to do without these keys, {BUILD_AGAIN}"
        )
    if mine and not stored:
        raise UserKeyError(
            f"{what} are not encrypted, and {VARIABLE} is true: to give each user a key,"
            f" {BUILD_AGAIN}; to go on without these keys, leave the variable out"
        )
