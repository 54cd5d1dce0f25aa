"""Forward decay event by event: the reference for the sums that the kernels keep."""

from typing import Any

from numpy.typing import NDArray

from tracker.kernels.arithmetic import decay
from tracker.kernels.native import native

Array = NDArray[Any]


@native
def forward_decay_add(
    total: Array,
    mass: float,
    ref_time: float,
    time: float,
    weight: float,
    vector: Array,
    half_life_seconds: float,
) -> tuple[float, float]:
    """Add one event to a decayed sum, in place; the reference for the stored float32 sums.

    A negative weight takes the same event out again.

    Args:
        total: (D,) the sum, valid for `ref_time`; of any float width.
        mass: the sum of the decayed weights.
        ref_time: seconds; any number while nothing has been added.
        time: seconds, of the event.
        weight: what the vector is multiplied with.
        vector: (D,)
        half_life_seconds: of this sum.

    Returns:
        The new mass and ref_time, which is the later of `ref_time` and `time`.
    """
    if time >= ref_time:
        left = decay(time - ref_time, half_life_seconds)
        added = weight
        ref_time = time
    else:
        left = 1.0
        added = weight * decay(ref_time - time, half_life_seconds)
    for d in range(total.shape[0]):
        total[d] = total[d] * left + added * vector[d]
    return mass * left + added, ref_time
