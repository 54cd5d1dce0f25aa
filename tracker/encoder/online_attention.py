"""OnlineAttention: what scenes add to the weights of users' interests, learned from the stream."""

import math
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tracker.encoder.interests import SceneQueries

Array = NDArray[Any]

MOST_SCENES = 32
"""Scenes of a partition that learn at most, those met first: 9 KiB of a row for D = 64."""

RATE = 0.1
CLIP = 2.0
PULL = 0.001
"""Step, longest gradient and way back of `OnlineAttention.learn`, as in `online`."""

WEIGHT_UNIT = 0.5
"""How much a correction may add to the weights of the types of interests, of 1 that they share."""

SHIFT_UNIT = 0.5
"""How far a correction may move the score of a typical item, in nats."""


class OnlineAttention:
    """Corrections of scene attention: how interests are weighed, and a vector that is added.

    A correction has a number for each type of interest, which is added to the weight of the type
    and shared among its interests as attention shares it, and a shift of what is looked for. The
    shared model has one, which counts in every scene, and each of some scenes that attention knows
    has one on top of it; all are zeros at first. Scores are linear in them, so that the loss is
    convex in what is learned. Numbers are measured in units of WEIGHT_UNIT; a shift s, which is
    |s| x the root mean square length of items in nats, in units of SHIFT_UNIT. No correction gets
    longer than 1.

    One thread at a time may use it.

    Args:
        scenes: codes that scene attention knows.
        types: how many types of interests there are.
        vectors: (N, E) float32, the items in the encoder's space; column `dim` is their bias.
        dim: width of a user's vector.
    """

    def __init__(
        self, scenes: tuple[int, ...], types: int, vectors: NDArray[np.float32], dim: int
    ) -> None:
        self._scenes = frozenset(scenes)
        self._types = types
        self._vectors = vectors
        self._dim = dim
        squares = np.einsum("nd,nd->n", vectors[:, :dim], vectors[:, :dim])  # copies no table
        typical = math.sqrt(float(squares.mean(dtype=np.float64))) if len(vectors) else 0.0
        self._learns = typical > 0.0
        shift_unit = SHIFT_UNIT / typical if self._learns else 1.0
        self._units = np.repeat([WEIGHT_UNIT, shift_unit], [types, dim]).astype(np.float32)
        self._places: dict[int, int] = {}
        self._rows = np.zeros((1 + MOST_SCENES, types + dim), np.float32)  # the shared one first

    def queries(self, published: SceneQueries, scenes: NDArray[np.uint32]) -> NDArray[np.float32]:
        """Return the queries (B, E) of B users with the corrections of their scenes (B,) added."""
        places = np.array([self._places.get(scene, 0) for scene in scenes.tolist()], np.int64)
        rows = self._rows[0] + self._rows[places] * (places > 0)[:, None]
        queries = published.queries.copy()
        weighed = (rows[:, None, : self._types] @ published.by_type)[:, 0]
        queries[:, : self._dim] += weighed + rows[:, self._types :]
        return queries

    def learn(
        self,
        scene: int,
        query: NDArray[np.float32],
        by_type: NDArray[np.float32],
        rows: NDArray[Any],
        target: int,
    ) -> tuple[float, float] | None:
        """Take one bounded step of the softmax of the encoder's scores over candidates.

        Args:
            scene: code.
            query: (E,) of the published model, a row of `SceneQueries.queries`.
            by_type: (T, D), a row of `SceneQueries.by_type`.
            rows: (C,) of the candidates.
            target: which of them was chosen.

        Returns:
            the loss before the step, with what was learned and without it; None if items have
            no length, so that nothing can be learned.
        """
        if not self._learns:
            return None
        items = self._vectors[rows]
        places = [0, place] if (place := self._place(scene)) else [0]
        added = self._rows[places].sum(axis=0)
        moved = query.copy()
        moved[: self._dim] += added[: self._types] @ by_type + added[self._types :]
        published, _ = _softmax(items @ query, target)
        learned, chances = _softmax(items @ moved, target)
        chances[target] -= 1.0
        by_query = chances @ items[:, : self._dim]
        gradient = self._units * np.concatenate([by_type @ by_query, by_query])
        length = float(np.linalg.norm(gradient))
        step = RATE * min(1.0, CLIP / length) if length > 0.0 else 0.0
        for place in places:
            row = (1.0 - PULL) * self._rows[place] - step * self._units * gradient
            self._rows[place] = row / max(1.0, float(np.linalg.norm(row / self._units)))
        return learned, published

    def copy(self) -> "OnlineAttention":
        """Return the corrections as they are now, which learn no more."""
        other = copy(self)
        other._places, other._rows = dict(self._places), self._rows.copy()
        return other

    @property
    def distance(self) -> float:
        """The length of the longest correction: 0 to 1."""
        return float(np.linalg.norm(self._rows / self._units, axis=1).max())

    def to_bytes(self) -> bytes:
        """Return what was learned, little-endian: the shared correction, then those of scenes.

        A correction is float32: a number a type, then the shift. After them come the scenes' codes,
        uint32, in the same order.
        """
        corrections = self._rows[: 1 + len(self._places)]
        return corrections.astype("<f4").tobytes() + np.array(list(self._places), "<u4").tobytes()

    def set_bytes(self, values: bytes) -> None:
        """Take over what `to_bytes` gave, of scene attention with the same weights.

        What lies too far off is put back at length 1: with other items a score of typical size, by
        which shifts are measured, is another one.

        Raises:
            ValueError: it is of another width, or not finite.
        """
        width = 4 * len(self._units)
        count, rest = divmod(len(values) - width, width + 4)
        if rest or not 0 <= count <= MOST_SCENES:
            raise ValueError(
                f"{len(values)} bytes of attention; {width} and {width + 4} for each of at most"
                f" {MOST_SCENES} scenes are expected"
            )
        rows = np.frombuffer(values, "<f4", (1 + count) * len(self._units)).reshape(1 + count, -1)
        lengths = np.linalg.norm(rows / self._units, axis=1)
        if not np.isfinite(lengths).all():
            raise ValueError(f"a correction of length {lengths.max():g}; a number is expected")
        codes = np.frombuffer(values, "<u4", count, (1 + count) * width).tolist()
        self._places = {code: place for place, code in enumerate(codes, 1)}
        self._rows[:] = 0.0
        self._rows[: 1 + count] = rows / np.maximum(lengths, 1.0)[:, None]

    def _place(self, scene: int) -> int | None:
        place = self._places.get(scene)
        if place is None and scene in self._scenes and len(self._places) < MOST_SCENES:
            place = self._places[scene] = 1 + len(self._places)
        return place


def _softmax(scores: Array, target: int) -> tuple[float, NDArray[np.float32]]:
    """Return the cross-entropy of a target, and the chances of all."""
    below = scores - scores.max()
    powers = np.exp(below)
    total = powers.sum()
    return float(np.log(total) - below[target]), np.asarray(powers / total, np.float32)
