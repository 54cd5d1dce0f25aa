"""Calibration: logits to probabilities, learned once and kept up with the stream in small steps."""

import math
import struct
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

STEP = 0.002
"""Learning rate per event: about the last thousand events count, and chance moves little."""

MOST_SHIFT = 2.0
"""Largest distance of the shift from the published one, in logits."""

MOST_SCALE = 2.0
"""Largest factor between the scale and the published one, in either direction."""

_LAYOUT = struct.Struct("<4d")


@dataclass(frozen=True, slots=True)
class Calibration:
    """Probability = 1 / (1 + exp(-(scale x logit + shift))), after Platt.

    `scale` and `shift` are in force, the published ones are what the artifact has; `scale` is
    above 0, so that a higher logit is a higher probability. Learning gives a new value.
    """

    scale: float
    shift: float
    published_scale: float
    published_shift: float

    @classmethod
    def published(cls, scale: float, shift: float) -> "Calibration":
        """Return what an artifact has, before anything was learned from the stream.

        Raises:
            ValueError: a number is not finite, or the scale not above 0.
        """
        if not (np.isfinite([scale, shift]).all() and scale > 0.0):
            raise ValueError(
                f"calibration has scale {scale} and shift {shift}; finite numbers and a scale"
                " above 0 are expected"
            )
        return cls(scale, shift, scale, shift)

    def probability(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return probabilities of logits of any shape; above 0 and below 1, NaN for NaN."""
        power = np.clip(self.scale * logits.astype(np.float64) + self.shift, -15.0, 15.0)
        return np.asarray(1.0 / (1.0 + np.exp(-power)), np.float32)

    def learn(self, logits: NDArray[np.float32], labels: NDArray[np.bool_]) -> "Calibration":
        """Return the calibration after labelled events, one bounded step of their log loss each.

        Args:
            logits: (L,) as they were before each event, in order; NaN is passed over.
            labels: (L,) whether the event was positive.
        """
        scale, shift = self.scale, self.shift
        least, most = self.published_scale / MOST_SCALE, self.published_scale * MOST_SCALE
        lowest, highest = self.published_shift - MOST_SHIFT, self.published_shift + MOST_SHIFT
        for logit, label in zip(logits.tolist(), labels.tolist(), strict=True):
            if logit != logit:
                continue
            power = min(max(scale * logit + shift, -15.0), 15.0)
            error = STEP * (label - 1.0 / (1.0 + np.exp(-power)))
            shift = min(max(shift + error, lowest), highest)
            scale = min(max(scale + error * min(max(logit, -4.0), 4.0), least), most)
        return replace(self, scale=float(scale), shift=float(shift))

    def reset(self) -> "Calibration":
        """Return what was published."""
        return Calibration.published(self.published_scale, self.published_shift)

    def to_bytes(self) -> bytes:
        """Return four little-endian float64."""
        return _LAYOUT.pack(self.scale, self.shift, self.published_scale, self.published_shift)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Calibration":
        """Read what `to_bytes` wrote.

        Raises:
            ValueError: it is not that.
        """
        if len(data) != _LAYOUT.size:
            raise ValueError(f"a calibration of {len(data)} bytes; {_LAYOUT.size} are expected")
        scale, shift, published_scale, published_shift = _LAYOUT.unpack(data)
        cls.published(scale, shift)
        cls.published(published_scale, published_shift)
        return cls(scale, shift, published_scale, published_shift)


class OnlineCalibration:
    """A calibration that learns, by `Calibration.learn`, from labelled events.

    One thread at a time may use it; what `value` gives does not change any more.

    Args:
        published: the artifact's.
    """

    def __init__(self, published: Calibration) -> None:
        self.published = published
        self.value = published

    def learn(self, logit: NDArray[np.float32], positive: NDArray[np.bool_]) -> tuple[float, float]:
        """Take a step towards a label.

        Args:
            logit: (1,) of the prediction before the event.
            positive: (1,) whether the event was.

        Returns:
            the log loss before the step, by what was learned and by what was published: nats.
        """
        losses = _log_loss(self.value, logit, positive), _log_loss(self.published, logit, positive)
        self.value = self.value.learn(logit, positive)
        return losses

    @property
    def distance(self) -> float:
        """The distance of the shift from the published one, in logits: 0 to MOST_SHIFT."""
        return abs(self.value.shift - self.published.shift)

    def to_bytes(self) -> bytes:
        """Return what was learned and what was published."""
        return self.value.to_bytes()

    def set_bytes(self, values: bytes) -> None:
        """Take over what `to_bytes` gave.

        Raises:
            ValueError: it is no calibration, began at another, or is too far from it.
        """
        learned, published = Calibration.from_bytes(values), self.published
        if learned.reset() != published.reset():
            raise ValueError(f"the learned calibration began at {learned.reset()}, not {published}")
        shift, scale = abs(learned.shift - published.shift), learned.scale / published.scale
        near = shift <= MOST_SHIFT * 1.001 and abs(math.log(scale)) <= math.log(MOST_SCALE) * 1.001
        if not near:  # nor for NaN
            raise ValueError(
                f"the learned calibration is {shift:g} and {scale:g} times off;"
                f" at most {MOST_SHIFT:g} and {MOST_SCALE:g} times are expected"
            )
        self.value = learned


def _log_loss(
    calibration: Calibration, logit: NDArray[np.float32], positive: NDArray[np.bool_]
) -> float:
    chance = float(calibration.probability(logit)[0])
    return -math.log(chance if positive[0] else 1.0 - chance)
