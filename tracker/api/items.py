"""Answers about items: what is known of one, similar ones, and a search."""

from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tracker.api.host import Host
from tracker.api.messages import (
    FoundItem,
    ItemAnswer,
    ItemNeighbour,
    ItemScene,
    MapAnswer,
    MapItem,
    SearchAnswer,
    SimilarAnswer,
    SimilarItem,
    TrendAnswer,
    TrendStep,
)
from tracker.api.problems import ProblemError
from tracker.api.reads import Reads
from tracker.api.server import Call
from tracker.events.wire import hash_id
from tracker.items.config import DAY, HOUR
from tracker.items.counts import COUNT, PAIR, SUM, TALLY
from tracker.items.item_map import fit_map, map_places
from tracker.items.rates import past_rates
from tracker.items.view import ItemView
from tracker.lookup.show import NEIGHBOURS_SHOWN, period
from tracker.stream.item_side import ItemSide
from tracker.stream.partition import BusyError, RevokedError
from tracker.stream.serving import Serving
from tracker.stream.user_side import UserSide


class Items:
    """Answers about items, from the view of their states that each worker has.

    Args:
        host: the worker.
        reads: runs work beside the stream.
    """

    def __init__(self, host: Host, reads: Reads) -> None:
        self._host = host
        self._reads = reads
        # What is made once for an artifact. It goes with its view, whose memory it does not keep.
        self._texts: WeakKeyDictionary[ItemView, list[str]] = WeakKeyDictionary()
        self._maps: WeakKeyDictionary[ItemView, NDArray[np.float32]] = WeakKeyDictionary()

    async def item(self, call: Call) -> ItemAnswer:
        """Describe an item.

        Raises:
            ProblemError: 404, the catalogue does not have it; 429, too many reads wait.
        """
        serving = self._host.context.keeper.current
        row = self._row(serving, call.path["item_id"])
        scene_names: dict[int, str] = {}
        for partition in self._host.partitions().values():
            if isinstance(partition.side, UserSide):
                scene_names.update(partition.side.lookup.scene_names)
        now = self._reads.now() if call.query.at is None else call.query.at
        warming = await self._warming(call.path["item_id"], now)
        return await self._reads.run(lambda: _describe(serving, row, now, scene_names, warming))

    async def _warming(self, item_id: str, now: float) -> list[str]:
        """Return the half-lives whose counts are new, if this worker counts the item."""
        item = hash_id(item_id)
        for partition in self._host.all_partitions():
            side = partition.side
            if not isinstance(side, ItemSide):
                continue
            try:
                seconds = await partition.query(partial(side.warming, item, now))
            except (BusyError, RevokedError):
                continue
            if seconds is not None:
                return [period(half_life) for half_life in seconds]
        return []

    async def trend(self, call: Call) -> TrendAnswer:
        """Return the rates at which an item was chosen over the last day.

        Raises:
            ProblemError: as of `item`.
        """
        serving = self._host.context.keeper.current
        row = self._row(serving, call.path["item_id"])
        now = self._reads.now() if call.query.at is None else call.query.at

        def work() -> TrendAnswer:
            vectors, half_lives = serving.artifact.vectors, serving.view.columns.half_lives
            counts, _ = _faded(serving, row, now)
            steps = [
                TrendStep(
                    round(one.start, 1), round(one.middle, 1), round(one.end, 1),
                    round(one.per_second * HOUR, 3),
                )
                for one in past_rates(counts, np.asarray(half_lives, np.float64))
                if one.start < DAY
            ]  # fmt: skip
            return TrendAnswer(vectors.ids[row], vectors.label(row), now, serving.version, steps)

        return await self._reads.run(work)

    async def similar(self, call: Call) -> SimilarAnswer:
        """Return the items nearest to an item, nearest first.

        Raises:
            ProblemError: as of `item`.
        """
        serving = self._host.context.keeper.current
        row, k = self._row(serving, call.path["item_id"]), call.query.k

        def work() -> SimilarAnswer:
            vectors = serving.artifact.vectors
            query = np.ascontiguousarray(vectors.vectors[row][None])
            # One more, for the item itself is the first hit.
            rows, scores = serving.artifact.index.search(query, min(k + 1, vectors.live))
            hits = [
                SimilarItem(vectors.ids[near], vectors.label(near), round(float(score), 6))
                for near, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True)
                if near >= 0 and near != row
            ]
            return SimilarAnswer(vectors.ids[row], serving.version, hits[:k])

        return await self._reads.run(work)

    async def search(self, call: Call) -> SearchAnswer:
        """Return the items whose id or label has a text, those chosen most lately first.

        Raises:
            ProblemError: 429, too many reads wait.
        """
        serving, text, k = self._host.context.keeper.current, call.query.q.casefold(), call.query.k
        now = self._reads.now()

        def work() -> SearchAnswer:
            vectors, columns = serving.artifact.vectors, serving.view.columns
            places = np.arange(vectors.live)
            if text:
                texts = self._search_texts(serving)
                places = np.array([row for row, one in enumerate(texts) if text in one], np.int64)
            counts = columns.counts[places, COUNT.short] * np.exp2(
                -np.maximum(now - columns.ref_times[places], 0.0) / columns.half_lives[COUNT.short]
            )
            order = _largest(counts, k)
            hits = [
                FoundItem(vectors.ids[row], vectors.label(row), round(count, 6))
                for row, count in zip(places[order].tolist(), counts[order].tolist(), strict=True)
            ]
            return SearchAnswer(serving.version, hits)

        return await self._reads.run(work)

    async def map(self, call: Call) -> MapAnswer:
        """Return the places of the items chosen most lately on a map of the catalogue.

        Raises:
            ProblemError: 429, too many reads wait.
        """
        serving, k = self._host.context.keeper.current, call.query.k

        def work() -> MapAnswer:
            vectors, counts = serving.artifact.vectors, serving.view.columns.counts
            with_text = vectors.live - serving.artifact.manifest.without_text
            order = _largest(counts[:with_text, COUNT.short], k)
            places = map_places(self._projection(serving), vectors.vectors[order]).tolist()
            items = [
                MapItem(vectors.ids[row], vectors.label(row), round(x, 4), round(y, 4))
                for row, (x, y) in zip(order.tolist(), places, strict=True)
            ]
            return MapAnswer(serving.version, items)

        return await self._reads.run(work)

    def _projection(self, serving: Serving) -> NDArray[np.float32]:
        """Return the map of the artifact; one that has none gets it here, once."""
        vectors = serving.artifact.vectors
        if len(vectors.map_projection):
            return vectors.map_projection
        projection = self._maps.get(serving.view)
        if projection is None:
            with_text = vectors.live - serving.artifact.manifest.without_text
            projection = self._maps[serving.view] = fit_map(vectors.vectors[:with_text])
        return projection

    def _search_texts(self, serving: Serving) -> list[str]:
        """Return the texts that are searched, by row: id and label, without case."""
        texts = self._texts.get(serving.view)
        if texts is None:
            vectors = serving.artifact.vectors
            ids = vectors.ids[: vectors.live]
            texts = [
                f"{item_id} {vectors.label(row)}".casefold() for row, item_id in enumerate(ids)
            ]
            self._texts[serving.view] = texts
        return texts

    def _row(self, serving: Serving, item_id: str) -> int:
        """Return the catalogue row of an item.

        Raises:
            ProblemError: 404, the catalogue does not have it.
        """
        row = serving.artifact.vectors.row_of_id(item_id)
        if row < 0:
            raise ProblemError(
                404, f"the item is not in the catalogue of artifact {serving.version}"
            )
        return row


def _largest(values: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return the places of the k largest values, largest first, equal ones by place."""
    if len(values) > k:
        least = np.partition(values, len(values) - k)[len(values) - k]
        above = np.flatnonzero(values > least)
        equal = np.flatnonzero(values == least)[: k - len(above)]
        places = np.concatenate([above, equal])
    else:
        places = np.arange(len(values))
    return places[np.argsort(-values[places], kind="stable")]


def _describe(
    serving: Serving, row: int, now: float, scene_names: dict[int, str], warming: list[str]
) -> ItemAnswer:
    """Describe the item of a catalogue row, its counts as decayed at `now`.

    Args:
        serving: the artifact and the view in use.
        row: of the item.
        now: seconds since the epoch.
        scene_names: names of scenes by their codes; a scene without one is shown by its code.
        warming: the half-lives whose counts are new.
    """
    vectors, columns, near = serving.artifact.vectors, serving.view.columns, serving.view.neighbours
    numbers_now, age = _faded(serving, row, now)
    half_lives, faded = columns.half_lives.tolist(), numbers_now.tolist()
    counts = {
        period(half_lives[place]): round(faded[place], 6)
        for place in np.argsort(columns.half_lives, kind="stable").tolist()
    }
    scenes = [
        ItemScene(
            scene_names.get(int(scene), f"#{int(scene):08x}"),
            round(float(numbers[SUM.short]) * 2.0 ** (-age / half_lives[COUNT.short]), 6),
            round(float(numbers[SUM.long]) * 2.0 ** (-age / half_lives[COUNT.long]), 6),
        )
        for scene, numbers in zip(columns.scenes[row], columns.scene_counts[row], strict=True)
        if scene
    ]
    count = int(near.before.n[row])
    together = near.before.counts[row, :count]
    order = np.argsort(-together[:, PAIR.together], kind="stable")[:NEIGHBOURS_SHOWN]
    neighbours = [
        ItemNeighbour(
            vectors.ids[other],
            vectors.label(other),
            round(float(together[place, PAIR.together]), 6),
            round(float(together[place, PAIR.next]), 6),
        )
        for place in order.tolist()
        if (other := int(near.before.rows[row, place])) >= 0
    ]
    return ItemAnswer(
        item_id=vectors.ids[row],
        label=vectors.label(row),
        in_catalogue=row < vectors.live,
        positives=int(columns.tallies[row, TALLY.positives]),
        negatives=int(columns.tallies[row, TALLY.negatives]),
        first_event=_finite(float(columns.first_times[row])),
        last_event=_finite(float(columns.last_times[row])),
        counts=counts,
        warming=warming,
        scenes=scenes,
        chosen_together=neighbours,
        artifact=serving.version,
    )


def _faded(serving: Serving, row: int, now: float) -> tuple[NDArray[np.float64], float]:
    """Return the counts of an item as decayed at a time, and the seconds since they were valid."""
    columns = serving.view.columns
    age = max(now - float(columns.ref_times[row]), 0.0)
    return columns.counts[row] * np.exp2(-age / columns.half_lives), age


def _finite(value: float) -> float | None:
    """Return a number as JSON can hold it: None for NaN and infinity."""
    return value if np.isfinite(value) else None
