"""Mending of position, user and item rows in the changelogs that lie past the clock."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from tracker.artifact.artifact import Artifact
from tracker.events.arrivals import MAX_FUTURE_SECONDS
from tracker.events.item_events import ITEM_EVENT, ItemEventFormatError, decode_block
from tracker.events.wire import hash_id
from tracker.items.config import ItemCounts
from tracker.items.mend_times import items_of_the_future, mend_items
from tracker.items.states import ItemStateFormatError, ItemStates
from tracker.kafka.client import read_topic
from tracker.kafka.cluster import describe_topics, supports_transactions, topics_of
from tracker.kafka.outbox import Record
from tracker.kafka.producers import send_fenced
from tracker.kafka.pseudonyms import pseudonyms_of
from tracker.kafka.reset import check_reset
from tracker.kernels.row_bytes import ITEM_PREFIX, POSITION_KEY, USER_PREFIX, key_text
from tracker.lookup.changelogs import StateReader, check_key
from tracker.settings import Settings
from tracker.store.partition_store import decode_position, is_position
from tracker.store.row_cipher import RowCipher, row_cipher
from tracker.users.mend_times import mend_users, users_of_the_future
from tracker.users.states import StateFormatError, UserStates

log = logging.getLogger(__name__)

MOST_NAMED = 10
"""Rows that cannot be read of which each is named."""

BATCH = 512
"""Rows read at a time."""

Rows = dict[bytes, bytes]


@dataclass(slots=True)
class Mended:
    """Numbers of rows of one table that were mended, and what was lost.

    Attributes:
        table: `users` or `items`.
        positions: positions whose stream time went back to the clock.
        rows: rows with times of the future.
        cut: those of which not everything could be counted again.
        unreadable: damaged rows, or rows of another format, which were passed over.
    """

    table: str
    positions: int = 0
    rows: int = 0
    cut: int = 0
    unreadable: int = 0

    def __str__(self) -> str:
        """Return a line for people."""
        lost = {
            "users": "of {} of them only the events in the ring are left in sums and interests",
            "items": "of {} of them no item event is kept, so trends and neighbours of the time"
            " before the event of the future are lost",
        }[self.table].format(self.cut)
        text = f"{self.table}: {self.rows} rows and {self.positions} positions mended"
        if self.cut:
            text += f"; {lost}"
        if self.unreadable:
            text += f"; {self.unreadable} rows cannot be read and stay as they are"
        return text


async def mend_times(
    settings: Settings, artifact: Artifact, clock: Callable[[], float] = time.time
) -> list[Mended]:
    """Mend the rows that an event of the future has left with times past the clock.

    1. Check that no worker runs: the group must have no member.
    2. Of each partition, read the last row of each key, and mend those that lie past the clock: a
       user's from the ring, an item's from the item events that are kept.
    3. Write them in one transaction, which fences a worker that has started meanwhile. Workers
       take the rows over from the changelog when they start.

    Args:
        settings: where the brokers are.
        artifact: the artifact that LATEST names.
        clock: wall time, in seconds.

    Returns:
        what was mended and lost, of users and of items.

    Raises:
        BrokerError: the broker cannot be used.
        ResetError: a worker runs.
        TopicError: a topic does not exist.
        NewerArtifactError, ArtifactError: as `StateReader.read`.
        PseudonymError, UserKeyError: rows are encrypted by keys that the settings do not give.
    """
    # 1. Check that no worker runs.
    await check_reset(settings)
    names = topics_of(settings)
    topics = await describe_topics(settings, [names.users_changelog, names.items_changelog])
    transactions = await supports_transactions(settings)
    now = clock()
    reader = StateReader(settings, artifact)
    users, items = Mended("users"), Mended("items")
    for mended, changelog in ((users, names.users_changelog), (items, names.items_changelog)):
        for partition in range(topics[changelog].partitions if changelog in topics else 0):
            # 2. Read and mend.
            rows = await _last_rows(settings, changelog, partition)
            cipher = None
            if mended is users:
                cipher = await _cipher(settings, changelog, partition, rows)
            if cipher is not None:
                rows = cipher.decrypt_all(rows)
            changed = _mend_position(rows, now, mended)
            if mended is users:
                changed |= _mend_users(rows, reader, artifact, now, mended)
            else:
                changed |= await _mend_items(
                    settings, partition, rows, artifact.manifest.item_counts, now, mended
                )
            # 3. Write.
            if changed:
                changes: list[tuple[bytes, bytes | None]] = list(changed.items())
                if cipher is not None:
                    changes = cipher.encrypt(changes)
                records = [Record(changelog, partition, *change) for change in changes]
                await send_fenced(settings, mended.table, partition, transactions, [records])
    return [users, items]


async def _last_rows(settings: Settings, topic: str, partition: int) -> Rows:
    rows: Rows = {}
    async with aclosing(read_topic(settings, topic, choose=lambda _: partition)) as records:
        async for record in records:
            if record.key is None:
                continue
            if record.value is None:
                rows.pop(record.key, None)
            else:
                rows[record.key] = record.value
    return rows


async def _cipher(
    settings: Settings, changelog: str, partition: int, rows: Rows
) -> RowCipher | None:
    """Return what decrypts the rows of a partition of users; None if they are plain.

    Raises:
        PseudonymError, UserKeyError: the keys of the settings are not those of the rows.
    """
    position, pseudonyms = rows.get(POSITION_KEY, b""), pseudonyms_of(settings)
    if is_position(position) and (
        settings.user_keys or decode_position(position).user_keys is not None
    ):
        check_key(settings, changelog, position, pseudonyms)
    return await row_cipher(settings, pseudonyms, partition)


def _mend_position(rows: Rows, now: float, mended: Mended) -> Rows:
    if POSITION_KEY not in rows:
        return {}
    if not is_position(rows[POSITION_KEY]):
        mended.unreadable += 1
        return {}
    position = decode_position(rows[POSITION_KEY])
    if position.stream_time <= now + MAX_FUTURE_SECONDS:
        return {}
    position.stream_time = now
    mended.positions += 1
    return {POSITION_KEY: msgspec.json.encode(position)}


def _mend_users(
    rows: Rows, reader: StateReader, artifact: Artifact, now: float, mended: Mended
) -> Rows:
    changed: Rows = {}
    basis, sequence = hash_id(artifact.manifest.basis), artifact.manifest.sequence
    latest = now + MAX_FUTURE_SECONDS

    def read(part: Sequence[bytes]) -> UserStates:
        return reader.read(part)

    for keys, states in _states(rows, USER_PREFIX, read, StateFormatError, mended):
        late = users_of_the_future(states, latest)
        if not len(late):
            continue
        mended.rows += len(late)
        mended.cut += int((states.head["evicted"][late] > 0).sum())
        mend_users(states, late, now, latest, artifact.vectors, basis, sequence)
        changed |= zip([keys[slot] for slot in late.tolist()], states.pack(late), strict=True)
    return changed


async def _mend_items(
    settings: Settings, partition: int, rows: Rows, scales: ItemCounts, now: float, mended: Mended
) -> Rows:
    latest = now + MAX_FUTURE_SECONDS

    def read(part: Sequence[bytes]) -> ItemStates:
        states = ItemStates(len(part), scales)
        states.unpack(np.arange(len(part)), part)
        return states

    late_keys: list[bytes] = []
    for keys, states in _states(rows, ITEM_PREFIX, read, ItemStateFormatError, mended):
        late_keys += [keys[slot] for slot in items_of_the_future(states, latest).tolist()]
    if not late_keys:
        return {}
    value = rows.get(POSITION_KEY, b"")
    end = decode_position(value).position if is_position(value) else 0
    states = read([rows[key] for key in late_keys])
    events = await _item_events(settings, partition, end, states.head["item"])
    every = np.arange(len(late_keys))
    mended.rows += len(late_keys)
    mended.cut += len(mend_items(states, every, events, now, latest))
    return dict(zip(late_keys, states.pack(every), strict=True))


async def _item_events(settings: Settings, partition: int, end: int, items: Any) -> Any:
    """Return the item events of some items that were applied, each once, as far as kept."""
    topic = topics_of(settings).items
    sources: dict[int, int] = {}
    parts = [np.zeros(0, ITEM_EVENT)]
    async with aclosing(read_topic(settings, topic, choose=lambda _: partition)) as records:
        async for record in records:
            if record.offset >= end:
                break
            try:
                block = decode_block(record.value or b"")
            except ItemEventFormatError:
                continue  # rejected when it came
            for source in np.unique(block["source_partition"]).tolist():
                mine = block[block["source_partition"] == source]
                new = mine[mine["source_offset"] > sources.get(source, -1)]
                sources[source] = max(sources.get(source, -1), int(mine["source_offset"].max()))
                parts.append(new[np.isin(new["item"], items)])
    return np.concatenate(parts)


def _states(
    rows: Rows,
    prefix: bytes,
    unpack: Callable[[Sequence[bytes]], Any],
    error: type[ValueError],
    mended: Mended,
) -> Any:
    """Yield keys and states of rows with a prefix, in batches; count those that cannot be read."""
    keys = sorted(key for key in rows if key.startswith(prefix))
    for start in range(0, len(keys), BATCH):
        part = keys[start : start + BATCH]
        try:
            yield part, unpack([rows[key] for key in part])
        except error:
            for key in part:
                try:
                    states = unpack([rows[key]])
                except error as reason:
                    mended.unreadable += 1
                    if mended.unreadable <= MOST_NAMED:
                        log.warning("row %s is passed over: %s", key_text(key), reason)
                else:
                    yield [key], states
