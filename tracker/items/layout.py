"""Item rows as bytes: the layout of a row, and the kernels that write, check and read it."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.items.config import MAX_COUNTS
from tracker.kernels.arithmetic import decay, whole
from tracker.kernels.native import native
from tracker.kernels.row_bytes import DAMAGED, OTHER_FORMAT, Slots, is_sealed, seal

Array = NDArray[Any]

FORMAT = 3
"""The format number that is written; rows of FORMER_FORMAT are read as well."""

FORMER_FORMAT = 2
"""Written while the index names no half-lives, so that workers of before can read the rows."""

_HALF = (1 << 31) - 1

SCENES = 4

NEIGHBOURS = 64

NEIGHBOUR = np.dtype(
    [
        ("item", "<u8"),  # hash of an item that users had chosen before this one
        ("together", "<f4"),  # how often, among their last 20: .8 ** position each
        ("together_lately", "<f4"),  # the same, decayed with the long half-life
        ("next", "<f4"),  # how often it was the very item before
        ("pairs", "<u4"),  # how many are counted; without one the entry leaves
    ]
)
"""One item chosen before this one by the same users."""

COUNTED = np.dtype(
    [
        ("half_life", "<f4"),  # seconds, infinite for one that does not decay
        ("seeded", "<u4"),  # seconds since 1970 at which it was estimated, 0 for counted events
        ("count", "<f8"),  # decayed count of positive events
    ]
)
"""One count of an item, with its name."""

ITEM_HEAD = np.dtype(
    [
        ("item", "<u8"),  # hash of the item, 0 for a row not in use
        ("ref_time", "<f8"),  # seconds: the time all decayed numbers of the row are valid for
        ("first_time", "<f8"),  # seconds: the earliest event, NaN for none (retractions keep it)
        ("last_time", "<f8"),  # seconds: the latest event, the same
        ("weight_sum", "<f8", (2,)),  # decayed signed weights, by `half_lives`
        ("weight_total", "<f8"),  # signed weights of all events, not decayed
        ("half_lives", "<f4", (2,)),  # seconds, short and long: of weights, scenes and pairs
        ("seeded", "<u4"),  # seconds since 1970 at which those were estimated, 0 if never
        ("positives", "<u4"),  # events of positive weight, those retracted taken out
        ("negatives", "<u4"),  # events of negative weight, the same
        ("neutrals", "<u4"),  # events of weight 0, as impressions are, the same
        ("n_scenes", "u1"),
        ("n_neighbours", "u1"),
        ("n_counts", "u1"),
        ("spare", "u1", (5,)),
    ]
)
"""The scalars of a row."""

SCENE = np.dtype(
    [
        ("scene", "<u4"),  # scene code
        ("spare", "<u4"),
        ("counts", "<f8", (2,)),  # decayed counts of positive events, short and long
    ]
)
"""One of the scenes in which the item was chosen most."""

# As plain numbers: a kernel cannot ask a dtype. In 8-byte words.
HEAD_WORDS = ITEM_HEAD.itemsize // 8

COUNTED_WORDS = COUNTED.itemsize // 8

SCENE_WORDS = SCENE.itemsize // 8

NEIGHBOUR_WORDS = NEIGHBOUR.itemsize // 8

ROW_BYTES_MAX = 8 * (
    1
    + HEAD_WORDS
    + MAX_COUNTS * COUNTED_WORDS
    + SCENES * SCENE_WORDS
    + NEIGHBOURS * NEIGHBOUR_WORDS
)
"""Bytes of an item row with everything in use."""

FORMER_HEAD = np.dtype(
    [
        ("item", "<u8"),
        ("ref_time", "<f8"),
        ("first_time", "<f8"),
        ("last_time", "<f8"),
        ("counts", "<f8", (7,)),  # by FORMER_SECONDS
        ("weight_sum", "<f8", (2,)),
        ("weight_total", "<f8"),
        ("positives", "<u4"),
        ("negatives", "<u4"),
        ("n_scenes", "u1"),
        ("n_neighbours", "u1"),
        ("spare", "u1", (2,)),
        ("neutrals", "<u4"),
    ]
)
"""The scalars of a row of FORMER_FORMAT; scenes and neighbours are as now."""

FORMER_SECONDS = (10800.0, 43200.0, 86400.0, 259200.0, 864000.0, 3456000.0, np.inf)
"""Half-lives of the counts in a row of FORMER_FORMAT."""

FORMER_COLUMNS = (3, 4, 0, 5, 1, 6, 2)
"""Columns of these counts in an arena of an index that names no half-lives."""

FORMER_SHORT, FORMER_LONG = 86400.0, 864000.0
"""Half-lives of its sums of weights, scenes and pairs."""

_FORMER_HEAD_WORDS = FORMER_HEAD.itemsize // 8


class RowArrays(NamedTuple):
    """The arrays of an arena of rows, as fields and as words of 8 bytes; see `ItemStates`.

    `half_lives` (H,) float64 are those of its counts: short, long, infinite, and others.
    """

    head: Array
    counted: Array
    scenes: Array
    neighbours: Array
    head_words: Array
    counted_words: Array
    scene_words: Array
    neighbour_words: Array
    half_lives: Array


@native
def _copy_words(target: Array, source: Array, n: int) -> None:
    for w in range(n):
        target[w] = source[w]


@native
def clear_items(slots: Slots, arena: RowArrays) -> None:
    """Empty rows: all is 0, and the first and the latest time are NaN."""
    for slot in slots:
        arena.head_words[slot, :] = 0
        arena.counted_words[slot, :] = 0
        arena.scene_words[slot, :] = 0
        arena.neighbour_words[slot, :] = 0
        arena.head[slot]["first_time"] = np.nan
        arena.head[slot]["last_time"] = np.nan


@native
def _is_former(half_lives: Array) -> bool:
    """Return whether an arena counts by the half-lives of FORMER_FORMAT and by no others."""
    if len(half_lives) != len(FORMER_SECONDS):
        return False
    for h in range(len(FORMER_SECONDS)):
        if half_lives[FORMER_COLUMNS[h]] != FORMER_SECONDS[h]:
            return False
    return True


@native
def _write_former(head: Any, counted: Array, former: Any) -> bool:
    """Write a head and its counts as those of FORMER_FORMAT; return whether nothing is lost."""
    for h in range(len(FORMER_SECONDS)):
        count = counted[FORMER_COLUMNS[h]]
        former["counts"][h] = count["count"]
        if count["seeded"] != 0:
            return False
    former["item"] = head["item"]
    former["ref_time"] = head["ref_time"]
    former["first_time"] = head["first_time"]
    former["last_time"] = head["last_time"]
    former["weight_sum"][0] = head["weight_sum"][0]
    former["weight_sum"][1] = head["weight_sum"][1]
    former["weight_total"] = head["weight_total"]
    former["positives"] = head["positives"]
    former["negatives"] = head["negatives"]
    former["neutrals"] = head["neutrals"]
    former["n_scenes"] = head["n_scenes"]
    former["n_neighbours"] = head["n_neighbours"]
    return bool(head["seeded"] == 0)


@native
def pack_items(words: Array, slots: Slots, arena: RowArrays) -> Any:
    """Write rows of an arena into `words`; their offsets in it."""
    offsets = np.zeros(slots.shape[0] + 1, np.int64)
    n_counts = len(arena.half_lives)
    may_be_former = _is_former(arena.half_lives)
    former = np.zeros(1, FORMER_HEAD)
    former_words = former.view(np.uint64)
    at = 0
    for i in range(slots.shape[0]):
        slot = slots[i]
        head = arena.head[slot]
        is_former = may_be_former and _write_former(head, arena.counted[slot], former[0])
        head["n_counts"] = n_counts
        head["half_lives"][0] = arena.half_lives[0]
        head["half_lives"][1] = arena.half_lives[1]
        for h in range(n_counts):
            arena.counted[slot, h]["half_life"] = arena.half_lives[h]
        n_scenes = whole(head["n_scenes"])
        n_near = whole(head["n_neighbours"])
        start = at
        words[at] = (
            np.uint64(FORMER_FORMAT if is_former else FORMAT)
            | (np.uint64(n_scenes) << np.uint64(16))
            | (np.uint64(n_near) << np.uint64(24))
        )
        at += 1
        if is_former:
            _copy_words(words[at : at + _FORMER_HEAD_WORDS], former_words, _FORMER_HEAD_WORDS)
            at += _FORMER_HEAD_WORDS
        else:
            _copy_words(words[at : at + HEAD_WORDS], arena.head_words[slot], HEAD_WORDS)
            at += HEAD_WORDS
            n = n_counts * COUNTED_WORDS
            _copy_words(words[at : at + n], arena.counted_words[slot], n)
            at += n
        n = n_scenes * SCENE_WORDS
        _copy_words(words[at : at + n], arena.scene_words[slot], n)
        at += n
        n = n_near * NEIGHBOUR_WORDS
        _copy_words(words[at : at + n], arena.neighbour_words[slot], n)
        at += n
        seal(words, start, at)
        offsets[i + 1] = at
    return offsets


@native
def _is_finite(row: Array, head_words: int, n_scenes: int, n_near: int) -> bool:
    """Return whether the numbers of a row, without its first word, are finite.

    Times of the first and the latest event may be NaN: there is none.
    """
    doubles, singles = row.view(np.float64), row.view(np.float32)
    if np.isinf(doubles[2]) or np.isinf(doubles[3]) or not np.isfinite(doubles[1]):
        return False
    # Weights; in rows of FORMER_FORMAT the counts stand before them.
    for at in range(4, 14 if head_words == _FORMER_HEAD_WORDS else 7):
        if not np.isfinite(doubles[at]):
            return False
    scenes_at = len(row) - n_scenes * SCENE_WORDS - n_near * NEIGHBOUR_WORDS
    for at in range(head_words + 1, scenes_at, COUNTED_WORDS):  # a half-life may be infinite
        if not np.isfinite(doubles[at]):
            return False
    at = scenes_at
    for _ in range(n_scenes):
        if not (np.isfinite(doubles[at + 1]) and np.isfinite(doubles[at + 2])):
            return False
        at += SCENE_WORDS
    for _ in range(n_near):
        for part in range(2, 5):  # together, together_lately, next
            if not np.isfinite(singles[2 * at + part]):
                return False
        at += NEIGHBOUR_WORDS
    return True


@native
def check_items(words: Array, offsets: Array) -> tuple[int, int]:
    """Return (position, code) of the first row that cannot be read, or (-1, 0)."""
    low = np.uint64(0xFF)
    for i in range(offsets.shape[0] - 1):
        start = offsets[i]
        end = offsets[i + 1]
        if start == end:
            continue
        number = whole(words[start] & np.uint64(0xFFFF))
        if number != FORMAT and number != FORMER_FORMAT:
            return i, OTHER_FORMAT
        n_scenes = whole((words[start] >> np.uint64(16)) & low)
        n_near = whole((words[start] >> np.uint64(24)) & low)
        if n_scenes > SCENES or n_near > NEIGHBOURS:
            return i, DAMAGED
        rest = n_scenes * SCENE_WORDS + n_near * NEIGHBOUR_WORDS
        last = start + (HEAD_WORDS if number == FORMAT else _FORMER_HEAD_WORDS)
        if last >= end:
            return i, DAMAGED
        counts = words[last]  # the numbers of scenes, of neighbours, and of counts
        if number == FORMAT:
            n_counts = whole((counts >> np.uint64(16)) & low)
            rest += n_counts * COUNTED_WORDS
            if n_counts > MAX_COUNTS:
                return i, DAMAGED
        if end - last != 1 + rest or not is_sealed(words, start, end):
            return i, DAMAGED
        if not _is_finite(words[start + 1 : end], last - start, n_scenes, n_near):
            return i, DAMAGED
        if whole(counts & low) != n_scenes or whole((counts >> np.uint64(8)) & low) != n_near:
            return i, DAMAGED
    return -1, 0


@native
def unpack_items(slots: Slots, words: Array, offsets: Array, arena: RowArrays) -> None:
    """Read rows that `check_items` has passed into an arena, by the half-lives of the arena."""
    low = np.uint64(0xFF)
    counted = np.zeros(MAX_COUNTS, COUNTED)
    counted_words = counted.view(np.uint64)
    former = np.zeros(1, FORMER_HEAD)
    former_words = former.view(np.uint64)
    for i in range(slots.shape[0]):
        at = offsets[i]
        if at == offsets[i + 1]:
            continue
        slot = slots[i]
        head = arena.head[slot]
        n_scenes = whole((words[at] >> np.uint64(16)) & low)
        n_near = whole((words[at] >> np.uint64(24)) & low)
        is_former = whole(words[at] & np.uint64(0xFFFF)) == FORMER_FORMAT
        at += 1
        if is_former:
            _copy_words(former_words, words[at : at + _FORMER_HEAD_WORDS], _FORMER_HEAD_WORDS)
            at += _FORMER_HEAD_WORDS
            _read_former(former[0], head, counted)
        else:
            _copy_words(arena.head_words[slot], words[at : at + HEAD_WORDS], HEAD_WORDS)
            at += HEAD_WORDS
            n = whole(head["n_counts"]) * COUNTED_WORDS
            _copy_words(counted_words, words[at : at + n], n)
            at += n
        n = n_scenes * SCENE_WORDS
        _copy_words(arena.scene_words[slot], words[at : at + n], n)
        at += n
        n = n_near * NEIGHBOUR_WORDS
        _copy_words(arena.neighbour_words[slot], words[at : at + n], n)
        fit_row(
            head, counted, arena.half_lives,
            arena.counted[slot], arena.scenes[slot], arena.neighbours[slot],
        )  # fmt: skip


@native
def _not_below_zero(number: np.uint32) -> int:
    """Return a number of events; 0 for one below zero, which releases before wrote as 2^32 less."""
    return 0 if number > _HALF else whole(number)


@native
def _read_former(former: Any, head: Any, counted: Array) -> None:
    """Read the head of a row of FORMER_FORMAT into one of now, and into named counts."""
    head["item"] = former["item"]
    head["ref_time"] = former["ref_time"]
    head["first_time"] = former["first_time"]
    head["last_time"] = former["last_time"]
    head["weight_sum"][0] = former["weight_sum"][0]
    head["weight_sum"][1] = former["weight_sum"][1]
    head["weight_total"] = former["weight_total"]
    head["half_lives"][0] = FORMER_SHORT
    head["half_lives"][1] = FORMER_LONG
    head["seeded"] = 0
    head["positives"] = _not_below_zero(former["positives"])
    head["negatives"] = _not_below_zero(former["negatives"])
    head["neutrals"] = _not_below_zero(former["neutrals"])
    head["n_scenes"] = former["n_scenes"]
    head["n_neighbours"] = former["n_neighbours"]
    head["n_counts"] = len(FORMER_SECONDS)
    for h in range(len(FORMER_SECONDS)):
        counted[h]["half_life"] = FORMER_SECONDS[h]
        counted[h]["seeded"] = 0
        counted[h]["count"] = max(former["counts"][h], 0.0)


@native
def fit_row(
    head: Any, counted: Array, half_lives: Array, out: Array, scenes: Array, neighbours: Array
) -> None:
    """Fit a row to the half-lives of an arena, in place; counts by those that it has stay exact.

    A count by another half-life is estimated, and marked with the row's time: see `seeded_count`.
    Sums of weights, counts in scenes and pairs by another half-life are those there were, times the
    ratio of the half-lives, as of events that come evenly; a pair at most its count of all time.

    Args:
        head: ITEM_HEAD of the row, which names its own half-lives.
        counted: (MAX_COUNTS,) its counts, of which `n_counts` are in use.
        half_lives: (H,) those of the arena.
        out: (H,) COUNTED, its counts in the arena.
        scenes: of the row.
        neighbours: of the row.
    """
    n = whole(head["n_counts"])
    stamp = np.uint32(min(max(head["ref_time"], 1.0), 4294967295.0))
    for h in range(len(half_lives)):
        out[h]["half_life"] = half_lives[h]
        place = -1
        for k in range(n):
            if counted[k]["half_life"] == half_lives[h]:
                place = k
        if place >= 0:
            out[h]["seeded"] = counted[place]["seeded"]
            out[h]["count"] = counted[place]["count"]
        else:
            since_last = head["ref_time"] - head["last_time"]
            count = seeded_count(counted, n, half_lives[h], since_last)
            out[h]["seeded"] = stamp if count > 0.0 else np.uint32(0)
            out[h]["count"] = count
    head["n_counts"] = len(half_lives)
    was_short, was_long = head["half_lives"][0], head["half_lives"][1]
    if was_short == half_lives[0] and was_long == half_lives[1]:
        return
    if was_short > 0.0 and was_long > 0.0:
        head["seeded"] = stamp
        short, long = half_lives[0] / was_short, half_lives[1] / was_long
        head["weight_sum"][0] *= short
        head["weight_sum"][1] *= long
        for s in range(whole(head["n_scenes"])):
            scenes[s]["counts"][0] *= short
            scenes[s]["counts"][1] *= long
        for k in range(whole(head["n_neighbours"])):
            entry = neighbours[k]
            entry["together_lately"] = min(
                entry["together"], np.float32(entry["together_lately"] * long)
            )
    head["half_lives"][0] = half_lives[0]
    head["half_lives"][1] = half_lives[1]


@native
def seeded_count(counted: Array, n: int, half_life: float, since_last: float) -> float:
    """Estimate a count by a half-life from those by others.

    Events that come evenly give counts in proportion to the half-lives. Between two half-lives the
    counts' rates (count over half-life) are joined by a straight line in logarithms; beyond the
    longest the rate of that one holds, up to all events, and below the shortest the rate of that
    one, but at least what is left of the latest event.

    Args:
        counted: COUNTED of the row, in any order.
        n: of them in use.
        half_life: seconds.
        since_last: seconds from the item's latest event to the row's time, NaN without one.

    Returns:
        the count; 0 if the row has none.
    """
    below, above = 0.0, np.inf
    least, most = 0.0, 0.0
    for k in range(n):
        period = float(counted[k]["half_life"])
        count = max(float(counted[k]["count"]), 0.0)
        if period < half_life and period > below:
            below, least = period, count
        if period > half_life and period <= above:
            above, most = period, count
    if most <= 0.0:
        return 0.0
    if below > 0.0 and above < np.inf:
        if least <= 0.0:
            return most * half_life / above
        share = math.log(half_life / below) / math.log(above / below)
        rate = math.log(least / below) * (1.0 - share) + math.log(most / above) * share
        count = math.exp(rate) * half_life
    elif below > 0.0:
        count = least * half_life / below
    else:
        count = most * half_life / above if above < np.inf else 0.0
        if since_last >= 0.0:
            count = max(count, decay(since_last, half_life))
    return float(min(max(count, least), most))
