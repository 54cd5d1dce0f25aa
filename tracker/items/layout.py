"""Item rows as bytes: the layout of a row, and the kernels that write, check and read it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.arithmetic import whole
from tracker.kernels.native import native
from tracker.kernels.row_bytes import DAMAGED, OTHER_FORMAT, Slots, is_sealed, seal

Array = NDArray[Any]

FORMAT = 2

SCENES = 4

NEIGHBOURS = 64

NEIGHBOUR = np.dtype(
    [
        ("item", "<u8"),  # hash of an item that users had chosen before this one
        ("together", "<f4"),  # how often, among their last 20: .8 ** position each
        ("together_10d", "<f4"),  # the same, decayed with 10 d
        ("next", "<f4"),  # how often it was the very item before
        ("pairs", "<u4"),  # how many are counted; without one the entry leaves
    ]
)
"""One item chosen before this one by the same users."""

ITEM_HEAD = np.dtype(
    [
        ("item", "<u8"),  # hash of the item, 0 for a row not in use
        ("ref_time", "<f8"),  # seconds: the time all decayed numbers of the row are valid for
        ("first_time", "<f8"),  # seconds: the earliest event, NaN for none (retractions keep it)
        ("last_time", "<f8"),  # seconds: the latest event, the same
        ("counts", "<f8", (7,)),  # decayed counts of positive events, by ITEM_HALF_LIVES
        ("weight_sum", "<f8", (2,)),  # decayed signed weights, half-lives 1 d and 10 d
        ("weight_total", "<f8"),  # signed weights of all events, not decayed
        ("positives", "<u4"),  # events of positive weight, those retracted taken out
        ("negatives", "<u4"),  # events of negative weight, the same
        ("n_scenes", "u1"),
        ("n_neighbours", "u1"),
        ("spare", "u1", (2,)),
        ("neutrals", "<u4"),  # events of weight 0, as impressions are, the same
    ]
)
"""The scalars of a row."""

SCENE = np.dtype(
    [
        ("scene", "<u4"),  # scene code
        ("spare", "<u4"),
        ("counts", "<f8", (2,)),  # decayed counts of positive events, half-lives 1 d and 10 d
    ]
)
"""One of the scenes in which the item was chosen most."""

# As plain numbers: a kernel cannot ask a dtype. In 8-byte words.
HEAD_WORDS = ITEM_HEAD.itemsize // 8

SCENE_WORDS = SCENE.itemsize // 8

NEIGHBOUR_WORDS = NEIGHBOUR.itemsize // 8

ROW_BYTES_MAX = 8 * (1 + HEAD_WORDS + SCENES * SCENE_WORDS + NEIGHBOURS * NEIGHBOUR_WORDS)
"""Bytes of an item row with everything in use."""


@native
def _copy_words(target: Array, source: Array, n: int) -> None:
    for w in range(n):
        target[w] = source[w]


@native
def pack_items(
    words: Array, slots: Slots, heads: Array, head: Array, scenes: Array, near: Array
) -> Any:
    """Write rows, given as words, into `words`; their offsets in it."""
    offsets = np.zeros(slots.shape[0] + 1, np.int64)
    at = 0
    for i in range(slots.shape[0]):
        slot = slots[i]
        n_scenes = whole(heads[slot]["n_scenes"])
        n_near = whole(heads[slot]["n_neighbours"])
        start = at
        words[at] = (
            np.uint64(FORMAT)
            | (np.uint64(n_scenes) << np.uint64(16))
            | (np.uint64(n_near) << np.uint64(24))
        )
        at += 1
        _copy_words(words[at : at + HEAD_WORDS], head[slot], HEAD_WORDS)
        at += HEAD_WORDS
        n = n_scenes * SCENE_WORDS
        _copy_words(words[at : at + n], scenes[slot], n)
        at += n
        n = n_near * NEIGHBOUR_WORDS
        _copy_words(words[at : at + n], near[slot], n)
        at += n
        seal(words, start, at)
        offsets[i + 1] = at
    return offsets


@native
def check_items(words: Array, offsets: Array) -> tuple[int, int]:
    """Return (position, code) of the first row that cannot be read, or (-1, 0)."""
    low = np.uint64(0xFF)
    for i in range(offsets.shape[0] - 1):
        start = offsets[i]
        end = offsets[i + 1]
        if start == end:
            continue
        if (words[start] & np.uint64(0xFFFF)) != np.uint64(FORMAT):
            return i, OTHER_FORMAT
        n_scenes = whole((words[start] >> np.uint64(16)) & low)
        n_near = whole((words[start] >> np.uint64(24)) & low)
        expected = 1 + HEAD_WORDS + n_scenes * SCENE_WORDS + n_near * NEIGHBOUR_WORDS
        if (
            end - start != expected
            or n_scenes > SCENES
            or n_near > NEIGHBOURS
            or not is_sealed(words, start, end)
        ):
            return i, DAMAGED
        counts = words[start + HEAD_WORDS]
        if whole(counts & low) != n_scenes or whole((counts >> np.uint64(8)) & low) != n_near:
            return i, DAMAGED
    return -1, 0


@native
def unpack_items(
    slots: Slots, words: Array, offsets: Array, head: Array, scenes: Array, near: Array
) -> None:
    """Read rows that `check_items` has passed into arrays given as words."""
    low = np.uint64(0xFF)
    for i in range(slots.shape[0]):
        at = offsets[i]
        if at == offsets[i + 1]:
            continue
        slot = slots[i]
        n_scenes = whole((words[at] >> np.uint64(16)) & low)
        n_near = whole((words[at] >> np.uint64(24)) & low)
        at += 1
        _copy_words(head[slot], words[at : at + HEAD_WORDS], HEAD_WORDS)
        at += HEAD_WORDS
        n = n_scenes * SCENE_WORDS
        _copy_words(scenes[slot], words[at : at + n], n)
        at += n
        n = n_near * NEIGHBOUR_WORDS
        _copy_words(near[slot], words[at : at + n], n)
