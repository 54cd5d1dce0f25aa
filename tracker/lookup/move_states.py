"""States moved to where their users belong once partitions were added to the events topic.

A worker refuses to start from the moment when the events topic has more partitions than the states
until the last transaction here, which is the only one that changes what the positions say.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, field

import msgspec
import numpy as np
from aiokafka.admin import NewPartitions
from aiokafka.errors import KafkaError
from numpy.typing import NDArray

from tracker.events.item_events import ItemEventFormatError, decode_block, encode_block
from tracker.events.wire import hash_id
from tracker.explained import Explained
from tracker.kafka.client import Received
from tracker.kafka.cluster import (
    TopicInfo,
    Topics,
    describe_topics,
    supports_transactions,
    topics_of,
)
from tracker.kafka.connect import admin_client
from tracker.kafka.forget import ForgetRequest, request_id
from tracker.kafka.hand_over_records import (
    JoiningState,
    Origin,
    Readdressed,
    headers_of,
    origin_of,
    readdressed_of,
    state_record,
)
from tracker.kafka.outbox import Record
from tracker.kafka.partitioner import partition_of
from tracker.kafka.producers import fenced_producer
from tracker.kafka.pseudonyms import UNPLACED, pseudonyms_of
from tracker.kafka.reset import check_reset
from tracker.kernels.row_bytes import (
    ASIDE_PREFIX,
    FORGOTTEN_PREFIX,
    OWED_PREFIX,
    POSITION_KEY,
    SEEN_PREFIX,
    USER_PREFIX,
    seen_key,
    user_key,
    user_of,
)
from tracker.lookup.changes import in_transaction, open_requests, positions_of, records_of
from tracker.settings import Settings
from tracker.store.owed import PendingList
from tracker.store.partition_store import (
    FORMAT,
    HandOverPosition,
    Position,
    decode_position,
    encode_position,
)
from tracker.users.layout import in_new_partition, is_whole, last_time_of, offset_of

log = logging.getLogger(__name__)

BATCH = 256
"""Users whose rows are moved in one transaction."""

LAST_SECONDS = 300.0
"""Time that the last transaction may take."""

SEEN_SECONDS = 20.0
"""Time until every broker knows new partitions."""

OF_USERS = (USER_PREFIX, SEEN_PREFIX, OWED_PREFIX)


class MoveError(Explained):
    """States cannot be moved; the message gives the reason."""


@dataclass(slots=True)
class Moved:
    """Numbers of what was moved.

    Attributes:
        before: partitions that the states had.
        after: partitions that they have now.
        users: users whose states are moved.
        halves: those of them who have a state there too.
        lists: lists that these users wait for.
        handed_on: records that were handed on and not taken yet, and are handed on again.
        blocks: blocks of item events that were not applied yet, and are sent again.
        requests: requests to forget a user that follow the user.
    """

    before: int
    after: int
    users: int = 0
    halves: int = 0
    lists: int = 0
    handed_on: int = 0
    blocks: int = 0
    requests: int = 0

    def __str__(self) -> str:
        """Return a line for people."""
        if self.before == self.after:
            return f"all states are where {self.after} partitions put them; nothing is moved"
        text = (
            f"the states of {self.before} partitions are in {self.after} now: {self.users} users"
            f" moved, with {self.lists} lists that they wait for; records in the old partitions are"
            " handed on when the workers run"
        )
        if self.halves:
            text += f"; {self.halves} users have a state there too, and the workers join both"
        return text


@dataclass(slots=True)
class _Rows:
    """Rows of the users of one partition who belong to another one, by user id."""

    by_user: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)  # of the state's row in the changelog

    def put(self, user: str, record: Received) -> None:
        """Note the last row of a key."""
        assert record.key is not None
        mine = self.by_user.setdefault(user, {})
        if record.value is None:
            mine.pop(record.key, None)
            if not mine:
                del self.by_user[user]
            return
        mine[record.key] = record.value
        if record.key == user_key(user):
            self.offsets[user] = record.offset


async def move_states(
    settings: Settings,
    clock: Callable[[], float] = time.time,
    progress: Callable[[str], object] = lambda line: None,
) -> Moved:
    """Move states to where their users belong by the number of partitions of the events topic.

    1. Check that no worker runs, and that workers will hand on what lies in old partitions.
    2. Give the topics of states as many partitions as the events topic has, and each new one a
       position with the number from before, with which no worker starts.
    3. Fence whoever had the partitions, and read what is left.
    4. Move the rows of users who belong to another partition, some hundred in one transaction: the
       state, what the user has seen, a list that is owed. If a state is there already, it goes as a
       handed-on state, which the owner joins.
    5. In one transaction: count sources by the new number in all positions, and hand on again what
       was handed on and not taken, send blocks of item events again that are not applied, and let
       requests to forget follow their users. Only now do positions name the new number.

    Cut off anywhere, it is taken up again where it was.

    Args:
        settings: where the brokers are, and the partitioner.
        clock: wall time, in seconds.
        progress: called with a line on each step.

    Raises:
        BrokerError: the broker cannot be used.
        ResetError: a worker runs.
        MoveError: the partitioner is not known, nothing would be handed on, users have pseudonyms,
            or there are no transactions.
        PositionError: a position cannot be read.
    """
    # 1. Check.
    names, topics = topics_of(settings), await _checked(settings)
    after = topics[names.events].partitions
    positions = await positions_of(settings, names.users_changelog, topics)
    numbers = {position.partitions for position in positions.values()}
    before = min(numbers, default=after)
    moved = Moved(before, after)
    if before > after or len(numbers) > 1:
        raise MoveError(
            f"the positions of {names.users_changelog} name {sorted(numbers)} partitions, and"
            f" {names.events} has {after}: only one number, not above that, is expected"
        )
    if any(position.replays or position.successor for position in positions.values()):
        raise MoveError(
            f"a replay builds the states of {settings.name}, or has taken over from them: finish it"
            " first, and move the states of the tracker that is served"
        )
    if pseudonyms_of(settings) or any(position.pseudonyms for position in positions.values()):
        raise MoveError(UNPLACED)
    # 2. Make partitions.
    grown = await _grow(settings, topics, after)
    if grown:
        progress(f"{', '.join(grown)}: {after} partitions")
        topics = await describe_topics(settings, _needed(settings))
    if before == after:
        return moved
    await _mark(settings, topics, positions, before)
    # 3. Fence.
    items = topics[names.items].partitions
    for table, count in (("users", after), ("items", items)):
        for partition in range(count):
            await (await fenced_producer(settings, table, partition, True)).stop()
    # 4. Move rows.
    there = [await _users_in(settings, names.users_changelog, part) for part in range(after)]
    forgotten: dict[bytes, bytes] = {}
    for partition in range(before):
        rows = await _away(settings, names.users_changelog, partition, after, forgotten)
        await _move(settings, partition, rows, there, clock(), moved)
        progress(f"partition {partition}: {len(rows.by_user)} users moved")
    # 5. Change the positions.
    await _finish(settings, topics, moved, forgotten)
    return moved


def _needed(settings: Settings) -> list[str]:
    """Return the names of the topics that a move reads or changes."""
    names = topics_of(settings)
    return [
        names.events, names.users_changelog, names.items_changelog, names.items, names.hand_over,
        names.forget,
    ]  # fmt: skip


async def _checked(settings: Settings) -> dict[str, TopicInfo]:
    """Check what has to be so; return the topics."""
    if settings.partitioner == "given":
        raise MoveError(
            "TRACKER_PARTITIONER=given: no partition is a user's; name the rule of your producers"
        )
    if settings.hand_over != "on":
        raise MoveError(
            "TRACKER_HAND_OVER=off: records in old partitions would not follow their users; set it"
            " to on"
        )
    await check_reset(settings)
    needed = _needed(settings)
    topics = await describe_topics(settings, needed)
    missing = [name for name in needed if name not in topics]
    if missing:
        raise MoveError(f"{', '.join(missing)}: does not exist; run 'tracker topics'")
    if not await supports_transactions(settings):
        raise MoveError(
            "the brokers have no transactions, and without them a move that is cut off would lose"
            " states or count them twice: take a new TRACKER_NAME, and send the events again"
        )
    return topics


async def _grow(settings: Settings, topics: dict[str, TopicInfo], count: int) -> list[str]:
    """Add partitions to the topics of states, up to `count`; return those that had fewer."""
    names = topics_of(settings)
    sized = [names.users_changelog, names.hand_over, names.forget]
    small = [name for name in sized if topics[name].partitions < count]
    if not small:
        return []
    try:
        async with admin_client(settings) as admin:
            await admin.create_partitions({name: NewPartitions(count) for name in small})
    except KafkaError as error:
        raise MoveError(f"{', '.join(small)}: no partitions can be added: {error}") from error
    deadline = asyncio.get_running_loop().time() + SEEN_SECONDS
    while True:
        now = await describe_topics(settings, small)
        if all(now[name].partitions >= count for name in small):
            return small
        if asyncio.get_running_loop().time() > deadline:
            raise MoveError(f"{', '.join(small)}: new partitions are not seen; run it again")
        await asyncio.sleep(0.2)


async def _mark(
    settings: Settings, topics: dict[str, TopicInfo], positions: dict[int, Position], before: int
) -> None:
    """Write positions with which no worker starts, where there is none."""
    names = topics_of(settings)
    events = topics[names.events]
    position = Position(
        FORMAT, 0, names.events, events.topic_id, before, transactions=True,
        stream_time=max((one.stream_time for one in positions.values()), default=0.0),
        version=max((one.version for one in positions.values()), default=0),
    )  # fmt: skip
    changelog = names.users_changelog
    async with in_transaction(settings, 0) as send:
        for partition in range(topics[changelog].partitions):
            if partition not in positions:
                value = encode_position(position)
                await send(Record(changelog, partition, POSITION_KEY, value))


async def _users_in(settings: Settings, changelog: str, partition: int) -> NDArray[np.uint64]:
    """Return the hashes of the users who have a state in a partition, ascending."""
    users: dict[bytes, bool] = {}
    async with aclosing(records_of(settings, changelog, partition)) as records:
        async for record in records:
            if record.key is not None and record.key.startswith(USER_PREFIX):
                users[record.key] = record.value is not None
    return np.unique(np.array([_hash(key) for key, lives in users.items() if lives], np.uint64))


def _hash(key: bytes) -> int:
    return hash_id(user_of(key))


async def _away(
    settings: Settings, changelog: str, partition: int, count: int, forgotten: dict[bytes, bytes]
) -> _Rows:
    """Return the rows of users who belong elsewhere; add the hashes of forgotten users."""
    rows = _Rows()
    async with aclosing(records_of(settings, changelog, partition)) as records:
        async for record in records:
            key = record.key or b""
            if key.startswith(FORGOTTEN_PREFIX):
                if record.value is None:
                    forgotten.pop(key, None)
                else:
                    forgotten[key] = record.value
            own = key.removeprefix(ASIDE_PREFIX)
            if own[:1] not in OF_USERS:
                continue
            user = user_of(own)
            if partition_of(user, count, settings.partitioner) != partition:
                rows.put(user, record)
    return rows


async def _move(
    settings: Settings,
    partition: int,
    rows: _Rows,
    there: list[NDArray[np.uint64]],
    now: float,
    moved: Moved,
) -> None:
    """Move rows to the partitions of their users, and delete them here."""
    changelog = topics_of(settings).users_changelog
    # By the offsets of their rows: of handed-on states, one with a lower offset than the one
    # before would be taken for a repeat.
    users = sorted(rows.by_user, key=lambda user: rows.offsets.get(user, -1))
    for start in range(0, len(users), BATCH):
        came: dict[int, list[int]] = {}
        async with in_transaction(settings, partition) as send:
            for user in users[start : start + BATCH]:
                mine = rows.by_user[user]
                home = partition_of(user, moved.after, settings.partitioner)
                assert home is not None
                number = np.uint64(hash_id(user))
                at = int(np.searchsorted(there[home], number))
                is_there = at < len(there[home]) and there[home][at] == number
                state = mine.get(user_key(user))
                if state is not None and is_there and is_whole(state):
                    record = _joining(settings, partition, home, moved.after, user, rows, now)
                    await send(record)
                    moved.halves += 1
                else:
                    for key, value in mine.items():
                        carried = _carried(key, value, partition)
                        if is_there and not key.startswith(ASIDE_PREFIX):
                            key = ASIDE_PREFIX + key  # not to write over the state there
                        await send(Record(changelog, home, key, carried))
                    came.setdefault(home, []).append(int(number))
                    moved.lists += any(key.startswith(OWED_PREFIX) for key in mine)
                for key in mine:
                    await send(Record(changelog, partition, key, None))
                moved.users += 1
        for home, numbers in came.items():
            there[home] = np.union1d(there[home], np.array(numbers, np.uint64))


def _carried(key: bytes, value: bytes, partition: int) -> bytes:
    """Return a row as it is in another partition: its offsets there are of none of its events."""
    if key.startswith(USER_PREFIX) and is_whole(value):
        return in_new_partition(value)
    if key.startswith(OWED_PREFIX):
        try:
            pending = msgspec.json.decode(value, type=PendingList)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return value  # the owner sets it aside
        if pending.partition < 0:
            pending.partition = partition
        return msgspec.json.encode(pending)
    return value


def _joining(
    settings: Settings,
    partition: int,
    home: int,
    count: int,
    user: str,
    rows: _Rows,
    now: float,
) -> Record:
    """Return the record of a handed-on state that joins the one in its user's partition."""
    mine = rows.by_user[user]
    row = mine[user_key(user)]
    state = JoiningState(
        user,
        user,
        max(0.0, min(last_time_of(row), now)),
        partition,
        max(0, offset_of(row)),
        row,
        mine.get(seen_key(user)),
    )
    origin = Origin(3 * count + partition, rows.offsets[user], None, 0, settings.partitioner)
    return state_record(topics_of(settings).hand_over, home, origin, state)


async def _finish(
    settings: Settings,
    topics: dict[str, TopicInfo],
    moved: Moved,
    forgotten: dict[bytes, bytes],
) -> None:
    """Send again what is not taken, and write all positions, in one transaction."""
    names, before, after = topics_of(settings), moved.before, moved.after
    positions = await positions_of(settings, names.users_changelog, topics)
    out: list[Record] = []
    for partition, position in sorted(positions.items()):
        position.partitions = after
        reached = position.hand_over
        if reached is None:
            reached = HandOverPosition(0, topics[names.hand_over].topic_id)
            reached.partitioner = settings.partitioner if partition >= before else ""
            position.hand_over = reached
        reached.origins = _renumbered(reached.origins, before, after)
        async with aclosing(records_of(settings, names.hand_over, partition)) as records:
            async for record in records:
                if partition < before and record.offset >= reached.position:
                    again = _again(settings, names, record, before, after)
                    moved.handed_on += bool(again)
                    out += again
                    reached.position = record.offset + 1
        if partition >= before:
            out += [
                Record(names.users_changelog, partition, key, value)
                for key, value in forgotten.items()
            ]
    for partition, applied in [(part, one.forgotten) for part, one in sorted(positions.items())]:
        for pending in await open_requests(settings, names.forget, partition, applied):
            user = pending.user
            home = partition_of(user, after, settings.partitioner)
            if home is not None and home != partition and home >= before:
                value = ForgetRequest(request_id(pending, partition), pending.before, True)
                encoded = msgspec.json.encode(value)
                out.append(Record(names.forget, home, pending.key, encoded))
                moved.requests += 1
    rows = [
        Record(names.users_changelog, partition, POSITION_KEY, encode_position(position))
        for partition, position in positions.items()
    ]
    for partition in range(topics[names.items].partitions):
        blocks, row = await _blocks(settings, topics, partition, before, after)
        out += blocks
        moved.blocks += len(blocks)
        rows.append(row)
    async with in_transaction(settings, 0, LAST_SECONDS) as send:
        for one in [*out, *rows]:
            await send(one)


def _renumbered(numbers: dict[int, int], before: int, after: int) -> dict[int, int]:
    """Return numbers of sources, counted on by the partitions of the events topic, by the new one.

    >>> _renumbered({1: 10, 5: 20}, 4, 6)
    {1: 10, 7: 20}
    """
    return {number // before * after + number % before: at for number, at in numbers.items()}


def _again(
    settings: Settings, names: Topics, record: Received, before: int, after: int
) -> list[Record]:
    """Return the records that hand on again what a partition has not taken.

    A record may hold events of several users, and may have been handed to other partitions too:
    each copy says for whom it was, and goes to every partition that may have such a user now.
    """
    origin = origin_of(record.headers)
    if origin is None or not 0 <= origin.partition < 5 * before:
        return [Record(names.hand_over, record.partition, record.key, record.value, record.headers)]
    number = 4 * after + record.partition
    new = Origin(number, record.offset, origin.time, origin.time_type, origin.partitioner)
    headers = headers_of(new)
    if dict(record.headers).get("holds") == b"state":
        try:
            state = msgspec.json.decode(record.value or b"", type=JoiningState)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError):
            homes = [record.partition]  # it is rejected there
        else:
            homes = [partition_of(state.user, after, settings.partitioner) or 0]
        headers = (*headers, ("holds", b"state"))
    else:
        first = readdressed_of(record.headers) or Readdressed((origin.partition, origin.offset), ())
        home = record.partition, before
        headers = (*headers, *Readdressed(first.place, (*first.homes, home)).headers())
        step = math.gcd(before, after)
        homes = [part for part in range(after) if (part - record.partition) % step == 0]
    return [Record(names.hand_over, home, record.key, record.value, headers) for home in homes]


async def _blocks(
    settings: Settings,
    topics: dict[str, TopicInfo],
    partition: int,
    before: int,
    after: int,
) -> tuple[list[Record], Record]:
    """Return the blocks of item events to send again, and the position after them."""
    names = topics_of(settings)
    value = None
    async with aclosing(records_of(settings, names.items_changelog, partition)) as records:
        async for record in records:
            if record.key == POSITION_KEY:
                value = record.value
    items = topics[names.items]
    position = (
        Position(FORMAT, 0, names.items, items.topic_id, items.partitions, transactions=True)
        if value is None
        else decode_position(value)
    )
    position.sources = _renumbered(position.sources, before, after)
    blocks = []
    async with aclosing(records_of(settings, names.items, partition)) as records:
        async for record in records:
            if record.offset < position.position:
                continue
            block = record.value or b""
            try:
                events = decode_block(block)
            except ItemEventFormatError:
                pass  # rejected when it is read
            else:
                sources = events["source_partition"]
                events["source_partition"] = sources // before * after + sources % before
                block = encode_block(events, 2 if block[:1] == b"\2" else 1)
            blocks.append(Record(names.items, partition, record.key, block))
            position.position = record.offset + 1
    row = Record(names.items_changelog, partition, POSITION_KEY, encode_position(position))
    return blocks, row
