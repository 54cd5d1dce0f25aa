"""ItemSide: every item event once, whatever is sent again."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.plane_world import Bench, Source, like
from tracker.events.item_events import decode_block, decode_blocks, encode_block
from tracker.events.wire import hash_id

Blocks = list[bytes]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def blocks(bench: Bench) -> Callable[..., Blocks]:
    """A block of likes, whatever the items' partitions."""

    def make(*items: int) -> Blocks:
        bench.send(*(like("a", item) for item in items))
        found = decode_blocks([record.value or b"" for record in bench.commit()])
        return [encode_block(found[np.argsort(found["source_offset"])])]

    return make


def sources(*values: bytes | None, start: int = 0) -> list[Source]:
    return [Source(start + at, value) for at, value in enumerate(values)]


def positives(bench: Bench, item: int) -> int:
    found = bench.items.find_item(hash_id(f"i{item}"))
    if found is None:
        return 0
    states, slot = found
    return int(states.head["positives"][slot])


def test_blocks_are_applied_and_position_and_sources_move(bench: Bench, blocks: Any) -> None:
    made = blocks(1, 2, 1)
    assert bench.items.process(sources(*made), len(made)) == []
    assert (positives(bench, 1), positives(bench, 2)) == (2, 1)
    assert bench.items.store.progress.position == len(made)
    assert bench.items.store.progress.sources == {0: 2}
    assert bench.count("item_events") == 3


def test_block_that_comes_twice_is_applied_once(bench: Bench, blocks: Any) -> None:
    made = blocks(1, 3, 1)
    bench.items.process(sources(*made, *made), 2 * len(made))
    bench.items.process(sources(*made, start=2 * len(made)), 3 * len(made))
    assert positives(bench, 1) == 2
    assert bench.count("replayed") == 6


def test_sources_come_back_with_the_states(bench: Bench, blocks: Any) -> None:
    made = blocks(1)
    bench.items.process(sources(*made), 1)
    bench.commit(bench.items)
    bench.restart()
    bench.items.process(sources(*made, start=1), 2)
    assert positives(bench, 1) == 1


def test_sources_of_other_partitions_are_apart(bench: Bench, blocks: Any) -> None:
    (made,) = blocks(1)
    other = decode_block(made)
    other["source_partition"] = 3
    bench.items.process(sources(made, encode_block(other)), 2)
    assert positives(bench, 1) == 2
    assert bench.items.store.progress.sources == {0: 0, 3: 0}


def test_part_of_a_block_that_was_applied_is_left_out(bench: Bench, blocks: Any) -> None:
    (made,) = blocks(1, 1, 1)
    first = decode_block(made)[:2]
    bench.items.process(sources(encode_block(first), made), 2)
    assert positives(bench, 1) == 3


def test_record_that_is_no_block_is_rejected_and_the_rest_goes_on(
    bench: Bench, blocks: Any
) -> None:
    (made,) = blocks(1)
    (rejected, tombstone) = bench.items.process(sources(b"junk", made, None), 3)
    assert rejected.topic == tombstone.topic == "t-rejected"
    assert dict(rejected.headers)["reason"] == b"item_block"
    assert positives(bench, 1) == 1
    assert bench.count("rejected", reason="item_block") == 2
    assert bench.items.store.progress.position == 3


def test_unknown_item_has_no_row(bench: Bench) -> None:
    assert bench.items.find_item(hash_id("nothing")) is None


def test_items_are_owed_nothing(bench: Bench) -> None:
    bench.items.opened()
    assert (bench.items.pending(), bench.items.due_at(True), bench.items.emit_due()) == (
        0,
        None,
        [],
    )
    assert bench.items.take_outgoing() == []


def test_items_in_any_chunks_give_the_same_counts(
    bench: Bench, blocks: Any, tmp_path: Path
) -> None:
    made = [block for item in (1, 2, 1, 3, 1) for block in blocks(item)]
    other = Bench(tmp_path / "other")
    bench.items.process(sources(*made), len(made))
    for at, block in enumerate(made):
        other.items.process(sources(block, start=at), at + 1)
        other.commit(other.items)
        other.restart()
    for item in (1, 2, 3):
        rows = []
        for one in (bench, other):
            found = one.items.find_item(hash_id(f"i{item}"))
            assert found is not None
            states, slot = found
            rows.append(states.head["counts"][slot])
        np.testing.assert_allclose(rows[0], rows[1], rtol=1e-12)
    other.close()
