"""Blocks of item events: to and from bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.paths import GOLDEN
from tracker.events import item_events as item_events_module
from tracker.events.item_events import (
    ITEM_EVENT,
    MOST_OF_ONE_OFFSET,
    RECENTS,
    ItemEventFormatError,
    decode_block,
    decode_blocks,
    encode_block,
    item_partition,
    split_events,
)


def some(n: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    events = np.zeros(n, ITEM_EVENT)
    events["item"] = random.integers(1, 2**63, n)
    events["time"] = 1.7e9 + np.arange(n)
    events["weight"] = random.choice([1.0, -2.0, 0.5], n)
    events["sign"] = random.choice([1, -1], n)
    events["source_partition"], events["source_offset"] = 3, np.arange(n) + 10
    events["kind"], events["scene"] = 77, 5
    events["n_recent"] = random.integers(0, RECENTS + 1, n)
    for event in events:
        event["recent"][: event["n_recent"]] = random.integers(1, 2**63, event["n_recent"])
    return events


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("n", [0, 1, 50])
def test_a_block_survives_bytes_and_leaves_out_what_is_not_in_use(n: int, version: int) -> None:
    events = some(n)
    block = encode_block(events, version)
    assert decode_block(block).tobytes() == events.tobytes()
    assert len(block) == 8 * version + 40 * n + 8 * int(events["n_recent"].sum())


def test_blocks_are_read_into_one_array_in_order() -> None:
    blocks = [encode_block(some(n, n)) for n in (3, 0, 2)]
    expected = np.concatenate([some(3, 3), some(2, 2)])
    assert decode_blocks(blocks).tobytes() == expected.tobytes()
    assert len(decode_blocks([])) == 0


def test_items_are_spread_over_partitions_by_hash() -> None:
    items = np.array([0, 7, 2**64 - 1], np.uint64)
    assert item_partition(items, 4).tolist() == [0, 3, 3]


def test_another_format_is_refused_by_name() -> None:
    block = encode_block(some(2))
    with pytest.raises(ItemEventFormatError, match="format 3; format 1 or 2 is expected"):
        decode_block(b"\x03" + block[1:])
    with pytest.raises(ItemEventFormatError, match="4 bytes; at least 8"):
        decode_block(block[:4])


def test_more_recent_items_than_there_is_room_for_are_refused() -> None:
    events = some(1)
    events["n_recent"] = RECENTS + 1
    with pytest.raises(ValueError, match="n_recent is 21"):
        encode_block(events)


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 300), st.binary(max_size=30))
def test_cut_or_longer_blocks_are_refused(cut: int, more: bytes) -> None:
    block = encode_block(some(5))
    with pytest.raises(ItemEventFormatError):
        decode_block(block[:-cut])
    if more:
        with pytest.raises(ItemEventFormatError, match="damaged"):
            decode_block(block + more)


@settings(deadline=None, derandomize=True)
@given(st.binary(max_size=300))
def test_noise_is_refused_or_has_the_length_it_says(noise: bytes) -> None:
    try:
        events = decode_block(noise)
    except ItemEventFormatError:
        return
    assert encode_block(events, noise[0])[8:] == noise[8:]


@pytest.mark.parametrize("version", [1, 2])
def test_the_golden_block_of_each_format_is_read_and_written_the_same(version: int) -> None:
    block = (GOLDEN / f"item_events_{version}.bin").read_bytes()
    events = decode_block(block)
    assert encode_block(events, version) == block
    assert events.tobytes() == golden_events().tobytes()


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.integers(0, 7))
def test_a_block_of_format_2_with_one_bit_altered_is_refused(at: int, bit: int) -> None:
    block = bytearray(encode_block(some(3), 2))
    block[at % len(block)] ^= 1 << bit
    with pytest.raises(ItemEventFormatError):
        decode_block(bytes(block))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("item", 0, "has item 0; the hash of an item"),
        ("time", np.nan, "has time nan; seconds from 0 to 253402300799 is expected"),
        ("time", np.inf, "has time inf"),
        ("time", -1.0, "has time -1.0"),
        ("time", 4e12, "has time 4000000000000.0"),
        ("weight", np.nan, "has weight nan; a number from -1e"),
        ("weight", -np.inf, "has weight -inf"),
        ("weight", 3e38, "has weight 3.0"),
        ("sign", 0, "has sign 0; 1 or -1 is expected"),
        ("sign", -128, "has sign -128"),
        ("source_partition", -1, "has source_partition -1; a partition of the events topic"),
        ("source_partition", 4, "has source_partition 4"),
        ("source_partition", 2, "the same one in the whole block"),
        ("source_offset", -1, "has source_offset -1; an offset of the events topic"),
        ("source_offset", 2**63 - 1, "has source_offset 9223372036854775807"),
        ("source_offset", 9, "at least that of the item event before"),
    ],
)
def test_a_value_that_cannot_be_true_is_refused_by_name(
    version: int, field: str, value: float, message: str
) -> None:
    events = some(3)
    events[field][1] = value
    with pytest.raises(ItemEventFormatError, match="item event 1 of a block of 3 has") as refused:
        decode_block(encode_block(events, version), partitions=4)
    assert message in str(refused.value)


def test_a_recent_item_without_a_hash_is_refused() -> None:
    events = some(1)
    events["n_recent"], events["recent"][0, :2] = 2, [7, 0]
    with pytest.raises(ItemEventFormatError, match="also among its recent ones"):
        decode_block(encode_block(events))


def test_more_item_events_of_one_offset_than_a_record_can_have_are_refused() -> None:
    events = some(MOST_OF_ONE_OFFSET + 1)
    events["source_offset"] = 7
    assert len(decode_block(encode_block(events[1:]))) == MOST_OF_ONE_OFFSET
    with pytest.raises(ItemEventFormatError, match="at most 500 item events of one offset"):
        decode_block(encode_block(events))


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), min_size=1, max_size=40),
    st.integers(1, 12),
    st.booleans(),
)
def test_parts_are_as_large_as_may_be_and_never_cut_an_offset(
    groups: list[tuple[int, int]], most: int, distinct: bool
) -> None:
    events = some(sum(size for size, _ in groups))
    events["source_offset"] = np.repeat(np.arange(len(groups)), [size for size, _ in groups])
    events["item"] = np.repeat([item for _, item in groups], [size for size, _ in groups])
    events["item"] += np.arange(len(events), dtype=np.uint64) % np.uint64(2)
    parts = split_events(events, most, distinct=distinct)
    assert np.concatenate(parts).tobytes() == events.tobytes()

    def size(part: np.ndarray) -> int:
        return len(np.unique(part["item"])) if distinct else len(part)

    for part, after in zip(parts, [*parts[1:], None], strict=True):
        assert size(part) <= most or len(np.unique(part["source_offset"])) == 1
        if after is not None:
            assert part["source_offset"][-1] < after["source_offset"][0]
            more = after[after["source_offset"] == after["source_offset"][0]]
            assert len(events) <= most or size(np.concatenate([part, more])) > most


def golden_events() -> np.ndarray:
    events = np.zeros(2, ITEM_EVENT)
    events["item"], events["time"] = [5, 6], [1.7e9, 1.7e9 + 1.5]
    events["weight"], events["sign"] = [1.5, -2.0], [1, -1]
    events["scene"], events["kind"] = [9, 0], [7, 8]
    events["source_partition"], events["source_offset"] = 2, [10, 11]
    events["n_recent"] = [2, 0]
    events["recent"][0, :2] = [3, 4]
    return events


def test_the_kernels_do_in_python_what_they_do_in_native_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block = encode_block(some(4))
    for name in ("_trim", "_expand", "_first_fault"):
        monkeypatch.setattr(item_events_module, name, getattr(item_events_module, name).py_func)
    assert encode_block(some(4)) == block
    assert decode_block(block).tobytes() == some(4).tobytes()
