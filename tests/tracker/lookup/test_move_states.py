"""States are moved to the partitions of their users; the whole of it is in end_to_end."""

import asyncio
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.paths import GOLDEN
from tests.plane_world import NOW, Make, WorkerState, like, lists
from tests.tracker.lookup.test_merge_states import settings_of
from tests.tracker.stream.test_hand_over import AWAY, HERE, as_read, receive, rejections
from tracker.events.wire import encode_event
from tracker.explained import Explained
from tracker.kafka.client import Received
from tracker.kafka.cluster import topics_of
from tracker.kafka.hand_over_records import JoiningState, Origin, headers_of, state_record
from tracker.kafka.topics import ensure_topics
from tracker.kernels.row_bytes import owed_key, seen_key, user_key
from tracker.lookup.move_states import _again, _carried, move_states
from tracker.settings import load_settings
from tracker.store.owed import PendingList
from tracker.users.layout import in_new_partition, is_whole, last_time_of, offset_of


@pytest.fixture
def owner(make: Make) -> WorkerState:
    return make(partition=2, hands_over=True)


def test_row_of_a_user_has_no_offset_of_the_old_partition_and_is_whole() -> None:
    row = (GOLDEN / "user_row_1.bin").read_bytes()
    moved = in_new_partition(row)
    assert is_whole(row)
    assert is_whole(moved)
    assert offset_of(moved) <= 0
    assert last_time_of(moved) == last_time_of(row)
    changed = np.flatnonzero(np.frombuffer(row, np.uint8) != np.frombuffer(moved, np.uint8))
    assert len(changed) <= 4 + 16  # the checksum and two offsets
    assert not is_whole(moved[:-8])
    assert not is_whole(bytes([9]) + moved[1:])
    assert _carried(user_key("a"), b"garbage!", 1) == b"garbage!"
    assert _carried(seen_key("a"), b"seen", 1) == b"seen"


@pytest.mark.parametrize(("partition", "expected"), [(-1, 3), (0, 0)])
def test_owed_list_keeps_the_partition_of_its_event(partition: int, expected: int) -> None:
    row = msgspec.json.encode(PendingList(7, NOW, None, False, partition, 5))
    moved = msgspec.json.decode(_carried(owed_key("a"), row, 3), type=PendingList)
    assert moved == PendingList(7, NOW, None, False, expected, 5)
    assert _carried(owed_key("a"), b"{", 3) == b"{"


def test_record_that_was_not_taken_goes_to_all_who_may_own_its_users_and_counts_once(
    owner: WorkerState,
) -> None:
    settings = load_settings({}, name="t")
    value = b"[" + b",".join(encode_event(like(user)) for user in (AWAY[0], HERE[0])) + b"]"
    origin = Origin(1, 9, int(NOW * 1000), 1, "murmur2")
    record = Received(0, 17, NOW, b"k", value, headers_of(origin))
    again = _again(settings, topics_of(settings), record, 2, 4)
    assert [one.partition for one in again] == [0, 2]
    out = receive(owner, as_read([again[1]]))
    assert not rejections(out)
    assert [(one.user_id, one.id) for one in lists(out)] == [(AWAY[0], "t-events-1-9")]
    assert receive(owner, as_read([again[1]], 1)) == []
    # It is handed on a third time: both former homes count.
    stored = Received(2, 40, NOW, b"k", value, again[1].headers)
    third = _again(settings, topics_of(settings), stored, 4, 8)
    assert [one.partition for one in third] == [2, 6]
    assert dict(third[0].headers)["homes"] == b"0/2,2/4"
    assert dict(third[0].headers)["place"] == b"1-9"


def test_state_that_was_not_taken_goes_to_its_users_home() -> None:
    settings = load_settings({}, name="t")
    state = JoiningState(AWAY[0], "b", NOW, 1, 9, b"row")
    origin = Origin(3 * 2 + 1, 30, None, 0, "murmur2")
    sent = state_record("t-handover", 0, origin, state)
    record = Received(0, 17, NOW, sent.key, sent.value, sent.headers)
    (again,) = _again(settings, topics_of(settings), record, 2, 4)
    assert again.partition == 2
    assert dict(again.headers)["holds"] == b"state"
    rubbish = Received(0, 18, NOW, b"k", b"?", ())
    (kept,) = _again(settings, topics_of(settings), rubbish, 2, 4)
    assert (kept.partition, kept.value, kept.headers) == (0, b"?", ())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"partitioner": "given"}, "TRACKER_PARTITIONER=given: no partition is a user's"),
        ({"hand_over": "off"}, "records in old partitions would not follow their users"),
        ({}, "the brokers have no transactions"),
    ],
)
def test_states_that_could_get_lost_are_not_moved(
    tansu: str, prefix: str, more: Any, message: str
) -> None:
    settings = settings_of(tansu, prefix, **more)

    async def work() -> None:
        await ensure_topics(settings)
        await move_states(settings)

    with pytest.raises(Explained, match=message):
        asyncio.run(work())
