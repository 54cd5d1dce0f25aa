"""Streaming features of (user, candidate, now): causal, incremental, computed where they serve."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.items.counts import ITEM_HALF_LIVES
from tracker.kernels.arithmetic import add_scaled, dot, three_dots, to_unit
from tracker.kernels.native import native, prefetch

Array = NDArray[Any]

FEATURES = (
    "trend_3h", "trend_12h", "trend_1d", "trend_3d", "trend_10d", "trend_40d", "trend_all",
    "age", "no_event",
    "content_60", "content_95", "content_last",
    "slot", "interest_1", "interest_2", "interest_3", "interest_4", "negative",
    "neighbours_60", "neighbours_95", "neighbours_10d", "next", "neighbours_live",
    "repeats", "repeat_recency",
    "scene_1d", "scene_10d",
    "idle",
)  # fmt: skip
"""The columns, by name (`B` users, `C` candidates, `F` columns).

- `trend_*`: log2 of 20 times the item's decayed count of positive events, 0 below (so: zero for
  less than a twentieth of an event, 4.3 for one). `scene_*`: the same in the user's scene.
- `age`: log2 of 1 + hours since the item's first event, 0 where `no_event` is 1.
- `content_*`: cosine, at full width, of the item with the user's positive events, weighted by
  sqrt(weight) and .6 or .95 an event; with the last one alone.
- `slot`: largest cosine with a slot of the user. `interest_1..4`: cosine with the decayed sums,
  shortest half-life first, times their confidence M / (M + .5). `negative`: cosine with the
  negative sum, times its confidence.
- `neighbours_*`: log2(1 + 256 x), x the sum over the latest events, .6 or .95 an event, of the
  times both were chosen by one user, over sqrt((n_i + 5)(n_j + 5)); `10d` from decayed counts.
  `next`: the same of transitions from the last item. `neighbours_live`: as `10d`, over
  sqrt((n_i + 1)(n_j + 1)) of the counts decayed with 10 d.
- `repeats`: log2 of 1 + the item's own positive events in the ring. `repeat_recency`:
  log2(1 + 30 days / age of the last of them), 0 without one.
- `idle`: log2 of 1 + minutes since the item's latest event, 0 where `no_event` is 1.
"""

F_TREND, F_AGE, F_NO_EVENT, F_CONTENT, F_SLOT, F_INTEREST, F_NEGATIVE = 0, 7, 8, 9, 12, 13, 17
F_NEIGHBOURS, F_NEXT, F_REPEATS, F_RECENCY, F_SCENE, F_IDLE = 18, 21, 23, 24, 25, 27

_LOG2_20 = math.log2(20.0)
_MASS_HALF = 0.5
_AHEAD = 2  # candidates whose rows are asked for before their turn
_HALF_LIVES = tuple(float(h) for h in ITEM_HALF_LIVES)


TREND_KNEE = math.log2(10.0)
"""The trend feature of half an event; without a trained ranker, what is below counts nothing."""


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


@native
def fill_features(
    now: Array, slots: Array, scenes: Array, wanted: Array, content_events: int,
    ring: Array, ring_rows: Array, history: Array, n_history: Array,
    head: Array, masses: Array, sums: Array, half_lives: Array,
    negative: Array, negative_half_life: float, slot_units: Array, strengths: Array,
    vectors: Array, full: Array,
    log2_counts: Array, ref_times: Array, first_times: Array, last_times: Array,
    item_scenes: Array, scene_counts: Array,
    rows: Array, n_rows: Array, walked: Array, out: Array,
) -> None:  # fmt: skip
    """Compute FEATURES of candidates; columns that are not wanted stay as they are.

    Args:
        now: (B,) seconds.
        slots: (B,) arena slots, -1 for none.
        scenes: (B,) uint32, 0 for none.
        wanted: (F,) bool; a group (content; neighbours; each other name) is computed as a whole.
        content_events: `content_*` are taken from the latest so many positive events.
        ring: (C, R) RING of the arena.
        ring_rows: (B, R) of `read_histories`.
        history: (B, R) of `read_histories`.
        n_history: (B,) of `read_histories`.
        head: (C,) HEAD of the arena.
        masses: (C, H) of the arena.
        sums: (C, H, D) of the arena.
        half_lives: (H,) seconds.
        negative: (C, D) of the arena.
        negative_half_life: seconds.
        slot_units: (B, S, D) float32 unit means.
        strengths: (B, S) decayed masses; 0 for a slot that is not in use.
        vectors: (N, D) unit.
        full: (N, F) unit.
        log2_counts: (N, 7) of the item view, as for the following.
        ref_times: (N,).
        first_times: (N,), NaN for none.
        last_times: (N,), NaN for none.
        item_scenes: (N, 4) uint32.
        scene_counts: (N, 4, 2).
        rows: (B, C) int32.
        n_rows: (B,) candidates of each user.
        walked: (B, C, WALKED) of `find_candidates`.
        out: (B, C, F) float32, filled up to n_rows.
    """
    dim = vectors.shape[1]
    n_sums = min(len(half_lives), 4)
    recent = np.empty((3, full.shape[1]), np.float32)
    three = np.empty(3, np.float32)
    tastes = np.zeros((5, dim), np.float32)  # four interests and the negative sum
    content = wanted[F_CONTENT] or wanted[F_CONTENT + 1] or wanted[F_CONTENT + 2]
    for b in range(len(slots)):
        u = slots[b]
        n_past = n_history[b]
        if content and n_past > 0:
            recent[:] = 0.0
            weight_60 = 1.0
            weight_95 = 1.0
            n_recent = min(n_past, content_events)
            for j in range(n_recent):
                if j + 1 < n_recent:
                    prefetch(full, ring_rows[b, history[b, j + 1]])
                row = ring_rows[b, history[b, j]]
                scale = math.sqrt(ring[u, history[b, j]]["weight"])
                if j < 12:  # .6 ** 12 is .002
                    add_scaled(recent[0], full[row], scale * weight_60)
                add_scaled(recent[1], full[row], scale * weight_95)
                weight_60 *= 0.6
                weight_95 *= 0.95
            recent[2] = full[ring_rows[b, history[b, 0]]]
            to_unit(recent[0])
            to_unit(recent[1])
        tastes[:] = 0.0
        if u >= 0:
            age = max(now[b] - head[u]["ref_time"], 0.0)
            for h in range(n_sums):
                if wanted[F_INTEREST + h]:
                    mass = masses[u, h] * math.pow(2.0, -age / half_lives[h])
                    confident_unit(sums[u, h], mass, tastes[h])
            if wanted[F_NEGATIVE]:
                mass = head[u]["negative_mass"] * math.pow(2.0, -age / negative_half_life)
                confident_unit(negative[u], mass, tastes[4])
        for c in range(n_rows[b]):
            if c + _AHEAD < n_rows[b]:
                ahead = rows[b, c + _AHEAD]
                prefetch(log2_counts, ahead)
                prefetch(ref_times, ahead)
                prefetch(first_times, ahead)
                prefetch(last_times, ahead)
                prefetch(item_scenes, ahead)
                prefetch(vectors, ahead)
                if content:
                    prefetch(full, ahead)
            row = rows[b, c]
            vector = vectors[row]
            age = now[b] - ref_times[row]
            for h in range(7):
                if wanted[h]:
                    value = 0.0
                    if log2_counts[row, h] > -1e30:
                        value = trend_value(log2_counts[row, h], age, _HALF_LIVES[h])
                    out[b, c, h] = value
            if wanted[F_AGE] or wanted[F_NO_EVENT]:
                none = not first_times[row] >= -1e300
                hours = 0.0 if none else max(now[b] - first_times[row], 0.0) / 3600.0
                out[b, c, F_AGE] = math.log2(1.0 + hours)
                out[b, c, F_NO_EVENT] = 1.0 if none else 0.0
            if wanted[F_IDLE]:
                value = 0.0
                if last_times[row] >= -1e300:  # not for NaN
                    value = math.log2(1.0 + max(now[b] - last_times[row], 0.0) / 60.0)
                out[b, c, F_IDLE] = value
            if content:
                if n_past > 0:
                    three_dots(recent, full[row], three)
                    for i in range(3):
                        out[b, c, F_CONTENT + i] = three[i]
                else:
                    for i in range(3):
                        out[b, c, F_CONTENT + i] = 0.0
            if wanted[F_SLOT]:
                best = np.float32(-np.inf)
                for s in range(strengths.shape[1]):
                    if strengths[b, s] > 0.0:
                        best = max(best, np.float32(dot(slot_units[b, s], vector)))
                out[b, c, F_SLOT] = best if best > -np.inf else 0.0
            for h in range(5):  # and the negative sum
                if wanted[F_INTEREST + h]:
                    out[b, c, F_INTEREST + h] = dot(tastes[h], vector)
            for i in range(walked.shape[2]):
                if wanted[F_NEIGHBOURS + i]:
                    out[b, c, F_NEIGHBOURS + i] = neighbour_value(walked[b, c, i])
            if wanted[F_REPEATS] or wanted[F_RECENCY]:
                repeats = 0
                recency = 0.0
                for j in range(n_past):
                    if ring_rows[b, history[b, j]] == row:
                        repeats += 1
                        gone = max(now[b] - ring[u, history[b, j]]["time"], 60.0)
                        recency = max(recency, 2592000.0 / gone)
                out[b, c, F_REPEATS] = 0.0 if repeats == 0 else math.log2(1.0 + repeats)
                out[b, c, F_RECENCY] = 0.0 if repeats == 0 else math.log2(1.0 + recency)
            if wanted[F_SCENE] or wanted[F_SCENE + 1]:
                out[b, c, F_SCENE] = 0.0
                out[b, c, F_SCENE + 1] = 0.0
                if scenes[b] != 0:
                    for s in range(item_scenes.shape[1]):
                        if item_scenes[row, s] == scenes[b]:
                            for i in range(2):
                                count = scene_counts[row, s, i]
                                if count > 0.0:
                                    out[b, c, F_SCENE + i] = trend_value(
                                        math.log2(count), age, 86400.0 if i == 0 else 864000.0
                                    )
