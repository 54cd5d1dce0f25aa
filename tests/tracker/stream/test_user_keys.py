"""With keys of users their rows are encrypted, and after a forgetting no copy of them is read."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.plane_world import NOW, Make, WorkerState, like, lists, run_partition
from tests.tracker.stream.test_forget import apply_requests, with_feed
from tracker.events.wire import OtherEvent
from tracker.kafka.changelog_rows import Stored
from tracker.kafka.pseudonyms import Pseudonyms
from tracker.kafka.user_keys import UserKeyError
from tracker.kernels.row_bytes import DamagedRowError, owner_of, seen_key, user_key
from tracker.store.committer import CommitAbortedError
from tracker.store.partition_store import PositionError
from tracker.store.row_cipher import RowCipher
from tracker.stream import partition as partition_module

KEY = "k" * 32
NAMES = Pseudonyms(KEY)
ADA, BOB, EVE = ("ada", "bob", "eve")
DAY = 86400.0

Rows = dict[bytes, bytes]


@pytest.fixture
def worlds(tmp_path: Path, make: Make) -> Make:
    path = tmp_path / "key"
    path.write_text(KEY)

    def build(keys: bool = True, **more: Any) -> WorkerState:
        return make(pseudonym_key_file=path, user_keys=keys, **more)

    return build


def rows_of(worker: WorkerState) -> Rows:
    database: Any = worker.databases["users"]
    return dict(database.items())


def decrypted_by(worker: WorkerState, rows: Rows) -> Rows:
    """Return what rows say to whoever has all keys that are left."""
    return RowCipher(worker.user_keys()).decrypt_all(rows)


def rows_by_user(rows: Rows, user: str) -> list[bytes]:
    return [row for key, row in rows.items() if owner_of(key) == NAMES.of(user).encode()]


def name_of(user: str) -> bytes:
    return NAMES.of(user).encode()


def events_of_many() -> list[Any]:
    events = [like(user, item, time=NOW - 90 + item) for item in range(12) for user in (ADA, BOB)]
    return [*events, OtherEvent(EVE, timestamp=NOW, retracts="", was=ADA), like(EVE, 3)]


def forget(worker: WorkerState, *users: str, at: float = NOW) -> None:
    feed = with_feed(worker)
    for user in users:
        feed.ask(user, at)
    apply_requests(worker)


def test_rows_are_those_without_keys_and_none_of_them_is_in_the_clear(worlds: Make) -> None:
    plain, keyed = (
        worlds(False, emit_min_interval_seconds=60.0),
        worlds(emit_min_interval_seconds=60.0),
    )
    for worker in (plain, keyed):
        worker.send(*events_of_many())
        worker.send(like(BOB, 13))  # is owed a list
        worker.commit()
    expected, raw = rows_of(plain), rows_of(keyed)
    found = decrypted_by(keyed, raw)
    del expected[b"p"], found[b"p"]
    assert found == expected
    assert {key[:1] for key in found} == {b"u", b"s", b"o"}
    whole = b"".join(raw.values())
    for key, row in expected.items():
        if owner_of(key) is not None:
            assert row[8:24] not in whole
            assert row not in whole


def test_states_go_on_after_a_crash_and_owed_lists_come(worlds: Make) -> None:
    worker = worlds(emit_min_interval_seconds=60.0)
    worker.send(like(ADA))
    assert worker.send(like(ADA, 1)) == []
    worker.commit()
    worker.restart()
    assert worker.head(NAMES.of(ADA), "events") == 2
    (record,) = worker.users.emit_due()
    assert record.key == name_of(ADA)
    worker.send(like(ADA, 2), like(BOB, 2))
    worker.commit()
    worker.restart()
    assert [worker.head(NAMES.of(user), "events") for user in (ADA, BOB)] == [3, 1]
    keys = [one.key for one in worker.committer.sent if one.topic == "t-user-keys"]
    assert keys == [name_of(ADA), name_of(BOB)]  # one record a user, with the first row


def test_a_backup_of_who_was_forgotten_is_not_read_with_all_keys_that_are_left(
    worlds: Make,
) -> None:
    worker = worlds(emit_min_interval_seconds=60.0)
    worker.send(*events_of_many())
    worker.send(like(ADA, 13), like(BOB, 13))
    worker.commit()
    backup = rows_of(worker)
    before = decrypted_by(worker, backup)
    assert [len(rows_by_user(before, user)) for user in (ADA, BOB)] == [2, 3]
    forget(worker, ADA)
    worker.commit()
    after = decrypted_by(worker, backup)
    assert rows_by_user(after, ADA) == []
    assert rows_by_user(after, BOB) == rows_by_user(before, BOB)
    assert rows_by_user(rows_of(worker), ADA) == []
    worker.restart()
    assert worker.users.lookup.find(NAMES.of(ADA)) is None
    assert worker.head(NAMES.of(BOB), "events") == 13


@pytest.mark.parametrize("commits_between", [True, False])
def test_who_comes_back_has_another_key_and_the_backup_stays_unread(
    worlds: Make, commits_between: bool
) -> None:
    worker = worlds()
    worker.send(like(ADA, 1, time=NOW - 9), like(BOB, 1, time=NOW - 9))
    worker.commit()
    backup = rows_of(worker)
    forget(worker, ADA, at=NOW - 5)
    if commits_between:
        worker.commit()
    worker.send(like(ADA, 2))
    worker.commit()
    assert rows_by_user(decrypted_by(worker, backup), ADA) == []
    worker.restart()
    assert worker.head(NAMES.of(ADA), "events") == 1
    # The backup is put back: who was forgotten has no row of before, and nothing is damaged.
    for key, value in backup.items():
        worker.databases["users"][key] = value
    worker.restart()
    assert worker.users.lookup.find(NAMES.of(ADA)) is None
    assert worker.users.lookup.find(NAMES.of(BOB)) is not None
    worker.send(like(ADA, 3))
    assert worker.head(NAMES.of(ADA), "events") == 1
    assert worker.count("unreadable_rows", table="users", problem="damaged") == 0


def test_the_key_goes_with_the_last_row_of_who_stays_away_and_not_before(worlds: Make) -> None:
    worker = worlds(state_idle_days=30.0)
    worker.send(*(like(ADA, n % 40, time=NOW - 40 * DAY) for n in range(30)))
    worker.send(like(BOB, 1, time=NOW - 40 * DAY), like(EVE, 1, time=NOW - 20 * DAY))
    worker.users.store.note(b"xo" + name_of(BOB), b"a row that was set aside, and stays")
    worker.commit()
    backup = rows_of(worker)
    worker.send(like("now", 2, time=NOW))
    worker.users.sweep()
    worker.commit()
    keys = worker.user_keys()
    assert keys.get(name_of(ADA)) is None
    assert None not in (keys.get(name_of(BOB)), keys.get(name_of(EVE)))
    assert rows_by_user(decrypted_by(worker, backup), ADA) == []
    assert len(rows_by_user(rows_of(worker), BOB)) == 1


def test_keys_of_a_commit_that_was_aborted_go_with_the_next_one(worlds: Make) -> None:
    worker = worlds()
    worker.send(like(ADA))
    worker.committer.aborts = 1
    snapshot = worker.users.store.snapshot()
    with pytest.raises(CommitAbortedError):
        asyncio.run(worker.users.store.commit(snapshot, []))
    worker.users.store.settle()
    assert worker.user_keys().get(name_of(ADA)) is None
    worker.send(like(ADA, 1))
    worker.commit()
    worker.restart()
    assert worker.head(NAMES.of(ADA), "events") == 2


def flip(worker: WorkerState, key: bytes) -> None:
    row = rows_of(worker)[key]
    worker.databases["users"][key] = row[:-1] + bytes([row[-1] ^ 1])


def swap(worker: WorkerState, key: bytes) -> None:
    worker.databases["users"][key] = worker.databases["users"][user_key(NAMES.of(BOB))]


def in_the_clear(worker: WorkerState, key: bytes) -> None:
    """Put a well-made row there that no worker has encrypted."""
    cipher = RowCipher(worker.user_keys())
    worker.databases["users"][key] = cipher.decrypt(key, worker.databases["users"][key]) or b""


@pytest.mark.parametrize("damage", [flip, in_the_clear])
def test_a_row_that_was_altered_is_set_aside_and_counted(worlds: Make, damage: Any) -> None:
    worker = worlds()
    worker.send(like(ADA), like(BOB))
    worker.commit()
    key = user_key(NAMES.of(ADA))
    damage(worker, key)
    worker.restart()
    worker.send(like(ADA, 1))
    assert worker.head(NAMES.of(ADA), "events") == 1
    assert worker.count("unreadable_rows", table="users", problem="damaged") == 1
    worker.commit()
    assert worker.users.lookup.is_set_aside(NAMES.of(ADA))
    assert b"x" + key in decrypted_by(worker, rows_of(worker))


def test_a_row_in_the_place_of_another_users_is_not_taken(worlds: Make) -> None:
    worker = worlds()
    worker.send(like(ADA), *(like(BOB, item) for item in range(3)))
    worker.commit()
    swap(worker, user_key(NAMES.of(ADA)))
    worker.restart()
    found = worker.users.lookup.find(NAMES.of(ADA))
    assert found is None or found.rows.states.head["events"][0] == 0


def test_a_worker_stops_at_an_altered_row_if_the_settings_say_so(worlds: Make) -> None:
    worker = worlds(damaged_rows="stop")
    worker.send(like(ADA))
    worker.commit()
    flip(worker, user_key(NAMES.of(ADA)))
    worker.restart()
    with pytest.raises(DamagedRowError, match="TRACKER_DAMAGED_ROWS"):
        worker.send(like(ADA, 1))


def test_a_row_that_is_damaged_on_the_disk_is_read_again_from_the_changelog(
    worlds: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = worlds()
    worker.send(*(like(ADA, item, time=NOW - 30 + item) for item in range(14)))
    worker.commit()
    changelog = rows_of(worker)
    assert seen_key(NAMES.of(ADA)) in changelog
    for key in (user_key(NAMES.of(ADA)), seen_key(NAMES.of(ADA))):
        flip(worker, key)
    worker.restart()
    worker.users.reads_again = True

    async def stored(
        settings: Any, topic: str, partition: int, keys: Any, is_good: Any, decrypted: Any
    ) -> dict[bytes, Stored]:
        rows = {key: decrypted(key, changelog[key]) for key in keys}
        assert all(is_good(key, row) for key, row in rows.items())
        return {key: Stored(row, True) for key, row in rows.items()}

    monkeypatch.setattr(partition_module, "stored_rows", stored)

    async def work(running: Any) -> None:
        at = worker.offset
        running.accept(at, worker.records(like(ADA, 20)))
        await running.applied(at + 1)

    run_partition(worker, work)
    assert worker.head(NAMES.of(ADA), "events") == 15
    assert worker.count("unreadable_rows", table="users", problem="damaged") == 0
    worker.restart()
    found = worker.users.lookup.find(NAMES.of(ADA))
    assert found is not None
    assert found.rows.seen_slots[0] >= 0


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [(False, True, "to give each user a key"), (True, False, "to do without these keys")],
)
def test_states_are_refused_where_the_settings_say_other_than_they_were_made(
    worlds: Make, before: bool, after: bool, words: str
) -> None:
    worker, other = worlds(before), worlds(after)
    worker.send(like(ADA))
    worker.commit()
    worker.context, worker.settings = other.context, other.settings
    with pytest.raises(UserKeyError, match=rf"{words}.*tracker replay"):
        worker.restart()


def test_states_are_refused_where_the_topic_of_keys_was_made_again(worlds: Make) -> None:
    worker = worlds()
    worker.send(like(ADA))
    worker.commit()
    with pytest.raises(PositionError, match=r"id other.*keys of one with id id-t-user-keys"):
        worker.users.store.open(
            "t-events", "", 4, 0, 10**9, pseudonyms=NAMES.fingerprint, user_keys="other"
        )


def test_lists_and_item_events_are_those_without_keys(worlds: Make) -> None:
    plain, keyed = worlds(False), worlds()
    answers = [worker.send(*events_of_many()) for worker in (plain, keyed)]
    outgoing = [worker.commit() for worker in (plain, keyed)]
    found = [[(one.id, one.items) for one in lists(records)] for records in answers]
    assert found[0] == found[1] != []
    assert [one.value for one in outgoing[0]] == [one.value for one in outgoing[1]]
