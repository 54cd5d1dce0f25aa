"""What speaks for and against an item, for a user in a scene at a time: features of prediction."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.events.label_rule import LabelRule, is_liked
from tracker.items.view import ItemView
from tracker.kernels.arithmetic import add_scaled, dot, to_unit
from tracker.kernels.native import native
from tracker.scoring.features import trend_value
from tracker.users.readings import Histories
from tracker.users.rows import RequestBatch

Array = NDArray[Any]

EVIDENCE = (
    "item_mean", "item_mean_10d", "item_count", "item_liked", "item_taken", "item_trend",
    "item_age", "item_new",
    "user_mean", "user_residual", "user_residual_8", "user_last", "user_liked", "user_positive",
    "user_events", "gap",
    "item_scene", "user_scene",
    "content_60", "content_95", "liked_60", "liked_95", "disliked_60", "disliked_95",
    "neighbours", "neighbours_mass", "own_count", "own_mean",
    "item_mean*item_count", "user_residual*user_events", "item_mean*user_residual",
)  # fmt: skip
"""The features, by name (B users, C candidates, P features).

A mean is smoothed: (sum + prior x middle) / (count + prior), where `prior` is `Priors.item` or
`Priors.user` and the middle is the catalogue's mean, so 0 stands for "nothing known" where the
middle is taken away. Weights are the signed weights of events; the residual of one is what is left
when the mean of its item, without this event, is taken away.

- `item_mean`: of the weights of all the item's events, less the catalogue's; `_10d` with a
  half-life of 10 days, towards `item_mean`. `item_count`: log2 of 1 + its events. `item_liked`:
  share of positive among its positive and negative events, `item_taken` among all its events, less
  the catalogue's. `item_trend`: the ranker's `trend_1d`. `item_age`: log2 of 1 + hours since its
  first event; `item_new`: 1 where it has had none.
- Over the events in the user's ring, of known items and not retracted: `user_mean` of weights;
  `user_residual` of residuals, `user_residual_8` with .8 an event; `user_last`: the last weight;
  `user_liked`: share of those that are positive by the label rule. `user_positive`: share of
  positive events of all there ever were. `user_events`: log2 of 1 + these. All but the last less
  the catalogue's. `gap`: log2 of 1 + minutes since the latest event.
- `item_scene`: share of the item's events of 10 days that are of this scene, towards 0;
  `user_scene`: mean residual of the user's events in this scene.
- `content_60`, `content_95`: mean over the ring, .6 and .95 an event, of cosine (full width) x the
  weight's distance from the user's mean. `liked_*`, `disliked_*`: cosine with the sums of events
  above and below that mean, weighted by the distance.
- `neighbours`: mean of the residuals, less the user's, of the items chosen together with this one,
  weighted by the normalised co-occurrence; `neighbours_mass` is log2 of 1 + 16 x the sum of that.
- `own_count`: log2 of 1 + the user's events on the item in the ring; `own_mean`: their mean
  weight, less the catalogue's.
- `a*b`: the product of two.
"""

_NEIGHBOURS_PRIOR = 0.05
_DAY, _TEN_DAYS = 86400.0, 864000.0
_PLACES = 256


@dataclass(frozen=True, slots=True)
class Priors:
    """What smooths: the catalogue's means, and how many events they stand for.

    `weight` is the mean weight of events; `liked` the share of positive among positive and negative
    events, `taken` among all, `label` the share of those positive by the label rule; `item` and
    `user` how many events of a mean over an item and a user they count.
    """

    weight: float
    liked: float
    taken: float
    label: float
    item: float
    user: float


@native
def _residual(
    weight: float, row: int, weight_sums: Array, tallies: Array, mean: float, prior: float
) -> float:
    """Return a weight less the smoothed mean of its item's other events."""
    others = tallies[row, 0] + tallies[row, 1] + tallies[row, 2] - 1.0
    if others < 1.0:
        return weight - mean
    return weight - (weight_sums[row, 2] - weight + prior * mean) / (others + prior)  # type: ignore[no-any-return]


@native
def _place_of(keys: Array, row: int) -> int:
    place = ((np.int64(row) * 2654435761) >> 15) & (_PLACES - 1)
    while keys[place] != row and keys[place] != -1:
        place = (place + 1) & (_PLACES - 1)
    return int(place)


@native
def fill_evidence(
    now: Array, slots: Array, scenes: Array, priors: Array, rating_codes: Array, threshold: Any,
    head: Array, ring: Array, ring_rows: Array, full: Array,
    weight_sums: Array, tallies: Array, counts: Array, log2_counts: Array, ref_times: Array,
    first_times: Array, item_scenes: Array, scene_counts: Array,
    near_rows: Array, near_counts: Array, near_n: Array,
    back_rows: Array, back_counts: Array, back_n: Array,
    rows: Array, out: Array,
) -> None:  # fmt: skip
    """Compute EVIDENCE of rows for users.

    Args:
        now: (B,) seconds.
        slots: (B,) arena slots, -1 for a user of whom nothing is kept.
        scenes: (B,) uint32, 0 for none.
        priors: (6,) float64, the fields of `Priors` in their order.
        rating_codes: (G,) uint16 of `LabelRule`.
        threshold: float32 of `LabelRule`.
        head: (U,) HEAD of the arena.
        ring: (U, R) RING of the arena.
        ring_rows: (B, R) of `read_histories`.
        full: (N, F) unit.
        weight_sums: (N, 3) of the item view, as for the following.
        tallies: (N, 3).
        counts: (N, 7).
        log2_counts: (N, 7).
        ref_times: (N,).
        first_times: (N,), NaN for none.
        item_scenes: (N, 4) uint32.
        scene_counts: (N, 4, 2).
        near_rows: (N, 64).
        near_counts: (N, 64, 3).
        near_n: (N,).
        back_rows: (N, 64).
        back_counts: (N, 64, 3).
        back_n: (N,).
        rows: (B, C) int64 or int32, -1 for none, whose features stay as they are.
        out: (B, C, P) float32, filled.
    """
    mean, liked_share, taken_share, label_share = priors[0], priors[1], priors[2], priors[3]
    item_prior, user_prior = priors[4], priors[5]
    width = ring.shape[1]
    own = np.empty(width, np.int64)
    residuals = np.empty(width, np.float64)
    tastes = np.empty((6, full.shape[1]), np.float32)
    cosines = np.empty(6, np.float64)
    keys = np.full(_PLACES, -1, np.int64)
    firsts = np.empty(_PLACES, np.int64)
    for b in range(len(slots)):
        u = slots[b]
        n = 0
        events = 0.0
        positive = 0.0
        gap = 0.0
        if u >= 0:
            for r in range(int(head[u]["n_ring"]) - 1, -1, -1):
                if ring_rows[b, r] >= 0:
                    own[n] = r
                    n += 1
            events = float(head[u]["events"])
            if events > 0.0:
                positive = (head[u]["positives"] - events * taken_share) / (events + user_prior)
                gap = math.log2(1.0 + max(now[b] - head[u]["last_time"], 0.0) / 60.0)
        total = 0.0
        residual_sum = 0.0
        faded_sum = 0.0
        faded = 0.0
        liked = 0.0
        scene_sum = 0.0
        scene_n = 0.0
        fade = 1.0
        for j in range(n):
            entry = ring[u, own[j]]
            row = ring_rows[b, own[j]]
            weight = float(entry["weight"])
            residuals[j] = _residual(weight, row, weight_sums, tallies, mean, item_prior)
            total += weight - mean
            residual_sum += residuals[j]
            faded_sum += fade * residuals[j]
            faded += fade
            fade *= 0.8
            liked += is_liked(entry["kind"], entry["value"], weight, rating_codes, threshold)
            if scenes[b] != 0 and entry["scene"] == scenes[b]:
                scene_sum += residuals[j]
                scene_n += 1.0
        user_mean = total / (n + user_prior)
        user_residual = residual_sum / (n + user_prior)
        keys[:] = -1
        tastes[:] = 0.0
        fade_6 = 1.0
        fade_95 = 1.0
        sum_6 = 0.0
        sum_95 = 0.0
        for j in range(n):
            row = ring_rows[b, own[j]]
            distance = float(ring[u, own[j]]["weight"]) - mean - user_mean
            sum_6 += fade_6
            sum_95 += fade_95
            if distance != 0.0:
                side = 2 if distance > 0.0 else 4
                if j < 12:  # .6 ** 12 is .002
                    add_scaled(tastes[0], full[row], distance * fade_6)
                    add_scaled(tastes[side], full[row], abs(distance) * fade_6)
                add_scaled(tastes[1], full[row], distance * fade_95)
                add_scaled(tastes[side + 1], full[row], abs(distance) * fade_95)
            fade_6 *= 0.6
            fade_95 *= 0.95
            residuals[j] -= user_residual
            place = _place_of(keys, row)
            if keys[place] == -1:
                keys[place] = row
                firsts[place] = j
        for t in range(2, 6):
            to_unit(tastes[t])
        for c in range(rows.shape[1]):
            row = rows[b, c]
            if row < 0:
                continue
            x = out[b, c]
            events_of_item = tallies[row, 0] + tallies[row, 1] + tallies[row, 2]
            signed = tallies[row, 0] + tallies[row, 1]
            item_mean = (weight_sums[row, 2] - events_of_item * mean) / (
                events_of_item + item_prior
            )
            x[0] = item_mean
            age = now[b] - ref_times[row]
            left = math.pow(2.0, -max(age, 0.0) / _TEN_DAYS)
            recent = 0.0
            if tallies[row, 0] > 0.0:  # decayed counts are of positive events: scaled to all
                recent = counts[row, 4] * left * events_of_item / tallies[row, 0]
            x[1] = item_mean
            if recent > 0.0:
                recent_sum = weight_sums[row, 1] * left - recent * mean
                x[1] = (recent_sum + item_prior * item_mean) / (recent + item_prior)
            x[2] = math.log2(1.0 + events_of_item)
            x[3] = (tallies[row, 0] - signed * liked_share) / (signed + item_prior)
            x[4] = (tallies[row, 0] - events_of_item * taken_share) / (events_of_item + item_prior)
            x[5] = 0.0
            if log2_counts[row, 2] > -1e30:
                x[5] = trend_value(log2_counts[row, 2], age, _DAY)
            none = not first_times[row] >= -1e300
            hours = 0.0 if none else max(now[b] - first_times[row], 0.0) / 3600.0
            x[6] = math.log2(1.0 + hours)
            x[7] = 1.0 if none else 0.0
            x[8] = user_mean
            x[9] = user_residual
            x[10] = faded_sum / (faded + user_prior)
            x[11] = float(ring[u, own[0]]["weight"]) - mean if n > 0 else 0.0
            x[12] = (liked - n * label_share) / (n + user_prior)
            x[13] = positive
            x[14] = math.log2(1.0 + events)
            x[15] = gap
            x[16] = 0.0
            if scenes[b] != 0:
                for s in range(item_scenes.shape[1]):
                    if item_scenes[row, s] == scenes[b]:
                        x[16] = scene_counts[row, s, 1] / (counts[row, 4] + item_prior)
            x[17] = scene_sum / (scene_n + user_prior)
            for t in range(6):
                cosines[t] = dot(tastes[t], full[row]) if n > 0 else 0.0
            x[18] = cosines[0] / (sum_6 + 1.0)
            x[19] = cosines[1] / (sum_95 + user_prior)
            for t in range(2, 6):
                x[18 + t] = cosines[t]
            together = 0.0
            together_sum = 0.0
            repeats = 0.0
            repeat_sum = 0.0
            if n > 0:
                own_norm = math.sqrt(counts[row, 6] + 5.0)
                for way in range(2):
                    others = near_rows[row] if way == 0 else back_rows[row]
                    pairs = near_counts[row] if way == 0 else back_counts[row]
                    for e in range(int(near_n[row]) if way == 0 else int(back_n[row])):
                        place = _place_of(keys, others[e])
                        if keys[place] != -1:
                            norm = own_norm * math.sqrt(counts[others[e], 6] + 5.0)
                            together += pairs[e, 0] / norm
                            together_sum += pairs[e, 0] / norm * residuals[firsts[place]]
                if keys[_place_of(keys, row)] != -1:
                    for j in range(n):
                        if ring_rows[b, own[j]] == row:
                            repeats += 1.0
                            repeat_sum += float(ring[u, own[j]]["weight"]) - mean
            x[24] = together_sum / (together + _NEIGHBOURS_PRIOR)
            x[25] = math.log2(1.0 + 16.0 * together)
            x[26] = math.log2(1.0 + repeats)
            x[27] = repeat_sum / (repeats + 1.0)
            x[28] = item_mean * x[2]
            x[29] = user_residual * x[14]
            x[30] = item_mean * user_residual


def read_evidence(
    histories: Histories,
    requests: RequestBatch,
    rows: NDArray[np.int64],
    view: ItemView,
    full: NDArray[np.float32],
    rule: LabelRule,
    priors: Priors,
) -> NDArray[np.float32]:
    """Return EVIDENCE of rows (B, C) for B users: (B, C, P) float32.

    Args:
        histories: `read_histories` of the users.
        requests: the users.
        rows: -1 for none; zero is returned for them.
        view: the live statistics of the items.
        full: (N, F) unit vectors of the items.
        rule: which of the user's events are positive.
        priors: what smooths.
    """
    out = np.zeros((*rows.shape, len(EVIDENCE)), np.float32)
    numbers = np.array(
        [priors.weight, priors.liked, priors.taken, priors.label, priors.item, priors.user]
    )
    fill_evidence(
        requests.now, requests.slots, requests.scenes, numbers, rule.rating_codes,
        np.float32(rule.threshold),
        requests.states.head, requests.states.ring, histories.ring_rows, full,
        view.weight_sums, view.tallies, view.counts, view.log2_counts, view.ref_times,
        view.first_times, view.scenes, view.scene_counts,
        view.near_rows, view.near_counts, view.near_n,
        view.back_rows, view.back_counts, view.back_n,
        rows, out,
    )  # fmt: skip
    return out
