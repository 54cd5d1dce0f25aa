"""Streaming features of (user, candidate, now): causal, incremental, computed where they serve."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.items.config import MAX_MORE
from tracker.items.counts import COUNT
from tracker.items.vectors import VectorColumns
from tracker.items.view import ItemColumns
from tracker.kernels.arithmetic import add_scaled, copy_row, decay, dot, three_dots, to_unit
from tracker.kernels.native import inlined, native, prefetch, reordered
from tracker.users.columns import HalfLives, RequestColumns, RowColumns
from tracker.users.readings import Histories

Array = NDArray[Any]


class _FeatureColumns(NamedTuple):
    trend_short: int = 0
    trend_long: int = 1
    trend_all: int = 2
    trend_1: int = 3
    trend_2: int = 4
    trend_3: int = 5
    trend_4: int = 6
    trend_5: int = 7
    trend_6: int = 8
    trend_7: int = 9
    trend_8: int = 10
    age: int = 11
    no_event: int = 12
    content_60: int = 13
    content_95: int = 14
    content_last: int = 15
    slot: int = 16
    interest_1: int = 17
    interest_2: int = 18
    interest_3: int = 19
    interest_4: int = 20
    negative: int = 21
    neighbours_60: int = 22
    neighbours_95: int = 23
    neighbours_long: int = 24
    next: int = 25
    neighbours_live: int = 26
    repeats: int = 27
    repeat_recency: int = 28
    scene_short: int = 29
    scene_long: int = 30
    idle: int = 31
    rising: int = 32
    rising_fast: int = 33
    content_near: int = 34
    content_wide: int = 35


FEATURE = _FeatureColumns()
"""The column of each feature: `x[FEATURE.age]`."""

FEATURES = _FeatureColumns._fields
"""The columns, by name (`B` users, `C` candidates, `F` columns).

- `trend_*`: log2 of 20 times the item's decayed count of positive events, 0 below (so: zero for
  less than a twentieth of an event, 4.3 for one), by the half-lives of `ItemCounts`: short, long,
  all of time, and the further ones, ascending. `scene_*`: the same in the user's scene.
- `rising`: log2 of the item's events per unit of time, by the short half-life, over those by the
  long one, both with one event in a long half-life added: 0 if they come evenly, above if they
  become more. `rising_fast`: the same of the shortest half-life of all over the short one.
- `age`: log2 of 1 + hours since the item's first event, 0 where `no_event` is 1.
- `content_*`: cosine, at full width, of the item with the user's positive events, weighted by
  sqrt(weight) and by .6 or .95 for each event since; `content_last`: with the last one alone.
- `content_near`, `content_wide`: log2 of 1 + the user's positive events, of the same number of
  latest ones, whose items are like this one. By the NEAR_WIDTH leading components, an event counts
  0 at a cosine of .4 or .1, 1 at one of .6 or .3, and in proportion between.
- `slot`: largest cosine with an interest of the user. `interest_1..4`: cosine with the decayed
  sums, shortest half-life first, times their confidence M / (M + .5). `negative`: cosine with the
  negative sum, times its confidence.
- `neighbours_*`: log2(1 + 256 x). x is the sum over the latest events, weighted by .6 or .95 for
  each event since, of the times both items were chosen by one user, over
  sqrt((n_i + 5)(n_j + 5)) with n the items' counts. `long`: from counts decayed with the long
  half-life. `neighbours_live`: as `long`, over sqrt((n_i + 1)(n_j + 1)) of the counts decayed
  likewise. `next`: of transitions from the last item.
- `repeats`: log2 of 1 + the item's own positive events in the ring. `repeat_recency`:
  log2(1 + 30 days / age of the last of them), 0 without one.
- `idle`: log2 of 1 + minutes since the item's latest event, 0 where `no_event` is 1.
"""

OPTIONAL = ("content_near", "content_wide")
"""Features that a ranker is trained with only where they are worth their time."""

NEAR_WIDTH = 128
"""Components that tell which items are alike: fewer mix what is near with what is related."""

FORMER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "trend_3h": "trend_1",
        "trend_12h": "trend_2",
        "trend_1d": "trend_short",
        "trend_3d": "trend_3",
        "trend_10d": "trend_long",
        "trend_40d": "trend_4",
        "neighbours_10d": "neighbours_long",
        "scene_1d": "scene_short",
        "scene_10d": "scene_long",
    }
)
"""Names of features in rankers that were trained when `ItemCounts` were always FORMER."""

TREND_KNEE = math.log2(10.0)
"""The trend feature of half an event; without a trained ranker, less than that counts nothing."""

_LOG2_20 = math.log2(20.0)
_MASS_HALF = 0.5
_NOTHING = -120.0  # a power of two of which nothing is left beside 1, whatever the half-lives
_AHEAD = 2  # candidates whose rows are asked for before their turn
_RECENT_60 = 12  # events that count .6 each: .6 ** 12 is .002
_RAMP = np.float32(5.0)  # a fifth of a cosine lies between not near and near
_NEAR_FROM, _WIDE_FROM = np.float32(0.4) * _RAMP, np.float32(0.1) * _RAMP
_LEAST_AGE_SECONDS, _MONTH_SECONDS = 60.0, 2592000.0
_TRENDS = len(COUNT) + MAX_MORE
_INTERESTS = FEATURE.negative - FEATURE.interest_1


@native
def trend_value(log2_count: float, age: float, half_life: float) -> float:
    """Return the trend feature of a count, given as log2 at a time `age` seconds ago."""
    value = _LOG2_20 + log2_count - max(age, 0.0) / half_life
    return max(value, 0.0)


@native
def neighbour_value(x: float) -> float:
    """Return the neighbour feature of a normalised co-occurrence."""
    return math.log2(1.0 + 256.0 * x) if x > 0.0 else 0.0


@native
def recency(age: float) -> float:
    """Return the feature of the age of the last of an item's own events, in seconds."""
    return math.log2(1.0 + _MONTH_SECONDS / max(age, _LEAST_AGE_SECONDS))


@native
def scene_value(count: float, half_life: float, age: float) -> float:
    """Return the trend in a scene of a count with a half-life, valid `age` seconds ago."""
    return trend_value(math.log2(count), age, half_life) if count > 0.0 else 0.0


@native
def fastest_of(half_lives: Array) -> int:
    """Return the place of the shortest half-life, that of `rising_fast`."""
    fastest = COUNT.short
    for h in range(len(COUNT), min(len(half_lives), _TRENDS)):
        if half_lives[h] < half_lives[fastest]:
            fastest = h
    return fastest


@native
def rising_value(log2_counts: Array, half_lives: Array, one: int, other: int, age: float) -> float:
    """Return how much more an item's events come by one half-life than by a longer one.

    A count below 2^-120 is none: beside 1 it is rounded away, so that no power is computed.
    """
    late = max(age, 0.0)
    fast_power = log2_counts[one] - late / half_lives[one]
    slow_power = log2_counts[other] - late / half_lives[other]
    fast = math.pow(2.0, fast_power) if fast_power > _NOTHING else 0.0
    slow = math.pow(2.0, slow_power) if slow_power > _NOTHING else 0.0
    if fast == 0.0 and slow == 0.0:
        return 0.0
    return math.log2((fast * half_lives[other] / half_lives[one] + 1.0) / (slow + 1.0))


@native
def confident_unit(total: Array, mass: float, out: Array) -> None:
    """Write a sum at unit length times its confidence; null for a null sum."""
    for d in range(len(out)):
        out[d] = total[d]
    if not mass > 0.0 or not to_unit(out):
        out[:] = 0.0
        return
    scale = np.float32(mass / (mass + _MASS_HALF))
    for d in range(len(out)):
        out[d] *= scale


class CandidateRows(NamedTuple):
    """The candidates of B users, C at most.

    `rows` (B, C) int32 are catalogue rows, of which the first `n_rows` (B,) are in use;
    `walk_sums` (B, C, WALK_SUMS) float32 are their neighbour sums.
    """

    rows: Array
    n_rows: Array
    walk_sums: Array


@native
def fill_features(
    requests: RequestColumns,
    column_mask: Array,
    content_events: int,
    histories: Histories,
    users: RowColumns,
    half_lives: HalfLives,
    vectors: VectorColumns,
    items: ItemColumns,
    candidates: CandidateRows,
    out: Array,
) -> None:
    """Compute FEATURES of candidates; columns that are not wanted stay as they are.

    1. Per user: the latest items' vectors and the decayed sums, at unit length.
    2. Per candidate: one group of features after another.

    Args:
        requests: the B users.
        column_mask: (F,) bool; a group (content; OPTIONAL; neighbours; each other name) is
            computed whole.
        content_events: the latest positive events that `content_*` are taken from.
        histories: of the users.
        users: the arena.
        half_lives: of the arena's sums.
        vectors: of the N items.
        items: their live statistics.
        candidates: of the users.
        out: (B, C, F) float32, filled for the candidates.
    """
    rows, n_rows, walk_sums = candidates
    full = vectors.full
    short = vectors.vectors
    log2_counts, ref_times = items.log2_counts, items.ref_times
    first_times, last_times = items.first_times, items.last_times
    half_lives_of_items = items.half_lives
    item_scenes, scene_counts = items.scenes, items.scene_counts
    ring, ring_rows, history = users.ring, histories.ring_rows, histories.history
    interests, strengths = histories.interests, histories.strengths
    recent = np.empty((3, full.shape[1]), np.float32)
    three = np.empty(3, np.float32)
    tastes = np.zeros((_INTERESTS + 1, short.shape[1]), np.float32)
    content = column_mask[FEATURE.content_60] or column_mask[FEATURE.content_95]
    content = content or column_mask[FEATURE.content_last]
    near = column_mask[FEATURE.content_near] or column_mask[FEATURE.content_wide]
    latest = np.zeros(((ring.shape[1] + 3) // 4 * 4, min(full.shape[1], NEAR_WIDTH)), np.float32)
    ages = column_mask[FEATURE.age] or column_mask[FEATURE.no_event]
    repeats = column_mask[FEATURE.repeats] or column_mask[FEATURE.repeat_recency]
    in_scene = column_mask[FEATURE.scene_short] or column_mask[FEATURE.scene_long]
    rising = column_mask[FEATURE.rising] or column_mask[FEATURE.rising_fast]
    fastest = fastest_of(half_lives_of_items)
    for b in range(len(n_rows)):
        u = requests.slots[b]
        now = requests.now[b]
        n_past = histories.n_history[b]
        # 1. The latest items' vectors and the decayed sums.
        if content and n_past > 0:
            _sum_recent(ring[u], ring_rows[b], history[b], n_past, content_events, full, recent)
        n_near = min(n_past, content_events)
        if near and n_past > 0:
            _read_latest(ring_rows[b], history[b], n_near, full, latest)
        tastes[:] = 0.0
        if u >= 0:
            _read_tastes(users, u, now, half_lives, column_mask, tastes)
        # 2. One group of features after another.
        for c in range(n_rows[b]):
            if c + _AHEAD < n_rows[b]:
                ahead = rows[b, c + _AHEAD]
                prefetch(log2_counts, ahead)
                prefetch(ref_times, ahead)
                prefetch(first_times, ahead)
                prefetch(last_times, ahead)
                prefetch(item_scenes, ahead)
                prefetch(short, ahead)
                if content or near:
                    prefetch(full, ahead)
            row = rows[b, c]
            x = out[b, c]
            age = now - ref_times[row]
            _fill_trends(x, column_mask, log2_counts[row], half_lives_of_items, age)
            if rising:
                _fill_rising(x, log2_counts[row], half_lives_of_items, fastest, age)
            if ages:
                _fill_age(x, now, first_times[row])
            if column_mask[FEATURE.idle]:
                _fill_idle(x, now, last_times[row])
            if content:
                _fill_content(x, n_past, recent, full[row], three)
            if near:
                _fill_near(x, n_near, latest, full[row])
            if column_mask[FEATURE.slot]:
                _fill_nearest_interest(x, interests[b], strengths[b], short[row])
            _fill_tastes(x, column_mask, tastes, short[row])
            _fill_neighbours(x, column_mask, walk_sums[b, c])
            if repeats:
                _fill_repeats(x, now, row, ring, u, ring_rows[b], history[b], n_past)
            if in_scene:
                _fill_scene(
                    x, requests.scenes[b], item_scenes[row], scene_counts[row],
                    half_lives_of_items, age,
                )  # fmt: skip


@native
def _sum_recent(
    ring: Array,
    ring_rows: Array,
    history: Array,
    n_past: int,
    content_events: int,
    full: Array,
    recent: Array,
) -> None:
    """Write the vectors of one user's latest items: .6 and .95 an event, and the last alone."""
    recent[:] = 0.0
    weight_60 = 1.0
    weight_95 = 1.0
    n = min(n_past, content_events)
    for j in range(n):
        if j + 1 < n:
            prefetch(full, ring_rows[history[j + 1]])
        row = ring_rows[history[j]]
        scale = math.sqrt(ring[history[j]]["weight"])
        if j < _RECENT_60:
            add_scaled(recent[0], full[row], scale * weight_60)
        add_scaled(recent[1], full[row], scale * weight_95)
        weight_60 *= 0.6
        weight_95 *= 0.95
    recent[2] = full[ring_rows[history[0]]]
    to_unit(recent[0])
    to_unit(recent[1])


@native
def _read_latest(ring_rows: Array, history: Array, n: int, full: Array, latest: Array) -> None:
    """Write the leading components of one user's n latest items at unit length, then zeros."""
    latest[:] = 0.0
    for j in range(n):
        copy_row(latest[j], full[ring_rows[history[j]], : latest.shape[1]])
        to_unit(latest[j])


@native
def _read_tastes(
    users: RowColumns, u: int, now: float, half_lives: HalfLives, column_mask: Array, tastes: Array
) -> None:
    """Write one user's decayed sums, and the negative one as the last, with their confidence."""
    age = now - users.head[u]["ref_time"]
    for h in range(min(len(half_lives.sums), _INTERESTS)):
        if column_mask[FEATURE.interest_1 + h]:
            mass = users.masses[u, h] * decay(age, half_lives.sums[h])
            confident_unit(users.sums[u, h], mass, tastes[h])
    if column_mask[FEATURE.negative]:
        mass = users.head[u]["negative_mass"] * decay(age, half_lives.negative)
        confident_unit(users.negative[u], mass, tastes[_INTERESTS])


@inlined
def _fill_trends(
    x: Array, column_mask: Array, log2_counts: Array, half_lives: Array, age: float
) -> None:
    for h in range(min(len(half_lives), _TRENDS)):
        if column_mask[FEATURE.trend_short + h]:
            value = 0.0
            if log2_counts[h] > -1e30:
                value = trend_value(log2_counts[h], age, half_lives[h])
            x[FEATURE.trend_short + h] = value


@inlined
def _fill_rising(x: Array, log2_counts: Array, half_lives: Array, fastest: int, age: float) -> None:
    x[FEATURE.rising] = rising_value(log2_counts, half_lives, COUNT.short, COUNT.long, age)
    x[FEATURE.rising_fast] = rising_value(log2_counts, half_lives, fastest, COUNT.short, age)


@inlined
def _fill_age(x: Array, now: float, first_time: float) -> None:
    none = not first_time >= -1e300
    hours = 0.0 if none else max(now - first_time, 0.0) / 3600.0
    x[FEATURE.age] = math.log2(1.0 + hours)
    x[FEATURE.no_event] = 1.0 if none else 0.0


@inlined
def _fill_idle(x: Array, now: float, last_time: float) -> None:
    value = 0.0
    if last_time >= -1e300:  # not for NaN
        value = math.log2(1.0 + max(now - last_time, 0.0) / 60.0)
    x[FEATURE.idle] = value


@inlined
def _fill_content(x: Array, n_past: int, recent: Array, vector: Array, three: Array) -> None:
    if n_past > 0:
        three_dots(recent, vector, three)
    for i in range(3):
        x[FEATURE.content_60 + i] = three[i] if n_past > 0 else np.float32(0.0)


@inlined
def _fill_near(x: Array, n: int, latest: Array, vector: Array) -> None:
    near, wide = count_near(latest, n, vector)
    x[FEATURE.content_near] = math.log2(1.0 + near)
    x[FEATURE.content_wide] = math.log2(1.0 + wide)


@reordered
def count_near(latest: Array, n: int, vector: Array) -> tuple[float, float]:
    """Return how many of the first n rows are near a vector, and how many are so in a wide sense.

    Four at a time share the way to the vector; rows beyond n are zeros, and count nothing.

    Args:
        latest: (R, W) unit, R a multiple of 4.
        n: rows in use.
        vector: (F,) of which the W leading components count.
    """
    length = np.float32(0.0)
    for d in range(latest.shape[1]):
        length += vector[d] * vector[d]
    near = np.float32(0.0)
    wide = np.float32(0.0)
    if not length > np.float32(1e-20):
        return near, wide  # type: ignore[return-value]
    scale = _RAMP / np.sqrt(length)
    for j in range(0, n, 4):
        c0, c1, c2, c3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
        for d in range(latest.shape[1]):
            component = vector[d]
            c0 += latest[j, d] * component
            c1 += latest[j + 1, d] * component
            c2 += latest[j + 2, d] * component
            c3 += latest[j + 3, d] * component
        for product in (c0, c1, c2, c3):
            cosine = product * scale
            near += min(max(cosine - _NEAR_FROM, np.float32(0.0)), np.float32(1.0))
            wide += min(max(cosine - _WIDE_FROM, np.float32(0.0)), np.float32(1.0))
    return near, wide  # type: ignore[return-value]


@inlined
def _fill_nearest_interest(x: Array, interests: Array, strengths: Array, vector: Array) -> None:
    best = np.float32(-np.inf)
    for s in range(len(strengths)):
        if strengths[s] > 0.0:
            best = max(best, np.float32(dot(interests[s], vector)))
    x[FEATURE.slot] = best if best > -np.inf else 0.0


@inlined
def _fill_tastes(x: Array, column_mask: Array, tastes: Array, vector: Array) -> None:
    for h in range(len(tastes)):
        if column_mask[FEATURE.interest_1 + h]:
            x[FEATURE.interest_1 + h] = dot(tastes[h], vector)


@inlined
def _fill_neighbours(x: Array, column_mask: Array, walk_sums: Array) -> None:
    for i in range(len(walk_sums)):
        if column_mask[FEATURE.neighbours_60 + i]:
            x[FEATURE.neighbours_60 + i] = neighbour_value(walk_sums[i])


@inlined
def _fill_repeats(
    x: Array,
    now: float,
    row: int,
    ring: Array,
    u: int,
    ring_rows: Array,
    history: Array,
    n_past: int,
) -> None:
    repeats = 0
    recency = 0.0
    for j in range(n_past):
        if ring_rows[history[j]] == row:
            repeats += 1
            age = max(now - ring[u, history[j]]["time"], _LEAST_AGE_SECONDS)
            recency = max(recency, _MONTH_SECONDS / age)
    x[FEATURE.repeats] = 0.0 if repeats == 0 else math.log2(1.0 + repeats)
    x[FEATURE.repeat_recency] = 0.0 if repeats == 0 else math.log2(1.0 + recency)


@inlined
def _fill_scene(
    x: Array,
    scene: np.uint32,
    item_scenes: Array,
    scene_counts: Array,
    half_lives: Array,
    age: float,
) -> None:
    x[FEATURE.scene_short] = 0.0
    x[FEATURE.scene_long] = 0.0
    if scene == 0:
        return
    for s in range(len(item_scenes)):
        if item_scenes[s] == scene:
            for i in range(2):
                x[FEATURE.scene_short + i] = scene_value(scene_counts[s, i], half_lives[i], age)
