"""Half-lives of the items' counts, chosen by how well the counts predict the next item."""

import math
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import EventLog
from indexer.data.holdout import evenly_spread
from indexer.evaluate.live_baselines import NEIGHBOUR_EVENTS, LivePairs, pairs_of
from indexer.evaluate.metrics import gains_at_k, rank_and_list
from indexer.evaluate.targets import TargetBatch, Targets, target_batches
from indexer.train.half_lives import softmax_losses
from tracker.items.config import DAY, HOUR, MAX_MORE, MINUTE, YEAR, ItemCounts
from tracker.kernels.arithmetic import decay
from tracker.kernels.native import native

Array = NDArray[Any]

GRID = (
    5 * MINUTE, 10 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 12 * HOUR, DAY, 3 * DAY, 10 * DAY,
    40 * DAY, 120 * DAY, YEAR,
)  # fmt: skip
"""Candidates in seconds; the half-lives in force are candidates too."""

PAIR_GRID = (3 * HOUR, DAY, 3 * DAY, 10 * DAY, 40 * DAY)
"""Candidates for the long half-life, that of neighbours; the one in force is one too."""

MIN_TARGETS = 600
"""With fewer targets nothing is chosen."""

MAX_TARGETS, MAX_CELLS = 2400, 24_000_000
"""Targets at most, and targets times items, so that the choice takes seconds."""

PAIR_TARGETS = 1000
"""Targets at most for the choice of the long half-life."""

HARD, UNIFORM = 8, 64
"""Negative items of a target: the first of each half-life's trend, and a sample of the others."""

MOST_MORE = 4
"""Half-lives besides the short and the long one: the time of a recommendation grows with them."""

LEAST_GAIN = 0.002
"""Nats that one more half-life must gain."""

LEAST_CHANGE = 0.005
"""Nats that other half-lives must gain over those in force, for new counts are estimates first."""

TREND_WIDTH = 20
"""Length of the trend's list that finds items, for the choice of its half-lives."""

MOST_TRENDS = 3
"""Half-lives by which the trend finds items, at most."""

LEAST_RECALL = 1.02
"""Factor by which one more of them must raise the recall of that list."""

RIDGE = 1e-1
STEPS = 10
"""Steps of Newton's method, from zero, each halved until the loss falls."""

_LOG2_20 = math.log2(20.0)


class ItemHalfLives(msgspec.Struct, frozen=True):
    """The half-lives chosen for the items' counts, and the figures behind the choice.

    Attributes:
        counts: those chosen.
        loss: mean cross-entropy of the later targets by the best other half-lives, in nats.
        loss_in_force: the same by those in force.
        error: standard error of the difference, a user's targets counted as one.
        hit_rates: share of the targets in the first ten of the trend, by half-life in seconds.
    """

    counts: ItemCounts
    loss: float
    loss_in_force: float
    error: float
    hit_rates: dict[str, float]


def choose_item_counts(
    log: EventLog,
    rows: NDArray[np.int64],
    live: int,
    events: NDArray[np.int64],
    in_force: ItemCounts,
    repeats: bool,
    skip: NDArray[np.bool_] | None = None,
) -> ItemHalfLives | None:
    """Choose the half-lives of the items' counts, and keep those in force unless others are better.

    1. Count the events once by all half-lives of GRID, and write down the trends of each target, of
       the first items of each trend, and of a sample of the others.
    2. Choose the short half-life, whose trend has most targets in its first ten, and the long one,
       whose neighbours have.
    3. Add the half-life that lowers the loss of a softmax most, while it gains LEAST_GAIN; then
       leave out those whose absence costs less on the later targets.
    4. Keep those in force if the short and the long one stay, as they do without a clear gain, and
       the loss of the later targets does not fall clearly.
    5. Choose the half-lives by which the trend finds items: the best one, and others that find
       more.

    Args:
        log: the events.
        rows: (E,) catalogue rows, -1 unknown.
        live: number of rows that can be recommended, the first ones.
        events: (Q,) ascending positions of the targets that training may use.
        in_force: the half-lives of the current version, or the default.
        repeats: items chosen before may be chosen again.
        skip: (E,) bool, events that training may not use, as with `loo` at any time; they do not
            count. None for none.

    Returns:
        None if there are fewer than MIN_TARGETS.
    """
    if skip is not None:
        rows = np.where(skip, -1, rows)
    events = events[(rows[events] >= 0) & (rows[events] < live)]
    if len(events) < MIN_TARGETS or live < 2:
        return None
    events = evenly_spread(events, min(MAX_TARGETS, max(MIN_TARGETS, MAX_CELLS // live)))
    finite = {s for s in in_force.read_seconds if math.isfinite(s)}
    grid = (*sorted({*GRID, *finite}), math.inf)
    # 1. Count the events.
    columns, offsets, ranks = _columns(log, rows, live, events, np.array(grid))
    # 2. Choose the short and the long half-life.
    users = log.users[events]
    short = _best_short(grid, ranks, users, in_force.short_seconds)
    long = _best_long(
        log, rows, live, evenly_spread(events, PAIR_TARGETS), short, in_force, repeats
    )
    # 3. Add others.
    learned = len(events) * 2 // 3
    early, late = slice(0, learned), slice(learned, len(events))
    places = [grid.index(s) for s in (short, long, math.inf)]
    _, loss = _fit(columns[early], offsets[early], places)
    while len(places) < 3 + MOST_MORE:
        others = [place for place in range(len(grid)) if place not in places]
        losses = [_fit(columns[early], offsets[early], [*places, p])[1] for p in others]
        best = int(np.argmin(losses))
        if loss - losses[best] < LEAST_GAIN:
            break
        places.append(others[best])
        loss = losses[best]
    for place in places[3:]:
        rest = [other for other in places if other != place]
        with_it, without = _late_losses(columns, offsets, early, late, (places, rest))
        if without.mean() - with_it.mean() < LEAST_GAIN / 2.0:
            places = rest
    # 4. Keep those in force unless others are better.
    before = [grid.index(s) for s in in_force.read_seconds]
    own, now = _late_losses(columns, offsets, early, late, (places, before))
    error = _error(now - own, users[late])
    counts = in_force
    moved = (short, long) != (in_force.short_seconds, in_force.long_seconds)
    if moved or (now - own).mean() > max(LEAST_CHANGE, 2.0 * error):
        besides = {grid[place] for place in places[3:]}
        if own.mean() > now.mean():  # what those in force tell besides is not lost
            besides |= finite
        more = sorted(besides - {short, long})[:MAX_MORE]
        counts = ItemCounts(short, long, tuple(more))
    # 5. Choose the half-lives of the trend.
    counts = msgspec.structs.replace(
        counts, trend_seconds=_trends(grid, ranks, counts), also_seconds=()
    )
    return ItemHalfLives(
        counts,
        float(own.mean()),
        float(now.mean()),
        error,
        {f"{s:g}": float((ranks[:, h] <= 10.0).mean()) for h, s in enumerate(grid)},
    )


def _best_short(
    grid: tuple[float, ...],
    ranks: NDArray[np.float64],
    users: NDArray[np.int64],
    in_force: float,
) -> float:
    """Return the half-life, below the longest of PAIR_GRID, whose trend ranks the targets best."""
    gains = gains_at_k(ranks, 10)
    usable = [h for h, s in enumerate(grid) if s < PAIR_GRID[-1]]
    best = max(usable, key=lambda h: float(gains[:, h].mean()))
    better = gains[:, best] - gains[:, grid.index(in_force)]
    return grid[best] if better.mean() > 2.0 * _error(better, users) else in_force


def _best_long(
    log: EventLog,
    rows: NDArray[np.int64],
    live: int,
    events: NDArray[np.int64],
    short: float,
    in_force: ItemCounts,
    repeats: bool,
) -> float:
    """Return the half-life above the short one whose neighbours rank the targets best."""
    items = int(max(rows.max() + 1, live))
    ranked = np.arange(items) < live
    fitted = np.arange(len(log)) < events[0]
    targets = Targets(events, ranked, fitted, repeats)
    batches = list(target_batches(log, rows, targets, 4 * items))

    pairs = pairs_of(log, rows, items, NEIGHBOUR_EVENTS, fitted)

    def gains(half_life: float) -> NDArray[np.float64]:
        near = LivePairs("", pairs, log.batch.times, half_life)
        return np.concatenate([_gains(near, batch, targets) for batch in batches])

    usable = [s for s in sorted({*PAIR_GRID, in_force.long_seconds}) if s > short]
    by_half_life = {s: gains(s) for s in usable}
    best = max(usable, key=lambda s: float(by_half_life[s].mean()))
    if in_force.long_seconds not in by_half_life:
        return best
    better = by_half_life[best] - by_half_life[in_force.long_seconds]
    is_better = better.mean() > 2.0 * _error(better, log.users[events])
    return best if is_better else in_force.long_seconds


def _gains(pairs: LivePairs, batch: TargetBatch, targets: Targets) -> NDArray[np.float64]:
    ranks, lists = np.full(len(batch), math.inf), np.full((len(batch), 10), -1)
    starts = np.zeros_like(batch.starts) if targets.repeats else batch.starts
    scores = pairs.scores(batch)
    rank_and_list(scores, batch.rows, targets.ranked, batch.past, starts, ranks, lists)
    return gains_at_k(ranks, 10)


def _trends(
    grid: tuple[float, ...], ranks: NDArray[np.float64], counts: ItemCounts
) -> tuple[float, ...]:
    """Return the half-lives of the trend's list that find most targets, best first.

    A list of several has the first of each by turns, so that each gives its share of the places.
    """
    usable = [grid.index(s) for s in counts.read_seconds if math.isfinite(s)]
    places: list[int] = []
    recall = 0.0
    while len(places) < MOST_TRENDS:
        others = [h for h in usable if h not in places]
        width = TREND_WIDTH // (len(places) + 1)
        recalls = [float((ranks[:, [*places, h]] <= width).any(axis=1).mean()) for h in others]
        if not others or max(recalls) < LEAST_RECALL * recall:
            break
        recall = max(recalls)
        places.append(others[int(np.argmax(recalls))])
    return tuple(grid[h] for h in places)


def _late_losses(
    columns: NDArray[np.float32],
    offsets: NDArray[np.float32],
    early: slice,
    late: slice,
    choices: tuple[list[int], list[int]],
) -> list[NDArray[np.float64]]:
    """Return the losses of the later targets by each choice of columns, fitted on the earlier."""
    losses = []
    for places in choices:
        weights, _ = _fit(columns[early], offsets[early], places)
        losses.append(softmax_losses(columns[late][..., places] @ weights + offsets[late]))
    return losses


def _fit(
    columns: NDArray[np.float32], offsets: NDArray[np.float32], places: list[int]
) -> tuple[NDArray[np.float64], float]:
    """Return the weights (H,) of least softmax loss over some columns, and the loss in nats."""
    x = columns[..., places].astype(np.float64)
    flat = x.reshape(-1, len(places))
    weights = np.zeros(len(places))
    scores = offsets.astype(np.float64)
    loss = float(softmax_losses(scores).mean())
    for _ in range(STEPS):
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        weighed = flat * chances.reshape(-1, 1)
        means = weighed.reshape(x.shape).sum(axis=1)
        gradient = (means - x[:, 0]).sum(axis=0) + RIDGE * weights
        spread = weighed.T @ flat - means.T @ means
        step = np.linalg.solve(spread + RIDGE * np.eye(len(places)), gradient)
        before = loss
        for _ in range(8):
            tried = x @ (weights - step) + offsets
            loss = float(softmax_losses(tried).mean())
            if loss <= before:
                break
            step /= 2.0
        else:
            return weights, before
        weights, scores = weights - step, tried
        if before - loss < 1e-6:
            break
    return weights, loss


def _error(gains: NDArray[np.float64], users: NDArray[np.int64]) -> float:
    """Return the standard error of a mean, a user's values counted as one."""
    of_users = np.bincount(users, gains - gains.mean())
    return float(np.sqrt(np.square(of_users).sum())) / len(gains)


def _columns(
    log: EventLog,
    rows: NDArray[np.int64],
    live: int,
    events: NDArray[np.int64],
    grid: NDArray[np.float64],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """Return columns (Q, 1 + C, H) and offsets (Q, 1 + C), the target first, and ranks (Q, H).

    An offset is -inf for an empty place, and the logarithm of the number of items that a sampled
    one stands for. Columns are a tenth of the ranker's features, so that they lie about in 0..1.
    """
    hard, uniform = min(HARD * len(grid), live), min(UNIFORM, live)
    places = 1 + hard + uniform
    columns = np.zeros((len(events), places, len(grid)), np.float32)
    offsets = np.full((len(events), places), -np.inf, np.float32)
    ranks = np.ones((len(events), len(grid)))
    sample = np.random.default_rng(0).integers(0, live, (len(events), uniform))
    out = (log.batch.retracts != 0) | ~(log.batch.weights > 0.0) | (rows < 0) | (rows >= live)
    counts = np.zeros((live, len(grid)))
    _fill(
        log.batch.times, np.where(out, -1, rows), rows[events], events, grid, sample,
        counts, columns, offsets, ranks,
    )  # fmt: skip
    return columns / 10.0, offsets, ranks


@native
def _fill(
    times: Array, rows: Array, targets: Array, events: Array, grid: Array, sample: Array,
    counts: Array, columns: Array, offsets: Array, ranks: Array,
) -> None:  # fmt: skip
    live, periods = counts.shape
    ref_times = np.zeros(live)
    logarithms = np.full((live, periods), -np.inf)
    scores = np.empty((periods, live))
    is_in = np.full(live, -1)
    best = np.empty(HARD, np.int64)
    position = 0
    for q in range(len(events)):
        now = times[events[q]]
        for e in range(position, events[q]):
            row = rows[e]
            if row < 0:
                continue
            for h in range(periods):
                factor = decay(times[e] - ref_times[row], grid[h])
                counts[row, h] = counts[row, h] * factor + 1.0
                logarithms[row, h] = math.log2(counts[row, h])
            ref_times[row] = times[e]
        position = max(position, events[q])
        target = targets[q]
        for h in range(periods):
            for row in range(live):
                scores[h, row] = logarithms[row, h] - (now - ref_times[row]) / grid[h]
        n = 1
        is_in[target] = q
        offsets[q, 0] = 0.0
        for h in range(periods):
            own = scores[h, target]
            above, equal, n_best = 0, 0, 0
            for row in range(live):
                score = scores[h, row]
                above += score > own
                equal += score == own
                if score > -np.inf and (n_best < HARD or score > scores[h, best[n_best - 1]]):
                    place = min(n_best, HARD - 1)
                    while place > 0 and scores[h, best[place - 1]] < score:
                        best[place] = best[place - 1]
                        place -= 1
                    best[place] = row
                    n_best = min(n_best + 1, HARD)
            ranks[q, h] = 1.0 + above + (equal - 1) / 2.0
            for k in range(n_best):
                row = best[k]
                if is_in[row] != q and n < columns.shape[1]:
                    is_in[row] = q
                    _write(columns[q, n], scores, row)
                    offsets[q, n] = 0.0
                    n += 1
        _write(columns[q, 0], scores, target)
        first, others = n, live - n
        for k in range(sample.shape[1]):
            row = sample[q, k]
            if is_in[row] != q and n < columns.shape[1]:
                is_in[row] = q
                _write(columns[q, n], scores, row)
                n += 1
        for k in range(first, n):
            offsets[q, k] = math.log(others / (n - first))


@native
def _write(column: Array, scores: Array, row: int) -> None:
    for h in range(len(column)):
        column[h] = max(_LOG2_20 + scores[h, row], 0.0)
