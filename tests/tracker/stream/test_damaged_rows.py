"""Rows of a partition that cannot be read: set aside, counted and named, never the partition."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.plane_world import (
    NOW,
    FakeRecord,
    Make,
    RunningPartition,
    WorkerState,
    like,
    lists,
    run_partition,
)
from tracker.items.states import problem_of
from tracker.kafka.changelog_rows import Stored
from tracker.kafka.cluster import BrokerError
from tracker.kernels.row_bytes import (
    ASIDE_PREFIX,
    ITEM_PREFIX,
    LEARNED_KEY,
    OWED_PREFIX,
    DamagedRowError,
    NewerRowError,
    owed_key,
    seal,
    seen_key,
    user_key,
)
from tracker.recommend.learned_row import FORMAT as LEARNED_FORMAT
from tracker.recommend.learned_row import encode_learned
from tracker.users.layout import FORMAT
from tracker.users.states import StateFormatError


def with_users(worker: WorkerState, *users: str) -> WorkerState:
    """Commit one event of each user."""
    worker.send(*(like(user) for user in users))
    worker.commit()
    return worker


def damage(worker: WorkerState, key: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """Change a committed row, and restart the worker; return the row as it is now."""
    database: Any = worker.databases["users"]
    row = change(database[key])
    worker.databases["users"][key] = row
    worker.restart()
    return row


def flipped(row: bytes) -> bytes:
    return row[:40] + bytes([row[40] ^ 1]) + row[41:]


def with_word(row: bytes, change: Callable[[int], int]) -> bytes:
    """The row with another first word, sealed again."""
    words = np.frombuffer(row, np.uint64).copy()
    words[0] = change(int(words[0]) & 0xFFFFFFFF)
    seal(words, 0, len(words))
    return words.tobytes()


def newer(row: bytes) -> bytes:
    return with_word(row, lambda word: (word & 0xFFFF0000) | (FORMAT + 1))


def older(row: bytes) -> bytes:
    return with_word(row, lambda word: word & 0xFFFF0000)


def other_layout(row: bytes) -> bytes:
    return with_word(row, lambda word: (word & 0xFFFF) | (24 << 16))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (flipped, "damaged"),
        (lambda row: row[:-8], "damaged"),
        (lambda row: row[:-3], "damaged"),
        (lambda row: b"garbage!", "damaged"),
        (lambda row: b"", "damaged"),
        (older, "older"),
        (other_layout, "layout"),
    ],
)
def test_user_row_that_cannot_be_read_is_set_aside_and_the_user_goes_on(
    make: Make, change: Callable[[bytes], bytes], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = with_users(make(), "a", "b", "c")
    row = damage(worker, user_key("a"), change)
    assert len(lists(worker.send(like("a", 1), like("b", 1)))) == 2
    worker.commit()
    assert worker.databases["users"][ASIDE_PREFIX + user_key("a")] == row
    assert worker.count("unreadable_rows", table="users", problem=problem) == 1
    (line,) = [text for text in caplog.messages if "passed over" in text]
    assert "t-users-changelog-0" in line or "-0: passed over" in line
    assert "key u(hidden):" in line
    assert "its user goes on without it" in line
    worker.restart()
    assert (worker.head("a", "events"), worker.head("b", "events")) == (1, 2)
    assert [worker.users.lookup.is_set_aside(user) for user in ("a", "b")] == [True, False]
    assert worker.count("unreadable_rows", table="users", problem=problem) == 1


def test_user_whose_row_was_set_aside_by_a_look_up_is_still_found(make: Make) -> None:
    worker = with_users(make(), "a")
    damage(worker, user_key("a"), flipped)
    for _ in range(2):
        found = worker.users.lookup.find("a")
        assert found is not None
        assert found.set_aside
        assert worker.head("a", "events") == 0
        worker.commit()
        worker.restart()


def test_seen_set_that_is_damaged_is_set_aside_and_the_state_stays(make: Make) -> None:
    worker = make()
    worker.send(*(like("a", number) for number in range(20)))
    worker.commit()
    row = damage(worker, seen_key("a"), flipped)
    worker.send(like("a", 21))
    worker.commit()
    worker.restart()
    assert worker.head("a", "events") == 21
    assert worker.databases["users"][ASIDE_PREFIX + seen_key("a")] == row


@pytest.mark.parametrize(
    ("key", "row"),
    [
        (owed_key("a"), b"garbage!"),
        (owed_key("a"), b'[1,"soon",null,false]'),
        (owed_key("a"), b"[1e99,1.0,null,false]"),
        (owed_key("a"), b"\xff\xfe"),
        (OWED_PREFIX + b"\xff", b"[1,1.0,null,false]"),
    ],
)
def test_owed_row_that_cannot_be_read_is_set_aside(make: Make, key: bytes, row: bytes) -> None:
    worker = with_users(make(), "a")
    worker.databases["users"][key] = row
    worker.restart()
    assert worker.users.pending() == 0
    worker.commit()
    assert worker.databases["users"][ASIDE_PREFIX + key] == row
    assert worker.databases["users"].get(key) is None
    assert worker.count("unreadable_rows", table="users", problem="damaged") == 1


@pytest.mark.parametrize("row", [b"", b"garbage!", b"\x8d\xef\x02\xd2\xff"])
def test_learned_row_that_is_damaged_is_set_aside_and_learning_begins_again(
    make: Make, row: bytes
) -> None:
    worker = with_users(make(), "a")
    worker.databases["users"][LEARNED_KEY] = row
    worker.restart()
    worker.commit()
    assert worker.databases["users"][ASIDE_PREFIX + LEARNED_KEY] == row
    assert worker.count("unreadable_rows", table="users", problem="damaged") == 1
    assert worker.count("learning_restarts") == 1


def test_learned_row_of_a_newer_version_is_not_written_over(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = with_users(make(), "a")
    with monkeypatch.context() as patch:
        patch.setattr("tracker.recommend.learned_row.FORMAT", LEARNED_FORMAT + 1)
        row = encode_learned({})
    worker.databases["users"][LEARNED_KEY] = row
    worker.restart()
    worker.send(like("a", 1))
    worker.commit()
    assert worker.databases["users"][LEARNED_KEY] == row
    assert "written by a newer version" in caplog.text


def test_user_row_of_a_newer_version_is_never_written_over(make: Make) -> None:
    worker = with_users(make(), "a")
    row = damage(worker, user_key("a"), newer)
    position = worker.users.store.progress.position
    for _ in range(2):
        with pytest.raises(NewerRowError, match=rf"key u\(hidden\) has format {FORMAT + 1}"):
            worker.send(like("a", 1))
    worker.commit()
    assert worker.databases["users"][user_key("a")] == row
    assert worker.users.store.progress.position == position
    with pytest.raises(NewerRowError):
        worker.users.lookup.find("a")


def test_partition_is_refused_if_most_rows_are_of_another_layout(make: Make) -> None:
    worker = with_users(make(), "a", "b", "c")
    for user in ("a", "b"):
        rows: Any = worker.databases["users"]
        rows[user_key(user)] = other_layout(rows[user_key(user)])
    with pytest.raises(StateFormatError, match=r"laid out for dim 24.*is this the artifact"):
        worker.restart()


def test_worker_stops_at_a_damaged_row_if_the_settings_say_so(make: Make) -> None:
    worker = with_users(make(damaged_rows="stop"), "a")
    row = damage(worker, user_key("a"), flipped)
    with pytest.raises(
        DamagedRowError, match=r"row u\(hidden\) cannot be read \(damaged\).*DAMAGED_ROWS"
    ):
        worker.send(like("a", 1))
    assert worker.databases["users"][user_key("a")] == row


def test_idle_sweep_keeps_rows_that_cannot_be_read_and_passes_keys_that_are_no_text(
    make: Make,
) -> None:
    worker = make(state_idle_days=1.0)
    worker.send(*(like(user, time=NOW - 5 * 86400) for user in "abc"))
    worker.commit()
    worker.databases["users"][b"u\xff"] = worker.databases["users"][user_key("b")]
    damage(worker, user_key("a"), flipped)
    worker.send(like("d", 1))
    worker.users.sweep()
    worker.commit()
    database: Any = worker.databases["users"]
    kept = [key for key in database.keys() if key[:1] == b"u"]  # noqa: SIM118
    assert kept == [user_key("a"), user_key("d")]


def test_partition_with_a_damaged_row_runs_on(make: Make) -> None:
    worker = with_users(make(), "a", "b")
    damage(worker, user_key("a"), flipped)

    async def work(running: RunningPartition) -> None:
        first = worker.offset
        running.accept(first, worker.records(like("a", 1), like("b", 1)))
        await running.applied(first + 2)
        assert running.partition.waits_for is None

    running = run_partition(worker, work)
    assert not running.fatal
    assert worker.databases["users"].get(ASIDE_PREFIX + user_key("a")) is not None


def with_changelog(
    monkeypatch: pytest.MonkeyPatch, rows: dict[bytes, Stored] | Exception
) -> list[bytes]:
    """Let a changelog hold rows; return the keys that it is asked for."""
    asked: list[bytes] = []

    async def read(
        settings: Any, topic: str, partition: int, keys: Any, is_good: Any, decrypted: Any
    ) -> Any:
        asked.extend(keys)
        assert (topic, partition) == ("t-users-changelog", 0)
        if isinstance(rows, Exception):
            raise rows
        return {key: rows[key] for key in keys if key in rows}

    monkeypatch.setattr("tracker.stream.partition.stored_rows", read)
    return asked


def applied_after_damage(worker: WorkerState) -> None:
    """Send one more event of user a, through a partition that reads damaged rows again."""
    worker.users.reads_again = True

    async def work(running: RunningPartition) -> None:
        running.accept(worker.offset, worker.records(like("a", 5)))
        await running.until(lambda: bool(running.done))

    run_partition(worker, work)


def test_damaged_row_of_the_disk_is_read_again_from_the_changelog(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker = with_users(make(), "a", "b")
    database: Any = worker.databases["users"]
    whole = database[user_key("a")]
    damage(worker, user_key("a"), flipped)
    asked = with_changelog(monkeypatch, {user_key("a"): Stored(whole, True)})
    applied_after_damage(worker)
    assert asked == [user_key("a")]
    worker.restart()
    assert worker.head("a", "events") == 2
    assert ASIDE_PREFIX + user_key("a") not in worker.databases["users"]
    assert worker.count("unreadable_rows", table="users", problem="damaged") == 0
    assert "of 1 damaged rows 1 were read again from the changelog" in caplog.text


def test_earlier_row_counts_where_the_changelogs_last_one_is_damaged_too(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = with_users(make(), "a")
    database: Any = worker.databases["users"]
    earlier = database[user_key("a")]
    worker.send(like("a", 1), like("a", 2))
    worker.commit()
    row = damage(worker, user_key("a"), flipped)
    with_changelog(monkeypatch, {user_key("a"): Stored(earlier, False)})
    applied_after_damage(worker)
    worker.restart()
    assert worker.head("a", "events") == 2
    assert worker.databases["users"][ASIDE_PREFIX + user_key("a")] == row
    assert worker.count("unreadable_rows", table="users", problem="damaged") == 1


@pytest.mark.parametrize(
    "rows", [{}, {user_key("a"): Stored(None, False)}, BrokerError("away"), TimeoutError()]
)
def test_row_that_the_changelog_does_not_have_whole_is_set_aside(
    make: Make, monkeypatch: pytest.MonkeyPatch, rows: Any
) -> None:
    worker = with_users(make(), "a")
    row = damage(worker, user_key("a"), flipped)
    asked = with_changelog(monkeypatch, rows)
    applied_after_damage(worker)
    assert len(asked) == 1
    worker.restart()
    assert worker.head("a", "events") == 1
    assert worker.databases["users"][ASIDE_PREFIX + user_key("a")] == row


def with_number(row: bytes, dtype: str, place: int, number: float) -> bytes:
    """The row with another number at a byte, sealed again."""
    data = bytearray(row)
    data[4:8] = bytes(4)
    data[place : place + np.dtype(dtype).itemsize] = np.array([number], dtype).tobytes()
    words = np.frombuffer(bytes(data), np.uint64).copy()
    seal(words, 0, len(words))
    return words.tobytes()


@pytest.mark.parametrize("number", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(
    ("dtype", "place"),
    [
        ("<f8", 24),  # ref_time
        ("<f8", 40),  # last_time
        ("<f8", 64),  # emitted_at
        ("<f4", 128),  # negative_mass
        ("<f4", 136),  # the first mass
        ("<f4", 200),  # a sum
        ("<f8", -24),  # time of the latest event
        ("<f4", -16),  # its weight
    ],
)
def test_number_that_is_not_finite_under_a_right_checksum_is_damage(
    make: Make, number: float, dtype: str, place: int
) -> None:
    worker = with_users(make(), "a")
    database: Any = worker.databases["users"]
    row = database[user_key("a")]
    place = place if place > 0 else len(row) + place
    assert worker.rows.states.problem_of(with_number(row, dtype, place, 1.0)) is None
    assert worker.rows.states.problem_of(with_number(row, dtype, place, number)) == "damaged"


@pytest.mark.parametrize("place", [16, 32, 40, 56, 104])
def test_number_of_an_items_row_that_is_not_finite_is_damage(make: Make, place: int) -> None:
    worker = with_users(make(), "a")
    for record in worker.committer.sent:
        if record.topic == "t-items" and record.partition == 0:
            worker.items.process([FakeRecord(0, record.value)], 1)
    assert len(worker.items.store.arena) == 1
    worker.commit(worker.items)
    ((_, row),) = worker.items.store.scan(ITEM_PREFIX)
    assert problem_of(with_number(row, "<f8", place, 1.0)) is None
    assert problem_of(with_number(row, "<f8", place, np.inf)) == "damaged"
