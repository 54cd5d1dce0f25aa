"""ItemStates: all we keep of each item, trend and neighbours, as rows of arrays, to and from bytes.

Counts are sums of decayed ones in float64, so that any order of arrival and every retraction gives
the same numbers to 1e-6. Scenes and neighbours are bounded: the first 4 and 64 are exact, beyond
that the least gives way. A new scene starts from the count of the one it replaces ("space-saving":
Metwally, Agrawal, El Abbadi, ICDT 2005).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.interest import decay, whole
from tracker.item_events import RECENTS
from tracker.native import native
from tracker.neighbours import NEIGHBOUR, NEIGHBOURS, count_neighbours, fade_neighbours
from tracker.row_bytes import describe_format, is_sealed, join_rows, seal, split_rows

Array = NDArray[Any]
Slots = NDArray[np.int64]

FORMAT = 2
SCENES = 4

HOUR = 3600.0
DAY = 86400.0
ITEM_HALF_LIVES = np.array(
    [3 * HOUR, 12 * HOUR, DAY, 3 * DAY, 10 * DAY, 40 * DAY, np.inf], np.float64
)
"""Seconds; the last one never decays."""
_DAY = 2
_TEN_DAYS = 4

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
_HEAD_WORDS = ITEM_HEAD.itemsize // 8
_SCENE_WORDS = SCENE.itemsize // 8
_NEIGHBOUR_WORDS = NEIGHBOUR.itemsize // 8
_LEAST = 1e-20


class ItemStateFormatError(ValueError):
    """The bytes are not an item row, are damaged, or of a format number unknown here."""


@native
def _settle(number: float, left: float) -> float:
    """Return what decay leaves, 0 for next to nothing: denormal numbers are slow."""
    number *= left
    return number if abs(number) >= _LEAST else 0.0


@native
def _move_time(
    head: Any, counts: Array, weights: Array, scenes: Array, neighbours: Array, time: float
) -> None:
    """Bring a row to a time, if it is later than the row's."""
    age = time - head["ref_time"]
    if age <= 0.0:
        return
    head["ref_time"] = time
    for h in range(counts.shape[0]):
        if counts[h] != 0.0:
            counts[h] = _settle(counts[h], decay(age, ITEM_HALF_LIVES[h]))
    day = decay(age, ITEM_HALF_LIVES[_DAY])
    ten_days = decay(age, ITEM_HALF_LIVES[_TEN_DAYS])
    weights[0] = _settle(weights[0], day)
    weights[1] = _settle(weights[1], ten_days)
    for s in range(whole(head["n_scenes"])):
        both = scenes[s]["counts"]
        both[0] = _settle(both[0], day)
        both[1] = _settle(both[1], ten_days)
    fade_neighbours(neighbours, whole(head["n_neighbours"]), ten_days)


@native
def _count_scene(
    head: Any, scenes: Array, scene: np.uint32, sign: float, day: float, ten_days: float
) -> None:
    """Count an event in its scene; a new one takes the place of the least when all are taken."""
    n = whole(head["n_scenes"])
    place = -1
    for s in range(n):
        if scenes[s]["scene"] == scene:
            place = s
            break
    if place < 0:
        if sign < 0.0:
            return
        if n < SCENES:
            place = n
            head["n_scenes"] = n + 1
            scenes[place]["counts"][0] = 0.0
            scenes[place]["counts"][1] = 0.0
        else:
            place = 0
            for s in range(1, n):
                if scenes[s]["counts"][1] < scenes[place]["counts"][1]:
                    place = s
        scenes[place]["scene"] = scene
    counts = scenes[place]["counts"]
    counts[0] += sign * day
    counts[1] += sign * ten_days


@native
def _apply(
    head_rows: Array,
    counts_rows: Array,
    weights_rows: Array,
    scene_rows: Array,
    neighbour_rows: Array,
    slots: Slots,
    events: Array,
    recents: Array,
) -> None:
    for i in range(slots.shape[0]):
        slot = slots[i]
        event = events[i]
        head = head_rows[slot]
        counts = counts_rows[slot]
        scenes = scene_rows[slot]
        neighbours = neighbour_rows[slot]
        time = event["time"]
        weight = float(event["weight"])
        sign = float(event["sign"])
        head["item"] = event["item"]
        _move_time(head, counts, weights_rows[slot], scenes, neighbours, time)
        if sign > 0.0:
            # NaN, for none, is not smaller and not larger than anything.
            if not head["first_time"] <= time:
                head["first_time"] = time
            if not head["last_time"] >= time:
                head["last_time"] = time
        age = head["ref_time"] - time
        day = decay(age, ITEM_HALF_LIVES[_DAY])
        ten_days = decay(age, ITEM_HALF_LIVES[_TEN_DAYS])
        weights_rows[slot, 0] += sign * weight * day
        weights_rows[slot, 1] += sign * weight * ten_days
        head["weight_total"] += sign * weight
        if weight < 0.0:
            head["negatives"] += whole(event["sign"])
        elif weight == 0.0:
            head["neutrals"] += whole(event["sign"])
        if not weight > 0.0:
            continue
        head["positives"] += whole(event["sign"])
        for h in range(counts.shape[0]):
            counts[h] += sign * decay(age, ITEM_HALF_LIVES[h])
        if event["scene"] != 0:
            _count_scene(head, scenes, event["scene"], sign, day, ten_days)
        n_recent = whole(event["n_recent"])
        head["n_neighbours"] = count_neighbours(
            neighbours,
            whole(head["n_neighbours"]),
            event["item"],
            recents[i],
            n_recent,
            sign,
            ten_days,
        )


@native
def _copy_words(target: Array, source: Array, n: int) -> None:
    for w in range(n):
        target[w] = source[w]


@native
def _pack(words: Array, slots: Slots, heads: Array, head: Array, scenes: Array, near: Array) -> Any:
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
        _copy_words(words[at : at + _HEAD_WORDS], head[slot], _HEAD_WORDS)
        at += _HEAD_WORDS
        n = n_scenes * _SCENE_WORDS
        _copy_words(words[at : at + n], scenes[slot], n)
        at += n
        n = n_near * _NEIGHBOUR_WORDS
        _copy_words(words[at : at + n], near[slot], n)
        at += n
        seal(words, start, at)
        offsets[i + 1] = at
    return offsets


@native
def _check(words: Array, offsets: Array) -> tuple[int, int]:
    """Return (position, code) of the first row that cannot be read, or (-1, 0)."""
    low = np.uint64(0xFF)
    for i in range(offsets.shape[0] - 1):
        start = offsets[i]
        end = offsets[i + 1]
        if start == end:
            continue
        if (words[start] & np.uint64(0xFFFF)) != np.uint64(FORMAT):
            return i, 1
        n_scenes = whole((words[start] >> np.uint64(16)) & low)
        n_near = whole((words[start] >> np.uint64(24)) & low)
        expected = 1 + _HEAD_WORDS + n_scenes * _SCENE_WORDS + n_near * _NEIGHBOUR_WORDS
        if (
            end - start != expected
            or n_scenes > SCENES
            or n_near > NEIGHBOURS
            or not is_sealed(words, start, end)
        ):
            return i, 2
        counts = words[start + _HEAD_WORDS]
        if whole(counts & low) != n_scenes or whole((counts >> np.uint64(8)) & low) != n_near:
            return i, 2
    return -1, 0


@native
def _unpack(
    slots: Slots, words: Array, offsets: Array, head: Array, scenes: Array, near: Array
) -> None:
    """Read rows that `_check` has passed into arrays given as words."""
    low = np.uint64(0xFF)
    for i in range(slots.shape[0]):
        at = offsets[i]
        if at == offsets[i + 1]:
            continue
        slot = slots[i]
        n_scenes = whole((words[at] >> np.uint64(16)) & low)
        n_near = whole((words[at] >> np.uint64(24)) & low)
        at += 1
        _copy_words(head[slot], words[at : at + _HEAD_WORDS], _HEAD_WORDS)
        at += _HEAD_WORDS
        n = n_scenes * _SCENE_WORDS
        _copy_words(scenes[slot], words[at : at + n], n)
        at += n
        n = n_near * _NEIGHBOUR_WORDS
        _copy_words(near[slot], words[at : at + n], n)


class ItemStates:
    """The arena of items. Which item has which row is not known here, but each row names its item.

    `head` (C,) ITEM_HEAD, `scenes` (C, SCENES) SCENE, `neighbours` (C, NEIGHBOURS) NEIGHBOUR; what
    lies beyond `n_scenes` and `n_neighbours` means nothing. A cleared row is zero, its first and
    last time NaN.
    """

    def __init__(self, capacity: int) -> None:
        self.head: Array = np.zeros(capacity, ITEM_HEAD)
        self.scenes: Array = np.zeros((capacity, SCENES), SCENE)
        self.neighbours: Array = np.zeros((capacity, NEIGHBOURS), NEIGHBOUR)
        self.head["first_time"] = np.nan
        self.head["last_time"] = np.nan

    @property
    def capacity(self) -> int:
        """Return the number of rows."""
        return len(self.head)

    def grow(self, capacity: int) -> None:
        """Make room for at least `capacity` rows; those there keep their places."""
        old = self.capacity
        if capacity <= old:
            return
        larger = ItemStates(capacity)
        for name in ("head", "scenes", "neighbours"):
            getattr(larger, name)[:old] = getattr(self, name)
            setattr(self, name, getattr(larger, name))

    def clear(self, slots: Slots) -> None:
        """Empty rows."""
        for column in (self.head, self.scenes, self.neighbours):
            column[slots] = np.zeros((), column.dtype)
        self.head["first_time"][slots] = np.nan
        self.head["last_time"][slots] = np.nan

    def copy_rows(self, slots: Slots) -> "ItemStates":
        """Return rows (n,) as an arena of their own, which later events do not change."""
        copy = ItemStates(0)
        copy.head = self.head[slots]
        copy.scenes = self.scenes[slots]
        copy.neighbours = self.neighbours[slots]
        return copy

    def _columns_as_words(self) -> tuple[Array, Array, Array]:
        n = self.capacity
        return (
            self.head.view(np.uint64).reshape(n, _HEAD_WORDS),
            self.scenes.view(np.uint64).reshape(n, SCENES * _SCENE_WORDS),
            self.neighbours.view(np.uint64).reshape(n, NEIGHBOURS * _NEIGHBOUR_WORDS),
        )

    def pack_buffer(self, slots: Slots) -> tuple[Array, NDArray[np.int64]]:
        """Write rows one after another; without Python's lock, so it can run in a worker thread.

        Returns:
            words uint64 and offsets (n + 1,) int64 in words, for `split_rows`.
        """
        words = np.empty(len(slots) * ROW_BYTES_MAX // 8, np.uint64)
        return words, _pack(words, slots, self.head, *self._columns_as_words())

    def pack(self, slots: Slots) -> list[bytes]:
        """Return rows as bytes: word 0 (format, scenes, neighbours, checksum), head, the rest."""
        return split_rows(*self.pack_buffer(slots))

    def unpack(self, slots: Slots, rows: Sequence[bytes | None]) -> None:
        """Read rows into slots; None clears one. Nothing is written where one is refused.

        Raises:
            ItemStateFormatError: another format number, or a damaged row; its position is named.
        """
        words, offsets, bad = join_rows(rows)
        code = 2
        if bad < 0:
            bad, code = _check(words, offsets)
        if bad >= 0:
            row = rows[bad] or b""
            found = describe_format(row)
            if code == 1 or found not in (-1, FORMAT):
                raise ItemStateFormatError(
                    f"item row {bad} of {len(rows)} has format {found}; format {FORMAT} is expected"
                    + _remedy(found)
                )
            raise ItemStateFormatError(
                f"item row {bad} of {len(rows)}, {len(row)} bytes, is damaged: its checksum or"
                " length does not agree"
            )
        empty = offsets[1:] == offsets[:-1]
        if empty.any():
            self.clear(slots[empty])
        _unpack(slots, words, offsets, *self._columns_as_words())


def _remedy(found: int) -> str:
    if found > FORMAT:
        return " (was it written by a newer version?)"
    return (
        "; rows of an older version cannot be read: stop all workers and run `tracker reset-state"
        " --everything`, which rebuilds the states from the events still kept"
    )


ROW_BYTES_MAX = 8 * (1 + _HEAD_WORDS + SCENES * _SCENE_WORDS + NEIGHBOURS * _NEIGHBOUR_WORDS)
"""Bytes of an item row with everything in use."""


def apply_item_events(states: ItemStates, slots: Slots, events: Array) -> None:
    """Apply item events, in order, to their items' rows, in place.

    1. Time moves on to the event's, if that is later: everything decayed is brought there.
    2. Its signed weight joins the weight sums and their total, and it is tallied by its sign; a
       positive event adds one, as decayed by what it is late, to the counts and to its scene. A
       retraction (sign -1) subtracts the same terms.
    3. The user's recent items are counted as neighbours, by how near before they were, the latest
       also as the one before; of a retraction, the same pairs are taken out where they are kept.

    Args:
        states: the arena.
        slots: (M,) the row of each event's item.
        events: (M,) ITEM_EVENT.

    Raises:
        ValueError: a slot out of bounds, numbers of slots and events that differ, a time or
            weight that is not a number, a sign or number of recents out of bounds.
    """
    if len(slots) != len(events):
        raise ValueError(f"{len(slots)} slots for {len(events)} item events")
    if len(slots) == 0:
        return
    if slots.min() < 0 or slots.max() >= states.capacity:
        raise ValueError(
            f"item slots run from {slots.min()} to {slots.max()}; the arena has rows 0 to"
            f" {states.capacity - 1}"
        )
    if not (np.isfinite(events["time"]) & np.isfinite(events["weight"])).all():
        raise ValueError("an item event has a time or weight that is not a number")
    if (np.abs(events["sign"]) != 1).any() or events["n_recent"].max() > RECENTS:
        raise ValueError(f"an item event has a sign other than 1 and -1, or over {RECENTS} recents")
    _apply(
        states.head,
        states.head["counts"],
        states.head["weight_sum"],
        states.scenes,
        states.neighbours,
        slots,
        events,
        np.ascontiguousarray(events["recent"]),
    )
