"""States built again from the events under another name, and the change-over to them.

The workers that build them are those of `tracker worker`, which send no list meanwhile and go no
further than the live ones have committed; see docs/how-to/replay.md.
"""

import logging
from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from tracker.explained import Explained
from tracker.kafka.cluster import (
    TopicError,
    TopicInfo,
    describe_topics,
    group_of,
    supports_transactions,
    topics_of,
    unreachable,
)
from tracker.kafka.connect import admin_client, consumer
from tracker.kafka.forget import (
    SALT_BYTES,
    ForgetRequest,
    Forgetting,
    PendingForget,
    digest_of,
)
from tracker.kafka.outbox import Record
from tracker.kafka.producers import fenced_producer
from tracker.kafka.pseudonyms import Pseudonyms, check_names, pseudonyms_of
from tracker.kafka.reset import check_reset
from tracker.kafka.topics import ensure_topics
from tracker.kafka.user_keys import check_encrypted
from tracker.kernels.row_bytes import (
    FORGOTTEN_PREFIX,
    OWED_PREFIX,
    POSITION_KEY,
    USER_PREFIX,
    owed_key,
    user_of,
)
from tracker.lookup.changes import in_transaction, open_requests, positions_of, records_of
from tracker.settings import Settings
from tracker.store.owed import PendingList
from tracker.store.partition_store import (
    FORMAT,
    HandOverPosition,
    Position,
    encode_position,
)
from tracker.store.row_cipher import row_cipher

log = logging.getLogger(__name__)

Note = TypeVar("Note", PendingList, Forgetting)

LAST_SECONDS = 300.0
"""Time that the transaction of the change-over may take."""


class ReplayError(Explained):
    """States cannot be built again, or are not ready; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class ReplayStart:
    """The begin of a replay.

    Attributes:
        starts: offset by partition from which events are read.
        missing: number of records of the events topic before these, which are in no state.
        goes_on: whether it was begun before.
    """

    starts: dict[int, int]
    missing: int
    goes_on: bool

    def __str__(self) -> str:
        """Return a line for people."""
        if self.goes_on:
            return "the replay was begun before, and goes on"
        if not self.missing:
            return "events are read from the begin of the log: the states will have all of them"
        return (
            f"{self.missing} records before the start are not in the states, because the topic has"
            " deleted them or --from leaves them out: what users and items had from them is missing"
        )


async def begin_replay(settings: Settings, of: str, start: str | int | float) -> ReplayStart:
    """Begin to build states from the events of a tracker, or find that this was begun before.

    1. Check that the names differ, and create the topics of the new states.
    2. Find the offsets to start at.
    3. Write them as positions that only a replay takes, with the hashes of users who were
       forgotten: their events from before are passed over.

    Args:
        settings: the new name, and with `stream` that of the events.
        of: name of the live tracker.
        start: `beginning`; an offset; or a time in seconds, as a float.

    Raises:
        BrokerError: the broker cannot be used.
        TopicError, TopicsError: a topic is missing, does not fit, or cannot be created.
        ReplayError: the states under the new name are others, or there are no transactions.
    """
    # 1. Check.
    if settings.name == of:
        raise ReplayError(
            f"--of {of} is TRACKER_NAME too: states are built beside the live ones, under another"
            " name; set TRACKER_NAME"
        )
    live, names = _live(settings, of), topics_of(settings)
    live_topics = await _of_states(live)
    for one in (topics_of(live).users_changelog, names.events):
        if one not in live_topics:
            raise TopicError(f"topic {one} does not exist: no tracker {of} has states here")
    if not await supports_transactions(settings):
        raise ReplayError(
            "the brokers have no transactions: nobody could be fenced at the change-over"
        )
    reports = await ensure_topics(settings)
    problems = [f"{one.name} {problem}" for one in reports for problem in one.problems]
    if problems:
        raise TopicError("; ".join(problems))
    topics = await describe_topics(settings)
    positions = await positions_of(settings, names.users_changelog, topics)
    if positions:
        mine = pseudonyms_of(settings).fingerprint
        for position in positions.values():
            what = f"the states of {settings.name}"
            check_names(what, position.pseudonyms, mine)
            check_encrypted(what, position.user_keys is not None, settings.user_keys)
        before = await positions_of(live, topics_of(live).users_changelog, live_topics)
        if not any(one.replays for one in positions.values()) and any(
            one.successor == settings.name for one in before.values()
        ):
            raise ReplayError(
                f"{settings.name} has taken over from {of} already: start workers with"
                f" TRACKER_NAME={settings.name} TRACKER_STREAM={settings.stream}"
            )
        other = sorted({one.replays for one in positions.values()} - {of})
        if other or any(one.successor for one in positions.values()):
            raise ReplayError(
                f"{settings.name} has states already, which are"
                f" {'a replay of ' + other[-1] if other and other[-1] else 'served'}; take another"
                " TRACKER_NAME, or delete them with `tracker reset-state --everything`"
            )
        return ReplayStart({p: one.position for p, one in positions.items()}, 0, True)
    # 2. Find the offsets. What the live workers have not applied is left to nobody else.
    starts = await _starts(settings, names.events, topics[names.events].partitions, start)
    reached, begins = await committed(settings, of), await begins_of(settings)
    starts = {p: max(begins[p], min(at, reached.get(p, 0))) for p, at in starts.items()}
    # 3. Write positions.
    events, key = topics[names.events], pseudonyms_of(settings).fingerprint
    key_topic = topics[names.user_keys].topic_id if names.user_keys else None
    out: list[Record] = []
    for partition, offset in starts.items():
        position = Position(
            FORMAT, offset, names.events, events.topic_id, events.partitions,
            transactions=True, replays=of, pseudonyms=key, user_keys=key_topic,
        )  # fmt: skip
        hashes = await _rows(live, topics_of(live).users_changelog, partition, FORGOTTEN_PREFIX)
        for hash_key, value in hashes.items():
            out.append(Record(names.users_changelog, partition, hash_key, value))
        row = encode_position(position)
        out.append(Record(names.users_changelog, partition, POSITION_KEY, row))
    async with in_transaction(settings, 0, LAST_SECONDS) as send:
        for record in out:
            await send(record)
    return ReplayStart(starts, sum(starts.values()), False)


async def committed(settings: Settings, of: str) -> dict[int, int]:
    """Return up to which offset of each partition the live workers have committed.

    Raises:
        BrokerError: the broker cannot be used.
    """
    live = _live(settings, of)
    topic = topics_of(live).events
    async with admin_client(live) as admin:
        offsets = await admin.list_consumer_group_offsets(group_of(live))
    return {part.partition: meta.offset for part, meta in offsets.items() if part.topic == topic}


async def begins_of(settings: Settings) -> dict[int, int]:
    """Return the offset of each partition of the events topic at which its log begins.

    Raises:
        BrokerError: the broker cannot be used.
    """
    topic = topics_of(settings).events
    partitions = (await describe_topics(settings, [topic]))[topic].partitions
    return await _ends(settings, topic, partitions, False)


async def retire(settings: Settings, of: str, successor: str) -> dict[int, int]:
    """Fence the live workers for good; return the offset of each partition that they reached.

    Each of their positions names the successor, so that no worker of theirs starts again. With an
    empty successor they may start again.

    Raises:
        BrokerError: the broker cannot be used.
        ResetError: a live worker runs.
        ReplayError: they have another successor, or no position; or their names of users are others
            than those of the successor, and something cannot be carried over.
        StartedError: a worker has started meanwhile.
    """
    live = _live(settings, of)
    await check_reset(live)
    names, topics = topics_of(live), await _of_states(live)
    if successor:
        before = await positions_of(live, names.users_changelog, topics)
        key = pseudonyms_of(settings).fingerprint
        for partition, position in before.items():
            if position.pseudonyms != key:  # before anybody is fenced
                await _take_over(settings, live, partition, position)
    for table, changelog in (("users", names.users_changelog), ("items", names.items_changelog)):
        for partition in range(topics[changelog].partitions):
            await (await fenced_producer(live, table, partition, True)).stop()
    reached: dict[int, int] = {}
    rows: list[Record] = []
    for changelog in (names.users_changelog, names.items_changelog):
        for partition, position in (await positions_of(live, changelog, topics)).items():
            if successor and position.successor not in ("", successor):
                raise ReplayError(
                    f"{position.successor} has taken over from {of} already: replay that"
                )
            position.successor = successor
            row = encode_position(position)
            rows.append(Record(changelog, partition, POSITION_KEY, row))
            if changelog == names.users_changelog:
                reached[partition] = position.position
    async with in_transaction(live, 0) as send:
        for record in rows:
            await send(record)
    if len(reached) < topics[names.events].partitions:
        raise ReplayError(f"{of} has no states of some partitions: no worker has had them")
    return reached


async def change_over(settings: Settings, of: str, reached: dict[int, int]) -> None:
    """Make the states those that are served, in one transaction.

    1. Check that they have reached the offsets of the live ones.
    2. Take over lists that are owed, and those that answer events which were handed on and which
       the live workers had not taken. The lists of the others were sent.
    3. Take over users who were forgotten meanwhile, and requests to forget.
    4. Write positions without the mark of a replay.

    Raises:
        BrokerError: the broker cannot be used.
        ReplayError: they are not ready.
        ResetError, StartedError: a worker of theirs runs.
    """
    live = _live(settings, of)
    await check_reset(settings)
    names, old = topics_of(settings), topics_of(live)
    topics, old_topics = await describe_topics(settings), await _of_states(live)
    positions = await positions_of(settings, names.users_changelog, topics)
    before = await positions_of(live, old.users_changelog, old_topics)
    # 1. Check.
    begins = await _ends(settings, names.events, len(reached), False)
    for partition, offset in reached.items():
        mine = positions.get(partition)
        if mine is None or (mine.position < offset and begins[partition] < offset):
            raise ReplayError(
                f"the states of partition {partition} are at offset"
                f" {0 if mine is None else mine.position} of {offset}: run the command again"
            )
    version = max(one.version for one in (*positions.values(), *before.values()))
    out: list[Record] = []
    for partition, position in positions.items():
        # 2. Owed lists.
        origins = (before[partition].hand_over or HandOverPosition(0)).origins
        own = await _rows(settings, names.users_changelog, partition, OWED_PREFIX)
        cipher = await row_cipher(settings, pseudonyms_of(settings), partition)
        if cipher is not None:
            own = cipher.decrypt_all(own)
        over = await _take_over(settings, live, partition, before[partition])
        waiting = {key: value for key, value in own.items() if _waits(value, origins)}
        lists: dict[bytes, bytes | None] = {**dict.fromkeys(own), **over.lists, **waiting}
        # 3. Forgotten users.
        if over.hashes:
            users = await _rows(settings, names.users_changelog, partition, USER_PREFIX)
            for user, at in _forgotten(map(user_of, users), over.hashes):
                value = msgspec.json.encode(ForgetRequest(before=at, everywhere=True))
                out.append(Record(names.forget, partition, user.encode(), value))
        for pending in over.requests:
            request = msgspec.structs.replace(pending.value, before=pending.before)
            value = msgspec.json.encode(request)
            out.append(Record(names.forget, partition, pending.key, value))
        # 4. Positions.
        position.position = max(position.position, reached[partition])
        position.replays, position.version = "", version
        rows = {**lists, **over.hashes, POSITION_KEY: encode_position(position)}
        records: list[tuple[bytes, bytes | None]] = list(rows.items())
        if cipher is not None:
            records = cipher.encrypt(records)
            out += cipher.keys.records(cipher.keys.take_changes())
        out += [Record(names.users_changelog, partition, *record) for record in records]
    async with in_transaction(settings, 0, LAST_SECONDS) as send:
        for record in out:
            await send(record)


class Over(NamedTuple):
    """Parts of a partition of the live states that new ones take over.

    Attributes:
        lists: those that the live states owe, by key.
        hashes: of users who were forgotten since the replay has begun, by key.
        requests: to forget users, which are open.
    """

    lists: dict[bytes, bytes]
    hashes: dict[bytes, bytes]
    requests: list[PendingForget]


async def _take_over(
    settings: Settings, live: Settings, partition: int, position: Position
) -> Over:
    """Return what new states take over of a partition, under the names that users have there.

    Args:
        settings: of the new states.
        live: of the live ones.
        partition: number of the partition.
        position: that of the live states.

    Raises:
        ReplayError: as `under_new_names`.
    """
    names, old, pseudonyms = topics_of(settings), topics_of(live), pseudonyms_of(settings)
    lists = await _rows(live, old.users_changelog, partition, OWED_PREFIX)
    if position.user_keys is not None and position.pseudonyms == pseudonyms.fingerprint:
        keyed = live.model_copy(update={"user_keys": True})
        cipher = await row_cipher(keyed, pseudonyms, partition)
        lists = lists if cipher is None else cipher.decrypt_all(lists)
    hashes = await _rows(live, old.users_changelog, partition, FORGOTTEN_PREFIX)
    present = await _rows(settings, names.users_changelog, partition, FORGOTTEN_PREFIX)
    hashes = {key: value for key, value in hashes.items() if present.get(key) != value}
    requests = await open_requests(live, old.forget, partition, position.forgotten)
    over = Over(lists, hashes, requests)
    return under_new_names(over, position.pseudonyms, pseudonyms, live.name)


def under_new_names(over: Over, stored: str, pseudonyms: Pseudonyms, of: str) -> Over:
    """Return what new states take over, under the names that users have there.

    If users had their ids so far, these give the pseudonyms. Pseudonyms of another key give
    nothing, and the hash of an id does not say whose pseudonym is to be forgotten.

    Args:
        over: under the names that users had.
        stored: fingerprint of the key of these; empty if they are ids.
        pseudonyms: names that users have now.
        of: name of the live tracker.

    Raises:
        ReplayError: something cannot be carried over; the message says how it is avoided.
    """
    if stored == pseudonyms.fingerprint:
        return over
    if over.hashes:
        raise ReplayError(
            f"{len(over.hashes)} users were forgotten since the replay has begun, and nothing tells"
            " whose new states these are, since users have other names there: delete those with"
            f" `tracker reset-state --everything`, start the workers of {of} again, and begin the"
            " replay again"
        )
    if not stored:
        lists = {owed_key(pseudonyms.of(user_of(key))): row for key, row in over.lists.items()}
        named = [one._replace(key=pseudonyms.of_any(one.user).encode()) for one in over.requests]
        return Over(lists, {}, named)
    if over.lists or over.requests:
        raise ReplayError(
            f"{len(over.lists)} users wait for lists and {len(over.requests)} are still to be"
            f" forgotten, under pseudonyms of the key {stored}, which other names do not tell:"
            f" start the workers of {of} again with TRACKER_EMIT_MIN_INTERVAL_SECONDS=0 until none"
            " is left (tracker_owed_lists), stop them, and run this again"
        )
    return over


def _live(settings: Settings, of: str) -> Settings:
    return settings.model_copy(update={"name": of})


async def _of_states(settings: Settings) -> dict[str, TopicInfo]:
    """Describe the topic of events and those of states."""
    names = topics_of(settings)
    return await describe_topics(
        settings, [names.events, names.users_changelog, names.items_changelog]
    )


async def _rows(
    settings: Settings, changelog: str, partition: int, prefix: bytes
) -> dict[bytes, bytes]:
    """Return the last rows whose keys have a prefix."""
    rows: dict[bytes, bytes] = {}
    async with aclosing(records_of(settings, changelog, partition)) as records:
        async for record in records:
            if record.key is None or not record.key.startswith(prefix):
                continue
            if record.value is None:
                rows.pop(record.key, None)
            else:
                rows[record.key] = record.value
    return rows


def _decoded(value: bytes, what: type[Note]) -> Note:
    """Return a row of the live states that a former owner noted.

    Raises:
        ReplayError: it is damaged.
    """
    try:
        return msgspec.json.decode(value, type=what)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReplayError(
            f"a row of the live states cannot be read ({error}): start their workers once, which"
            " set such rows aside and name them in their log, stop them, and run this again"
        ) from error


def _waits(value: bytes, origins: dict[int, int]) -> bool:
    """Return whether a list answers an event that was handed on and that nobody had taken."""
    pending = _decoded(value, PendingList)
    return pending.offset > origins.get(pending.partition, -1)


def _forgotten(users: Iterable[str], hashes: dict[bytes, bytes]) -> Iterable[tuple[str, float]]:
    """Yield the users of some hashes, and the time up to which they were forgotten."""
    by_salt: dict[bytes, dict[bytes, float]] = {}
    for key, value in hashes.items():
        salt, digest = key[1 : 1 + SALT_BYTES], key[1 + SALT_BYTES :]
        by_salt.setdefault(salt, {})[digest] = _decoded(value, Forgetting).at
    for user in users:
        for salt, times in by_salt.items():
            at = times.get(digest_of(salt, user))
            if at is not None:
                yield user, at


async def _starts(
    settings: Settings, topic: str, partitions: int, start: str | int | float
) -> dict[int, int]:
    """Return the offset of each partition to start at, within its log."""
    begins = await _ends(settings, topic, partitions, False)
    if start == "beginning":
        return begins
    ends = await _ends(settings, topic, partitions, True)
    if isinstance(start, int):
        return {p: min(max(start, begins[p]), ends[p]) for p in begins}
    assert isinstance(start, float)
    parts = {TopicPartition(topic, p): int(start * 1000) for p in begins}
    try:
        async with consumer(settings) as client:
            offsets = await client.offsets_for_times(parts)
    except KafkaError as error:
        raise unreachable(settings, error) from error
    return {
        part.partition: ends[part.partition] if at is None else int(at.offset)
        for part, at in offsets.items()
    }


async def _ends(settings: Settings, topic: str, partitions: int, last: bool) -> dict[int, int]:
    parts = [TopicPartition(topic, number) for number in range(partitions)]
    async with consumer(settings) as client:
        ask = client.end_offsets if last else client.beginning_offsets
        return {part.partition: int(offset) for part, offset in (await ask(parts)).items()}
