"""ItemSide: every item event once, whatever is sent again."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.plane_world import NOW, FakeRecord, Make, WorkerState, like
from tracker.events.item_events import ITEM_EVENT, decode_block, decode_blocks, encode_block
from tracker.events.wire import hash_id
from tracker.feeds.source_ends import SourceEnds, UnknownOffsetError
from tracker.items.config import ItemCounts
from tracker.items.layout import FORMAT as ITEM_FORMAT
from tracker.kernels.row_bytes import ASIDE_PREFIX, NewerRowError, item_key, seal
from tracker.store.arena import ArenaFullError
from tracker.stream.item_side import ItemSide
from tracker.stream.serving import make_serving

Blocks = list[bytes]


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
    worker: WorkerState, blocks: Any, make: Make
) -> None:
    made = [block for item in (1, 2, 1, 3, 1) for block in blocks(item)]
    other = make()
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
            rows.append(states.columns.counts[slot])
        np.testing.assert_allclose(rows[0], rows[1], rtol=1e-12)


def made_up(n: int = 1, **fields: Any) -> np.ndarray:
    """Item events of source partition 0, at offsets from 0, with fields as given."""
    events = np.zeros(n, ITEM_EVENT)
    events["item"] = np.arange(1, n + 1)
    events["time"], events["weight"], events["sign"] = NOW, 1.0, 1
    events["source_offset"] = np.arange(n)
    for field, value in fields.items():
        events[field] = value
    return events


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("time", np.nan),
        ("weight", np.inf),
        ("sign", 0),
        ("source_offset", 2**63 - 1),
        ("source_partition", 12),
        ("source_partition", -1),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_block_with_a_value_that_cannot_be_true_is_rejected_with_the_reason(
    worker: WorkerState, blocks: Any, field: str, value: float, version: int
) -> None:
    (made,) = blocks(1)
    bad = encode_block(made_up(2, **{field: value}), version)
    (rejected,) = worker.items.process(sources(bad, made), 2)
    assert f"has {field} " in dict(rejected.headers)["message"].decode()
    assert rejected.value == bad
    assert positives(worker, 1) == 1
    assert worker.items.store.progress.sources == {0: 0}
    assert worker.count("rejected", reason="item_block") == 1


def drain(worker: WorkerState, records: list[FakeRecord]) -> int:
    """Process records as a partition does, with a commit where room is needed; the commits."""
    commits = 0
    while True:
        try:
            worker.items.process(records, len(records))
            return commits
        except ArenaFullError:
            assert worker.items.store.needs_commit
            worker.commit(worker.items)
            worker.restart()  # a crash right after the commit repeats nothing
            commits += 1


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give made-up items a row at their first event."""
    monkeypatch.setattr("tracker.stream.waiting_items.MOST_FOR_AN_ITEM", 0)


@pytest.mark.usefixtures("no_waiting")
def test_chunk_of_more_items_than_fit_is_applied_in_parts(make: Make) -> None:
    worker = make(capacity=50)
    events = made_up(201)
    events["source_offset"] = np.arange(201) // 2  # two items of each offset
    assert drain(worker, sources(encode_block(events[:120]), encode_block(events[120:]))) == 4
    worker.commit(worker.items)
    for item in range(1, 202):
        found = worker.items.find_item(item)
        assert found is not None
        states, slot = found
        assert states.head["positives"][slot] == 1
    assert worker.items.store.progress.sources == {0: 100}
    assert worker.count("item_events") == 201


@pytest.mark.usefixtures("no_waiting")
def test_parts_of_a_chunk_do_not_count_as_replayed(make: Make) -> None:
    worker = make(capacity=50)
    records = sources(encode_block(made_up(120)))
    for _ in range(2):
        with pytest.raises(ArenaFullError):
            worker.items.process(records, 1)
        worker.commit(worker.items)
    worker.items.process(records, 1)
    assert worker.count("replayed") == 0
    assert worker.count("item_events") == 120


def test_offset_past_the_end_of_its_source_is_rejected_once_the_end_was_read(
    worker: WorkerState, blocks: Any
) -> None:
    log_ends = {0: 1}

    async def read() -> dict[int, int]:
        return log_ends

    ends = SourceEnds(lambda partition: None, read)
    worker.items = ItemSide(worker.context, 0, worker.item_rows, worker.items.store, ends)
    (true,) = blocks(1)
    bad = encode_block(made_up(source_offset=10**6))
    with pytest.raises(UnknownOffsetError):
        worker.items.process(sources(bad, true), 2)
    with pytest.raises(UnknownOffsetError):  # the end was not read yet
        worker.items.process(sources(bad, true), 2)
    asyncio.run(ends.refresh())
    (rejected,) = worker.items.process(sources(bad, true), 2)
    message = dict(rejected.headers)["message"].decode()
    assert message.startswith("a block has source_offset 1000000; partition 0 of the events topic")
    assert positives(worker, 1) == 1
    assert worker.items.store.progress.sources == {0: 0}


def newer_row(worker: WorkerState, item: int) -> bytes:
    """The committed row of an item as a newer version would seal it."""
    row: Any = worker.databases["items"][item_key(item)]
    words = np.frombuffer(row, np.uint64).copy()
    words[0] = (words[0] & np.uint64(0xFFFF0000)) | np.uint64(ITEM_FORMAT + 1)
    seal(words, 0, len(words))
    return words.tobytes()


def test_damaged_row_is_set_aside_and_its_item_begins_anew(
    worker: WorkerState, blocks: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made, again, other = blocks(1), blocks(1), blocks(2)
    worker.items.process(sources(*made), 1)
    worker.commit(worker.items)
    key = item_key(hash_id("i1"))
    worker.databases["items"][key] = b"garbage!"
    worker.restart()
    worker.items.process(sources(*again, *other, start=1), 3)
    worker.commit(worker.items)
    assert (positives(worker, 1), positives(worker, 2)) == (1, 1)
    assert worker.databases["items"][ASIDE_PREFIX + key] == b"garbage!"
    assert worker.count("unreadable_rows", table="items", problem="damaged") == 1
    (line,) = [text for text in caplog.messages if "passed over" in text]
    assert key.hex()[2:] in line
    worker.restart()
    assert positives(worker, 1) == 1  # the row was written again, and is read


def test_row_of_a_newer_version_is_never_written_over(worker: WorkerState, blocks: Any) -> None:
    made, again = blocks(1), blocks(1)
    worker.items.process(sources(*made), 1)
    worker.commit(worker.items)
    key = item_key(hash_id("i1"))
    row = newer_row(worker, hash_id("i1"))
    worker.databases["items"][key] = row
    worker.restart()
    for _ in range(2):
        with pytest.raises(NewerRowError, match="has format 4, and this version reads 3"):
            worker.items.process(sources(*again, start=1), 2)
    assert worker.items.store.progress.position == 1
    assert worker.items.store.progress.sources == {0: 0}
    worker.commit(worker.items)
    assert worker.databases["items"][key] == row
    with pytest.raises(NewerRowError):
        worker.items.find_item(hash_id("i1"))


def test_rows_that_cannot_be_read_are_never_idle(worker: WorkerState, blocks: Any) -> None:
    worker.items.process(sources(*blocks(1)), 1)
    worker.commit(worker.items)
    readable: Any = worker.databases["items"][item_key(hash_id("i1"))]
    rows = [readable, b"garbage!", newer_row(worker, hash_id("i1"))]
    times = worker.item_rows.last_times(rows)
    assert times.tolist() == [NOW, np.inf, np.inf]


def counting(worker: WorkerState, scales: ItemCounts) -> None:
    """Let the worker use a version that counts by these half-lives."""
    artifact = worker.keeper.current.artifact
    manifest = msgspec.structs.replace(artifact.manifest, item_counts=scales)
    worker.keeper.current = make_serving(replace(artifact, manifest=manifest), worker.settings)


def test_versions_that_count_by_other_half_lives_lose_nothing_that_both_have(
    worker: WorkerState, blocks: Any, make: Make
) -> None:
    first = ItemCounts(more_seconds=(600.0, 3600.0))
    second = ItemCounts(more_seconds=(21600.0,)).after(first)
    other = make()
    counting(other, first)
    every = [block for item in (1, 2, 1, 3, 1, 2) for block in blocks(item)]
    for at, block in enumerate(every):
        worker.items.process(sources(block, start=at), at + 1)
        other.items.process(sources(block, start=at), at + 1)
        if at % 2:
            worker.commit(worker.items)
        counting(worker, (first, second)[at % 4 < 2])  # publish, and roll back
        if at == 3:
            worker.restart()  # what is not committed comes again
    counting(worker, first)
    worker.items.process([], len(every))
    for item in (1, 2, 3):
        counts = []
        for one in (worker, other):
            found = one.items.find_item(hash_id(f"i{item}"))
            assert found is not None
            states, slot = found
            counts.append(states.columns.counts[slot].tolist())
        assert counts[0] == counts[1]
