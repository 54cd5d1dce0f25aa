"""A replay goes no further than live workers have committed, and sends nothing."""

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import pytest

from tests.plane_world import Make, RunningPartition, WorkerState, like, run_partition
from tests.tracker.stream.test_hand_over import AWAY, HERE, as_read, handed, receive
from tracker.kernels.row_bytes import OWED_PREFIX
from tracker.lookup.replay import _waits
from tracker.store.owed import PendingList
from tracker.stream.replay import Replay


@pytest.fixture
def worlds(make: Make) -> Make:
    def build(partition: int = 0, replays: bool = True) -> WorkerState:
        world = make(partition=partition, hands_over=True)
        if replays:
            world.context = replace(world.context, replay=Replay("live"))
            world.restart()
        return world

    return build


def test_states_are_built_and_neither_lists_nor_rejections_are_sent(worlds: Any) -> None:
    world, other = worlds(), worlds(replays=False)
    events = [like(HERE[0], 1), like(HERE[0], 2), b"{"]
    assert world.send(*events) == []
    assert [record.topic for record in other.send(*events)] == ["t-rejected", "t-recommendations"]
    assert world.head(HERE[0], "events") == other.head(HERE[0], "events") == 2
    blocks = [record.topic for record in world.commit()]
    assert blocks == ["t-items"] * len(blocks) != []


def test_lists_of_handed_on_events_are_owed_until_it_is_known_who_took_them(worlds: Any) -> None:
    source, owner = worlds(), worlds(partition=2)
    source.send(like(HERE[0]), like(AWAY[0]), like(AWAY[1]))
    assert receive(owner, as_read(handed(source))) == []
    assert owner.users.due_at(True) is None
    owner.commit()
    owed = {key: value for key, value in owner.users.store.scan(OWED_PREFIX)}
    pending = [msgspec.json.decode(value, type=PendingList) for value in owed.values()]
    assert sorted((one.partition, one.offset) for one in pending) == [(0, 1), (0, 2)]
    waiting = [one for one in owed.values() if _waits(one, {0: 1})]
    assert [msgspec.json.decode(one, type=PendingList).offset for one in waiting] == [2]


def test_no_event_is_applied_that_live_workers_have_not_committed(worlds: Any) -> None:
    world = worlds()
    limits, reached = Replay("live", {0: 3}), []
    records = world.records(*[like(HERE[0], n) for n in range(10)])

    async def work(running: RunningPartition) -> None:
        running.accept(0, records[:6])
        running.accept(6, records[6:])
        for limit in (3, 4, 10):
            limits.limits[0] = limit
            await running.until(partial(has_reached, limit))
            await asyncio.sleep(0.15)
            reached.append((position(), list(running.done)))

    def has_reached(limit: int) -> bool:
        return position() >= limit

    def position() -> int:
        return int(world.users.store.progress.position)

    run_partition(world, work, limit=lambda: limits.limit(0))
    assert reached == [(3, []), (4, []), (10, [6, 10])]
    assert world.head(HERE[0], "events") == 10
