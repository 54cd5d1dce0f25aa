"""Calibration: logits to probabilities, learned once and kept up with the stream in small steps."""

import struct
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

STEP = 0.002
"""Learning rate of an event: the last thousand or so count, and chance moves little."""

MOST_SHIFT = 2.0
"""How far the shift may go from what was published, in logits."""

MOST_SCALE = 2.0
"""How often the scale may be what was published, or a part of it."""

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
