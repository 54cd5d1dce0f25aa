"""Half-lives of the users' decayed sums, chosen by how well the sums predict the next item."""

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from indexer.data.histories import EventLog
from indexer.data.holdout import evenly_spread
from indexer.train.linear_fit import fit_linear
from tracker.items.config import DAY, HOUR, MINUTE
from tracker.kernels.arithmetic import decay, dot
from tracker.kernels.native import native

Array = NDArray[Any]

GRID = (
    10 * MINUTE, 30 * MINUTE, 3 * HOUR, DAY, 3 * DAY, 7 * DAY, 20 * DAY, 60 * DAY, 180 * DAY,
    730 * DAY,
)  # fmt: skip
"""Candidates in seconds; the half-lives in force are candidates too."""

MAX_TARGETS = 6000
"""Targets at most, evenly spread: the first two thirds are fitted on, the rest validate."""

MIN_TARGETS = 600
"""With fewer targets nothing is chosen."""

OTHERS = 64
"""Negative items of a target: those of the targets before and after it, which were as popular at
that time."""

LEAST_GAIN = 0.01
"""Nats that other half-lives must gain besides: targets share their negative items, so that an
error over users alone is too small, and a smaller gain is not worth rebuilding all states."""

MASS_HALF = 0.5
"""The half of a sum's confidence M / (M + .5), as in the ranker's features."""

RIDGE = 5e-3
"""Penalty of squared weights, over the number of targets."""


class HalfLives(msgspec.Struct, frozen=True):
    """The chosen half-lives, and the losses behind the choice.

    Attributes:
        seconds: ascending.
        loss: mean cross-entropy of the later targets among OTHERS, in nats, by the best other
            half-lives.
        loss_in_force: the same by those in force.
        error: standard error of the difference, a user's targets counted as one.
    """

    seconds: tuple[float, ...]
    loss: float
    loss_in_force: float
    error: float


def choose_half_lives(
    log: EventLog,
    rows: NDArray[np.int64],
    vectors: NDArray[np.float32],
    events: NDArray[np.int64],
    in_force: tuple[float, ...],
) -> HalfLives | None:
    """Choose as many half-lives as are in force, and keep these unless others are clearly better.

    1. Compute the ranker's columns for each target and each half-life of GRID: the cosine of its
       item, and of the negative items, with the user's sum before the event, times the sum's
       confidence.
    2. Choose one half-life after the other, each time the one that lowers the loss of a softmax
       the most.
    3. Keep them if they lower the loss of later targets by LEAST_GAIN and by more than twice its
       standard error, for a change of half-lives rebuilds the users' states.

    Args:
        log: the events.
        rows: (E,) catalogue rows, -1 unknown.
        vectors: (N, D) float32, as the states sum them.
        events: (Q,) ascending positions of the targets that training may use.
        in_force: seconds, ascending.

    Returns:
        None if there are fewer than MIN_TARGETS.
    """
    if len(events) < MIN_TARGETS:
        return None
    events = evenly_spread(events, MAX_TARGETS)
    grid = tuple(sorted({*GRID, *in_force}))
    columns, offsets = _columns(log, rows, vectors, events, grid)  # 1. Compute the columns.
    learned = len(events) * 2 // 3
    early, late = slice(0, learned), slice(learned, len(events))
    best: list[int] = []
    for _ in in_force:  # 2. Choose one after the other.
        others = [place for place in range(len(grid)) if place not in best]
        losses = [_fit(columns[early], offsets[early], [*best, place])[1] for place in others]
        best.append(others[int(np.argmin(losses))])
    by_choice = []
    for places in (best, [grid.index(period) for period in in_force]):  # 3. Compare.
        weights, _ = _fit(columns[early], offsets[early], places)
        by_choice.append(softmax_losses(columns[late][..., places] @ weights + offsets[late]))
    gains = by_choice[1] - by_choice[0]
    of_users = np.bincount(log.users[events[late]], gains - gains.mean())
    error = float(np.sqrt(np.square(of_users).sum())) / len(gains)
    seconds = tuple(sorted(grid[place] for place in best))
    better = gains.mean() > max(LEAST_GAIN, 2.0 * error)
    return HalfLives(
        seconds if better else in_force,
        float(by_choice[0].mean()),
        float(by_choice[1].mean()),
        error,
    )


def _columns(
    log: EventLog,
    rows: NDArray[np.int64],
    vectors: NDArray[np.float32],
    events: NDArray[np.int64],
    grid: tuple[float, ...],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return columns (Q, 1 + OTHERS, H), the target's first, and offsets (Q, 1 + OTHERS).

    An offset is -inf for an item that is the target's own, 0 otherwise.
    """
    count = len(events)
    order = np.argsort(log.users, kind="stable")
    place = np.full(len(log), -1, np.int64)
    place[events] = np.arange(count)
    windows = np.arange(count)[:, None] + np.arange(-(OTHERS // 2), OTHERS // 2 + 1)
    windows[:, [0, OTHERS // 2]] = windows[:, [OTHERS // 2, 0]]  # the target itself first
    items = rows[events][windows % count]
    columns = np.zeros((*items.shape, len(grid)), np.float32)
    weights = log.batch.weights.astype(np.float64)
    weights[rows < 0] = 0.0
    _fill(
        order, log.users, rows, log.batch.times, weights, vectors, np.array(grid), place, items,
        columns,
    )  # fmt: skip
    offsets = np.where(items == items[:, :1], -np.inf, 0.0).astype(np.float32)
    offsets[:, 0] = 0.0
    return columns, offsets


@native
def _fill(
    order: Array, users: Array, rows: Array, times: Array, weights: Array, vectors: Array,
    grid: Array, place: Array, items: Array, columns: Array,
) -> None:  # fmt: skip
    sums = np.zeros((len(grid), vectors.shape[1]), np.float32)
    masses = np.zeros(len(grid))
    user, latest = -1, 0.0
    for e in order:
        if users[e] != user:
            user, latest = users[e], times[e]
            sums[:] = 0.0
            masses[:] = 0.0
        for h in range(len(grid)):
            factor = decay(times[e] - latest, grid[h])
            masses[h] *= factor
            for d in range(vectors.shape[1]):
                sums[h, d] *= np.float32(factor)
        latest = times[e]
        q = place[e]
        if q >= 0:
            for h in range(len(grid)):
                length = np.sqrt(dot(sums[h], sums[h]))
                if length > 0.0:
                    scale = masses[h] / (masses[h] + MASS_HALF) / length
                    for c in range(items.shape[1]):
                        columns[q, c, h] = scale * dot(sums[h], vectors[items[q, c]])
        if weights[e] > 0.0:
            for h in range(len(grid)):
                masses[h] += weights[e]
                for d in range(vectors.shape[1]):
                    sums[h, d] += np.float32(weights[e]) * vectors[rows[e], d]


def _fit(
    columns: NDArray[np.float32], offsets: NDArray[np.float32], places: list[int]
) -> tuple[NDArray[np.float64], float]:
    """Return the weights (H,) of least softmax loss over some columns, and the loss in nats."""
    x = np.ascontiguousarray(columns[..., places])
    weights = fit_linear(
        lambda part: (x[part], offsets[part]), len(x), np.zeros(len(places)), RIDGE / len(x)
    )
    return weights, float(softmax_losses(x @ weights + offsets).mean())


def softmax_losses(scores: Array) -> NDArray[np.float64]:
    """Return the cross-entropy (Q,) of the first of each row of scores."""
    most = scores.max(axis=1)
    total = np.log(np.exp(scores - most[:, None]).sum(axis=1))
    return np.asarray(total + most - scores[:, 0], np.float64)
