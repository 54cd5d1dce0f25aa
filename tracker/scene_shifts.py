"""SceneShifts: what each scene adds to the users' vectors, learned from the stream."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

MOST_SCENES = 32
"""Scenes of a partition that learn at most, those met first: 8 KiB of a row for D = 64."""

RATE = 0.02
CLIP = 2.0
PULL = 0.001
"""Step, longest gradient and way back of `SceneShifts.learn`, as in `online`."""

RADIUS = 0.5
"""Farthest a scene may move the score of a typical item, in nats."""


class SceneShifts:
    """A vector for each of some scenes, added to what the user encoder looks for.

    Scene attention has such a shift of its own for a scene it knows; this is what is learned on
    top of it, zero at first. Vectors are measured by what they do to the score of an item of
    typical length, in nats: a shift s has the size |s| x the root mean square length of items.
    A scene that scene attention does not know keeps the shared model.

    One thread at a time may use it.

    Args:
        scenes: codes that scene attention knows.
        vectors: (N, E) float32, the items in the encoder's space; column `dim` is their bias.
        dim: width of a user's vector.
    """

    def __init__(self, scenes: tuple[int, ...], vectors: NDArray[np.float32], dim: int) -> None:
        self._known = frozenset(scenes)
        self._vectors = vectors
        self._dim = dim
        lengths = np.square(vectors[:, :dim], dtype=np.float64).sum(axis=1)
        self._unit = float(np.sqrt(lengths.mean())) if len(vectors) else 0.0
        self._places: dict[int, int] = {}
        self._shifts = np.zeros((MOST_SCENES, vectors.shape[1]), np.float32)

    def of(self, scenes: NDArray[np.uint32]) -> NDArray[np.float32]:
        """Return what to add to queries (B, E), asked for in scenes (B,)."""
        out = np.zeros((len(scenes), self._shifts.shape[1]), np.float32)
        for b, scene in enumerate(scenes.tolist()):
            place = self._places.get(scene)
            if place is not None:
                out[b] = self._shifts[place]
        return out

    def learn(
        self, scene: int, wish: NDArray[np.float32], rows: NDArray[Any], target: int
    ) -> tuple[float, float] | None:
        """Take one bounded step of the softmax of the encoder's scores over candidates.

        Args:
            scene: code.
            wish: (E,) what the published model looks for, nothing that was learned in it.
            rows: (C,) of the candidates.
            target: which of them was chosen.

        Returns:
            the loss before the step, with what was learned and without it; None where the scene
            does not learn.
        """
        place = self._place(scene)
        if place is None or not self._unit > 0.0:
            return None
        items = self._vectors[rows]
        shift = self._shifts[place]
        learned, chances = _softmax(items @ (wish + shift), target)
        published, _ = _softmax(items @ wish, target)
        chances[target] -= 1.0
        gradient = (chances @ items[:, : self._dim]) / self._unit
        length = float(np.linalg.norm(gradient))
        step = RATE * min(1.0, CLIP / length) if length > 0.0 else 0.0
        moved = (1.0 - PULL) * shift[: self._dim] - step * gradient / self._unit
        size = float(np.linalg.norm(moved)) * self._unit
        shift[: self._dim] = moved * min(1.0, RADIUS / size) if size > 0.0 else moved
        return learned, published

    @property
    def distance(self) -> float:
        """The size of the largest shift: 0 to RADIUS."""
        return float(np.linalg.norm(self._shifts, axis=1).max()) * self._unit

    def to_bytes(self) -> bytes:
        """Return what was learned: the codes of scenes (uint32), their shifts (float32)."""
        count = len(self._places)
        codes = np.array(list(self._places), "<u4")
        return codes.tobytes() + self._shifts[:count, : self._dim].astype("<f4").tobytes()

    def set_bytes(self, values: bytes) -> None:
        """Take over what `to_bytes` gave, of scene attention with the same weights.

        Raises:
            ValueError: it is of another width, or not finite, or too far off.
        """
        width = 4 + 4 * self._dim
        count, rest = divmod(len(values), width)
        if rest or count > MOST_SCENES:
            raise ValueError(
                f"{len(values)} bytes of scenes; at most {MOST_SCENES} x {width} are expected"
            )
        codes = np.frombuffer(values, "<u4", count).tolist()
        shifts = np.frombuffer(values, "<f4", offset=4 * count).reshape(count, self._dim)
        sizes = np.linalg.norm(shifts, axis=1) * self._unit
        if not (sizes <= RADIUS * 1.01).all():  # nor NaN
            raise ValueError(f"a scene moves by {sizes.max():g}; at most {RADIUS:g} is expected")
        self._places = {code: place for place, code in enumerate(codes)}
        self._shifts[:] = 0.0
        self._shifts[:count, : self._dim] = shifts

    def _place(self, scene: int) -> int | None:
        place = self._places.get(scene)
        if place is None and scene in self._known and len(self._places) < MOST_SCENES:
            place = self._places[scene] = len(self._places)
        return place


def _softmax(scores: Array, target: int) -> tuple[float, NDArray[np.float32]]:
    """Return the cross-entropy of a target, and the chances of all."""
    below = scores - scores.max()
    powers = np.exp(below)
    total = powers.sum()
    return float(np.log(total) - below[target]), np.asarray(powers / total, np.float32)
