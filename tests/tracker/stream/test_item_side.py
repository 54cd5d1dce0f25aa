"""ItemSide: every item event once, whatever is sent again."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.plane_world import FakeRecord, WorkerState, like
from tracker.events.item_events import decode_block, decode_blocks, encode_block
from tracker.events.wire import hash_id

Blocks = list[bytes]


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[WorkerState]:
    made = WorkerState(tmp_path)
    yield made
    made.close()


@pytest.fixture
def blocks(worker: WorkerState) -> Callable[..., Blocks]:
    """A block of likes, whatever the items' partitions."""

    def make(*items: int) -> Blocks:
        worker.send(*(like("a", item) for item in items))
        found = decode_blocks([record.value or b"" for record in worker.commit()])
        return [encode_block(found[np.argsort(found["source_offset"])])]

    return make


def sources(*values: bytes | None, start: int = 0) -> list[FakeRecord]:
    return [FakeRecord(start + at, value) for at, value in enumerate(values)]


def positives(worker: WorkerState, item: int) -> int:
    found = worker.items.find_item(hash_id(f"i{item}"))
    if found is None:
        return 0
    states, slot = found
    return int(states.head["positives"][slot])


def test_blocks_are_applied_and_position_and_sources_move(worker: WorkerState, blocks: Any) -> None:
    made = blocks(1, 2, 1)
    assert worker.items.process(sources(*made), len(made)) == []
    assert (positives(worker, 1), positives(worker, 2)) == (2, 1)
    assert worker.items.store.progress.position == len(made)
    assert worker.items.store.progress.sources == {0: 2}
    assert worker.count("item_events") == 3


def test_block_that_comes_twice_is_applied_once(worker: WorkerState, blocks: Any) -> None:
    made = blocks(1, 3, 1)
    worker.items.process(sources(*made, *made), 2 * len(made))
    worker.items.process(sources(*made, start=2 * len(made)), 3 * len(made))
    assert positives(worker, 1) == 2
    assert worker.count("replayed") == 6


def test_sources_come_back_with_the_states(worker: WorkerState, blocks: Any) -> None:
    made = blocks(1)
    worker.items.process(sources(*made), 1)
    worker.commit(worker.items)
    worker.restart()
    worker.items.process(sources(*made, start=1), 2)
    assert positives(worker, 1) == 1


def test_sources_of_other_partitions_are_apart(worker: WorkerState, blocks: Any) -> None:
    (made,) = blocks(1)
    other = decode_block(made)
    other["source_partition"] = 3
    worker.items.process(sources(made, encode_block(other)), 2)
    assert positives(worker, 1) == 2
    assert worker.items.store.progress.sources == {0: 0, 3: 0}


def test_part_of_a_block_that_was_applied_is_left_out(worker: WorkerState, blocks: Any) -> None:
    (made,) = blocks(1, 1, 1)
    first = decode_block(made)[:2]
    worker.items.process(sources(encode_block(first), made), 2)
    assert positives(worker, 1) == 3


def test_record_that_is_no_block_is_rejected_and_the_rest_goes_on(
    worker: WorkerState, blocks: Any
) -> None:
    (made,) = blocks(1)
    (rejected, tombstone) = worker.items.process(sources(b"junk", made, None), 3)
    assert rejected.topic == tombstone.topic == "t-rejected"
    assert dict(rejected.headers)["reason"] == b"item_block"
    assert positives(worker, 1) == 1
    assert worker.count("rejected", reason="item_block") == 2
    assert worker.items.store.progress.position == 3


def test_unknown_item_has_no_row(worker: WorkerState) -> None:
    assert worker.items.find_item(hash_id("nothing")) is None


def test_items_are_owed_nothing(worker: WorkerState) -> None:
    worker.items.opened()
    assert (worker.items.pending(), worker.items.due_at(True), worker.items.emit_due()) == (
        0,
        None,
        [],
    )
    assert worker.items.take_outgoing() == []


def test_items_in_any_chunks_give_the_same_counts(
    worker: WorkerState, blocks: Any, tmp_path: Path
) -> None:
    made = [block for item in (1, 2, 1, 3, 1) for block in blocks(item)]
    other = WorkerState(tmp_path / "other")
    worker.items.process(sources(*made), len(made))
    for at, block in enumerate(made):
        other.items.process(sources(block, start=at), at + 1)
        other.commit(other.items)
        other.restart()
    for item in (1, 2, 3):
        rows = []
        for one in (worker, other):
            found = one.items.find_item(hash_id(f"i{item}"))
            assert found is not None
            states, slot = found
            rows.append(states.head["counts"][slot])
        np.testing.assert_allclose(rows[0], rows[1], rtol=1e-12)
    other.close()
