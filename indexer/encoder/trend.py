"""Popularity of items at any time of a log, so that no encoder has to learn it from users."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.kernels.arithmetic import decay
from tracker.kernels.native import native

Array = NDArray[Any]

TREND_HALF_LIVES = (10_800.0, 86_400.0, 864_000.0)
"""3 hours, 1 day and 10 days, in seconds. An item's bias learns its lasting popularity."""

_LOG2_20 = math.log2(20.0)


class Trend:
    """The positive events of a catalogue's items in time order, with the decayed counts after each.

    Args:
        rows: (E,) int64 catalogue row of each event; those of -1 are left out.
        times: (E,) float seconds.
        items: N, of the catalogue.
    """

    def __init__(self, rows: NDArray[np.int64], times: NDArray[np.float64], items: int) -> None:
        rows, times = rows[rows >= 0], times[rows >= 0]
        order = np.lexsort((times, rows))
        self._starts = np.searchsorted(rows[order], np.arange(items + 1)).astype(np.int64)
        self._times = np.ascontiguousarray(times[order], np.float64)
        self._half_lives = np.array(TREND_HALF_LIVES)
        self._logs = np.zeros((len(order), len(TREND_HALF_LIVES)), np.float32)
        fill_logs(self._starts, self._times, self._half_lives, self._logs)

    def at(self, times: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return log2 of 20 times the decayed counts before times, at least 0: (H, P, C).

        Events at the time itself do not count.

        Args:
            times: (P,) float seconds.
            rows: (C,) of the catalogue.
        """
        out = np.empty((len(TREND_HALF_LIVES), len(times), len(rows)), np.float32)
        order = np.argsort(times, kind="stable")
        fill_trend(self._starts, self._times, self._logs, self._half_lives, times, order, rows, out)
        return out

    def of(self, times: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the same of one row at each time: (H, P) of times (P,) and rows (P,)."""
        out = np.empty((len(TREND_HALF_LIVES), len(times)), np.float32)
        fill_pairs(self._starts, self._times, self._logs, self._half_lives, times, rows, out)
        return out


@native
def fill_pairs(
    starts: Array, event_times: Array, logs: Array, half_lives: Array,
    times: Array, rows: Array, out: Array,
) -> None:  # fmt: skip
    """Fill `Trend.of`: the logs after an item's latest event before a time, decayed to the time."""
    for p in range(len(times)):
        begin, end = starts[rows[p]], starts[rows[p] + 1]
        e = begin + np.searchsorted(event_times[begin:end], times[p]) - 1
        for h in range(len(half_lives)):
            level = np.float32(0.0)
            if e >= begin:
                level = logs[e, h] - np.float32((times[p] - event_times[e]) / half_lives[h])
            out[h, p] = max(level, np.float32(0.0))


@native
def fill_logs(starts: Array, times: Array, half_lives: Array, logs: Array) -> None:
    """Fill log2 of 20 times the decayed count of an item just after each of its events."""
    for h in range(len(half_lives)):
        for item in range(len(starts) - 1):
            count = 0.0
            for e in range(starts[item], starts[item + 1]):
                if e > starts[item]:
                    count *= decay(times[e] - times[e - 1], half_lives[h])
                count += 1.0
                logs[e, h] = _LOG2_20 + math.log2(count)


@native
def fill_trend(
    starts: Array, event_times: Array, logs: Array, half_lives: Array,
    times: Array, order: Array, rows: Array, out: Array,
) -> None:  # fmt: skip
    """Fill `Trend.at`; `order` sorts the times, so that each item's events are walked once.

    1. Of each item: the place of its next event, that event's time, and the logs after the last.
    2. Moment by moment, move each item whose next event is before it to its latest event.
    3. Decay the logs to the moment, in one pass over contiguous memory.
    """
    if len(order) == 0:
        return
    count, items = len(half_lives), len(rows)
    place = np.zeros(items, np.int64)  # 1. Find the next event of each item.
    upcoming = np.full(items, np.inf)
    latest = np.zeros(items)
    levels = np.full((count, items), np.float32(-1e30))
    for c in range(items):
        place[c] = starts[rows[c]]
        if place[c] < starts[rows[c] + 1]:
            upcoming[c] = event_times[place[c]]
    for i in range(len(order)):
        p = order[i]
        moment = times[p]
        for c in range(items):  # 2. Move to the latest event.
            if upcoming[c] < moment:
                e, end = place[c], starts[rows[c] + 1]
                e += np.searchsorted(event_times[e:end], moment)
                place[c] = e
                upcoming[c] = event_times[e] if e < end else np.inf
                latest[c] = event_times[e - 1]
                levels[:, c] = logs[e - 1]
        for h in range(count):  # 3. Decay the logs.
            scale = 1.0 / half_lives[h]
            for c in range(items):
                level = levels[h, c] - np.float32((moment - latest[c]) * scale)
                out[h, p, c] = max(level, np.float32(0.0))
