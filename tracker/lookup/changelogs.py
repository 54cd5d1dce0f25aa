"""The last committed rows of users and items, read from the changelogs."""

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import numpy as np

from tracker.artifact.artifact import Artifact
from tracker.artifact.versions import latest_version
from tracker.events.wire import hash_id
from tracker.items.states import problem_of
from tracker.kafka.client import Received, read_topic
from tracker.kafka.cluster import topics_of
from tracker.kafka.partitioner import ONE_RULE, partition_of
from tracker.kafka.pseudonyms import Pseudonyms, check_names, pseudonyms_of
from tracker.kafka.unreadable import UnreadableRows
from tracker.kafka.user_keys import check_encrypted
from tracker.kernels.row_bytes import (
    POSITION_KEY,
    USER_PREFIX,
    is_item_key,
    item_of,
    user_key,
    user_of,
)
from tracker.settings import Settings
from tracker.store.partition_store import decode_position, is_position
from tracker.store.row_cipher import row_cipher
from tracker.users.states import ANY_ARTIFACT, NewerArtifactError, UserStates

log = logging.getLogger(__name__)

MOST_WAITING = 100_000
"""Rows of users of other partitions that wait, in memory, for those of their own."""


async def user_row(settings: Settings, user_id: str) -> bytes | None:
    """Return the last committed row of a user, by id or pseudonym; None if there is none.

    The partition in which TRACKER_PARTITIONER puts the user is read first, then all. If several
    have a row of the user, the latest is returned, and a warning names them.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError: the changelog does not exist.
        PseudonymError: the states were made with another key of pseudonyms, or without one.
        UserKeyError: rows are encrypted by keys of users, and the settings say that they are not;
            or the other way round.
    """
    topic, pseudonyms = topics_of(settings).users_changelog, pseudonyms_of(settings)
    name = pseudonyms.of_any(user_id)
    key = user_key(name)

    def likely(partitions: int) -> int | None:
        if pseudonyms.is_pseudonym(user_id):
            return None
        return partition_of(user_id, partitions, settings.partitioner)

    for choose in (likely, None):
        rows: dict[int, Received] = {}
        async with aclosing(read_topic(settings, topic, choose=choose)) as records:
            async for record in records:
                if record.key == POSITION_KEY:
                    check_key(settings, topic, record.value, pseudonyms)
                if record.key != key:
                    continue
                rows.pop(record.partition, None)
                if record.value is not None:
                    rows[record.partition] = record
        if len(rows) > 1:
            log.warning(
                "user %s has states in partitions %s: events of the user are spread over them, and"
                " the latest state is shown; %s",
                user_id, ", ".join(map(str, sorted(rows))), ONE_RULE,
            )  # fmt: skip
        if rows:
            last = max(rows.values(), key=lambda record: record.appended)
            cipher = await row_cipher(settings, pseudonyms, last.partition, name.encode())
            return last.value if cipher is None else cipher.decrypt(key, last.value)
    return None


async def user_rows(settings: Settings) -> AsyncGenerator[dict[str, bytes], None]:
    """Yield the last row of each user by id, one partition after another; errors as `user_row`.

    A user of whom several partitions have a row is yielded once, with that of the partition where
    TRACKER_PARTITIONER puts the user if there is one; a line in the log counts such users. Rows of
    other partitions' users wait until the end for that, up to MOST_WAITING. A pseudonym does not
    tell the user's partition: then the first row counts.
    """
    hashes = np.zeros(0, np.uint64)
    waiting: dict[str, bytes] = {}
    twice: set[str] = set()
    number = 0
    has_pseudonyms = bool(pseudonyms_of(settings))
    async with aclosing(_rows_by_partition(settings)) as parts:
        async for rows, partitions in parts:
            ids = np.array([hash_id(user) for user in rows], np.uint64)
            again = np.isin(ids, hashes).tolist()
            twice.update(user for user, is_again in zip(rows, again, strict=True) if is_again)
            fresh: dict[str, bytes] = {}
            for (user, row), is_again in zip(rows.items(), again, strict=True):
                place = None
                if not has_pseudonyms:
                    place = partition_of(user, partitions, settings.partitioner)
                if is_again:
                    continue
                if place not in (None, number) and len(waiting) < MOST_WAITING:
                    if user in waiting:
                        twice.add(user)
                    waiting[user] = row
                else:
                    fresh[user] = row
            hashes = np.append(hashes, np.array([hash_id(user) for user in fresh], np.uint64))
            yield fresh
            number += 1
    repeats = np.isin(np.array([hash_id(user) for user in waiting], np.uint64), hashes).tolist()
    twice.update(user for user, is_again in zip(waiting, repeats, strict=True) if is_again)
    if twice:
        log.warning(
            "%d users have states in several partitions, the first is %s: one state of each is"
            " taken; %s", len(twice), min(twice), ONE_RULE,
        )  # fmt: skip
    yield {
        user: row
        for (user, row), is_again in zip(waiting.items(), repeats, strict=True)
        if not is_again
    }


async def _rows_by_partition(
    settings: Settings,
) -> AsyncGenerator[tuple[dict[str, bytes], int], None]:
    """Yield the last rows of each partition, and the number of partitions."""
    number, count = 0, 1

    def choose(partitions: int) -> int:
        nonlocal count
        count = partitions
        return number

    topic, pseudonyms = topics_of(settings).users_changelog, pseudonyms_of(settings)
    while number < count:
        rows: dict[str, bytes] = {}
        async with aclosing(read_topic(settings, topic, choose=choose)) as records:
            async for record in records:
                if record.key == POSITION_KEY:
                    check_key(settings, topic, record.value, pseudonyms)
                if record.key is None or not record.key.startswith(USER_PREFIX):
                    continue
                user_id = user_of(record.key)
                if record.value is None:
                    rows.pop(user_id, None)
                else:
                    rows[user_id] = record.value
        cipher = await row_cipher(settings, pseudonyms, number)
        if cipher is not None:
            plain = cipher.decrypt_all({user_key(user): row for user, row in rows.items()})
            rows = {user_of(key): row for key, row in plain.items()}
        yield rows, count
        number += 1


def check_key(
    settings: Settings, topic: str, position: bytes | None, pseudonyms: Pseudonyms
) -> None:
    """Check by a position that states have the key of pseudonyms that is set, and keys of users.

    Raises:
        PseudonymError: they have not that key.
        UserKeyError: they have no keys of users and should, or have some and should not.
    """
    if position is not None and is_position(position):
        stored = decode_position(position)
        check_names(f"the states in {topic}", stored.pseudonyms, pseudonyms.fingerprint)
        check_encrypted(f"the states in {topic}", stored.user_keys is not None, settings.user_keys)


async def item_rows(settings: Settings) -> AsyncGenerator[tuple[int, bytes | None], None]:
    """Yield hashes of items and their rows in the order of writing; errors as `user_row`.

    The last row of an item counts; None deletes it. Rows that cannot be read are passed over, with
    a line in the log.
    """
    topic = topics_of(settings).items_changelog
    unreadable = UnreadableRows("items")
    async with aclosing(read_topic(settings, topic)) as records:
        async for record in records:
            if not is_item_key(record.key):
                continue
            problem = None if record.value is None else problem_of(record.value)
            if problem is None:
                yield item_of(record.key), record.value
            else:
                unreadable.report(topic, record.partition, record.offset, record.key, problem)


class StateReader:
    """Reads users' rows as states of an artifact, as a worker that serves it would.

    A row that a newer artifact wrote is read, with a warning, if LATEST was rolled back: what the
    newer one's encoder and basis held is lost.

    Args:
        settings: where artifacts are.
        artifact: the artifact that LATEST names.
    """

    def __init__(self, settings: Settings, artifact: Artifact) -> None:
        self._root = settings.artifacts
        self._artifact = artifact
        self._newest = artifact.manifest.sequence

    def problem_of(self, row: bytes) -> str | None:
        """Return why a row cannot be read: damaged, newer, older, layout; None if it can."""
        manifest = self._artifact.manifest
        return UserStates(manifest.interest, 0, self._artifact.models.hidden).problem_of(row)

    def read(self, rows: Sequence[bytes | None]) -> UserStates:
        """Return n rows as states, in that order; None becomes the state of a new user.

        Raises:
            StateFormatError: a row was written by another version, or is damaged.
            NewerArtifactError: a newer artifact wrote a row, and LATEST has changed meanwhile.
            ArtifactError: a newer artifact wrote a row, and LATEST cannot be read.
        """
        manifest = self._artifact.manifest
        states = UserStates(manifest.interest, len(rows), self._artifact.models.hidden)
        slots = np.arange(len(rows))
        try:
            states.unpack(slots, rows, self._newest)
        except NewerArtifactError as newer:
            if latest_version(self._root) != manifest.version:
                raise
            log.warning(
                "a row was written with artifact %d, and LATEST of %s names %s, artifact %d: if"
                " nobody rolled it back, set TRACKER_ARTIFACTS to the workers' folder; the"
                " encoder states of artifact %d are rebuilt from the users' recent events",
                newer.sequence, self._root, manifest.version, manifest.sequence, newer.sequence,
            )  # fmt: skip
            self._newest = ANY_ARTIFACT
            states.unpack(slots, rows)
        return states
