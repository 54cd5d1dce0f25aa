"""Pseudonyms: keyed hashes that stand for users' ids in all that is kept and sent of them.

Why it is so: see docs/design/pseudonyms.md.
"""

import base64
import hashlib
import re
from collections.abc import Sequence

from tracker.explained import Explained
from tracker.settings import PREFIX, Settings

SIGN = "~"
"""First character of every pseudonym."""

DIGEST_BYTES = 18
"""144 bits, which are 24 characters of base64 without padding."""

_SHAPE = re.compile(re.escape(SIGN) + "[A-Za-z0-9_-]{24}")

KEY_VARIABLE = f"{PREFIX}PSEUDONYM_KEY_FILE"
FORMER_VARIABLE = f"{PREFIX}PSEUDONYM_FORMER_KEY_FILE"


BUILD_AGAIN = "build them again under another TRACKER_NAME, beside these, with `tracker replay`"
"""What has to be done with states before what their users are named or kept by can change."""

UNPLACED = (
    "users have pseudonyms, and a pseudonym does not tell to which partition its user belongs: no"
    " state can be moved. `tracker reset-state --everything` lets the workers build all states"
    " again from the events that the topic still has"
)
"""Answer to whoever would move states of users with pseudonyms."""


class PseudonymError(Explained):
    """A user's name in what is kept is not the one that this key makes."""


class Pseudonyms:
    """Makes the names under which users are kept; without a key, they are the ids themselves.

    Source: RFC 7693, BLAKE2b with a key. Its first parameter "person" divides the uses of a key.

    Args:
        key: text of the key file; None for no pseudonyms.
        former: text of the file of the key before this one, by which users who were forgotten
            under it are still known; None for none.

    Attributes:
        fingerprint: tells keys apart, and says nothing of them; empty without a key.
        secret: what other keys are derived from; empty without a key.
    """

    def __init__(self, key: str | None = None, former: str | None = None) -> None:
        self.secret = b"" if key is None else _secret(key)
        self._maker = _maker(self.secret) if self.secret else None
        self._former = None if former is None else _maker(_secret(former))
        self.fingerprint = fingerprint_of(key)
        self._fingerprints = {"", self.fingerprint, fingerprint_of(former)}

    def __bool__(self) -> bool:
        """Return whether users have pseudonyms."""
        return self._maker is not None

    def of(self, user_id: str) -> str:
        """Return the name under which the user of an event is kept."""
        return user_id if self._maker is None else _name(self._maker, user_id)

    def of_all(self, user_ids: Sequence[str]) -> list[str]:
        """Return the name of each user (N,); each is made once."""
        if self._maker is None:
            return list(user_ids)
        names = {user_id: _name(self._maker, user_id) for user_id in dict.fromkeys(user_ids)}
        return [names[user_id] for user_id in user_ids]

    def of_any(self, text: str) -> str:
        """Return the name of a user who is asked for, by the id or by the pseudonym itself."""
        return text if self.is_pseudonym(text) else self.of(text)

    def is_pseudonym(self, text: str) -> bool:
        """Return whether a text has the shape of a pseudonym, and users have pseudonyms."""
        return self._maker is not None and _SHAPE.fullmatch(text) is not None

    def every_name(self, user_id: str) -> tuple[str, ...]:
        """Return the id, and the names that the key and the former one make of it."""
        makers = (maker for maker in (self._maker, self._former) if maker is not None)
        return (user_id, *(_name(maker, user_id) for maker in makers))

    def knows(self, fingerprint: str) -> bool:
        """Return whether `every_name` has the name of a key; that of no key is the id."""
        return fingerprint in self._fingerprints


def pseudonyms_of(settings: Settings) -> Pseudonyms:
    """Read the keys that the settings name.

    Raises:
        SettingsError: a file cannot be read, or holds too little.
    """
    return Pseudonyms(
        settings.pseudonym_key("pseudonym_key_file"),
        settings.pseudonym_key("pseudonym_former_key_file"),
    )


def fingerprint_of(key: str | None) -> str:
    """Return 16 hexadecimal digits that tell a key from others; empty for none."""
    if key is None:
        return ""
    return hashlib.blake2b(key=_secret(key), digest_size=8, person=b"fingerprint").hexdigest()


def check_names(what: str, stored: str, mine: str) -> None:
    """Check that states were made with the key that is set.

    Args:
        what: name of the states.
        stored: fingerprint of their key, empty for none.
        mine: fingerprint of the key that is set, empty for none.

    Raises:
        PseudonymError: they were not.
    """
    if stored == mine:
        return
    if not stored:
        raise PseudonymError(
            f"{what} name users by their ids, and {KEY_VARIABLE} is set: to turn pseudonyms on,"
            f" {BUILD_AGAIN}; to go on without them, leave the variable out"
        )
    if not mine:
        raise PseudonymError(
            f"{what} name users by pseudonyms of the key {stored}, and {KEY_VARIABLE} is not set:"
            f" set it to the file of that key; to turn pseudonyms off, {BUILD_AGAIN}"
        )
    raise PseudonymError(
        f"{what} name users by pseudonyms of the key {stored}, and {KEY_VARIABLE} has the key"
        f" {mine}: set it to the file of the first; to change the key, {BUILD_AGAIN}"
    )


def check_forgotten(pseudonyms: Pseudonyms, keys: Sequence[str]) -> None:
    """Check that users who were forgotten under another key are known.

    Args:
        pseudonyms: names by the keys that are set.
        keys: of each hash of a forgotten user, the fingerprint of its key.

    Raises:
        PseudonymError: late events of theirs could not be told.
    """
    key = next((key for key in keys if not pseudonyms.knows(key)), None)
    if key is None:
        return
    count = keys.count(key)
    users = "1 user was" if count == 1 else f"{count} users were"
    raise PseudonymError(
        f"{users} forgotten under pseudonyms of the key {key}, and without it their old events"
        f" would be taken again: set {FORMER_VARIABLE} to the file of that key, for"
        f" {PREFIX}FORGET_HASH_DAYS"
    )


def _secret(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), person=b"key").digest()


def _maker(secret: bytes) -> "hashlib.blake2b":
    return hashlib.blake2b(key=secret, digest_size=DIGEST_BYTES, person=b"user")


def _name(maker: "hashlib.blake2b", user_id: str) -> str:
    """Return a pseudonym; a copy of the maker has the key in it already."""
    hasher = maker.copy()
    hasher.update(user_id.encode())
    return SIGN + base64.urlsafe_b64encode(hasher.digest()).decode()
