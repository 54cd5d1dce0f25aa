"""Evidence for and against an item, for a user in a scene at a time: features of prediction."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tracker.events.label_rule import LabelRule, is_liked
from tracker.items.counts import COUNT, PAIR, SUM, TALLY, pair_norm
from tracker.items.layout import NEIGHBOURS
from tracker.items.near_lists import NearList, NearLists
from tracker.items.view import ItemColumns, ItemView
from tracker.kernels.arithmetic import add_scaled, decay, dot, to_unit, whole
from tracker.kernels.native import inlined, native
from tracker.kernels.row_lists import find_place
from tracker.scoring.features import trend_value
from tracker.users.columns import RequestColumns, RowColumns, rows_of
from tracker.users.readings import Histories
from tracker.users.rows import RequestBatch

Array = NDArray[Any]


class _EvidenceColumns(NamedTuple):
    item_mean: int = 0
    item_mean_10d: int = 1
    item_count: int = 2
    item_liked: int = 3
    item_taken: int = 4
    item_trend: int = 5
    item_age: int = 6
    item_new: int = 7
    user_mean: int = 8
    user_residual: int = 9
    user_residual_8: int = 10
    user_last: int = 11
    user_liked: int = 12
    user_positive: int = 13
    user_events: int = 14
    gap: int = 15
    item_scene: int = 16
    user_scene: int = 17
    content_60: int = 18
    content_95: int = 19
    liked_60: int = 20
    liked_95: int = 21
    disliked_60: int = 22
    disliked_95: int = 23
    neighbours: int = 24
    neighbours_mass: int = 25
    own_count: int = 26
    own_mean: int = 27
    item_mean_by_item_count: int = 28
    user_residual_by_user_events: int = 29
    item_mean_by_user_residual: int = 30


_AT = _EvidenceColumns()
"""The column of each feature; that of a product of two is named after both."""

EVIDENCE = tuple(name.replace("_by_", "*") for name in _AT._fields)
"""The features, by name (B users, C candidates, P features).

A mean is smoothed: (sum + prior x middle) / (count + prior), where `prior` is `Priors.item` or
`Priors.user` and the middle is the catalogue's mean, so 0 stands for "nothing known" where the
middle is taken away. Weights are the signed weights of events; the residual of one is what is left
when the mean of its item, without this event, is taken away.

- `item_mean`: of the weights of all the item's events, less the catalogue's; `_10d` with the
  long half-life, towards `item_mean`. `item_count`: log2 of 1 + its events. `item_liked`:
  share of positive among its positive and negative events, `item_taken` among all its events, less
  the catalogue's. `item_trend`: the ranker's `trend_short`. `item_age`: log2 of 1 + hours since its
  first event; `item_new`: 1 where it has had none.
- Over the events in the user's ring, of known items and not retracted: `user_mean` of weights;
  `user_residual` of residuals, `user_residual_8` with .8 an event; `user_last`: the last weight;
  `user_liked`: share of those that are positive by the label rule. `user_positive`: share of
  positive events of all there ever were. `user_events`: log2 of 1 + these. All but the last less
  the catalogue's. `gap`: log2 of 1 + minutes since the latest event.
- `item_scene`: share of the item's events by the long half-life that are of this scene, towards 0;
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
_PLACES = 256
_RECENT_60 = 12  # events that count .6 each: .6 ** 12 is .002
_CONTENT, _LIKED, _DISLIKED = 0, 2, 4  # rows of the tastes, each by .6 and by .95 an event
_TASTES = 6


@dataclass(frozen=True, slots=True)
class Priors:
    """The means of the catalogue, and how many events they stand for.

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


class Smoothing(NamedTuple):
    """The fields of `Priors`, as kernels take them."""

    weight: float
    liked: float
    taken: float
    label: float
    item: float
    user: float


class LikedRule(NamedTuple):
    """The numbers of a `LabelRule`: kinds of ratings (G,) uint16, and the least positive one."""

    rating_codes: Array
    threshold: np.float32


class _Past(NamedTuple):
    """The events of one user's ring that count, latest first; scratch for one user after another.

    The first n of `entries` (R,) are their positions in the ring, and of `residuals` (R,) theirs,
    less the user's. `keys` (_PLACES,) is an open-addressing set of their rows, -1 for none, and
    `firsts` (_PLACES,) the position in `entries` of each. `tastes` (6, F) are sums of vectors,
    weighted by the distance of each weight from the user's mean.
    """

    entries: Array
    residuals: Array
    keys: Array
    firsts: Array
    tastes: Array


class _Means(NamedTuple):
    """The numbers of one user that features of items need: means, and sums of fading weights."""

    weight: float
    residual: float
    fade_60: float
    fade_95: float


@inlined
def _residual(
    weight: float, row: int, weight_sums: Array, tallies: Array, mean: float, prior: float
) -> float:
    """Return a weight less the smoothed mean of its item's other events."""
    others = _events_of(tallies, row) - 1.0
    if others < 1.0:
        return weight - mean
    total = weight_sums[row, SUM.never] - weight + prior * mean
    return weight - total / (others + prior)  # type: ignore[no-any-return]


@inlined
def _events_of(tallies: Array, row: int) -> float:
    total = tallies[row, TALLY.positives] + tallies[row, TALLY.negatives]
    total += tallies[row, TALLY.neutrals]
    return total  # type: ignore[no-any-return]


@native
def fill_evidence(
    requests: RequestColumns,
    priors: Smoothing,
    rule: LikedRule,
    users: RowColumns,
    histories: Histories,
    full: Array,
    items: ItemColumns,
    near: NearLists,
    rows: Array,
    out: Array,
) -> None:
    """Compute EVIDENCE of rows for users.

    1. Per user: the means over the ring, which are features themselves, and the sums of vectors.
    2. Per item: one group of features after another.

    Args:
        requests: the B users.
        priors: the numbers that smooth.
        rule: by which the user's events are positive.
        users: the arena.
        histories: of the users.
        full: (N, F) unit vectors of the items.
        items: their live statistics.
        near: their neighbours.
        rows: (B, C) int64 or int32, -1 for none, whose features stay as they are.
        out: (B, C, P) float32 zeros, filled.
    """
    # Small kernels get arrays by themselves: handing a tuple on counts references to all of them.
    counts, log2_counts, weight_sums, tallies = items[:4]
    ref_times, first_times, _, item_scenes, scene_counts, half_lives = items[4:]
    width = users.ring.shape[1]
    ring, ring_rows = users.ring, histories.ring_rows
    past = _Past(
        np.empty(width, np.int64),
        np.empty(width, np.float64),
        np.full(_PLACES, -1, np.int64),
        np.empty(_PLACES, np.int64),
        np.empty((_TASTES, full.shape[1]), np.float32),
    )
    entries, residuals, keys, firsts, tastes = past
    of_user = np.empty(out.shape[2], np.float32)
    for b in range(len(rows)):
        u = requests.slots[b]
        now = requests.now[b]
        scene = requests.scenes[b]
        # 1. The user's means and sums.
        of_user[:] = 0.0
        n = 0
        if u >= 0:
            for r in range(int(users.head[u]["n_ring"]) - 1, -1, -1):
                if ring_rows[b, r] >= 0:
                    past.entries[n] = r
                    n += 1
            _fill_user_totals(of_user, users.head[u], now, priors)
        weight, residual = _fill_user_means(
            of_user, u, n, scene, ring, ring_rows[b], items, priors, rule, past
        )
        means = _sum_tastes(u, n, weight, residual, ring, ring_rows[b], full, priors, past)
        # 2. One group of features after another.
        for c in range(rows.shape[1]):
            row = rows[b, c]
            if row < 0:
                continue
            x = out[b, c]
            for i in range(_AT.user_mean, _AT.user_scene + 1):
                x[i] = of_user[i]
            item_mean = _fill_item(
                x, row, now, tallies, weight_sums, counts, ref_times, half_lives, priors
            )
            _fill_item_times(x, row, now, log2_counts, ref_times, first_times, half_lives)
            if scene != 0:
                _fill_scene(x, row, scene, item_scenes, scene_counts, counts, priors)
            if n > 0:
                _fill_content(x, row, tastes, full, means, priors)
                norm = pair_norm(counts[row, COUNT.never])
                together, residual_sum = _sum_pairs(
                    0.0, 0.0, row, norm, near.before, counts, keys, firsts, residuals
                )
                together, residual_sum = _sum_pairs(
                    together, residual_sum, row, norm, near.after, counts, keys, firsts, residuals
                )
                x[_AT.neighbours] = residual_sum / (together + _NEIGHBOURS_PRIOR)
                x[_AT.neighbours_mass] = math.log2(1.0 + 16.0 * together)
                _fill_own(x, n, b, u, row, ring, ring_rows, entries, keys, priors)
            x[_AT.item_mean_by_item_count] = item_mean * x[_AT.item_count]
            x[_AT.user_residual_by_user_events] = means.residual * x[_AT.user_events]
            x[_AT.item_mean_by_user_residual] = item_mean * means.residual


@native
def _fill_user_totals(x: Array, head: Any, now: float, priors: Smoothing) -> None:
    """Write the features of all the events that a user ever had."""
    events = float(head["events"])
    if events > 0.0:
        positive = head["positives"] - events * priors.taken
        x[_AT.user_positive] = positive / (events + priors.user)
        x[_AT.gap] = math.log2(1.0 + max(now - head["last_time"], 0.0) / 60.0)
    x[_AT.user_events] = math.log2(1.0 + events)


@native
def _fill_user_means(
    x: Array,
    u: int,
    n: int,
    scene: np.uint32,
    ring: Array,
    ring_rows: Array,
    items: ItemColumns,
    priors: Smoothing,
    rule: LikedRule,
    past: _Past,
) -> tuple[float, float]:
    """Write the means over a user's events and the residual of each; return the two means."""
    weight_sums, tallies = items.weight_sums, items.tallies
    total = 0.0
    residual_sum = 0.0
    faded_sum = 0.0
    fades = 0.0
    liked = 0.0
    scene_sum = 0.0
    scene_n = 0.0
    fade = 1.0
    for j in range(n):
        entry = ring[u, past.entries[j]]
        row = ring_rows[past.entries[j]]
        weight = float(entry["weight"])
        residual = _residual(weight, row, weight_sums, tallies, priors.weight, priors.item)
        past.residuals[j] = residual
        total += weight - priors.weight
        residual_sum += residual
        faded_sum += fade * residual
        fades += fade
        fade *= 0.8
        liked += is_liked(entry["kind"], entry["value"], weight, rule.rating_codes, rule.threshold)
        if scene != 0 and entry["scene"] == scene:
            scene_sum += residual
            scene_n += 1.0
    mean = total / (n + priors.user)
    mean_residual = residual_sum / (n + priors.user)
    x[_AT.user_mean] = mean
    x[_AT.user_residual] = mean_residual
    x[_AT.user_residual_8] = faded_sum / (fades + priors.user)
    if n > 0:
        x[_AT.user_last] = float(ring[u, past.entries[0]]["weight"]) - priors.weight
    x[_AT.user_liked] = (liked - n * priors.label) / (n + priors.user)
    x[_AT.user_scene] = scene_sum / (scene_n + priors.user)
    return mean, mean_residual


@native
def _sum_tastes(
    u: int,
    n: int,
    weight: float,
    residual: float,
    ring: Array,
    ring_rows: Array,
    full: Array,
    priors: Smoothing,
    past: _Past,
) -> _Means:
    """Sum the vectors of a user's items, and note where each row stands among the events."""
    tastes = past.tastes
    past.keys[:] = -1
    tastes[:] = 0.0
    fade_60 = 1.0
    fade_95 = 1.0
    sum_60 = 0.0
    sum_95 = 0.0
    for j in range(n):
        row = ring_rows[past.entries[j]]
        distance = float(ring[u, past.entries[j]]["weight"]) - priors.weight - weight
        sum_60 += fade_60
        sum_95 += fade_95
        if distance != 0.0:
            side = _LIKED if distance > 0.0 else _DISLIKED
            if j < _RECENT_60:
                add_scaled(tastes[_CONTENT], full[row], distance * fade_60)
                add_scaled(tastes[side], full[row], abs(distance) * fade_60)
            add_scaled(tastes[_CONTENT + 1], full[row], distance * fade_95)
            add_scaled(tastes[side + 1], full[row], abs(distance) * fade_95)
        fade_60 *= 0.6
        fade_95 *= 0.95
        past.residuals[j] -= residual
        place = find_place(past.keys, row)
        if past.keys[place] == -1:
            past.keys[place] = row
            past.firsts[place] = j
    for t in range(_LIKED, _TASTES):
        to_unit(tastes[t])
    return _Means(weight, residual, sum_60, sum_95)


@inlined
def _fill_item(
    x: Array,
    row: int,
    now: float,
    tallies: Array,
    weight_sums: Array,
    counts: Array,
    ref_times: Array,
    half_lives: Array,
    priors: Smoothing,
) -> float:
    """Write the item's means and shares; return the first of them."""
    positives = tallies[row, TALLY.positives]
    events = _events_of(tallies, row)
    signed = positives + tallies[row, TALLY.negatives]
    mean = (weight_sums[row, SUM.never] - events * priors.weight) / (events + priors.item)
    x[_AT.item_mean] = mean
    fade = decay(now - ref_times[row], half_lives[COUNT.long])
    recent = 0.0
    if positives > 0.0:  # decayed counts are of positive events: scaled to all
        recent = counts[row, COUNT.long] * fade * events / positives
    x[_AT.item_mean_10d] = mean
    if recent > 0.0:
        recent_sum = weight_sums[row, SUM.long] * fade - recent * priors.weight
        x[_AT.item_mean_10d] = (recent_sum + priors.item * mean) / (recent + priors.item)
    x[_AT.item_count] = math.log2(1.0 + events)
    x[_AT.item_liked] = (positives - signed * priors.liked) / (signed + priors.item)
    x[_AT.item_taken] = (positives - events * priors.taken) / (events + priors.item)
    return mean  # type: ignore[no-any-return]


@inlined
def _fill_item_times(
    x: Array,
    row: int,
    now: float,
    log2_counts: Array,
    ref_times: Array,
    first_times: Array,
    half_lives: Array,
) -> None:
    x[_AT.item_trend] = 0.0
    if log2_counts[row, COUNT.short] > -1e30:
        x[_AT.item_trend] = trend_value(
            log2_counts[row, COUNT.short], now - ref_times[row], half_lives[COUNT.short]
        )
    none = not first_times[row] >= -1e300
    hours = 0.0 if none else max(now - first_times[row], 0.0) / 3600.0
    x[_AT.item_age] = math.log2(1.0 + hours)
    x[_AT.item_new] = 1.0 if none else 0.0


@inlined
def _fill_scene(
    x: Array,
    row: int,
    scene: np.uint32,
    scenes: Array,
    scene_counts: Array,
    counts: Array,
    priors: Smoothing,
) -> None:
    for s in range(scenes.shape[1]):
        if scenes[row, s] == scene:
            count = counts[row, COUNT.long]
            x[_AT.item_scene] = scene_counts[row, s, SUM.long] / (count + priors.item)


@inlined
def _fill_content(
    x: Array, row: int, tastes: Array, full: Array, means: _Means, priors: Smoothing
) -> None:
    """Write the cosines with the user's sums; the first two are means, by what they were given."""
    x[_AT.content_60] = float(dot(tastes[_CONTENT], full[row])) / (means.fade_60 + 1.0)
    x[_AT.content_95] = float(dot(tastes[_CONTENT + 1], full[row])) / (means.fade_95 + priors.user)
    for t in range(_LIKED, _TASTES):
        x[_AT.content_60 + t] = dot(tastes[t], full[row])


@inlined
def _sum_pairs(
    together: float,
    residual_sum: float,
    row: int,
    norm: float,
    near: NearList,
    counts: Array,
    keys: Array,
    firsts: Array,
    residuals: Array,
) -> tuple[float, float]:
    """Add the normalised pairs of an item with those of the user, and their residuals."""
    for e in range(min(whole(near.n[row]), NEIGHBOURS)):
        other = near.rows[row, e]
        place = find_place(keys, other)
        if keys[place] != -1:
            both = norm * pair_norm(counts[other, COUNT.never])
            part = near.counts[row, e, PAIR.together] / both
            together += part
            residual_sum += part * residuals[firsts[place]]
    return together, residual_sum


@inlined
def _fill_own(
    x: Array,
    n: int,
    b: int,
    u: int,
    row: int,
    ring: Array,
    ring_rows: Array,
    entries: Array,
    keys: Array,
    priors: Smoothing,
) -> None:
    repeats = 0.0
    repeat_sum = 0.0
    if keys[find_place(keys, row)] != -1:
        for j in range(n):
            if ring_rows[b, entries[j]] == row:
                repeats += 1.0
                repeat_sum += float(ring[u, entries[j]]["weight"]) - priors.weight
    x[_AT.own_count] = math.log2(1.0 + repeats)
    x[_AT.own_mean] = repeat_sum / (repeats + 1.0)


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
        rule: by which the user's events are positive.
        priors: the means that smooth.
    """
    out = np.zeros((*rows.shape, len(EVIDENCE)), np.float32)
    smoothing = Smoothing(
        priors.weight, priors.liked, priors.taken, priors.label, priors.item, priors.user
    )
    liked = LikedRule(rule.rating_codes, np.float32(rule.threshold))
    fill_evidence(
        requests.columns, smoothing, liked, rows_of(requests.states), histories, full,
        view.columns, view.neighbours, rows, out,
    )  # fmt: skip
    return out
