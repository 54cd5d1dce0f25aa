"""RowCipher: the rows of users between memory, in the clear, and bytes, encrypted.

Why it is so: see docs/design/pseudonyms.md.
"""

import os
from collections.abc import Mapping, Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tracker.kafka.pseudonyms import Pseudonyms
from tracker.kafka.user_keys import NAME_BYTES, NONCE_BYTES, UserKeys, read_user_keys
from tracker.kernels.row_bytes import owner_of
from tracker.settings import Settings

FORMAT = 257
"""Format of an encrypted row: its number (uint16), the name of the key, a nonce, the row, a tag. No
plain row has a number above 256."""

_FORMAT = FORMAT.to_bytes(2, "little")
_NAME, _NONCE = len(_FORMAT), len(_FORMAT) + NAME_BYTES
_ROW = _NONCE + NONCE_BYTES

Rows = Sequence[tuple[bytes, bytes | None]]
"""Keys and values of records; None deletes."""


class RowCipher:
    """Encrypts the rows of users by AES-GCM, each with its user's key, and decrypts them.

    The record's key is authenticated with the row: a row cannot stand in the place of another. A
    nonce is random. A counter would have to be kept, and after a commit that was aborted or a crash
    it would be used again, for another row, while the first can be read in the log. A user who
    has a row in each of 2^32 commits, one a second for 136 years, has the same nonce twice with a
    probability of 2^-33.

    Rows that are no user's, such as the position, stay as they are.

    Args:
        keys: of the users of the partition.
    """

    def __init__(self, keys: UserKeys) -> None:
        self.keys = keys

    def encrypt(self, records: Rows) -> list[tuple[bytes, bytes | None]]:
        """Encrypt the rows of users among records; a user without a key gets one."""
        encrypted: list[tuple[bytes, bytes | None]] = []
        for key, row in records:
            user = None if row is None else owner_of(key)
            if row is None or user is None:
                encrypted.append((key, row))
                continue
            secret, nonce = self.keys.make(user), os.urandom(NONCE_BYTES)
            cipher = AESGCM(secret[NAME_BYTES:])
            head = _FORMAT + secret[:NAME_BYTES] + nonce
            encrypted.append((key, head + cipher.encrypt(nonce, row, key)))
        return encrypted

    def decrypt(self, key: bytes, value: bytes | None) -> bytes | None:
        """Return a row; None if its key is gone, and with it the row.

        A value that the key has not encrypted, or that was altered, becomes bytes that no reader
        of rows takes for one: it is damaged, and is treated so. If its key has another name, it is
        a row of before the user was forgotten.
        """
        user = None if value is None else owner_of(key)
        if value is None or user is None:
            return value
        secret = self.keys.get(user)
        if secret is None:
            return None
        if not secret or value[:_NAME] != _FORMAT:
            return _no_row(value)
        try:
            return AESGCM(secret[NAME_BYTES:]).decrypt(value[_NONCE:_ROW], value[_ROW:], key)
        except (InvalidTag, ValueError):  # ValueError: too short
            is_mine = value[_NAME:_NONCE] == secret[:NAME_BYTES]
            return _no_row(value) if is_mine else None

    def decrypt_all(self, values: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Return rows by their keys, without those whose users' keys are gone."""
        rows = ((key, self.decrypt(key, value)) for key, value in values.items())
        return {key: row for key, row in rows if row is not None}


async def row_cipher(
    settings: Settings, pseudonyms: Pseudonyms, partition: int, user: bytes | None = None
) -> RowCipher | None:
    """Return what decrypts the rows of a partition, or those of one user; None for plain rows.

    Read the rows before this: a row is never there before its key.

    Raises:
        BrokerError: the brokers cannot be reached.
        TopicError: there is no topic of users' keys.
    """
    if not settings.user_keys:
        return None
    return RowCipher(await read_user_keys(settings, pseudonyms, partition, user))


def _no_row(value: bytes) -> bytes:
    """Return a value with a beginning that no row has, and not a whole number of words long."""
    return b"\0" * (1 + (len(value) % 8 == 7)) + value
