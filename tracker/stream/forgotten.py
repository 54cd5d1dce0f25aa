"""Forgotten: salted hashes of users who were forgotten, by which their late events are dropped."""

import os
from collections.abc import Iterable
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from tracker.events.batch import EventBatch
from tracker.kafka.forget import DIGEST_BYTES, SALT_BYTES, Forgetting, digest_of
from tracker.kafka.pseudonyms import Pseudonyms, check_forgotten
from tracker.kernels.row_bytes import FORGOTTEN_PREFIX


class Notes(Protocol):
    """A store whose small records are committed together with the states."""

    def note(self, key: bytes, value: bytes | None) -> None:
        """Put a small record into the next commit; a value of None deletes it."""


class Forgotten:
    """Knows the users of one partition who were forgotten, by hashes with a salt.

    The salt is a random one, kept in the keys of the hashes themselves. It is new when no hash
    was left. Who has neither the changelog nor the database cannot try ids.

    Args:
        notes: stores the hashes.
        seconds: time that a hash is kept.
        pseudonyms: the names of users, which the hashes are of.
    """

    def __init__(self, notes: Notes, seconds: float, pseudonyms: Pseudonyms | None = None) -> None:
        self._notes = notes
        self._seconds = seconds
        self._pseudonyms = Pseudonyms() if pseudonyms is None else pseudonyms
        self._entries: dict[bytes, dict[bytes, Forgetting]] = {}
        self._latest = -np.inf

    def __bool__(self) -> bool:
        """Return whether any user was forgotten whose hash is still kept."""
        return bool(self._entries)

    def restore(self, records: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Take over the hashes of the partition's former owner; return those that are damaged.

        Raises:
            PseudonymError: a hash is of a pseudonym of an unknown key.
        """
        unreadable = []
        for key, value in records:
            try:
                entry = msgspec.json.decode(value, type=Forgetting)
            except (msgspec.DecodeError, UnicodeDecodeError):
                unreadable.append((key, value))
                continue
            if len(key) != 1 + SALT_BYTES + DIGEST_BYTES:
                unreadable.append((key, value))
                continue
            self._keep(key[1 : 1 + SALT_BYTES], key[1 + SALT_BYTES :], entry)
        check_forgotten(
            self._pseudonyms,
            [entry.key for entries in self._entries.values() for entry in entries.values()],
        )
        return unreadable

    def add(self, user: str, at: float, now: float) -> None:
        """Note that a user was forgotten.

        Args:
            user: name under which the user was kept.
            at: events up to this time are dropped from now on.
            now: wall time, in seconds.
        """
        salt = next(iter(self._entries), None) or os.urandom(SALT_BYTES)
        digest = digest_of(salt, user)
        entry = Forgetting(at, now + self._seconds, self._pseudonyms.fingerprint)
        self._keep(salt, digest, entry)
        self._notes.note(FORGOTTEN_PREFIX + salt + digest, msgspec.json.encode(entry))

    def forgotten_at(self, user: str) -> float | None:
        """Return the time up to which a user was forgotten; None if the user was not.

        Args:
            user: id of the user; hashes of every name that it may have had count.
        """
        times = [
            entries[digest].at
            for name in self._pseudonyms.every_name(user)
            for salt, entries in self._entries.items()
            if (digest := digest_of(salt, name)) in entries
        ]
        return max(times, default=None)

    def late(self, batch: EventBatch) -> NDArray[np.bool_] | None:
        """Return which events (N,) are of before their users were forgotten; None if none is."""
        if not self._entries:
            return None
        places = np.flatnonzero(batch.times <= self._latest).tolist()
        times: dict[str, float | None] = {}
        late = np.zeros(len(batch), np.bool_)
        for place in places:
            user = batch.users[place]
            if user not in times:
                times[user] = self.forgotten_at(user)
            at = times[user]
            late[place] = at is not None and batch.times[place] <= at
        for at_place, was in batch.joined.items():  # a join names another user too
            at = self.forgotten_at(was)
            late[at_place] |= at is not None and bool(batch.times[at_place] <= at)
        return late if late.any() else None

    def expire(self, now: float) -> int:
        """Delete the hashes whose time is over with the coming commit; return how many."""
        expired = [
            (salt, digest)
            for salt, entries in self._entries.items()
            for digest, entry in entries.items()
            if entry.until <= now
        ]
        for salt, digest in expired:
            self._notes.note(FORGOTTEN_PREFIX + salt + digest, None)
            del self._entries[salt][digest]
            if not self._entries[salt]:
                del self._entries[salt]
        return len(expired)

    def _keep(self, salt: bytes, digest: bytes, entry: Forgetting) -> None:
        self._entries.setdefault(salt, {})[digest] = entry
        self._latest = max(self._latest, entry.at)
