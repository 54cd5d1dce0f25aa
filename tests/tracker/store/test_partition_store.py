"""PartitionStore: rows and position in one commit, and the state after a failed one."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rocksdict import Options, Rdict, WriteBatch

from tests.paths import GOLDEN
from tracker.kafka.outbox import Record
from tracker.kernels.row_bytes import POSITION_KEY, Get, Slots
from tracker.store.arena import ArenaFullError
from tracker.store.committer import CommitAbortedError
from tracker.store.partition_store import (
    FORMAT,
    HAND_OVER_FORMAT,
    NEWEST_FORMAT,
    PSEUDONYM_FORMAT,
    REPLAY_FORMAT,
    USER_KEYS_FORMAT,
    HandOverPosition,
    PartitionStore,
    Position,
    PositionError,
    check_role,
    decode_position,
    encode_position,
    is_position,
)


class Numbers:
    """States that are one number each."""

    def __init__(self) -> None:
        self.values = np.zeros(0, np.int64)
        self.restored: list[int] = []

    def grow(self, rows: int) -> None:
        self.values = np.resize(self.values, rows)

    def clear(self, slots: Slots) -> None:
        self.values[slots] = -1

    def load(self, keys: Sequence[str], slots: Slots, get: Get) -> None:
        self.values[slots] = [int(value or 0) for value in get([b"n" + k.encode() for k in keys])]

    def dump(self, keys: Sequence[str], slots: Slots) -> list[tuple[bytes, bytes | None]]:
        return [
            (b"n" + key.encode(), str(value).encode())
            for key, value in zip(keys, self.values[slots].tolist(), strict=True)
        ]

    def restore(self, slots: Slots) -> None:
        self.restored += slots.tolist()


class FakeCommitter:
    """Writes to the database, or aborts."""

    def __init__(self) -> None:
        self.abort = False
        self.sent: list[Record] = []

    async def write(
        self,
        database: Any,
        records: Sequence[tuple[bytes, bytes | None]],
        outgoing: Sequence[Record],
    ) -> None:
        if self.abort:
            raise CommitAbortedError("the broker is away")
        self.sent += outgoing
        batch = WriteBatch(raw_mode=True)
        for key, value in records:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        database.write(batch)


class Shelf:
    """A store of numbers over a real database."""

    def __init__(self, database: Any, capacity: int = 100) -> None:
        self.database = database
        self.rows = Numbers()
        self.committer = FakeCommitter()
        self.store: PartitionStore[str] = PartitionStore(
            database,
            self.committer,  # type: ignore[arg-type]
            self.rows,
            capacity,
        )

    def open(self, begin: int = 0, end: int = 100, uid: str = "id1", partitions: int = 4) -> None:
        self.store.open("events", uid, partitions, begin, end)

    def add(self, *keys: str) -> None:
        for key in keys:
            slots = self.store.slots_of([key])
            self.rows.values[slots] += 1
            self.store.mark_dirty(slots)
        self.store.advance(self.store.progress.position + len(keys))

    def value(self, key: str) -> int:
        slots = self.store.slots_of([key])
        return int(self.rows.values[slots[0]])

    def commit(self) -> None:
        asyncio.run(self.store.commit(self.store.snapshot(), []))
        self.store.settle()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Any]:
    found = Rdict(str(tmp_path / "db"), options=Options(raw_mode=True))
    yield found
    found.close()


def test_state_and_position_come_back_together(database: Any) -> None:
    shelf = Shelf(database)
    shelf.open(begin=5)
    assert (shelf.store.committed, shelf.store.needs_commit) == (None, True)
    shelf.add("a", "b", "a")
    assert shelf.store.dirty_rows == 2
    shelf.commit()
    assert not shelf.store.needs_commit
    assert shelf.store.committed == 8
    again = Shelf(database)
    again.open()
    assert again.store.progress.position == 8
    assert again.store.committed == 8
    again.add("a")
    assert again.value("a") == 3


def test_position_is_committed_before_the_first_event(database: Any) -> None:
    shelf = Shelf(database)
    shelf.open(begin=7)
    shelf.commit()
    again = Shelf(database)
    again.open(begin=9)
    assert again.store.progress.position == 7


def test_what_is_not_committed_is_gone_after_a_crash_with_its_position(database: Any) -> None:
    shelf = Shelf(database)
    shelf.open()
    shelf.add("a")
    shelf.commit()
    shelf.add("a", "a")
    again = Shelf(database)
    again.open()
    assert again.store.progress.position == 1
    assert again.value("a") == 1


def test_failed_commit_makes_rows_and_notes_dirty_again(database: Any) -> None:
    shelf = Shelf(database)
    shelf.open()
    shelf.add("a")
    shelf.store.note(b"o1", b"x")
    shelf.store.note(b"o2", b"x")
    shelf.committer.abort = True
    snapshot = shelf.store.snapshot()
    shelf.add("b")
    shelf.store.note(b"o2", None)
    with pytest.raises(CommitAbortedError):
        asyncio.run(shelf.store.commit(snapshot, []))
    shelf.store.settle()
    assert shelf.store.dirty_rows == 2
    assert shelf.rows.restored == shelf.store.slots_of(["a"]).tolist()
    assert database.get(POSITION_KEY) is None
    shelf.committer.abort = False
    shelf.commit()
    assert shelf.store.committed == 2
    assert shelf.store.scan(b"o") == [(b"o1", b"x")]
    assert database.get(b"na") == b"1"


def test_rows_of_a_commit_under_way_stay_until_the_database_has_them(database: Any) -> None:
    shelf = Shelf(database, capacity=2)
    shelf.open()
    shelf.add("a", "b")
    snapshot = shelf.store.snapshot()
    with pytest.raises(ArenaFullError):
        shelf.store.slots_of(["c"])
    asyncio.run(shelf.store.commit(snapshot, []))
    with pytest.raises(ArenaFullError):
        shelf.store.slots_of(["c"])
    shelf.store.settle()
    shelf.store.slots_of(["c"])
    assert shelf.value("a") == 1


def test_row_changed_beside_a_commit_is_in_the_next_one(database: Any) -> None:
    shelf = Shelf(database)
    shelf.open()
    shelf.add("a")
    snapshot = shelf.store.snapshot()
    shelf.add("a")
    asyncio.run(shelf.store.commit(snapshot, []))
    shelf.store.settle()
    assert database.get(b"na") == b"1"
    assert shelf.store.needs_commit
    shelf.commit()
    assert database.get(b"na") == b"2"


def test_scan_reads_one_prefix_only(database: Any) -> None:
    shelf = Shelf(database)
    shelf.open()
    for key in (b"n", b"oa", b"ob", b"pp"):
        shelf.store.note(key, b"1")
    shelf.commit()
    assert [key for key, _ in shelf.store.scan(b"o")] == [b"oa", b"ob"]
    assert shelf.store.read([b"oa", b"oc"]) == [b"1", None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"partitions": 3}, "events has 3 partitions, and the states were made when it had 4"),
        ({"uid": "id2"}, "has id id2, and the states belong to one with id id1"),
        ({"end": 2}, "is at offset 3 of events, which ends at 2"),
    ],
)
def test_position_of_another_topic_is_refused_with_a_remedy(
    database: Any, change: dict[str, Any], message: str
) -> None:
    shelf = Shelf(database)
    shelf.open()
    shelf.add("a", "b", "c")
    shelf.commit()
    with pytest.raises(PositionError) as error:
        Shelf(database).open(**change)
    assert message in str(error.value)
    assert "tracker reset-state" in str(error.value)


def test_position_of_fewer_partitions_is_refused_with_the_command_that_moves_states(
    database: Any,
) -> None:
    shelf = Shelf(database)
    shelf.open()
    shelf.commit()
    with pytest.raises(PositionError, match=r"made when it had 4: .*`tracker move-states`"):
        Shelf(database).open(partitions=5)


def test_topic_whose_id_nobody_gives_is_not_refused(database: Any) -> None:
    shelf = Shelf(database)
    shelf.open()
    shelf.commit()
    again = Shelf(database)
    again.open(uid="")
    assert again.store.progress.topic_id == "id1"


def test_damaged_or_unknown_position_record_is_refused_by_name() -> None:
    with pytest.raises(PositionError, match="cannot be read"):
        decode_position(b"{")
    other = msgspec.json.encode(Position(NEWEST_FORMAT + 1, 0, "events", "", 1))
    with pytest.raises(PositionError, match=f"format {NEWEST_FORMAT + 1}, and this version"):
        decode_position(other)


@pytest.mark.parametrize("name", ["position_1.json", "position_1_clock.json", "position_2.json"])
def test_position_rows_of_every_version_are_read(name: str) -> None:
    position = decode_position((GOLDEN / name).read_bytes())
    assert (position.position, position.topic, position.partitions) == (42, "tracker-events", 12)
    assert position.stream_time == 1_700_000_000.5
    assert position.sources == {0: 7, 3: 9}
    judged = (0.0, 0) if name == "position_1.json" else (1_700_000_100.25, 50)
    assert (position.clock, position.clock_end) == judged
    handed = HandOverPosition(17, "y", 1_700_000_200.5, 18, {2: 99}, "crc32")
    assert position.hand_over == (handed if name == "position_2.json" else None)
    assert position.version == (1_700_000_000_000_042 if name == "position_2.json" else 0)


def test_position_without_a_hand_over_is_written_in_the_format_that_older_versions_read() -> None:
    position = Position(FORMAT, 3, "events", "", 1)
    assert decode_position(encode_position(position)).format == FORMAT
    position.hand_over = HandOverPosition(0)
    assert decode_position(encode_position(position)).format == HAND_OVER_FORMAT


def test_positions_of_a_replay_are_written_in_a_format_that_older_versions_refuse() -> None:
    for field in ("replays", "successor"):
        position = Position(FORMAT, 3, "events", "", 1, hand_over=HandOverPosition(0))
        setattr(position, field, "shop")
        assert decode_position(encode_position(position)).format == REPLAY_FORMAT
        setattr(position, field, "")
        assert decode_position(encode_position(position)).format == HAND_OVER_FORMAT
    golden = decode_position((GOLDEN / "position_3.json").read_bytes())
    assert (golden.replays, golden.successor, golden.position) == ("shop", "shop2", 42)


def test_positions_with_pseudonyms_are_written_in_a_format_that_older_versions_refuse() -> None:
    position = Position(FORMAT, 3, "events", "", 1, replays="shop", pseudonyms="abc")
    assert decode_position(encode_position(position)).format == PSEUDONYM_FORMAT
    golden = decode_position((GOLDEN / "position_4.json").read_bytes())
    assert (golden.pseudonyms, golden.position) == ("f4d006f80a108897", 42)
    assert golden.user_keys is None


def test_positions_with_keys_of_users_are_written_in_a_format_that_older_versions_refuse() -> None:
    for topic_id in ("", "b2"):
        position = Position(FORMAT, 3, "events", "", 1, pseudonyms="abc", user_keys=topic_id)
        assert decode_position(encode_position(position)).format == USER_KEYS_FORMAT
    golden = decode_position((GOLDEN / "position_5.json").read_bytes())
    assert (golden.pseudonyms, golden.user_keys) == ("f4d006f80a108897", "b2")


@pytest.mark.parametrize(
    ("fields", "replays", "message"),
    [
        ({"replays": "shop"}, "", "still builds these states from the events of shop"),
        ({"replays": "shop"}, "other", "still builds these states from the events of shop"),
        ({}, "shop", "these states are no replay's"),
        ({"successor": "shop2"}, "", "TRACKER_NAME=shop2"),
    ],
)
def test_states_are_opened_only_by_a_worker_that_serves_or_by_the_replay_that_builds_them(
    fields: dict[str, str], replays: str, message: str
) -> None:
    position = Position(FORMAT, 3, "events", "", 1, **fields)  # type: ignore[arg-type]
    with pytest.raises(PositionError, match=message):
        check_role(position, replays)
    check_role(Position(FORMAT, 3, "events", "", 1), "")
    check_role(Position(FORMAT, 3, "events", "", 1, replays="shop"), "shop")


def test_store_that_is_not_open_has_no_position(database: Any) -> None:
    shelf = Shelf(database)
    assert not shelf.store.is_open
    assert not shelf.store.needs_commit
    with pytest.raises(RuntimeError, match="not open"):
        shelf.store.progress  # noqa: B018


def test_position_record_is_the_last_of_a_commit(database: Any) -> None:
    shelf = Shelf(database)
    shelf.open()
    shelf.add("a")
    assert shelf.store.snapshot().records[-1][0] == POSITION_KEY


def test_states_of_transactions_are_refused_where_there_are_none(database: Any) -> None:
    fenced = Shelf(database)
    fenced.store.open("events", "id1", 4, 0, 100, transactions=True)
    fenced.commit()
    with pytest.raises(PositionError, match="committed in transactions, and the brokers now say"):
        Shelf(database).open()
    again = Shelf(database)
    again.store.open("events", "id1", 4, 0, 100, transactions=True)
    assert again.store.progress.transactions


def test_states_without_transactions_are_taken_over_by_a_broker_that_has_them(
    database: Any,
) -> None:
    unfenced = Shelf(database)
    unfenced.open()
    unfenced.commit()
    again = Shelf(database)
    again.store.open("events", "id1", 4, 0, 100, transactions=True)
    again.store.advance(3)
    again.commit()
    assert msgspec.json.decode(database.get(b"p"), type=Position).transactions


@pytest.mark.parametrize("value", [b'{"topic":"\x80"}', b'{"more":' + b"[" * 5000])
def test_a_position_that_is_no_utf8_or_too_deep_is_refused_by_name(value: bytes) -> None:
    assert not is_position(value)
    with pytest.raises(PositionError, match="cannot be read"):
        decode_position(value)
