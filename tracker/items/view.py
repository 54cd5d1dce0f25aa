"""ItemView: item states by catalogue row, for serving.

On the path of one commit: see docs/design/one-event-one-commit.md.

Every worker fills one from the items' changelog. It is written by one thread while others read:
a reader may meet a row half old and half new, never a place out of bounds.
"""

import math
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from tracker.items.config import ItemCounts
from tracker.items.counts import COUNT, SUM, TALLY
from tracker.items.layout import NEIGHBOURS, SCENES
from tracker.items.near_lists import STALE_SHARE, NearLists, place_neighbours
from tracker.items.states import ItemStates, StateColumns
from tracker.items.vectors import lookup_rows
from tracker.kernels.arithmetic import decay, whole
from tracker.kernels.native import native
from tracker.kernels.row_lists import keep_best

Array = NDArray[Any]
Rows = NDArray[np.int64]

REFRESH_SECONDS = 0.25
"""How long a list of trending rows is used again, by the clock of who asks."""

REFRESH_ITEMS = 50_000
"""Catalogue rows beyond which lists are used again for longer, in proportion: they take time."""

MOVED_SECONDS = 60.0
"""How long what depends on time is used again if there was no update."""

_BATCH = 4096
_GONE_HALF_LIVES = 60.0


class Catalogue(Protocol):
    """The part of an ItemVectors that a view needs: hashes, the table to find rows, live rows."""

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """Hashes of item ids by row."""

    @property
    def table_hash(self) -> NDArray[np.uint64]:
        """Hashes of the open-addressing table."""

    @property
    def table_row(self) -> NDArray[np.int32]:
        """Rows of the open-addressing table."""

    @property
    def live(self) -> int:
        """The number of rows, from the first, that can be recommended."""


class ItemColumns(NamedTuple):
    """The live statistics of N items, by catalogue row; zero where nothing is known.

    - `counts` (N, H) float64, decayed by `half_lives` (H,) float64, `ItemCounts.seconds`, and valid
      for `ref_times` (N,) float64; `log2_counts` (N, H) float32 the same as logarithms, -inf for
      none: the first columns are COUNT;
    - `weight_sums` (N, 3) float64: signed weights, half-lives short and long (valid for
      `ref_times`) and never: columns SUM; `tallies` (N, 3) float64: events of positive, negative
      and no weight: columns TALLY;
    - `first_times`, `last_times` (N,) float64, NaN for none;
    - `scenes` (N, 4) uint32 and `scene_counts` (N, 4, 2) float64, half-lives short and long.
    """

    counts: Array
    log2_counts: Array
    weight_sums: Array
    tallies: Array
    ref_times: Array
    first_times: Array
    last_times: Array
    scenes: Array
    scene_counts: Array
    half_lives: Array

    @staticmethod
    def of_size(items: int, half_lives: NDArray[np.float64]) -> "ItemColumns":
        """Return columns of items of which nothing is known."""
        return ItemColumns(
            counts=np.zeros((items, len(half_lives))),
            log2_counts=np.full((items, len(half_lives)), -np.inf, np.float32),
            weight_sums=np.zeros((items, len(SUM))),
            tallies=np.zeros((items, len(TALLY))),
            ref_times=np.zeros(items),
            first_times=np.full(items, np.nan),
            last_times=np.full(items, np.nan),
            scenes=np.zeros((items, SCENES), np.uint32),
            scene_counts=np.zeros((items, SCENES, 2)),
            half_lives=half_lives,
        )


@native
def _place(
    rows: Rows,
    states: StateColumns,
    table_hash: Array,
    table_row: Array,
    columns: ItemColumns,
    near: NearLists,
) -> int:
    """Write item states (M,) to their catalogue rows (M,), -1 for none; return the number."""
    old_rows = np.zeros(NEIGHBOURS, np.int64)
    is_new = np.zeros(NEIGHBOURS, np.bool_)
    placed = 0
    for i in range(rows.shape[0]):
        row = rows[i]
        if row < 0:
            continue
        placed += 1
        head = states.head[i]
        columns.ref_times[row] = head["ref_time"]
        columns.first_times[row] = head["first_time"]
        columns.last_times[row] = head["last_time"]
        for h in range(columns.counts.shape[1]):
            count = max(states.counts[i, h], 0.0)
            columns.counts[row, h] = count
            columns.log2_counts[row, h] = np.log2(count) if count > 1e-9 else -np.inf
        columns.weight_sums[row, SUM.short] = states.weights[i, SUM.short]
        columns.weight_sums[row, SUM.long] = states.weights[i, SUM.long]
        columns.weight_sums[row, SUM.never] = head["weight_total"]
        columns.tallies[row, TALLY.positives] = head["positives"]
        columns.tallies[row, TALLY.negatives] = head["negatives"]
        columns.tallies[row, TALLY.neutrals] = head["neutrals"]
        for s in range(columns.scenes.shape[1]):
            if s < whole(head["n_scenes"]):
                columns.scenes[row, s] = states.scenes[i, s]["scene"]
                for h in range(2):
                    count = max(states.scenes[i, s]["counts"][h], 0.0)
                    columns.scene_counts[row, s, h] = count
            else:
                columns.scenes[row, s] = 0
                columns.scene_counts[row, s] = 0.0
        place_neighbours(
            row,
            head["ref_time"],
            states.neighbours[i],
            whole(head["n_neighbours"]),
            table_hash,
            table_row,
            near,
            STALE_SHARE * columns.half_lives[COUNT.long],
            old_rows,
            is_new,
        )
    return placed


@native
def _strongest(scores: Array, best: Array, best_scores: Array) -> int:
    """Write the rows (K,) of the highest scores above -inf, ties by row; return their number."""
    n = 0
    k = len(best)
    for row in range(scores.shape[0]):
        score = scores[row]
        if score > -np.inf and (n < k or score > best_scores[n - 1]):
            n = keep_best(best_scores, best, n, score, row)
    return n


@native
def _trend_scores(columns: ItemColumns, place: int, scene: int, out: Array) -> None:
    """Write log2 of each row's count, overall or in a scene, as it would be at time 0.

    With one half-life for all, the order of rows is the same at every time.
    """
    counts, ref_times = columns.counts, columns.ref_times
    scenes, scene_counts = columns.scenes, columns.scene_counts
    half_life = columns.half_lives[place]
    for row in range(out.shape[0]):
        count = 0.0
        if scene == 0:
            count = counts[row, place]
        else:
            for s in range(scenes.shape[1]):
                if scenes[row, s] == scene:
                    count = scene_counts[row, s, SUM.short]
        out[row] = np.log2(count) + ref_times[row] / half_life if count > 1e-9 else -np.inf


@native
def _log_counts(rows: Rows, columns: ItemColumns, now: float, out: Array) -> None:
    counts, ref_times = columns.counts, columns.ref_times
    for i in range(rows.shape[0]):
        row = rows[i]
        if row < 0:
            continue
        age = now - ref_times[row]
        for h in range(counts.shape[1]):
            out[i, h] = np.log1p(counts[row, h] * decay(age, columns.half_lives[h]))


@native
def _first_scores(columns: ItemColumns, out: Array) -> None:
    """Write the time at which each row was first chosen; -inf where nothing is left of it."""
    counts, first_times = columns.counts, columns.first_times
    for row in range(out.shape[0]):
        is_chosen = counts[row, COUNT.never] > 1e-9 and first_times[row] > -np.inf  # not for NaN
        out[row] = first_times[row] if is_chosen else -np.inf


class _Trend(NamedTuple):
    rows: Rows
    scores: Array
    least: float
    version: int
    made_for: float


class _Late(NamedTuple):
    what: Any
    version: int
    made_for: float


class ItemView:
    """The item states that serving reads, by catalogue row.

    `columns` are the items' live statistics, `neighbours` their lists of neighbours. Memory is
    taken as rows come into use. `version` grows with every update.

    Args:
        catalogue: the items.
        scales: half-lives of the counts; rows that name others are fitted to them.
    """

    def __init__(self, catalogue: Catalogue, scales: ItemCounts | None = None) -> None:
        n = len(catalogue.hashes)
        self.catalogue = catalogue
        self.scales = (ItemCounts() if scales is None else scales).after(None)
        self._half_lives = self.scales.half_lives.tolist()
        self.version = 0
        self.columns = ItemColumns.of_size(n, self.scales.half_lives)
        self.neighbours = NearLists.of_size(n)
        self._arrived = ItemStates(0, self.scales)  # for the rows that `update` reads
        self._trends: dict[tuple[Any, ...], _Trend] = {}
        self._lately: dict[tuple[Any, ...], _Late] = {}
        self._refresh = REFRESH_SECONDS * max(1.0, n / REFRESH_ITEMS)

    def beside(self, before: "ItemView | None" = None) -> "ItemView":
        """Return a view of the same items with trends of its own.

        Who asks for lists of other times does not take the trends of now from the stream.

        Args:
            before: what this gave before; its trends are gone on with.
        """
        other = copy(self)
        is_same = before is not None and before.columns is self.columns
        other._trends = before._trends if before is not None and is_same else {}
        return other

    def update(
        self,
        rows: Sequence[bytes | None],
        items: NDArray[np.uint64],
        latest: float = math.inf,
    ) -> int:
        """Place item rows as read from the changelog.

        Args:
            rows: as `ItemStates.pack` wrote them; None (a tombstone) forgets the item.
            items: (M,) uint64, their items' hashes. Later entries of one item win.
            latest: seconds; times past it are taken for it, or one item with an event of the
                future would stay first in every trend.

        Returns:
            how many of them are of items in the catalogue; the others are passed over.

        Raises:
            ItemStateFormatError: a damaged row, or one of another format; nothing of its batch
                (4096 rows) is placed.
        """
        placed = 0
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            states = self._arrived
            states.grow(len(part))
            states.unpack(np.arange(len(part)), part)
            head = states.head[: len(part)]
            for field in ("ref_time", "first_time", "last_time"):
                np.minimum(head[field], latest, out=head[field])
            placed += self.update_from(states, items[start : start + _BATCH])
        return placed

    def update_from(self, states: ItemStates, items: NDArray[np.uint64]) -> int:
        """Place the first M rows of an arena, of the items with these M hashes; how many were.

        The arena goes over to the view's half-lives, if it has others.
        """
        catalogue = self.catalogue
        states.follow(self.scales)
        rows = lookup_rows(catalogue.table_hash, catalogue.table_row, items)
        placed = _place(
            rows,
            states.columns,
            catalogue.table_hash,
            catalogue.table_row,
            self.columns,
            self.neighbours,
        )
        self.version += 1
        return int(placed)

    def trend_rows(self, now: float, scene: int, k: int, place: int = COUNT.short) -> Rows:
        """Return the live rows chosen most, by one half-life: at most k, best first.

        Rows of whose count nothing is left (2^-60) are left out, ties are in the catalogue's order.
        The list is made anew when there was an update and `now` is REFRESH_SECONDS from the time
        it was made for.

        Args:
            now: seconds, stream time.
            scene: a scene code, or 0 for all scenes.
            k: how many at most.
            place: of the half-life in `ItemCounts.seconds`; in a scene it is always the short one.
        """
        place = COUNT.short if scene != 0 else place

        def score(out: Array) -> None:
            _trend_scores(self.columns, place, scene, out)

        trend = self._best((place, scene, k), now, score)
        floor = _GONE_HALF_LIVES - now / self._half_lives[place]
        if -trend.least <= floor:
            return trend.rows
        n = np.searchsorted(-trend.scores, floor, side="right")
        return trend.rows[:n]

    def mixed_trend_rows(self, now: float, k: int) -> Rows:
        """Return the live rows chosen most by the half-lives of the trend channel, by turns.

        The first of each half-life come first, then the second ones: at most k, each once. The
        half-lives are `ItemCounts.trend_seconds`.
        """
        lists = [self.trend_rows(now, 0, k, place) for place in self.scales.trend_places]
        if len(lists) == 1:
            return lists[0]
        turns = np.full((k, len(lists)), -1, np.int64)
        for column, rows in enumerate(lists):
            turns[: len(rows), column] = rows
        every = turns[turns >= 0]
        _, first = np.unique(every, return_index=True)
        return np.asarray(every[np.sort(first)][:k], np.int64)

    def new_rows(self, now: float, k: int) -> Rows:
        """Return the live rows first chosen most lately: at most k, the latest first.

        Ties, and when the list is made anew, are as for `trend_rows`; arguments too.
        """

        def score(out: Array) -> None:
            _first_scores(self.columns, out)

        return self._best((-1, 0, k), now, score).rows

    def best_rows(
        self, key: tuple[Any, ...], now: float, k: int, score: Callable[[Array], None]
    ) -> Rows:
        """Return the k live rows of the highest scores above -inf, as `score` writes them.

        Ties, and when the list is made anew, are as for `trend_rows`; with equal keys it is one.
        """
        return self._best((*key, k), now, score, MOVED_SECONDS).rows

    def lately(self, key: tuple[Any, ...], now: float, make: Callable[[], Any]) -> Any:
        """Return what `make` makes of the states at `now`, or made lately for an equal key.

        It is made anew when `now` is REFRESH_SECONDS from the time it was made for, if there was an
        update; MOVED_SECONDS, if there was none; more with over REFRESH_ITEMS rows.
        """
        last = self._lately.get(key)
        if last is None or self._is_old(last.version, last.made_for, now, MOVED_SECONDS):
            version = self.version
            if len(self._lately) > 16:
                self._lately.clear()
            last = _Late(make(), version, now)
            self._lately[key] = last
        return last.what

    def _is_old(self, version: int, made_for: float, now: float, moved: float) -> bool:
        age = abs(now - made_for)
        return age >= self._refresh and (version != self.version or age >= moved)

    def _best(
        self,
        key: tuple[Any, ...],
        now: float,
        score: Callable[[Array], None],
        moved: float = math.inf,
    ) -> _Trend:
        """Return the k live rows of the highest scores, of a key (..., k), made anew or not."""
        trend = self._trends.get(key)
        if trend is None or self._is_old(trend.version, trend.made_for, now, moved):
            version, k = self.version, key[-1]
            scores = np.empty(self.catalogue.live)
            score(scores)
            rows, best = np.full(k, -1, np.int64), np.zeros(k)
            n = _strongest(scores, rows, best)
            if len(self._trends) > 256:  # scenes come and go
                self._trends.clear()
            least = float(best[n - 1]) if n else math.inf
            trend = _Trend(rows[:n], best[:n], least, version, now)
            self._trends[key] = trend
        return trend

    def log_counts(self, rows: Rows, now: float) -> NDArray[np.float32]:
        """Return log(1 + count) of rows (...,) at `now`, by `scales.seconds`: (..., H) float32.

        Rows of -1 have 0.
        """
        flat = np.ascontiguousarray(rows).reshape(-1)
        out = np.zeros((len(flat), len(self.columns.half_lives)), np.float32)
        _log_counts(flat, self.columns, now, out)
        return out.reshape(*rows.shape, -1)
