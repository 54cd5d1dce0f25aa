"""OnlineCalibration: the calibration of probabilities, kept up with the stream."""

import math

import numpy as np
from numpy.typing import NDArray

from tracker.scoring.calibration import MOST_SCALE, MOST_SHIFT, Calibration


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
        """How far the shift is from the published one, in logits: 0 to MOST_SHIFT."""
        return abs(self.value.shift - self.published.shift)

    def to_bytes(self) -> bytes:
        """Return what was learned and what was published."""
        return self.value.to_bytes()

    def set_bytes(self, values: bytes) -> None:
        """Take over what `to_bytes` gave.

        Raises:
            ValueError: it is no calibration, began at another, or is too far from it.
        """
        found, published = Calibration.from_bytes(values), self.published
        if found.reset() != published.reset():
            raise ValueError(f"the learned calibration began at {found.reset()}, not {published}")
        shift, scale = abs(found.shift - published.shift), found.scale / published.scale
        near = shift <= MOST_SHIFT * 1.001 and abs(math.log(scale)) <= math.log(MOST_SCALE) * 1.001
        if not near:  # nor for NaN
            raise ValueError(
                f"the learned calibration is {shift:g} and {scale:g} times off;"
                f" at most {MOST_SHIFT:g} and {MOST_SCALE:g} times are expected"
            )
        self.value = found


def _log_loss(
    calibration: Calibration, logit: NDArray[np.float32], positive: NDArray[np.bool_]
) -> float:
    chance = float(calibration.probability(logit)[0])
    return -math.log(chance if positive[0] else 1.0 - chance)
