"""Blocks of item events: to and from bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.paths import GOLDEN
from tracker.events import item_events as item_events_module
from tracker.events.item_events import (
    ITEM_EVENT,
    RECENTS,
    ItemEventFormatError,
    decode_block,
    decode_blocks,
    encode_block,
    item_partition,
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


@pytest.mark.parametrize("n", [0, 1, 50])
def test_a_block_survives_bytes_and_leaves_out_what_is_not_in_use(n: int) -> None:
    events = some(n)
    block = encode_block(events)
    assert decode_block(block).tobytes() == events.tobytes()
    assert len(block) == 8 + 40 * n + 8 * int(events["n_recent"].sum())


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
    with pytest.raises(ItemEventFormatError, match="format 3; format 1 is expected"):
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
    assert encode_block(events)[8:] == noise[8:]


def test_the_golden_block_of_format_1_is_read_and_written_the_same() -> None:
    block = (GOLDEN / "item_events_1.bin").read_bytes()
    events = decode_block(block)
    assert encode_block(events) == block
    assert events.tobytes() == golden_events().tobytes()


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
    for name in ("_trim", "_expand"):
        monkeypatch.setattr(item_events_module, name, getattr(item_events_module, name).py_func)
    assert encode_block(some(4)) == block
    assert decode_block(block).tobytes() == some(4).tobytes()
