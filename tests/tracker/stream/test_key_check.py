"""Events outside their user's partition are counted by cause, and said once with the remedy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.plane_world import FakeRecord, WorkerState
from tracker.events.wire import Event, encode_event
from tracker.kafka.partitioner import HASHES, partition_of
from tracker.stream.key_check import CAUSES, RULES, partitions_of, partitions_of_all

LONG = "\N{SNOWMAN}" * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def users_of(partition: int, partitioner: Any, count: int) -> list[str]:
    """Return users that a partitioner puts into a partition of four, and murmur2 elsewhere."""
    found = []
    for number in range(10_000):
        user = f"user-{number}"
        here = partition_of(user, 4, partitioner) == partition
        if here and (partitioner == "murmur2" or partition_of(user, 4, "murmur2") != partition):
            found.append(user)
        if len(found) == count:
            return found
    raise AssertionError


def worker_of(folder: Path, **settings: Any) -> WorkerState:
    return WorkerState(folder, **settings)


def records(worker: WorkerState, *given: tuple[str, bytes | None]) -> list[FakeRecord]:
    out = []
    for user, key in given:
        event = Event(user, "i1", "like", worker.now)
        out.append(FakeRecord(worker.offset, encode_event(event), key))
        worker.offset += 1
    return out


def process(worker: WorkerState, *given: tuple[str, bytes | None]) -> None:
    worker.users.process(records(worker, *given), worker.offset)


def counts(worker: WorkerState) -> list[float]:
    return [worker.count("key_mismatch", cause=cause) for cause in CAUSES]


@pytest.mark.parametrize("partitioner", list(RULES))
def test_kernel_chooses_as_the_single_look_up_does(partitioner: Any) -> None:
    keys = [b"", b"a", b"ab", b"abc", b"abcd", b"abcde", LONG.encode(), b"\xff" * 9]
    keys += [f"user-{number}".encode() for number in range(200)]
    for partitions in (1, 2, 7, 1000):
        right = [HASHES[partitioner](key) % partitions for key in keys]
        found = partitions_of_all(keys, RULES[partitioner], partitions)
        assert found.tolist() == right
        plain: Any = partitions_of
        ends = np.cumsum([len(key) for key in keys])
        data = np.frombuffer(b"".join(keys), np.uint8)
        assert plain.py_func(data, ends, RULES[partitioner], partitions).tolist() == right


def test_events_where_they_belong_are_not_counted(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = worker_of(folder)
    users = users_of(0, "murmur2", 20)
    process(worker, *[(user, user.encode()) for user in users])
    assert counts(worker) == [0, 0, 0]
    assert "two states" not in caplog.text
    worker.close()


def test_events_of_librdkafkas_default_are_counted_and_said_once_with_both_remedies(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = worker_of(folder, log_user_ids=True)
    away, home = users_of(0, "crc32", 20), users_of(0, "murmur2", 3)
    process(worker, *[(user, user.encode()) for user in home + away])
    process(worker, *[(user, user.encode()) for user in away])
    assert counts(worker) == [0, 0, 40]
    lines = [record.getMessage() for record in caplog.records if "two states" in record.message]
    assert len(lines) == 1
    right = partition_of(away[0], 4, "murmur2")
    assert (
        f"t-events-0, offset 3: user {away[0]} belongs to partition {right} by murmur2" in lines[0]
    )
    assert "crc32 puts it here" in lines[0]
    assert "confluent-kafka" in lines[0]
    assert "partitioner=murmur2_random" in lines[0]
    assert "TRACKER_PARTITIONER=crc32" in lines[0]
    assert "\n" not in lines[0]
    worker.close()


@pytest.mark.parametrize("partitioner", ["crc32", "fnv1a"])
def test_where_all_producers_share_the_configured_rule_nothing_is_counted(
    folder: Path, partitioner: str
) -> None:
    worker = worker_of(folder, partitioner=partitioner)
    process(worker, *[(user, user.encode()) for user in users_of(0, partitioner, 20)])
    assert counts(worker) == [0, 0, 0]
    worker.close()


def test_events_of_a_rule_that_is_not_known_name_the_setting_for_it(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = worker_of(folder)
    users = [*users_of(0, "crc32", 5), *users_of(0, "fnv1a", 5)]
    process(worker, *[(user, user.encode()) for user in users])
    assert "TRACKER_PARTITIONER=given" in caplog.text
    worker.close()


def test_with_a_rule_of_your_own_only_keys_are_checked(folder: Path) -> None:
    worker = worker_of(folder, partitioner="given")
    users = users_of(0, "crc32", 5)
    process(worker, *[(user, user.encode()) for user in users], ("x", None), ("x", b"y"))
    assert counts(worker) == [1, 1, 0]
    worker.close()


def test_events_without_a_key_or_with_another_are_counted_wherever_they_lie(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker = worker_of(folder, log_user_ids=True)
    home = users_of(0, "murmur2", 2)
    process(worker, (home[0], None), (home[1], b"\xffsession"), (home[0], home[0].encode()))
    process(worker, (home[0], None), (home[1], b"session"))
    assert counts(worker) == [2, 2, 0]
    lines = [record.getMessage() for record in caplog.records if "two states" in record.message]
    assert len(lines) == 2
    assert f"t-events-0, offset 0: the event of user {home[0]} has no key" in lines[0]
    assert "Set the key to the user_id" in lines[0]
    assert "has the key '\N{REPLACEMENT CHARACTER}session'" in lines[1]
    worker.close()


def test_no_id_is_in_the_log_by_default(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    worker = worker_of(folder)
    away, home = users_of(0, "crc32", 20), users_of(0, "murmur2", 2)
    process(
        worker, (home[0], None), (home[1], b"secret"), *[(user, user.encode()) for user in away]
    )
    assert counts(worker) == [1, 1, 20]
    lines = [record.getMessage() for record in caplog.records if "two states" in record.message]
    assert len(lines) == 3
    for line in lines:
        assert "user (hidden)" in line
        assert "secret" not in line
        assert not any(user in line for user in away + home)
    worker.close()


def test_rejected_records_do_not_shift_the_keys(folder: Path) -> None:
    worker = worker_of(folder)
    user = users_of(0, "murmur2", 1)[0]
    chunk = records(worker, (user, user.encode()), (user, b"other"), (user, None))
    chunk.insert(1, FakeRecord(0, b"{", b"bad"))
    for offset, record in enumerate(chunk):
        record.offset = offset
    worker.users.process(chunk, 4)
    assert counts(worker) == [1, 1, 0]
    worker.close()
