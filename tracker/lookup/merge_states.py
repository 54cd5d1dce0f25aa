"""States where another partitioner puts them: moved to their users' partitions, and joined."""

import logging
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

from tracker.artifact.artifact import Artifact
from tracker.explained import Explained
from tracker.kafka.client import read_topic
from tracker.kafka.cluster import describe_topics, supports_transactions, topics_of
from tracker.kafka.hand_over_records import JoiningState, Origin, state_record
from tracker.kafka.outbox import Record
from tracker.kafka.partitioner import partition_of
from tracker.kafka.producers import send_fenced
from tracker.kafka.pseudonyms import UNPLACED, Pseudonyms, pseudonyms_of
from tracker.kafka.reset import check_reset
from tracker.kernels.row_bytes import (
    POSITION_KEY,
    USER_PREFIX,
    owed_key,
    seen_key,
    user_key,
    user_of,
)
from tracker.lookup.changelogs import StateReader, check_key
from tracker.settings import Settings
from tracker.users.states import StateFormatError

log = logging.getLogger(__name__)

BATCH = 256
"""States in one transaction."""


class MergeError(Explained):
    """States cannot be moved; the message gives the reason."""


class Row(NamedTuple):
    """A row of a user as the changelog holds it, and its offset there."""

    value: bytes
    offset: int


@dataclass(slots=True)
class Merged:
    """Numbers of states that were moved.

    Attributes:
        moved: states that go to their users' partitions.
        halves: those whose users have a state there, too.
        unreadable: rows that cannot be read, and stay where they are.
    """

    moved: int = 0
    halves: int = 0
    unreadable: int = 0

    def __str__(self) -> str:
        """Return a line for people."""
        text = (
            f"{self.moved} states are moved to their users' partitions; {self.halves} of these"
            " users have a state there too, and the workers join both when they run"
        )
        if self.unreadable:
            text += f"; {self.unreadable} rows cannot be read and stay where they are"
        return text


async def merge_states(
    settings: Settings, artifact: Artifact, clock: Callable[[], float] = time.time
) -> Merged:
    """Move the states that lie elsewhere than TRACKER_PARTITIONER puts their users.

    1. Check that no worker runs, and that workers take handed-on states.
    2. Of each partition, read the last rows of users. A user whose home is another partition goes
       there as a handed-on state, which the owner joins to the user's own one, once.
    3. Send those states and delete the rows in one transaction. Without transactions the states
       are sent first; a repeat sends them under the same origin, and they are passed over.

    Args:
        settings: where the brokers are, and the partitioner.
        artifact: the artifact that LATEST names.
        clock: wall time, in seconds.

    Raises:
        BrokerError: the broker cannot be used.
        ResetError: a worker runs.
        TopicError: the events topic does not exist.
        MergeError, PseudonymError: workers with these settings would not take handed-on states, or
            users have pseudonyms.
        NewerArtifactError, ArtifactError: as `StateReader.read`.
    """
    # 1. Check.
    if settings.partitioner == "given":
        raise MergeError(
            "TRACKER_PARTITIONER=given: no partition is a user's; name the rule of one"
        )
    if settings.hand_over != "on":
        raise MergeError("TRACKER_HAND_OVER=off: workers would not take the states; set it to on")
    pseudonyms = pseudonyms_of(settings)
    if pseudonyms:
        raise MergeError(UNPLACED)
    await check_reset(settings)
    names = topics_of(settings)
    topics = await describe_topics(settings, [names.events, names.hand_over])
    events, hand_over = topics.get(names.events), topics.get(names.hand_over)
    if events is None or hand_over is None or hand_over.partitions != events.partitions:
        raise MergeError(
            f"{names.hand_over} does not exist with as many partitions as {names.events}: run"
            " 'tracker topics'"
        )
    transactions = await supports_transactions(settings)
    reader, merged = StateReader(settings, artifact), Merged()
    tables = [
        await _user_rows(settings, names.users_changelog, partition, pseudonyms)
        for partition in range(events.partitions)
    ]
    for partition, rows in enumerate(tables):
        # 2. Find the users who are away from home.
        homes = {
            key: home
            for key in rows
            if key.startswith(USER_PREFIX)
            and (home := partition_of(user_of(key), events.partitions, settings.partitioner))
            is not None
        }
        # By the offsets of their rows: one with a lower offset than the one before would be taken
        # for a repeat.
        away = sorted(
            (key for key, home in homes.items() if home != partition),
            key=lambda key: rows[key].offset,
        )
        for start in range(0, len(away), BATCH):
            moves: list[tuple[str, Record]] = []
            for key in away[start : start + BATCH]:
                user, row = user_of(key), rows[key]
                try:
                    head = reader.read([row.value]).head[0]
                except StateFormatError as reason:
                    merged.unreadable += 1
                    log.warning("the row of %s in partition %d stays: %s", user, partition, reason)
                    continue
                seen = rows.get(seen_key(user))
                state = JoiningState(
                    user,
                    user,
                    max(0.0, min(float(head["last_time"]), clock())),
                    partition,
                    max(0, int(head["last_offset"])),
                    row.value,
                    None if seen is None else seen.value,
                )
                number = 3 * events.partitions + partition
                origin = Origin(number, row.offset, None, 0, settings.partitioner)
                moves.append((user, state_record(names.hand_over, homes[key], origin, state)))
                merged.moved += 1
                merged.halves += key in tables[homes[key]]
            # 3. Send.
            await _send(settings, names.users_changelog, partition, moves, transactions)
    return merged


async def _user_rows(
    settings: Settings, topic: str, partition: int, pseudonyms: Pseudonyms
) -> dict[bytes, Row]:
    """Return the last rows of users and of their seen sets, by key."""
    rows: dict[bytes, Row] = {}
    async with aclosing(read_topic(settings, topic, choose=lambda _: partition)) as records:
        async for record in records:
            if record.key == POSITION_KEY:
                check_key(settings, topic, record.value, pseudonyms)
            if record.key is None or record.key[:1] not in (USER_PREFIX, seen_key("")):
                continue
            if record.value is None:
                rows.pop(record.key, None)
            else:
                rows[record.key] = Row(record.value, record.offset)
    return rows


async def _send(
    settings: Settings,
    changelog: str,
    partition: int,
    moves: list[tuple[str, Record]],
    transactions: bool,
) -> None:
    """Send states to their users' partitions, and delete the rows here."""
    if not moves:
        return
    states = [record for _, record in moves]
    deletions = [
        Record(changelog, partition, key, None)
        for user, _ in moves
        for key in (user_key(user), seen_key(user), owed_key(user))
    ]
    await send_fenced(settings, "users", partition, transactions, [states, deletions])
